#!/usr/bin/env bash
# The command line of mossc, end to end, as users and their scripts meet it.
#
#   mossc_cli.sh MOSSC JSON_CHECK [SECTION]...    sections: the functions named section_* below
# Works in a temporary folder on tiny graphs with random weights. Checks exit codes, the words of
# errors, every kind of output, and that a failure leaves nothing behind. A missing tool skips what
# needs it, aloud. Exit code: 0 all well, 1 not.
set -u
mossc=$(realpath "$1") json_check=$(realpath "$2")
shift 2
top=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
mounted=
trap '[ -z "$mounted" ] || umount "$mounted"; rm -rf "$work"' EXIT
cd "$work" || exit 3
export TMPDIR=$work/tmp
mkdir tmp
skips=0
. "$top/tests/cli/expect.sh"

# --- Helpers ---

skip() { echo "SKIPPED: $*"; skips=$((skips + 1)); }
have() { command -v "$1" >/dev/null 2>&1; }

# refuse CODE WORDS COMMAND...: as expect, in an empty folder that must stay empty
refuse() {
    mkdir -p "$work/empty"
    cd "$work/empty" || exit 3
    expect "$@"
    cd "$here" || exit 3
    clean "$*"
}

# clean WORDS: nothing may lie in the two folders that a command had to itself
clean() {
    [ -z "$(ls -A "$work/empty" "$work/tmp" | grep -v ':$')" ] && return
    fail "$1: left behind: $(ls -A "$work/empty" "$work/tmp")"
    rm -rf "$work/empty" "$work/tmp"
    mkdir "$work/empty" "$work/tmp"
}

same() {
    checks=$((checks + 1))
    cmp -s "$1" "$2" || fail "$1 and $2 differ"
}

exists() {
    local file
    for file in "$@"; do
        checks=$((checks + 1))
        [ -s "$file" ] || fail "$file is missing or empty"
    done
}

make() { expect 0 "" "$mossc" compile "$@" --weights random:1; }

# --- Inputs ---

cat >tiny.json <<'JSON'
{ "format": "mossnet-graph/1", "name": "tiny", "vocab_size": 256, "d_model": 32,
  "experts": 4, "top_k": [2, 1], "layers": [ { "op": "mamba" },
  { "op": "attention", "heads": 2, "kv_heads": 1 }, { "op": "mlp", "d_ff": 48 } ] }
JSON
tiny=$work/tiny.json

# --- Commands, help, usage ---

section_usage() {
    local command
    expect 0 "Exit codes: 0 ok, 1 the input is wrong" "$mossc" --help
    expect 0 "usage: mossc COMMAND" "$mossc" help
    expect 0 "mossc 0." "$mossc" --version
    expect 2 "usage: mossc COMMAND" "$mossc"
    expect 2 'unknown command `nope`' "$mossc" nope
    local commands
    commands=$("$mossc" --help | sed -n 's/^  \([a-z]*\)  *.*/\1/p')
    for command in compile run eval bench params inspect targets; do
        case " $(echo $commands) " in *" $command "*) ;; *) fail "--help does not list $command" ;; esac
    done
    for command in $commands; do
        expect 0 "usage: mossc $command" "$mossc" "$command" --help
        expect 0 "--help" "$mossc" "$command" -h
        [ -s stderr ] && fail "$command --help writes to stderr"
        case $command in run | eval | bench) continue ;; esac
        refuse 2 'unknown option `--what`' "$mossc" "$command" --what
    done
    for command in compile run eval bench params inspect; do
        refuse 2 "usage: mossc $command" "$mossc" $command
    done
    refuse 2 "usage: mossc compile" "$mossc" compile "$tiny" "$tiny" -o out
    refuse 2 "usage: mossc targets" "$mossc" targets "$tiny"
    refuse 2 "-o OUT" "$mossc" compile "$tiny"
    refuse 2 "needs a value" "$mossc" compile "$tiny" -o
    refuse 2 "expected exe, lib" "$mossc" compile "$tiny" --emit movie -o out
    refuse 2 'unknown target `c64`' "$mossc" compile "$tiny" --target c64 -o out
    refuse 2 'unknown target `x86-64-v5`; did you mean `x86-64-v3`?' "$mossc" compile "$tiny" --target x86-64-v5 -o out
    refuse 2 'unknown option `--trget`; did you mean `--target`?' "$mossc" compile "$tiny" --trget host -o out
    refuse 2 'unknown option `--quan=q8`; did you mean `--quant`?' "$mossc" compile "$tiny" --quan=q8 -o out
    expect 2 'unknown command `complie`; did you mean `compile`?' "$mossc" complie "$tiny" -o out
    refuse 2 "expected yes, no or auto" "$mossc" compile "$tiny" --embed maybe -o out
    refuse 2 "cannot hold the weights" "$mossc" compile "$tiny" --emit c --embed yes -o out.c
    refuse 2 "expected bytes such as" "$mossc" compile "$tiny" --max-rss 3X -o out
    refuse 2 "a whole number" "$mossc" compile "$tiny" -c 0 -o out
    refuse 2 "expected bytes" "$mossc" compile "$tiny" --tokenizer words -o out
    refuse 1 "expected f32, bf16" "$mossc" compile "$tiny" --quant q9 -o out
    expect 0 "x86-64-v3" "$mossc" targets
    expect 0 "x86-64-avxvnni" "$mossc" targets
    expect 0 "arm-neon" "$mossc" targets
    expect 3 "No space left" sh -c "'$mossc' targets >/dev/full"
}

section_facts() {
    expect 0 "top-2" "$mossc" params "$tiny"
    "$mossc" params "$tiny" --json | "$json_check" >stdout || fail "params --json is not JSON"
    expect 0 "parameters" "$mossc" inspect "$tiny"
    "$mossc" inspect "$tiny" --json | "$json_check" name memory.total modes.1.experts_per_token >stdout \
        || fail "inspect --json of a graph"
    grep -q '"tiny"' stdout || fail "inspect --json: $(cat stdout)"
    refuse 1 "no manifest" "$mossc" inspect /bin/ls
    refuse 3 "No such file" "$mossc" inspect nowhere
    refuse 3 "No such file" "$mossc" params nowhere.json
}

# --- Graphs and modes ---

section_graphs() {
    refuse 3 "No such file" "$mossc" compile nowhere.json -o out
    echo '{ "format": "mossnet-graph/1", }' >bad.json
    refuse 1 "json-syntax" "$mossc" compile "$here/bad.json" -o out
    sed 's/"heads": 2/"heads": 3/' "$tiny" >heads.json
    refuse 1 "graph-heads" "$mossc" compile "$here/heads.json" -o out
    refuse 1 "asked for, layer 0 has 4" "$mossc" compile "$tiny" --experts-per-token 5 -o out
    refuse 2 "positive whole numbers" "$mossc" compile "$tiny" --experts-per-token 2, -o out
    refuse 2 "positive whole numbers" "$mossc" compile "$tiny" --experts-per-token 0 -o out
    refuse 2 "given twice" "$mossc" compile "$tiny" --experts-per-token 2,2 -o out
    make "$tiny" --experts-per-token 3,1,4 -o modes
    local k
    for k in 1 3 4; do
        expect 0 "$k experts a token" ./modes -n 4 --experts-per-token $k
    done
    expect 1 "found 2, this model was compiled for 3, 1, 4" ./modes -n 4 --experts-per-token 2
}

# Layers of one shape share their code: 30 layers of three shapes are three functions a phase.
section_sharing() {
    local graph="$top/models/mossnet-8x200m+.json"
    expect 0 "3 and main, for 30 layers" "$mossc" compile "$graph" --emit plan
    [ "$(grep -cE '^  @[a-z0-9]+ prefill:' stdout)" -eq 4 ] || fail "blocks of the large graph: $(grep '^  @' stdout)"
    sed 's/50304/256/; s/"d_model": 1024/"d_model": 32/; s/2048/64/g; s/3072/48/; s/"dt_rank": 64/"dt_rank": 4/
        s/"heads": 16/"heads": 2/; s/"kv_heads": 4/"kv_heads": 1/' "$graph" >small.json
    make "$here/small.json" --emit c -o small.c
    local phase n
    for phase in prefill decode; do
        n=$(grep -cE "^(static )?(__attribute__.*)?void [a-z_]*(mamba|attention|mlp)[0-9]+_$phase\(" small.c)
        [ "$n" -eq 3 ] || fail "$n functions of blocks for $phase, expected 3: $(grep -nE "_$phase\(" small.c | head)"
    done
}

section_texts() {
    local pass
    for pass in build $(sed -n 's/^PASS([a-z_]*, *"\([a-z-]*\)", *\(ALL\|CPU\),.*/\1/p' "$top/compiler/passes/pass.def"); do
        expect 0 "mamba0" "$mossc" compile "$tiny" --emit plan -o plan.txt --dump-after "$pass"
    done
    refuse 2 "no such pass" "$mossc" compile "$tiny" --dump-after nope --emit ir -o ir.txt
    expect 0 "plan of tiny" cat plan.txt
    expect 0 "mamba0" "$mossc" compile "$tiny" --emit ir
    expect 0 "" "$mossc" compile "$tiny" --emit ir -o ir.txt
    same stdout /dev/null
    "$mossc" compile "$tiny" --emit ir -o - >ir2.txt
    same ir.txt ir2.txt
    "$mossc" compile "$tiny" --emit dot -o graph.dot || fail "--emit dot"
    if have dot; then
        expect 0 "<svg" dot -Tsvg graph.dot
    else
        skip "no dot: --emit dot is not read back"
    fi
    refuse 3 "No such file" "$mossc" compile "$tiny" --emit ir -o missing/ir.txt
    expect 3 "No space left" "$mossc" compile "$tiny" --emit ir -o /dev/full
}

# --- Artifacts ---

section_exe() {
    make "$tiny" --embed yes -o inside
    make "$tiny" --embed no -o beside
    exists inside beside beside.weights
    [ -e inside.weights ] && fail "embedded weights lie beside, too"
    [ -e manifest.json ] && fail "an exe came with a manifest"
    ./inside -n 30 >one 2>/dev/null || fail "inside runs"
    ./beside -n 30 >two 2>/dev/null || fail "beside runs"
    same one two
    mkdir -p moved && mv beside beside.weights moved/ && (cd / && "$here/moved/beside" -n 30 >"$here/two" 2>/dev/null)
    same one two
    expect 0 '"format"' ./inside info --json
    "$mossc" inspect inside --json | "$json_check" memory.total modes.1 >/dev/null || fail "inspect --json of an artifact"
    expect 0 "parameters" "$mossc" inspect moved/beside
    make "$tiny" --embed no -o again && make "$tiny" --embed yes -o again
    [ -e again.weights ] && fail "weights of an earlier build stay"
    make "$tiny" --keep -o kept
    exists kept.building-*/model.c
    rm -rf kept.building-*
}

section_weights() {
    make "$tiny" --embed no -o w
    local len
    len=$(stat -c %s w.weights)
    cp w.weights good
    head -c $((len - 100)) good >w.weights
    expect 1 "truncated" ./w -n 1
    head -c 100 good >w.weights
    expect 1 "truncated" ./w -n 1
    rm w.weights
    expect 3 "cannot open the weights" ./w -n 1
    cp "$tiny" w.weights && head -c 9000 /dev/zero >>w.weights
    expect 1 "not a weights file" ./w -n 1
    { head -c $((len / 2)) good; printf '\125'; tail -c +$((len / 2 + 2)) good; } >w.weights
    cmp -s good w.weights && fail "the flipped byte is no other"
    expect 1 "corrupt" ./w -n 1
    sed 's/"d_ff": 48/"d_ff": 40/' "$tiny" >other.json
    make "$here/other.json" --embed no -o other
    cp other.weights w.weights
    expect 1 "expected tiny" ./w -n 1
    cp good w.weights
    expect 0 "generated: 1" ./w -n 1
    # What the compiler reads:
    local trained=$top/models/shakespeare/shakespeare
    head -c 50000 "$trained.safetensors" >short.safetensors
    refuse 1 "weights-format" "$mossc" compile "$trained.json" --weights "$here/short.safetensors" -o out
    refuse 1 "not a safetensors file" "$mossc" compile "$tiny" --weights /bin/ls -o out
    refuse 1 "weights-" "$mossc" compile "$tiny" --weights "$trained.safetensors" -o out
    refuse 3 "No such file" "$mossc" compile "$tiny" --weights nowhere.safetensors -o out
    refuse 2 "a decimal seed" "$mossc" compile "$tiny" --weights random:x -o out
}

section_max_rss() {
    refuse 1 "too much" "$mossc" compile "$tiny" --weights random:1 --max-rss 1M -o out
    local row
    for row in "weights of 1 mamba layer" "keys and values, context 4096" "scratch of" "total"; do
        grep -qF "$row" stderr || fail "--max-rss: no row '$row': $(cat stderr)"
    done
    make "$tiny" --max-rss 64M -o fits
    expect 1 "too much" "$mossc" inspect "$tiny" --max-rss 1M
    refuse 1 "too much" "$mossc" compile "$tiny" --max-rss 1M --emit plan
}

# A user's program of each language, linked with each kind.
write_users() {
    cat >user.c <<'C'
#include "model.h"
#include <stdio.h>
#include <stdlib.h>

static void *block(size_t len) { return aligned_alloc(64, (len + 63) / 64 * 64); }

int main(int argc, char **argv)
{
    static float logits[256];
    const int32_t tokens[] = { 1, 2, 3 };
    moss_error error;
    moss_model *model = (moss_model *)block(moss_model_len());
    moss_context *context = (moss_context *)block(moss_context_len(1));
    moss_state *state = (moss_state *)block(moss_state_len(16));
    if (moss_model_open(model, argc > 1 ? argv[1] : NULL, 1, &error)
        || moss_context_init(context, model, 1, NULL, &error) || moss_state_init(state, 16, &error)
        || moss_eval(context, state, 0, 0, tokens, 3, logits, 1, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    printf("%s %.9g\n", moss_name(), logits[7]);
    moss_context_deinit(context);
    moss_model_close(model);
    free(model), free(context), free(state);
    return 0;
}
C
    cp user.c user.cc
}

# link COMPILER FLAGS SOURCE FILE...: builds ./user and keeps what it prints in `said`
link() {
    local compiler=$1 flags=$2 source=$3
    shift 3
    # shellcheck disable=SC2086
    expect 0 "" $compiler $flags -Wall -Wextra -Werror "$source" "$@" -pthread -lm -o user
}

section_libraries() {
    write_users
    local kind ending
    for kind in lib:so static:a obj:o; do
        ending=${kind#*:}
        mkdir -p "k$ending"
        make "$tiny" --emit "${kind%:*}" -o "k$ending/libmodel.$ending"
        exists "k$ending/libmodel.$ending" "k$ending/libmodel.h" "k$ending/manifest.json"
        "$json_check" functions.0.name <"k$ending/manifest.json" >/dev/null || fail "$kind: its manifest"
        cp "k$ending/libmodel.h" model.h
        link gcc "-std=c11 -D_GNU_SOURCE" user.c "k$ending/libmodel.$ending"
        expect 0 "tiny " ./user
        cp stdout "said.$ending"
        same said.so "said.$ending"
        have g++ || { skip "no g++: $kind in C++"; continue; }
        link g++ "-std=c++11" user.cc "k$ending/libmodel.$ending"
        expect 0 "tiny " ./user
        same said.so stdout
    done
    [ "$(nm -D --defined-only kso/libmodel.so | grep -vc ' moss_')" -eq 0 ] || fail "lib exports more than moss_*"
    make "$tiny" --emit lib --embed no -o kso/large.so
    exists kso/large.so.weights
    cp kso/large.h model.h
    link gcc "" user.c kso/large.so
    expect 0 "tiny " ./user
    same said.so stdout
    make "$tiny" --emit static --prefix bar -o kso/bar.a
    grep -q "bar_eval" kso/bar.h && grep -q BAR_OK kso/bar.h || fail "--prefix in the header"
    grep -qi "moss_" kso/bar.h && fail "--prefix leaves moss_ in the header"
    [ "$(nm -g --defined-only kso/bar.a 2>/dev/null | grep -c ' [A-Z] moss_')" -eq 0 ] || fail "--prefix leaves moss_ symbols"
}

# compile_alone TARGET COMPILER...: with the flags that the file itself names
compile_alone() {
    local target=$1 flags
    shift
    have "$1" || { skip "no $1: C for $target"; return; }
    flags=$(sed -n '1,5s/.*-std=c17 -O2 \(.*\) -ffp-contract.*/\1/p' "c/$target.c")
    [ -n "$flags" ] || fail "c/$target.c does not name its flags"
    # shellcheck disable=SC2086
    expect 0 "" "$@" $flags -O1 -Wall -Wextra -Werror -c "c/$target.c" -o "c/$target.o"
}

# C for every target compiles alone, without a warning, with each compiler.
section_c() {
    write_users
    mkdir -p c
    local target clang=clang-19
    have $clang || clang=clang
    for target in $("$mossc" targets | awk 'NR > 1 && /^[^ ]/ && $1 != "host" { print $1 }'); do
        if [ "$target" = android-arm64 ]; then
            refuse 2 "take arm-neon, arm-dotprod or arm-i8mm" "$mossc" compile "$tiny" --emit c --target $target -o c/none.c
            continue
        fi
        make "$tiny" --emit c --target "$target" -o "c/$target.c"
        exists "c/$target.c" "c/$target.h" "c/$target.c.weights" c/manifest.json
        case $target in
        x86-*)
            compile_alone "$target" "$clang"
            compile_alone "$target" gcc ;;
        arm-*)
            compile_alone "$target" "$clang" --target=aarch64-linux-gnu
            compile_alone "$target" aarch64-linux-gnu-gcc ;;
        esac
    done
    make "$tiny" --emit c -o c/model.c
    cp c/model.h model.h
    link gcc "-march=native -O1" user.c c/model.c
    expect 0 "tiny " ./user c/model.c.weights
    mkdir -p k && make "$tiny" --emit lib -o k/libmodel.so
    link gcc "" user.c k/libmodel.so && ./user >said.lib
    if have g++; then
        expect 0 "" gcc -march=native -O1 -c c/model.c -o c/model.o
        link g++ "" user.cc c/model.o
        expect 0 "tiny " ./user c/model.c.weights
    else
        skip "no g++: C in C++"
    fi
}

# --- Same input, same bytes ---

# Graphs for GPUs: texts need nothing, artifacts LLVM, running a driver.
section_gpu() {
    local target golden=$top/tests/data/golden_logits
    for target in a100 h100; do
        expect 0 "feed: 1 launches" "$mossc" compile "$tiny" --target $target --emit plan
        expect 0 "swiglu_pairs" "$mossc" compile "$tiny" --target $target --emit ir
        expect 0 "memory of the device" "$mossc" inspect "$tiny" --target $target
        refuse 2 "join-gates" "$mossc" compile "$tiny" --target $target --emit ir --dump-after nope
    done
    golden=$golden/mamba_zoh
    expect 1 "computes with matrices of one type" "$mossc" compile "$golden/graph.json" --target a100 --emit plan \
        --weights "$golden/weights.safetensors"
    expect 0 "matrices in bf16" "$mossc" inspect "$golden/graph.json" --target a100 --quant bf16 \
        --weights "$golden/weights.safetensors"
    expect 1 "a multiple of 8" "$mossc" compile "$golden/../attention_norope/graph.json" --target h100 --emit plan
    expect 1 "--max-rss allows 1024" "$mossc" inspect "$tiny" --target a100 --max-rss 1K
    if "$mossc" compile "$tiny" --target a100 --emit ptx 2>&1 | grep -q "needs LLVM 19"; then
        skip "no LLVM: no artifacts for GPUs"
        return
    fi
    "$mossc" compile "$tiny" --target h100 --emit ptx >first.ptx
    expect 0 "" "$mossc" compile "$tiny" --target h100 --emit ptx -o second.ptx
    cmp -s first.ptx second.ptx || fail "PTX differs from run to run"
    grep -q "^.target sm_90" first.ptx || fail "PTX for h100 has no .target sm_90"
    make "$tiny" --target a100 --emit c -o model.c
    expect 0 "" cc -std=c17 -O1 -Wall -Wextra -Werror -c model.c -o model.o
    make "$tiny" --target a100 --emit lib -o libgpu.so
    expect 0 '"target": "a100"' cat manifest.json
    [ -e /usr/lib/x86_64-linux-gnu/libcuda.so.1 ] && return
    make "$tiny" --target a100 -o program
    expect 3 "libcuda" ./program -p hello
    expect 0 "target a100" "$mossc" inspect program
}

section_repeat() {
    local kind file
    for kind in exe lib static obj c; do
        mkdir -p "one/$kind" "other/$kind/deeper"
        (cd "one/$kind" && "$mossc" compile "$tiny" --weights random:1 --emit $kind -o out.$kind) || fail "$kind"
        (cd "other/$kind/deeper" && "$mossc" compile ../../../../tiny.json --weights random:1 --emit $kind -o out.$kind) \
            || fail "$kind"
        for file in "one/$kind"/*; do
            same "$file" "other/$kind/deeper/${file##*/}"
        done
    done
    make "$tiny" --embed no -o one/w && make "$tiny" --embed no -o other/w
    same one/w.weights other/w.weights
    expect 0 "" "$mossc" compile "$tiny" --weights random:2 --embed no -o other/w
    cmp -s one/w.weights other/w.weights && fail "another seed gave the same weights"
}

# --- run, eval, bench ---

section_run() {
    make "$tiny" -o program
    expect 0 "generated: 9" "$mossc" run "$tiny" --weights random:1 -n 9 --seed 4
    cp stdout of_graph
    expect 0 "generated: 9" "$mossc" run program -n 9 --seed 4
    same stdout of_graph
    "$mossc" run "$tiny" --weights random:1 --tokens 1,2,3 --logits logits1 2>/dev/null || fail "run --logits"
    "$mossc" run program --tokens 1,2,3 --logits logits2 --step 2>/dev/null || fail "run --logits --step"
    same logits1 logits2
    expect 0 "nats a token" "$mossc" eval "$tiny" --weights random:1 --text "$tiny"
    cp stdout of_graph
    expect 0 "nats a token" "$mossc" eval program --text "$tiny"
    same stdout of_graph
    expect 0 "| pp8 |" "$mossc" bench "$tiny" --weights random:1 -p 8 -n 4 -r 1 -t 1
    "$mossc" bench program -p 8 -n 4 -r 1 -t 1 -o json 2>/dev/null | "$json_check" 0.test 1.test >stdout \
        || fail "bench -o json"
    expect 2 "unknown option" "$mossc" run program --what
    refuse 2 "unknown option" "$mossc" run "$tiny" --weights random:1 --what
    refuse 3 "No such file" "$mossc" run nowhere
    refuse 3 "cannot run" "$mossc" run /etc/passwd
    refuse 3 "No such file" "$mossc" eval "$tiny" --weights random:1 --text nowhere
}

# --- When the environment fails ---

section_environment() {
    refuse 3 "is not a program" "$mossc" compile "$tiny" --weights random:1 --cc /nonexistent -o out
    refuse 3 "is not a program" "$mossc" compile "$tiny" --weights random:1 --cc nonexistent-cc -o out
    refuse 3 "no C compiler" env PATH=/nonexistent "$mossc" compile "$tiny" --weights random:1 -o out
    refuse 3 "-fno-such-flag" "$mossc" compile "$tiny" --weights random:1 --cc "gcc -fno-such-flag" -o out
    grep -q "gcc failed" stderr || fail "a failing compiler is not named: $(cat stderr)"
    refuse 3 "failed" "$mossc" compile "$tiny" --weights random:1 --cc false -o out
    refuse 3 "No such file" "$mossc" compile "$tiny" --weights random:1 -o missing/out
    refuse 3 "is a folder" "$mossc" compile "$tiny" --weights random:1 -o .
    refuse 3 "cannot replace" "$mossc" compile "$tiny" --weights random:1 -o /dev/full
    [ -c /dev/full ] || fail "/dev/full was replaced"
    mkdir -p locked && chmod 555 locked
    if touch locked/probe 2>/dev/null; then
        rm -f locked/probe
        refuse 3 "cannot make" "$mossc" compile "$tiny" --weights random:1 -o /proc/out
    else
        refuse 3 "Permission denied" "$mossc" compile "$tiny" --weights random:1 -o "$here/locked/out"
    fi
    chmod 755 locked
    echo "earlier" >kept_out
    expect 3 "failed" "$mossc" compile "$tiny" --weights random:1 --cc false -o kept_out
    expect 0 "earlier" cat kept_out
}

# A file system too small for weights, for sources, for objects, in turn.
section_disk_full() {
    mkdir -p small
    local size
    for size in 64 240 400 600; do
        if ! mount -t tmpfs -o size=${size}k tmpfs small 2>/dev/null; then
            skip "cannot mount a small file system: a full disk"
            return
        fi
        mounted=$here/small
        expect 3 "o space left" "$mossc" compile "$tiny" --weights random:1 --embed no -o small/out
        [ -z "$(ls -A small)" ] || fail "a disk of ${size}k is full, left behind: $(ls -A small)"
        umount small
        mounted=
    done
}

# interrupt SIGNAL SECONDS COMMAND...: its exit code is the signal's, nothing of it stays
interrupt() {
    local signal=$1 seconds=$2 found
    shift 2
    mkdir -p "$work/empty"
    cd "$work/empty" || exit 3
    checks=$((checks + 1))
    timeout --foreground --preserve-status -s "$signal" "$seconds" "$@" >"$here/stdout" 2>"$here/stderr" </dev/null
    found=$?
    cd "$here" || exit 3
    [ $found -eq $((128 + $(kill -l "$signal"))) ] || fail "$signal after $seconds s: exit $found: $(cat stderr)"
    clean "$signal after $seconds s"
    [ -z "$(running)" ] || fail "$signal after $seconds s: still running: $(running)"
}

# Commands that work in this test's folder
running() {
    local process
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/cwd" 2>/dev/null)" = "$work/empty" ] && tr '\0' ' ' <"$process/cmdline" 2>/dev/null
    done
}

section_interrupt() {
    # A compiler that never ends: it is interrupted for certain, and must die with mossc.
    printf '#!/bin/sh\nsleep 1000\n' >slow_cc
    chmod +x slow_cc
    local signal
    for signal in INT TERM HUP; do
        interrupt $signal 0.5 "$mossc" compile "$tiny" --weights random:1 --cc "$here/slow_cc" -o out
    done
    interrupt INT 0.5 "$mossc" run "$tiny" --weights random:1 --cc "$here/slow_cc" -n 1
    # Somewhere in packing, with a graph whose weights take seconds to make.
    interrupt TERM 1 "$mossc" compile "$top/models/mossnet-8x66m.json" --weights random:1 --cc "$here/slow_cc" -o out
    # A running program hears of it and ends in its own way.
    make "$tiny" -o program
    timeout --foreground --preserve-status -s TERM 1 "$mossc" run "$here/program" -n -1 >/dev/null 2>stderr </dev/null
    local found=$?
    [ $found -eq 0 ] && grep -q "^generated:" stderr || fail "run, interrupted: exit $found: $(cat stderr)"
}

sections=${*:-usage facts graphs sharing texts exe weights max_rss libraries c gpu repeat run environment disk_full interrupt}
for section in $sections; do
    before=$failed
    here=$work/$section said=$work/$section
    mkdir "$here" && cd "$here" || exit 3
    section_"$section"
    echo "$section: $([ "$failed" -eq "$before" ] && echo ok || echo FAILED)"
done
echo "mossc_cli: $checks checks, $failed failed, $skips skipped"
[ "$failed" -eq 0 ]
