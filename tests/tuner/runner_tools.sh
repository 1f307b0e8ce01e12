# What the tests of --runner share beyond tools.sh: runners of their own. Sourced with MOSSC as $1.
. "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
mkdir bin

# command_file NAME: a runner, from standard input
command_file() {
    { echo '#!/usr/bin/env bash'; cat; } >"bin/$1"
    chmod +x "bin/$1"
}
