#!/bin/sh
# The differential test for one target: on this machine where it can run, else under an emulator.
#
#   tests/diff/on_target.sh DIFF MOSSC TARGET[@CPU] [OPTION OF DIFF]...
# CPU: the one to emulate for a target of 64-bit ARM, else the least that has what the target needs.
# Exit code: diff's; 77 (skipped, with the reason) where neither CPU nor emulator can run it.
set -u
diff=$1 mossc=$2 target=${3%@*} cpu=${3#"${3%@*}"}
cpu=${cpu#@}
shift 3

skip() { echo "SKIPPED: $target: $*"; exit 77; }

case $("$mossc" targets | awk -v target="$target" '$1 == target { print $2 }') in
yes) exec "$diff" --mossc "$mossc" --target "$target" "$@" ;;
no) ;;
*) echo "mossc targets does not list $target"; exit 1 ;;
esac
case $target in
arm-* | android-*)
    command -v aarch64-linux-gnu-gcc >/dev/null || skip "no aarch64-linux-gnu-gcc"
    command -v qemu-aarch64 >/dev/null || skip "no qemu-aarch64"
    [ -d /usr/aarch64-linux-gnu/lib ] || skip "no C library of 64-bit ARM in /usr/aarch64-linux-gnu"
    case $cpu$target in arm-neon) cpu=cortex-a72 ;; arm-dotprod | arm-fp16) cpu=cortex-a76 ;; arm-* | android-*) cpu=max ;; esac
    case $target in android-*)
        for tool in clang-19 ld.lld-19; do
            command -v $tool >/dev/null || skip "no $tool"
        done
        [ -e /usr/lib/aarch64-linux-musl/libc.a ] || skip "no musl-dev:arm64" ;;
    esac
    exec "$diff" --mossc "$mossc" --target "$target" --runner "qemu-aarch64 -cpu $cpu -L /usr/aarch64-linux-gnu" "$@" ;;
a100 | h100)
    build=$(cd "$(dirname "$diff")/.." && pwd)
    [ -f "$build/tests/libgpu_emulator.a" ] || skip "built without LLVM"
    case $target in a100) sm=80 ;; *) sm=90 ;; esac
    exec "$diff" --mossc "$mossc" --target "$target" --runner "sh tests/gpu/fake_run.sh $build $sm" "$@" ;;
*) skip "this CPU lacks its features" ;;
esac
