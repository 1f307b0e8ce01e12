#!/bin/sh
# Data flows one way: rejects an include that the layers below do not allow, and any include cycle.
#
#   tests/layering.sh [FOLDER]      check the sources of a checkout (default: this one)
#   tests/layering.sh --self-test   plant each kind of offence and see that it is caught
# Output: one line for each offence, with its place. Exit code: 0 none, 1 some, 2 usage.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)

# check FOLDER: the rules, then a walk along the includes that looks for cycles
check() {
    (cd "$1" && find ir compiler codegen runtime tuner bench tests -name '*.[ch]' -o -name '*.def' 2>/dev/null | sort) >"$work/files"
    [ -s "$work/files" ] || { echo "layering: no sources in $1"; return 1; }
    # shellcheck disable=SC2046
    (cd "$1" && awk '
    function folder_of(path) { return path ~ /\// ? substr(path, 1, index(path, "/") - 1) : "" }

    # "compiler/passes" and "../json.h" -> "compiler/json.h"
    function resolve(folder, name) {
        while (name ~ /^\.\.\//) {
            name = substr(name, 4)
            if (!sub(/\/[^\/]*$/, "", folder)) folder = ""
        }
        return folder == "" ? name : folder "/" name
    }

    function allowed(from, to,    in_folder, of_folder) {
        in_folder = folder_of(from); of_folder = folder_of(to)
        if (in_folder == of_folder || in_folder == "tests" || in_folder == "bench") return 1
        if (in_folder == "compiler")
            return of_folder == "ir" || (of_folder == "tuner" && from == "compiler/main.c") \
                || (to == "codegen/codegen.h" && from ~ /^compiler\/(driver|artifact|main|run_command)\.c$/)
        if (in_folder == "tuner") return of_folder == "ir" || of_folder == "compiler" || to ~ /^codegen\/(codegen|kernel_file|space|template)\.h$/
        if (in_folder == "codegen") return of_folder == "ir" || to == "runtime/program.h"
        return 0
    }

    function offend(place, words) { print place ": " words; bad = 1 }

    function visit(file,    i, to) {
        state[file] = "open"
        for (i = 1; i <= n_edges[file]; i++) {
            to = edge[file, i]
            if (state[to] == "open") offend(file ":" line[file, i], "include cycle through " to)
            else if (state[to] == "") visit(to)
        }
        state[file] = "done"
    }

    FNR == 1 { folder = FILENAME; sub(/\/[^\/]*$/, "", folder) }
    /^[ \t]*#[ \t]*include[ \t]*"/ {
        name = $0
        sub(/^[^"]*"/, "", name); sub(/".*/, "", name)
        to = resolve(folder, name)
        if (!allowed(FILENAME, to))
            offend(FILENAME ":" FNR, folder_of(FILENAME) "/ may not include " to)
        edge[FILENAME, ++n_edges[FILENAME]] = to
        line[FILENAME, n_edges[FILENAME]] = FNR
    }
    # Libraries other than libc: the front end alone may use them.
    /^[ \t]*#[ \t]*include[ \t]*<(cjson|ffi|CUnit|sqlite3)[\/.]/ && FILENAME !~ /^(compiler|tuner|tests|bench)\// {
        offend(FILENAME ":" FNR, folder_of(FILENAME) "/ may not use this library")
    }
    END {
        for (i = 1; i < ARGC; i++) if (state[ARGV[i]] == "") visit(ARGV[i])
        exit bad
    }' $(cat "$work/files"))
}

# plant FILE LINE: a small tree with one offence; its place must be reported
plant() {
    rm -rf "$work/tree"
    mkdir -p "$work/tree/ir" "$work/tree/compiler/passes" "$work/tree/codegen" "$work/tree/runtime" "$work/tree/tuner"
    echo '#include "../ir/graph.h"' >"$work/tree/compiler/driver.c"
    echo '#include "../codegen/codegen.h"' >>"$work/tree/compiler/driver.c"
    echo '#include "../../ir/graph.h"' >"$work/tree/compiler/passes/pass.c"
    printf '#include "../ir/graph.h"\n#include "../runtime/program.h"\n' >"$work/tree/codegen/pack.c"
    echo '#include "../ir/graph.h"' >"$work/tree/tuner/records.h"
    echo '#include "op.def"' >"$work/tree/ir/graph.h"
    echo '#include "ops.h"' >"$work/tree/runtime/program.h"
    echo >"$work/tree/codegen/codegen.h"
    echo >"$work/tree/ir/op.def"
    echo >"$work/tree/runtime/ops.h"
    [ $# -eq 0 ] || printf '\n%s\n' "$2" >>"$work/tree/$1"
}

self_test() {
    failed=0
    plant
    check "$work/tree" || { echo "FAIL: a clean tree is rejected"; failed=1; }
    while IFS='|' read -r file line words; do
        plant "$file" "$line"
        if check "$work/tree" >"$work/said"; then
            echo "FAIL: $file with $line passes"
            failed=1
        elif ! grep -q "$words" "$work/said"; then
            echo "FAIL: $file with $line: $(cat "$work/said")"
            failed=1
        fi
    done <<'LIST'
ir/graph.h|#include "../compiler/json.h"|^ir/graph.h:3: ir/ may not include compiler/json.h
compiler/passes/pass.c|#include "../../codegen/codegen.h"|^compiler/passes/pass.c:3: compiler/ may not include codegen/codegen.h
compiler/driver.c|  #  include "../codegen/template.h"|^compiler/driver.c:4: compiler/ may not include codegen/template.h
compiler/driver.c|#include "../runtime/program.h"|^compiler/driver.c:4: compiler/ may not include runtime/program.h
compiler/driver.c|#include "../tuner/records.h"|^compiler/driver.c:4: compiler/ may not include tuner/records.h
tuner/records.h|#include "../runtime/program.h"|^tuner/records.h:3: tuner/ may not include runtime/program.h
codegen/pack.c|#include <sqlite3.h>|^codegen/pack.c:4: codegen/ may not use this library
codegen/pack.c|#include "../compiler/driver.h"|^codegen/pack.c:4: codegen/ may not include compiler/driver.h
codegen/pack.c|#include "../runtime/moss.h"|^codegen/pack.c:4: codegen/ may not include runtime/moss.h
runtime/ops.h|#include "../ir/graph.h"|^runtime/ops.h:3: runtime/ may not include ir/graph.h
runtime/ops.h|#include <cjson/cJSON.h>|^runtime/ops.h:3: runtime/ may not use this library
runtime/ops.h|#include "program.h"|include cycle through
ir/op.def|#include "graph.h"|include cycle through
ir/graph.h|#include "graph.h"|^ir/graph.h:3: include cycle through ir/graph.h
LIST
    [ $failed -eq 0 ] && echo "layering self-test: ok"
    return $failed
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case ${1:-} in
--self-test) self_test ;;
-*) echo "usage: layering.sh [FOLDER] | --self-test" >&2; exit 2 ;;
*) check "${1:-$top}" && echo "layering: ok" ;;
esac
