#!/usr/bin/env bash
# An artifact for 64-bit ARM on a processor that cannot run it must say what is missing, not die of an illegal
# instruction; and code of every kind of ARM CPU reads one and the same weights.
#
#   arm_cpus.sh MOSSC
# Compiles a tiny model for the three targets and starts each on emulated processors: of 2016 (armv8-a), of 2018
# (with dot products) and on one that has everything. Skipped, aloud, without qemu-aarch64 or a compiler.
set -u
mossc=$(realpath "$1")
shakespeare=$(cd "$(dirname "$0")/../.." && pwd)/models/shakespeare/shakespeare
for tool in qemu-aarch64 aarch64-linux-gnu-gcc; do
    command -v $tool >/dev/null || { echo "SKIPPED: no $tool"; exit 77; }
done
[ -d /usr/aarch64-linux-gnu/lib ] || { echo "SKIPPED: no C library of 64-bit ARM in /usr/aarch64-linux-gnu"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 3
failed=0

cat >tiny.json <<'JSON'
{ "format": "mossnet-graph/1", "name": "tiny", "vocab_size": 256, "d_model": 44,
  "experts": 4, "top_k": [2, 1], "layers": [ { "op": "mamba" },
  { "op": "attention", "heads": 2, "kv_heads": 1 }, { "op": "mlp", "d_ff": 52 } ] }
JSON

# expect CODE WORDS TARGET CPU
expect() {
    local found
    qemu-aarch64 -cpu "$4" -L /usr/aarch64-linux-gnu "./$3" --tokens 1,2,3,4,5,6,7,8,9,10,11 -n 3 >"$3.$4" 2>stderr
    found=$?
    [ $found -eq "$1" ] && grep -qF -- "$2" stderr && return
    echo "FAIL: $3 on $4: exit $found, expected $1 and '$2': $(cat stderr)"
    failed=1
}

for target in arm-neon arm-dotprod arm-i8mm; do
    for quant in q8 q4 bf16; do
        "$mossc" compile tiny.json --weights random:1 --quant $quant --target $target --emit c \
            -o $target-$quant.c || exit 1
        cmp $target-$quant.c.weights arm-neon-$quant.c.weights || failed=1
    done
    "$mossc" compile tiny.json --weights random:1 --quant q8 --target $target -o $target || exit 1
done
"$mossc" compile tiny.json --weights random:1 --quant bf16 --target arm-bf16 -o arm-bf16 || exit 1
"$mossc" compile tiny.json --weights random:1 --quant f16 --target arm-fp16 -o arm-fp16 || exit 1
generated="generated: 3 tokens"
expect 0 "$generated" arm-neon cortex-a72
expect 3 "this CPU or its system lacks fp16" arm-dotprod cortex-a72
expect 3 "this CPU or its system lacks fp16" arm-i8mm cortex-a72
expect 0 "$generated" arm-neon cortex-a76
expect 0 "$generated" arm-dotprod cortex-a76
expect 3 "this CPU or its system lacks i8mm" arm-i8mm cortex-a76
expect 3 "this CPU or its system lacks i8mm" arm-bf16 cortex-a76
expect 0 "$generated" arm-bf16 max
expect 3 "this CPU or its system lacks fp16" arm-fp16 cortex-a72
expect 0 "$generated" arm-fp16 cortex-a76
for target in arm-neon arm-dotprod arm-i8mm; do
    expect 0 "$generated" $target max
    cmp $target.max arm-neon.cortex-a72 || failed=1
done

# A weight of 640, in the checkpoint's bf16: too large where products are summed in float16, and only there.
cp "$shakespeare.safetensors" large.safetensors || exit 1
header=$(($(od -An -tu8 -N8 large.safetensors)))
begin=$(head -c $((8 + header)) large.safetensors | grep -ao '"layers.0.in_proj.weight":{[^}]*' | sed 's/.*offsets":\[\([0-9]*\).*/\1/')
printf '\x20\x44' | dd of=large.safetensors bs=1 seek=$((8 + header + begin + 2)) conv=notrunc 2>stderr || exit 1
for target in arm-dotprod arm-fp16; do
    "$mossc" compile "$shakespeare.json" --weights large.safetensors --quant f16 --target $target --emit c -o $target.c 2>$target.said
    echo "$target $?" >>large.codes
done
[ "$(paste -sd ' ' large.codes)" = "arm-dotprod 0 arm-fp16 1" ] \
    && grep -q 'in_proj.weight: found 640 at .*expected at most 512: this target sums products in float16' arm-fp16.said \
    || { echo "FAIL: a weight of 640: $(cat large.codes arm-fp16.said)"; failed=1; }
exit $failed
