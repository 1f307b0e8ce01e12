#!/bin/sh
# Texts that an artifact for GPUs draws, on the stand-in driver, beside those of an artifact for this CPU.
#
#   tests/gpu/draw.sh BUILD MOSSC
# Logits differ in the last bits, so seeds are such that no draw falls between them; a wrong filter, order or step of a
# generator gives other tokens at once.
set -eu
build=$(realpath "$1") mossc=$(realpath "$2")
here=$(cd "$(dirname "$0")" && pwd)
[ -f "$build/tests/libgpu_emulator.a" ] || { echo "SKIPPED: built without LLVM: NO TEXT IS DRAWN by kernels for GPUs"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$mossc" compile "$here/../../docs/example.json" --weights random:3 --quant f16 -o cpu
"$mossc" compile "$here/../../docs/example.json" --weights random:3 --quant f16 --target h100 -o gpu
# check OPTION...
check() {
    ./cpu run --tokens 1,2,3 -n 8 "$@" >want 2>err || { cat err; exit 1; }
    sh "$here/fake_run.sh" "$build" 90 ./gpu run --tokens 1,2,3 -n 8 "$@" >got 2>err || { cat err; exit 1; }
    cmp want got || { echo "FAIL: run $*: $(cat got), expected $(cat want)"; exit 1; }
    cat got
}
check --temp 1 --top-k 0 --top-p 1 --min-p 0
check --temp 0.8
check --temp 2 --top-k 7 --seed 5
cmp -s want first || cp want first
check --temp 2 --top-k 7 --seed 6
! cmp -s want first || { echo "FAIL: two seeds, one text: $(cat want)"; exit 1; }
