#!/bin/sh
# What NVIDIA's assembler says of GPU kernels: no stack, no spills, no unresolved names, registers within budget.
#
#   tests/gpu/ptxas.sh GPU_RENDER [FILE]       every instance in FILE (tests/gpu/instances.def)
#   tests/gpu/ptxas.sh --model MOSSC GRAPH     every kernel of a whole model, for each GPU target
#   tests/gpu/ptxas.sh --self-test             plant each kind of offence and see that it is caught
# Output: a line for each offence. Exit code: 0 none, 1 some, 2 usage, 77 no ptxas here.
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
PATH=$PATH:/usr/local/cuda/bin

# judge ARCHITECTURE REGISTERS LABEL: the kernel in $work/k.ptx
judge() {
    arch=sm_$1
    [ "$1" = 90 ] && arch=sm_90a
    if ! ptxas -arch="$arch" -v "$work/k.ptx" -o "$work/k.cubin" >"$work/said" 2>&1; then
        echo "$3: ptxas refuses: $(head -n 2 "$work/said" | tr '\n' ' ')"
        return 1
    fi
    grep -n '^\.extern' "$work/k.ptx" | grep -v '\.extern \.shared' | sed "s|^|$3: unresolved: |" >"$work/bad"
    awk -v budget="$2" -v label="$3" '
        /Compiling entry function/ { name = $0; sub(/^[^\047]*\047/, "", name); sub(/\047.*/, "", name) }
        / bytes stack frame/ && $1 + 0 > 0 { print label ": " $1 " bytes of stack in " name }
        / bytes spill stores/ && / [1-9][0-9]* bytes spill/ { print label ": spills in " name ": " $0 }
        /Used [0-9]+ registers/ {
            n = $0; sub(/.*Used /, "", n); n += 0; seen = 1
            if (n > budget) print label ": " n " registers, budget " budget ", in " name
        }
        END { if (!seen) print label ": ptxas names no registers" }' "$work/said" >>"$work/bad"
    cat "$work/bad"
    [ ! -s "$work/bad" ]
}

check() {
    n=0 failed=0
    grep -v '^#' "$2" >"$work/list"
    while IFS='|' read -r limits what; do
        # shellcheck disable=SC2086
        set -- "$1" $limits
        name=${what# }; name=${name%% *}
        n=$((n + 1))
        # shellcheck disable=SC2086
        if ! "$1" ptx "$name" "$2" ${what#* "$name"} threads="$3" blocks="$4" >"$work/k.ptx" 2>"$work/words"; then
            echo "sm_$2$what: $(cat "$work/words")"
            failed=1
            continue
        fi
        if grep -q 'not unrolled' "$work/words"; then
            echo "sm_$2$what: $(cat "$work/words")"
            failed=1
        fi
        judge "$2" "$5" "sm_$2$what" || failed=1
    done <"$work/list"
    [ "$n" -gt 0 ] || { echo "ptxas: no instances in the list"; failed=1; }
    [ "$failed" -eq 0 ] && echo "ptxas: $n kernels, ok"
    return $failed
}

check_model() {
    failed=0
    for pair in a100:80 h100:90; do
        if ! "$1" compile "$2" --target "${pair%:*}" --weights random:1 --emit ptx -o "$work/k.ptx" 2>"$work/words"; then
            echo "$2, ${pair%:*}: $(cat "$work/words")"
            failed=1
            continue
        fi
        judge "${pair#*:}" 255 "$2, ${pair%:*}" || failed=1
        echo "$2, ${pair%:*}: $(grep -c '^\.visible \.entry' "$work/k.ptx") kernels"
    done
    return $failed
}

# plant BODY: a kernel with these lines
plant() {
    printf '.version 7.4\n.target sm_80\n.address_size 64\n%s\n.visible .entry k(.param .u64 p)\n{\n%s\nret;\n}\n' "$1" "$2" >"$work/k.ptx"
}

expect() {
    if judge 80 "$1" planted >"$work/verdict"; then
        said="nothing"
    else
        said=$(cat "$work/verdict")
    fi
    case $said in *"$2"*) ;; *) echo "FAIL: expected $2, got $said"; failed=1 ;; esac
}

self_test() {
    failed=0
    load='.reg .b64 %rd<9>; .reg .b32 %r<9>; ld.param.u64 %rd1, [p]; ld.global.u32 %r1, [%rd1];'
    store='st.global.u32 [%rd1], %r2;'
    plant '' "$load add.u32 %r2, %r1, 1; $store"
    expect 32 nothing
    expect 2 "registers, budget 2"
    plant '.extern .global .u32 n;' "$load add.u32 %r2, %r1, 1; $store"
    expect 32 "unresolved"
    plant '.extern .shared .align 16 .b8 s[];' "$load add.u32 %r2, %r1, 1; $store"
    expect 32 nothing
    plant '' ".local .align 4 .b8 a[64]; .reg .b64 %rs<9>; $load mov.u64 %rs1, a; cvt.u64.u32 %rd2, %r1;
        add.u64 %rs2, %rs1, %rd2; st.local.u32 [%rs2], %r1; ld.local.u32 %r2, [%rs1]; $store"
    expect 32 "bytes of stack"
    plant '' 'nonsense;'
    expect 32 "ptxas refuses"
    [ $failed -eq 0 ] && echo "ptxas self-test: ok"
    return $failed
}

if ! command -v ptxas >/dev/null 2>&1; then
    echo "SKIPPED: no ptxas (of the CUDA toolkit) here: registers, stack and spills of GPU kernels are not checked"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case ${1:-} in
--self-test) self_test ;;
--model) check_model "$2" "$3" ;;
-* | '') echo "usage: ptxas.sh GPU_RENDER [FILE] | --model MOSSC GRAPH | --self-test" >&2; exit 2 ;;
*) check "$1" "${2:-$top/tests/gpu/instances.def}" ;;
esac
