#!/usr/bin/env bash
# What tuning gains: tuned over untuned models, and trials that each order of points needs. On a machine left alone.
#
#   bench/tune.sh [-m MOSSC] [-d FOLDER] [-s SECONDS] [-q QUANT] [-n TRIALS] [-r PAIRS] [STAGE ...]
#
# Stages: models (default; 8x8M, 8x66M, 8x200M+, Mamba-370M, Mixtral-like), orders (8x8M by model, random and grid),
#   resume (8x8M killed again and again, beside one run). SECONDS of search a model (default 600), at most TRIALS
#   of the stages orders and resume (default 400), PAIRS of runs in turn (default 7). MODELS in the environment
#   names other models of the folder models than those.
# FOLDER keeps databases and artifacts (default: a temporary one that goes). Prints tables as Markdown.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mossc=$root/build/mossc folder='' seconds=600 quant=bf16 trials=400 pairs=7
while getopts m:d:s:q:n:r: option; do
    case $option in
    m) mossc=$OPTARG ;; d) folder=$OPTARG ;; s) seconds=$OPTARG ;; q) quant=$OPTARG ;; n) trials=$OPTARG ;; r) pairs=$OPTARG ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
mossc=$(realpath "$mossc")
if [ -z "$folder" ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi
mkdir -p "$folder"

# rate ARTIFACT TEST: tokens a second
rate() {
    if [ "$2" = prefill ]; then set -- "$1" -p 512 -n 0; else set -- "$1" -p 0 -n 64; fi
    "$1" bench "${@:2}" -r 1 -o csv 2>/dev/null | awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i ~ /median/) c = i } NR == 2 { print $c }'
}

# ratios TUNED PLAIN TEST: median, least and most of tuned over plain, in pairs whose order changes
ratios() {
    local i a b
    for i in $(seq "$pairs"); do
        if [ $((i % 2)) = 0 ]; then a=$(rate "$1" "$3") b=$(rate "$2" "$3"); else b=$(rate "$2" "$3") a=$(rate "$1" "$3"); fi
        awk -v a="$a" -v b="$b" 'BEGIN { printf "%.4f\n", a / b }'
    done | sort -n | awk '{ v[NR] = $1 } END { printf "%.3f | %.3f to %.3f\n", v[int((NR + 1) / 2)], v[1], v[NR] }'
}

models() {
    echo "| model | trials | failed | test | tuned / untuned, median | least to most |"
    echo "|---|---:|---:|---|---:|---|"
    : >"$folder/prefill"
    for model in ${MODELS:-mossnet-8x8m mossnet-8x66m mossnet-8x200m+ mamba-370m mixtral-like-1.0b}; do
        "$mossc" tune "$root/models/$model.json" --quant "$quant" --db "$folder/$model.db" --time "$seconds" \
            >"$folder/$model.txt" 2>"$folder/$model.err" || { tail -3 "$folder/$model.err" >&2; exit 1; }
        "$mossc" compile "$root/models/$model.json" --weights random:1 --quant "$quant" -o "$folder/plain"
        "$mossc" compile "$root/models/$model.json" --weights random:1 --quant "$quant" --tuning "$folder/$model.db" -o "$folder/tuned"
        n=$(awk '/ trials, / { print $1 }' "$folder/$model.txt")
        bad=$(awk '$3 == "%" && $4 ~ /^[0-9]+$/ { bad += $5 } END { print bad + 0 }' "$folder/$model.txt")
        for test in prefill decode; do
            if cmp -s "$folder/tuned" "$folder/plain"; then line='1.000 | the same artifact'
            else line=$(ratios "$folder/tuned" "$folder/plain" $test); fi
            echo "| $model $quant | $n | $bad | $test | $line |"
            [ $test = decode ] || echo "${line%% *}" >>"$folder/prefill"
        done
        rm -f "$folder/plain" "$folder/tuned" "$folder"/*.weights
    done
    awk '{ sum += log($1) } END { printf "\nGeometric mean of prefill: %.3fx (goal: 1.10x).\n", exp(sum / NR) }' "$folder/prefill"
}

# Trials of the kernels alone, with one budget, for each order.
orders() {
    echo "| order | trials | prefill foretold | trials to 95 % of its gain |"
    echo "|---|---:|---:|---:|"
    for order in model random grid; do
        "$mossc" tune "$root/models/mossnet-8x8m.json" --quant "$quant" --db "$folder/$order.db" --order $order --trials "$trials" \
            --time 100000 --kernels-only >"$folder/$order.txt" 2>"$folder/$order.err"
        awk -v order=$order '/ trials, / { n = $1; for (i = 1; i < NF; i++) if ($i == "prefill") speed = $(i + 1) }
            /^95 %/ { to = $(NF - 1) } END { sub(/,/, "", speed); printf "| %s | %s | %s | %s |\n", order, n, speed, to ? to : "-" }' \
            "$folder/$order.txt"
    done
}

# One search in one piece, one that is killed every twenty seconds.
resume() {
    local one="$folder/whole.db" many="$folder/killed.db" n=0
    "$mossc" tune "$root/models/mossnet-8x8m.json" --quant "$quant" --db "$one" --trials "$trials" --time 100000 --kernels-only \
        >"$folder/whole.txt" 2>/dev/null
    until timeout -s KILL 20 "$mossc" tune "$root/models/mossnet-8x8m.json" --quant "$quant" --db "$many" --trials "$trials" --time 100000 \
        --kernels-only >"$folder/killed.txt" 2>/dev/null; do
        n=$((n + 1))
    done
    rm -rf "${TMPDIR:-/tmp}"/mossc-tune.building-*
    echo "killed $n times; in one piece: $(grep foretell "$folder/whole.txt"); in pieces: $(grep foretell "$folder/killed.txt")"
}

for stage in "${@:-models}"; do
    case $stage in
    models | orders | resume) $stage ;;
    *) echo "no stage $stage" >&2; exit 2 ;;
    esac
    echo
done
