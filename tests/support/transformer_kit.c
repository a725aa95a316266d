#include "tests/support/transformer_kit.h"

#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "model/transformer_encoder.h"

static const char *const pieces[TRANSFORMER_KIT_PIECES] = {"[PAD]", "[UNK]",
    "[CLS]", "[SEP]", "[MASK]", "##s", "##ing", "##ed", "##er", ":", ".", ",",
    "query", "passage", "red", "green", "blue", "cat", "dog", "bird", "fish",
    "run", "walk", "jump", "eat", "sleep", "the", "a", "of", "on", "under",
    "house", "tree", "river", "stone", "old", "new", "big", "small", "warm",
    "cold", "and", "not", "with"};

#define FIRST_WORD 12

const char *
transformer_kit_tokenizer(size_t *len)
{
    static const char head[] =
        "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
        "\"added_tokens\":["
        "{\"id\":2,\"content\":\"[CLS]\",\"special\":true},"
        "{\"id\":3,\"content\":\"[SEP]\",\"special\":true}],"
        "\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,"
        "\"handle_chinese_chars\":true,\"strip_accents\":null,"
        "\"lowercase\":true},"
        "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
        "\"post_processor\":{\"type\":\"BertProcessing\","
        "\"sep\":[\"[SEP]\",3],\"cls\":[\"[CLS]\",2]},\"decoder\":null,"
        "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\","
        "\"continuing_subword_prefix\":\"##\","
        "\"max_input_chars_per_word\":100,\"vocab\":{";
    static char made[4096];
    size_t at = (size_t)snprintf(made, sizeof made, "%s", head);

    for (size_t i = 0; i < ARRAY_LEN(pieces); i++)
        at += (size_t)snprintf(made + at, sizeof made - at, "%s\"%s\":%zu",
            i == 0 ? "" : ",", pieces[i], i);
    at += (size_t)snprintf(made + at, sizeof made - at, "}}}");
    ASSERT(at < sizeof made);
    *len = at;
    return made;
}

uint32_t
transformer_kit_id(const char *piece)
{
    uint32_t id = 0;
    while (strcmp(pieces[id], piece) != 0) {
        id++;
        ASSERT(id < ARRAY_LEN(pieces));
    }
    return id;
}

void
transformer_kit_fill(struct encoder *encoder, uint64_t seed)
{
    struct rng rng;
    size_t n;
    float *params = encoder_params(encoder, &n);

    rng_seed(&rng, seed);
    transformer_init(&transformer_of(encoder)->net, params, &rng);
    for (size_t i = 0; i < n; i++)
        params[i] = 4 * params[i] + 0.1f * (float)rng_normal(&rng) -
                    (params[i] > 0.5f ? 3.0f : 0.0f);
    encoder_seal(encoder);
}

enum err
transformer_kit_build(struct encoder **out, const char *config, uint64_t seed,
    struct fault *fault)
{
    size_t len;
    const char *tokenizer = transformer_kit_tokenizer(&len);
    enum err err =
        encoder_build(out, "transformer", config, tokenizer, len, fault);

    if (err == OK)
        transformer_kit_fill(*out, seed);
    return err;
}

size_t
transformer_kit_text(char *out, size_t size, size_t n_words, uint64_t seed)
{
    struct rng rng;
    size_t len = 0;

    rng_seed(&rng, seed);
    for (size_t i = 0; i < n_words; i++) {
        size_t word =
            FIRST_WORD + rng_below(&rng, ARRAY_LEN(pieces) - FIRST_WORD);
        len += (size_t)snprintf(
            out + len, size - len, "%s%s", i == 0 ? "" : " ", pieces[word]);
        ASSERT(len < size);
    }
    return len;
}
