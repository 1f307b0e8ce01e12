# Texts of an artifact for GPUs, on the stand-in driver, beside those of an artifact for this CPU: what tests of them
# share. Sourced with their arguments BUILD MOSSC; `what` says what is not tested without LLVM.
#
# Leaves build, mossc, here, and a folder of its own as the current one, which goes with the shell.
set -eu
build=$(realpath "$1") mossc=$(realpath "$2")
here=$(cd "$(dirname "$0")" && pwd)
[ -f "$build/tests/libgpu_emulator.a" ] || { echo "SKIPPED: built without LLVM: $what"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# artifact OUT OPTION...: docs/example.json, the same weights each time
artifact() {
    out=$1
    shift
    "$mossc" compile "$here/../../docs/example.json" --weights random:3 --quant f16 "$@" -o "$out"
}

# on_cpu OPTION...: what ./cpu says of the tokens 1, 2, 3, to the file want
on_cpu() { ./cpu run --tokens 1,2,3 "$@" >want 2>err || { cat err; exit 1; }; }

# on_gpu SM WORDS OPTION...: ./gpu must say the same; WORDS name the case
on_gpu() {
    sm=$1 words=$2
    shift 2
    sh "$here/fake_run.sh" "$build" "$sm" ./gpu run --tokens 1,2,3 "$@" >got 2>err || { cat err; exit 1; }
    cmp want got || { echo "FAIL: $words: $(cat got), expected $(cat want)"; exit 1; }
}
