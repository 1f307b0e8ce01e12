#!/bin/sh
# examples/c as a newcomer builds it: by its own CMakeLists.txt, and by hand as its README says.
#
#   example_c.sh MOSSC
set -eu
mossc=$(realpath "$1")
top=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake -G Ninja -S "$top/examples/c" -B "$work/out" -DMOSSC="$mossc" -DCMAKE_BUILD_TYPE=Release >"$work/log" 2>&1 &&
    cmake --build "$work/out" >>"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
if grep -q 'warning' "$work/log"; then
    echo "FAIL: warnings"
    cat "$work/log"
    exit 1
fi
"$work/out/shakespeare" "JULIET:" >"$work/text"
grep -q '^JULIET:' "$work/text" || { echo "FAIL: no text of the prompt: $(cat "$work/text")"; exit 1; }
grep -q 'restored: the same text$' "$work/text" || { echo "FAIL: $(tail -1 "$work/text")"; exit 1; }
[ "$(wc -c <"$work/text")" -gt 300 ] || { echo "FAIL: too short: $(cat "$work/text")"; exit 1; }

# The README's own commands, with this mossc.
cd "$work"
sed -n '/^Or by hand/,$p' "$top/examples/c/README.md" | sed -n '/^```/,/^```/p' | grep -v '^```' |
    sed "s|^mossc|$mossc|; s|models/|$top/models/|; s|examples/c|$top/examples/c|" >by_hand
sh -eu by_hand
./shakespeare "JULIET:" >other
cmp -s other text || { echo "FAIL: built by hand it says: $(cat other)"; exit 1; }
echo "example_c: ok"
