/*
 * bag.h - a batch of texts as bags of words, words as bags of features.
 *
 * What the static encoder computes with: every text is a list of (word,
 * count, first position), every distinct word of the batch has its features
 * once. Texts of a batch share most of their words, so the expensive part, a
 * word's sum over its features, is done once a batch and not once a text.
 *
 * Owned by one thread. A bag is reused: bag_clear keeps its memory.
 */
#ifndef MODEL_BAG_H
#define MODEL_BAG_H

#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "base/rng.h"

struct bag_entry {
    uint32_t word;     /* index among the bag's words */
    uint32_t count;    /* how often the word occurs in the text */
    uint32_t position; /* of its first occurrence, in words */
};

struct bag {
    size_t n_texts;
    size_t cap_texts;
    uint32_t *text_start;      /* [n_texts + 1] into entries */
    uint32_t *text_words;      /* [n_texts] words used, with repetitions */
    uint32_t *text_words_full; /* [n_texts] words of the whole text */

    struct bag_entry *entries;
    size_t n_entries;
    size_t cap_entries;

    size_t n_words;
    size_t cap_words;
    uint64_t *word_hash;     /* [n_words] */
    uint32_t *feature_start; /* [n_words + 1] into features */
    uint32_t *last_entry;    /* [n_words] scratch of bag_add */

    uint64_t *features; /* hashes; a word's own hash first */
    size_t n_features;
    size_t cap_features;

    uint32_t *slots; /* open addressing: word index + 1, or 0 */
    size_t n_slots;  /* a power of two */
};

struct bag_options {
    unsigned n_min, n_max; /* n-gram lengths */
    uint32_t max_words;    /* a text is cut after so many */
    struct rng *rng;       /* with token_dropout; NULL: none */
    float token_dropout;   /* words left out, once a text */
};

void bag_init(struct bag *bag);
void bag_release(struct bag *bag);
void bag_clear(struct bag *bag);

/* Append one text. ERR_NOMEM leaves the bag fit only for clear or release. */
enum err bag_add(struct bag *bag, const char *text, size_t len,
    const struct bag_options *options) NODISCARD;

/* Append all texts of another bag. */
enum err bag_merge(struct bag *bag, const struct bag *from) NODISCARD;

#endif
