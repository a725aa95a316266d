#!/bin/sh
# peer_vision.sh - the training step of the vision encoder against PyTorch's,
# in turn, so that the machine's moods hit both: medians over the turns.
#
#   KINDRED_BUILD=build/release sh tests/bench/peer_vision.sh [KEY=VALUE ...]
#
# The keys are those of both programs: input channels width blocks stages
# stem_stride grid dims batch threads rounds steps. PEER_TURNS (5) changes how often
# they take turns, PEER_PYTHON (/usr/bin/python3) who runs PyTorch (Debian:
# python3-torch; nothing else of the project needs it). Each layout of
# PyTorch's tensors stands for itself; the ratio is to its faster one.
# "per processor second" counts the processors' time: it is the figure to trust
# on a machine that does other work too.
set -eu

cd "$(dirname "$0")/../.."
: "${KINDRED_BUILD:=build/release}" "${PEER_TURNS:=5}"
: "${PEER_PYTHON:=/usr/bin/python3}"
ours=$KINDRED_BUILD/tests/bench/bench_model_vision
[ -x "$ours" ] || make "B=$KINDRED_BUILD" "$ours"
if ! "$PEER_PYTHON" -c 'import torch' 2>/dev/null; then
    echo "SKIPPED: $PEER_PYTHON has no torch (Debian: python3-torch)"
    exit 0
fi
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# Lines 'WHO WALL CPU': views/s and views per processor second of one turn.
turn=1
while [ "$turn" -le "$PEER_TURNS" ]; do
    "$ours" "$@" | awk '
        /^train .*views\/s/ { wall = $2 }
        /views per processor second/ { cpu = $1 }
        END { print "kindred", wall, cpu }' >>"$out"
    for layout in channels_first channels_last; do
        "$PEER_PYTHON" tests/bench/peer_vision.py "layout=$layout" "$@" |
            awk -v who="$layout" '{
                for (i = 1; i <= NF; i++) {
                    if ($i == "train") wall = $(i + 1)
                    if ($i == "processor") cpu = $(i - 2)
                }
                print who, wall, cpu
            }' >>"$out"
    done
    tail -3 "$out" | awk -v turn="$turn" '{
        printf "%s%s %s views/s (%s per processor second)",
            NR == 1 ? "turn " turn ": " : ", ", $1, $2, $3
    } END { print "" }'
    turn=$((turn + 1))
done
awk '
    { n[$1]++; wall[$1, n[$1]] = $2 + 0; cpu[$1, n[$1]] = $3 + 0 }
    function median(v, who, k,    i, j, t, m) {
        for (i = 1; i <= k; i++) {
            m[i] = v[who, i]
            for (j = i; j > 1 && m[j] < m[j - 1]; j--) {
                t = m[j]; m[j] = m[j - 1]; m[j - 1] = t
            }
        }
        return k % 2 ? m[(k + 1) / 2] : (m[k / 2] + m[k / 2 + 1]) / 2
    }
    function larger(x, y) { return x > y ? x : y }
    END {
        for (who in n) {
            w[who] = median(wall, who, n[who])
            c[who] = median(cpu, who, n[who])
            printf "median %-15s %6.0f views/s, %6.0f per processor second\n",
                who, w[who], c[who]
        }
        a = larger(w["channels_first"], w["channels_last"])
        b = larger(c["channels_first"], c["channels_last"])
        if (a > 0 && b > 0)
            printf "ratio to PyTorch: %.2f in views/s, %.2f per processor" \
                " second\n", w["kindred"] / a, c["kindred"] / b
    }' "$out"
