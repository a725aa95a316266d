#!/bin/sh
# lint.sh - the rules that a compiler does not check.
#
#   1. layers: a file includes only lower ranks or its own directory
#   2. exclusive headers: sqlite3.h in src/store, microhttpd.h in server, ...
#   3. SQL is never built from text
#   4. functions that are not used here
#   5. clang-format, where the tool exists
#   6. shipped schema files keep their hash (schema/SHA256SUMS)
#   7. every C file of src/ has its header's contract and a size in bounds
#
# Prints what is wrong as FILE:LINE: text, and ends with 'N passed, N failed,
# N skipped', a rule being one of the N.
set -eu

cd "$(dirname "$0")/../.."
passed=0 failed=0 skipped=0
found=$(mktemp)
trap 'rm -f "$found"' EXIT

c_files() { # the C files and headers below folders
    find "$@" -name '*.[ch]' 2>/dev/null | sort
}

verdict() { # NAME: the rule's finding is in $found
    if [ -s "$found" ]; then
        failed=$((failed + 1))
        echo "FAILED $1"
        sed 's/^/    /' "$found"
    else
        passed=$((passed + 1))
        echo "ok     $1"
    fi
}

# ---- 1. layers
c_files src server clients/kindred | xargs awk '
    BEGIN {
        n = split("base 0 kern 1 text 2 nn 2 ann 2 store 2 image 2 model 3 " \
            "train 4 engine 5 server 6", w, " ")
        for (i = 1; i < n; i += 2) rank[w[i]] = w[i + 1]
    }
    FNR == 1 {
        own = FILENAME
        sub(/^src\//, "", own)
        client = own ~ /^clients\//
        sub(/\/.*/, "", own)
    }
    /^[ \t]*#[ \t]*include[ \t]*"/ {
        split($0, part, "\"")
        if (part[2] !~ /\//) {
            if (!client)
                print FILENAME ":" FNR ": include by the path from src/: " \
                    part[2]
            next
        }
        split(part[2], path, "/")
        to = path[1]
        if (client) {
            if (to != "base" && to != "clients")
                print FILENAME ":" FNR ": a client sees base/ only: " part[2]
            next
        }
        if (!(to in rank)) {
            print FILENAME ":" FNR ": unknown directory: " part[2]
            next
        }
        if (to != own && rank[to] >= rank[own])
            print FILENAME ":" FNR ": " own " (rank " rank[own] \
                ") must not include " part[2] " (rank " rank[to] ")"
    }' >"$found"
verdict "layers"

# ---- 2. exclusive headers
only() { # HEADER-PATTERN ALLOWED-FILES-PATTERN
    c_files src server clients/kindred |
        xargs grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*<$1>" |
        grep -vE "^($2):" |
        sed 's/$/  (not in this file)/' || :
}
{
    only 'sqlite3\.h' 'src/store/[^:]*'
    only 'microhttpd\.h' 'server/[^:]*'
    only 'jansson\.h' 'src/base/json\.c|server/codec[^:]*|clients/[^:]*'
    only '(dnnl|cblas)\.h' 'src/kern/(gemm|conv)[^:]*'
    only '[a-z]*intrin\.h|arm_neon\.h' 'src/kern/kern_[^:]*'
    only 'utf8proc\.h' 'src/text/[^:]*'
    only 'nettle/[^>]*' 'src/base/hash\.c|server/auth\.c'
    only 'curl/[^>]*' 'clients/[^:]*'
    only '(jpeglib|jerror)\.h|webp/[^>]*' 'src/image/decode[^:]*'
    only 'png\.h' 'src/image/(decode[^:]*|write_png\.c)'
    only 'ini\.h' 'server/config\.c'
    only 'archive(_entry)?\.h' 'src/base/tarball\.c'
} >"$found"
verdict "exclusive headers"

# ---- 3. SQL: no statement out of a format or a concatenation
{
    c_files src server | xargs awk '
        # A call that formats text, with the lines up to its semicolon.
        /(snprintf|buf_printf|buf_add_str|buf_vprintf|strncat)[ ]*\(/ {
            call = ""; at = FNR; open = 1
        }
        open {
            call = call " " $0
            if (/;[ \t]*$/) {
                bad = call ~ /"[ ]*(SELECT|INSERT|UPDATE|DELETE|REPLACE|CREATE|DROP|ALTER|ATTACH|PRAGMA|VACUUM)[ ]+/
                # A pragma takes no parameter; db.c has the one function that
                # sets one, by a constant name and an integer.
                if (FILENAME ~ /store\/db\.c$/ && call ~ /"PRAGMA %s = %lld"/)
                    bad = 0
                if (bad)
                    print FILENAME ":" at ": SQL built from text"
                open = 0
            }
        }'
    c_files src/store | xargs grep -nE 'sqlite3_(v?m|vsn|sn)printf' || :
    # Only names of statement constants may be prepared or run.
    c_files src/store |
        xargs grep -nE 'sqlite3_exec\([^,]*, *[a-z_]*(buf|text|sql_text)' || :
} >"$found"
verdict "no SQL from text"

# ---- 4. functions that are not used here
ban() { # PATTERN WHY [EXCEPT-FILES]
    c_files src server clients/kindred |
        xargs grep -nE "(^|[^A-Za-z0-9_.>])($1)[[:space:]]*\(" |
        grep -vE "^(${3:-none}):" | grep -vE '^[^:]*:[0-9]*:[[:space:]]*(\*|/\*|//)' |
        sed "s|\$|  ($2)|" || :
}
{
    ban 'strcpy|strcat|sprintf|vsprintf|gets|strncat' 'no bound'
    ban 'alloca' 'stack by input'
    ban 'rand|srand|random|srandom|drand48' 'base/rng.h'
    ban 'time|gettimeofday' 'base/clock.h'
    c_files src server | xargs grep -n 'CLOCK_REALTIME' |
        grep -v '^src/base/clock\.[ch]:' || :
    ban 'malloc|calloc|realloc|free' 'base/alloc.h' \
        'src/base/alloc\.c|clients/[^:]*|server/codec[^:]*'
    ban 'atoi|atol|atof|strtok' 'no errors, or hidden state'
    ban 'setlocale' 'numbers are written with a point' 'clients/[^:]*'
    ban 'system|popen' 'nothing is run'
    ban 'sleep|usleep' 'base/clock.h'
    c_files src server |
        xargs grep -nE '__attribute__|__builtin_' |
        grep -vE '^src/(base/(check\.h|hash\.c|pool\.c)|kern/[^:]*):' || :
    c_files src server clients | xargs grep -nwE 'TODO|FIXME|XXX' || :
} >"$found"
verdict "functions that are not used here"

# ---- 5. the format
if command -v clang-format >/dev/null 2>&1; then
    : >"$found"
    c_files src server clients/kindred |
        xargs clang-format --dry-run 2>&1 |
        grep 'warning:' | sed 's/: warning:.*/: not as clang-format has it/' |
        awk -F: '!($1 in told) { told[$1] = 1; print $1 ":" $2 ":" $NF }' \
            >"$found" || :
    verdict "clang-format"
else
    echo "skipped clang-format: the tool is not installed"
    skipped=$((skipped + 1))
fi

# ---- 6. shipped migrations
if [ -f schema/SHA256SUMS ]; then
    {
        (cd schema && sha256sum --check --quiet SHA256SUMS 2>&1) || :
        for file in schema/[0-9]*.sql; do
            grep -q "  ${file##*/}\$" schema/SHA256SUMS ||
                echo "$file: no hash in schema/SHA256SUMS"
        done
    } >"$found"
    verdict "schema hashes"
else
    echo "skipped schema hashes: no schema/SHA256SUMS"
    skipped=$((skipped + 1))
fi

# ---- 7. shape
{
    c_files src server clients/kindred | xargs awk '
        FNR == 1 {
            n_files++
            if ($0 !~ /^(\/\*|#|\/\/)/)
                print FILENAME ":1: begins neither with a comment nor a #"
        }
        FNR == 1001 { print FILENAME ":1001: more than 1,000 lines" }
        length($0) > 80 && $0 !~ /http/ {
            # Bytes, so a line of other letters may be shorter than it seems.
            if ($0 !~ /[\200-\377]/)
                print FILENAME ":" FNR ": " length($0) " columns"
        }
        /\t/ { print FILENAME ":" FNR ": a tab" }
        /[ \t]$/ { print FILENAME ":" FNR ": blank at the end" }'
    find src server -name '*.h' | while read -r header; do
        grep -qE '^#ifndef [A-Z0-9_]+_H$' "$header" ||
            echo "$header:1: no include guard"
    done
} >"$found"
verdict "shape"

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
