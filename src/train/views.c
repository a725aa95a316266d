#include "train/views.h"

#include <stdbool.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"

#define ANCHOR_WORDS_MIN 4
#define ANCHOR_WORDS_MAX 16
#define KEY_SHARE_MIN 0.5
#define TITLE_SHARE 0.5 /* of the texts that have a first line of their own */

static bool
is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static size_t
count_words(const char *text, size_t len)
{
    size_t n = 0;
    bool inside = false;
    for (size_t i = 0; i < len; i++) {
        bool space = is_space(text[i]);
        n += !space && !inside;
        inside = !space;
    }
    return n;
}

/* The n words from word first on. */
static struct view
cut_words(const char *text, size_t len, size_t first, size_t n)
{
    size_t i = 0, word = 0, start = len;
    while (i < len) {
        while (i < len && is_space(text[i]))
            i++;
        if (i == len)
            break;
        if (word == first)
            start = i;
        while (i < len && !is_space(text[i]))
            i++;
        word++;
        if (word == first + n)
            break;
    }
    return (struct view){.text = text + start, .len = i - MIN(start, i)};
}

static struct view
random_span(const char *text, size_t len, size_t n_words, size_t min,
    size_t max, struct rng *rng)
{
    min = MIN(min, n_words);
    max = MIN(MAX(max, min), n_words);
    size_t n = min + (size_t)rng_below(rng, max - min + 1);
    size_t first = (size_t)rng_below(rng, n_words - n + 1);
    return cut_words(text, len, first, n);
}

void
views_text(const char *text, size_t len, struct rng *rng, struct view *anchor,
    struct view *key)
{
    const char *line = memchr(text, '\n', len);
    size_t n_words = count_words(text, len);

    if (line != NULL) {
        size_t title = (size_t)(line - text);
        if (count_words(text, title) > 0 &&
            count_words(line, len - title) > 0 &&
            rng_float(rng) < (float)TITLE_SHARE) {
            *anchor = (struct view){.text = text, .len = title};
            *key = (struct view){.text = line + 1, .len = len - title - 1};
            return;
        }
    }
    if (n_words < 2) {
        *anchor = *key = (struct view){.text = text, .len = len};
        return;
    }
    *anchor = random_span(
        text, len, n_words, ANCHOR_WORDS_MIN, ANCHOR_WORDS_MAX, rng);
    *key = random_span(text, len, n_words,
        (size_t)((double)n_words * KEY_SHARE_MIN), n_words, rng);
}

/* Every word gains one character at most, of four bytes. */
size_t
views_noise_bytes(size_t len)
{
    return 2 * len + 4;
}

/* Bytes of the character at the front. */
static size_t
char_bytes(const char *s, size_t len)
{
    size_t n = 1;
    while (n < len && n < 4 && ((unsigned char)s[n] & 0xC0) == 0x80)
        n++;
    return n;
}

/* Where the character number i of a word starts. */
static size_t
char_at(const char *word, size_t len, size_t i)
{
    size_t at = 0;
    for (; i > 0; i--)
        at += char_bytes(word + at, len - at);
    return at;
}

/* A word of n_chars characters, at least 3, with one error. */
static size_t
misspell(
    char *out, const char *word, size_t len, size_t n_chars, struct rng *rng)
{
    enum { EXCHANGE, LEAVE_OUT, DOUBLE, REPLACE, ERRORS };
    int error = (int)rng_below(rng, ERRORS);
    size_t i =
        (size_t)rng_below(rng, error == EXCHANGE ? n_chars - 1 : n_chars);
    size_t other = (size_t)rng_below(rng, n_chars);
    size_t a = char_at(word, len, i);
    size_t a_len = char_bytes(word + a, len - a);
    size_t b = a + a_len;
    size_t c = char_at(word, len, other);
    char *to = out;

    memcpy(to, word, a);
    to += a;
    if (error == EXCHANGE) {
        size_t b_len = char_bytes(word + b, len - b);
        memcpy(to, word + b, b_len);
        memcpy(to + b_len, word + a, a_len);
        to += a_len + b_len;
        b += b_len;
    } else if (error == DOUBLE) {
        memcpy(to, word + a, a_len);
        memcpy(to + a_len, word + a, a_len);
        to += 2 * a_len;
    } else if (error == REPLACE) {
        size_t c_len = char_bytes(word + c, len - c);
        memcpy(to, word + c, c_len);
        to += c_len;
    }
    memcpy(to, word + b, len - b);
    return (size_t)(to - out) + len - b;
}

size_t
views_noise(
    char *out, const char *text, size_t len, float share, struct rng *rng)
{
    char *to = out;
    size_t i = 0;

    while (i < len) {
        size_t start = i, n_chars = 0;
        while (i < len && is_space(text[i]))
            i++;
        memcpy(to, text + start, i - start);
        to += i - start;
        start = i;
        while (i < len && !is_space(text[i])) {
            i += char_bytes(text + i, len - i);
            n_chars++;
        }
        if (n_chars >= 3 && rng_float(rng) < share) {
            to += misspell(to, text + start, i - start, n_chars, rng);
        } else {
            memcpy(to, text + start, i - start);
            to += i - start;
        }
    }
    return (size_t)(to - out);
}

void
views_judge(const char *text, size_t len, struct view *anchor)
{
    struct rng rng;
    size_t n_words = count_words(text, len);
    if (n_words < 2) {
        *anchor = (struct view){.text = text, .len = len};
        return;
    }
    rng_seed(&rng, hash_bytes(text, len, 0x76696577));
    *anchor = random_span(
        text, len, n_words, ANCHOR_WORDS_MIN, ANCHOR_WORDS_MAX, &rng);
}
