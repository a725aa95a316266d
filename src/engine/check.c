#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/check.h"
#include "kern/kern.h"
#include "engine/internal.h"

/* Code point of a well-formed sequence (Unicode, table 3-7), and its length;
   0 when it is none. */
static size_t
decode(const unsigned char *s, size_t n, uint32_t *cp)
{
    unsigned char a = s[0];
    if (a < 0x80) {
        *cp = a;
        return 1;
    }
    size_t len = a >= 0xf0 ? 4 : a >= 0xe0 ? 3 : 2;
    if (a < 0xc2 || a > 0xf4 || n < len) {
        return 0;
    }
    uint32_t v = a & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
        v = v << 6 | (s[i] & 0x3f);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (v < least[len] || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff)) {
        return 0;
    }
    *cp = v;
    return len;
}

bool
check_utf8(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t i = 0;
    while (i < len) {
        uint64_t word;
        if (len - i >= 8) {
            memcpy(&word, s + i, 8);
            if (!(word & UINT64_C(0x8080808080808080))) {
                i += 8;
                continue;
            }
        }
        uint32_t cp;
        size_t n = decode(s + i, len - i, &cp);
        if (n == 0) {
            return false;
        }
        i += n;
    }
    return true;
}

enum err
check_item_id(const char *id, const char *pointer, struct fault *fault)
{
    size_t len = id ? strlen(id) : 0;
    if (len == 0 || len > ENGINE_ID_BYTES_MAX) {
        return fault_set(fault, ERR_INVALID, pointer,
            "an id has 1 to %d bytes, this one %zu", ENGINE_ID_BYTES_MAX, len);
    }
    const unsigned char *s = (const unsigned char *)id;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        size_t n = decode(s + i, len - i, &cp);
        if (n == 0) {
            return fault_set(
                fault, ERR_INVALID, pointer, "an id must be valid UTF-8");
        }
        if (cp < 0x20 || (cp >= 0x7f && cp < 0xa0)) {
            return fault_set(fault, ERR_INVALID, pointer,
                "an id must not hold control characters");
        }
        i += n;
    }
    return OK;
}

enum err
check_name(const char *name, const char *what, const char *pointer,
    struct fault *fault)
{
    size_t len = strlen(name);
    bool ok = len >= 1 && len <= ENGINE_NAME_BYTES_MAX;
    for (size_t i = 0; i < len && ok; i++) {
        char c = name[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool digit = c >= '0' && c <= '9';
        bool mark = c == '_' || c == '-' || c == '.';
        ok = letter || digit || (mark && i > 0);
    }
    if (!ok) {
        return fault_set(fault, ERR_INVALID, pointer,
            "a name of %s has 1 to %d letters, digits, '_', '-', '.' and "
            "begins with a letter or digit",
            what, ENGINE_NAME_BYTES_MAX);
    }
    return OK;
}

void
pointer_index(char out[FAULT_POINTER_MAX], const char *prefix, size_t i)
{
    char text[FAULT_POINTER_MAX];
    snprintf(text, sizeof(text), "%.*s/%zu", FAULT_POINTER_MAX - 24, prefix, i);
    memcpy(out, text, sizeof(text));
}

enum err
fault_of(struct fault *fault, enum err err, const char *what)
{
    if (!err || (fault && fault->err == err)) {
        return err;
    }
    return fault_set(fault, err, "", "%s: %s", what, err_text(err));
}

bool
normalize(float *x, size_t n)
{
    double square = kern()->dot_f64(x, x, n);
    if (!(square > 0) || !isfinite(square)) {
        return false;
    }
    double inverse = 1 / sqrt(square);
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)(x[i] * inverse);
    }
    return true;
}
