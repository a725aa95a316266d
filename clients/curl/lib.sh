# lib.sh - what the examples share. Sourced, not run.
#
# expect STATUS CURL-ARGUMENTS...  runs curl, prints the answer, and ends the
# script when the status is another one. The answer stays in $body. All else in
# the examples is plain curl: take the arguments as they stand.
#
# KINDRED_URL   the daemon (default http://127.0.0.1:8420)
# KINDRED_KEY   a key, where the daemon asks for one

U=${KINDRED_URL:-http://127.0.0.1:8420}
JSON='Content-Type: application/json'
NDJSON='Content-Type: application/x-ndjson'
tmp=$(mktemp -d "${TMPDIR:-/tmp}/kindred-curl-XXXXXX")
body=$tmp/body
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM

# The key goes through a file that only we can read: arguments are seen by
# every user of the machine.
: >"$tmp/curlrc"
[ -z "${KINDRED_KEY:-}" ] ||
    printf 'header = "Authorization: Bearer %s"\n' "$KINDRED_KEY" >"$tmp/curlrc"
ask() {
    curl -sS --max-time 120 -K "$tmp/curlrc" "$@"
}

expect() {
    want=$1
    shift
    got=$(ask -o "$body" -D "$tmp/headers" -w '%{http_code}' "$@") ||
        { echo "$0: curl failed" >&2; exit 1; }
    [ ! -f "$body" ] || head -c 600 "$body"
    echo
    case " $want " in
    *" $got "*) ;;
    *)
        echo "$0: status $got, not $want" >&2
        exit 1
        ;;
    esac
    status=$got
}

# The first value of a JSON member, or a header of the answer.
field() {
    tr ',{}' '\n\n\n' <"$body" |
        sed -n 's/^[[:space:]]*"'"$1"'"[[:space:]]*:[[:space:]]*"\{0,1\}\([^"]*\)"\{0,1\}[[:space:]]*$/\1/p' |
        head -n 1
}
header() {
    tr -d '\r' <"$tmp/headers" |
        sed -n 's/^[Ll]ocation: //p;s/^[Ee][Tt]ag: //p' | head -n 1
}

# must TEXT: the answer contains it.
must() {
    grep -qF -- "$1" "$body" || { echo "$0: no $1 in the answer" >&2; exit 1; }
}

# fresh NAME [SETTINGS]: an empty collection, with all defaults unless settings
# are given; $C is its address.
fresh() {
    C=$U/v1/collections/$1
    A=$U/v1/admin/collections/$1
    settings=${2:-}
    [ -n "$settings" ] || settings='{}'
    ask -o /dev/null -X DELETE "$C"
    expect 201 -X PUT "$C" -H "$JSON" -d "$settings"
}

# fill NAME: the same with five small items in it.
fill() {
    fresh "$1"
    expect 200 "$C/items" -H "$NDJSON" --data-binary @- <<'ITEMS'
{"id":"red-apple","title":"Apple","text":"a red and crisp fruit from a tree","metadata":{"kind":"fruit","price":3}}
{"id":"green-pear","title":"Pear","text":"a green and soft fruit from a tree","metadata":{"kind":"fruit","price":4}}
{"id":"carrot","title":"Carrot","text":"an orange root that grows in the ground","metadata":{"kind":"vegetable","price":1}}
{"id":"bicycle","title":"Bicycle","text":"two wheels, pedals and a chain","metadata":{"kind":"vehicle","price":400}}
{"id":"g++","title":"C++ compiler","text":"turns programs into machine code","metadata":{"kind":"software","price":0}}
ITEMS
}

# teach NAME: a collection with items and pairs enough for a round.
teach() {
    fresh "$1"
    awk -v items="$tmp/items" -v pairs="$tmp/pairs" 'BEGIN {
        srand(7)
        n = split("oak birch maple pine cedar willow elm ash beech fir larch alder hazel rowan yew spruce", tree, " ")
        m = split("house bridge boat table fence barn chair mill tower gate wheel drum loom plough cart ladder", thing, " ")
        for (i = 1; i <= 800; i++) {
            t = tree[1 + int(rand() * n)]; s = thing[1 + int(rand() * m)]
            printf "{\"id\":\"d%d\",\"text\":\"plan %d: a %s made of %s wood, drawing number %d\"}\n", i, i, s, t, i * 37 % 1009 > items
            printf "{\"anchor\":{\"text\":\"who has number %d, the %s %s?\"},\"positive\":{\"id\":\"d%d\"},\"group\":\"g%d\"}\n", i * 37 % 1009, t, s, i, i > pairs
        }
    }'
    expect 200 "$C/items?outcomes=errors" -H "$NDJSON" --data-binary "@$tmp/items"
    must '"errors":false'
    expect 200 "$C/pairs?outcomes=errors" -H "$NDJSON" --data-binary "@$tmp/pairs"
    must '"errors":false'
}

# finished URL: wait for a job, its last state in $state.
finished() {
    state=running
    tries=0
    while [ "$state" = running ] || [ "$state" = queued ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || { echo "$0: the job does not end" >&2; exit 1; }
        sleep 0.2
        ask -o "$body" "$1"
        state=$(field state)
    done
    head -c 600 "$body"
    echo
}

# trained NAME: taught, and one round promoted, whatever the judge says.
trained() {
    teach "$1"
    expect 202 "$A/train" -H "$JSON" -d '{"force":true}'
    finished "$U$(header | sed "s|^$U||")"
    [ "$state" = promoted ] || { echo "$0: the round ended as $state" >&2; exit 1; }
}
