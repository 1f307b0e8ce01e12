#!/usr/bin/env bash
# A library for Android apps, built here from Debian's packages: what the file is, and what an app would do with it.
#
#   android_lib.sh MOSSC BIONIC_DEF
# There is no Android here: a small libc.so stands in for bionic's over glibc (android_libc.c), and a program uses the
# library under qemu-aarch64. What the file needs and exports is read with readelf. Skipped, aloud, without the tools.
set -u
mossc=$(realpath "$1")
def=$(realpath "$2")
. "$(dirname "$0")/android_tools.sh"
need clang-19 ld.lld-19 qemu-aarch64 readelf aarch64-linux-gnu-gcc
[ -d /usr/aarch64-linux-gnu/lib ] || skip "no C library of 64-bit ARM in /usr/aarch64-linux-gnu"

# properties LIBRARY: what Android asks of a library
properties() {
    is "$1: segments 16 KiB apart" "$(readelf -lW "$1" | awk '$1 == "LOAD" && $NF != "0x4000"' | wc -l)" 0
    is "$1: no executable stack" "$(readelf -lW "$1" | awk '$1 == "GNU_STACK" { print $7 }')" RW
    is "$1: text relocations" "$(readelf -dW "$1" | grep -c TEXTREL)" 0
    is "$1: its own name" "$(readelf -dW "$1" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')" "$1"
    is "$1: build id" "$(readelf -nW "$1" | grep -c 'Build ID')" 1
    is "$1: two hash tables" "$(readelf -dW "$1" | grep -cE '\((GNU_)?HASH\)')" 2
    is "$1: no writable code" "$(readelf -lW "$1" | grep -c 'RWE')" 0
    is "$1: no thread-local data" "$(readelf -lW "$1" | grep -c TLS)" 0
    readelf --dyn-syms -W "$1" | awk '$7 ~ /^[0-9]+$/ && $4 ~ /FUNC|OBJECT/ { print $8 }' | sort >exported
    sed -n 's/^API(\([a-z_]*\),.*/moss_\1@@MOSS_1/p' "$here/../../codegen/api.def" | sort >wanted
    cmp -s exported wanted || fail "$1: exports are not the interface: $(diff exported wanted | grep '[<>]' | head -5)"
}

compile() { "$mossc" compile "$work/tiny.json" --weights random:1 --quant q8 --target android-arm64 "$@" || exit 1; }
compile --emit lib -o libtiny.so
properties libtiny.so
needed=$(readelf -dW libtiny.so | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | sort | tr '\n' ' ')
is "libraries needed" "$needed" "libc.so libm.so "
readelf --dyn-syms -W libtiny.so | awk '$7 == "UND" && $8 { print $8 }' | sort >undefined
sed -n 's/^LIB[CM](\(.*\))/\1/p' "$def" | sort >allowed
is "functions of Android that are not in bionic.def" "$(comm -23 undefined allowed | tr '\n' ' ')" ""
[ -s undefined ] || fail "no undefined symbols found"
[ -f libtiny.so.weights ] || fail "the weights of a library are linked in unasked"

# ---- used by a program ----
cross() { aarch64-linux-gnu-gcc -std=c17 -Wall -D_GNU_SOURCE "$@" || exit 1; }
mkdir lib
cross -shared -fPIC "$here/android_libc.c" -Wl,-soname,libc.so -o lib/libc.so
cross -shared -fPIC -nostdlib -Wl,--no-as-needed -Wl,-soname,libm.so -x c /dev/null -x none -lm -o lib/libm.so
cp libtiny.so lib
cross "$here/android_app.c" -I. -Wl,--no-as-needed lib/libc.so lib/libtiny.so -lm -Wl,--allow-shlib-undefined -o app
# app CPU ARGUMENTS...: its words in `said`
app() {
    local cpu=$1
    shift
    qemu-aarch64 -cpu "$cpu" -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH="$work/lib:/usr/aarch64-linux-gnu/lib" \
        ./app "$@" >said 2>&1
}
# The state that the first one saves is what the others go on from.
for pair in cortex-a72=arm-neon cortex-a76=arm-dotprod max=arm-i8mm; do
    app "${pair%=*}" libtiny.so.weights state || fail "${pair%=*}: $(cat said)"
    is "${pair%=*}" "$(sed -n 1p said)" "${pair#*=}"
    is "${pair%=*}: a restored state" "$(sed -n 3p said)" "$(sed -n 2p said)"
    sed -n 2p said | grep -qE '^[0-9]+(,[0-9]+){5}$' || fail "no tokens: $(cat said)"
done
# Beside the library is where it looks without a path; its error says so.
app max && fail "opened weights that are not there"
grep -qF "lib/libtiny.so.weights: cannot open the weights" said || fail "missing weights: $(cat said)"
cp libtiny.so.weights lib
app max || fail "weights beside the library: $(cat said)"
# Damage: told, not computed with.
head -c 9000 libtiny.so.weights >cut;  app max cut && fail "opened truncated weights"
grep -qF "truncated" said || fail "truncated weights: $(cat said)"
printf 'x' | dd of=lib/libtiny.so.weights bs=1 seek=6000 conv=notrunc 2>/dev/null
app max && fail "opened corrupt weights"
grep -qF "corrupt" said || fail "corrupt weights: $(cat said)"

# ---- linked in if asked for; another prefix; another compiler ----
mkdir embed gcc
compile --emit lib --embed yes --prefix tiny -o embed/libtiny.so
[ -e embed/libtiny.so.weights ] && fail "weights that are linked in lie beside the library, too"
is "another prefix" "$(readelf --dyn-syms -W embed/libtiny.so | grep -c ' tiny_.*@@TINY_1')" "$(wc -l <wanted)"
is "text relocations with weights" "$(readelf -dW embed/libtiny.so | grep -c TEXTREL)" 0
compile --emit lib --cc aarch64-linux-gnu-gcc -o gcc/libtiny.so
cp gcc/libtiny.so . && properties libtiny.so

# ---- archives and objects, for an NDK to link ----
for kind in static obj; do
    compile --emit $kind -o tiny.$kind
    aarch64-linux-gnu-nm tiny.$kind | grep -q ' T moss_eval$' || fail "$kind has no moss_eval"
done
exit $failed
