#!/bin/sh
# A consistent copy of everything, made while serving; then download it.
set -eu
. "$(dirname "$0")/lib.sh"
fill curl-backup

expect 202 -X POST "$U/v1/admin/backup"
finished "$U$(header | sed "s|^$U||")"
[ "$state" = done ] || exit 1
expect 200 "$U/v1/admin/backups"
name=$(field name)
ask -o "$tmp/copy" "$U/v1/admin/backups/$name"
head -c 15 "$tmp/copy" | grep -q 'SQLite format 3' || { echo "$0: no database" >&2; exit 1; }
expect '400 404' "$U/v1/admin/backups/..%2F..%2Fetc%2Fpasswd"
