#!/bin/sh
# What a machine needs, in one list, and its installation with apt-get: only what is missing.
#
#   scripts/setup.sh build    what building and running mossc takes
#   scripts/setup.sh test     that, and what the tests take
# Prints what is missing and why before it installs anything, nothing when all is there.
# Exit code: 0 ready (lacking only what one can do without: 0, and said so), 3 something needed cannot be had.
set -u

# package | level | how its presence shows | reason
# Levels: build, gpu (mossc builds without it, but has no GPU targets), test (the tests do not build without it),
# tool (a test that lacks it is skipped).
# Shows as: command:A,B (any of them), header:FILE, module:NAME (of pkg-config).
packages() {
    cat <<'LIST'
gcc|build|command:cc,gcc,clang|compiles mossc, and the code mossc writes
libc6-dev|build|header:/usr/include/stdio.h|headers of the C library
binutils|build|command:ld|links; its ar makes static libraries
cmake|build|command:cmake|configures the build
ninja-build|build|command:ninja|runs the build
pkg-config|build|command:pkg-config|finds the libraries below
libcjson-dev|build|module:libcjson|reads graphs and safetensors headers
libsqlite3-dev|build|module:sqlite3|keeps tuning records
libffi-dev|build|module:libffi|calls kernels and libraries as their manifests describe them
clang-19|gpu|command:clang-19|compiles GPU kernels while mossc is built
llvm-19|gpu|command:opt-19|prepares them to be part of mossc
llvm-19-dev|gpu|header:/usr/lib/llvm-19/include/llvm-c/Core.h|makes PTX of them, in mossc
libcunit1-dev|test|module:cunit|unit tests
g++|tool|command:g++|a C++ program that uses a compiled library
clang|tool|command:clang-19,clang|generated C must please a second compiler
gcc-aarch64-linux-gnu|tool|command:aarch64-linux-gnu-gcc|compiles for 64-bit ARM
libc6-dev-arm64-cross|tool|header:/usr/aarch64-linux-gnu/include/stdio.h|the C library for 64-bit ARM
lld-19|tool|command:ld.lld-19|links programs and libraries for Android
musl-dev:arm64|tool|header:/usr/lib/aarch64-linux-musl/crt1.o|the C library of programs for Android; of the architecture arm64
qemu-user|tool|command:qemu-aarch64|runs what was compiled for 64-bit ARM, and emulates older x86-64 processors
openmpi-bin|tool|command:mpirun|tunes with several processes, as on several machines
valgrind|tool|command:valgrind|counts instructions: guards against slow code
chromium|tool|command:chromium|looks at the page that tuning records are shown as
graphviz|tool|command:dot|reads the graphs of --emit dot
default-jdk-headless|tool|command:javac|compiles the Java of the Android example
python3|tool|command:python3|reads the JSON that benchmarks print
LIST
}

is_there() {
    how=${1%%:*} what=${1#*:}
    case $how in
    header) [ -f "$what" ] ;;
    module) pkg-config --exists "$what" 2>/dev/null ;;
    command)
        for name in $(echo "$what" | tr , ' '); do
            command -v "$name" >/dev/null 2>&1 && return 0
        done
        return 1 ;;
    esac
}

# missing LEVEL...: the packages of these levels that are not there
missing() {
    packages | while IFS='|' read -r package level shows reason; do
        case " $* " in *" $level "*) is_there "$shows" || echo "$package" ;; esac
    done
}

explain() {
    for package in "$@"; do
        packages | while IFS='|' read -r name level shows reason; do
            [ "$name" = "$package" ] && printf '  %-24s %s\n' "$name" "$reason"
        done
    done
}

cannot_install() {
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "this system has no apt-get"
    elif [ "$(id -u)" -ne 0 ]; then
        echo "only root may install"
    fi
}

# foreign PACKAGE...: is one of another architecture that apt does not know yet?
foreign() {
    case " $*" in *:arm64*) ;; *) return 1 ;; esac
    ! { dpkg --print-architecture; dpkg --print-foreign-architectures; } 2>/dev/null | grep -qx arm64
}

# One at a time where all at once fails: a release may lack one that can be done without.
install() {
    export DEBIAN_FRONTEND=noninteractive
    if foreign "$@"; then
        echo "setup: apt gets to know the architecture arm64, for musl-dev:arm64 (dpkg --add-architecture arm64)"
        dpkg --add-architecture arm64
    fi
    apt-get update -qq || echo "setup: apt-get update failed; going on with the lists at hand"
    # shellcheck disable=SC2086
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null && return
    for package in "$@"; do
        apt-get install -y -qq --no-install-recommends "$package" >/dev/null || echo "setup: $package: not installed"
    done
}

case ${1:-} in
build) needed="build" wanted="build gpu" ;;
test)  needed="build test" wanted="build gpu test tool" ;;
*)     echo "usage: scripts/setup.sh build|test" >&2; exit 2 ;;
esac

# shellcheck disable=SC2046,SC2086
set -- $(missing $wanted)
[ $# -eq 0 ] && exit 0
echo "setup: missing here:"
explain "$@"
why_not=$(cannot_install)
if [ -n "$why_not" ]; then
    echo "setup: $why_not. Install them by hand; on Debian and its kin:"
    foreign "$@" && echo "  sudo dpkg --add-architecture arm64 && sudo apt-get update     # for musl-dev:arm64"
    echo "  sudo apt-get install $*"
else
    echo "setup: installing with apt-get ..."
    install "$@"
fi

# shellcheck disable=SC2086
left=$(missing $needed)
if [ -n "$left" ]; then
    echo "setup: cannot go on without:" $left >&2
    exit 3
fi
left=$(missing gpu)
# shellcheck disable=SC2086
[ -z "$left" ] || echo "setup: mossc will have no GPU targets (a100, h100) without:" $left
case $wanted in *tool*) left=$(missing tool) ;; *) left= ;; esac
# shellcheck disable=SC2086
[ -z "$left" ] || echo "setup: tests that need these will be skipped:" $left
exit 0
