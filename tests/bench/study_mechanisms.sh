#!/bin/sh
# study_mechanisms.sh - does a queue of earlier keys help where the batch is
# small? Accuracy against batch size of every mechanism, each with the same
# number of encoded inputs, as a table and as a plot.
#
#   sh tests/bench/study_mechanisms.sh [short | full] [images] [text]
#
# images: Fashion-MNIST without labels, weighted kNN on the test pictures.
# text: Debian's packages, nDCG@10 of their summaries against all descriptions
# ($KINDRED_DATA/debian_packages/packages.tsv.zst; left out, with a message,
# where it is absent). Both by default; short is a look in minutes, full takes
# hours. Everything goes to $OUT (build/study): mechanisms-images.md, .svg,
# mechanisms-text.md, .svg, the runs' lines in runs-*.tsv and their whole
# output in runs/. A run that is in the table is not made again.
#
# Environment:
#   BATCHES="32 64 128 512"  MECHANISMS="in_batch momentum_queue memory_bank"
#   SEEDS="1"       the figure is the mean, its bar from the least to the most
#   RATES="1"       factors of the learning rate; the best mean counts
#   IMAGES          inputs that a run encodes, keys included (text: EPOCHS)
#   ARGS, TEXT_ARGS settings of every run (KEY=VALUE ...), ARGS_momentum_queue
#                   and so on of one mechanism
#
# The learning rate is that of the defaults at their batch, times the root of
# the ratio of batches (as is usual for Adam), the same for all mechanisms; LR
# at LR_BATCH and TEXT_LR at TEXT_LR_BATCH set others.
set -eu

cd "$(dirname "$0")/../.."
: "${KINDRED_BUILD:=build/release}" "${OUT:=build/study}"
: "${MECHANISMS:=in_batch momentum_queue memory_bank}" "${SEEDS:=1}"
: "${RATES:=1}" "${ARGS:=}" "${TEXT_ARGS:=}"
data=${KINDRED_DATA:-../shared/data}
size=full what=
for word in "$@"; do
    case $word in
    short | full) size=$word ;;
    images | text) what="$what $word" ;;
    *)
        sed -n '2,30s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
    esac
done
[ -n "$what" ] || what="images text"
if [ "$size" = short ]; then
    : "${BATCHES:=32 512}" "${IMAGES:=60000}" "${EPOCHS:=0.5}"
    more="train_max=20000 test_max=2000"
    OUT=$OUT-short
else
    : "${BATCHES:=32 64 128 512}" "${IMAGES:=600000}" "${EPOCHS:=2}"
    more=
fi
bench=$KINDRED_BUILD/tests/bench
for program in bench_train_images bench_train_texts make_base_plot; do
    [ -x "$bench/$program" ] || make "B=$KINDRED_BUILD" "$bench/$program"
done
mkdir -p "$OUT/runs"
settings="$more; $ARGS; $TEXT_ARGS; ${ARGS_in_batch:-};"
settings="$settings ${ARGS_momentum_queue:-}; ${ARGS_memory_bank:-};"
settings="$settings ${LR:-} ${LR_BATCH:-}"
settings="$settings ${TEXT_LR:-} ${TEXT_LR_BATCH:-}"
if [ ! -f "$OUT/settings" ]; then
    echo "$settings" >"$OUT/settings"
elif [ "$settings" != "$(cat "$OUT/settings")" ]; then
    echo "the runs in $OUT had other settings; name another folder with OUT" >&2
    exit 1
fi

settings_of() { # MECHANISM: the settings of this mechanism alone
    case $1 in
    in_batch) echo "${ARGS_in_batch:-}" ;;
    momentum_queue) echo "${ARGS_momentum_queue:-}" ;;
    memory_bank) echo "${ARGS_memory_bank:-}" ;;
    esac
}

rate_of() { # LR BATCH-OF-LR BATCH FACTOR
    awk -v lr="$1" -v at="$2" -v batch="$3" -v factor="$4" \
        'BEGIN { printf "%.6g", lr * factor * sqrt(batch / at) }'
}

# One run: appends 'MECHANISM BATCH RATE SEED FIGURE SECONDS' to $table.
run_images() { # MECHANISM BATCH RATE SEED LOG
    # shellcheck disable=SC2046,SC2086 # lists of words
    "$bench/bench_train_images" build/pictures/fashion-train.pictures \
        build/pictures/fashion-test.pictures baselines=0 $more $ARGS \
        "mechanism=$1" "batch=$2" "seed=$4" "images=$IMAGES" \
        "lr=$(rate_of "${LR:-0.002}" "${LR_BATCH:-256}" "$2" "$3")" \
        $(settings_of "$1") >"$5" 2>&1 || return 1
    sed -n 's/^RESULT.* seconds=\([^ ]*\).* knn=\([^ ]*\).*/\2\t\1/p' "$5"
}

run_text() {
    # shellcheck disable=SC2046,SC2086 # lists of words
    "$bench/bench_train_texts" pairs "$packages" $TEXT_ARGS "mechanism=$1" \
        "batch=$2" "seed=$4" "epochs=$EPOCHS" \
        "lr=$(rate_of "${TEXT_LR:-0.03}" "${TEXT_LR_BATCH:-1024}" "$2" "$3")" \
        $(settings_of "$1") >"$5" 2>&1 || return 1
    awk '/^trained: / { sub(/ s, .*/, ""); s = $NF }
        /^trained  *nDCG@10/ { print $3 "\t" s }' "$5"
}

study() { # images|text
    table=$OUT/runs-$1.tsv
    touch "$table"
    for mechanism in $MECHANISMS; do
        for batch in $BATCHES; do
            for rate in $RATES; do
                for seed in $SEEDS; do
                    one_run "$@"
                done
            done
        done
    done
    report "$1"
}

one_run() {
    case $1 in images) amount=$IMAGES ;; *) amount=$EPOCHS ;; esac
    key=$(printf '%s\t%s\t%s\t%s\t%s' "$mechanism" "$batch" "$rate" "$seed" \
        "$amount")
    ! grep -qF "$key	" "$table" || return 0
    log=$OUT/runs/$1-$mechanism-$batch-$rate-$seed.txt
    if figure=$("run_$1" "$mechanism" "$batch" "$rate" "$seed" "$log") &&
        [ -n "$figure" ]; then
        printf '%s\t%s\n' "$key" "$figure" >>"$table"
        echo "$mechanism batch $batch rate x$rate seed $seed: $figure s"
    else
        echo "FAILED: $mechanism batch $batch, see $log:"
        tail -3 "$log"
    fi
}

# The table in markdown and the plot, of what $table holds.
report() {
    case $1 in
    images)
        title="Fashion-MNIST without labels: accuracy against batch size"
        measure="kNN accuracy"
        amount=$IMAGES
        each="$IMAGES encoded images a run"
        ;;
    text)
        title="Debian packages: nDCG@10 against batch size"
        measure="nDCG@10"
        amount=$EPOCHS
        each="$EPOCHS epochs a run"
        ;;
    esac
    # The rate with the best mean of each mechanism and batch.
    awk -F'\t' -v amount="$amount" '
        $5 == amount {
            k = $1 FS $2 FS $3
            if (!(k in n) || $6 < low[k]) low[k] = $6
            if (!(k in n) || $6 > high[k]) high[k] = $6
            n[k]++
            sum[k] += $6
            seconds[k] += $7
        }
        END {
            for (k in n) {
                split(k, p, FS)
                c = p[1] FS p[2]
                if (!(c in best) || sum[k] / n[k] > sum[best[c]] / n[best[c]])
                    best[c] = k
            }
            for (c in best) {
                k = best[c]
                split(k, p, FS)
                printf "%s\t%s\t%.4f\t%.4f\t%.4f\t%s\t%d\t%.0f\n", p[1], p[2],
                    sum[k] / n[k], low[k], high[k], p[3], n[k],
                    seconds[k] / n[k]
            }
        }' "$table" | LC_ALL=C sort -t"$(printf '\t')" -k1,1 -k2,2n \
        >"$OUT/points.tsv"
    {
        printf '# %s\n\n%s, seeds %s.\n\n' "$title" "$each" "$SEEDS"
        awk -F'\t' -v order="$MECHANISMS" '
            {
                if (!seen[$2]++) batch[++n_batches] = $2 + 0
                mean[$1, $2] = $3
                bar[$1, $2] = $4 < $5 ? " (" $4 " to " $5 ")" : ""
                rate[$1, $2] = $6
                s[$1, $2] = $8
            }
            END {
                n = split(order, m, " ")
                printf "| batch |"
                for (i = 1; i <= n; i++) printf " %s | rate | s |", m[i]
                printf " queue less in-batch |\n|---|"
                for (i = 1; i <= n; i++) printf "---|---|---|"
                printf "---|\n"
                for (i = 1; i <= n_batches; i++) # few: sorted by insertion
                    for (j = i; j > 1 && batch[j] < batch[j - 1]; j--) {
                        t = batch[j]; batch[j] = batch[j - 1]; batch[j - 1] = t
                    }
                for (b = 1; b <= n_batches; b++) {
                    k = batch[b]
                    printf "| %d |", k
                    for (i = 1; i <= n; i++)
                        printf " %s%s | x%s | %s |", mean[m[i], k],
                            bar[m[i], k], rate[m[i], k], s[m[i], k]
                    if (("in_batch", k) in mean &&
                        ("momentum_queue", k) in mean)
                        printf " %+.4f |",
                            mean["momentum_queue", k] - mean["in_batch", k]
                    printf "\n"
                }
            }' "$OUT/points.tsv"
    } >"$OUT/mechanisms-$1.md"
    sed 's/^in_batch/in_batch (SimCLR)/; s/^momentum_queue/& (MoCo)/' \
        "$OUT/points.tsv" | cut -f1-5 |
        "$bench/make_base_plot" "$title" "examples in a batch" "$measure" \
            >"$OUT/mechanisms-$1.svg"
    rm -f "$OUT/points.tsv"
    cat "$OUT/mechanisms-$1.md"
    echo "plot: $OUT/mechanisms-$1.svg"
}

for part in $what; do
    case $part in
    images)
        KINDRED_BUILD=$KINDRED_BUILD sh tests/bench/data_images.sh \
            build/pictures fashion
        study images
        ;;
    text)
        if [ ! -f "$data/debian_packages/packages.tsv.zst" ]; then
            echo "SKIPPED text: no $data/debian_packages/packages.tsv.zst" \
                "(KINDRED_DATA names the folder)"
            continue
        fi
        packages=$(mktemp)
        trap 'rm -f "$packages"' EXIT
        zstd -qdc "$data/debian_packages/packages.tsv.zst" >"$packages"
        study text
        ;;
    esac
done
