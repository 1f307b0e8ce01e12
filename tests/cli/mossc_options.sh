#!/usr/bin/env bash
# Options of mossc that cannot do what they say: refused, early, and in words that help.
#
#   mossc_options.sh MOSSC
# Works in a temporary folder on a tiny graph. Exit code: 0 all well, 1 not.
set -u
mossc=$(realpath "$1")
top=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work/tmp
mkdir "$work/tmp" "$work/empty" "$work/made"
said=$work
. "$top/tests/cli/expect.sh"

# refuse CODE WORDS COMMAND...: in an empty folder that stays empty, with one error and no warning
refuse() {
    cd "$work/empty" || exit 3
    expect "$@"
    [ "$(grep -c 'error\|warning' "$work/stderr")" -eq 1 ] || fail "$*: expected one error alone: $(cat "$work/stderr")"
    [ -z "$(ls -A "$work/empty" "$work/tmp" | grep -v ':$')" ] || fail "$*: left behind: $(ls -A "$work/empty" "$work/tmp")"
    cd "$work/made" || exit 3
}

cat >"$work/tiny.json" <<'JSON'
{ "format": "mossnet-graph/1", "name": "tiny", "vocab_size": 256, "d_model": 32,
  "experts": 4, "top_k": [2, 1], "layers": [ { "op": "mamba" } ] }
JSON
sed 's/"tiny"/"other"/' "$work/tiny.json" >"$work/other.json"
tiny=$work/tiny.json
cd "$work/made" || exit 3
expect 0 "" "$mossc" compile "$tiny" --weights random:1 -o program

# --- An artifact is compiled already ---
for option in "--weights random:1" "--target x86-64-v3" "--target nonsense" "--quant q9" "--cc gcc" "--tokenizer bytes"; do
    for command in run bench eval inspect; do
        case $command$option in inspect--cc* | inspect--tokenizer*) continue ;; esac
        # shellcheck disable=SC2086
        refuse 2 "compiled already" "$mossc" $command "$work/made/program" $option
    done
done
refuse 2 "compiled already" "$mossc" inspect "$work/made/program" --max-rss 3G
refuse 2 "compiled already" "$mossc" inspect "$work/made/program" --experts-per-token 1
expect 0 "context 77, 3 threads" "$mossc" inspect program -c 77 -t 3
expect 0 "generated: 2" "$mossc" run program -n 2 --experts-per-token 1

# --- Names and places ---
for prefix in "" 9lives with-dash "two words" _x int class "$(printf 'a%.0s' $(seq 33))"; do
    refuse 2 "--prefix" "$mossc" compile "$tiny" --emit lib -o out.so --prefix "$prefix"
done
expect 0 "" "$mossc" compile "$tiny" --weights random:1 --emit c -o long.c --prefix "$(printf 'a%.0s' $(seq 32))"
refuse 1 "error[target-quant]" "$mossc" compile "$tiny" --quant q3 -o out
refuse 2 "its header" "$mossc" compile "$tiny" --emit lib -o foo.h
refuse 2 "its manifest" "$mossc" compile "$tiny" --emit static -o manifest.json
for kind in exe lib static obj c; do
    refuse 2 "needs a file" "$mossc" compile "$tiny" --emit $kind -o -
done
cp "$tiny" graph.json && cp "$tiny" manifest.json
expect 2 "is an input" "$mossc" compile graph.json --weights random:1 -o graph.json
expect 2 "is an input" "$mossc" compile graph.json --emit plan -o ./graph.json
expect 2 "is an input" "$mossc" compile manifest.json --weights random:1 --emit lib -o lib.so
cmp -s graph.json "$tiny" && cmp -s manifest.json "$tiny" || fail "an input was replaced"
rm manifest.json
refuse 2 '`--keep` takes no value' "$mossc" compile "$tiny" -o out --keep=yes
refuse 2 '`--json` takes no value' "$mossc" params "$tiny" --json=1

# --- manifest.json of another model ---
expect 0 "" "$mossc" compile "$tiny" --weights random:1 --emit obj -o one.o
expect 0 "" "$mossc" compile "$tiny" --weights random:2 --emit obj -o two.o
[ -s "$work/stderr" ] && fail "a manifest of the same model: $(cat "$work/stderr")"
expect 0 "warning[manifest-replaced]: manifest.json was another model's and is now of other" \
    "$mossc" compile "$work/other.json" --weights random:1 --emit obj -o three.o
grep -q '"name": "other"' manifest.json || fail "manifest.json is not the last one's"

# --- Before anything is compiled, or a checkpoint looked for ---
refuse 2 "no such pass" "$mossc" compile "$tiny" -o out --dump-after nosuch
refuse 1 "--quant q9" "$mossc" compile "$tiny" -o out --quant q9
refuse 3 "is not a program" "$mossc" compile "$tiny" -o out --cc nonexistent-cc
refuse 2 "expected yes, no or auto" "$mossc" compile "$tiny" -o out --embed maybe
refuse 2 "expected bytes" "$mossc" compile "$tiny" -o out --tokenizer words
refuse 2 "expected bytes such as" "$mossc" compile "$tiny" -o out --max-rss much
refuse 2 'unknown option `--nosuch` of mossc run' "$mossc" run "$tiny" --cc false --nosuch
refuse 2 'unknown option `--tmep` of mossc run; did you mean `--temp`?' "$mossc" run "$tiny" --cc false --tmep 0
refuse 2 'unexpected argument `again`' "$mossc" run "$tiny" --cc false again
refuse 2 'unknown option `--temp` of mossc bench' "$mossc" bench "$tiny" --cc false --temp 1
refuse 2 "needs a value" "$mossc" run "$tiny" --cc false -n
refuse 2 "takes no value" "$mossc" run "$tiny" --cc false --step=2
refuse 2 "come first" "$mossc" run -n 5 "$tiny"
foreign=$("$mossc" targets | awk '$2 == "no" { print $1; exit }')
[ -z "$foreign" ] || refuse 3 "cannot run code for $foreign" "$mossc" run "$tiny" --target "$foreign" --cc false
expect 2 "mossc run: error: --n-predict: found 'much'" "$mossc" run "$tiny" --weights random:1 -n much
# Every name the artifact knows is handed on: with a compiler that fails, the check before it did not.
for command in run bench eval; do
    for option in $(./program $command --help | sed -nE 's/^  (-., |    )(--[a-z-]+)( [^ ]+)? .*/\2\3/p' | sed 's/ .*/=1/'); do
        [ "$option" = --help ] && continue
        expect 3 "false failed" "$mossc" $command "$tiny" --weights random:1 --cc false "$option"
    done
done
[ $checks -gt 90 ] || fail "only $checks checks: the artifact's options were not found"

# --- Known, but not there yet ---
refuse 2 'command `verify` is not there yet' "$mossc" verify "$tiny"
for target in $(sed -n 's/^PLANNED(TARGET, *"\([^"]*\)".*/\1/p' "$top/compiler/planned.def"); do
    refuse 2 "target \`$target\` is not there yet" "$mossc" compile "$tiny" -o out --target "$target"
done
refuse 2 'PTX is for a100 and h100' "$mossc" compile "$tiny" -o out --emit ptx
refuse 1 'expected bf16, f16 or q8' "$mossc" compile "$tiny" -o out --target a100 --quant f32
refuse 1 'expected bf16, f16 or q8' "$mossc" compile "$tiny" -o out --target h100 --quant q4
refuse 2 'no such pass for target a100' "$mossc" compile "$tiny" --emit ir --target a100 --dump-after fuse-gates
refuse 2 'no such pass for target x86-64-v3' "$mossc" compile "$tiny" --emit ir --target x86-64-v3 --dump-after join-gates

# --- Weights beside a program that mossc did not name ---
expect 0 "" "$mossc" compile "$tiny" --weights random:1 --emit static --embed no -o libtiny.a
cat >user.c <<'C'
#include "libtiny.h"
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    moss_error error = { 0, "" };
    moss_model *model = malloc(moss_model_len());
    int status = moss_model_open(model, argc > 1 ? argv[1] : NULL, 1, &error);
    puts(error.message);
    free(model);
    return -status;
}
C
expect 0 "" cc user.c libtiny.a -pthread -lm -o user
expect 5 "/user.weights: cannot open the weights: No such file or directory; they belong beside" ./user
expect 0 "" ./user libtiny.a.weights
mv libtiny.a.weights user.weights
expect 0 "" ./user

# --- Help and lists fit a terminal ---
"$mossc" targets | awk 'length > 110 { exit 1 }' || fail "targets: lines too long: $("$mossc" targets)"
expect 0 "MODEL.json -o OUT [OPTIONS]" "$mossc" compile --help
expect 0 "go to standard output" "$mossc" compile --help
expect 0 " MB" ./program info
grep -q MiB "$work/stdout" && fail "info counts in MiB"

echo "mossc_options: $checks checks, $failed failed"
[ "$failed" -eq 0 ]
