#!/bin/sh
# tiny_model.sh - the folder of a tiny published encoder, a BERT of one layer;
# every weight of it is the float whose four bytes are "<".
#
#   tiny_model.sh FOLDER
set -eu
dir=$1
tmp=$(mktemp -d "${TMPDIR:-/tmp}/kindred-tiny-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$dir"
printf '{"model_type":"bert","hidden_size":16,"num_hidden_layers":1,"num_attention_heads":1,"intermediate_size":32,"vocab_size":8,"max_position_embeddings":32,"type_vocab_size":2,"hidden_act":"gelu","layer_norm_eps":1e-12}' >"$dir/config.json"
printf '%s\n' '[PAD]' '[UNK]' '[CLS]' '[SEP]' '[MASK]' red fruit '##s' >"$dir/vocab.txt"
printf -- '---\nlicense: mit\nlanguage: en\n---\n# Tiny\n' >"$dir/README.md"
awk -v bytes="$tmp/bytes" 'function tensor(name, rows, columns) {
        n = rows * (columns ? columns : 1) * 4
        printf "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%d%s],\"data_offsets\":[%d,%d]}",
            at ? "," : "{", name, rows, columns ? "," columns : "", at, at + n
        at += n
    }
    function linear(name, out, from) {
        tensor(name ".weight", out, from)
        tensor(name ".bias", out)
    }
    BEGIN {
        tensor("embeddings.word_embeddings.weight", 8, 16)
        tensor("embeddings.position_embeddings.weight", 32, 16)
        tensor("embeddings.token_type_embeddings.weight", 2, 16)
        linear("embeddings.LayerNorm", 16)
        layer = "encoder.layer.0."
        linear(layer "attention.self.query", 16, 16)
        linear(layer "attention.self.key", 16, 16)
        linear(layer "attention.self.value", 16, 16)
        linear(layer "attention.output.dense", 16, 16)
        linear(layer "attention.output.LayerNorm", 16)
        linear(layer "intermediate.dense", 32, 16)
        linear(layer "output.dense", 16, 32)
        linear(layer "output.LayerNorm", 16)
        printf "}"
        print at >bytes
    }' >"$tmp/head"
n=$(wc -c <"$tmp/head")
# shellcheck disable=SC2059 # a format of escapes
printf "\\$(printf %o $((n % 256)))\\$(printf %o $((n / 256)))\\0\\0\\0\\0\\0\\0" >"$dir/model.safetensors"
{ cat "$tmp/head"; head -c "$(cat "$tmp/bytes")" /dev/zero | tr '\0' '<'; } >>"$dir/model.safetensors"
