#!/bin/sh
# Ten thousand candidates with injected faults; none that gives wrong results may be accepted.
#
#   tests/tuner/faults.sh BUILD [N] [SEED]
#
# BUILD: a build folder with tests/test_trial. Two processes share the work; about two hours on two cores.
set -eu
build=$1 n=${2:-10000} seed=${3:-1}
"$build/tests/test_trial" --faults $((n / 2)) "$seed" &
first=$!
bad=0
"$build/tests/test_trial" --faults $((n - n / 2)) $((seed + 1000)) || bad=1
wait $first || bad=1
exit $bad
