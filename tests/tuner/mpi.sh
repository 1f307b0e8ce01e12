#!/usr/bin/env bash
# mpirun mossc tune: four ranks on this machine; one killed in the middle of a trial; unlike machines; what goes wrong.
#
#   mpi.sh MOSSC
# Works in a temporary folder on a tiny graph. Exit code: 0 all well, 1 not, 77 no mpirun of Open MPI.
set -u
if ! mpirun --version 2>/dev/null | grep -q 'Open MPI'; then
    echo "SKIPPED: no mpirun of Open MPI here (Debian: openmpi-bin): nothing of many machines was tested"
    exit 77
fi
if [ ! -r /proc/$$/task/$$/children ]; then
    echo "SKIPPED: /proc does not tell a process's children here: no trial could be caught"
    exit 77
fi
. "$(dirname "$0")/tools.sh"

# As root and with more ranks than processors; a session folder whose path is short enough for its sockets.
mpirun_here() { TMPDIR=/tmp mpirun --allow-run-as-root --oversubscribe -x TMPDIR="$work/tmp" "$@"; }
tune() { echo "$mossc" tune tiny.json --db "$1" --trials "$2" --time 600 --kernels-only; }

# says WORDS NAME: somewhere in what a command printed
says() { grep -qaF -- "$1" "$2.out" "$2.err" || fail "$2: no '$1' in: $(tail -n 3 "$2.out"; tail -n 8 "$2.err")"; }

# Processes below one; nothing when it is gone. No process is started for it: trials are short.
children() { found=; { read -r found <"/proc/$1/task/$1/children"; } 2>/dev/null; [ -d "/proc/$1" ]; }

# Is it a trial that stands still, after at least three others that are in the database $2?
stands() {
    local state
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        { read -r _ _ state _ <"/proc/$1/stat"; } 2>/dev/null || return 1
        [ "$state" = T ] && break
    done
    [ "$state" = T ] && [ "$(count "$2")" -ge 3 ]      # asked once: a trial that stands still for long counts as hung
}

# Waits for a trial that runs below the mpirun of process $1, stops it, and sets rank and worker: the process that mpirun
# started and the one that works for it.
catch_trial() {
    local ranks workers trials trial comm end=$((SECONDS + 300))
    while [ $SECONDS -lt $end ]; do
        children "$1" || return 1
        ranks=$found
        for rank in $ranks; do
            children "$rank"
            workers=$found
            for worker in $workers; do
                children "$worker"
                trials=$found
                for trial in $trials; do
                    comm=; { read -r comm <"/proc/$trial/comm"; } 2>/dev/null
                    [ "$comm" = "${mossc##*/}" ] && kill -STOP "$trial" 2>/dev/null || continue
                    stands "$trial" "$2" && return
                    kill -CONT "$trial" 2>/dev/null
                done
            done
        done
    done
    return 1
}

# Waits for a process in the background; its exit code in $code.
end_of() { wait "$1"; code=$?; }

# mpirun itself, below the shell that runs the function.
mpirun_of() { for _ in $(seq 100); do pgrep -P "$1" -x mpirun && return; sleep 0.05; done; }

# --- One process, for comparison; and four ranks: the same points ---
$(tune one.db 24) >one.out 2>one.err || fail "one process: $(tail -3 one.err)"
says '24 trials, 0 of them' one
mpirun_here -n 4 $(tune four.db 24) >four.out 2>four.err || fail "four ranks: $(tail -5 four.err)"
says '24 trials, 0 of them' four
for rank in 1 2 3; do
    says "rank $rank (" four
done
[ "$(points four.db)" = "$(points one.db)" ] || fail "four ranks tried other points than one process"
# What they measured is the same search: one process has nothing left to do.
$(tune four.db 24) >more.out 2>more.err || fail "going on alone: $(tail -3 more.err)"
says '24 trials, 24 of them from earlier runs' more
[ -z "$(ls -A tmp)" ] || fail "left behind: $(ls -A tmp)"

# --- A worker killed in the middle of a trial, and a rank: another does the trial, and nothing is missing ---
for what in worker rank; do
    recover=; [ $what = rank ] && recover=--enable-recovery
    # shellcheck disable=SC2086
    mpirun_here $recover -n 4 $(tune $what.db 24) >$what.out 2>$what.err &
    shell=$!
    top=$(mpirun_of $shell)
    if catch_trial "$top" $what.db; then
        [ $what = rank ] && worker=$rank
        kill -9 "$worker" || fail "$what: it was gone already"
    else
        fail "$what: no trial was seen: $(cat $what.err)"
    fi
    end_of $shell
    [ $code -eq 0 ] || fail "$what killed: exit $code: $(tail -5 $what.err)"
    says 'its trial goes to another' $what
    [ $what = rank ] || says 'ended by signal 9' $what
    says '24 trials, 0 of them' $what
    says '2 workers left' $what
    [ "$(points $what.db)" = "$(points one.db)" ] || fail "$what killed: other points than in one process: $(diff <(points $what.db) <(points one.db))"
    [ -z "$(points $what.db | uniq -d)" ] || fail "$what killed: a trial is there twice"
    "$mossc" db show $what.db >/dev/null || fail "$what killed: the database cannot be read"
    "$mossc" db export $what.db --format csv | grep -q 'runner-failed' && fail "$what killed: half a trial is there"
    rm -rf tmp/*
done

# --- All workers gone: an error, every trial kept, and the same command goes on ---
mpirun_here -n 2 $(tune gone.db 24) >gone.out 2>gone.err &
shell=$!
top=$(mpirun_of $shell)
catch_trial "$top" gone.db && kill -9 "$worker"
end_of $shell
[ $code -eq 3 ] || fail "no worker left: exit $code: $(tail -5 gone.err)"
says 'no worker is left for' gone
before=$(count gone.db)
[ "$before" -ge 3 ] || fail "no worker left: only $before trials are there"
rm -rf tmp/*
mpirun_here -n 3 $(tune gone.db 24) >again.out 2>again.err || fail "going on: $(tail -5 again.err)"
says "24 trials, $before of them from earlier runs" again
[ "$(points gone.db)" = "$(points one.db)" ] || fail "going on: other points than in one process: $(diff <(points gone.db) <(points one.db))"

# --- Machines that are not alike: a search and records of their own ---
other=$(command -v clang-19 || command -v clang) && "$mossc" targets | grep -q '^x86-64-v3 *yes' && {
    mpirun_here -n 2 $(tune mixed.db 9) : -n 1 $(tune mixed.db 9) --cc "$other" : -n 1 $(tune mixed.db 9) --target x86-64-v3 \
        >mixed.out 2>mixed.err || fail "unlike machines: $(tail -5 mixed.err)"
    [ "$(grep -c '^9 trials' mixed.out)" -eq 3 ] || fail "unlike machines: not three searches: $(cat mixed.out)"
    "$mossc" db show mixed.db --json >mixed.json
    for words in clang x86-64-v3 gcc; do grep -q "$words" mixed.json || fail "unlike machines: no records of $words"; done
    [ "$(points mixed.db | wc -l)" -eq 27 ] || fail "unlike machines: $(points mixed.db | wc -l) trials"
}
[ -z "$(ls -A tmp)" ] || fail "left behind: $(ls -A tmp)"

# --- What goes wrong ---
expect 2 '`--db FILE` is missing' mpirun_here -n 3 "$mossc" tune tiny.json
expect 3 'false fails on' mpirun_here -n 3 $(tune bad.db 5) --cc false
grep -qF 'no worker is left' stderr || fail "a compiler that fails: $(cat stderr)"
sed 's/48/56/' tiny.json >larger.json
mkdir a b && cp tiny.json a/m.json && cp larger.json b/m.json
expect 3 'has another model or another mossc' mpirun_here -n 1 "$mossc" tune a/m.json --db unlike.db --trials 5 : \
    -n 1 "$mossc" tune b/m.json --db unlike.db --trials 5
expect 3 'is not Open MPI' env PMI_SIZE=2 PMI_RANK=0 $(tune other.db 5)
pgrep -f "$work" >/dev/null && fail "processes are left: $(pgrep -af "$work")"
finish mpi
