#!/bin/sh
# The matrix products of MossNet-8x200M+ (two of eight experts) for gemm_bench, as a folder to carry to a machine with
# a GPU: sh FOLDER/run.sh there prints a line for each product and tile; its options are gemm_bench's.
#
#   bench/gpu/gemm.sh GPU_RENDER FOLDER [TOKENS]...     GPU_RENDER: tests/gpu_render in the build folder; TOKENS: 16384
set -eu
[ $# -ge 2 ] || { echo "usage: gemm.sh GPU_RENDER FOLDER [TOKENS]..." >&2; exit 2; }
render=$1 folder=$2
shift 2
pieces=${*:-16384}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"
${CC:-cc} -O2 -std=c17 -D_GNU_SOURCE -o "$folder/gemm_bench" "$here/gemm_bench.c" -ldl -lm
: >"$folder/lines"
n=0 group=0

# instance TEMPLATE SM THREADS BLOCKS TOKENS TOP_K GRID PARAM=VALUE...   TOKENS: pieces, all of them, or a number
instance() {
    template=$1 sm=$2 threads=$3 blocks=$4 tokens=$5 rest="$6 $7"
    shift 7
    n=$((n + 1))
    "$render" ptx "$template" "$sm" "$@" threads="$threads" blocks="$blocks" >"$folder/k$n.ptx" 2>/dev/null
    [ "$tokens" != pieces ] || tokens=$pieces
    for t in $tokens; do
        echo "$group $t k$n.ptx $("$render" name "$template" "$sm" "$@") $t $rest" >>"$folder/lines"
    done
}

# product TOP_K PARAM=VALUE...: on Hopper, and with two tiles of sm_80
product() {
    top_k=$1 group=$((group + 1))
    shift
    sm_80="weight_dtype=2 tile_rows=128 warp_columns=64 stages=3"
    instance gemm_h100 90 384 1 pieces "$top_k" p1 "$@" act=2 tile_columns=256 stages=4
    # shellcheck disable=SC2086
    instance gemm 80 256 1 pieces "$top_k" p1 "$@" act=2 $sm_80 tile_columns=256
    # shellcheck disable=SC2086
    instance gemm 80 128 2 pieces "$top_k" p2 "$@" act=2 $sm_80 tile_columns=128
}

# k K and n N give a shape; what all others have comes after.
k() { echo "n_in=$1 in_stride=$1"; }
n() { echo "n_out=$1 out_stride=$1"; }
grouped="n_experts=8 out_kind=0 has_bias=0"
dense="n_experts=1 in_pairs=0 gated=0"
# shellcheck disable=SC2086,SC2046
{
product 2 $(k 1024) $(n 4096) $grouped in_pairs=0 gated=0 epilogue=0                            # in_proj
product 2 $(k 2048) $(n 1024) $grouped in_pairs=0 gated=1 epilogue=0                            # out_proj
product 2 $(k 1024) n_out=6144 out_stride=3072 $grouped in_pairs=0 gated=0 epilogue=1           # gate and up
product 2 $(k 3072) $(n 1024) $grouped in_pairs=1 gated=1 epilogue=0                            # down
product 1 $(k 1024) $(n 1536) $dense out_kind=0 has_bias=0 epilogue=0                           # q, k, v
product 1 $(k 1024) $(n 1024) $dense out_kind=2 has_bias=0 epilogue=0                           # o
product 2 $(k 512) $(n 2048) $dense out_kind=3 has_bias=8 epilogue=2                            # dt_proj
x_proj="$(k 2048) $(n 96) n_experts=8 in_pairs=0 out_kind=1 gated=0 has_bias=0 epilogue=0 act=2 tile_columns=96"
group=$((group + 1))
instance gemm_h100 90 384 1 pieces 2 p1 $x_proj stages=7
instance gemm 80 128 2 pieces 2 p2 $x_proj weight_dtype=2 tile_rows=128 warp_columns=48 stages=3
head="$(k 1024) $(n 50304) $dense out_kind=1 has_bias=0 epilogue=0 act=2 weight_dtype=2"
group=$((group + 1))
instance gemm 80 64 2 1 1 p2 $head tile_rows=64 tile_columns=64 warp_columns=32 stages=6
q8="$(k 1024) $(n 4096) $grouped in_pairs=0 gated=0 epilogue=0 act=2 weight_dtype=3 tile_rows=128"
group=$((group + 1))
instance gemm 80 256 1 pieces 2 p1 $q8 tile_columns=256 warp_columns=64 stages=3
instance gemm 80 128 2 pieces 2 p2 $q8 tile_columns=128 warp_columns=64 stages=3
instance gemm 80 256 1 pieces 2 p1 $q8 tile_columns=128 warp_columns=32 stages=4
}
# Kernels of the same data follow one another.
sort -s -n -k 1,1 -k 2,2 "$folder/lines" | cut -d ' ' -f 3- >"$folder/cases.txt"
rm "$folder/lines"
printf '%s\n' '#!/bin/sh' 'cd "$(dirname "$0")" && ./gemm_bench "$@" <cases.txt' >"$folder/run.sh"
