/*
 * charsmap.h - SentencePiece's precompiled normalisation map.
 *
 * The bytes: the size of the double array in bytes (uint32, little-endian),
 * the array's units (uint32 each, as Darts-clone writes them), then the
 * replacements, each closed by a NUL. A unit: bits 0..7 and 31 are the label,
 * bit 8 says that a key ends here, bits 10..30 are the offset, shifted left by
 * 8 more when bit 9 is set; a unit with bit 31 is a value, an index into the
 * replacements.
 *
 * How it is applied follows the published fast tokenizers, not SentencePiece:
 * an extended grapheme cluster of less than six bytes is replaced as a whole
 * by what its *shortest* key in the map says; otherwise each of its characters
 * is looked up alone. So a base letter that has an entry swallows a mark
 * behind it that has none.
 *
 * Immutable once made; threads may share it.
 */
#ifndef TEXT_CHARSMAP_H
#define TEXT_CHARSMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "text/scratch.h"

struct charsmap {
    uint32_t *units;
    size_t n_units;
    char *strings; /* ends with a NUL */
    size_t n_strings;
    uint8_t plain[128]; /* 1: this character of ASCII stays as it is */
};

/*
 * charsmap_init - from the base64 text of a tokenizer file.
 *
 *   at  JSON pointer of the text, for the fault
 *
 * ERR_INVALID for bytes that are not such a map: a size that does not fit, a
 * unit whose children or value lie outside, replacements that are not UTF-8.
 */
enum err charsmap_init(struct charsmap *out, const char *base64, size_t len,
    const char *at, struct fault *fault) NODISCARD;
void charsmap_release(struct charsmap *map);

/* Append the mapped form of s, which is valid UTF-8. Linear. */
void charsmap_apply(
    const struct charsmap *map, struct scratch *out, const char *s, size_t len);

#endif
