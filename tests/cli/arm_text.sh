#!/usr/bin/env bash
# The trained model says the same on 64-bit ARM as on x86-64, and a state that one of them wrote goes on on the other.
#
#   arm_text.sh MOSSC
# Matrices in float32, temperature 0; ARM under qemu-aarch64. A state of other weights, of other padding or of another
# graph is refused. Skipped, aloud, without qemu-aarch64, a compiler for ARM, or a CPU for x86-64-v3.
set -u
mossc=$(realpath "$1")
top=$(cd "$(dirname "$0")/../.." && pwd)
skip() { echo "SKIPPED: $*: NOTHING COMPARES ARM's text with x86-64's"; exit 77; }
for tool in qemu-aarch64 aarch64-linux-gnu-gcc; do
    command -v $tool >/dev/null || skip "no $tool"
done
[ -d /usr/aarch64-linux-gnu/lib ] || skip "no C library of 64-bit ARM in /usr/aarch64-linux-gnu"
"$mossc" targets | grep -q '^x86-64-v3 *yes' || skip "this CPU does not run x86-64-v3"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 3
failed=0
fail() { echo "FAIL: $*"; failed=1; }
prompt='ROMEO:
What say you, gentle ' n=160

# build NAME TARGET MODEL [OPTION of mossc]...: a state_tool with the model in it
build() {
    local name=$1 target=$2 model=$3 cc=${CC:-cc} flags
    shift 3
    case $target in arm-*) cc=aarch64-linux-gnu-gcc ;; esac
    mkdir "$name" && "$mossc" compile "$model" --target "$target" "$@" --emit c -o "$name/model.c" || exit 1
    flags=$(sed -n 's/^ \*   cc \(.*\) -c, then.*/\1/p' "$name/model.c")
    # shellcheck disable=SC2086
    $cc $flags -I"$name" -DMODEL_HEADER='"model.h"' -o "$name/tool" "$top/tests/cli/state_tool.c" "$name/model.c" \
        -pthread -lm || exit 1
}

# tool NAME write|read STATE: prints the text that follows
tool() {
    local run=()
    [[ $1 != arm* ]] || run=(qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu)
    "${run[@]}" "./$1/tool" "$2" "$3" "$1/model.c.weights" "$prompt" $n
}

model=$top/models/shakespeare/shakespeare.json
build x86 x86-64-v3 "$model" --quant f32
build arm arm-neon "$model" --quant f32
build arm_i8mm arm-i8mm "$model" --quant f32
tool x86 write x86.state >x86.text || fail "x86-64 wrote no state"
tool arm write arm.state >arm.text || fail "ARM wrote no state"
[ "$(tr -dc 'a-z' <x86.text | wc -c)" -gt $((n / 2)) ] || fail "this is no text: $(cat x86.text)"
cmp x86.text arm.text || fail "on ARM: $(cat arm.text); on x86-64: $(cat x86.text)"
tool arm read x86.state >x86_arm.text && cmp x86.text x86_arm.text || fail "x86-64's state on ARM: $(cat x86_arm.text)"
tool x86 read arm.state >arm_x86.text && cmp x86.text arm_x86.text || fail "ARM's state on x86-64: $(cat arm_x86.text)"
tool arm_i8mm read x86.state >i8mm.text && cmp x86.text i8mm.text || fail "x86-64's state on arm-i8mm: $(cat i8mm.text)"

# refuse WORDS NAME STATE
refuse() {
    tool "$2" read "$3" >/dev/null 2>stderr && fail "$2 took $3"
    grep -qF -- "$1" stderr || fail "$2, $3: expected '$1', found: $(cat stderr)"
}
cat >even.json <<'JSON'
{ "format": "mossnet-graph/1", "name": "even", "vocab_size": 256, "d_model": 64, "experts": 2, "top_k": [1],
  "layers": [ { "op": "mamba" } ] }
JSON
sed 's/"d_model": 64/"d_model": 36/' even.json >odd.json
sed 's/"d_model": 64/"d_model": 64, "norm_eps": 1e-4/' even.json >near.json
for name in even odd; do
    build x86_$name x86-64-v3 $name.json --weights random:1
    tool x86_$name write $name.state >/dev/null || fail "x86_$name wrote no state"
    build arm_$name arm-neon $name.json --weights random:1
done
build arm_near arm-neon near.json --weights random:1
build arm_other arm-neon even.json --weights random:2
tool arm_even read even.state >/dev/null || fail "a state of the same random weights is refused"
refuse "a state of model" arm_odd odd.state        # 72 channels: 5 panels of 16 there, 9 of 8 here
refuse "a state of model" arm_near even.state
refuse "a state of other weights" arm_other even.state
exit $failed
