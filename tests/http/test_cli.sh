#!/bin/sh
# Goal: every command of the command line does its work and fails as it says:
#   exit code, what is printed, and where.
# Method: against the daemon at KINDRED_URL, in collections of its own
#   (cli-*), with small files in a temporary folder. Each check states the exit
#   code it wants and a text that must be printed.
#
# usage: KINDRED_URL=... test_cli.sh   (KINDRED_BUILD names the programs)
set -u

: "${KINDRED_URL:?the daemon to test}"
kindred=${KINDRED_BUILD:-build/release}/kindred
case $kindred in /*) ;; *) kindred=$PWD/$kindred ;; esac
sources=$(cd "$(dirname "$0")/../../clients/kindred" && pwd)
support=$(cd "$(dirname "$0")/../support" && pwd)
unset KINDRED_COLLECTION KINDRED_KEY_FILE
export KINDRED_URL
tmp=$(mktemp -d "${TMPDIR:-/tmp}/kindred-cli-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1
passed=0 failed=0

fail() {
    failed=$((failed + 1))
    echo "FAIL  $*"
    head -n 8 out err | sed 's/^/      /'
}

# t CODE ARGUMENTS...: run it, want this exit code.
t() {
    want=$1
    shift
    what="kindred $*"
    timeout 300 "$kindred" "$@" >out 2>err </dev/null
    got=$?
    if [ "$got" -eq "$want" ]; then
        passed=$((passed + 1))
    else
        fail "$what: exit code $got, not $want"
    fi
}
# has TEXT / says TEXT: on standard output, on standard error.
has() { if grep -qF -- "$1" out; then passed=$((passed + 1)); else fail "$what: does not print \"$1\""; fi; }
hasnt() { if grep -qF -- "$1" out; then fail "$what: prints \"$1\""; else passed=$((passed + 1)); fi; }
says() { if grep -qF -- "$1" err; then passed=$((passed + 1)); else fail "$what: does not say \"$1\""; fi; }

# ---- without a daemon ---------------------------------------------------------
t 0 help; has 'usage: kindred'
for command in create index search pairs train rollback promote jobs status \
    eval views embed export import encoders import-encoder export-encoder \
    backup delete completion version help; do
    t 0 help "$command"; has "usage: kindred $command"
    t 0 "$command" --help; has "usage: kindred $command"
done
t 0 version; has 'kindred '
t 0 --version; has 'kindred '
t 2; has 'usage: kindred'
t 2 serch; says 'no command "serch"'
t 2 help serch
t 2 search --k many x; says 'no whole number'
t 2 search --nothing x; says 'no option --nothing'
t 2 search; says 'give one of'
t 2 search --k; says 'needs a value'
t 2 promote two
t 2 promote
t 2 completion tcsh
for shell in bash zsh fish; do t 0 completion "$shell"; has kindred; done
for pair in bash:kindred.bash zsh:_kindred fish:kindred.fish; do
    "$kindred" completion "${pair%%:*}" >made
    if cmp -s made "$sources/completion/${pair#*:}"; then
        passed=$((passed + 1))
    else
        what="completion/${pair#*:}"
        fail "is not what kindred completion ${pair%%:*} prints"
    fi
done
t 4 --url http://127.0.0.1:1 status; says 'no daemon answers'; says 'kindredd --listen'
t 2 --key-file "$tmp/none" status; says 'No such file'

# ---- collections --------------------------------------------------------------
for name in cli-one cli-two cli-learn cli-empty; do
    "$kindred" delete -y -q "$name" >/dev/null 2>&1
done
t 0 create cli-one --dims 256 --description 'a test'; has made
t 0 create cli-one --dims 256; has 'there already'
t 1 create cli-one --dims 128; says 409
t 1 create cli-bad --set colour=red; says /colour
t 2 create cli-bad --set colour
t 0 status; has cli-one
t 0 status cli-one; has generation
t 0 --json status; has '"collections"'
t 1 status cli-nobody; says 404

# ---- index --------------------------------------------------------------------
cat >items.ndjson <<'ITEMS'
{"id":"apple","title":"Apple","text":"a red and crisp fruit","metadata":{"kind":"fruit"}}

{"id":"pear","text":"a green and soft fruit","metadata":{"kind":"fruit"}}
{"id":"bicycle","text":"two wheels, pedals and a chain","metadata":{"kind":"vehicle"}}
{"id":"g++","text":"turns programs into machine code"}
ITEMS
t 0 -c cli-one index items.ndjson; says '4 items indexed'
printf '{"id":"ok","text":"good"}\n\nnot json\n{"id":"long","text":5}\n' >bad.ndjson
t 5 -c cli-one index bad.ndjson --errors errors.ndjson
says 'bad.ndjson:3:'; says 'bad.ndjson:4:'; says '2 refused'
if [ "$(wc -l <errors.ndjson)" -eq 2 ]; then passed=$((passed + 1)); else fail 'index --errors: not two lines'; fi
printf 'sku\tname\tbody\tyear\nt1\tTable\tfour legs and a top\t1999\nt2\tChair\tone sits on it\t2001\n' >items.tsv
t 0 -c cli-two index --id sku --title name --text body --meta year,what=name items.tsv
says 'collection cli-two made'
t 0 -c cli-two search --json 'four legs'; has '"year": "1999"'; has '"what": "Table"'
t 1 -c cli-two index --id sku --text nothing items.tsv; says 'no column "nothing"'
printf '[ {"id":"x1","text":"an array, [of] \\"one\\""},\n{"id":"x2",\n"text":"of two"} ]' >items.json
t 0 -c cli-two index items.json; says '2 items indexed'
printf 'first line\n\nthird line\n' >lines.txt
t 0 -c cli-two index lines.txt
mkdir -p folder/below
printf '# A heading\n\nthe body of it\n' >folder/a.md
echo 'plain words' >folder/below/b.txt
echo 'not text' >folder/c.bin
t 0 -c cli-two index folder; says '2 items indexed'
t 0 -c cli-two export; has '"x1"'; has 'lines.txt:3'; has '"below/b.txt"'; has 'A heading'; hasnt c.bin
what='kindred index -'
if "$kindred" -c cli-two index - <items.ndjson >out 2>err; then passed=$((passed + 1)); else fail 'index - from standard input'; fi
t 1 -c cli-two index missing.ndjson; says 'No such file'
t 1 -c cli-nobody index --no-create items.ndjson; says 404
t 2 -c cli-two index --format csv items.tsv
printf '[ {"id":"y1","text":"cut of' >cut.json
t 1 -c cli-two index cut.json; says 'ends inside element 1'

# ---- search -------------------------------------------------------------------
t 0 -c cli-one search red fruit; has apple; has cosine; says 'exact'
t 0 -c cli-one search -k 1 'two wheels'; has bicycle; hasnt apple
t 0 -c cli-one search --id apple; has pear
t 0 -c cli-one search --like apple --unlike bicycle; has pear
t 0 -c cli-one search --filter '{"kind":"vehicle"}' fruit; has bicycle; hasnt pear
t 0 -c cli-one search --tsv -k 1 'machine code'; has "1	g++	"
t 0 -c cli-one search --full -k 1 'machine code'; has 'turns programs'
t 0 -c cli-one search --json fruit; has '"search_id"'
t 0 -c cli-one search --explain fruit; has scanned
t 0 -c cli-one search --min-cosine 0.9999 fruit; has 'nothing found'
t 1 -c cli-one search -k 0 fruit; says /k
t 1 -c cli-one search --id nobody
t 2 -c cli-one search --filter '{' fruit; says '--filter'
t 1 -c cli-nobody search fruit; says 404
t 2 -c cli-one search --id apple fruit

# ---- embed --------------------------------------------------------------------
t 0 -c cli-one embed 'one text' 'another'; has '"embedding":['
t 0 embed --model static --dimensions 8 'one text'; has '"one text"'
t 1 -c cli-nobody embed 'one text'; says 404

# ---- pairs --------------------------------------------------------------------
printf 'keeps the doctor away\tapple\tsayings\na way to work\tbicycle\tsayings\n' >pairs.tsv
t 0 -c cli-one pairs pairs.tsv --group 3; says '2 pairs taken'
printf '{"anchor":{"text":"soft"},"positive":{"id":"pear"}}\n{"anchor":{"text":"a"},"positive":{"id":"nobody"}}\n' >pairs.ndjson
t 5 -c cli-one pairs pairs.ndjson; says 'pairs.ndjson:2:'
t 0 -c cli-one pairs --anchor-id --positive-text - ; says '0 pairs taken'
t 1 -c cli-nobody pairs pairs.tsv; says 404
t 1 -c cli-one pairs folder; says 'is a folder'

# ---- export, import, backup ---------------------------------------------------
t 0 -c cli-one export -o export.ndjson --vectors; says 'exported to export.ndjson'
t 5 -c cli-two import export.ndjson; says '(409)' # other dimensions
t 0 create cli-empty --dims 256
t 0 -c cli-empty import export.ndjson; says imported
t 0 -c cli-empty search 'red fruit'; has apple
t 5 -c cli-empty import items.ndjson
t 1 -c cli-nobody export; says 404
t 1 -c cli-one export -o none/export.ndjson; says 'No such file'
t 0 backup -o copy.db; has backup
if head -c 15 copy.db | grep -q 'SQLite format 3'; then passed=$((passed + 1)); else fail 'backup -o: no database'; fi
t 0 backup --list; has backup

# ---- learning -----------------------------------------------------------------
t 1 -c cli-one train; says 422
t 1 -c cli-one train --set colour=red; says /colour
t 1 -c cli-one train --set lr=-1; says /lr
t 2 -c cli-one train --set lr
t 1 -c cli-one rollback; says 409
t 1 -c cli-one promote 99; says 404
awk 'BEGIN {
    srand(7)
    n = split("oak birch maple pine cedar willow elm ash beech fir larch alder hazel rowan yew spruce", tree, " ")
    m = split("house bridge boat table fence barn chair mill tower gate wheel drum loom plough cart ladder", thing, " ")
    for (i = 1; i <= 800; i++) {
        t = tree[1 + int(rand() * n)]; s = thing[1 + int(rand() * m)]
        printf "d%d\tplan %d: a %s made of %s wood, drawing number %d\n", i, i, s, t, i * 37 % 1009 > "learn.tsv"
        printf "who has number %d, the %s %s?\td%d\tg%d\n", i * 37 % 1009, t, s, i, i > "learn-pairs.tsv"
    }
}'
t 0 -c cli-learn index learn.tsv; says '800 items indexed'
t 0 -c cli-learn pairs --group 3 learn-pairs.tsv; says '800 pairs taken'
t 0 -c cli-learn train --follow --force --seed 3 --set epochs=1
has promoted; has judged; says train
t 0 -c cli-learn search --json oak; has '"generation": 2'
t 0 -c cli-learn rollback; has 'generation 1 is live'
t 0 -c cli-learn search --json oak; has '"generation": 1'
t 0 -c cli-learn promote 2; has 'generation 2 is live'
t 0 status cli-learn; has live; has previous
# A round without force: promoted or refused, never anything else.
timeout 300 "$kindred" -c cli-learn train --follow --pretext instances >out 2>err
code=$?
what='kindred train --pretext instances'
if [ "$code" -eq 0 ] || [ "$code" -eq 3 ]; then passed=$((passed + 1)); else fail "$what: exit code $code"; fi
t 0 jobs; has train
t 0 --json jobs; has '"jobs"'
job=$("$kindred" --json jobs | sed -n 's/.*"id": \([0-9]*\).*/\1/p' | head -n 1)
t 0 jobs "$job"; has "job $job"
t 1 jobs --cancel "$job"; says 409
t 1 jobs 999999; says 404
t 2 jobs --cancel
t 2 jobs one

# ---- eval ---------------------------------------------------------------------
mkdir -p set
cp items.ndjson set/corpus.jsonl
printf '{"id":"q1","text":"red fruit"}\n{"id":"q2","text":"two wheels"}\n' >set/queries.jsonl
printf 'q1\tapple\t3\nq1\tpear\t1\nq2\tbicycle\t1\n' >set/qrels.tsv
t 0 eval set; has nDCG@10; has '1.0000'
t 0 eval retrieval set --json --set dims=128; has '"queries": 2'
t 0 -c cli-one eval retrieval set --use; has recall@100
t 1 eval retrieval set --name cli-one; says 'exists'
t 0 status; hasnt eval-
printf 'score\ts1\ts2\n5.0\ta man rides\ta man is riding\n0.0\ta man rides\tthe soup is hot\n2.0\ta man\ta man sits\n' >sts.tsv
t 0 eval sts.tsv; has Spearman
printf 'label\ttext\nfruit\tred apple\nfruit\tgreen pear\nvehicle\ttwo wheels\n' >train.tsv
printf 'label\ttext\nfruit\ta red apple\nvehicle\twheels\n' >test.tsv
t 0 eval intent train.tsv test.tsv; has '1-NN'; has '1.0000'
printf 'q1\tpear\nq1\tapple\nq2\tcar\n' >run.tsv
t 0 eval run set/qrels.tsv run.tsv; has MRR@10
t 0 -c cli-learn eval judged --limit 20 --write judged; has 'judged on cli-learn'
if [ -s judged/queries.tsv ] && [ -s judged/qrels.tsv ]; then passed=$((passed + 1)); else fail 'eval judged --write: no files'; fi
t 1 eval sts missing.tsv; says 'No such file'
t 1 eval run set/qrels.tsv missing.tsv
t 2 eval intent train.tsv; says 'takes 2 paths'
t 2 eval nothing-here

# ---- pictures -----------------------------------------------------------------
mkdir -p photos/round photos/straight
draw() { base64 -d >"$1"; }
draw photos/round/disc.png <<'END'
iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQAAAABbAUdZAAAALElEQVR42mNgIALw/wAS8n+ARP1/GPH/fwMD4///B4gmwDqQDACbBzYZHwAACdYn8FbOmacAAAAASUVORK5CYII=
END
draw photos/round/ring.png <<'END'
iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQAAAABbAUdZAAAAS0lEQVR42mNgwAmYHwAJ+T9Awv4fkPj/v4GB4Qd/AwPjB/YDQEmgNPMBRiDRwPCAgb2B4QNWAiwLUQfSAdYLNgViHthksB1g2zABAH39It5h+K/cAAAAAElFTkSuQmCC
END
draw photos/straight/stripes.png <<'END'
iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQAAAABbAUdZAAAAEklEQVR42mP4DwQMaAQ2MEDqAGtqP8EAz9AUAAAAAElFTkSuQmCC
END
draw photos/straight/bars.png <<'END'
iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQAAAABbAUdZAAAAD0lEQVR42mP4AAQMg5cAAILLeAEig66BAAAAAElFTkSuQmCC
END
cp photos/straight/bars.png photos/straight/named-as-text.txt
echo 'no picture at all' >photos/liar.jpg
echo 'a note' >photos/note.md
"$kindred" delete -y -q cli-photos >/dev/null 2>&1
t 0 -c cli-photos index photos --input-side 28 --grey --folder-field kind
says 'cli-photos made: encoder vision'; says '"channels":1'; says '"input":28'
says '5 pictures indexed, 2 other files left alone'
t 0 -c cli-photos index photos; says '0 pictures indexed, 5 unchanged'
t 0 -c cli-photos --json index photos; has '"unchanged":5'
t 0 status cli-photos; has cli-photos
t 0 -c cli-photos search --image photos/round/ring.png --json -k 1; has round/ring.png; has '"kind": "round"'
t 0 search cli-photos --image photos/straight/bars.png -k 2; has straight/bars.png; has straight/named-as-text.txt
t 0 search cli-photos --image photos/round/ring.png --filter '{"kind":"straight"}'; hasnt round/
t 0 search cli-photos --image photos/round/ring.png --min-cosine 1; says exact
what='kindred search --image -'
if "$kindred" -c cli-photos search --image - <photos/round/disc.png 2>err >out; then has round/disc.png; else fail 'from standard input'; fi
t 0 -c cli-photos search --id round/disc.png; has round/
t 1 -c cli-photos search --image photos/liar.jpg; says '(415'
t 1 -c cli-photos search --image photos/none.png; says 'No such file'
t 1 -c cli-photos search round; says /text
t 1 -c cli-one search --image photos/round/disc.png; says /image
t 2 -c cli-photos search --image photos/round/disc.png --id x; says 'give one of'
# Another picture under a known id: only the picture changes.
cp photos/round/disc.png photos/straight/stripes.png
t 0 -c cli-photos index photos; says '1 pictures indexed, 4 unchanged'
t 0 -c cli-photos search --image photos/straight/stripes.png --json -k 2; has straight/stripes.png; has '"kind": "straight"'
# A damaged one is refused by its name, the others are stored.
head -c 60 photos/round/ring.png >photos/cut.png
draw photos/square.png <<'END'
iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQAAAABbAUdZAAAAEklEQVR42mNgIBb8/09dgjgAAPcnH+FbcHaiAAAAAElFTkSuQmCC
END
t 5 -c cli-photos index photos --errors errors.ndjson; says 'photos/cut.png: '; says '1 pictures indexed, 5 unchanged, 1 refused'
if grep -q '"id":"cut.png"' errors.ndjson; then passed=$((passed + 1)); else fail 'index --errors: no cut.png'; fi
rm photos/cut.png
t 0 -c cli-photos index photos/square.png; says '1 unchanged'
t 1 -c cli-one index --pictures photos; says 'reads text'
mkdir only && cp photos/round/disc.png only
t 1 -c cli-one index only; says 'reads text'
t 1 -c cli-photos index --pictures set; says 'no picture'
t 2 -c cli-photos index --pictures -; says 'needs a folder'
t 1 -c cli-nobody index --no-create photos; says 'no collection cli-nobody'
# A name that cannot be an id is told, and no other's picture replaced by it.
mkdir names && cp photos/round/disc.png names
cp photos/round/disc.png "names/$(printf 'caf\350').png"
cp photos/round/ring.png "names/$(printf 'caf\351').png"
"$kindred" delete -y -q cli-names >/dev/null 2>&1
t 0 -c cli-names index names; says 'not UTF-8'; says '1 pictures indexed, 2 other files left alone'
# What cannot be read of a folder is told and left out, the rest is taken: a
# nest too deep and a path too long fail for every user.
nest() { for i in $(seq "$1"); do mkdir "$2" && cd "$2" || exit; done; }
long=$(printf '%0250d' 0)
for kind in pictures documents; do
    mkdir -p "gaps-$kind/a"
    (nest 70 d && : >deep) >/dev/null && mv d "gaps-$kind/a"
    (nest 9 "$long") # two halves: a shell cannot go where it is too long
    (cd "gaps-$kind" && nest 9 "$long" && mv "$tmp/$long" .)
    mkdir "gaps-$kind/closed" && chmod 0 "gaps-$kind/closed"
done
cp photos/round/disc.png gaps-pictures
cp photos/round/ring.png gaps-pictures/z.png
printf '# A heading\n\nthe body of it\n' >gaps-documents/z.md
closed=0
ls gaps-pictures/closed >/dev/null 2>&1 || closed=1
left="$((2 + closed)) could not be read"
"$kindred" delete -y -q cli-gaps >/dev/null 2>&1
"$kindred" delete -y -q cli-gaps-2 >/dev/null 2>&1
t 5 -c cli-gaps index gaps-pictures; says 'nested too deep'; says 'File name too long'
says "2 pictures indexed, $left"
t 5 -c cli-gaps --json index gaps-pictures; has "\"unread\":$((2 + closed))"
t 5 -c cli-gaps-2 index gaps-documents; says 'nested too deep'; says 'File name too long'
says "1 items indexed, $left"
if [ "$(grep -c 'nested too deep' err)" -eq 1 ]; then passed=$((passed + 1)); else fail "$what: tells it twice"; fi
if [ $closed = 1 ]; then says 'Permission denied'; fi
chmod 700 gaps-*/closed
# What an item has beside its picture stays when it gets its first.
echo '{"id":"round/disc.png","metadata":{"kind":"told before"}}' >told.ndjson
"$kindred" delete -y -q cli-told >/dev/null 2>&1
t 0 create cli-told --encoder vision
t 0 -c cli-told index told.ndjson
t 0 -c cli-told index photos
t 0 -c cli-told search --image photos/round/disc.png --json -k 2; has '"kind": "told before"'
# What has no room in a line goes by itself: a daemon with short lines.
mkdir wide
{ cat photos/round/disc.png; head -c 2000 /dev/zero; } >wide/padded.png
cp photos/round/ring.png wide
"${kindred}d" --listen 127.0.0.1:0 --data "$tmp/short" --port-file "$tmp/port" \
    --log-level warn --line-bytes-max 1024 2>daemon.log &
pid=$!
tries=0
until [ -s port ] || [ $tries -gt 600 ]; do tries=$((tries + 1)); sleep 0.05; done
short=http://127.0.0.1:$(cat port)
t 0 --url "$short" -c wide index wide --input-side 28; says '2 pictures indexed'
t 0 --url "$short" -c wide index wide; says '0 pictures indexed, 2 unchanged'
t 0 --url "$short" -c wide search --image wide/padded.png -k 1; has padded.png
# An export comes back, whatever the limit of other lines is.
t 0 --url "$short" -c wide export -o wide.ndjson
t 0 --url "$short" create again --encoder vision
t 0 --url "$short" -c again import wide.ndjson
t 0 --url "$short" -c again index wide; says '0 pictures indexed, 2 unchanged'
kill $pid && wait $pid
t 0 views cli-photos round/disc.png -o sheet.png; says 'sheet.png: the picture and 8 views'
if head -c 4 sheet.png | grep -q PNG; then passed=$((passed + 1)); else fail 'views -o: no PNG'; fi
t 0 -c cli-photos views round/disc.png -n 3 --seed 7 --set flip=0 --set crop_min=0.5; has PNG
t 1 -c cli-photos views round/disc.png --set crop_min=2; says /crop_min
t 1 -c cli-photos views round/disc.png -n 99; says /n
t 1 views cli-photos nobody -o none.png; says 404
t 2 views cli-photos disc --set flip
t 2 views
t 0 eval knn cli-photos --label kind -k 1; has 'kNN accuracy (k 1, t 0.1)'; has '1-NN accuracy'
t 0 eval knn cli-photos --label kind --test-field kind=round; has '0.0000'
t 0 eval knn cli-photos --label kind --json; has '"queries": 5'
t 2 eval knn cli-photos; says '--label FIELD'
t 1 eval knn cli-photos --label colour; says 'it needs 2 values'
t 1 eval knn cli-nobody --label kind; says 404
t 1 -c cli-photos train --mechanism momentum_queue --momentum 1; says /momentum
t 1 -c cli-photos train --mechanism momentum_queue --batch 64 --queue 32; says /queue
t 1 -c cli-photos train --batch 1; says /batch
t 1 -c cli-photos train --temperature 0; says /temperature
t 1 -c cli-photos train --loss hinge; says /loss
t 1 -c cli-photos train --head-layers 4; says /head/layers
t 1 -c cli-photos train --view crop_min=0; says /views/crop_min
t 2 -c cli-photos train --view crop_min

# ---- encoders -----------------------------------------------------------------
"$kindred" delete -y -q cli-words >/dev/null 2>&1
"$kindred" encoders -q --delete cli-tiny >/dev/null 2>&1
sh "$support/tiny_model.sh" model
ln -s ../model/vocab.txt model/linked.txt
t 0 encoders; has static; has 'built in'; hasnt cli-tiny
t 0 import-encoder model --name cli-tiny
has 'encoder cli-tiny imported'; has '16 dimensions'; has mit; says 'create NAME --encoder cli-tiny'
t 0 import-encoder model/ -n cli-tiny; has 'is there already'
t 0 --json -q import-encoder model --name cli-tiny; has '"fingerprint"'
t 0 encoders; has cli-tiny; has mit
printf 'score\ts1\ts2\n5.0\tred fruits\tred fruit\n0.0\tred fruits\tweb servers\n2.0\tred\tweb red\n' >near.tsv
t 0 eval sts near.tsv -s encoder=cli-tiny --each-compute; has 'int8 - f32'; has Pearson; has '+0.0000'
t 0 --json -q eval sts near.tsv -s encoder=cli-tiny --each-compute; has '"bf16"'
t 2 eval sts near.tsv --use --each-compute; says 'not with --use'
t 2 eval judged --each-compute; says '--each-compute is for'
t 1 eval sts near.tsv --each-compute; says compute
t 0 --json encoders; has '"families"'
t 0 create cli-words --encoder cli-tiny; has made
t 0 -c cli-words index lines.txt
t 0 -c cli-words search red fruits; has lines.txt
t 0 embed --model cli-tiny 'red fruits'; has '"embedding":['
t 1 encoders --delete cli-tiny; says cli-words
t 0 export-encoder cli-words exported; says 'generation 1 of cli-words'
t 0 import-encoder exported --name cli-tiny; has 'is there already'
t 1 export-encoder cli-words exported; says 'is not empty'
t 1 export-encoder cli-words missing/exported; says 'No such file'
mkdir -p emptied
t 0 export-encoder cli-words emptied --generation 1
if [ -s emptied/config.json ]; then passed=$((passed + 1)); else fail 'no config.json in an exported folder'; fi
t 1 export-encoder cli-words other -g 9; says 404
if [ ! -e other ]; then passed=$((passed + 1)); else fail 'a refused export leaves its folder'; fi
t 1 export-encoder cli-nobody other; says 404
t 2 export-encoder cli-words
t 2 import-encoder model; says '--name'
t 1 import-encoder nowhere --name cli-x; says 'No such file'
t 1 import-encoder items.ndjson --name cli-x; says 'is no folder'
t 1 import-encoder folder --name cli-x; says 'has no config.json'
mv model/model.safetensors model/pytorch_model.bin
t 1 --url http://127.0.0.1:1 import-encoder model --name cli-x; says 'python3 -c'
mv model/pytorch_model.bin model/model.safetensors
t 1 import-encoder model --name static; says static
ln -s nowhere model/dangling
t 1 import-encoder model --name cli-x; says model/dangling
rm model/dangling
long=$(printf '%0150d' 0)
: >"model/$long"
t 1 import-encoder model --name cli-x; says "$long"
if grep -q '(4..' err; then fail 'half a folder is sent to its end'; else passed=$((passed + 1)); fi
rm "model/$long"
printf x >>model/model.safetensors
t 1 import-encoder model --name cli-x; says model.safetensors; says 422
t 4 --url http://127.0.0.1:1 import-encoder model --name cli-x; says 'no daemon answers'
t 0 delete -y cli-words
t 0 encoders --delete cli-tiny; says 'cli-tiny deleted'
t 1 encoders --delete cli-tiny; says 404

# ---- delete -------------------------------------------------------------------
t 0 delete cli-one --item g++ --item pear
t 1 delete cli-one --item g++; says 404
t 2 delete; says 'which collection'
t 2 delete cli-one; says '--yes'
for name in cli-one cli-two cli-learn cli-empty cli-photos; do
    t 0 delete -y "$name"
done
t 1 delete -y cli-one; says 404

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
