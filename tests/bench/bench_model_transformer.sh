#!/bin/sh
# bench_model_transformer.sh - encoding by a transformer of MiniLM's shape, and
# PyTorch's (Debian: python3-torch), in turn: for each number of threads and
# length, both one after the other. KINDRED_BUILD names the folder of programs.
#
# usage: bench_model_transformer.sh [TURNS]
set -eu

cd "$(dirname "$0")/../.."
build=${KINDRED_BUILD:-build/release}
for turn in $(seq "${1:-3}"); do
    echo "turn $turn"
    for threads in 1 2; do
        for length in 16 32 128; do
            "$build/tests/bench/bench_model_transformer" train=0 seconds=1 \
                threads="$threads" length="$length" | grep -v '^kernels'
            /usr/bin/python3 tests/bench/bench_model_transformer.py \
                threads="$threads" length="$length" seconds=1
        done
    done
done
