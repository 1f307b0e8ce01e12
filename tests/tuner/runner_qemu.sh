#!/usr/bin/env bash
# mossc tune --runner with an emulator of 64-bit ARM: every kind of target for it, and processors that lack something.
#
#   runner_qemu.sh MOSSC
# Works in a temporary folder on a tiny graph. Exit code: 0 all well, 1 not, 77 skipped: no qemu-aarch64.
set -u
. "$(dirname "$0")/runner_tools.sh"
for tool in qemu-aarch64 aarch64-linux-gnu-gcc; do
    command -v $tool >/dev/null || { echo "SKIPPED: no $tool"; exit 77; }
done
whole() { local code=$1 words=$2; shift 2; expect "$code" "$words" "$mossc" tune tiny.json --jobs 2 --time 300 "$@"; }
try() { whole "$@" --kernels-only; }
compared() { grep -q 'the whole model, .* threads, 512 tokens of prefill' stdout || fail "$1: whole models: $(cat stdout)"; }
good() { grep -qE ': (wrong|crashed|hung|build-failed|runner-failed):' stderr && fail "$1: something failed: $(cat stderr)"; }

whole 0 '4 trials, 0 of them' --target arm-neon --db arm.db --trials 4 --runner 'qemu-aarch64 -cpu cortex-a72'
good arm-neon
compared arm-neon
expect 0 '0x41:0xd08, emulated' "$mossc" db show arm.db
# An emulated machine and this one never mix, nor do two.
try 0 '2 trials, 0 of them' --target arm-i8mm --quant q8 --db arm.db --trials 2 --runner 'qemu-aarch64 -cpu max'
good arm-i8mm
expect 0 '0x00:0x051, emulated' "$mossc" db show arm.db
# What it measured is there for the compiler.
expect 0 '' "$mossc" compile tiny.json --target arm-neon --weights random:1 --tuning arm.db -o neon
grep -q 'no records' stderr && fail "compile does not know the records: $(cat stderr)"

# A processor without what the code needs; the other architecture.
try 3 'cannot run code for arm-i8mm: it lacks fp16' --target arm-i8mm --db no.db --runner 'qemu-aarch64 -cpu cortex-a72'
[ "$(uname -m)" != x86_64 ] || try 3 'does not run programs for arm-neon' --target arm-neon --db no.db --runner env
[ "$(uname -m)" != x86_64 ] || try 3 'does not run programs for x86-64-v3' --target x86-64-v3 --db no.db --runner qemu-aarch64
[ ! -e no.db ] || fail "a database was made in vain"

# As for a phone: without an NDK; the code that its processor takes.
if [ -f /usr/lib/aarch64-linux-musl/crt1.o ] && command -v clang-19 ld.lld-19 >/dev/null; then
    whole 0 '2 trials, 0 of them' --target android-arm64 --quant q8 --db phone.db --trials 2 --runner 'qemu-aarch64 -cpu cortex-a76'
    good android-arm64
    compared android-arm64
    expect 0 '' "$mossc" compile tiny.json --target android-arm64 --quant q8 --weights random:1 --tuning phone.db -o phone
    grep -q 'no records' stderr && fail "compile for a phone does not know the records: $(cat stderr)"
else
    echo "not tried: android-arm64 (no musl-dev:arm64, clang-19 or lld-19)"
fi
finish runner_qemu
