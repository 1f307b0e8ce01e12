# What tests of command lines share, sourced: failures are counted, and what a command says is held against words.
#
# $said: the folder where stdout and stderr of the last command are; the current one where it is not set.
failed=0 checks=0

fail() { echo "FAIL: $*"; failed=$((failed + 1)); }

# also_check CODE COMMAND...: what a test wants of every command besides
also_check() { :; }

# expect CODE WORDS COMMAND...: the exit code, and WORDS somewhere in what it says
expect() {
    local code=$1 words=$2 found out=${said:-.}
    shift 2
    checks=$((checks + 1))
    "$@" >"$out/stdout" 2>"$out/stderr" </dev/null
    found=$?
    [ $found -eq "$code" ] || fail "$*: exit $found, expected $code: $(tail -n 5 "$out/stderr")"
    [ -z "$words" ] || grep -qaF -- "$words" "$out/stdout" "$out/stderr" \
        || fail "$*: no '$words' in: $(head -c 2000 "$out/stdout" "$out/stderr")"
    also_check "$code" "$@"
}
