#!/bin/sh
# Packs checks of GPU kernels to run on a GPU elsewhere: programs, lists, PTX and a run.sh in one folder.
#
#   on_gpu.sh BUILD OUT [SM] [NAME...]   BUILD: the build folder; SM: 80 or 90 (90); NAMEs of tests/gpu/NAME.cases (all)
#
# OUT/run.sh needs libcuda.so.1 and prints a line a check, at last how many kernels passed; its exit code is the number
# of those that failed.
set -eu
[ $# -ge 2 ] || { echo "usage: on_gpu.sh BUILD OUT [SM] [NAME...]" >&2; exit 2; }
build=$1
out=$2
sm=${3:-90}
shift 2
[ $# = 0 ] || shift
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
[ $# -gt 0 ] || set -- "$here"/*.cases
for path; do
    name=$(basename "$path" .cases)
    case $sm$name in 80*_h100) continue ;; esac
    [ -x "$build/tests/test_gpu_$name" ] || { echo "on_gpu.sh: test_gpu_$name is not built: left out" >&2; continue; }
    cp "$build/tests/test_gpu_$name" "$out"
    cp "$build/tests/gpu_kernels/$name.list" "$out"
    "$build/tests/gpu_cases" ptx "$here/$name.cases" "$sm" >"$out/$name.ptx"
done
cat >"$out/run.sh" <<'RUN'
#!/bin/sh
# Every check in this folder on the GPU.
cd "$(dirname "$0")" || exit 3
passed=0 failed=0
for program in test_gpu_*; do
    if timeout 60 "./$program" . --cuda; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
done
echo "$passed kernels passed, $failed failed"
exit $failed
RUN
chmod +x "$out/run.sh"
