#!/usr/bin/env bash
# What tuning gains: tuned over untuned models, and trials that each order of points needs. On a machine left alone.
#
#   bench/tune.sh [-T TARGET] [-m MOSSC] [-d FOLDER] [-s SECONDS] [-q QUANT] [-n TRIALS] [-r PAIRS] [-p PROMPTS]
#                 [-g TOKENS] [-k SECONDS] [STAGE ...]
#
# Stages: models (default; 8x8M, 8x66M, 8x200M+, Mamba-370M, Mixtral-like), orders (8x8M by model, random and grid),
#   resume (8x8M killed every -k SECONDS, 20, beside one run). TARGET host (default), h100 or a100: on a machine with
#   the GPU, storage is f16, prompts have 8192 and 32768 tokens, and models are larger. SECONDS of search a model (600;
#   GPUs 120), at most TRIALS of the stages orders and resume (400), PAIRS of runs in turn (7). MODELS in the
#   environment names other models than those, of the folder models or files; orders and resume take the first.
# FOLDER keeps databases and artifacts (default: a temporary one that goes). Prints tables as Markdown. Needs mossc, a
# C compiler, awk and what every Linux has. Exit code: 0, 1 something failed, 2 usage.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
mossc=$root/build/mossc folder='' target=host trials=400 pairs=7 killed_after=20
seconds='' quant='' prompts='' decoded=''
while getopts T:m:d:s:q:n:r:p:g:k: option; do
    case $option in
    T) target=$OPTARG ;; m) mossc=$OPTARG ;; d) folder=$OPTARG ;; s) seconds=$OPTARG ;; q) quant=$OPTARG ;;
    n) trials=$OPTARG ;; r) pairs=$OPTARG ;; p) prompts=$OPTARG ;; g) decoded=$OPTARG ;; k) killed_after=$OPTARG ;;
    *) sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))

# All that differs between CPUs and GPUs: what is stored how, how long prompts are, for how long to search, what the
# goal is, which models are small and which are all, and how often a run repeats each test: a GPU's first time makes a
# graph of launches.
case $target in
host)
    usual_quant=bf16 usual_prompts=512 usual_decoded=64 usual_seconds=600 goal=1.10 small=mossnet-8x8m repeats=1
    all="mossnet-8x8m mossnet-8x66m mossnet-8x200m+ mamba-370m mixtral-like-1.0b"
    ;;
h100 | a100)
    usual_quant=f16 usual_prompts=8192,32768 usual_decoded=128 usual_seconds=120 goal=1.05 small=mossnet-8x66m repeats=5
    all="mossnet-8x66m mossnet-8x200m+ mamba-500m mixtral-like-1.0b"
    ;;
*) echo "no target $target: host, h100 or a100" >&2; exit 2 ;;
esac
quant=${quant:-$usual_quant} prompts=${prompts:-$usual_prompts} decoded=${decoded:-$usual_decoded}
seconds=${seconds:-$usual_seconds}
read -r small _ <<<"${MODELS:-$small}"

mossc=$(realpath "$mossc")
if [ -z "$folder" ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi
mkdir -p "$folder"

graph() { if [ -f "$1" ]; then echo "$1"; else echo "$root/models/$1.json"; fi; }
# tune MODEL DATABASE OPTION...
tune() {
    local model=$1 db=$2
    shift 2
    "$mossc" tune "$(graph "$model")" --target "$target" --quant "$quant" --db "$db" "$@"
}
# build MODEL OUT OPTION...
build() {
    local model=$1 out=$2
    shift 2
    "$mossc" compile "$(graph "$model")" --weights random:1 --target "$target" --quant "$quant" -o "$out" "$@" \
        2>"$folder/words" || { cat "$folder/words" >&2; exit 1; }
}

# rates WHO ARTIFACT PAIR: lines "PAIR WHO TEST TOKENS_A_SECOND"; TEST is pp512, tg64, ...
rates() {
    "$2" bench --no-verify -p "$prompts" -n "$decoded" -r "$repeats" -o csv 2>"$folder/words" |
        awk -F, -v who="$1" -v pair="$3" '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
        { print pair, who, $at["test"], $at["median_ts"] }' || { cat "$folder/words" >&2; exit 1; }
}

# pairs_of: lines "TEST MEDIAN LEAST MOST" of tuned over plain, in pairs whose order changes
pairs_of() {
    local i first second
    for i in $(seq "$pairs"); do
        first=tuned second=plain
        [ $((i % 2)) = 0 ] || { first=plain second=tuned; }
        rates $first "$folder/$first" "$i"
        rates $second "$folder/$second" "$i"
    done | awk '
        { rate[$2, $3, $1] = $4; if (!($3 in seen)) { seen[$3] = 1; test[++n_tests] = $3 } n = $1 }
        END {
            for (t = 1; t <= n_tests; t++)
                for (i = 1; i <= n; i++)
                    if (rate["plain", test[t], i] > 0)
                        printf "%s %.4f\n", test[t], rate["tuned", test[t], i] / rate["plain", test[t], i]
        }' | sort -k1,1 -k2n | awk '
        function tell() { if (n) printf "%s %.3f %.3f %.3f\n", test, v[int((n + 1) / 2)], v[1], v[n] }
        $1 != test { tell(); test = $1; n = 0 }
        { v[++n] = $2 }
        END { tell() }'
}

models() {
    local model n bad
    echo "| model | trials | failed | test | tuned / untuned, median | least to most |"
    echo "|---|---:|---:|---|---:|---|"
    : >"$folder/ratios"
    for model in ${MODELS:-$all}; do
        name=$(basename "$model" .json)
        tune "$model" "$folder/$name.db" --time "$seconds" >"$folder/$name.txt" 2>"$folder/$name.err" ||
            { tail -3 "$folder/$name.err" >&2; exit 1; }
        build "$model" "$folder/plain"
        build "$model" "$folder/tuned" --tuning "$folder/$name.db"
        n=$(awk '/ trials, / { print $1 }' "$folder/$name.txt")
        bad=$(awk '$3 == "%" && $4 ~ /^[0-9]+$/ { bad += $5 } END { print bad + 0 }' "$folder/$name.txt")
        if cmp -s "$folder/tuned" "$folder/plain"; then
            echo "| $name $quant | $n | $bad | all | 1.000 | the same artifact |"
            rates plain "$folder/plain" 1 | awk '{ print $3, 1 }' >>"$folder/ratios"
        else
            pairs_of >"$folder/now"
            cat "$folder/now" >>"$folder/ratios"
            awk -v row="| $name $quant | $n | $bad" \
                '{ printf "%s | %s | %s | %s to %s |\n", row, $1, $2, $3, $4 }' "$folder/now"
        fi
        rm -f "$folder/plain" "$folder/tuned" "$folder"/*.weights
    done
    awk -v goal="$goal" '
        { sum[$1] += log($2); n[$1]++ }
        END {
            printf "\n"
            for (t in sum)
                printf "Geometric mean of %s: %.3fx%s.\n", t, exp(sum[t] / n[t]), t ~ /^pp/ ? " (goal: " goal "x)" : ""
        }' "$folder/ratios"
}

# Trials of the kernels alone, with one budget, for each order.
orders() {
    local order
    echo "| order | trials | prefill foretold | trials to 95 % of its gain |"
    echo "|---|---:|---:|---:|"
    for order in model random grid; do
        tune "$small" "$folder/$order.db" --order $order --trials "$trials" --time 100000 --kernels-only \
            >"$folder/$order.txt" 2>"$folder/$order.err" || { tail -3 "$folder/$order.err" >&2; exit 1; }
        awk -v order=$order '
            / trials, / { n = $1; for (i = 1; i < NF; i++) if ($i == "prefill") speed = $(i + 1) }
            /^95 %/ { to = $(NF - 1) }
            END { sub(/,/, "", speed); printf "| %s | %s | %s | %s |\n", order, n, speed, to ? to : "-" }' \
            "$folder/$order.txt"
    done
}

# One search in one piece, one that is killed again and again.
resume() {
    local n=0 code
    tune "$small" "$folder/whole.db" --trials "$trials" --time 100000 --kernels-only >"$folder/whole.txt" \
        2>"$folder/whole.err" || { tail -3 "$folder/whole.err" >&2; exit 1; }
    while :; do
        code=0
        timeout -s KILL "$killed_after" "$mossc" tune "$(graph "$small")" --target "$target" --quant "$quant" \
            --db "$folder/killed.db" --trials "$trials" --time 100000 --kernels-only >"$folder/killed.txt" \
            2>"$folder/killed.err" || code=$?
        if [ $code != 137 ] || [ $n = 500 ]; then break; fi
        n=$((n + 1))
    done
    [ $code = 0 ] || { tail -3 "$folder/killed.err" >&2; exit 1; }
    rm -rf "${TMPDIR:-/tmp}"/mossc-tune.building-*
    echo "killed $n times; in one piece: $(grep foretell "$folder/whole.txt")"
    echo "in pieces: $(grep foretell "$folder/killed.txt")"
}

for stage in "${@:-models}"; do
    case $stage in
    models | orders | resume) $stage ;;
    *) echo "no stage $stage" >&2; exit 2 ;;
    esac
    echo
done
