#!/bin/sh
# The shipped model still says what it said, and quantisation does not harm it.
#
#   tests/quality.sh MOSSC [TEXT]
#
# Loss of the last tenth of tinyshakespeare.txt (TEXT, default: beside the checkout in
# shared/data), which the model was not trained on: at most 1.46 nats a byte in both modes, not more at
# 16 times the trained context, q8 within 0.2 % of float32's perplexity, q4 within 3 %.
set -u
mossc=$1
root=$(cd "$(dirname "$0")/.." && pwd)
text=${2:-$root/../shared/data/tinyshakespeare.txt}
if [ ! -r "$text" ]; then
    echo "SKIPPED: no tinyshakespeare.txt ($text)"
    exit 77
fi
work=$(mktemp -d) || exit 3
trap 'rm -rf "$work"' EXIT
bad=0
tail -c 111540 "$text" >"$work/held-out"

# loss QUANT MODE CONTEXT
loss() {
    "$work/$1" eval --text "$work/held-out" --experts-per-token "$2" -c "$3" 2>/dev/null |
        awk '/nats a token/ { print $NF }'
}

# check WHAT LEFT RIGHT: LEFT must be at most RIGHT
check() {
    if awk -v a="$2" -v b="$3" 'BEGIN { exit !(a != "" && b != "" && a + 0 > 0 && a <= b) }'; then
        echo "ok    $1: $2 <= $3"
    else
        echo "FAIL  $1: $2 > $3"
        bad=1
    fi
}

for quant in f32 bf16 q8 q4; do
    "$mossc" compile "$root/models/shakespeare/shakespeare.json" --quant $quant -o "$work/$quant" || exit 1
done
for mode in 2 3; do
    base=$(loss f32 $mode 512)
    check "held-out loss, top-$mode" "$base" 1.46
    check "bf16 as trained, top-$mode" "$(loss bf16 $mode 512)" "$(awk -v a="$base" 'BEGIN { print a + 0.0001 }')"
    check "q8 perplexity within 0.2 %, top-$mode" "$(loss q8 $mode 512)" "$(awk -v a="$base" 'BEGIN { print a + log(1.002) }')"
    check "q4 perplexity within 3 %, top-$mode" "$(loss q4 $mode 512)" "$(awk -v a="$base" 'BEGIN { print a + log(1.03) }')"
    check "16 times the trained context, top-$mode" "$(loss bf16 $mode 8192)" "$base"
done
exit $bad
