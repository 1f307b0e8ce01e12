#!/usr/bin/env bash
# What the inner loops of code for 64-bit ARM reach on a phone's cores, by llvm-mca: no phone is needed.
#
#   bench/mca.sh [--mossc PATH] [--cc "CC"] [--only WORD]
# Compiles a small model for every ARM target as mossc does, cuts the loops named in `kernels` below out of the
# assembly and prints a Markdown table: units of work a cycle, beside what the products' pipes alone allow. A row
# fails, and with it the script, when it misses its goals. llvm-mca knows pipes and latencies but no caches.
# Needs llvm-mca-19 and aarch64-linux-gnu-gcc (or --cc "clang-19 --target=aarch64-linux-gnu -fno-inline").
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
mossc=$top/build/mossc cc=aarch64-linux-gnu-gcc only=.
while [ $# -gt 1 ]; do
    case $1 in
    --mossc) mossc=$(realpath "$2") ;;
    --cc) cc=$2 ;;
    --only) only=$2 ;;
    *) break ;;
    esac
    shift 2
done
[ $# -eq 0 ] || { sed -n '2,4s/^# *//p' "$0" >&2; exit 2; }
mca=$(command -v llvm-mca-19) || { echo "SKIPPED: no llvm-mca-19"; exit 77; }
command -v "${cc%% *}" >/dev/null || { echo "SKIPPED: no ${cc%% *}"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Cores, as llvm-mca names their models: the Cortex-X4 is as wide as a Neoverse V2.
cores="neoverse-v2 cortex-a720 cortex-a510"

# kernel | target | weights | function | work of the loop: an instruction and its units, … | unit | pipes' limits | goals
# The loop is the innermost one of the function that does the most work. Limits and goals are of the first two cores,
# "-": none. A kernel ending in "whole" is a tile with all that a product of k = 1024 adds to it: see `whole_tile`.
kernels='
int8 GEMM 8x8, loop          | arm-i8mm    | q8 | dot_tile_8                | smmla 64             | int8 operations | 256 128 | 240 120
int8 GEMM 8x8, whole         | arm-i8mm    | q8 | dot_tile_8                | smmla 64             | int8 operations | 256 128 | 200 100
int8 GEMM 8x8, loop          | arm-dotprod | q8 | dot_tile_8                | sdot 32              | int8 operations | 128 64  | -
int8 GEMM 8x8, whole         | arm-dotprod | q8 | dot_tile_8                | sdot 32              | int8 operations | 128 64  | -
int8 GEMM 8x8, loop          | arm-neon    | q8 | dot_tile_8                | smull 16 smull2 16 smlal 16 smlal2 16 | int8 operations | -       | -
int8 GEMV, loop              | arm-i8mm    | q8 | gemv_q_i1024_o1024_.*_e1_ | sdot 32              | int8 operations | 128 64  | 70 40
int8 GEMV, loop              | arm-dotprod | q8 | gemv_q_i1024_o1024_.*_e1_ | sdot 32              | int8 operations | 128 64  | 70 40
int8 GEMV, loop              | arm-neon    | q8 | gemv_q_i1024_o1024_.*_e1_ | smull 16 smull2 16 smlal 16 smlal2 16 | int8 operations | -       | -
int4 GEMV, loop              | arm-dotprod | q4 | gemv_q_i1024_o1024_.*_e2_ | sdot 32              | int8 operations | 128 64  | -
float GEMM 8x8, loop         | arm-neon    | bf16 | tile_8                  | fmla 8              | float operations | 32 16   | 27.2 13.6
bf16 GEMV, loop              | arm-neon    | bf16 | gemv_i1024_o1024_ | fmla 8              | float operations | 32 16   | 13 6.5
f16 GEMV, loop               | arm-neon    | f16  | gemv_i1024_o1024_ | fmla 8              | float operations | 32 16   | -
bf16 GEMM 8x8, loop          | arm-bf16    | bf16 | bf16_tile_8             | bfmmla 32           | float operations | 128 64  | 108 54
bf16 GEMV, loop              | arm-bf16    | bf16 | gemv_i1024_o1024_       | bfmmla 32           | float operations | 128 64  | 52 26
f16 GEMM 8x8, loop           | arm-fp16    | f16  | f16_tile_8              | fmla 16             | float operations | 64 32   | 54.4 27.2
f16 GEMV, loop               | arm-fp16    | f16  | gemv_i1024_o1024_       | fmla 16             | float operations | 64 32   | 38 20
scan: exp, update, output    | arm-neon    | bf16 | scan_n16_               | mla 4               | state elements | -       | 1.0 0.5
scan: softplus, gate         | arm-neon    | bf16 | scan_n16_               | frecpe 4            | channels of a token | -       | -
convolution and silu         | arm-neon    | bf16 | conv1d_                 | frecpe 4            | channels of a token | -       | -
'

cat >"$work/model.json" <<'JSON'
{ "format": "mossnet-graph/1", "name": "mca", "vocab_size": 1024, "d_model": 1024, "experts": 2, "top_k": [2, 1],
  "layers": [ { "op": "mamba", "d_inner": 1024 }, { "op": "mlp", "d_ff": 1024 } ] }
JSON

# assembly TARGET WEIGHTS: the path of the model's code, compiled as the file's own first lines say
assembly() {
    local at=$work/$1.$2 flags
    if [ ! -f "$at.s" ]; then
        "$mossc" compile "$work/model.json" --weights random:1 --target "$1" --quant "$2" --emit c -o "$at.c" || return
        flags=$(sed -n 's/^ \*   cc \(.*\) -c, then.*/\1/p' "$at.c")
        # shellcheck disable=SC2086
        $cc $flags -S "$at.c" -o "$at.s" || return
    fi
    echo "$at.s"
}

# cut_code loop|rest FILE FUNCTION WORK: the innermost loop of most work in a function, or all but that loop
cut_code() {
    awk -v part="$1" -v wanted="$3" -v work="$4" '
    BEGIN { n = split(work, words, " "); for (i = 1; i < n; i += 2) units[words[i]] = words[i + 1] }
    !inside && $0 ~ "^" wanted "[^:]*:" { inside = 1; name = $1; sub(/:.*/, "", name) }
    inside && $1 == ".size" { exit }
    inside { sub(/\/\/.*/, ""); line[++n_lines] = $0; if (match($0, /^\.L[A-Za-z0-9_]+:/)) at[substr($0, 1, RLENGTH - 1)] = n_lines }
    END {
        for (i = 1; i <= n_lines; i++) {
            split(line[i], word)
            if (word[1] !~ /^(b|b\..*|b(eq|ne|lt|le|gt|ge|cs|cc|hi|ls|mi|pl)|cbn?z|tbn?z)$/) continue
            target = line[i]; sub(/.*[ \t,]/, "", target)
            if (!(target in at) || at[target] > i) continue
            sum = 0
            for (j = at[target]; j <= i; j++) { split(line[j], word); sum += units[word[1]] }
            if (sum) { begin[++n_loops] = at[target]; end[n_loops] = i; does[n_loops] = sum }
        }
        for (l = 1; l <= n_loops; l++) {
            innermost = 1
            for (k = 1; k <= n_loops; k++) innermost = innermost && (k == l || begin[k] < begin[l] || end[k] > end[l])
            if (innermost && (does[l] > most || (does[l] == most && end[l] - begin[l] < last - first))) {
                most = does[l]; first = begin[l]; last = end[l]
            }
        }
        for (i = 1; most && i <= n_lines; i++) {
            if ((part == "rest") == (i >= first && i <= last)) continue
            if (line[i] !~ /^[ \t]+\./ && line[i] !~ /^[A-Za-z_.]/) print line[i]
        }
        if (part == "loop" && most) print "// units " most
    }' "$2"
}

# cycles CORE ITERATIONS: of one pass over the code on standard input
cycles() {
    "$mca" -mtriple=aarch64-linux-gnu -mcpu="$1" -mattr=+dotprod,+i8mm,+bf16,+fullfp16 -iterations="$2" 2>"$work/words" \
        | awk -v n="$2" '/^Total Cycles:/ { print $3 / n; found = 1 } END { exit !found }' || { cat "$work/words" >&2; return 1; }
}

# whole_tile CORE FILE FUNCTION WORK ROWS: cycles of a tile at k = 1024 beside its loop: what comes before and after it,
# latencies included, and the loop of gemm_q that scales each row's sums and stores them
whole_tile() {
    local rest row
    rest=$(cut_code rest "$2" "$3" "$4" | cycles "$1" 1) || return
    row=$(cut_code loop "$2" "gemm_q_i1024_o1024_" "scvtf 1" | cycles "$1" 100) || return
    awk -v rest="$rest" -v row="$row" -v rows="$5" 'BEGIN { print rest + row * rows }'
}

# in_words TEXT [BETWEEN]: its words, without the table's blanks
in_words() { awk -v text="$1" -v between="${2:+ $2 }" 'BEGIN { n = split(text, word, " "); for (i = 1; i <= n; i++)
    printf "%s%s", i == 1 ? "" : between == "" ? " " : between, word[i] }'; }

failed=0
echo "| kernel | target | weights | work | X4 (Neoverse V2) | A720 | A510 | pipes allow, X4 / A720 | goals |"
echo "|---|---|---|---|---|---|---|---|---|"
while IFS='|' read -r kernel target weights function work_words unit limits goals; do
    read -r target weights function <<<"$target $weights $function"
    kernel=$(echo $kernel) work_words=$(echo $work_words)
    [[ -n $kernel && "$kernel $target $weights" =~ $only ]] || continue
    file=$(assembly "$target" "$weights") || exit 3
    cut_code loop "$file" "$function" "$work_words" >"$work/loop.s"
    units=$(sed -n 's/^\/\/ units //p' "$work/loop.s")
    [ -n "$units" ] || { echo "FAIL: no loop of $work_words in $function for $target" >&2; failed=1; continue; }
    found=
    for core in $cores; do
        took=$(cycles "$core" 200 <"$work/loop.s") || exit 3
        more=0
        [[ $kernel != *whole ]] || more=$(whole_tile "$core" "$file" "$function" "$work_words" 8) || exit 3
        found+=$(awk -v u="$units" -v c="$took" -v m="$more" 'BEGIN { n = m ? 2 * 8 * 8 * 1024 / u : 1; printf " %.4g", u * n / (c * n + m) }')
    done
    read -r x4 a720 a510 <<<"$found"
    read -r goal_x4 goal_a720 <<<"$goals"
    if [ "$goal_x4" != - ] && ! awk -v a="$x4" -v b="$a720" -v x="$goal_x4" -v y="$goal_a720" 'BEGIN { exit !(a >= x && b >= y) }'; then
        echo "FAIL: $kernel, $target: $x4 / $a720, goals $goals" >&2
        failed=1
    fi
    echo "| $kernel | $target | $weights | $(in_words "$unit") | $x4 | $a720 | $a510 | $(in_words "$limits" /) | $(in_words "$goals" /) |"
done <<<"$kernels"
exit $failed
