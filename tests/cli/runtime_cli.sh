#!/usr/bin/env bash
# The command line of artifacts, end to end, over the stand-in model of tests/unit/fake_program.c.
#
# Usage: runtime_cli.sh [folder of the repository]; CC and CFLAGS are honoured. Builds four
# artifacts in a temporary folder; checks exit codes, words of errors, and what is left behind.
set -u
shopt -s extglob
top=$(cd "${1:-$(dirname "$0")/../..}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 3
. "$top/tests/cli/expect.sh"

# build NAME FLAGS...
build() {
    local name=$1
    shift
    ${CC:-cc} -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror ${CFLAGS:--O1} -I"$top/runtime" "$@" \
        "$top"/runtime/!(gpu_*).c "$top/tests/unit/fake_program.c" -o "$name" -lm -lpthread || exit 3
}

also_check() {
    if [ "$1" -ne 0 ] && [ "$(grep -ac 'error: ' stderr)" -ne 1 ]; then
        shift
        fail "$*: expected one line of error: $(cat stderr)"
    fi
}

same() { cmp -s "$1" "$2" || fail "$1 and $2 differ"; }

build bytes -DFAKE_EMBEDDED
build beside -DFAKE_VOCAB=300
build full -DFAKE_EMBEDDED -DFAKE_FULL_ATTENTION=1
build alien -DFAKE_EMBEDDED '-DFAKE_FEATURES="warp9"'

${CC:-cc} -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror ${CFLAGS:--O1} -I"$top/runtime" -DFAKE_GPU_START \
    "$top"/runtime/!(cpu|cpu_model|eval|threads).c "$top"/tests/unit/fake_{gpu,device,driver}.c \
    -Wl,--wrap=dlopen,--wrap=dlsym,--wrap=dlerror -o gpu -lm -lpthread -ldl || exit 3

# --- Help, facts, usage ---
expect 0 "usage: bytes" ./bytes --help
expect 0 "--repetitions" ./bytes bench --help
expect 0 "compiled by mossc for test" ./bytes --version
expect 0 "3 experts a token" ./bytes info
expect 0 '{"name": "fake"}' ./bytes info --json
expect 2 "bytes: error: unknown option '--what'" ./bytes --what
expect 2 "expected one for each of 2 threads" ./bytes -t 2 --cpus 0
expect 1 "found 4, this model was compiled for 2, 3" ./bytes --experts-per-token 4

# --- Processors ---
# Each thread must really be where --cpus says: the caller on the first, the other on the second.
cpus=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status | tr , '\n' | awk -F- '{ for (i = $1; i <= ($2 == "" ? $1 : $2); i++) print i }')
first=$(echo "$cpus" | sed -n 2p) second=$(echo "$cpus" | sed -n 1p)
if [ -z "$first" ]; then
    echo "SKIPPED: --cpus: only one processor to bind to"
else
    ./bytes -n -1 -t 2 --cpus "$first,$second" >/dev/null 2>&1 &
    artifact=$!
    for _ in $(seq 100); do
        # In the order of their numbers, which is not that of their names where these grow a digit.
        places=$(for task in $(ls "/proc/$artifact/task" 2>/dev/null | sort -n); do
            sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' "/proc/$artifact/task/$task/status" 2>/dev/null
        done | tr '\n' ' ')
        [ "$places" = "$first $second " ] && break
        sleep 0.05
    done
    kill -KILL $artifact
    wait $artifact 2>/dev/null
    [ "$places" = "$first $second " ] || fail "--cpus $first,$second: threads may run on: $places"
fi

# --- Big and small cores ---
# A /sys of our own, where the first usable processor is big: threads default to it and stay on it, two warn.
sys_cpu=$work/sys/devices/system/cpu
for cpu in $cpus; do
    mkdir -p "$sys_cpu/cpu$cpu"
    echo 250 >"$sys_cpu/cpu$cpu/cpu_capacity"
done
echo 1024 >"$sys_cpu/cpu$second/cpu_capacity"
build little -DFAKE_EMBEDDED "-DMOSS_SYS=\"$work/sys\""
if [ -n "$first" ]; then
    expect 0 "1 threads" ./little -n 2
    grep -q warning stderr && fail "a warning without -t: $(cat stderr)"
    expect 0 "little: warning: 2 threads, and 1 of" ./little -n 2 -t 2
    ./little -n -1 >/dev/null 2>&1 &
    artifact=$!
    for _ in $(seq 100); do
        places=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/$artifact/status 2>/dev/null)
        [ "$places" = "$second" ] && break
        sleep 0.05
    done
    kill -KILL $artifact
    wait $artifact 2>/dev/null
    [ "$places" = "$second" ] || fail "the big core is $second, threads may run on: $places"
fi
rm -r "$work/sys"
expect 0 "generated: 2" ./little -n 2
mkdir -p "$work/sys/fs/cgroup"
echo "50000 100000" >"$work/sys/fs/cgroup/cpu.max"
expect 0 "1 threads" ./little -n 2

# --- Weights ---
expect 3 "beside.weights: cannot open the weights: No such file or directory; they belong beside" ./beside --tokens 1
expect 3 "none: cannot open the weights: No such file" ./beside --tokens 1 -m none
FAKE_WEIGHTS_TO=beside.weights ./beside || fail "no weights written"
expect 0 "prompt:    2 tokens" ./beside --tokens 1,299 -n 3
mkdir elsewhere && (cd elsewhere && ../beside --tokens 1 -n 1 >/dev/null 2>&1) || fail "not found from elsewhere"
head -c 5000 beside.weights >short
expect 1 "short: truncated: 5000 bytes, expected 7096" ./beside --tokens 1 -m short
printf 'GGUF' | cat - beside.weights >foreign
expect 1 "foreign: not a weights file" ./beside --tokens 1 -m foreign
{ head -c 5000 beside.weights; printf '\377'; tail -c +5002 beside.weights; } >flipped
expect 1 "flipped: corrupt" ./beside --tokens 1 -m flipped
expect 0 "generated: 1 tokens" ./beside --tokens 1 -n 1 -m flipped --no-verify
expect 3 "this CPU or its system lacks warp9" ./alien
expect 0 "needs: warp9" ./alien info

# --- Prompts ---
expect 1 "no tokenizer built in (300 tokens" ./beside -p hello
expect 1 "--tokens: found 300, expected 0 to 299" ./beside --tokens 1,300
expect 1 "the prompt is empty" ./bytes -p ""
expect 3 "nowhere: cannot open: No such file" ./bytes -f nowhere
./beside --tokens 5,6 -n 4 2>/dev/null | grep -qE '^[0-9]+( [0-9]+){3}$' || fail "ids are not numbers"
printf 'once upon a time' >prompt
./bytes -p 'once upon a time' -n 40 -t 1 >one 2>/dev/null || fail "run -p"
./bytes run -f prompt -n 40 -t 3 --step >three 2>/dev/null || fail "run -f"
[ "$(stat -c %s one)" -eq 40 ] || fail "40 bytes expected"
same one three
./bytes -p 'once upon a time' -n 40 --seed 1 >other 2>/dev/null
cmp -s one other && fail "another seed gave the same text"
expect 0 "the context of 20 tokens is full" ./full -p 'once upon a time' -c 20 -n 40
[ "$(stat -c %s stdout)" -eq 5 ] || fail "a full context: 4 tokens and the one after"
expect 1 "the state is full: 8 tokens seen and 8 more, n_context is 10" ./full -p 'once upon a time' -c 10

# --- Logits ---
ids=$(seq -s, 3 3 90)
for how in "" "--step" "--chunk 1" "--chunk 5" "--chunk 999" "-t 4"; do
    # shellcheck disable=SC2086
    ./bytes --tokens "$ids" --logits "logits$how" $how >stdout 2>/dev/null || fail "--logits $how"
    [ -s stdout ] && fail "--logits generated"
    same logits "logits$how"
done
[ "$(stat -c %s logits)" -eq $((30 * 256 * 4)) ] || fail "logits are [30, 256] float32"
expect 3 "cannot open" ./bytes --tokens 1 --logits none/logits
expect 3 "cannot write: No space left" ./bytes --tokens "$ids" --logits /dev/full
(ulimit -f 8; trap '' XFSZ; ./bytes --tokens "$ids" --logits big 2>stderr) && fail "written past the limit"
grep -q "big: cannot write: File too large" stderr || fail "limit: $(cat stderr)"
ls big* >/dev/null 2>&1 && fail "left behind: $(ls big*)"
./bytes -n 9 >/dev/full 2>stderr
[ $? -eq 3 ] && grep -q "cannot write the output" stderr || fail "a full disk under stdout"

# --- Bench and eval ---
expect 0 "| pp16 |" ./bytes bench -p 16 -n 8 -r 2 -t 2
expect 0 ",tg8,0,8,2," ./bytes bench -p 0 -n 8 -b 1,3 -r 2 -t 2 -o csv
[ "$(wc -l <stdout)" -eq 3 ] || fail "csv: a header and two rows: $(cat stdout)"
./full bench -p 16,32 -n 8 -r 2 -t 2 -o json >bench.json 2>/dev/null || fail "bench json"
python3 -c 'import json, sys; rows = json.load(open("bench.json")); sys.exit([r["test"] for r in rows] != ["pp16", "pp32", "tg8"])' \
    || fail "bench json: $(cat bench.json)"
head -c 1000 "$top/runtime/model.c" >text
./bytes eval --text text -c 64 -t 1 >eval1 2>/dev/null || fail "eval"
./bytes eval --text text -c 64 -t 4 --chunk 3 >eval4 2>/dev/null || fail "eval in chunks"
same eval1 eval4
grep -q "tokens predicted   999, in windows of 64" eval1 || fail "eval: $(cat eval1)"
expect 0 "tokens predicted   2" ./beside eval --tokens 4,5,6
expect 1 "expected 2 or more" ./bytes eval --tokens 4
expect 1 "no tokenizer built in" ./beside eval --text text

# --- A GPU ---
expect 0 "5, in lists of 3 (prompt), 3 (token) and 1 (choice)" ./gpu info
expect 0 "h100 (needs: a GPU of compute capability 9.0)" ./gpu info
expect 0 "settings:  Fake 40, 2 experts" ./gpu --tokens 1,299 -n 50 --temp 0
grep -q "^load:  .*first token after" stderr || fail "no time to the first token: $(cat stderr)"
[ "$(wc -w <stdout)" -eq 50 ] || fail "50 ids: $(cat stdout)"
cp stdout fed
FAKE_GPU=feed expect 0 "generated: 50 tokens" ./gpu --tokens 1,299 -n 50 --temp 0
same stdout fed
expect 0 "generated: 50 tokens" ./gpu --tokens 1,299 -n 50 --seed 3
cmp -s stdout fed && fail "drawn and greedy texts are one"
cp stdout drawn
expect 0 "generated: 50 tokens" ./gpu --tokens 1,299 -n 50 --seed 3 --step
same stdout drawn
for how in "" "--step" "--chunk 5"; do
    # shellcheck disable=SC2086
    ./gpu --tokens "$ids" --logits "gpu_logits$how" $how >/dev/null 2>&1 || fail "gpu --logits $how"
    same gpu_logits "gpu_logits$how"
done
expect 0 "Fake 40: 9.5" ./gpu bench -p 16 -n 40 -b 1,20 -r 2 -o json
grep -q '"device": "Fake 40", .*"batch": 20, "test": "tg40"' stdout || fail "gpu bench: $(cat stdout)"
expect 0 "tokens predicted   39" ./gpu eval --tokens "$(seq -s, 1 40)" -c 15
FAKE_GPU=driver expect 3 "gpu: error: no GPU driver" ./gpu --tokens 1
FAKE_GPU=driver expect 0 "kernels" ./gpu info
FAKE_GPU=memory expect 3 "Fake 40 has 1.05 MB of" ./gpu --tokens 1
FAKE_GPU=20 expect 3 "CUDA_ERROR_LAUNCH_FAILED (719)" ./gpu --tokens 1 -n 100 --temp 0

# --- Ctrl-C ---
# A background job of a script ignores SIGINT, so end it the other way.
./bytes -n -1 >endless 2>stderr &
sleep 0.5
kill -TERM $! && wait $!
code=$?
[ $code -eq 0 ] && grep -q "^generated:" stderr || fail "interrupted: exit $code, $(cat stderr)"

[ $failed -eq 0 ] && echo "runtime_cli: ok"
exit $((failed != 0))
