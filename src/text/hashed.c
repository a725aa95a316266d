#include "text/hashed.h"

#include "base/check.h"
#include "base/hash.h"
#include "text/words.h"

/* Seeds keep words and n-grams apart: "any" the word is not "any" the part. */
#define SEED_WORD 0x6b696e64
#define SEED_NGRAM 0x72656400

uint64_t
hashed_word(const char *word, size_t len)
{
    return hash_bytes(word, len, SEED_WORD);
}

size_t
hashed_features(
    uint64_t *out, const char *word, size_t len, unsigned n_min, unsigned n_max)
{
    char marked[WORDS_MAX_BYTES + 2];
    unsigned char start[WORDS_MAX_BYTES + 3]; /* where characters begin */
    size_t n_chars = 0;
    size_t n_out = 0;

    ASSERT(len <= WORDS_MAX_BYTES && n_min >= HASHED_N_MIN &&
           n_max <= HASHED_N_MAX);
    out[n_out++] = hashed_word(word, len);
    marked[0] = '<';
    for (size_t i = 0; i < len; i++)
        marked[i + 1] = word[i];
    marked[len + 1] = '>';
    for (size_t i = 0; i < len + 2; i++) {
        if (((unsigned char)marked[i] & 0xC0) != 0x80)
            start[n_chars++] = (unsigned char)i;
    }
    start[n_chars] = (unsigned char)(len + 2);
    for (size_t n = n_min; n <= n_max && n < n_chars; n++) {
        for (size_t i = 0; i + n <= n_chars; i++)
            out[n_out++] = hash_bytes(marked + start[i],
                (size_t)(start[i + n] - start[i]), SEED_NGRAM);
    }
    ASSERT(n_out <= HASHED_FEATURES_MAX);
    return n_out;
}
