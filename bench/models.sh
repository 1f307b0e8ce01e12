#!/bin/sh
# Speed of whole models beside this machine's ceilings, measured in the same run.
#
#   bench/models.sh [-q QUANT] [-p PROMPTS] [-t THREADS] [-r ROUNDS] [-o md|csv|json] [MODEL.json ...]
#
# Each model is compiled for this CPU (random weights, in $TMPDIR; all of the default ones: 6 GB) and then measured
# once a round: prompts (default 512), generation of 128 tokens, with 1 to THREADS threads. Rounds go over all
# models, and ceilings are measured between them, so that a machine that drifts does so for everybody. Prints tokens
# a second, median with minimum and maximum, and which share that is of the arithmetic peak (prefill: fp32, or int8
# with q8 and q4) or of the read bandwidth (generation): of the better ceiling before and after the same round.
# Without models: the shapes of bench/README.md.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=${BUILD:-$root/build}
threads=$(nproc) rounds=5 quant=q8 prompts=512 output=md
while getopts q:p:t:r:o: option; do
    case $option in
    q) quant=$OPTARG ;;
    p) prompts=$OPTARG ;;
    t) threads=$OPTARG ;;
    r) rounds=$OPTARG ;;
    o) output=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
case $output in md | csv | json) ;; *) echo "models.sh: -o takes md, csv or json, not $output" >&2; exit 2 ;; esac
if [ $# -eq 0 ]; then
    for name in mamba-8m mamba-370m llama-500m mixtral-like-1.0b jamba-like-2.1b mossnet-8x8m mossnet-8x200m+; do
        set -- "$@" "$root/models/$name.json"
    done
fi
[ -d "$build" ] || cmake -S "$root" -B "$build" >/dev/null
cmake --build "$build" --target bench >/dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# cost MODEL PHASE KEY CONTEXT: of a token in the first mode, as the model's plan says.
cost() {
    "$build/mossc" inspect "$work/$1" -c "$4" --json | tr ',{}' '\n\n\n' | awk -F'[:"]+' -v phase="\"$2\"" -v key="\"$3\"" '
        index($0, "\"decode\"") || index($0, "\"prefill\"") { inside = index($0, phase) }
        inside && index($0, key) { printf "%.0f", $3; exit }'
}
name_of() { "$build/mossc" inspect "$work/$1" --json | sed -n 's/.*"name": *"\([^"]*\)".*/\1/p' | head -n 1; }
say() { [ ! -t 2 ] || printf '\r\033[K%s' "$*" >&2; }

n=0
for model in "$@"; do
    n=$((n + 1))
    say "compiling $model"
    case $model in
    */shakespeare.json) weights= ;;
    *) weights="--weights random:1" ;;
    esac
    # $weights is two words or none.
    # shellcheck disable=SC2086
    "$build/mossc" compile "$model" $weights --quant "$quant" -o "$work/$n"
    name=$(name_of $n)
    # The contexts are the mean ones (layers with a window count all of it: 8x200M+ 5 % too much arithmetic).
    for prompt in $(echo "$prompts" | tr , ' '); do
        echo "$name,pp$prompt,$(cost $n prefill flops $((prompt / 2)))" >>"$work/costs"
    done
    echo "$name,tg128,$(($(cost $n decode weight_bytes 64) + $(cost $n decode state_bytes 64)))" >>"$work/costs"
done
for round in $(seq 1 "$rounds"); do
    say "round $round of $rounds"
    "$build/bench/bench_ceilings" "$threads" | sed "1d;s/^/$round,/" >>"$work/ceilings"
    for model in $(seq 1 $n); do
        for t in $(seq 1 "$threads"); do
            "$work/$model" bench -p "$prompts" -n 128 -t "$t" -r 1 -o csv 2>/dev/null | sed "1d;s/^/$round,/" >>"$work/rows"
        done
    done
done
"$build/bench/bench_ceilings" "$threads" | sed "1d;s/^/$((rounds + 1)),/" >>"$work/ceilings"
say ''

processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
awk -F, -v format="$output" -v date="$(date +%Y-%m-%d)" -v processor="$processor" -v processors="$(nproc)" -v rounds="$rounds" \
    -f "$root/bench/models.awk" "$work/ceilings" "$work/costs" "$work/rows"
