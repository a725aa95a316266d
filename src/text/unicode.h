/*
 * unicode.h - UTF-8, and the classes of characters that published tokenizers
 * know. Categories and mappings are those of libutf8proc's Unicode version.
 */
#ifndef TEXT_UNICODE_H
#define TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "text/scratch.h"

#define UNICODE_REPLACEMENT 0xFFFDU

/* Bytes of the character that begins with this byte, in valid UTF-8. */
static inline size_t
utf8_len(unsigned char lead)
{
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/* The character at s, which is valid UTF-8; *n is set to its bytes. */
uint32_t utf8_get(const char *s, size_t *n);

/* Write a character, at most 4 bytes; returns how many. */
size_t utf8_put(char *out, uint32_t c);

/* Append a character. */
void utf8_add(struct scratch *out, uint32_t c);

/* How many bytes at the beginning of s are plain ASCII, or valid UTF-8 (whole
   characters, no surrogates, nothing past U+10FFFF). */
size_t utf8_ascii_prefix(const char *s, size_t len);
size_t utf8_valid_prefix(const char *s, size_t len);

/* Append s with U+FFFD for every maximal part of a broken sequence (Unicode
   15, section 3.9, "substitution of maximal subparts"). */
void utf8_repair(struct scratch *out, const char *s, size_t len);

/* White_Space. */
bool unicode_is_space(uint32_t c);

/* What a BERT tokenizer isolates: ASCII symbols and the categories P*. */
bool unicode_is_punctuation(uint32_t c);

/* The blocks of ideographs that BERT sets spaces around. */
bool unicode_is_ideograph(uint32_t c);

/* Categories Cc, Cf and Co but for tab, line feed and carriage return. */
bool unicode_is_control(uint32_t c);

/* Category Mn; any of Mn, Mc, Me. */
bool unicode_is_nonspacing_mark(uint32_t c);
bool unicode_is_mark(uint32_t c);

/* A letter, mark, digit or connector: \w of Unicode's regular expressions. */
bool unicode_is_word(uint32_t c);

/* The small letter of c at out: one character, but two for U+0130. Returns
   how many. */
size_t unicode_lower(uint32_t out[2], uint32_t c);

#endif
