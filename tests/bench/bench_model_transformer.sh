#!/bin/sh
# bench_model_transformer.sh - a transformer of MiniLM's shape here and in
# PyTorch (Debian: python3-torch), in turn, so that the machine's moods hit
# both: encoding sequences of one length, encoding real texts, training.
#
#   KINDRED_BUILD=build/release sh tests/bench/bench_model_transformer.sh [TURNS]
#
# TURNS (3) is how often they take turns. By the environment: PARTS ("encode
# train", and "mix" when MIX is given) and THREADS ("1 2") say which, MIX=FILE
# the lengths of real texts (make_lengths), BENCH_SECONDS (1) how long a figure
# takes at least (but for real texts: one pass), PEER_PYTHON (/usr/bin/python3)
# who runs PyTorch.
#
# The table has the medians over the turns, of one thread by the processor time
# (the figures to trust on a machine that does other work too), of more by the
# clock; ratios are to PyTorch in f32, for real texts to those it sorts first.
set -eu

cd "$(dirname "$0")/../.."
: "${KINDRED_BUILD:=build/release}" "${PEER_PYTHON:=/usr/bin/python3}"
: "${MIX:=}" "${PARTS:=encode train${MIX:+ mix}}" "${THREADS:=1 2}"
: "${BENCH_SECONDS:=1}"
bench=$KINDRED_BUILD/tests/bench
for program in bench_model_transformer bench_train_transformer; do
    [ -x "$bench/$program" ] || make "B=$KINDRED_BUILD" "$bench/$program"
done
if ! "$PEER_PYTHON" -c 'import torch' 2>/dev/null; then
    echo "SKIPPED: $PEER_PYTHON has no torch (Debian: python3-torch)"
    exit 0
fi
one=$(mktemp)
kept=$(mktemp)
trap 'rm -f "$one" "$kept"' EXIT

keep() { # WHAT PROGRAM ...: shows its lines, keeps them after 'WHAT THREADS'
    what=$1
    shift
    "$@" >"$one"
    grep -v '^kernels' "$one"
    sed "s|^|$what $threads |" "$one" >>"$kept"
}

peer() { # WHAT KEY=VALUE ...
    what=$1
    shift
    keep "$what" "$PEER_PYTHON" tests/bench/bench_model_transformer.py \
        "threads=$threads" "seconds=$BENCH_SECONDS" "$@"
}

encode() {
    for length in 16 32 128; do
        keep "encode/$length" "$bench/bench_model_transformer" train=0 \
            "seconds=$BENCH_SECONDS" "threads=$threads" "length=$length"
        peer "encode/$length" "length=$length"
    done
}

train() { # 4,096 tokens a step
    for length in 32 128; do
        pairs=$((2048 / length))
        keep "train/$length" "$bench/bench_train_transformer" steps=3 \
            "pairs=$pairs" "threads=$threads" "length=$length"
        peer "train/$length" "train=$pairs" "length=$length"
    done
}

mix() {
    keep mix "$bench/bench_model_transformer" "threads=$threads" "mix=$MIX"
    peer mix "mix=$MIX"
}

for turn in $(seq "${1:-3}"); do
    echo "turn $turn"
    for threads in $THREADS; do
        for part in $PARTS; do
            "$part"
        done
    done
done
awk '
    # The figure of a line, and whose it is: the words f32, sorted and so on
    # before it. The latency of one sequence is a figure of its own.
    {
        who = $3 == "PyTorch" ? "PyTorch" : "kindred"
        ways = figure = one = ""
        for (i = 3; i <= NF; i++) {
            word = $i
            sub(/:$/, "", word)
            if (figure == "" && word ~ /^(f32|bf16|int8|sorted|unsorted)$/)
                ways = ways " " word
            if ($i ~ /^(sentences|texts|pairs)\/s/) figure = $(i - 1)
            if ($i == "processor" && $2 == 1) figure = $(i - 2)
            if ($i == "one") one = 1000 / $(i + 1)
        }
        who = who (ways == "" ? " f32" : ways)
        if (figure != "") add($1, $2, who, figure)
        if (one != "") {
            sub(/encode/, "one", $1)
            add($1, $2, who, one)
        }
    }
    function add(what, threads, who, x,    key) {
        key = what SUBSEP threads SUBSEP who
        if (!(key in n)) keys[++n_keys] = key
        v[key, ++n[key]] = x + 0
    }
    function median(key,    k, i, j, t, m) {
        k = n[key]
        for (i = 1; i <= k; i++) {
            m[i] = v[key, i]
            for (j = i; j > 1 && m[j] < m[j - 1]; j--) {
                t = m[j]; m[j] = m[j - 1]; m[j - 1] = t
            }
        }
        return k % 2 ? m[(k + 1) / 2] : (m[k / 2] + m[k / 2 + 1]) / 2
    }
    END {
        printf "%-11s %-7s %-21s %9s %9s\n", "what", "threads", "who",
            "a second", "ratio"
        for (i = 1; i <= n_keys; i++) {
            split(keys[i], part, SUBSEP)
            base = part[1] SUBSEP part[2] SUBSEP "PyTorch f32" \
                (part[1] == "mix" ? " sorted" : "")
            printf "%-11s %-7s %-21s %9.1f %9.2f\n", part[1], part[2],
                part[3], median(keys[i]), median(keys[i]) / median(base)
        }
    }' "$kept"
