#!/bin/sh
# What llvm-mca says of the kernels mossc writes: operations a cycle, for each core it has a model of.
#
#   bench/rates.sh [MOSSC] >compiler/rates.def
#
# A small model is compiled to C for every target and storage, by the compiler mossc would take (clang-19 for ARM), and
# the innermost loop of each kind of kernel goes through llvm-mca: everything in the first cache, nothing waits. A
# multiply-add counts two; of the scan 8 a state element, as `inspect` counts them.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mossc=${1:-$root/build/mossc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mca=${MCA:-llvm-mca-19}
command -v "$mca" >/dev/null || { echo "rates.sh: no $mca (Debian: llvm-19)" >&2; exit 3; }

cat >"$work/model.json" <<'JSON'
{ "format": "mossnet-graph/1", "name": "rates", "vocab_size": 256, "d_model": 512, "experts": 4, "top_k": [2],
  "layers": [ { "op": "mamba" }, { "op": "mlp", "d_ff": 1024 } ] }
JSON

# cycles MODEL TRIPLE FILE: of one pass through the loop
cycles() {
    "$mca" -mtriple="$2" -mcpu="$1" -iterations=200 "$3" 2>/dev/null | awk '/^Total Cycles/ { print $3 / 200 }'
}

# rate CLASS FUNCTION PRODUCT OPERATIONS [all]: one row a core model. OPERATIONS: of one instruction that matches
# PRODUCT; with `all`, of a pass through all loops of the function.
rate() {
    awk -v function_name="$2" -v product="$3" -v all="${5:-}" -f "$root/bench/loops.awk" "$work/k.s" >"$work/loop" ||
        { echo "rates.sh: $target has no loop of $2" >&2; return 1; }
    n=1
    [ -n "${5:-}" ] || n=$(sed -n 's/^# products //p' "$work/loop")
    for model in $models; do
        took=$(cycles "$model" "$triple" "$work/loop")
        [ -n "$took" ] || { echo "rates.sh: $mca failed for $model, $target, $1" >&2; exit 3; }
        awk -v model="$model" -v target="$target" -v class="$1" -v ops=$((n * $4)) -v took="$took" \
            'BEGIN { printf "RATE(\"%s\", \"%s\", %s, %.1f)\n", model, target, class, ops / took }'
    done
}

# assembly QUANT: of the model's kernels, to k.s
assembly() {
    "$mossc" compile "$work/model.json" --weights random:1 --target "$target" --quant "$1" --emit c -o "$work/k.c"
    # The flags are those of the file's first comment.
    flags=$(sed -n 's/^ \*   [^ ]* \(.*\) -c, then link.*/\1/p' "$work/k.c")
    # shellcheck disable=SC2086
    $cc $flags -S "$work/k.c" -o "$work/k.s"
}

cat <<'TEXT'
/* Operations a cycle of the emitted kernels on one core, all data in its first cache: made by bench/rates.sh.
 *
 * RATE(llvm-mca's model, target, class, operations)
 */
TEXT
# target; models; triple; the instruction of int8 products in prefill and in decode, and of float ones, each with its
# operations; floats of a vector
while IFS=';' read -r target models triple gemm gemm_ops gemv gemv_ops fma fma_ops lanes; do
    case $triple in aarch64*) cc="clang-19 --target=$triple" ;; *) cc=gcc ;; esac
    assembly q8
    rate GEMM_Q8 '^(dot_tile_[0-9]+|gemm_q)' "$gemm" "$gemm_ops"
    rate GEMV_Q8 '^gemv_q' "$gemv" "$gemv_ops"
    rate SCAN '^scan_' "$fma" $((16 * lanes * 8)) all
    assembly q4
    rate GEMM_Q4 '^(dot_tile_[0-9]+|pair_tile_[0-9]+|gemm_q)' "$gemm" "$gemm_ops"
    rate GEMV_Q4 '^gemv_q' "$gemv" "$gemv_ops"
    assembly bf16
    rate GEMM_FLOAT '^(tile_[0-9]+|bf16_tile_[0-9]+|gemm_)' "$fma" "$fma_ops"
    rate GEMV_FLOAT '^gemv_' "$fma" "$fma_ops"
done <<'TARGETS'
arm-neon;neoverse-v2 neoverse-v1 neoverse-n2 neoverse-n1 cortex-a510 cortex-a55;aarch64-linux-gnu;^[ \t]s(mull2?|mlal2?)[ \t];16;^[ \t]s(mull2?|mlal2?)[ \t];16;^[ \t]fml[as][ \t];8;4
arm-dotprod;neoverse-v2 neoverse-v1 neoverse-n2 neoverse-n1 cortex-a510 cortex-a55;aarch64-linux-gnu;^[ \t]sdot[ \t];32;^[ \t]sdot[ \t];32;^[ \t]fml[as][ \t];8;4
arm-i8mm;neoverse-v2 neoverse-v1 neoverse-n2 cortex-a510;aarch64-linux-gnu;^[ \t]smmla[ \t];64;^[ \t]sdot[ \t];32;^[ \t]fml[as][ \t];8;4
x86-64-v3;cascadelake alderlake;x86_64-linux-gnu;vpmaddubsw;64;vpmaddubsw;64;vfn?m(add|sub)[0-9]*ps;16;8
x86-64-avxvnni;alderlake;x86_64-linux-gnu;vpdpbusd;64;vpdpbusd;64;vfn?m(add|sub)[0-9]*ps;16;8
x86-64-v4;cascadelake;x86_64-linux-gnu;vpmaddubsw;128;vpmaddubsw;128;vfn?m(add|sub)[0-9]*ps;32;16
x86-64-vnni;cascadelake;x86_64-linux-gnu;vpdpbusd;128;vpdpbusd;128;vfn?m(add|sub)[0-9]*ps;32;16
TARGETS
