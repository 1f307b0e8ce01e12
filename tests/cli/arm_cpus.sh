#!/usr/bin/env bash
# An artifact for 64-bit ARM on a processor that cannot run it must say what is missing, not die of an illegal
# instruction; and code of every kind of ARM CPU reads one and the same weights.
#
#   arm_cpus.sh MOSSC
# Compiles a tiny model for the three targets and starts each on emulated processors: of 2016 (armv8-a), of 2018
# (with dot products) and on one that has everything. Skipped, aloud, without qemu-aarch64 or a compiler.
set -u
mossc=$(realpath "$1")
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
generated="generated: 3 tokens"
expect 0 "$generated" arm-neon cortex-a72
expect 3 "this CPU or its system lacks fp16" arm-dotprod cortex-a72
expect 3 "this CPU or its system lacks fp16" arm-i8mm cortex-a72
expect 0 "$generated" arm-neon cortex-a76
expect 0 "$generated" arm-dotprod cortex-a76
expect 3 "this CPU or its system lacks i8mm" arm-i8mm cortex-a76
expect 3 "this CPU or its system lacks i8mm" arm-bf16 cortex-a76
expect 0 "$generated" arm-bf16 max
for target in arm-neon arm-dotprod arm-i8mm; do
    expect 0 "$generated" $target max
    cmp $target.max arm-neon.cortex-a72 || failed=1
done
exit $failed
