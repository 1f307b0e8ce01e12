#!/usr/bin/env bash
# The page of mossc db show --html: everything in it, nothing fetched, every mark there, and in a browser no text over
# other text, no text outside its picture, enough contrast, no sideways scrolling, light and dark, wide and narrow.
#
#   tests/tuner/report.sh MOSSC RECORDS_TOOL [DATABASE]
# With DATABASE its page alone, which must have a roofline.
# Output: one line for each failure. Exit code: 0 none, 1 some, 2 usage, 77 no chromium (the rest is checked before).
set -u
[ $# -eq 2 ] || [ $# -eq 3 ] || { echo "usage: report.sh MOSSC RECORDS_TOOL [DATABASE]" >&2; exit 2; }
mossc=$1 tool=$2 given=${3:-} failed=0
names=${given:+given}
names=${names:-searches random gpu}
work=$(mktemp -d)
fast=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)")    # each trial is waited for
trap 'rm -rf "$work" "$fast"' EXIT

fail() { echo "FAIL: $*"; failed=1; }

# same WHAT FOUND EXPECTED
same() { [ "$2" = "$3" ] || fail "$1: $2, expected $3"; }

count() { grep -o -- "$1" "$2" | wc -l; }

make_pages() {
    if [ -n "$given" ]; then
        cp "$given" "$fast/given.db" || fail "no database"
    else
        "$tool" searches "$fast/searches.db" 1 40 || fail "no database"
        "$tool" random "$fast/random.db" 0 300 5 || fail "no database"
        "$tool" gpu "$fast/gpu.db" 1 40 || fail "no database"
    fi
    for name in $names; do
        "$mossc" db show "$fast/$name.db" --html "$work/$name.html" || fail "$name: no page"
        "$mossc" db show "$fast/$name.db" --html "$work/again.html"
        cmp -s "$work/$name.html" "$work/again.html" || fail "$name: two pages of one database differ"
    done
}

# What stands in the page, against the records themselves.
static_checks() {
    local page=$work/$1.html db=$fast/$1.db n_failures n_kernels
    for word in '://' '<script' 'url(' ' src=' ' href=' '@import' '<link'; do
        grep -qF -- "$word" "$page" && fail "$1: the page holds $word"
    done
    head -c 15 "$page" | grep -q '<!DOCTYPE html>' || fail "$1: no doctype"
    "$mossc" db export "$db" --format json >"$work/export.json"
    n_failures=$(grep -cE '"status": "(wrong|build-failed|crashed|hung|runner-failed)"' "$work/export.json")
    n_kernels=$("$mossc" db show "$db" --json | grep -c '"template_hash"')
    same "$1: crosses" "$(count '<path class="failed" d="[^"]*"><title>' "$page")" "$n_failures"
    same "$1: circles of trials stopped early" "$(count '<circle class="stopped"[^>]*><title>' "$page")" \
        "$(grep -c '"status": "stopped"' "$work/export.json")"
    same "$1: dots" "$(count '<circle class="ok"[^>]*><title>' "$page")" "$(grep -c '"status": "ok"' "$work/export.json")"
    same "$1: curves" "$(count '<figure class="curve">' "$page")" "$n_kernels"
    same "$1: rows of bars" "$(count '<div class="row">' "$page")" "$n_kernels"
}

# Measures the page in a browser and writes what it found into it.
probe() {
    cat <<'SCRIPT'
<script>
addEventListener('load', () => {
  document.querySelectorAll('details').forEach(details => { details.open = true })
  const bad = []
  const luminance = color => color.map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0)
  const numbers = text => text.match(/[\d.]+/g).slice(0, 3).map(Number)
  const ground = element => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor
      if (!/, 0\)$|transparent/.test(color)) return numbers(color)
    }
  }
  const contrast = (a, b) => { const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05) }
  for (const svg of document.querySelectorAll('figure svg')) {
    const texts = [...svg.querySelectorAll('text')], frame = svg.getBoundingClientRect()
    const boxes = texts.map(t => t.getBoundingClientRect())
    boxes.forEach((a, i) => {
      const what = texts[i].textContent
      if (a.width < 2) bad.push('empty text')
      if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 1 || a.bottom > frame.bottom + 1)
        bad.push('outside: ' + what)
      for (let j = 0; j < i; j++) {
        const b = boxes[j]
        if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2)
          bad.push('over each other: ' + what + ' and ' + texts[j].textContent)
      }
      const ratio = contrast(numbers(getComputedStyle(texts[i]).fill), ground(svg))
      if (ratio < 4.5) bad.push('contrast ' + ratio.toFixed(1) + ': ' + what)
    })
  }
  for (const e of document.querySelectorAll('h1, h2, h3, p, small, td, th, b, em, .point, .legend')) {
    const ratio = contrast(numbers(getComputedStyle(e).color), ground(e))
    if (ratio < 4.5) bad.push('contrast ' + ratio.toFixed(1) + ': ' + e.textContent.slice(0, 40))
  }
  if (document.documentElement.scrollWidth > innerWidth + 1) bad.push('scrolls sideways: ' + document.documentElement.scrollWidth)
  for (const entry of performance.getEntriesByType('resource')) bad.push('fetched: ' + entry.name)
  document.body.innerHTML = ''
  document.body.textContent = 'probe: ' + (bad.length ? bad.length + ' found: ' + bad.slice(0, 8).join('; ') : 'ok') + ' :end'
})
</script>
SCRIPT
}

# look NAME WIDTH light|dark: what the browser found
look() {
    local page=$work/probe.html
    { cat "$work/$1.html"; probe; } >"$page"
    [ "$3" = dark ] && sed -i 's/prefers-color-scheme: dark/min-width: 1px/' "$page"
    timeout 120 chromium --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --window-size="$2,1000" \
        --host-resolver-rules='MAP * ~NOTFOUND' --dump-dom "file://$page" 2>"$work/words" | grep -o 'probe: .* :end'
}

in_browser() {
    local said
    said=$(look "$@")
    [ "$said" = "probe: ok :end" ] || fail "$1, $2 pixels, $3: ${said:-the browser said nothing: $(tail -3 "$work/words")}"
}

# roofed NAME: a roof with words, and a dot for each kernel of which operations, bytes and a time are known
roofed() {
    local page=$work/$1.html db=$fast/$1.db n
    n=$("$mossc" db show "$db" --json | grep -cE '"best_seconds": [0-9]')
    same "$1: roofs" "$(count '<path class="roof" d="[^"]*"/>' "$page")" 1
    same "$1: words on the roof" "$(count 'B/s</text>' "$page") $(count 'op/s</text>' "$page")" "1 1"
    same "$1: dots below it" "$(count '<circle class="after"[^>]*><title>' "$page")" "$n"
}

make_pages
for name in $names; do
    static_checks $name
    case $name in gpu | given) roofed $name ;; esac
done
if ! command -v chromium >/dev/null; then
    [ $failed -eq 0 ] || exit 1
    echo "SKIPPED: no chromium: the page was not looked at in a browser"
    exit 77
fi
for theme in light dark; do
    for name in $names; do
        in_browser $name 1200 $theme
        [ $name = random ] || in_browser $name 500 $theme
    done
done
[ -z "$given" ] || { [ $failed -eq 0 ] && echo "report of $given: ok"; exit $failed; }
# The probe itself: a page with faults put in.
sed 's|\(<text class="tick end"[^>]*>[^<]*</text>\)|\1\1|; s|<main>|<main><img src="file:///nothing.png">|
    s|--soft: #5b6470|--soft: #c0c0c0|' "$work/searches.html" >"$work/faulty.html"
said=$(look faulty 1200 light)
for words in "over each other" "contrast"; do
    case $said in *"$words"*) ;; *) fail "the probe does not see \"$words\": $said" ;; esac
done
[ $failed -eq 0 ] && echo "report: ok"
exit $failed
