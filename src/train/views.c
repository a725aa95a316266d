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
