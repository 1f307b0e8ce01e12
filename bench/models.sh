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

# cost PHASE KEY CONTEXT: of a token in the first mode, as the model's plan says. The contexts are the mean
# ones of pp512 and tg128 (layers with a window count all of it: 8x200M+ 5 % too much arithmetic).
cost() {
    "$build/mossc" inspect "$work/model" -c "$3" --json | tr ',{}' '\n\n\n' | awk -F'[:"]+' -v phase="\"$1\"" -v key="\"$2\"" '
        index($0, "\"decode\"") || index($0, "\"prefill\"") { inside = index($0, phase) }
        inside && index($0, key) { printf "%.0f", $3; exit }'
}
name_of() { "$build/mossc" inspect "$1" --json | sed -n 's/.*"name": *"\([^"]*\)".*/\1/p' | head -n 1; }

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
    echo "$(name_of "$work/model"),$(cost prefill flops 256),$(cost decode weight_bytes 64),$(cost decode state_bytes 64)" >>"$work/costs"
    rm -f "$work/model" "$work/model.weights"
done
"$build/bench/bench_ceilings" "$threads" >"$work/after"

awk -F, -f "$root/bench/models.awk" "$work/before" "$work/after" "$work/costs" "$work/rows"
