#!/bin/sh
# run.sh - every benchmark that README.md quotes, in the order of its table.
# Figures depend on the machine and on what else it does: compare ratios.
set -eu

: "${KINDRED_BUILD:=build/release}"
data=${KINDRED_DATA:-../shared/data}
bench=$KINDRED_BUILD/tests/bench
for name in $(env | sed -n 's/^\(OPENBLAS_[A-Z_]*\)=.*/\1/p'); do
    unset "$name"
done
title() { printf '\n== %s\n' "$*"; }

title "exact search in the process, one core"
"$bench/bench_scan"
title "the store"
"$bench/bench_store"
title "HTTP, client on the same processors"
KINDRED_BUILD=$KINDRED_BUILD sh tests/bench/bench_http.sh
title "pictures: decoding, resizing, views; the encoder's step"
"$bench/bench_image"
"$bench/bench_model_vision"
title "texts: tokenizers, the transformer's passes"
"$bench/bench_text_tokenizer"
"$bench/bench_model_transformer"
title "photographs as a service"
KINDRED_BUILD=$KINDRED_BUILD sh tests/bench/bench_photos.sh
title "learning from pictures: Fashion-MNIST, BENCH_TRAIN_SECONDS"
if KINDRED_BUILD=$KINDRED_BUILD sh tests/bench/data_images.sh \
    build/pictures fashion; then
    "$bench/bench_train_images" build/pictures/fashion-train.pictures \
        build/pictures/fashion-test.pictures \
        "seconds=${BENCH_TRAIN_SECONDS:-60}" flip=0 crop_min=0.7 tau=0.07
    title "memory of one step, by batch (GradCache)"
    for batch in 256 1024 4096; do
        "$bench/bench_train_images" build/pictures/fashion-train.pictures \
            build/pictures/fashion-test.pictures baselines=0 probe=0 \
            progress=0 train_max=6000 test_max=200 max_steps=1 micro=256 \
            "batch=$batch" | sed -n "s/^trained: /batch $batch: /p"
    done
else
    echo "SKIPPED: the package dataset-fashion-mnist cannot be had"
fi
if [ ! -d "$data" ]; then
    echo "SKIPPED: no $data (KINDRED_DATA names it): learning and real texts"
    exit 0
fi
title "untrained encoder"
for set in cranfield med; do
    "$bench/bench_model_untrained" "$data/$set"
done
packages=$(mktemp)
trap 'rm -f "$packages"' EXIT
zstd -qdc "$data/debian_packages/packages.tsv.zst" >"$packages"
title "learning, encoding and training speed: Debian pairs"
"$bench/bench_train_texts" pairs "$packages"
title "learning: intents"
"$bench/bench_train_texts" intents "$data/banking77/train.tsv" \
    "$data/banking77/test.tsv" batch=512 epochs=2
title "the whole loop over HTTP"
KINDRED_BUILD=$KINDRED_BUILD sh tests/bench/bench_loop.sh "$packages"
