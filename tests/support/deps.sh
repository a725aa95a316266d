#!/bin/sh
# deps.sh - install the Debian packages that are missing, and say which.
#
#   deps.sh PACKAGE... -- NAME:VERSION:PACKAGE...
#
# Nothing is asked of the package manager when all is there.
set -eu

here=$(dirname "$0")
want=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
    gcc) command -v "${CC:-gcc}" >/dev/null 2>&1 || want="$want gcc" ;;
    make | curl) command -v "$1" >/dev/null 2>&1 || want="$want $1" ;;
    pkg-config)
        command -v pkg-config >/dev/null 2>&1 || want="$want pkg-config"
        ;;
    libc6-dev) [ -f /usr/include/stdio.h ] || want="$want libc6-dev" ;;
    ca-certificates)
        [ -s /etc/ssl/certs/ca-certificates.crt ] ||
            want="$want ca-certificates"
        ;;
    *) command -v "$1" >/dev/null 2>&1 || want="$want $1" ;;
    esac
    shift
done
if [ $# -gt 0 ]; then
    shift
fi
want="$want $(sh "$here/libraries.sh" -q "$@" | tr '\n' ' ')"
# shellcheck disable=SC2086 # a list of words
set -- $want
if [ $# -eq 0 ]; then
    exit 0
fi

echo "== installing Debian packages: $*"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "no apt-get here: install them in this system's own way" >&2
    exit 1
fi
as_root=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "run as root: apt-get install $*" >&2
        exit 1
    fi
    as_root=sudo
fi
export DEBIAN_FRONTEND=noninteractive
if ! $as_root apt-get install -y --no-install-recommends "$@"; then
    # The lists may be old or absent, as in a slim image.
    $as_root apt-get update
    $as_root apt-get install -y --no-install-recommends "$@"
fi
