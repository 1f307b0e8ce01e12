#!/usr/bin/env bash
# inspect --device: what it says, what it refuses, and that it builds and reads nothing it need not.
#
#   devices.sh MOSSC JSON_CHECK
set -u
mossc=$(realpath "$1") json=$(realpath "$2")
top=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 3
. "$top/tests/cli/expect.sh"

model=$top/models/mossnet-8x200m+.json
expect 0 "s24-ultra" "$mossc" devices
awk 'length > 110 { exit 1 }' stdout || fail "devices: lines too long"
devices=$(awk 'NR > 1 && /^[a-z]/ { print $1 }' stdout | grep -v -- '--device')
[ "$(echo "$devices" | wc -l)" -ge 12 ] || fail "few devices: $devices"

# Every device, by a target that it runs: one range at least, the low end below the high one.
for device in $devices; do
    for target in android-arm64 x86-64-v3; do
        "$mossc" inspect "$top/models/mossnet-8x8m.json" --quant q8 --target $target --device "$device" \
            >stdout 2>stderr || continue
        awk '/ tokens  / { n++; if (!($6 + 0 > 0 && $6 + 0 < $7 + 0)) bad = 1 } END { exit bad || n != 4 }' stdout ||
            fail "$device: $(grep ' tokens  ' stdout)"
        seen="${seen:-}$device "
    done
done
[ "$(echo "${seen:-}" | wc -w)" -eq "$(echo "$devices" | wc -w)" ] || fail "each device runs one family: $seen"

# The phone the paper took. Goals: prefill three times its 120 tokens/s, generation 85 % of what memory allows, 60 MB
# beside the weights with a context of 32768. A prediction that falls below them is a regression of kernels or plan.
phone=(--target android-arm64 --quant q8 --device s24-ultra)
expect 0 "prediction, not measured: s24-ultra" "$mossc" inspect "$model" "${phone[@]}" -c 32768
grep -q "code for arm-i8mm on 6 threads" stdout || fail "six threads of i8mm: $(grep 'code for' stdout)"
awk '/prefill +top-2 .* tokens  / && $6 + 0 < 360 { exit 1 }' stdout || fail "prefill below 360: $(grep prefill stdout)"
awk '/generation top-2 .* tokens  / && $8 + 0 < 85 { exit 1 }' stdout || fail "generation: $(grep generation stdout)"
awk '/^  (weights|total) / { len[$1] = $2 } END { exit !(len["total"] - len["weights"] <= 60e6) }' stdout ||
    fail "more than 60 MB beside the weights: $(grep -E '^  (weights|total)' stdout)"
grep -q "No phone was at hand" stdout || fail "the error is not told"
expect 0 '"measured": false, "device": "s24-ultra", "code": "arm-i8mm"' \
    "$mossc" inspect "$model" "${phone[@]}" --json
"$json" <stdout || fail "--json is not JSON"

# More bandwidth, faster generation; a slower clock, slower prefill.
speed() {
    "$mossc" inspect "$model" --target arm-i8mm --quant q8 --device "$1" |
        awk -v phase="$2" '/ tokens  / && $1 == phase { print $7; exit }'
}
awk -v a="$(speed s24-ultra,bandwidth=30 generation)" -v b="$(speed s24-ultra,bandwidth=60 generation)" \
    'BEGIN { exit !(a > 0 && 1.8 * a < b) }' || fail "generation does not follow bandwidth"
awk -v a="$(speed s24-ultra,clock=1.5 prefill)" -v b="$(speed s24-ultra,clock=3 prefill)" \
    'BEGIN { exit !(a > 0 && 1.9 * a < b && b < 2.1 * a) }' || fail "prefill does not follow the clock"

expect 2 "usage: mossc devices" "$mossc" devices all
expect 0 "that inspect --device predicts for" "$mossc" devices --help
expect 2 "no such device (mossc devices lists them)" "$mossc" inspect "$model" --target android-arm64 --device s99
expect 2 "cannot run code for arm-i8mm" "$mossc" inspect "$model" --target arm-i8mm --device pi-5
expect 2 "cannot run code for h100" "$mossc" inspect "$model" --target h100 --quant f16 --device s24-ultra
expect 2 "cannot run code for android-arm64" "$mossc" inspect "$model" --target android-arm64 --device xeon-2
expect 2 "expected bandwidth=GB/S or clock=GHZ" "$mossc" inspect "$model" --target android-arm64 --device s24,cores=3
expect 2 'from a MODEL.json' "$mossc" inspect "$mossc" --device s24

[ $failed -eq 0 ] && echo "devices: ok"
exit $((failed != 0))
