#!/usr/bin/env bash
# An artifact on a processor that cannot run it must say what is missing, not die of an illegal instruction.
#
#   other_cpus.sh MOSSC
# Compiles a tiny model for every x86-64 target and starts it on emulated processors that lack the target's
# last feature or more; x86-64-v3 must run where AVX2 is there. Skipped, aloud, without qemu-x86_64.
set -u
mossc=$(realpath "$1")
case $(uname -m) in x86_64) ;; *) echo "SKIPPED: x86-64 targets are not compiled here"; exit 77 ;; esac
command -v qemu-x86_64 >/dev/null || { echo "SKIPPED: no qemu-x86_64"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 3
failed=0

cat >tiny.json <<'JSON'
{ "format": "mossnet-graph/1", "name": "tiny", "vocab_size": 256, "d_model": 32,
  "experts": 4, "top_k": [2, 1], "layers": [ { "op": "mamba" },
  { "op": "attention", "heads": 2, "kv_heads": 1 }, { "op": "mlp", "d_ff": 48 } ] }
JSON

# expect CODE WORDS TARGET CPU
expect() {
    local found
    qemu-x86_64 -cpu "$4" "./$3" --tokens 1 -n 3 >/dev/null 2>stderr
    found=$?
    [ $found -eq "$1" ] && grep -qF -- "$2" stderr && return
    echo "FAIL: $3 on $4: exit $found, expected $1 and '$2': $(cat stderr)"
    failed=1
}

targets=$("$mossc" targets | sed -n 's/^\(x86-64-[^ ]*\) .*/\1/p')
[ "$(echo "$targets" | wc -l)" -ge 4 ] || { echo "FAIL: too few targets: $targets"; exit 1; }
for target in $targets; do
    "$mossc" compile tiny.json --weights random:1 --quant q8 --target "$target" -o "$target" || exit 1
    expect 3 "this CPU or its system lacks avx2" "$target" Nehalem
    case $target in
    x86-64-v3) expect 0 "generated: 3 tokens" "$target" Haswell ;;
    x86-64-avxvnni) expect 3 "this CPU or its system lacks avxvnni" "$target" Haswell ;;
    *) expect 3 "this CPU or its system lacks avx512f" "$target" Haswell ;;
    esac
done
exit $failed
