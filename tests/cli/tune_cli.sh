#!/usr/bin/env bash
# mossc tune, end to end: records, going on, being ended, what compile makes of it, bad options.
#
#   tune_cli.sh MOSSC
# Works in a temporary folder on a tiny graph. Exit code: 0 all well, 1 not, 77 no CPU target runs here.
set -u
. "$(dirname "$0")/../tuner/tools.sh"

# --- Options ---
expect 2 '`--db FILE` is missing' "$mossc" tune tiny.json
expect 2 'expected model, learned, random or grid' "$mossc" tune tiny.json --db a.db --order best
expect 2 'expected a whole number' "$mossc" tune tiny.json --db a.db --trials 0
expect 2 'expected a whole number' "$mossc" tune tiny.json --db a.db --time soon
expect 2 'expected a whole number' "$mossc" tune tiny.json --db a.db --jobs 9
if ldconfig -p 2>/dev/null | grep -q libcuda.so.1; then
    echo "SKIPPED: tune --target h100 without a GPU: this machine has a driver"
else
    # Without LLVM the target is refused before.
    words='this machine cannot run code for h100'
    if "$mossc" targets | grep -q '^h100'; then
        expect 3 "$words" "$mossc" tune tiny.json --db a.db --quant f16 --target h100
        expect 3 "$words: there is no GPU driver (libcuda.so.1)" "$mossc" run tiny.json --quant f16 --target h100
    fi
fi
expect 2 'usage: mossc tune' "$mossc" tune --db a.db
expect 3 '' "$mossc" tune none.json --db a.db
expect 2 'unknown option' "$mossc" tune tiny.json --db a.db --tuning b.db
[ ! -e a.db ] || fail "a database was made in vain"
cp tiny.json same.json
expect 2 '' "$mossc" tune same.json --db same.json
cmp -s tiny.json same.json || fail "the graph was overwritten"
echo "no database" >text.db
expect 1 'text.db' "$mossc" tune tiny.json --db text.db --trials 3
expect 3 'is not a program' "$mossc" tune tiny.json --db a.db --cc no-such-compiler
expect 3 'false fails on' "$mossc" tune tiny.json --db b.db --cc false --trials 3
expect 0 '--order' "$mossc" tune --help

# --- A search, whole models compared, and what compile makes of its records ---
expect 0 'the whole model' "$mossc" tune tiny.json --db tune.db --trials 9 --time 300 --jobs 2
grep -q '^9 trials, 0 of them' stdout || fail "not 9 trials: $(cat stdout)"
grep -q ': wrong:\|: crashed:\|: hung:\|: build-failed:' stderr && fail "something failed: $(cat stderr)"
expect 0 '' "$mossc" compile tiny.json --weights random:1 --tuning tune.db -o tuned
expect 0 '' "$mossc" compile tiny.json --weights random:1 -o plain
expect 0 '' ./tuned run --tokens 72,105,33,1,2,3,4,5 --logits tuned.f32
expect 0 '' ./plain run --tokens 72,105,33,1,2,3,4,5 --logits plain.f32
cmp -s tuned.f32 plain.f32 || fail "tuned and plain models differ"
expect 0 '' "$mossc" compile tiny.json --weights random:1 --tuning tune.db -o again
cmp -s tuned again || fail "the same records gave two artifacts"

# --- The same command measures nothing again; a larger budget goes on ---
expect 0 '9 trials, 9 of them from earlier runs' "$mossc" tune tiny.json --db tune.db --trials 9 --time 300 --kernels-only
expect 0 '12 trials, 9 of them from earlier runs' "$mossc" tune tiny.json --db tune.db --trials 12 --time 300 --kernels-only

# --- Ended by a signal: nothing is lost, and the points that were tried are those of one run in one piece ---
for signal in KILL TERM; do
    "$mossc" tune tiny.json --db ended.$signal.db --trials 12 --time 300 --kernels-only >/dev/null 2>&1 &
    pid=$!
    for _ in $(seq 600); do
        [ -e ended.$signal.db ] && [ "$(count ended.$signal.db)" -ge 4 ] && break
        sleep 0.1
    done
    kill -$signal $pid
    wait $pid
    code=$?
    [ $code -ne 0 ] || fail "$signal: the search had ended already"
    [ $signal = KILL ] && rm -rf tmp/*
    [ -z "$(ls -A tmp)" ] || fail "$signal left behind: $(ls -A tmp)"
    before=$(count ended.$signal.db)
    expect 0 '12 trials' "$mossc" tune tiny.json --db ended.$signal.db --trials 12 --time 300 --kernels-only
    grep -q ' 0 of them from earlier' stdout && fail "$signal: nothing was taken from the earlier run"
    [ "$before" -ge 4 ] || fail "$signal: only $before records were there"
    [ "$(points ended.$signal.db)" = "$(points tune.db)" ] || fail "$signal: other points than in one run: $(points ended.$signal.db)"
done
finish tune
