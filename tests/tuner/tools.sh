# What the tests of `mossc tune` share: a tiny graph, a folder of their own, `expect`, trials in a database. Sourced with
# MOSSC as $1.
mossc=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work/tmp
mkdir "$work/tmp"
cd "$work" || exit 3
failed=0

fail() { echo "FAIL: $*"; failed=$((failed + 1)); }
finish() {
    [ $failed -eq 0 ] && echo "$1: ok"
    exit $((failed != 0))
}

# expect CODE WORDS COMMAND...: the exit code, and WORDS somewhere in what it says; nothing left behind
expect() {
    local code=$1 words=$2 found
    shift 2
    "$@" >stdout 2>stderr </dev/null
    found=$?
    [ $found -eq "$code" ] || fail "$*: exit $found, expected $code: $(tail -5 stderr)"
    [ -z "$words" ] || grep -qaF -- "$words" stdout stderr || fail "$*: no '$words' in: $(tail -n 5 stdout stderr)"
    [ -z "$(ls -A tmp)" ] || fail "$*: left behind: $(ls -A tmp)"
}

# points DB: kernel, shape and point of every trial at the token count that decides. Other token counts are measured
# where a point won, and whole models at the end, which times say.
points() {
    "$mossc" db export "$1" --format csv |
        sed -nE 's/^[0-9a-f]+,([^,]+),([^,]* t(512|1)),.*,[0-9a-f]+,([a-z_]+=[^,]*),(ok|stopped|crashed|hung|runner-failed),.*/\1 \2 \4/p' |
        grep -v '^step' | sort
}
count() { points "$1" 2>/dev/null | wc -l; }

# statuses DB: how many trials of each
statuses() {
    "$mossc" db export "$1" --format csv | sed -nE 's/.*,[a-z_]+=[^,]*,(ok|stopped|wrong|crashed|hung|build-failed|runner-failed),.*/\1/p' | sort | uniq -c | tr -s ' ' | tr '\n' ';'
}

cat >tiny.json <<'JSON'
{ "format": "mossnet-graph/1", "name": "tiny", "vocab_size": 256, "d_model": 32,
  "experts": 4, "top_k": [2], "layers": [ { "op": "mamba" }, { "op": "mlp", "d_ff": 48 } ] }
JSON
