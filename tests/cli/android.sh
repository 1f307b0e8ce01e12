#!/usr/bin/env bash
# A program for Android, built here from Debian's packages: what the file is, and what it does on emulated CPUs.
#
#   android.sh MOSSC
# Compiles a tiny model and runs it under qemu-aarch64 as processors of three ages: each must take the code made for it
# and none may die of an illegal instruction. Skipped, aloud, without the tools.
set -u
mossc=$(realpath "$1")
. "$(dirname "$0")/android_tools.sh"
need clang-19 ld.lld-19 qemu-aarch64 readelf aarch64-linux-gnu-gcc
[ -f /usr/lib/aarch64-linux-musl/crt1.o ] || skip "no musl-dev:arm64"

"$mossc" compile tiny.json --weights random:1 --quant q8 --target android-arm64 --embed no -o tiny || exit 1
"$mossc" compile tiny.json --weights random:1 --quant f32 --target android-arm64 -o embedded || exit 1

# ---- the file ----
is "an executable" "$(readelf -hW tiny | grep -c EXEC)" 1
is "what it needs, a loader or libraries" "$(readelf -lWd tiny | grep -cE 'INTERP|NEEDED')" 0
is "segments 16 KiB apart" "$(readelf -lW tiny | awk '$1 == "LOAD" && $NF != "0x4000"' | wc -l)" 0
is "no executable stack" "$(readelf -lW tiny | awk '$1 == "GNU_STACK" { print $7 }')" RW
[ -f tiny.weights ] || fail "--embed no wrote no tiny.weights"
[ -e embedded.weights ] && fail "small weights are not linked in"

# ---- on three processors ----
# on CPU PROGRAM OPTIONS...: its words in `said`, its exit code
on() {
    local cpu=$1
    shift
    qemu-aarch64 -cpu "$cpu" "./$@" >said 2>&1
}
# expect CODE WORDS: of what `on` did last
expect() {
    local found=$?
    [ $found -eq "$1" ] && grep -qF -- "$2" said || fail "exit $found, expected $1 and '$2': $(cat said)"
}
for pair in cortex-a72=arm-neon cortex-a76=arm-dotprod max=arm-i8mm; do
    cpu=${pair%=*} code=${pair#*=}
    on $cpu tiny --version;                  expect 0 "code: $code"
    on $cpu tiny info;                       expect 0 "$code (needs: "
    is "$cpu: info marks one" "$(grep -c 'runs here' said)" 1
    grep "runs here" said | grep -q "$code " || fail "$cpu: info marks another than $code: $(cat said)"
    on $cpu tiny --tokens 1,2,3 -n 8 --temp 0;      expect 0 "generated: 8 tokens"
    on $cpu embedded --tokens 1,2,3,4,5,6 --logits "f32-$code"; expect 0 "prompt:"
done
# Float32 differs by rounding at most; the same code gives the same bits on every processor.
is "float32 logits, neon and dotprod" "$(differ f32-arm-neon f32-arm-dotprod)" 0
is "float32 logits, neon and i8mm" "$(differ f32-arm-neon f32-arm-i8mm)" 0
on cortex-a72 tiny --tokens 1,2,3 --logits old; expect 0 "prompt:"
MOSS_CODE=arm-neon on max tiny --tokens 1,2,3 --logits forced; expect 0 "prompt:"
cmp -s old forced || fail "MOSS_CODE=arm-neon on a new processor is not what an old one gives"
MOSS_CODE=arm-neon on max tiny --version; expect 0 "code: arm-neon"
MOSS_CODE=arm-i8mm on cortex-a76 tiny -n 1
expect 3 "compiled for arm-i8mm, which needs neon fp16 dotprod i8mm bf16; this CPU or its system lacks i8mm"
MOSS_CODE=arm-sve on max tiny -n 1; expect 1 "MOSS_CODE is arm-sve, expected one from arm-neon to arm-i8mm"

# ---- wrong files ----
head -c 20000 tiny.weights >cut; on max tiny -m cut -n 1;  expect 1 "truncated: 20000 bytes"
sed 's/"d_model": 32/"d_model": 48/' tiny.json >other.json
"$mossc" compile other.json --weights random:1 --quant q8 --target arm-neon --emit c -o other.c || exit 1
on max tiny -m other.c.weights -n 1; expect 1 "weights of tiny ("
cp tiny alone; on max alone -n 1; expect 3 "alone.weights: cannot open the weights: No such file or directory"
# Weights serve all kinds of CPU, and also a program for one of them.
"$mossc" compile tiny.json --weights random:1 --quant q8 --target arm-neon --emit c -o neon.c 2>/dev/null || exit 1
cmp -s tiny.weights neon.c.weights || fail "weights for Android and for arm-neon differ"

# A full disk while weights are written: no half of a program.
if (ulimit -f 4; trap '' XFSZ
    "$mossc" compile tiny.json --weights random:1 --target android-arm64 --embed no -o full >said 2>&1)
then fail "a full disk went unnoticed"; fi
grep -qF "error[file-write]" said || fail "a full disk: $(cat said)"
is "files left on a full disk" "$(ls | grep -c '^full')" 0

# ---- on this machine ----
if [ "$(uname -m)" = x86_64 ] && ! ls /proc/sys/fs/binfmt_misc/*aarch64* >/dev/null 2>&1; then
    "$mossc" run tiny -n 1 >said 2>&1; expect 3 "it is for 64-bit ARM (target android-arm64), and this machine is not"
    grep -qF "adb push ./tiny" said || fail "no way to a phone told: $(cat said)"
    "$mossc" run tiny.json --weights random:1 --target android-arm64 >said 2>&1
    expect 3 "cannot run code for android-arm64"
fi
"$mossc" compile tiny.json --target android-arm64 --emit c -o tiny.c >said 2>&1
expect 2 "take arm-neon, arm-dotprod or arm-i8mm"
mkdir empty
PATH=$work/empty "$mossc" compile tiny.json --weights random:1 --target android-arm64 -o none >said 2>&1
expect 3 "these Debian packages are missing: clang-19 lld-19"

# ---- another compiler brings its own C library ----
compile() { "$mossc" compile tiny.json --weights random:1 --target android-arm64 "$@" || exit 1; }
compile --quant q8 --cc aarch64-linux-gnu-gcc -o gcc
on cortex-a76 gcc --version; expect 0 "code: arm-dotprod"
on cortex-a76 gcc --tokens 1,2,3 -n 8 --temp 0; expect 0 "generated: 8 tokens"
exit $failed
