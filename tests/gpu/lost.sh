#!/bin/sh
# A device that is lost while a text is made, on the stand-in driver: what came before is a whole line, then the error.
#
#   tests/gpu/lost.sh BUILD MOSSC
what="NO DEVICE IS LOST"
. "$(dirname "$0")/texts.sh"
# Of more than 256 tokens, so that they are printed as numbers, whose line always ends.
sed 's/"vocab_size": *256/"vocab_size": 300/' "$here/../../docs/example.json" >ids.json
"$mossc" compile ids.json --weights random:3 --quant f16 --target h100 -o gpu
cut=0
for launch in 1 20 40 60 80 100 120 140 160; do
    code=0
    MOSS_FAKE_CUDA_FAULT=lost:$launch sh "$here/fake_run.sh" "$build" 90 ./gpu run --tokens 1,2,3 -n 4 --temp 0 \
        >got 2>err || code=$?
    [ $code -ne 0 ] || continue
    if [ $code -ne 3 ] || ! grep -q 'gpu: error: the GPU failed' err; then
        echo "FAIL: launch $launch: exit code $code"
        cat err
        exit 1
    fi
    [ -s got ] || continue
    cut=$((cut + 1))
    [ "$(tail -c 1 got | wc -l)" -eq 1 ] || { echo "FAIL: launch $launch: no whole line: $(cat got)"; exit 1; }
done
[ $cut -gt 0 ] || { echo "FAIL: no launch was lost after the first token"; exit 1; }
echo "$cut texts cut short: $(cat got)"
