#!/bin/sh
# Ten thousand candidates with injected faults; none that gives wrong results may be accepted.
#
#   tests/tuner/faults.sh BUILD FOLDER [N] [SEED]   FOLDER: where the journals are; what they have is not done again
#   tests/tuner/faults.sh --sum JOURNAL...          what came of it
# BUILD: a build folder with tests/test_faults. Two processes share the work, with the lowest priority. LOCK, if set, is
# a file that flock takes (shared) for a batch at a time, so that others may have the machine to themselves.
# Exit code: 0 all is done and no wrong one was accepted, 1 one was, 3 trouble.
set -u

# Of lines KIND, STATUS, CAUGHT, KERNEL, FAULT: how many by each, and every wrong one.
sum() {
    awk -F '\t' '
    FNR == 1 { next }
    { n++; status[$2]++; caught[$3]++; sub(/ .*/, "", $4); kernel[$4]++; pairs += $5 ~ /; `/ }
    $3 == "accepted wrong" { print "ACCEPTED, WRONG: " $0; wrong++ }
    $3 == "same results" { same++; same_of[$4]++ }
    function list(title, counts,    key, line, command) {
        print title
        for (key in counts) lines[++n_lines] = sprintf("%8d  %s", counts[key], key)
        command = "sort -k1,1nr -k2"
        for (; n_lines > 0; n_lines--) print lines[n_lines] | command
        close(command)
    }
    END {
        printf "%d faults, %d of them two at once; %d change no result, %d wrong ones accepted\n", n, pairs, same, wrong
        list("what was told of them:", status)
        list("caught by:", caught)
        list("by kernel:", kernel)
        list("of these change no result:", same_of)
        if (n >= 100 && status["wrong"] * 6 < n) { print "too few are wrong: was anything injected?"; exit 1 }
        exit wrong > 0
    }' "$@"
}

if [ "${1:-}" = --sum ]; then
    shift
    sum "$@"
    exit
fi
[ $# -ge 2 ] || { echo "usage: faults.sh BUILD FOLDER [N] [SEED] | --sum JOURNAL..." >&2; exit 2; }
build=$1 folder=$2 n=${3:-10000} seed=${4:-1}
mkdir -p "$folder"

# part I: batches until there is no more
part() {
    code=10
    while [ $code -eq 10 ]; do
        code=0
        ${LOCK:+flock -s "$LOCK"} nice -n 19 "$build/tests/test_faults" "$n" --seed "$seed" --part "$1/2" --most 200 \
            --journal "$folder/faults-$1" || code=$?
    done
    return $code
}

part 0 &
first=$!
code=0
part 1 || code=$?
wait $first || code=$?
sum "$folder"/faults-0 "$folder"/faults-1 || code=1
exit $code
