#!/usr/bin/env bash
# Guards against slow code that no clock is needed for: instructions a unit of work, counted by valgrind.
#
#   guards.sh MOSSC [--measure]
# Compiles guard.json and the shipped model for x86-64-v3 (valgrind knows no AVX-512), counts what one thread executes
# inside the evaluation, and fails where it is more than 10 % above guards.txt (30 % with another
# compiler than gcc 12). --measure prints guards.txt's lines with today's counts instead: put them there, with a reason.
set -u
mossc=$(realpath "$1")
measure=${2:-}
here=$(cd "$(dirname "$0")" && pwd)
skip() { echo "SKIPPED: $*"; exit 77; }
command -v valgrind >/dev/null || skip "no valgrind, so NOTHING GUARDS THE SPEED of the generated code"
command -v gcc >/dev/null || skip "no gcc: the counts were made with it"
"$mossc" targets | grep -q '^x86-64-v3 *yes' || skip "this CPU does not run x86-64-v3"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$here/compare.sh"
allow_for "$(gcc -dumpversion)"

# count MODEL STORAGE PHASE: writes callgrind's profile, in which a kernel is one function
count() {
    local artifact=$work/$1-$2 graph=$here/$1.json weights=(--weights random:1)
    local tokens=(-p $prompt -n 0) collect=moss_eval
    [ "$1" = shakespeare ] && graph=$here/../../models/shakespeare/shakespeare.json weights=()
    [ "$3" = decode ] && tokens=(-p 0 -n $generated) collect=moss_eval_batch
    [ -e "$artifact" ] || "$mossc" compile "$graph" "${weights[@]}" --quant "$2" --target x86-64-v3 \
        --cc "gcc -fno-inline-functions-called-once" -o "$artifact" || return
    [ -e "$artifact-$3" ] || valgrind --tool=callgrind --compress-strings=no --compress-pos=no \
        --toggle-collect=$collect --callgrind-out-file="$artifact-$3" \
        "$artifact" bench "${tokens[@]}" -r 1 -t 1 --no-verify >"$work/log" 2>&1 || { cat "$work/log"; return 1; }
}

# instructions MODEL STORAGE PHASE KERNELS: of functions by name, calls included
instructions() {
    awk -v kernels="$4" '
        /^fn=/ { mine = kernels == "all" || index($0, "fn=" kernels "_") == 1 }
        /^calls=/ && kernels == "all" { getline; next }
        /^[0-9]/ && mine { sum += $2 }
        END { printf "%.0f\n", sum }' "$work/$1-$2-$3"
}

compare_counts "$here/guards.txt"
