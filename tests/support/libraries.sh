#!/bin/sh
# libraries.sh - are the libraries there, and new enough?
#
#   libraries.sh [-q] NAME:VERSION:PACKAGE...
#
# NAME is pkg-config's, or header=FILE for a library without a .pc file (its
# version is then not looked at). Names every missing Debian package; exits 1
# when there is one. With -q the packages alone, one a line, and always 0.
set -eu

quiet=no
if [ "${1-}" = -q ]; then
    quiet=yes
    shift
fi
missing=
if ! command -v pkg-config >/dev/null 2>&1; then
    missing=" pkg-config"
fi
for lib; do
    name=${lib%%:*}
    rest=${lib#*:}
    version=${rest%%:*}
    package=${rest#*:}
    case $name in
    header=*)
        header=${name#header=}
        if ! echo "#include <$header>" |
            ${CC:-cc} -E -x c - >/dev/null 2>&1; then
            missing="$missing $package"
        fi
        ;;
    *)
        if ! pkg-config --atleast-version="$version" "$name" 2>/dev/null; then
            [ $quiet = yes ] ||
                echo "missing: $name $version or newer (Debian: $package)" >&2
            missing="$missing $package"
        fi
        ;;
    esac
done
if [ $quiet = yes ]; then
    for package in $missing; do
        echo "$package"
    done
    exit 0
fi
if [ -n "$missing" ]; then
    echo "libraries are missing; 'make deps' installs:$missing" >&2
    exit 1
fi
