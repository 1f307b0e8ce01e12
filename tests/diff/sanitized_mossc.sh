#!/bin/sh
# mossc, as $MOSSC names it, whose artifacts are themselves built with gcc's sanitizers.
exec "$MOSSC" "$@" --cc "gcc -fsanitize=address,undefined -fno-sanitize-recover=all -g"
