#!/bin/sh
# Prompts of several sequences together equal prompts alone, in a whole model on the stand-in for the driver.
#
#   prompts.sh BUILD MOSSC TARGET     BUILD: the build folder; TARGET: a100 or h100
#
# The model has every kind of layer, experts, a window that prompts pass and a layer without one. The driver refuses
# what an A100 or an H100 would refuse; it has few multiprocessors, so that blocks have more than a tile, and once those
# of an A100, which no machine here has.
set -eu
[ $# = 3 ] || { echo "usage: prompts.sh BUILD MOSSC TARGET" >&2; exit 2; }
build=$1 mossc=$2 target=$3
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/model.json" <<'JSON'
{"format":"mossnet-graph/1","name":"prompts","vocab_size":50,"d_model":40,"experts":4,"top_k":2,
 "layers":[{"op":"mamba","d_inner":48,"d_state":16},
           {"op":"attention","heads":4,"kv_heads":2,"head_dim":8,"window":7},{"op":"mlp","d_ff":40},
           {"op":"attention","heads":3,"head_dim":16},{"op":"mamba","d_inner":40,"d_state":5}]}
JSON
"$mossc" compile "$work/model.json" --weights random:1 --quant f16 --target "$target" --emit lib -o "$work/libprompts.so"
${CC:-cc} -std=c17 -D_GNU_SOURCE -O1 -o "$work/prompts" "$here/prompts.c" -ldl
library=$(ls "$work"/*.so | head -n 1)
grep -a -o '\.entry [a-z0-9_]*' "$library" | sed 's/\.entry //' | sort -u >"$work/names"
GPU_CASES=$build/tests/gpu_cases EMULATOR=$build/tests/libgpu_emulator.a sh "$here/host_kernels.sh" "$work/names" \
    "$work/kernels" >&2
case $target in a100) sm=80 processors="108 5" ;; *) sm=90 processors=5 ;; esac
for n in $processors; do
    LD_LIBRARY_PATH="$build/tests/fake_cuda${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" \
        MOSS_FAKE_CUDA_KERNELS="$work/kernels" MOSS_FAKE_CUDA_SM=$sm MOSS_FAKE_CUDA_PROCESSORS=$n \
        "$work/prompts" "$library" 6
done
