#!/usr/bin/env bash
# mossc import as a user calls it: options, exit codes, what is left behind; and the logits of
# compiled imports against those of transformers.
#
#   tests/cli/import_cli.sh MOSSC      run in the repository root
# Output: one line for each failure. Exit code: 0 none, 1 some, 2 usage, 77 no C compiler.
set -u
[ $# -eq 1 ] || { echo "usage: import_cli.sh MOSSC" >&2; exit 2; }
mossc=$1 failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() { echo "FAIL: $*"; failed=1; }

# expect CODE WORDS ARGUMENT...: exit code, and words on stdout or stderr
expect() {
    local code=$1 words=$2
    shift 2
    "$mossc" "$@" >"$work/said" 2>&1
    local got=$?
    [ "$got" -eq "$code" ] || fail "mossc $*: exit $got, expected $code: $(cat "$work/said")"
    [ -z "$words" ] || grep -qF -- "$words" "$work/said" || fail "mossc $*: no \"$words\" in: $(cat "$work/said")"
}

# error FOUND EXPECTED: largest difference over the largest expected value; both raw float32
error() {
    paste -d ' ' <(od -An -v -w4 -tf4 "$1") <(od -An -v -w4 -tf4 "$2") | awk '
        function size(x) { return x < 0 ? -x : x }
        NF != 2 || $1 != $1 + 0 { bad = 1 }
        { d = size($1 - $2); if (d > worst) worst = d; if (size($2) > largest) largest = size($2) }
        END { print bad || NR == 0 ? "inf" : worst / largest }'
}

command_line() {
    expect 0 "-o, --output FOLDER" import --help
    expect 0 "a Hugging Face checkpoint" --help
    expect 2 "usage: mossc import HF_FOLDER -o FOLDER" import
    expect 2 "is missing: where the model goes" import tests/data/import/llama
    expect 2 "unknown option" import tests/data/import/llama -o "$work/out" --quant q8
    expect 3 "config.json: error[file-read]" import "$work/not-there" -o "$work/out"
    mkdir "$work/jamba"
    echo '{ "model_type": "jamba" }' >"$work/jamba/config.json"
    expect 1 "cannot be expressed: its mamba layers normalise" import "$work/jamba" -o "$work/out"
    cp -r tests/data/import/llama "$work/short"
    head -c 20000 tests/data/import/llama/model.safetensors >"$work/short/model.safetensors"
    expect 1 "error[weights-format]" import "$work/short" -o "$work/out"
    [ -e "$work/out" ] && fail "a refused import left a folder"
    expect 0 "llama, 4 layers, 10680 parameters" import tests/data/import/llama -o "$work/out"
    cmp -s "$work/out/model.json" - <<'GRAPH' || fail "another graph: $(cat "$work/out/model.json")"
{ "format": "mossnet-graph/1", "name": "llama",
  "vocab_size": 40, "d_model": 24, "norm_eps": 1e-06, "tie_embeddings": false,
  "layers": [
    { "repeat": 2, "of": [
      { "op": "attention", "heads": 4, "kv_heads": 2, "rope_theta": 10000 },
      { "op": "mlp", "d_ff": 36 } ] }
  ] }
GRAPH
}

# A full disk: no half of a model, and an older import stays as it is.
full_disk() {
    cp "$work/out/model.safetensors" "$work/before"
    (ulimit -f 8; trap '' XFSZ; "$mossc" import tests/data/import/mamba -o "$work/out" >"$work/said" 2>&1)
    local got=$?
    [ "$got" -eq 3 ] || fail "a full disk: exit $got: $(cat "$work/said")"
    grep -q 'error\[file-write\]' "$work/said" || fail "a full disk: $(cat "$work/said")"
    cmp -s "$work/before" "$work/out/model.safetensors" || fail "a failed import touched the one before"
    [ -e "$work/out/model.json" ] || fail "a failed import removed the one before"
}

compiled() {
    local folder name found
    for folder in tests/data/import/*/; do
        name=$(basename "$folder")
        expect 0 "$name" import "$folder" -o "$work/$name"
        expect 0 "" compile "$work/$name/model.json" -o "$work/$name/program"
        for mode in "" --step "--chunk 5"; do
            # shellcheck disable=SC2086
            "$work/$name/program" run --tokens "$(cat "$folder/tokens.txt")" $mode --logits "$work/logits" >"$work/said" 2>&1 \
                || fail "$name: the program fails: $(cat "$work/said")"
            found=$(error "$work/logits" "$folder/logits.f32")
            awk -v e="$found" 'BEGIN { exit !(e + 0 <= 1e-4 && e != "inf") }' || fail "$name $mode: relative error $found"
        done
    done
}

command_line
full_disk
left=$(find "$work" -maxdepth 1 -name '*.building-*')
[ -z "$left" ] || fail "left behind: $left"
if ! command -v cc gcc clang >/dev/null; then
    [ $failed -eq 0 ] && echo "import: no C compiler, nothing was compiled" && exit 77
else
    compiled
fi
[ $failed -eq 0 ] && echo "import: ok"
exit $failed
