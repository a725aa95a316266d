/*
 * hashed.h - a word's features as hashes: the word itself and its character
 * n-grams, with marks for its beginning and end (Bojanowski et al. 2017,
 * arXiv:1607.04606, sec. 3.2). "any" with 3-grams: any, <an, any, ny>.
 */
#ifndef TEXT_HASHED_H
#define TEXT_HASHED_H

#include <stddef.h>
#include <stdint.h>

#define HASHED_N_MIN 2
#define HASHED_N_MAX 6

/* The most features of one word of at most WORDS_MAX_BYTES bytes. */
#define HASHED_FEATURES_MAX (1 + 66 * (HASHED_N_MAX - HASHED_N_MIN + 1))

/* The hash that names a word. */
uint64_t hashed_word(const char *word, size_t len);

/*
 * hashed_features - the features of a word.
 *
 *   out           [HASHED_FEATURES_MAX]  out[0] is hashed_word
 *   word, len     normalised UTF-8, at most WORDS_MAX_BYTES
 *   n_min, n_max  lengths of n-grams in characters, marks counted;
 *                 n_min > n_max: the word alone
 *
 * An n-gram as long as the marked word is left out: the word says it.
 * Returns how many there are.
 */
size_t hashed_features(uint64_t *out, const char *word, size_t len,
    unsigned n_min, unsigned n_max);

#endif
