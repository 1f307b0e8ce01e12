#!/bin/sh
# Runs an artifact for GPUs on the stand-in for the driver: its kernels are compiled for this CPU first.
#
#   fake_run.sh BUILD SM ARTIFACT [ARGUMENT]...     BUILD: the build folder; SM: 80 or 90
#
# Kernels lie beside the artifact as ARTIFACT.kernels and are made anew when it is newer.
set -eu
[ $# -ge 3 ] || { echo "usage: fake_run.sh BUILD SM ARTIFACT [ARGUMENT]..." >&2; exit 2; }
build=$1
sm=$2
artifact=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
kernels=$artifact.kernels
if [ ! "$kernels" -nt "$artifact" ]; then
    grep -a -o '\.entry [a-z0-9_]*' "$artifact" | sed 's/\.entry //' | sort -u >"$artifact.names"
    GPU_CASES=$build/tests/gpu_cases EMULATOR=$build/tests/libgpu_emulator.a sh "$here/host_kernels.sh" \
        "$artifact.names" "$kernels.new" >&2
    mv "$kernels.new" "$kernels"
fi
export LD_LIBRARY_PATH="$build/tests/fake_cuda${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export MOSS_FAKE_CUDA_KERNELS="$kernels" MOSS_FAKE_CUDA_SM="$sm"
exec "$artifact" "$@"
