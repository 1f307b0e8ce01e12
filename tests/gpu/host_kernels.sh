#!/bin/sh
# A shared library of GPU kernels rendered for the CPU, with the emulator in it (launch.h says what for).
#
#   host_kernels.sh INPUT OUT.so    INPUT: a file of cases, a list of instances' names, or PTX
#
# GPU_CASES and EMULATOR name the built gpu_cases and libgpu_emulator.a, CC the compiler (cc); SANITIZE adds flags. With
# RACES=1 the emulator looks for races (emulate_races.h).
# OUT.so.d keeps the objects: what did not change is not compiled again. Exit code: 0 ok, 1 a kernel does not
# compile, 2 usage.
set -eu
[ $# = 2 ] || { echo "usage: GPU_CASES=... EMULATOR=... host_kernels.sh INPUT OUT.so" >&2; exit 2; }
input=$1
out=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
kept=$out.d
mkdir -p "$kept/new"
# No warnings: with parameters bound, branches not taken divide by zero; clang warns when it makes the bitcode.
compile="${CC:-cc} -std=c17 -D_GNU_SOURCE -O2 -w -Wno-psabi -fno-strict-aliasing -ffp-contract=fast -fPIC \
    -fvisibility=hidden ${SANITIZE:-} ${RACES:+-fsanitize=thread} -I$root/codegen/gpu -I$root/tests/gpu"

echo "$compile" | cat - "$root"/codegen/gpu/*.h "$root"/tests/gpu/emulate*.h | cksum >"$kept/new/stamp"
cmp -s "$kept/new/stamp" "$kept/stamp" || rm -f "$kept"/*.c "$kept"/*.o
mv "$kept/new/stamp" "$kept/stamp"
"$GPU_CASES" c "$input" "$kept/new" >"$kept/names"
while read -r name; do
    if cmp -s "$kept/new/$name.c" "$kept/$name.c" && [ -f "$kept/$name.o" ]; then
        rm "$kept/new/$name.c"
    else
        mv "$kept/new/$name.c" "$kept/$name.c"
        rm -f "$kept/$name.o"
        echo "$name"
    fi
done <"$kept/names" >"$kept/changed"
# shellcheck disable=SC2086
xargs -P 2 -I{} $compile -c "$kept/{}.c" -o "$kept/{}.o" <"$kept/changed" || exit 1
sed "s|.*|\"$kept/&.o\"|" "$kept/names" >"$kept/objects"
# shellcheck disable=SC2086
${CC:-cc} -shared ${SANITIZE:--Wl,-z,defs} -o "$out" "@$kept/objects" \
    -Wl,--whole-archive "$EMULATOR" -Wl,--no-whole-archive -lm -lpthread -ldl
