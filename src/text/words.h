/*
 * words.h - text to normalised words.
 *
 * A text is cut at ASCII space and control characters; pieces in plain ASCII
 * take a short way (letters and digits, lower case), others are normalised by
 * utf8proc: NFKC with case folding and without default-ignorable characters,
 * and without the combining marks U+0300..U+036F, so that "Ärger", "ÄRGER"
 * and "arger" are one word. A word is a run of letters, digits and marks. In
 * scripts that write no spaces (Han, Kana, Thai, Lao, Khmer, Myanmar) every
 * character is a word, and so is every pair of neighbours.
 *
 * Bytes that are not UTF-8 separate words. A word longer than WORDS_MAX_BYTES
 * is cut into pieces of that length.
 */
#ifndef TEXT_WORDS_H
#define TEXT_WORDS_H

#include <stddef.h>
#include "base/err.h"

#define WORDS_MAX_BYTES 64

/* spaceless: the word comes from a script without spaces, and has no inner
   structure worth n-grams. The bytes are valid for the call. */
typedef void words_fn(void *arg, const char *word, size_t len, int spaceless);

/*
 * words_split - call fn for every word of a text, in order.
 *
 * Errors: ERR_NOMEM (only texts beyond ASCII need memory). Cost: linear.
 */
enum err words_split(
    const char *text, size_t len, words_fn *fn, void *arg) NODISCARD;

#endif
