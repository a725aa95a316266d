#include "server/uri.h"

#include <string.h>

static int
hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

enum err
uri_decode(char *out, size_t *out_len, const char *in, size_t n, bool plus)
{
    size_t o = 0;
    for (size_t i = 0; i < n; i++) {
        char c = in[i];
        if (c == '%') {
            if (n - i < 3)
                return ERR_SYNTAX;
            int hi = hex_value(in[i + 1]);
            int lo = hex_value(in[i + 2]);
            if (hi < 0 || lo < 0)
                return ERR_SYNTAX;
            c = (char)(unsigned char)(hi * 16 + lo);
            i += 2;
        } else if (plus && c == '+') {
            c = ' ';
        }
        if (c == '\0')
            return ERR_SYNTAX;
        out[o++] = c;
    }
    out[o] = '\0';
    *out_len = o;
    return OK;
}

bool
uri_match(const char *pattern, const char *path, size_t path_len,
    struct uri_slice params[URI_PARAMS_MAX], size_t *n_params)
{
    size_t n = 0;
    const char *p = pattern;
    const char *s = path;
    const char *end = path + path_len;

    for (;;) {
        /* Both stand at a slash, or at their end. */
        if (*p == '\0' || s == end)
            break;
        if (*p != '/' || *s != '/')
            return false;
        p++;
        s++;
        const char *seg = s;
        while (s < end && *s != '/')
            s++;
        size_t seg_len = (size_t)(s - seg);
        const char *word = p;
        while (*p != '\0' && *p != '/')
            p++;
        size_t word_len = (size_t)(p - word);
        if (word_len > 2 && word[0] == '{') {
            if (seg_len == 0 || n == URI_PARAMS_MAX)
                return false;
            params[n].name = word + 1;
            params[n].name_len = word_len - 2;
            params[n].raw = seg;
            params[n].raw_len = seg_len;
            n++;
        } else if (word_len != seg_len || memcmp(word, seg, seg_len) != 0) {
            return false;
        }
    }
    if (*p != '\0' || s != end)
        return false;
    *n_params = n;
    return true;
}

enum err
uri_query(char *text, size_t len, struct uri_param *args, size_t *n_args)
{
    size_t n = 0;
    size_t at = 0;
    while (at < len) {
        char *part = text + at;
        char *amp = memchr(part, '&', len - at);
        size_t part_len = amp ? (size_t)(amp - part) : len - at;
        at += part_len + 1;
        if (part_len == 0)
            continue;
        if (n == URI_QUERY_MAX)
            return ERR_TOO_LARGE;
        char *eq = memchr(part, '=', part_len);
        size_t name_len = eq ? (size_t)(eq - part) : part_len;
        char *value = eq ? eq + 1 : part + part_len;
        size_t value_len = eq ? part_len - name_len - 1 : 0;
        /* The value first: the NUL of the name overwrites the '='. The byte
           after the part is '&' or the final NUL, so both fit in place. */
        enum err err = uri_decode(value, &value_len, value, value_len, true);
        if (err == OK)
            err = uri_decode(part, &name_len, part, name_len, true);
        if (err != OK)
            return err;
        for (size_t i = 0; i < n; i++)
            if (args[i].name_len == name_len &&
                memcmp(args[i].name, part, name_len) == 0)
                return ERR_INVALID;
        args[n].name = part;
        args[n].name_len = name_len;
        args[n].value = value;
        args[n].value_len = value_len;
        n++;
    }
    *n_args = n;
    return OK;
}

bool
uri_encode(char *out, size_t cap, const char *s, size_t len)
{
    static const char digits[] = "0123456789ABCDEF";
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "abcdefghijklmnopqrstuvwxyz0123456789-._~";
    size_t o = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        size_t need = c != 0 && strchr(plain, c) ? 1 : 3;
        if (o + need >= cap) {
            if (cap > 0)
                out[0] = '\0';
            return false;
        }
        if (need == 1) {
            out[o++] = (char)c;
        } else {
            out[o++] = '%';
            out[o++] = digits[c >> 4];
            out[o++] = digits[c & 15];
        }
    }
    if (o >= cap)
        return false;
    out[o] = '\0';
    return true;
}
