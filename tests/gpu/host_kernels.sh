#!/bin/sh
# A shared library of GPU kernels rendered for the CPU, with the emulator in it (launch.h says what for).
#
#   host_kernels.sh INPUT OUT.so    INPUT: a file of cases, or PTX (or a file that contains it as text)
#
# GPU_CASES and EMULATOR name the built gpu_cases and libgpu_emulator.a, CC the compiler (cc); SANITIZE adds flags.
# Exit code: 0 ok, 1 a kernel does not compile, 2 usage.
set -eu
[ $# = 2 ] || { echo "usage: GPU_CASES=... EMULATOR=... host_kernels.sh INPUT OUT.so" >&2; exit 2; }
input=$1
out=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$GPU_CASES" c "$input" "$work" >"$work/names"
# No warnings: with parameters bound, branches not taken divide by zero; clang warns when it makes the bitcode.
flags="-std=c17 -D_GNU_SOURCE -O2 -w -fno-strict-aliasing -ffp-contract=fast -fPIC -fvisibility=hidden ${SANITIZE:-} \
    -I$root/codegen/gpu -I$root/tests/gpu"
# shellcheck disable=SC2086
xargs -P 2 -I{} ${CC:-cc} $flags -c "$work/{}.c" -o "$work/{}.o" <"$work/names" || exit 1
# shellcheck disable=SC2086
${CC:-cc} -shared ${SANITIZE:-} -o "$out" "$work"/*.o -Wl,--whole-archive "$EMULATOR" -Wl,--no-whole-archive -lm -lpthread
