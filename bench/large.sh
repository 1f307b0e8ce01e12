#!/bin/sh
# MossNet-8x200M+ from end to end: too large for the tests (3.1 GB of weights, 25 s of packing).
#
#   bench/large.sh [THREADS]
#
# Compiles it with random:1 weights in bf16 for this CPU, runs a prompt of 512 and generates, in both
# modes, and compares the peak memory the kernel counted with what inspect said beforehand.
# Fails when they differ by more than 3 %.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=${BUILD:-$root/build}
threads=${1:-$(nproc)}
[ -d "$build" ] || cmake -S "$root" -B "$build" >/dev/null
cmake --build "$build" --target mossc >/dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
model="$root/models/mossnet-8x200m+.json"
prompt=$(awk 'BEGIN { for (i = 0; i < 512; i++) printf "%s%d", i ? "," : "", i * 7919 % 50000 }')

"$build/mossc" params "$model"
"$build/mossc" compile "$model" --weights random:1 --quant bf16 -o "$work/model"
predicted=$("$build/mossc" inspect "$work/model" --json -t "$threads" | sed -n 's/.*"total": \([0-9]*\).*/\1/p' | head -n 1)
for k in 2 3; do
    "$work/model" --tokens "$prompt" -n 32 -t "$threads" --experts-per-token $k >"$work/out" 2>"$work/err" &
    pid=$!
    # The high-water mark of resident memory, as the kernel counts it, read while the program lives.
    peak=0
    while [ -r "/proc/$pid/status" ]; do
        now=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status" 2>/dev/null || :)
        [ -n "$now" ] && peak=$now
        sleep 0.1
    done
    wait $pid
    cat "$work/err"
    awk -v k=$k -v peak="$peak" -v predicted="$predicted" 'BEGIN {
        off = 100 * (peak * 1024 - predicted) / predicted
        printf "top-%d: peak memory %.1f MB, predicted %.1f MB, %+.2f %%\n", k, peak * 1024 / 1e6, predicted / 1e6, off
        exit !(off <= 3 && off >= -3) }'
done
