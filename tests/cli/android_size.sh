#!/usr/bin/env bash
# Runtime and code of a model must stay small in an app: mossnet-8x8m for three kinds of CPU, weights apart.
#
#   android_size.sh MOSSC
# Prints the sizes. Skipped, aloud, without the tools.
set -u
mossc=$(realpath "$1")
graph=$(realpath models/mossnet-8x8m.json)
. "$(dirname "$0")/android_tools.sh"
need clang-19 ld.lld-19 readelf
most=300000
for quant in q8 bf16; do
    "$mossc" compile "$graph" --weights random:1 --quant $quant --target android-arm64 --emit lib -o libmoss.so \
        || exit 1
    len=$(stat -c %s libmoss.so)
    readelf -SW libmoss.so | grep -q '\.symtab' && fail "libmoss.so is not stripped"
    echo "mossnet-8x8m, $quant: $len bytes of runtime and code, at most $most"
    [ "$len" -lt $most ] || fail "a library of $len bytes"
done
exit $failed
