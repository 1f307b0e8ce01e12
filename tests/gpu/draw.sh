#!/bin/sh
# Texts that an artifact for GPUs draws, on the stand-in driver, beside those of an artifact for this CPU.
#
#   tests/gpu/draw.sh BUILD MOSSC
# Logits differ in the last bits, so seeds are such that no draw falls between them; a wrong filter, order or step of a
# generator gives other tokens at once.
what="NO TEXT IS DRAWN by kernels for GPUs"
. "$(dirname "$0")/texts.sh"
artifact cpu
artifact gpu --target h100

# check OPTION...
check() {
    on_cpu -n 8 "$@"
    on_gpu 90 "run $*" -n 8 "$@"
    cat got
}
check --temp 1 --top-k 0 --top-p 1 --min-p 0
check --temp 0.8
check --temp 2 --top-k 7 --seed 5
cp want first
check --temp 2 --top-k 7 --seed 6
! cmp -s want first || { echo "FAIL: two seeds, one text: $(cat want)"; exit 1; }
