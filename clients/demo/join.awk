# join.awk - Debian's package lists as items and pairs.
#
# Reads Translation-en lists, then Packages lists, joins them by
# Description-md5, and writes NDJSON:
#   items   {"id": package, "text": long description,
#            "metadata": {"section": ..., "source": ...}}
#   pairs   {"anchor": {"text": summary}, "positive": {"id": package},
#            "group": source}
# and a table, package and text with a tab between, for other programs.
# The summary is in no item, so that finding the description from it is a
# task. A package without a long description, or with the summary and the
# description of one before, is left out.
#
# With short=1, for lists without long descriptions, the summary is the text
# and the words of the package's name are the anchor.
#
# usage: awk -v items=FILE -v pairs=FILE -v table=FILE [-v short=1]
#            -f join.awk TRANSLATION... PACKAGES...

function json(s) {
    gsub(/\\/, "&&", s)
    gsub(/"/, "\\\"", s)
    gsub(/\t/, " ", s)
    gsub(/\n/, "\\n", s)
    gsub(/[\001-\037\177]/, " ", s)
    return "\"" s "\""
}

function finish(    text, section) {
    if (md5 != "" && long != "" && !(md5 in texts))
        texts[md5] = long
    if (package != "" && section_seen && !(package in done)) {
        done[package] = 1
        text = (md5 in texts) ? texts[md5] : long
        if (short) {
            text = summary
            summary = package
            gsub(/[^A-Za-z0-9+]+/, " ", summary)
        }
        if (text != "" && !((summary SUBSEP text) in twins)) {
            twins[summary, text] = 1
            section = sec
            sub(/^.*\//, "", section)
            if (source == "")
                source = package
            printf "{\"id\":%s,\"text\":%s,\"metadata\":{\"section\":%s,\"source\":%s}}\n", \
                json(package), json(text), json(section), json(source) > items
            printf "{\"anchor\":{\"text\":%s},\"positive\":{\"id\":%s},\"group\":%s}\n", \
                json(summary), json(package), json(source) > pairs
            gsub(/[\t\n]/, " ", text)
            print package "\t" text > table
        }
    }
    package = source = summary = md5 = long = sec = ""
    section_seen = in_text = 0
}

/^$/ { finish(); next }
/^ / {
    if (!in_text)
        next
    line = substr($0, 2)
    if (line == ".")
        long = long "\n"
    else {
        sub(/^ +/, "", line)
        long = long (long == "" || long ~ /\n$/ ? "" : " ") line
    }
    next
}
{ in_text = 0 }
/^Package: / { package = substr($0, 10); next }
/^Source: / { source = substr($0, 9); sub(/ .*/, "", source); next }
/^Section: / { sec = substr($0, 10); section_seen = 1; next }
/^Description-md5: / { md5 = substr($0, 18); next }
/^Description(-en)?: / {
    summary = $0
    sub(/^[^:]*: /, "", summary)
    in_text = 1
    next
}
END { finish() }
