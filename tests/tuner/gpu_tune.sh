#!/bin/sh
# Tuning for a GPU end to end, on the stand-in driver: trials of every kernel, kernels that are wrong, hang or crash,
# the command, going on after kill -9, what compile makes of the records, the page with its roofline, bench/tune.sh.
#
#   gpu_tune.sh BUILD MOSSC
# Works in a temporary folder. Exit code: 0 all well, 1 not, 77 (said loudly) where mossc was built without LLVM.
set -u
build=$(cd "$1" && pwd) mossc=$(realpath "$2") here=$(cd "$(dirname "$0")" && pwd)
[ -f "$build/tests/libgpu_emulator.a" ] || { echo "SKIPPED: tuning for GPUs: built without LLVM"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 3
failed=0
fail() { echo "FAIL: $*"; failed=$((failed + 1)); }

cat >small.json <<'JSON'
{ "format": "mossnet-graph/1", "name": "small", "vocab_size": 64, "d_model": 64,
  "experts": 2, "top_k": [1], "layers": [ { "op": "mamba", "d_inner": 64 }, { "op": "mlp", "d_ff": 64 } ] }
JSON
export MOSSC_TUNE_TOKENS=8 MOSS_FAKE_CUDA_SM=90 LD_LIBRARY_PATH="$build/tests/fake_cuda${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

# --- Kernels: of the model as it is, and of one more point of each ---
"$build/tests/gpu_names" small.json h100 0 | sort -u >usual.names || fail "no names"
"$build/tests/gpu_names" small.json h100 1 | sort -u >names || fail "no names"
GPU_CASES=$build/tests/gpu_cases EMULATOR=$build/tests/libgpu_emulator.a sh "$here/../gpu/host_kernels.sh" names right.so \
    || { echo "FAIL: the kernels do not compile"; exit 1; }

# The same kernels, but for products, as sm_80 has them.
MOSS_FAKE_CUDA_SM=80 "$build/tests/gpu_names" small.json a100 0 | sort -u >a100.names || fail "no names"
GPU_CASES=$build/tests/gpu_cases EMULATOR=$build/tests/libgpu_emulator.a sh "$here/../gpu/host_kernels.sh" a100.names \
    a100.so || { echo "FAIL: the kernels do not compile"; exit 1; }
MOSS_FAKE_CUDA_SM=80 MOSS_FAKE_CUDA_KERNELS=$PWD/a100.so "$build/tests/test_gpu_trial" small.json a100 right 0 >said \
    || { cat said; fail "a right kernel of a100"; }

# Decode of one sequence: runs of layers in one launch where the device holds its blocks, and then checked. Four panels:
# on eight multiprocessors a block each, on three one block has two, on two there are too few.
cat >run.json <<'JSON'
{ "format": "mossnet-graph/1", "name": "run", "vocab_size": 64, "d_model": 32, "experts": 2, "top_k": [1],
  "layers": [ { "op": "mamba", "d_inner": 64 } ] }
JSON
"$build/tests/gpu_names" run.json a100 0 | sort -u >run.names || fail "no names"
GPU_CASES=$build/tests/gpu_cases EMULATOR=$build/tests/libgpu_emulator.a sh "$here/../gpu/host_kernels.sh" run.names \
    run.so || { echo "FAIL: the kernels do not compile"; exit 1; }
chain=$(grep '^decode_chain' run.names) || fail "no launch for a run of layers"
cat >bad.c <<CODE
#define _GNU_SOURCE
#include <dlfcn.h>
__attribute__((visibility("default"))) void ${chain}_call(void *const *args)
{
    ((void (*)(void *const *))dlsym(RTLD_NEXT, "${chain}_call"))(args);
    (*(float **)args[0])[5] = 100;
}
CODE
cc -w -shared -fPIC bad.c -o bad.so -Wl,--no-as-needed "$PWD/run.so" -ldl || fail "no bad launch"
for what in "8 bad wrong 0" "3 bad wrong 0" "2 bad ok 0" "8 run ok 0" "3 run ok 2"; do
    set -- $what
    MOSS_FAKE_CUDA_SM=80 MOSS_FAKE_CUDA_PROCESSORS=$1 MOSS_FAKE_CUDA_KERNELS=$PWD/$2.so \
        "$build/tests/test_gpu_trial" run.json a100 chain "$3" "$4" >said || { cat said; fail "a run of layers: $what"; }
done

# mutant NAME ACTION: a library whose every kernel that is not the model's own does ACTION after, or instead of, its work
mutant() {
    { echo '#define _GNU_SOURCE'; echo '#include <dlfcn.h>'; echo '#include <stdint.h>'; echo '#include <stdlib.h>'
      comm -13 usual.names names | while read -r name; do
          echo "__attribute__((visibility(\"default\"))) void ${name}_call(void *const *args)"
          echo "{ void (*real)(void *const *) = (void (*)(void *const *))dlsym(RTLD_NEXT, \"${name}_call\"); (void)real; $2 }"
      done; } >"$1.c"
    cc -w -shared -fPIC "$1.c" -o "$1.so" -Wl,--no-as-needed "$PWD/right.so" -ldl || fail "no mutant $1"
}
# One element of what is written is another small number: all other elements are right.
mutant wrong 'real(args); ((uint16_t *)*(void **)args[0])[5] = 0x2123;'
# The same of kernels whose results are no product's: 100 as a float, 3.4 as two halves.
mutant wrong_rows 'real(args); ((uint32_t *)*(void **)args[0])[5] = 0x42C842C8;'
mutant hung 'for (;;) { __asm__ volatile(""); }'
mutant crashed 'abort();'

MOSS_FAKE_CUDA_KERNELS=$PWD/right.so "$build/tests/test_gpu_trial" small.json h100 right 1 >said || { cat said; fail "a right kernel"; }
grep -q '^ok.* decode_scan ' said && grep -q '^ok.* scan ' said || fail "kernels are missing: $(cat said)"
for how in wrong hung crashed; do
    MOSS_FAKE_CUDA_KERNELS=$PWD/$how.so "$build/tests/test_gpu_trial" small.json h100 faults $how >said 2>&1 \
        || { cat said; fail "a kernel that is to end as $how"; }
done
MOSS_FAKE_CUDA_KERNELS=$PWD/wrong_rows.so "$build/tests/test_gpu_trial" small.json h100 faults wrong \
    scan decode_scan decode_gated >said 2>&1 || { cat said; fail "wrong rows"; }

# --- The command ---
export MOSS_FAKE_CUDA_KERNELS=$PWD/right.so
set -- small.json --target h100 --quant f16 --order grid --kernels-only
"$mossc" tune "$@" --db all.db --trials 4 >said 2>err.first || { cat err.first; fail "tune"; }
grep -q '^4 trials, 0 of them' said || fail "not 4 trials: $(cat said)"
"$mossc" tune "$@" --db all.db --trials 4 >said 2>err || fail "tune again"
grep -q '^4 trials, 4 of them' said || fail "it did not go on: $(cat said)"
"$mossc" db export all.db --format csv | cut -d, -f1-12 >all.csv
grep -q 'Stand-in GPU, sm_90, CUDA 13' all.csv || fail "the device is not known: $(head -3 all.csv)"
grep -q 'gemm_h100' all.csv || fail "no record of a kernel: $(cat all.csv)"

for name in a b; do
    "$mossc" compile small.json --target h100 --quant f16 --emit plan --tuning all.db -o $name.plan || fail "compile --tuning"
done
cmp -s a.plan b.plan || fail "two plans differ"

# What the device can do at most was measured first, is kept, and is the roof of the page.
grep -Eq 'at most: .*B/s read, .*op/s by mma.sync, .*op/s by wgmma$' err.first || fail "no ceilings: $(cat err.first)"
"$mossc" db show all.db --json >all.json
grep -Eq '"peak_operations": [0-9.e+]+, "peak_bytes": [0-9]' all.json || fail "no ceilings in the records: $(cat all.json)"
bash "$here/report.sh" "$mossc" "$build/tests/records_tool" all.db >page.said
case $? in 0 | 77) ;; *) cat page.said; fail "the page" ;; esac
MOSS_FAKE_CUDA_SM=80 MOSS_FAKE_CUDA_KERNELS=$PWD/a100.so "$mossc" tune small.json --target a100 --quant f16 --db a100.db \
    --trials 1 --kernels-only >said 2>err || { cat err; fail "tune for a100"; }
grep -q 'by mma.sync$' err || fail "ceilings of a100: $(cat err)"

# Memory for what is computed of a prompt.
"$mossc" compile small.json --target h100 --quant f16 --emit plan --max-scratch 2M -o cut.plan || fail "--max-scratch 2M"
cmp -s cut.plan a.plan && fail "--max-scratch changes nothing"
"$mossc" compile small.json --target h100 --quant f16 --emit plan --max-scratch 1K -o none.plan 2>err
[ $? = 1 ] && grep -q 'memory-budget.*--max-scratch allows 1024' err || fail "--max-scratch 1K: $(cat err)"
"$mossc" compile small.json --emit plan --max-scratch 1M -o none.plan 2>err
[ $? = 2 ] && grep -q 'it is for GPUs' err || fail "--max-scratch for a CPU: $(cat err)"

# Killed in the middle, it goes on after the trials that are written.
count_trials() { "$mossc" db export killed.db --format csv 2>/dev/null | tail -n +2 | wc -l; }
"$mossc" tune "$@" --db killed.db --trials 1000 >/dev/null 2>err &
pid=$!
for _ in $(seq 200); do
    sleep 0.3
    [ "$(count_trials)" -ge 2 ] && break
done
kill -9 $pid
wait $pid 2>/dev/null
n=$(count_trials)
"$mossc" tune "$@" --db killed.db --trials $((n + 2)) >said 2>err || fail "tune after kill -9"
grep -q "^$((n + 2)) trials, $n of them" said || fail "it did not go on after kill -9 and $n trials: $(cat said)"

# The script that measures what tuning gains. Points beyond those rendered here do not load, and are trials that failed.
MODELS=$PWD/small.json bash "$here/../../bench/tune.sh" -T h100 -m "$mossc" -d "$PWD/bench" -n 2 -k 300 resume \
    >said 2>err || { cat said err; fail "bench/tune.sh"; }
[ "$(grep -c 'foretell' said)" = 2 ] || fail "resume: $(cat said)"

# --- No driver ---
for fault in no-device old-driver; do
    MOSS_FAKE_CUDA_FAULT=$fault "$mossc" tune "$@" --db none.db --trials 2 >said 2>&1 && fail "$fault: it went on"
    grep -q 'cannot run code for h100' said || fail "$fault: $(cat said)"
done
[ $failed -eq 0 ] && echo "gpu tune: ok"
exit $failed
