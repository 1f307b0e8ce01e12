#!/bin/sh
# How good `mossc inspect --device` is: predictions for this machine beside what is measured on it.
#
#   bench/predict.sh [-d DEVICE] [-q QUANT] [-t THREADS] [-r REPEATS] [MODEL.json ...]
#
# DEVICE, a row of `mossc devices` like this machine (default: xeon-2), gets the clock and the bandwidth that
# bench_ceilings measures in the same run, before and after. Every model is compiled for this CPU, predicted and
# benchmarked (pp512, tg128) with 1 to THREADS threads. Prints a Markdown table; "outside" is how far a measurement
# lies from its range, 0 if in it. Without models: 8x8M, 8x66M Mamba, Mamba-370M and Mixtral-like.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=${BUILD:-$root/build}
device=xeon-2 quant=q8 threads=$(nproc) repeats=3
while getopts d:q:t:r: option; do
    case $option in
    d) device=$OPTARG ;;
    q) quant=$OPTARG ;;
    t) threads=$OPTARG ;;
    r) repeats=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
if [ $# -eq 0 ]; then
    set -- "$root/models/mossnet-8x8m.json" "$root/models/moe-mamba-8x66m.json" "$root/models/mamba-370m.json" \
        "$root/models/mixtral-like-1.0b.json"
fi
[ -d "$build" ] || cmake -S "$root" -B "$build" >/dev/null
cmake --build "$build" --target bench_ceilings mossc >/dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mossc=$build/mossc

"$build/bench/bench_ceilings" "$threads" >"$work/ceilings"
for model in "$@"; do
    "$mossc" compile "$model" --weights random:1 --quant "$quant" -o "$work/model"
    for n in $(seq 1 "$threads"); do
        "$work/model" bench -p 512 -n 128 -t "$n" -r "$repeats" -o csv 2>/dev/null | tail -n +2 >"$work/rows"
        awk -F, -v model="$model" '{ print model "," $4 "," ($9 == 0 ? "prefill" : "decode") "," $13 }' "$work/rows" \
            >>"$work/measured"
    done
    rm -f "$work/model" "$work/model.weights"
done
"$build/bench/bench_ceilings" "$threads" >>"$work/ceilings"

# The better of before and after: COLUMN of THREADS (3 GB/s, 5 GHz).
ceiling() {
    awk -F, -v n="$1" -v at="$2" '$1 == n && $at > best { best = $at } END { print best }' "$work/ceilings"
}
clock=$(ceiling 1 5)
for n in $(seq 1 "$threads"); do
    bandwidth=$(ceiling "$n" 3)
    echo "$n thread$([ "$n" -eq 1 ] || echo s): $bandwidth GB/s, $clock GHz"
    for model in "$@"; do
        "$mossc" inspect "$model" --quant "$quant" -c 64 -t "$n" --json \
            --device "$device,bandwidth=$bandwidth,clock=$clock" >"$work/json"
        awk -F'[:,{} "]+' -v model="$model" -v n="$n" '/"phase"/ {
            for (i = 2; i < NF; i++) value[$i] = $(i + 1)
            if (value["context"] == (value["phase"] == "prefill" ? 512 : 64) && !seen[value["phase"]]++)
                print model "," n "," value["phase"] "," value["low"] "," value["high"]
        }' "$work/json" >>"$work/predicted"
    done
done
echo
awk -F, -f "$root/bench/predict.awk" "$work/predicted" "$work/measured"
