#!/bin/sh
# Speed of whole models beside this machine's ceilings, measured in the same run.
#
#   bench/models.sh [-q QUANT] [-t THREADS] [-r REPEATS] [MODEL.json ...]
#
# Without models: shakespeare, 8x8M, Mamba-370M and 8x200M+ (3.1 GB of random weights, in $TMPDIR).
# Each model is compiled for this CPU and benchmarked (pp512, tg128); the ceilings are measured
# before and after. Prints a Markdown table: tokens a second with minimum and maximum, and which
# share of the fp32 peak (prefill) or of the read bandwidth (generation) that is.
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
    "$build/mossc" inspect "$work/model" --json >"$work/inspect"
    for n in $(seq 1 "$threads"); do
        "$work/model" bench -p 512 -n 128 -t "$n" -r "$repeats" -o csv 2>/dev/null | tail -n +2 >>"$work/rows"
    done
    # flops and bytes a token of the first mode: the numbers the rates are multiplied with
    awk -F'[:,{}]' '/"decode"/ && !d { for (i = 1; i < NF; i++) { if ($i ~ /"weight_bytes"/) w = $(i+1)
            if ($i ~ /"state_bytes"/) s = $(i+1) } d = w + s }
        /"prefill"/ && !p { for (i = 1; i < NF; i++) if ($i ~ /"flops"/) p = $(i+1) }
        /"name"/ && !name { name = $2; gsub(/[ "]/, "", name); for (i = 1; i < NF; i++) if ($i ~ /"name"/) name = $(i+1)
            gsub(/[ "]/, "", name) }
        END { printf "%s,%.0f,%.0f\n", name, p, d }' "$work/inspect" >>"$work/costs"
    rm -f "$work/model" "$work/model.weights"
done
"$build/bench/bench_ceilings" "$threads" >"$work/after"

awk -F, '
    FILENAME ~ /before$|after$/ { if ($1 + 0) { flops[$1] = flops[$1] < $2 ? $2 : flops[$1]; bytes[$1] = bytes[$1] < $3 ? $3 : bytes[$1] } next }
    FILENAME ~ /costs$/ { pp[$1] = $2; tg[$1] = $3; next }
    { gsub(/"/, "", $1); if (!head++) {
          for (n = 1; n in flops; n++)
              printf "Ceilings, %d thread%s: %.0f GFLOP/s fp32, %.1f GB/s read.\n", n, n > 1 ? "s" : "", flops[n], bytes[n]
          print "\n| model | threads | test | tok/s (min to max) | rate | share of the ceiling |\n|---|---:|---|---:|---:|---:|" }
      if ($9 == 0) printf "| %s | %d | %s | %.0f (%.0f to %.0f) | %.1f GFLOP/s | %.0f %% |\n", $1, $4, $7, $13, $14, $15, $13 * pp[$1] / 1e9, 100 * $13 * pp[$1] / 1e9 / flops[$4]
      else printf "| %s | %d | %s | %.1f (%.1f to %.1f) | %.1f GB/s | %.0f %% |\n", $1, $4, $7, $13, $14, $15, $13 * tg[$1] / 1e9, 100 * $13 * tg[$1] / 1e9 / bytes[$4] }
' "$work/before" "$work/after" "$work/costs" "$work/rows"
