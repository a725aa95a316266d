/*
 * fuzz_text_words - words_split and hashed_features on any bytes.
 *
 * Checked beside the absence of crashes: every word is valid UTF-8 of at most
 * WORDS_MAX_BYTES bytes without separators or capitals of ASCII; a word has at
 * most HASHED_FEATURES_MAX features; cutting the text at an ASCII space first
 * gives the same words in the same order.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "text/hashed.h"
#include "text/words.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                             \
    do {                                                                       \
        if (!(cond)) {                                                         \
            abort();                                                           \
        }                                                                      \
    } while (0)

static bool
is_utf8(const unsigned char *s, size_t len)
{
    size_t i = 0;
    while (i < len) {
        size_t n = s[i] < 0x80                   ? 1
                   : s[i] >= 0xC2 && s[i] < 0xE0 ? 2
                   : s[i] >= 0xE0 && s[i] < 0xF0 ? 3
                   : s[i] >= 0xF0 && s[i] < 0xF5 ? 4
                                                 : 0;
        if (n == 0 || i + n > len)
            return false;
        for (size_t j = 1; j < n; j++) {
            if ((s[i + j] & 0xC0) != 0x80)
                return false;
        }
        if ((s[i] == 0xE0 && s[i + 1] < 0xA0) ||
            (s[i] == 0xED && s[i + 1] > 0x9F) ||
            (s[i] == 0xF0 && s[i + 1] < 0x90) ||
            (s[i] == 0xF4 && s[i + 1] > 0x8F))
            return false;
        i += n;
    }
    return true;
}

static void
take_word(void *arg, const char *word, size_t len, int spaceless)
{
    uint64_t features[HASHED_FEATURES_MAX];
    uint64_t *chain = arg;

    MUST(len > 0 && len <= WORDS_MAX_BYTES);
    MUST(is_utf8((const unsigned char *)word, len));
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)word[i];
        MUST(c > ' ' && c != 0x7F && !(c >= 'A' && c <= 'Z'));
    }
    size_t n = hashed_features(features, word, len, HASHED_N_MIN, HASHED_N_MAX);
    MUST(n >= 1 && n <= HASHED_FEATURES_MAX);
    MUST(features[0] == hashed_word(word, len));
    *chain = hash_u64(*chain ^ features[0] ^ (uint64_t)spaceless);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = size == 0 ? "" : (const char *)data;
    uint64_t whole = 0, pieces = 0;
    size_t start = 0;

    if (words_split(text, size, take_word, &whole) != OK)
        return 0;
    for (size_t i = 0; i <= size; i++) {
        if (i < size && text[i] != ' ')
            continue;
        if (words_split(text + start, i - start, take_word, &pieces) != OK)
            return 0;
        start = i + 1;
    }
    MUST(whole == pieces);
    return 0;
}
