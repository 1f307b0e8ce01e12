#!/bin/sh
# Speed of whole models beside this machine's ceilings, measured in the same run.
#
#   bench/models.sh [-q QUANT] [-t THREADS] [-r REPEATS] [MODEL.json ...]
#
# Without models: shakespeare, 8x8M, Mamba-370M and 8x200M+ (3.1 GB of random weights, in $TMPDIR).
# Each model is compiled for this CPU and benchmarked (pp512, tg128); the ceilings are measured
# before and after. Prints a Markdown table: tokens a second with minimum and maximum, and which
# share of the arithmetic peak (prefill: fp32, or int8 with q8 and q4) or of the read bandwidth
# (generation) that is.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=${BUILD:-$root/build}
threads=$(nproc) repeats=5 quant=bf16
while getopts q:t:r: option; do
    case $option in
    q) quant=$OPTARG ;;
    t) threads=$OPTARG ;;
    r) repeats=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
if [ $# -eq 0 ]; then
    set -- "$root/models/shakespeare/shakespeare.json" "$root/models/mossnet-8x8m.json" \
        "$root/models/mamba-370m.json" "$root/models/mossnet-8x200m+.json"
fi
[ -d "$build" ] || cmake -S "$root" -B "$build" >/dev/null
cmake --build "$build" --target bench >/dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
echo "$(date +%Y-%m-%d), $processor, $threads of $(nproc) processors, matrices in $quant"
echo
"$build/bench/bench_ceilings" "$threads" >"$work/before"
for model in "$@"; do
    case $model in
    */shakespeare.json) weights= ;;
    *) weights="--weights random:1" ;;
    esac
    # $weights is two words or none.
    # shellcheck disable=SC2086
    "$build/mossc" compile "$model" $weights --quant "$quant" -o "$work/model"
    for n in $(seq 1 "$threads"); do
        "$work/model" bench -p 512 -n 128 -t "$n" -r "$repeats" -o csv 2>/dev/null | tail -n +2 >>"$work/rows"
    done
    # flops and bytes a token of the first mode: the numbers the rates are multiplied with
    "$build/mossc" inspect "$work/model" --json | tr ',{}' '\n\n\n' | awk -F'[:"]+' '
        /"name"/ && !name { name = $3; sub(/^ */, "", name); if (name == "") name = $4 }
        /"decode"/ { part = "decode" } /"prefill"/ { part = "prefill" }
        /"flops"/ && part == "prefill" && !flops { flops = $3 }
        /"weight_bytes"/ && part == "decode" && !weights { weights = $3 }
        /"state_bytes"/ && part == "decode" && !state { state = $3 }
        END { printf "%s,%.0f,%.0f\n", name, flops, weights + state }' >>"$work/costs"
    rm -f "$work/model" "$work/model.weights"
done
"$build/bench/bench_ceilings" "$threads" >"$work/after"

awk -F, -f "$root/bench/models.awk" "$work/before" "$work/after" "$work/costs" "$work/rows"
