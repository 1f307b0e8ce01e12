#!/usr/bin/env bash
# Guards against slow code for 64-bit ARM, without such a machine: instructions a unit of work, counted under qemu.
#
#   guards_arm.sh MOSSC [--measure]
# Compiles guard.json for the ARM targets, counts with a plugin of qemu's (count_functions.c) what each kernel
# executes, and fails where it is more than 10 % above guards_arm.txt (30 % with another compiler than gcc 12).
# --measure prints guards_arm.txt's lines with today's counts instead: put them there, with a reason.
set -u
mossc=$(realpath "$1")
measure=${2:-}
here=$(cd "$(dirname "$0")" && pwd)
skip() { echo "SKIPPED: $*, so NOTHING GUARDS THE SPEED of the code for ARM"; exit 77; }
command -v qemu-aarch64 >/dev/null || skip "no qemu-aarch64"
command -v aarch64-linux-gnu-gcc >/dev/null || skip "no aarch64-linux-gnu-gcc"
[ -d /usr/aarch64-linux-gnu/lib ] || skip "no C library of 64-bit ARM in /usr/aarch64-linux-gnu"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
${CC:-cc} -std=c17 -O2 -shared -fPIC -o "$work/count.so" "$here/count_functions.c" || exit 3
emulate() { qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu "$@"; }
. "$here/compare.sh"
allow_for "$(aarch64-linux-gnu-gcc -dumpversion)"

# count TARGET STORAGE PHASE: writes a profile, instructions by function, calls not included
count() {
    local artifact=$work/$1-$2 tokens=(-p $prompt -n 0)
    [ "$3" = decode ] && tokens=(-p 0 -n $generated)
    [ -e "$artifact" ] || "$mossc" compile "$here/guard.json" --weights random:1 --quant "$2" --target "$1" \
        --cc "aarch64-linux-gnu-gcc -fno-inline-functions-called-once" -o "$artifact" || return
    [ -e "$artifact-$3" ] && return
    emulate -plugin "$work/count.so,out=$artifact-$3" "$artifact" bench "${tokens[@]}" -r 1 -t 1 --no-verify \
        >"$work/log" 2>&1 || { cat "$work/log"; return 1; }
    [ -s "$artifact-$3" ] || { cat "$work/log"; skip "this qemu takes no plugins of version 1"; }
}

# instructions TARGET STORAGE PHASE KERNELS: of the functions whose names start so; all: of those mossc wrote
instructions() {
    awk -v kernels="$4" '
        kernels == "all" ? $2 !~ /^(moss_|main$|_|\?|call_weak|init_have)/ : $2 ~ "^(" kernels ")_" { sum += $1 }
        END { printf "%.0f\n", sum }' "$work/$1-$2-$3"
}

compare_counts "$here/guards_arm.txt"
