#!/bin/sh
# embed.sh - C source for src/base/embed.h from files.
#
#   embed.sh list SYMBOL FILE...   a table that ends with a NULL name
#   embed.sh one SYMBOL FILE       one entry; a missing file is empty
set -eu

bytes() { # FILE ARRAY: the bytes, and a NUL that is not counted
    printf 'static const unsigned char %s[] = {\n' "$2"
    if [ -f "$1" ]; then
        od -An -v -tu1 "$1" | sed 's/  *\([0-9]*\)/\1,/g'
    fi
    printf '0};\n'
}

entry() { # FILE ARRAY
    printf '{"%s", %s, sizeof(%s) - 1}' "${1##*/}" "$2" "$2"
}

kind=$1 symbol=$2
shift 2
printf '#include "base/embed.h"\n'
case $kind in
list)
    i=0
    for file; do
        bytes "$file" "bytes_$i"
        i=$((i + 1))
    done
    printf 'const struct embedded_file %s[] = {\n' "$symbol"
    i=0
    for file; do
        entry "$file" "bytes_$i"
        printf ',\n'
        i=$((i + 1))
    done
    printf '{NULL, NULL, 0}};\n'
    ;;
one)
    bytes "$1" bytes_0
    printf 'const struct embedded_file %s =\n' "$symbol"
    entry "$1" bytes_0
    printf ';\n'
    ;;
esac
