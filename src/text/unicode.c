#include "text/unicode.h"

#include <utf8proc.h>

uint32_t
utf8_get(const char *s, size_t *n)
{
    const unsigned char *u = (const unsigned char *)s;
    *n = utf8_len(u[0]);
    switch (*n) {
    case 1:
        return u[0];
    case 2:
        return (u[0] & 0x1FU) << 6 | (u[1] & 0x3FU);
    case 3:
        return (u[0] & 0x0FU) << 12 | (u[1] & 0x3FU) << 6 | (u[2] & 0x3FU);
    default:
        return (u[0] & 0x07U) << 18 | (u[1] & 0x3FU) << 12 |
               (u[2] & 0x3FU) << 6 | (u[3] & 0x3FU);
    }
}

size_t
utf8_put(char *out, uint32_t c)
{
    return (size_t)utf8proc_encode_char(
        (utf8proc_int32_t)c, (utf8proc_uint8_t *)out);
}

void
utf8_add(struct scratch *out, uint32_t c)
{
    if (scratch_room(out, 4))
        out->len += utf8_put(out->data + out->len, c);
}

size_t
utf8_ascii_prefix(const char *s, size_t len)
{
    size_t i = 0;
    for (; i + 8 <= len; i += 8) {
        uint64_t eight;
        memcpy(&eight, s + i, 8);
        if ((eight & 0x8080808080808080U) != 0)
            break;
    }
    while (i < len && (unsigned char)s[i] < 0x80)
        i++;
    return i;
}

/* The first bytes of a sequence at s, len > 0, that a valid character could
   begin with: its whole length with *valid, or the maximal subpart. */
static size_t
sequence_len(const unsigned char *s, size_t len, bool *valid)
{
    unsigned char low = 0x80, high = 0xBF;
    *valid = false;
    if (s[0] < 0x80) {
        *valid = true;
        return 1;
    }
    if (s[0] < 0xC2 || s[0] > 0xF4)
        return 1;
    size_t want = utf8_len(s[0]);
    if (s[0] == 0xE0)
        low = 0xA0;
    else if (s[0] == 0xED)
        high = 0x9F;
    else if (s[0] == 0xF0)
        low = 0x90;
    else if (s[0] == 0xF4)
        high = 0x8F;
    for (size_t i = 1; i < want; i++) {
        if (i == len || s[i] < low || s[i] > high)
            return i;
        low = 0x80;
        high = 0xBF;
    }
    *valid = true;
    return want;
}

size_t
utf8_valid_prefix(const char *s, size_t len)
{
    size_t i = 0;
    while (i < len) {
        bool valid;
        i += utf8_ascii_prefix(s + i, len - i);
        if (i == len)
            break;
        size_t n = sequence_len((const unsigned char *)s + i, len - i, &valid);
        if (!valid)
            break;
        i += n;
    }
    return i;
}

void
utf8_repair(struct scratch *out, const char *s, size_t len)
{
    while (len > 0) {
        size_t n = utf8_valid_prefix(s, len);
        scratch_add(out, s, n);
        s += n;
        len -= n;
        if (len > 0) {
            bool valid;
            n = sequence_len((const unsigned char *)s, len, &valid);
            utf8_add(out, UNICODE_REPLACEMENT);
            s += n;
            len -= n;
        }
    }
}

bool
unicode_is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || c == ' ' || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static utf8proc_category_t
category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

static bool
is_between(uint32_t c, uint32_t first, uint32_t last)
{
    return c >= first && c <= last;
}

bool
unicode_is_punctuation(uint32_t c)
{
    if (c < 0x80)
        return is_between(c, '!', '/') || is_between(c, ':', '@') ||
               is_between(c, '[', '`') || is_between(c, '{', '~');
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

bool
unicode_is_ideograph(uint32_t c)
{
    return is_between(c, 0x4E00, 0x9FFF) || is_between(c, 0x3400, 0x4DBF) ||
           is_between(c, 0x20000, 0x2A6DF) || is_between(c, 0x2A700, 0x2B73F) ||
           is_between(c, 0x2B740, 0x2B81F) || is_between(c, 0x2B920, 0x2CEAF) ||
           is_between(c, 0xF900, 0xFAFF) || is_between(c, 0x2F800, 0x2FA1F);
}

bool
unicode_is_control(uint32_t c)
{
    if (c == '\t' || c == '\n' || c == '\r')
        return false;
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF ||
           k == UTF8PROC_CATEGORY_CO;
}

bool
unicode_is_nonspacing_mark(uint32_t c)
{
    return category(c) == UTF8PROC_CATEGORY_MN;
}

bool
unicode_is_mark(uint32_t c)
{
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME;
}

bool
unicode_is_word(uint32_t c)
{
    utf8proc_category_t k = category(c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) ||
           k == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D ||
           is_between(c, 0x24B6, 0x24E9) || is_between(c, 0x1F130, 0x1F149) ||
           is_between(c, 0x1F150, 0x1F169) || is_between(c, 0x1F170, 0x1F189);
}

size_t
unicode_lower(uint32_t out[2], uint32_t c)
{
    /* The only character whose small form is two, whatever the language
       (SpecialCasing.txt). */
    if (c == 0x130) {
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    return 1;
}
