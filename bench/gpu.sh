#!/bin/sh
# Whole models on this machine's GPU, beside what the GPU can do, what the paper reports and the best of other programs.
#
#   bench/gpu.sh [-m MODELS] [-q QUANTS] [-T TARGETS] [-p PROMPTS] [-P PROMPTS_OF_4] [-n TOKENS] [-l TOKENS]
#                [-L TOKENS] [-r REPEATS] [-s SECONDS] [-w FOLDER] [-o RESULTS.md] [STAGE ...]
#
# -m graphs ("models/mossnet-8x200m+.json models/mamba-500m.json"), -q storage ("f16 q8"), -T targets ("h100 a100", or
# "a100" where the GPU cannot run the first), -p prompt lengths of one sequence (512,2048,8192,32768), -P of four
# (512,2048,32768), -n tokens generated (256), -l tokens whose logits are compared (300), -L of a long prompt (32768),
# -r repetitions (5), -s time limit of each program started (200), -w where artifacts and figures are kept (a temporary
# folder), -o the page (bench/results/DATE-gpu.md). Weights are random:1. Stages, all of them without an argument:
#
#   ceilings   what the GPU can do (measured again before the report)
#   compile    the artifacts, also one for this CPU of each model and storage
#   logits     GPU against CPU, also with all experts chosen (then no rounding makes a router choose otherwise), in
#              bf16 too, and prompts at once, in chunks and token by token against each other; a long prompt
#   layers     the models' layers against float64
#   graphs     golden and random graphs of the tests against float64
#   kernels    every kernel against loops in double
#   sequences  16 sequences together and apart
#   sanitizer  compute-sanitizer of the CUDA toolkit
#   load       time to the first token, without and with the driver's cache of machine code
#   scan       the scan of a layer of mossnet-8x200m+ alone
#   prefill, generate   tokens a second in every mode of the model, and memory in use
#   report     the page, from all figures in the folder
#
# and, only by their names,
#
#   predict    what an A100 could do, from the models' plans; needs no GPU
#   products   what PyTorch takes for the products of the models' prompts; a report after it has the tables
#   profile    where a prompt of 8192 tokens and a token after it spend their time, kernel by kernel, with the CUDA
#              toolkit's ncu; a report after it has the tables
#
# What fails or takes too long is printed, noted on the page, and the rest goes on. BUILD is the build folder; MOSSC,
# CEILINGS, COMPARE and DIFF replace its programs, KERNELS (then -a100 or -h100) folders that tests/gpu/on_gpu.sh makes;
# RUNNER stands before every start of a GPU artifact. Exit code: 0, 1 something failed, 2 usage.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
build=${BUILD:-$root/build}
models="$root/models/mossnet-8x200m+.json $root/models/mamba-500m.json"
quants="f16 q8" targets='' prompts=512,2048,8192,32768 prompts_of_4=512,2048,32768
n_gen=256 n_logits=300 n_long=32768 repeats=5 limit=200
work='' result=$root/bench/results/$(date +%Y-%m-%d)-gpu.md
while getopts m:q:T:p:P:n:l:L:r:s:w:o: option; do
    case $option in
    m) models=$OPTARG ;;
    q) quants=$OPTARG ;;
    T) targets=$OPTARG ;;
    p) prompts=$OPTARG ;;
    P) prompts_of_4=$OPTARG ;;
    n) n_gen=$OPTARG ;;
    l) n_logits=$OPTARG ;;
    L) n_long=$OPTARG ;;
    r) repeats=$OPTARG ;;
    s) limit=$OPTARG ;;
    w) work=$OPTARG ;;
    o) result=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- ceilings compile logits layers graphs kernels sequences sanitizer load scan prefill generate \
    report
if [ -z "${MOSSC:-}" ]; then
    [ -d "$build" ] || cmake -S "$root" -B "$build" >/dev/null || exit 1
    cmake --build "$build" --target bench_gpu >/dev/null || exit 1
fi
mossc=${MOSSC:-$build/mossc}
ceilings=${CEILINGS:-$build/bench/bench_gpu_ceilings}
compare=${COMPARE:-$build/bench/bench_compare}
diff=${DIFF:-$build/tests/diff}
kernels=${KERNELS:-}
if [ -z "$work" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"
ask_gpu() { nvidia-smi --query-gpu="$1" --format=csv,noheader,nounits 2>/dev/null | head -n 1; }
case $targets$(ask_gpu compute_cap) in
'' | 9.*) targets="h100 a100" ;;
[0-9]*) targets=a100 ;;
esac

failed=0
fail() {
    echo "FAILED: $*" >&2
    echo "$stage: $*" >>"$work/failures"
    failed=1
}

# step WHAT COMMAND...: at most $limit seconds; what it says on standard error goes to $work/words
step() {
    what=$1
    shift
    # $runner is words.
    # shellcheck disable=SC2086
    timeout -k 5 "$limit" env $runner "$@" 2>"$work/words" && return
    code=$?
    words=$(grep -v '^ *$' "$work/words" | tail -n 1)
    case $code in 124 | 137) words="more than $limit s" ;; esac
    fail "$what: exit code $code: $words"
    return 1
}
# The same for an artifact for GPUs.
runner=
gpu_step() {
    runner=${RUNNER:-}
    step "$@"
    code=$?
    runner=
    return "$code"
}

# Watching: memory in use and clocks, a few times a second, while something runs.
watch_begin() {
    watcher=
    idle=$(ask_gpu memory.used)
    [ -n "$idle" ] || return 0
    nvidia-smi --query-gpu=memory.used,clocks.sm,power.draw --format=csv,noheader,nounits -lms 100 \
        >"$work/watch" 2>/dev/null &
    watcher=$!
}
# watch_end: "MB MHZ WATT": most memory beyond what was in use before, least SM clock under load, most power
watch_end() {
    [ -n "$watcher" ] || { echo "- - -"; return 0; }
    kill "$watcher" 2>/dev/null
    wait "$watcher" 2>/dev/null
    awk -F', *' -v idle="$idle" '
        { mb = $1 > mb ? $1 : mb; watt = $3 > watt ? $3 : watt }
        $3 > 250 && (!mhz || $2 < mhz) { mhz = $2 }
        END { printf "%d %s %s\n", (mb - idle) * 1.048576, mhz ? mhz : "-", watt ? watt : "-" }' "$work/watch"
}

name_of() { basename "$1" .json; }
modes_of() { "$mossc" inspect "$1" --json | sed -n 's/.*"experts_per_token": *\([0-9]*\).*/\1/p'; }
field_of() { "$mossc" inspect "$1" --json | sed -n "s/.*\"$2\": *\([0-9]*\).*/\1/p" | head -n 1; }
# of a graph; 1 where it names none
n_experts_of() { sed -n 's/.*"experts": *\([0-9]*\).*/\1/p' "$1" | awk 'NR == 1 { n = $1 } END { print n ? n : 1 }'; }
# random_tokens N VOCABULARY: a list, always the same. Not by rand(): some awks draw other numbers in every run whatever
# the seed.
random_tokens() {
    awk -v n="$1" -v vocab="$2" 'BEGIN {
        for (x = 7; i < n; i++) {
            x = x * 16807 % 2147483647
            printf "%s%d", i ? "," : "", x % vocab
        }
    }'
}
# each COMMAND: COMMAND ARTIFACT LABEL for each artifact that was made
each() {
    for target in $targets; do
        for model in $models; do
            for quant in $quants; do
                artifact=$work/$(name_of "$model")-$quant-$target
                label="$(name_of "$model") $quant $target"
                [ -x "$artifact" ] && "$1" "$artifact" "$label"
            done
        done
    done
    return 0
}
# ---- stages ----

stage_ceilings() {
    step ceilings "$ceilings" >"$work/new" && tee -a "$work/ceilings" <"$work/new"
    # The library's product, where PyTorch is there: what whole products reach, not only tensor cores.
    if python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
        step "matrix product" python3 -c '
import time, torch
a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
rounds = []
for _ in range(12):
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(10):
        a @ b
    torch.cuda.synchronize()
    rounds.append((time.perf_counter() - begin) / 10)
print("product %.1f TFLOP/s" % (2 * 8192**3 / sorted(rounds[2:])[5] / 1e12))' >"$work/new" &&
            tee -a "$work/ceilings" <"$work/new"
    fi
}

compile_one() {
    out=$work/$(name_of "$1")-$2-$3
    [ -z "$(find "$out" -newer "$mossc" 2>/dev/null)" ] || return
    begin=$(date +%s)
    step "compile $(name_of "$1") $2 $3" \
        "$mossc" compile "$1" --weights random:1 --quant "$2" --target "$3" -o "$out" || return
    echo "compiled $(name_of "$1") $2 $3 in $(($(date +%s) - begin)) s"
}
stage_compile() {
    for model in $models; do
        for quant in $quants; do
            for target in $targets host; do
                compile_one "$model" "$quant" "$target"
            done
            for target in $targets; do
                cost "$model" "$quant" "$target" >>"$work/costs"
            done
        done
    done
}
inspect_costs() {
    graph=$1 storage=$2 for_target=$3
    shift 3
    "$mossc" inspect "$graph" --quant "$storage" --target "$for_target" "$@" --json | awk -f "$root/bench/gpu/costs.awk"
}
# cost MODEL QUANT TARGET: lines for report.awk; the costs with one expert and with all tell what one expert is
cost() {
    n_experts=$(n_experts_of "$1")
    each_expert=0
    [ "$n_experts" -eq 1 ] || each_expert=$(inspect_costs "$@" --experts-per-token "1,$n_experts" |
        awk -v n="$n_experts" '{ bytes[NR] = $3 } END { printf "%.0f", (bytes[2] - bytes[1]) / (n - 1) }')
    inspect_costs "$@" | sed "s|^|cost $(name_of "$1") $2 $3 $n_experts $each_expert |"
}

# A mode with all experts is compiled apart, for there routers have nothing to choose: with fewer, rounding makes some
# choose otherwise, and errors tell little.
logits_one() {
    vocab=$(field_of "$1" vocab_size)
    n_experts=$(n_experts_of "$model")
    tokens=$(random_tokens "$n_logits" "$vocab")
    cpu=$work/$(name_of "$model")-$quant-host
    for k in $(modes_of "$1"); do
        [ ! -x "$cpu" ] || logits_mode "$1" "$2" "$cpu" "$k"
    done
    [ "$n_experts" -gt 1 ] || return 0
    compile_all "$model" "$quant" && logits_mode "$work/all-$target" "$2" "$work/all-host" "$n_experts"
    rm -rf "$work/all"*
}
# compile_all MODEL QUANT: with all experts, $work/all-$target and $work/all-host
compile_all() {
    for made_for in "$target" host; do
        step "compile $(name_of "$1") $2, all experts, for $made_for" "$mossc" compile "$1" --weights random:1 \
            --quant "$2" --target "$made_for" --experts-per-token "$n_experts" -o "$work/all-$made_for" || return
    done
}
# Another storage type, and a long prompt: of the first model that has experts, its vocabulary cut, for a row of logits
# is of so many.
logits_more() {
    for model in $models; do
        n_experts=$(n_experts_of "$model")
        [ "$n_experts" -gt 1 ] || continue
        vocab=$(field_of "$model" vocab_size)
        tokens=$(random_tokens "$n_logits" "$vocab")
        quant=bf16
        compile_all "$model" bf16 && logits_mode "$work/all-$target" "$(name_of "$model") bf16 $target" \
            "$work/all-host" "$n_experts"
        rm -rf "$work/all"*

        name=$(name_of "$model") vocab=96 quant=f16
        tokens=$(random_tokens "$n_long" $vocab)
        sed "s/\"vocab_size\": *[0-9]*/\"vocab_size\": $vocab/" "$model" >"$work/$name.json"
        step "compile $name, $vocab tokens, for $target" "$mossc" compile "$work/$name.json" --weights random:1 \
            --quant f16 --target "$target" --experts-per-token "$n_experts" -o "$work/all-$target" &&
            gpu_step "$name, logits of $n_long tokens" "$work/all-$target" run --no-verify --tokens "$tokens" \
                --logits "$work/prompt.f32" &&
            logits_run "$work/all-$target" "$name f16 $target" "$n_experts" "$n_long tokens by 512" \
                "$work/prompt.f32" "by default" --chunk 512
        rm -rf "$work/all"*
        return
    done
}
stage_logits() {
    each logits_one
    for target in $targets; do
        logits_more
    done
}

# prove WHAT COMMAND...: its last line goes to the page.
prove() {
    what=$1 verdict=failed
    shift
    step "$what" "$@" >"$work/said" && verdict=passed
    [ $verdict = passed ] || cat "$work/said" "$work/words" >&2
    echo "$stage: $what|$verdict|$(tail -n 1 "$work/said" "$work/words" 2>/dev/null |
        sed -e '/^==> /d' -e '/^$/d' -e 's/^=* //' -e q)" |
        tee -a "$work/proof"
}
# built TARGET: in the build folder, however long that takes
built() { cmake --build "$build" --target "$1" >/dev/null || { fail "$1: not built"; return 1; }; }
# prove_graphs WHAT TARGETS QUANTS OPTION...: against the reference
prove_graphs() {
    what=$1 for_targets=$2 stored=$3
    shift 3
    [ -n "${MOSSC:-}" ] || built diff || return
    prove "$what against float64, $stored" env -C "$root" "$diff" --mossc "$mossc" --target "$for_targets" \
        --quant "$stored" --threads 1 --jobs 8 ${RUNNER:+--runner "$RUNNER"} "$@"
}
# A layer of each kind as in the model, and a whole period of the layers with all experts: the reference looks for
# tokens that are sure of their experts everywhere, of which five routers leave hardly any, and in bf16 one. All targets
# at once, for the reference takes minutes of processors, on which they share.
stage_layers() {
    all_targets=$(echo "$targets" | tr ' ' ,)
    for model in $models; do
        name=$(name_of "$model")
        sed 's/"repeat": *[0-9]*/"repeat": 1/' "$model" >"$work/layers.json"
        sed -e '0,/"repeat": *[0-9]*/s//"repeat": 1/' \
            -e "s/\"top_k\": *\(\[[^]]*\]\|[0-9]*\)/\"top_k\": $(n_experts_of "$model")/" "$model" >"$work/period.json"
        prove_graphs "$targets: a layer of each kind of $name" "$all_targets" f16,q8 --graph "$work/layers.json"
        prove_graphs "$targets: a period of $name, all experts," "$all_targets" bf16 --graph "$work/period.json"
    done
}
stage_graphs() {
    for target in $targets; do
        prove_graphs "$target: golden and random graphs" "$target" f16,bf16,q8 --cases 12
    done
}
stage_kernels() {
    for target in $targets; do
        folder=${kernels:-$work/kernels}-$target
        case $target in a100) sm=80 ;; *) sm=90 ;; esac
        [ -d "$folder" ] || { built all &&
            step "checks of kernels" sh "$root/tests/gpu/on_gpu.sh" "$build" "$folder" $sm; } || continue
        prove "$target: every kernel against loops in double" sh "$folder/run.sh"
    done
}
stage_sequences() {
    step "the program that compares prompts" "${CC:-cc}" -std=c17 -D_GNU_SOURCE -O1 -o "$work/prompts" \
        "$root/tests/gpu/prompts.c" -ldl || return
    for target in $targets; do
        for model in $models; do
            step "compile $(name_of "$model") as a library" "$mossc" compile "$model" --weights random:1 --quant f16 \
                --target "$target" --emit lib -o "$work/library-$target.so" || continue
            prove "$target: $(name_of "$model"), 16 sequences together and apart, prompts and steps, the same bits" \
                "$work/prompts" "$work/library-$target.so"
        done
        rm -f "$work/library-$target".*
    done
}
stage_sanitizer() {
    command -v compute-sanitizer >/dev/null || { fail "no compute-sanitizer: it comes with the CUDA toolkit"; return; }
    for target in $targets; do
        small=$work/small-$target
        step "compile mossnet-8x8m for $target" "$mossc" compile "$root/models/mossnet-8x8m.json" --weights random:1 \
            --quant f16 --target "$target" -o "$small" || continue
        # A table for fewer barriers overflows, and then the tool fails.
        for tool in memcheck racecheck "synccheck --num-cuda-barriers 8192"; do
            # $tool and $RUNNER are words.
            # shellcheck disable=SC2086
            prove "$target: mossnet-8x8m, compute-sanitizer ${tool%% *}" compute-sanitizer --error-exitcode 9 \
                --tool $tool ${RUNNER:-} "$small" run --no-verify --tokens "$(random_tokens 70 256)" -n 2 --temp 0.8
        done
    done
}
# logits_mode ARTIFACT LABEL CPU_ARTIFACT EXPERTS
logits_mode() {
    expected=$3-$4.f32
    [ -s "$expected" ] || step "$3, logits" "$3" run --no-verify --tokens "$tokens" --experts-per-token "$4" \
        --logits "$expected" || return
    logits_run "$1" "$2" "$4" prompt "$expected" CPU || return
    mv "$work/found.f32" "$work/prompt.f32"
    logits_run "$1" "$2" "$4" step "$work/prompt.f32" prompt --step
    logits_run "$1" "$2" "$4" "chunk 64" "$work/prompt.f32" prompt --chunk 64
}
# logits_run ARTIFACT LABEL EXPERTS HOW EXPECTED AGAINST [OPTION...]
logits_run() {
    gpu=$1 label=$2 k=$3 how=$4 expected=$5 against=$6
    shift 6
    gpu_step "$label, logits, $how" "$gpu" run --no-verify --tokens "$tokens" --logits "$work/found.f32" \
        --experts-per-token "$k" "$@" || return 1
    # With q8, CPUs round what goes into a product to 8 bits, GPUs to 16 (in the reference that alone moves the logits
    # of Mamba-500M by 0.28); bf16 has 3 bits less than f16. Where experts are chosen only a NaN fails.
    case $quant$against in q8CPU) allowed=0.4 ;; bf16*) allowed=0.05 ;; *) allowed=0.02 ;; esac
    [ "$k" -ge "$n_experts" ] || allowed=1e9
    step "$label, logits, $how against $against" \
        "$compare" "$work/found.f32" "$expected" "$vocab" "$allowed" >"$work/compared"
    [ ! -s "$work/compared" ] || echo "logits,$label,$k,$how,$against,$(cat "$work/compared")" | tee -a "$work/logits"
}

load_one() {
    rm -rf "$work/cache"
    export CUDA_CACHE_PATH="$work/cache"
    for when in cold warm; do
        gpu_step "$2, $when start" "$1" run --tokens 1,2,3,4 -n 1 --temp 0 >"$work/said" || break
        sed -n "s/^load: *\([0-9.]*\) s, first token after \([0-9.]*\) s/load,$2,$when,\1,\2/p" "$work/words" |
            tee -a "$work/load"
    done
    unset CUDA_CACHE_PATH
}

# rates ARTIFACT LABEL OPTION...: rows of the bench command
rates() {
    artifact=$1 label=$2
    shift 2
    watch_begin
    gpu_step "$label, bench $*" "$artifact" bench --no-verify -r "$repeats" -o csv "$@" >"$work/csv"
    watched=$(watch_end)
    grep ' of its memory: ' "$work/words" | sed "s|^|memory $label $(echo "$*" | tr ' ' _) $watched |" >>"$work/memory"
    grep '^"' "$work/csv" | tee -a "$work/rows"
}
prefill_one() {
    for k in $(modes_of "$1"); do
        rates "$1" "$2" -n 0 -b 1 -p "$prompts" --experts-per-token "$k"
        rates "$1" "$2" -n 0 -b 4 -p "$prompts_of_4" --experts-per-token "$k"
    done
}
generate_one() {
    for k in $(modes_of "$1"); do
        rates "$1" "$2" -p 0 -n "$n_gen" -b 1,4,16 --experts-per-token "$k"
    done
}

# The kernel of each target as the planner chose it: the PTX of the whole model without the others.
stage_scan() {
    rm -rf "$work/scans"
    mkdir "$work/scans"
    for target in $targets; do
        step "kernels for $target" "$mossc" compile "$root/models/mossnet-8x200m+.json" --weights random:1 --quant f16 \
            --experts-per-token 2 --target "$target" --emit ptx -o "$work/scans/all" || continue
        sed -n -e '1,/^\.extern/p' -e '/^\.visible \.entry scan_/,/^}/p' "$work/scans/all" >"$work/scans/$target"
        sed -n "s/^\.visible \.entry scan_.*_bc\([0-9]*\)_st\([0-9]*\)_tt\([0-9]*\).*/scan $target $target \1 \2 \3/p" \
            "$work/scans/$target" >>"$work/scans/list"
    done
    step "the program that times scans" "${CC:-cc}" -std=c17 -D_GNU_SOURCE -O2 -o "$work/scan_bench" \
        "$root/bench/gpu/scan_bench.c" -ldl -lm &&
        step scan "$work/scan_bench" "$work/scans" >"$work/new" && tee "$work/scan" <"$work/new"
}

stage_products() {
    : >"$work/products"
    for model in $models; do
        step "plan of $(name_of "$model")" "$mossc" compile "$model" --weights random:1 --quant f16 --target h100 \
            --emit plan >"$work/plan" || continue
        awk -f "$root/bench/gpu/products.awk" "$work/plan" >"$work/shapes"
        for k in $(modes_of "$model"); do
            # $prompts is a list.
            # shellcheck disable=SC2046
            step "products of $(name_of "$model")" python3 "$root/bench/gpu/products.py" "$(name_of "$model")" "$k" \
                $(echo "$prompts" | tr , ' ') <"$work/shapes" >"$work/new" && tee -a "$work/products" <"$work/new"
        done
    done
}

# profile_run ARTIFACT LABEL PART KERNELS (a regular expression) OPTION... (of the command run)
profile_run() {
    artifact=$1 label=$2 part=$3 kernels=$4
    shift 4
    gpu_step "$label, profile of $part" ncu --csv --print-units base --cache-control none --clock-control none \
        --graph-profiling node --kernel-name "regex:$kernels" --metrics "$metrics" \
        "$artifact" run --no-verify --temp 0 "$@" >"$work/ncu" || return
    awk -v title="$label, $part" -f "$root/bench/gpu/profile.awk" "$work/ncu" | tee -a "$work/profile"
}
profile_one() {
    tokens=$(random_tokens 8192 "$(field_of "$1" vocab_size)")
    profile_run "$1" "$2" "a prompt of 8192 tokens" '^(?!decode_)' --tokens "$tokens" -n 1
    profile_run "$1" "$2" "one token" '^decode_' --tokens 1,2,3,4 -n 2
}
stage_profile() {
    metrics=gpu__time_duration.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed
    metrics=$metrics,sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed
    metrics=$metrics,smsp__issue_active.avg.pct_of_peak_sustained_elapsed
    command -v ncu >/dev/null || { fail "no ncu: it comes with the CUDA toolkit"; return; }
    : >"$work/profile"
    each profile_one
}

write_page() {
    for figures in ceilings costs rows memory load logits proof scan failures; do
        touch "$work/$figures"
        set -- "$@" "$work/$figures"
    done
    page=$1
    shift
    awk -f "$root/bench/gpu/limits.awk" -f "$root/bench/gpu/$page.awk" "$root/bench/gpu/peers.txt" "$@"
}
stage_predict() {
    for model in $models; do
        cost "$model" f16 a100 >>"$work/costs"
    done
    write_page predict
}
stage_report() {
    stage_ceilings
    mkdir -p "$(dirname "$result")"
    {
        echo "# GPU, $(date +%Y-%m-%d)"
        echo
        echo "$(ask_gpu name), driver $(ask_gpu driver_version), SM clock at most $(ask_gpu clocks.max.sm) MHz," \
            "memory $(ask_gpu clocks.max.mem) MHz, power limit $(ask_gpu power.limit) W; host:" \
            "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) processors;" \
            "$("$mossc" --version). Weights random:1, $repeats repetitions. \`bench/gpu.sh\` made this page."
        write_page report
        write_page predict
        [ ! -s "$work/products" ] || {
            printf '\n## The same products by PyTorch, experts evenly\n'
            cat "$work/products"
        }
        [ ! -s "$work/profile" ] || { printf '\n## Profile\n'; cat "$work/profile"; }
    } >"$work/page"
    cat "$work/page"
    cp "$work/page" "$result"
}

touch "$work/failures" "$work/proof"
for stage; do
    # A stage done again starts clean.
    sed -i "/^$stage: /d" "$work/failures" "$work/proof"
    case $stage in
    ceilings) stage_ceilings ;;
    compile) stage_compile ;;
    logits) stage_logits ;;
    layers) stage_layers ;;
    graphs) stage_graphs ;;
    kernels) stage_kernels ;;
    sequences) stage_sequences ;;
    sanitizer) stage_sanitizer ;;
    load) each load_one ;;
    scan) stage_scan ;;
    prefill) each prefill_one ;;
    generate) each generate_one ;;
    report) stage_report ;;
    predict) stage_predict ;;
    products) stage_products ;;
    profile) stage_profile ;;
    *) echo "bench/gpu.sh: no stage \"$stage\"" >&2; exit 2 ;;
    esac
done
exit $failed
