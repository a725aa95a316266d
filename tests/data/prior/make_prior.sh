#!/bin/sh
# Makes src/text/prior_df.bin from WordNet 3.0's glosses and examples (Debian
# package wordnet-base): 117,659 entries, 8 a text, so that a text has the
# length of a short document. `make prior` calls it with the tool's path.
set -eu
tool=$1
folder=${WORDNET:-/usr/share/wordnet}
if [ ! -r "$folder/data.noun" ]; then
    echo "make prior: needs WordNet: apt-get install wordnet-base" >&2
    exit 1
fi
cat "$folder/data.noun" "$folder/data.verb" "$folder/data.adj" \
    "$folder/data.adv" | grep -v '^  ' |
    awk -F' [|] ' '{ split($1, a, " "); w = a[5]; gsub("_", " ", w)
        text = text " " w ": " $2
        if (NR % 8 == 0) { print text; text = "" } }' |
    "$tool" 65536 >src/text/prior_df.bin
ls -l src/text/prior_df.bin
