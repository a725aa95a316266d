#!/bin/sh
# demo.sh - the whole loop on real text: index, search, confirm, retrain,
# judge, switch, roll back.
#
# Starts a daemon of its own on a free loopback port with a new data folder,
# and leaves it running. Needs a built kindredd and kindred, awk, curl; with
# sqlite3 it also shows what keyword search (BM25) makes of the same queries.
#
# usage: demo.sh [FOLDER-WITH-THE-PROGRAMS]
#   the folder  default KINDRED_BUILD, or build/release
#   DEMO_DIR    where the data goes            default a new folder in /tmp
#   DEMO_CORPUS debian | short | installed     default the first that can be had
set -eu

here=$(cd "$(dirname "$0")" && pwd)
bin=${1:-${KINDRED_BUILD:-$here/../../build/release}}
bin=$(cd "$bin" && pwd)
kindred=$bin/kindred
for program in "$bin/kindredd" "$kindred"; do
    [ -x "$program" ] || { echo "demo: $program is missing; run make" >&2; exit 1; }
done

dir=${DEMO_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/kindred-demo-XXXXXX")}
mkdir -p "$dir"
work=$dir/corpus
mkdir -p "$work"
began=$(date +%s)

if [ -t 1 ]; then
    bold=$(printf '\033[1m') dim=$(printf '\033[2m') plain=$(printf '\033[0m')
else
    bold='' dim='' plain=''
fi
title() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
note() { printf '%s%s%s\n' "$dim" "$*" "$plain"; }
seconds() { echo $(($(date +%s) - began)); }

# ---- the texts ---------------------------------------------------------------

# Debian's package lists with their long descriptions, fetched beside the
# machine's own lists, which stay as they are.
corpus_debian() {
    command -v apt-get >/dev/null 2>&1 || return 1
    helper=/usr/lib/apt/apt-helper
    [ -x "$helper" ] || return 1
    apt=$work/apt
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    set -- -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" \
        -o Acquire::Languages=en -o APT::Sandbox::User="$(id -un)" \
        -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false \
        -o Acquire::http::Timeout=20 -o Acquire::Retries=1
    note "fetching Debian's package lists and descriptions (about 16 MB)"
    # Sources of others may fail; what counts is what came.
    apt-get "$@" update >"$apt/log" 2>&1 || true
    apt-get "$@" indextargets \
        --format '$(CREATED_BY)|$(ORIGIN)|$(FILENAME)' 'Origin: Debian' \
        >"$apt/targets" 2>>"$apt/log" || return 1
    for kind in Translations Packages; do
        : >"$apt/$kind"
        grep "^$kind|" "$apt/targets" | cut -d'|' -f3 | while read -r list; do
            [ -f "$list" ] || continue
            "$helper" cat-file "$list" >>"$apt/$kind"
            echo >>"$apt/$kind"
        done
    done
    [ -s "$apt/Translations" ] && [ -s "$apt/Packages" ] || return 1
    join 0 "$apt/Translations" "$apt/Packages" || return 1
    rm -rf "$apt"
    what="Debian's package descriptions"
}

# The machine's own lists hold only summaries: found by the package's name.
corpus_short() {
    command -v apt-cache >/dev/null 2>&1 || return 1
    apt-cache dumpavail >"$work/available" 2>/dev/null || return 1
    join 1 "$work/available" || return 1
    rm -f "$work/available"
    what="the one-line summaries of Debian's packages (apt-cache dumpavail)"
}

# The packages that are installed, with their long descriptions.
corpus_installed() {
    [ -r /var/lib/dpkg/status ] || return 1
    join 0 /var/lib/dpkg/status || return 1
    what="the descriptions of the packages installed here (dpkg status)"
}

join() {
    short=$1
    shift
    awk -v short="$short" -v items="$work/items.ndjson" \
        -v pairs="$work/pairs.ndjson" -v table="$work/table.tsv" \
        -f "$here/join.awk" "$@" || return 1
    [ -s "$work/items.ndjson" ] &&
        [ "$(wc -l <"$work/items.ndjson")" -ge "${least:-1}" ]
}

title "1. Real text"
what=''
case ${DEMO_CORPUS:-} in
'')
    least=5000
    if ! corpus_debian; then
        echo "Debian's descriptions cannot be fetched here (no network, or no apt)."
        [ ! -s "$work/apt/log" ] || tail -n 3 "$work/apt/log"
        if ! corpus_short; then
            least=1
            corpus_installed || { echo "demo: no corpus on this machine" >&2; exit 1; }
        fi
        echo "Instead: $what."
    fi
    ;;
debian | short | installed)
    "corpus_$DEMO_CORPUS" || { echo "demo: no such corpus here" >&2; exit 1; }
    ;;
*)
    echo "demo: DEMO_CORPUS is debian, short or installed" >&2
    exit 2
    ;;
esac
n_items=$(wc -l <"$work/items.ndjson")
echo "$n_items texts: $what"

# ---- the daemon --------------------------------------------------------------

title "2. A daemon with a new data folder"
port_file=$dir/port
rm -f "$port_file"
launcher='nohup'
if command -v setsid >/dev/null 2>&1; then launcher='setsid nohup'; fi
# shellcheck disable=SC2086
$launcher "$bin/kindredd" --listen 127.0.0.1:0 --data "$dir/data" \
    --port-file "$port_file" >"$dir/log" 2>&1 </dev/null &
pid=$!
tries=0
until [ -s "$port_file" ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 150 ] || ! kill -0 "$pid" 2>/dev/null; then
        echo "demo: the daemon does not start:" >&2
        cat "$dir/log" >&2
        exit 1
    fi
    sleep 0.1
done
# Where setsid had to fork, the daemon's own lock file knows its number.
if [ -s "$dir/data/lock" ]; then pid=$(tr -dc 0-9 <"$dir/data/lock"); fi
KINDRED_URL=http://127.0.0.1:$(cat "$port_file")
KINDRED_COLLECTION=debian
export KINDRED_URL KINDRED_COLLECTION
finished=''
trap '[ -n "$finished" ] || echo "demo: stopped early; the daemon runs on as process $pid, its log is $dir/log" >&2' EXIT
echo "$KINDRED_URL, process $pid, data in $dir/data"

# ---- index -------------------------------------------------------------------

title "3. Index all of it"
"$kindred" create
"$kindred" index "$work/items.ndjson"

# ---- ask ---------------------------------------------------------------------

cat >"$work/questions" <<'QUESTIONS'
trace the system calls of a running program
recover deleted photos from a memory card
edit audio recordings, cut and add effects
play chess against the computer
a static site generator that reads markdown
QUESTIONS

# Three answers to each question, into $work/answers.NAME.
ask() {
    n=0
    : >"$work/answers.$1"
    while read -r question; do
        n=$((n + 1))
        "$kindred" search --tsv -q -k 3 "$question" |
            sed "s/^/$n	/" >>"$work/answers.$1"
    done <"$work/questions"
}

show() { # NAME: the answers with the beginning of their texts
    awk -F '\t' -v questions="$work/questions" -v bold="$bold" -v plain="$plain" '
        BEGIN { while ((getline line < questions) > 0) q[++n] = line }
        $1 != last { printf "%s%s. %s%s\n", bold, $1, q[$1], plain; last = $1 }
        { printf "   %-26.26s %.3f %5.1f%%  %.60s\n", $3, $4, $5 * 100, $6 }
    ' "$work/answers.$1"
}

beside() { # A B: the ids side by side, what changed marked
    awk -F '\t' -v questions="$work/questions" -v bold="$bold" -v plain="$plain" '
        BEGIN { while ((getline line < questions) > 0) q[++n] = line }
        NR == FNR { old[$1, $2] = sprintf("%-26.26s %.3f", $3, $4)
                    rank[$1, $3] = $2; next }
        $1 != last { printf "%s%s. %s%s\n", bold, $1, q[$1], plain; last = $1 }
        {
            mark = "     "
            if (!(($1, $3) in rank)) mark = "new  "
            else if (rank[$1, $3] > $2) mark = "up   "
            else if (rank[$1, $3] < $2) mark = "down "
            printf "   %-33s | %-26.26s %.3f %5.1f%% %s\n", old[$1, $2], $3, $4, $5 * 100, mark
        }
    ' "$work/answers.$1" "$work/answers.$2"
}

title "4. Five questions to the untrained encoder"
ask untrained
note "   item                     cosine  prob.  its text begins"
show untrained

# ---- confirm -----------------------------------------------------------------

title "5. What belongs together: pairs of a summary and its description"
note "the source package is the group: near-copies stay on one side of the split"
"$kindred" pairs "$work/pairs.ndjson"

title "6. How good is it? Pairs kept aside as the judge, before training"
sample=300
"$kindred" eval judged --limit "$sample" --write "$work/judged" --json -q \
    >"$work/before.json"

# The same queries by keywords: SQLite FTS5, BM25, words joined by OR. It takes
# about 0.1 s a query, so it works beside the training.
bm25() {
    {
        echo '.bail on'
        echo "CREATE VIRTUAL TABLE d USING fts5(id UNINDEXED, text, tokenize='unicode61');"
        echo '.mode ascii'
        printf '.separator "\\t" "\\n"\n'
        echo ".import '$work/table.tsv' d"
        LC_ALL=C awk -F '\t' '{
            words = ""
            text = tolower($2)
            gsub(/[^a-z0-9\200-\377]+/, " ", text)
            n = split(text, word, " ")
            for (i = 1; i <= n; i++)
                words = words (words == "" ? "" : " OR ") "\"" word[i] "\""
            if (words != "")
                printf "SELECT \x27%s\x27, id FROM d WHERE d MATCH \x27%s\x27 ORDER BY rank LIMIT 100;\n", $1, words
        }' "$work/judged/queries.tsv"
    } >"$work/bm25.sql"
    sqlite3 :memory: <"$work/bm25.sql" >"$work/bm25.tsv" &&
        "$kindred" eval run "$work/judged/qrels.tsv" "$work/bm25.tsv" --json \
            >"$work/bm25.json"
}
bm25_pid=''
if command -v sqlite3 >/dev/null 2>&1 &&
    echo 'CREATE VIRTUAL TABLE t USING fts5(a);' | sqlite3 2>/dev/null; then
    bm25 2>"$work/bm25.log" &
    bm25_pid=$!
else
    note "no sqlite3 with FTS5 here: no keyword search to compare with"
fi

# NAME FILE: one line of the table of figures.
figures() {
    awk -v name="$1" '
        /"(nDCG|MRR|recall)@/ { split($0, part, "\""); figure = part[2] }
        /"value"/ { v = $2; sub(/,/, "", v); value[figure] = v }
        END { printf "%-30s %8.4f %8.4f %8.4f\n", name, value["nDCG@10"],
                  value["MRR@10"], value["recall@10"] }
    ' "$2"
}
figures_title() { printf '%s%-30s %8s %8s %8s%s\n' "$bold" \
    "$(wc -l <"$work/judged/queries.tsv") judged queries" nDCG@10 MRR@10 recall@10 "$plain"; }
figures_title
figures 'kindred, untrained' "$work/before.json"

# ---- learn -------------------------------------------------------------------

title "7. Learn"
set +e
"$kindred" train --follow
trained=$?
set -e
case $trained in
0 | 3) ;;
*)
    # Too few pairs on a small machine: two views of each text will do.
    echo "Without enough pairs, learning from two views of each text:"
    set +e
    "$kindred" train --pretext instances --follow
    trained=$?
    set -e
    ;;
esac
if [ "$trained" -ne 0 ]; then
    echo "Nothing was switched: the untrained generation is served as before."
fi

title "8. The same queries again"
"$kindred" eval retrieval "$work/judged" --use --json -q >"$work/after.json"
figures_title
figures 'kindred, untrained' "$work/before.json"
if [ "$trained" -eq 0 ]; then figures 'kindred, after one round' "$work/after.json"; fi
if [ -n "$bm25_pid" ] && wait "$bm25_pid"; then
    figures 'keywords (SQLite FTS5, BM25)' "$work/bm25.json"
fi

if [ "$trained" -eq 0 ]; then
    title "9. The same five questions: before | after"
    ask trained
    beside untrained trained

    title "10. Roll back, and forth"
    "$kindred" rollback
    ask rolled-back
    if cut -f1-3 "$work/answers.untrained" >"$work/a" &&
        cut -f1-3 "$work/answers.rolled-back" >"$work/b" &&
        cmp -s "$work/a" "$work/b"; then
        echo "the answers are the old ones again"
    else
        echo "demo: the answers are NOT the old ones" >&2
        exit 1
    fi
    "$kindred" promote 2
    ask promoted
    if cmp -s "$work/answers.trained" "$work/answers.promoted"; then
        echo "the answers are the trained ones again"
    else
        echo "demo: the answers are NOT the trained ones" >&2
        exit 1
    fi
fi

finished=yes
title "Done in $(seconds) s. The daemon runs on:"
cat <<TALK
export KINDRED_URL=$KINDRED_URL KINDRED_COLLECTION=debian
$kindred search "edit photos"
$kindred status
curl -s $KINDRED_URL/v1/collections/debian/search -H 'Content-Type: application/json' \\
     -d '{"text": "edit photos", "k": 3}'
curl -s $KINDRED_URL/v1/embeddings -H 'Content-Type: application/json' \\
     -d '{"model": "debian", "input": "edit photos"}'
stop it:       kill $pid
remove it all: rm -r $dir
TALK
