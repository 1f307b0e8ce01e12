#!/bin/sh
# A text of one sequence whose mamba layers are one launch, on the stand-in driver, beside those of the usual launches
# and of this CPU.
#
#   tests/gpu/chain.sh BUILD MOSSC
# docs/example.json has eight panels: a device of eight multiprocessors, or more (an A100 has 108), has a block for
# each, on one of seven or six some blocks have two, and five are too few. Sums are in another order in each of the
# three, so the seed is one whose largest logits are clear ones.
what="NO LAYERS ARE RUN by one launch"
. "$(dirname "$0")/texts.sh"
artifact plan --target a100 --emit plan
grep -q 'decode_chain grid 6..8 x 1.*one sequence' plan || { echo "FAIL: the plan has no launch of six to eight blocks"; exit 1; }
artifact cpu
artifact gpu --target a100
on_cpu -n 6 --temp 0
for processors in 132 108 8 7 6 5; do
    export MOSS_FAKE_CUDA_PROCESSORS=$processors
    on_gpu 80 "with $processors multiprocessors" -n 6 --temp 0
done
cat want
