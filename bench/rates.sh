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

# loop FUNCTION PRODUCT [PART]: the best of the first model, to a file; prints how many products it has. Of a scan's
# states the fastest: where a block has small powers a slower one runs.
loop() {
    rm -f "$work"/found*
    awk -v function_name="$1" -v product="$2" -v part="${3:-}" -v out="$work/found" -f "$root/bench/loops.awk" \
        "$work/k.s" || { echo "rates.sh: $target has no loop of $1" >&2; exit 3; }
    for found in "$work"/found*; do
        n=$(sed -n 's/^# products //p' "$found")
        [ "${3:-}" != states ] || n=1
        echo "$n $(cycles "${models%% *}" "$triple" "$found") $found"
    done | awk '$1 / $2 > most { most = $1 / $2; best = $3 } END { print best }' >"$work/best"
    mv "$(cat "$work/best")" "$work/loop${3:-}"
    sed -n 's/^# products //p' "$work/loop${3:-}"
}

# row CLASS OPERATIONS CYCLES: for $model
row() {
    awk -v start="RATE(\"$model\", \"$target\", $1" -v operations="$2" -v took="$3" \
        'BEGIN { if (!(took > 0)) exit 1; printf "%s, %.1f)\n", start, operations / took }' ||
        { echo "rates.sh: $mca failed for $model, $target, $1" >&2; exit 3; }
}

# rate CLASS FUNCTION PRODUCT OPERATIONS: a row a core model. OPERATIONS: of one instruction that matches PRODUCT.
rate() {
    n=$(loop "$2" "$3")
    for model in $models; do
        row "$1" $((n * $4)) "$(cycles "$model" "$triple" "$work/loop")"
    done
}

# rate_scan PRODUCT OPERATIONS: of a token's states, with their share of the gates.
rate_scan() {
    loop '^scan_' "$1" gates >/dev/null
    loop '^scan_' "$1" states >/dev/null
    for model in $models; do
        gates=$(cycles "$model" "$triple" "$work/loopgates") states=$(cycles "$model" "$triple" "$work/loopstates")
        row SCAN "$2" "$(echo "$gates $states" | awk '{ print $1 + $2 }')"
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
# target; models; the instruction of int8 products in prefill and in decode, and of float ones, each with its
# operations; floats of a vector. x86-64-bf16 has no rows: mossc devices has no such core.
arm="neoverse-v2 neoverse-v1 neoverse-n2 neoverse-n1 cortex-a510 cortex-a55"
i8mm="neoverse-v2 neoverse-v1 neoverse-n2 cortex-a510"
b='[[:blank:]]'
while IFS=';' read -r target models gemm gemm_ops gemv gemv_ops fma fma_ops lanes; do
    case $target in
    arm-*) triple=aarch64-linux-gnu cc="clang-19 --target=aarch64-linux-gnu" ;;
    *) triple=x86_64-linux-gnu cc=gcc ;;
    esac
    assembly q8
    rate GEMM_Q8 '^(dot_tile_[0-9]+|gemm_q)' "$gemm" "$gemm_ops"
    rate GEMV_Q8 '^gemv_q' "$gemv" "$gemv_ops"
    rate_scan "$fma" $((16 * lanes * 8))
    assembly q4
    rate GEMM_Q4 '^(dot_tile_[0-9]+|pair_tile_[0-9]+|gemm_q)' "$gemm" "$gemm_ops"
    rate GEMV_Q4 '^gemv_q' "$gemv" "$gemv_ops"
    assembly bf16
    rate GEMM_FLOAT '^(tile_[0-9]+|bf16_tile_[0-9]+|gemm_)' "$fma" "$fma_ops"
    rate GEMV_FLOAT '^gemv_' "$fma" "$fma_ops"
done <<TARGETS
arm-neon;$arm;^${b}s(mull2?|mlal2?)${b};16;^${b}s(mull2?|mlal2?)${b};16;^${b}fml[as]${b};8;4
arm-dotprod;$arm;^${b}sdot${b};32;^${b}sdot${b};32;^${b}fml[as]${b};8;4
arm-i8mm;$i8mm;^${b}smmla${b};64;^${b}sdot${b};32;^${b}fml[as]${b};8;4
x86-64-v3;cascadelake alderlake;vpmaddubsw;64;vpmaddubsw;64;vfn?m(add|sub)[0-9]*ps;16;8
x86-64-avxvnni;alderlake;vpdpbusd;64;vpdpbusd;64;vfn?m(add|sub)[0-9]*ps;16;8
x86-64-v4;cascadelake;vpmaddubsw;128;vpmaddubsw;128;vfn?m(add|sub)[0-9]*ps;32;16
x86-64-vnni;cascadelake;vpdpbusd;128;vpdpbusd;128;vfn?m(add|sub)[0-9]*ps;32;16
TARGETS
