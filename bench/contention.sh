#!/bin/sh
# Does generation with several threads collapse when other processes want the processors too?
#
#   bench/contention.sh [-t THREADS] [-q QUANT] [-n TOKENS] [MODEL.json]    default: 2, q8, 512, models/mossnet-8x8m.json
#
# Generates alone and beside 1, 2, ... THREADS busy processes, three times each, and prints the medians and their
# ratio to alone. The threads run in step, so with one of two processors shared they can do half; where the system puts
# both threads on one processor, they take turns, and every barrier is a switch: 0.4 of a small model.
# Much less means that a thread waits where another should have run.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=${BUILD:-$root/build}
threads=2 quant=q8 tokens=512
while getopts t:q:n: option; do
    case $option in
    t) threads=$OPTARG ;;
    q) quant=$OPTARG ;;
    n) tokens=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
work=$(mktemp -d)
busy=
trap '[ -z "$busy" ] || kill $busy; rm -rf "$work"' EXIT
"$build/mossc" compile "${1:-$root/models/mossnet-8x8m.json}" --weights random:1 --quant "$quant" -o "$work/model"

echo "| busy processes | tok/s, median (min to max) | of alone |"
echo "|---:|---:|---:|"
for n in $(seq 0 "$threads"); do
    if [ "$n" -gt 0 ]; then
        sh -c 'while :; do :; done' &
        busy="$busy $!"
    fi
    "$work/model" bench -p 0 -n "$tokens" -t "$threads" -r 3 -o csv 2>/dev/null | awk -F, -v n="$n" -v file="$work/alone" '
        NR == 2 {
            if (n == 0) print $13 > file; else getline alone < file
            printf "| %d | %.1f (%.1f to %.1f) | %.2f |\n", n, $13, $14, $15, n == 0 ? 1 : $13 / alone
        }'
done
