#!/bin/sh
# A text of one sequence whose mamba layers are one launch, on the stand-in driver, beside those of the usual launches
# and of this CPU.
#
#   tests/gpu/chain.sh BUILD MOSSC
# docs/example.json has eight blocks a launch: a device of eight multiprocessors takes it, one of seven does not. Sums are in
# another order in each of the three, so the seed is one whose largest logits are clear ones.
set -eu
build=$(realpath "$1") mossc=$(realpath "$2")
here=$(cd "$(dirname "$0")" && pwd)
[ -f "$build/tests/libgpu_emulator.a" ] || { echo "SKIPPED: built without LLVM: NO LAYERS ARE RUN by one launch"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$mossc" compile "$here/../../docs/example.json" --weights random:3 --quant f16 --target a100 --emit plan -o plan
grep -q 'decode_chain grid 8 x 1.*one sequence' plan || { echo "FAIL: the plan has no launch of eight blocks"; exit 1; }
"$mossc" compile "$here/../../docs/example.json" --weights random:3 --quant f16 -o cpu
"$mossc" compile "$here/../../docs/example.json" --weights random:3 --quant f16 --target a100 -o gpu
./cpu run --tokens 1,2,3 -n 6 --temp 0 >want 2>err || { cat err; exit 1; }
for processors in 8 7; do
    MOSS_FAKE_CUDA_PROCESSORS=$processors sh "$here/fake_run.sh" "$build" 80 ./gpu run --tokens 1,2,3 -n 6 --temp 0 \
        >got 2>err || { cat err; exit 1; }
    cmp want got || { echo "FAIL: with $processors multiprocessors: $(cat got), expected $(cat want)"; exit 1; }
done
cat want
