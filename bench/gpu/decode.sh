#!/bin/sh
# The decode kernels for decode_bench, as a folder to carry to a machine with a GPU.
#
#   bench/gpu/decode.sh GPU_RENDER FOLDER [SETTINGS]...     SETTINGS: one argument a run, as "sm=80 dependent=0 kinds=0"
# Output: FOLDER with decode_bench, ptx/ and run.sh, which prints tokens a second and the time of every kind of kernel.
# To compare settings, or kernels of two compilers (two folders made with the same settings), in turn:
#   FOLDER/decode_bench compare "FOLDER/ptx SETTINGS" "OTHER/ptx SETTINGS"...
# Tokens of settings that add in another order may differ; everything else must have the same hash.
set -eu
[ $# -ge 2 ] || { echo "usage: decode.sh GPU_RENDER FOLDER [SETTINGS]..." >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
render=$1
folder=$2
shift 2
[ $# -gt 0 ] || set -- "sm=90" "sm=80 dependent=0" "sm=90 dtype=3" "sm=90 model=1"
mkdir -p "$folder/ptx"
${CC:-cc} -O2 -std=c17 -D_GNU_SOURCE -I"$here/../../runtime" -o "$folder/decode_bench" "$here/decode_bench.c" \
    "$here/decode_list.c" -ldl
printf '%s\n' '#!/bin/sh' 'cd "$(dirname "$0")" || exit 1' >"$folder/run.sh"
for settings; do
    # shellcheck disable=SC2086
    "$folder/decode_bench" list $settings
    printf 'echo "== %s"\ntimeout -s KILL 30 ./decode_bench run ptx %s\n' "$settings" "$settings" >>"$folder/run.sh"
done | sort -u >"$folder/instances.txt"
while read -r file sm threads blocks template params; do
    # shellcheck disable=SC2086
    "$render" ptx "$template" "$sm" $params threads="$threads" blocks="$blocks" >"$folder/ptx/$file.ptx" 2>"$folder/said" \
        || { cat "$folder/said"; exit 1; }
done <"$folder/instances.txt"
rm "$folder/said"
chmod +x "$folder/run.sh"
echo "$folder: $(wc -l <"$folder/instances.txt") kernels"
