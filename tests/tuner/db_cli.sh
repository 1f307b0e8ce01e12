#!/usr/bin/env bash
# mossc db and compile --tuning as users call them: options, words, exit codes, what is left behind.
#
#   tests/tuner/db_cli.sh MOSSC RECORDS_TOOL JSON_CHECK      run in the repository root
# Output: one line for each failure. Exit code: 0 none, 1 some, 2 usage.
set -u
[ $# -eq 3 ] || { echo "usage: db_cli.sh MOSSC RECORDS_TOOL JSON_CHECK" >&2; exit 2; }
mossc=$1 tool=$2 json_check=$3 failed=0 mounted=
work=$(mktemp -d)
fast=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)")    # each trial is waited for
trap '[ -z "$mounted" ] || umount "$mounted"; rm -rf "$work" "$fast"' EXIT

fail() { echo "FAIL: $*"; failed=1; }

# expect CODE WORDS ARGUMENT...: exit code, and words on stdout or stderr
expect() {
    local code=$1 words=$2
    shift 2
    "$mossc" "$@" >"$work/said" 2>&1
    local got=$?
    [ "$got" -eq "$code" ] || fail "mossc $*: exit $got, expected $code: $(head -c 600 "$work/said")"
    [ -z "$words" ] || grep -qF -- "$words" "$work/said" || fail "mossc $*: no \"$words\" in: $(head -c 600 "$work/said")"
}

# make KIND NAME ARGUMENT...: a database in the work folder
make() {
    local kind=$1 name=$2
    shift 2
    "$tool" "$kind" "$fast/$name" "$@" && cp "$fast/$name" "$work/$name" || fail "no $name"
    rm -f "$fast/$name"
}

# What a database holds, whatever its bytes.
content() { "$mossc" db export "$1" --format json; "$mossc" db show "$1" --json | sed '1d'; }

usage() {
    expect 0 "mossc db prune" db --help
    expect 0 "tuning records" --help
    expect 2 "usage: mossc db" db
    expect 2 "unknown verb \`join\`" db join "$work/a.db"
    expect 2 "usage: mossc db show FILE" db show
    expect 2 "usage: mossc db show FILE" db show "$work/a.db" "$work/b.db"
    expect 2 "takes no \`--stale\`" db show "$work/a.db" --stale
    expect 2 "takes no \`--html\`" db merge "$work/a.db" -o "$work/out.db" --html page
    expect 2 "choose one" db show "$work/a.db" --html "$work/page" --json
    expect 2 "expected csv or json" db export "$work/a.db" --format xml
    expect 2 "say what may go" db prune "$work/a.db"
    expect 2 "is missing: where the records go" db merge "$work/a.db"
}

merge() {
    expect 0 "100 trials" db merge "$work/a.db" "$work/b.db" -o "$work/ab.db"
    expect 0 "100 trials" db merge "$work/b.db" "$work/a.db" -o "$work/ba.db"
    [ "$(content "$work/ab.db")" = "$(content "$work/ba.db")" ] || fail "the order of merging matters"
    content "$work/ab.db" >"$work/before"
    expect 0 "100 trials" db merge "$work/a.db" -o "$work/ab.db"
    expect 0 "100 trials" db merge "$work/ab.db" "$work/ba.db" -o "$work/ab.db"
    content "$work/ab.db" | cmp -s - "$work/before" || fail "merging again changed something"
    expect 3 "No such file" db merge "$work/a.db" "$work/none.db" -o "$work/new.db"
    expect 1 "error[tuning-format]" db merge "$work/a.db" README.md -o "$work/new.db"
    expect 3 "cannot make a temporary folder" db merge "$work/a.db" -o "$work/no/such/new.db"
    [ -e "$work/new.db" ] && fail "a refused merge left a file"
    expect 1 "error[tuning-format]" db merge "$work/a.db" -o "$work/before"
}

show() {
    expect 0 "60 trials of" db show "$work/a.db"
    expect 0 "(stale)" db show "$work/searches.db"
    expect 0 "key_block=128 token_block=128" db show "$work/searches.db"
    "$mossc" db show "$work/searches.db" --json | "$json_check" trials kernels.0.best_point searches.1.model >"$work/said" \
        || fail "show --json: $(cat "$work/said")"
    "$mossc" db export "$work/a.db" --format json | "$json_check" 59.id 0.samples.0 >/dev/null || fail "export --format json"
    "$mossc" db export "$work/a.db" -o "$work/a.csv" || fail "export -o"
    [ "$(head -1 "$work/a.csv" | tr , '\n' | wc -l)" -eq 22 ] || fail "columns of the export: $(head -1 "$work/a.csv")"
    make random turned.db 0 60 99
    "$mossc" db export "$work/turned.db" | cmp -s - "$work/a.csv" || fail "an export depends on the order of storing"
    expect 2 "is an input" db export "$work/a.db" -o "$work/a.db"
    expect 0 "" db show "$work/a.db" --html "$work/page.html"
    expect 3 "error[file-write]" db show "$work/a.db" --html "$work/no/such/page.html"
}

prune() {
    cp "$work/searches.db" "$work/pruned.db"
    content "$work/pruned.db" >"$work/before"
    expect 0 "41 of 492 trials would go: 41 stale, 0 failed, 0 superseded" db prune "$work/pruned.db" --stale --dry-run
    content "$work/pruned.db" | cmp -s - "$work/before" || fail "--dry-run changed something"
    expect 0 "41 of 492 trials removed" db prune "$work/pruned.db" --stale
    expect 0 "0 of 451 trials removed" db prune "$work/pruned.db" --stale
    "$mossc" db show "$work/pruned.db" | awk '/x  [a-z]/ { print $NF, $(NF-1) }' >"$work/best"
    expect 0 "0 stale" db prune "$work/pruned.db" --failed --superseded
    "$mossc" db show "$work/pruned.db" | awk '/x  [a-z]/ { print $NF, $(NF-1) }' | cmp -s - "$work/best" \
        || fail "pruning changed what is best"
    [ "$(stat -c %s "$work/pruned.db")" -lt "$(stat -c %s "$work/searches.db")" ] || fail "pruning made no file shorter"
}

trouble() {
    expect 3 "No such file" db show "$work/none.db"
    expect 3 "is a folder" db show "$work"
    expect 1 "no SQLite file" db show README.md
    head -c 9000 "$work/a.db" >"$work/cut.db"
    expect 1 "damaged" db show "$work/cut.db"
    expect 3 "No such file" compile docs/example.json --emit plan --tuning "$work/none.db"
    expect 1 "error[tuning-format]" compile docs/example.json --emit plan --tuning README.md
    : >"$work/empty.db"
    expect 1 "it is empty" db show "$work/empty.db"
    coproc "$tool" lock "$work/b.db"
    read -r locked <&"${COPROC[0]}"
    expect 3 "process $COPROC_PID has had it locked" db show "$work/b.db"
    [ "$locked" = locked ] || fail "not locked"
    eval "exec ${COPROC[1]}>&-"
    wait
    expect 0 "trials of" db show "$work/b.db"
}

# A disk with room for little: the merge fails, the file that was there is whole, nothing else stays.
full_disk() {
    mkdir "$work/small"
    if ! mount -t tmpfs -o size=160k tmpfs "$work/small" 2>/dev/null; then
        echo "SKIPPED: mounting a small disk takes the superuser"
        return
    fi
    mounted=$work/small
    cp "$work/a.db" "$work/small/a.db"
    content "$work/small/a.db" >"$work/before"
    expect 3 "error[file-write]" db merge "$work/searches.db" -o "$work/small/a.db"
    content "$work/small/a.db" | cmp -s - "$work/before" || fail "a full disk changed the database"
    expect 3 "error[file-write]" db merge "$work/searches.db" -o "$work/small/new.db"
    [ "$(ls "$work/small")" = a.db ] || fail "left on a full disk: $(ls "$work/small")"
    mount -o remount,ro "$work/small"
    expect 0 "60 trials" db show "$work/small/a.db"
    expect 3 "error[file-write]" db prune "$work/small/a.db" --failed
    expect 0 "would go" db prune "$work/small/a.db" --failed --dry-run
    umount "$work/small"
    mounted=
}

# The same graph, weights, records and compiler: the same bytes. Other records: others.
tuning() {
    local target=x86-64-v3 cc
    cc=$(command -v cc || command -v gcc) || { echo "SKIPPED: no C compiler"; return; }
    [ "$(uname -m)" = x86_64 ] || { echo "SKIPPED: tuned artifacts are compared on x86-64"; return; }
    make model m1.db docs/example.json $target "$cc" 1
    make model m2.db docs/example.json $target "$cc" 2
    "$mossc" db merge "$work/m1.db" "$work/m2.db" "$work/a.db" -o "$work/x.db" >/dev/null
    "$mossc" db merge "$work/a.db" "$work/m2.db" "$work/m1.db" -o "$work/y.db" >/dev/null
    local usual=(compile docs/example.json --weights random:1 --target $target --cc "$cc")
    for name in x y; do
        expect 0 "" "${usual[@]}" --tuning "$work/$name.db" -o "$work/$name"
    done
    cp "$work/x.db" "$work/copy.db"
    expect 0 "" "${usual[@]}" --tuning "$work/copy.db" -o "$work/copy"
    expect 0 "" "${usual[@]}" -o "$work/usual"
    cmp -s "$work/x" "$work/y" || fail "the order of records changes the artifact"
    cmp -s "$work/x" "$work/copy" || fail "two compiles differ"
    cmp -s "$work/x" "$work/usual" && fail "records change nothing"
    "$work/x" run --tokens 1,2,3,4,5 --logits "$work/x.f32" -n 0 >/dev/null 2>&1 || fail "a tuned artifact does not run"
    "$work/x" run --tokens 1,2,3,4,5 --step --logits "$work/step.f32" -n 0 >/dev/null 2>&1
    cmp -s "$work/x.f32" "$work/step.f32" || fail "a tuned artifact gives other logits token by token"
    expect 0 "warning[tuning-none]" compile docs/example.json --emit plan -o "$work/plan" --target $target --tuning "$work/searches.db"
    expect 1 "error[tuning-device]" compile docs/example.json --emit plan --target $target --tuning "$work/x.db" --tuned-on toaster
    expect 0 "" inspect docs/example.json --target $target --tuning "$work/x.db"
    "$mossc" targets | grep -q '^h100' \
        && expect 0 "warning[tuning-none]" compile docs/example.json --emit plan -o "$work/plan" --target h100 --tuning "$work/x.db"
}

make random a.db 0 60 1
make random b.db 40 60 2
make searches searches.db 1 40
usage
merge
show
prune
trouble
full_disk
tuning
left=$(find "$work" -name '*.building-*' -o -name '*-journal')
[ -z "$left" ] || fail "left behind: $left"
[ $failed -eq 0 ] && echo "db: ok"
exit $failed
