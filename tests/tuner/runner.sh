#!/usr/bin/env bash
# mossc tune --runner with commands that run here: good ones of each kind, and ones that fail in every way.
#
#   runner.sh MOSSC
# Works in a temporary folder on a tiny graph. Exit code: 0 all well, 1 not.
set -u
. "$(dirname "$0")/runner_tools.sh"

whole() { local code=$1 words=$2; shift 2; expect "$code" "$words" "$mossc" tune tiny.json --jobs 2 --time 300 "$@"; }
try() { whole "$@" --kernels-only; }

# --- Options ---
try 2 'expected a whole number' --db a.db --runner env --runner-timeout 0
try 3 '`no-such-runner` (--runner) is not a program' --db a.db --runner 'no-such-runner x'
try 3 '` ` (--runner) is not a program' --db a.db --runner ' '
try 2 'a phone says that --runner reaches' --db a.db --target android-arm64
try 2 'GPUs are tuned where they are' --db a.db --target h100 --runner env
[ ! -e a.db ] || fail "a database was made in vain"

# --- By its path: the same device, the same search as here ---
whole 0 '4 trials, 0 of them' --db path.db --trials 4 --runner env
grep -q 'the whole model, .* threads, 512 tokens of prefill' stdout || fail "whole models were not compared: $(cat stdout)"
grep -q '^chunk 256 ' stdout || fail "no shorter chunk was tried: $(cat stdout)"
steps() { "$mossc" db export "$1" --format csv | grep -c ',step,'; }
[ "$(steps path.db)" -ge 3 ] || fail "whole models are not in the records: $(steps path.db)"
grep -qE ': (wrong|crashed|hung|build-failed|runner-failed):' stderr && fail "something failed: $(cat stderr)"
try 0 '4 trials, 4 of them' --db path.db --trials 4 --runner 'sh -c'
try 0 '4 trials, 4 of them' --db path.db --trials 4
expect 0 '' "$mossc" compile tiny.json --weights random:1 --tuning path.db -o tuned
grep -q 'no records' stderr && fail "compile does not know the records: $(cat stderr)"
# What it reaches at most is known, too.
"$mossc" db show path.db --html page.html >/dev/null 2>stderr || fail "no page: $(cat stderr)"

# --- Through standard input: a shell that has other files, as ssh has; one with a terminal, as old adb has ---
mkdir far
command_file ssh <<'SH'
shift
case "$*" in /*) echo "sh: $1: not found" >&2; exit 127 ;; esac
cd "$(dirname "$0")/../far" && TMPDIR=$PWD exec sh -c "$*"
SH
whole 0 'the whole model, ' --db ssh.db --trials 3 --runner "$work/bin/ssh phone"
[ -z "$(ls -A far)" ] || fail "left on the phone: $(ls far)"
if command -v script >/dev/null; then
    command_file adb <<'SH'
shift
case "$*" in /*) echo "sh: $1: not found"; exit 0 ;; esac
cd "$(dirname "$0")/../far" && TMPDIR=$PWD exec script -qec "$*" /dev/null
SH
    try 0 '1 trials, 0 of them' --db adb.db --trials 1 --runner "$work/bin/adb shell" --runner-timeout 5
    [ -z "$(ls -A far)" ] || fail "left on the old phone: $(ls far)"
else
    echo "not tried: a terminal (no program \`script\`)"
fi

# --- Never answers: nothing is written ---
command_file hang <<'SH'
exec sleep 1000
SH
command_file junk <<'SH'
head -c 3000 /dev/urandom
echo; echo "=00000000 hello 1"; echo "=0 end"
SH
command_file noise <<'SH'
exec yes "all is well"
SH
try 3 'has said nothing for 1 s' --db a.db --runner "$work/bin/hang" --runner-timeout 1
try 3 'does not run programs for' --db a.db --runner "$work/bin/junk"
try 3 'says what no program of mossc says' --db a.db --runner "$work/bin/noise" --runner-timeout 3
try 3 'it ended with 1 before it answered' --db a.db --runner false
[ ! -e a.db ] || fail "a database was made in vain"

# --- Fails in the midst of a search: tried again; nothing lost; the same command goes on ---
# after N WAY: from its N-th call on it does that to its program
command_file after <<'SH'
n=$1 way=$2
shift 2
calls=$(cat "$TMPDIR/../calls" 2>/dev/null || echo 0)
echo $((calls + 1)) >"$TMPDIR/../calls"
[ "$calls" -ge "$n" ] || exec "$@"
case $way in
once) [ "$calls" -gt "$n" ] && exec "$@"; "$@" | head -n 8; kill -9 $$ ;;
dies) "$@" | head -n 8; kill -9 $$ ;;
hangs) "$@" | head -n 8; exec sleep 1000 ;;
mangles) "$@" | sed 's/ error / errer /' ;;
others) "$@" | sed '/ cpu /d' ;;
esac
SH
rm -f calls
try 0 '4 trials, 0 of them' --db once.db --trials 4 --runner "$work/bin/after 3 once"
statuses once.db | grep -q runner-failed && fail "one failure was not tried again: $(statuses once.db)"
for pair in 'dies:was ended by signal 9' 'hangs:has said nothing for 2 s' 'mangles:says what no program of mossc says'; do
    way=${pair%%:*}
    rm -f calls
    try 3 "${pair#*:}" --db $way.db --trials 6 --runner "$work/bin/after 3 $way" --runner-timeout 2
    grep -q 'does not answer any more' stderr || fail "$way: not said: $(cat stderr)"
    statuses $way.db | grep -q ' 2 runner-failed' || fail "$way: records: $(statuses $way.db)"
    statuses $way.db | grep -qE ' [1-9][0-9]* (ok|stopped)' || fail "$way: what was measured is lost: $(statuses $way.db)"
    try 0 '6 trials, 2 of them' --db $way.db --trials 6 --runner env
done
rm -f calls
try 3 'another machine answers' --db others.db --trials 6 --runner "$work/bin/after 3 others"

# --- Whole models on a machine that fails: tried again; kernels stay in the records; the same command goes on ---
rm -f calls
whole 0 'the whole model, ' --db path.db --trials 4 --runner "$work/bin/after 1 once"
before=$(steps path.db)
for pair in 'dies:was ended by signal 9' 'hangs:has said nothing for 2 s' 'mangles:says what no program of mossc says' \
    'others:another machine answers'; do
    way=${pair%%:*}
    rm -f calls
    whole 3 'the tuned model: runner-failed: ' --db path.db --trials 4 --runner "$work/bin/after 1 $way" --runner-timeout 2
    grep -qF "${pair#*:}" stderr || fail "whole models, $way: $(cat stderr)"
done
statuses path.db | grep -qE ' (wrong|crashed|hung)' && fail "whole models: a failure that is no model's: $(statuses path.db)"
[ "$(steps path.db)" -ge "$before" ] || fail "whole models: records are lost"

# --- Ctrl-C while a candidate is being tried, and while whole models are ---
# ended N WHAT OPTION...: by a signal in its N-th call of a runner that hangs from then on
ended() {
    n=$1 what=$2
    shift 2
    rm -f calls
    "$mossc" tune tiny.json --jobs 2 --runner "$work/bin/after $((n - 1)) hangs" "$@" >stdout 2>stderr &
    pid=$!
    for _ in $(seq 600); do
        [ "$(cat calls 2>/dev/null || echo 0)" -ge "$n" ] && break
        sleep 0.1
    done
    kill -TERM $pid
    wait $pid
    code=$?
    [ $code -eq 143 ] || fail "a signal to $what: exit $code: $(cat stderr)"
    [ -z "$(ls -A tmp)" ] || fail "a signal to $what left behind: $(ls -A tmp)"
}
ended 5 'a candidate' --db ended.db --trials 40
grep -q 'the same command goes on' stderr || fail "a signal: $(cat stderr)"
ended 2 'whole models' --db path.db --trials 4 --time 300
finish runner
