#include "base/base64.h"

#include <stdint.h>

static const char alphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* The value of a character plus 1; 0 for what is not in the alphabet. */
static const uint8_t value_plus_1[256] = {['A'] = 1,
    ['B'] = 2,
    ['C'] = 3,
    ['D'] = 4,
    ['E'] = 5,
    ['F'] = 6,
    ['G'] = 7,
    ['H'] = 8,
    ['I'] = 9,
    ['J'] = 10,
    ['K'] = 11,
    ['L'] = 12,
    ['M'] = 13,
    ['N'] = 14,
    ['O'] = 15,
    ['P'] = 16,
    ['Q'] = 17,
    ['R'] = 18,
    ['S'] = 19,
    ['T'] = 20,
    ['U'] = 21,
    ['V'] = 22,
    ['W'] = 23,
    ['X'] = 24,
    ['Y'] = 25,
    ['Z'] = 26,
    ['a'] = 27,
    ['b'] = 28,
    ['c'] = 29,
    ['d'] = 30,
    ['e'] = 31,
    ['f'] = 32,
    ['g'] = 33,
    ['h'] = 34,
    ['i'] = 35,
    ['j'] = 36,
    ['k'] = 37,
    ['l'] = 38,
    ['m'] = 39,
    ['n'] = 40,
    ['o'] = 41,
    ['p'] = 42,
    ['q'] = 43,
    ['r'] = 44,
    ['s'] = 45,
    ['t'] = 46,
    ['u'] = 47,
    ['v'] = 48,
    ['w'] = 49,
    ['x'] = 50,
    ['y'] = 51,
    ['z'] = 52,
    ['0'] = 53,
    ['1'] = 54,
    ['2'] = 55,
    ['3'] = 56,
    ['4'] = 57,
    ['5'] = 58,
    ['6'] = 59,
    ['7'] = 60,
    ['8'] = 61,
    ['9'] = 62,
    ['+'] = 63,
    ['/'] = 64};

size_t
base64_encoded_len(size_t n)
{
    return (n / 3 + (n % 3 != 0)) * 4;
}

void
base64_encode(struct buf *out, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    char block[1024];
    size_t used = 0;

    while (n > 0) {
        uint32_t v = (uint32_t)p[0] << 16;
        v |= n > 1 ? (uint32_t)p[1] << 8 : 0;
        v |= n > 2 ? (uint32_t)p[2] : 0;
        block[used++] = alphabet[v >> 18];
        block[used++] = alphabet[v >> 12 & 63];
        block[used++] = n > 1 ? alphabet[v >> 6 & 63] : '=';
        block[used++] = n > 2 ? alphabet[v & 63] : '=';
        if (used == sizeof(block)) {
            buf_add(out, block, used);
            used = 0;
        }
        p += n > 3 ? 3 : n;
        n -= n > 3 ? 3 : n;
    }
    buf_add(out, block, used);
}

enum err
base64_decode(const char *s, size_t len, void *out, size_t max, size_t *n)
{
    const unsigned char *p = (const unsigned char *)s;
    uint8_t *to = out;
    size_t pad = 0, made = 0;

    if (len % 4 != 0) {
        return ERR_SYNTAX;
    }
    if (len > 0 && p[len - 1] == '=') {
        pad = p[len - 2] == '=' ? 2 : 1;
    }
    if (len / 4 * 3 - pad > max) {
        return ERR_TOO_LARGE;
    }
    for (size_t i = 0; i < len; i += 4) {
        size_t here = i + 4 == len ? 4 - pad : 4; /* characters of value */
        uint32_t v = 0;
        for (size_t k = 0; k < 4; k++) {
            uint32_t digit = k < here ? value_plus_1[p[i + k]] : 1;
            if (digit == 0) {
                return ERR_SYNTAX;
            }
            v = v << 6 | (digit - 1);
        }
        if ((here == 2 && (v & 0xffff) != 0) ||
            (here == 3 && (v & 0xff) != 0)) {
            return ERR_SYNTAX;
        }
        to[made++] = (uint8_t)(v >> 16);
        if (here > 2) {
            to[made++] = (uint8_t)(v >> 8);
        }
        if (here > 3) {
            to[made++] = (uint8_t)v;
        }
    }
    *n = made;
    return OK;
}
