#!/bin/sh
# The differential test tested: with a compiler that is right by construction every check must
# pass, and each fault put into its artifacts must be found.
# usage, at the root of the repository: tests/diff/self_test.sh DIFF FAKE_MOSSC
set -u
diff=$1 fake=$2 bad=0

# expect CODE FAULT OPTIONS...: run with FAULT and compare the exit code.
expect()
{
    want=$1 fault=$2
    shift 2
    said=$(FAKE_FAULT=$fault "$diff" --mossc "$fake" --cases 0 "$@" 2>&1)
    found=$?
    if [ $found -ne "$want" ]; then
        echo "fault '$fault', $*: exit code $found, expected $want"
        echo "$said" | tail -n 5
        bad=1
    fi
    last=$said
}

# says TEXT: the last run's output must contain it.
says()
{
    case $last in
    *"$1"*) ;;
    *) echo "expected to read: $1"; echo "$last" | tail -n 5; bad=1 ;;
    esac
}

work=$(mktemp -d) || exit 3
trap 'rm -rf "$work"' EXIT
small="--work $work --filter golden-mlp_moe --threads 1,3 --quant f32"

expect 0 none $small
says "1 passed, 0 failed, 0 skipped"
for fault in value step chunk threads nan short crash mode compile; do
    expect 1 $fault $small
    says "0 passed, 1 failed, 0 skipped"
done
expect 0 bit $small
expect 1 bit $small --exact
expect 0 none --work "$work" --filter golden-mamba_zoh --threads 1
says "3 passed, 0 failed, 0 skipped"
expect 1 quant --work "$work" --filter golden-mamba_zoh --threads 1     # F32 weights: rounding shows
says "1 passed, 2 failed, 0 skipped"
expect 0 none --work "$work" --graph docs/example.json --quant f32 --threads 1
says "1 passed, 0 failed, 0 skipped"
expect 1 value --work "$work" --graph docs/example.json --quant f32 --threads 1
expect 2 none --work "$work" --graph tests/diff/self_test.sh
says "self_test.sh:1:1: error"
expect 1 none --work "$work" --filter no-such-check
says "0 passed, 0 failed, 0 skipped"
expect 0 none $small --target arm-neon --runner sh     # the artifact is a script: sh can run it
says "1 passed, 0 failed, 0 skipped"
expect 2 none --work "$work" --target no-such-target
expect 2 none --work "$work" --golden "$work"
[ $bad -eq 0 ] && echo "self test passed"
exit $bad
