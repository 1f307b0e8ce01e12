# What the tests of programs and libraries for Android share: a folder to work in, a tiny model, checks. To be sourced.
skip() { echo "SKIPPED: $*"; exit 77; }
need() { for tool in "$@"; do command -v "$tool" >/dev/null || skip "no $tool"; done; }
failed=0
fail() { echo "FAIL: $*"; failed=1; }
is() { [ "$2" = "$3" ] || fail "$1: $2, expected $3"; }

# Float32 logits that differ by more than rounding: 1e-3, where they are of the order of one.
differ() {
    [ "$(stat -c %s "$1")" -gt 0 ] && [ "$(stat -c %s "$1")" = "$(stat -c %s "$2")" ] || { echo sizes; return; }
    paste <(od -An -v -w4 -tf4 "$1") <(od -An -v -w4 -tf4 "$2") \
        | awk '{ d = $1 - $2; if (!(d * d <= 1e-6)) n++ } END { print n + 0 }'
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
here=$(cd "$(dirname "$0")" && pwd)
cd "$work" || exit 3
cat >tiny.json <<'JSON'
{ "format": "mossnet-graph/1", "name": "tiny", "vocab_size": 256, "d_model": 32,
  "experts": 4, "top_k": [2, 1], "layers": [ { "op": "mamba" },
  { "op": "attention", "heads": 2, "kv_heads": 1 }, { "op": "mlp", "d_ff": 48 } ] }
JSON
