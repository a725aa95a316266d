#include "text/words.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <utf8proc.h>

#include "base/alloc.h"

/* Pieces are normalised in slices of at most this many bytes, cut at a
   character: bounds the memory for text without any space. */
#define PIECE_MAX_BYTES 2048
#define MARKS_MAX 30

/* Lower-case letters and digits map to themselves, capitals to small ones,
   everything else to 0, a separator. */
static const unsigned char ascii_fold[128] = {['0'] = '0',
    ['1'] = '1',
    ['2'] = '2',
    ['3'] = '3',
    ['4'] = '4',
    ['5'] = '5',
    ['6'] = '6',
    ['7'] = '7',
    ['8'] = '8',
    ['9'] = '9',
    ['a'] = 'a',
    ['b'] = 'b',
    ['c'] = 'c',
    ['d'] = 'd',
    ['e'] = 'e',
    ['f'] = 'f',
    ['g'] = 'g',
    ['h'] = 'h',
    ['i'] = 'i',
    ['j'] = 'j',
    ['k'] = 'k',
    ['l'] = 'l',
    ['m'] = 'm',
    ['n'] = 'n',
    ['o'] = 'o',
    ['p'] = 'p',
    ['q'] = 'q',
    ['r'] = 'r',
    ['s'] = 's',
    ['t'] = 't',
    ['u'] = 'u',
    ['v'] = 'v',
    ['w'] = 'w',
    ['x'] = 'x',
    ['y'] = 'y',
    ['z'] = 'z',
    ['A'] = 'a',
    ['B'] = 'b',
    ['C'] = 'c',
    ['D'] = 'd',
    ['E'] = 'e',
    ['F'] = 'f',
    ['G'] = 'g',
    ['H'] = 'h',
    ['I'] = 'i',
    ['J'] = 'j',
    ['K'] = 'k',
    ['L'] = 'l',
    ['M'] = 'm',
    ['N'] = 'n',
    ['O'] = 'o',
    ['P'] = 'p',
    ['Q'] = 'q',
    ['R'] = 'r',
    ['S'] = 's',
    ['T'] = 't',
    ['U'] = 'u',
    ['V'] = 'v',
    ['W'] = 'w',
    ['X'] = 'x',
    ['Y'] = 'y',
    ['Z'] = 'z'};

static bool
is_spaceless(utf8proc_int32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x3041 && c <= 0x30FF) || (c >= 0x0E01 && c <= 0x0EFF) ||
           (c >= 0x1780 && c <= 0x17FF) || (c >= 0x1000 && c <= 0x109F) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x20000 && c <= 0x3FFFF);
}

static bool
is_word_part(utf8proc_int32_t c)
{
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return true;
    default:
        return false;
    }
}

static void
split_ascii(const char *s, size_t len, words_fn *fn, void *arg)
{
    char word[WORDS_MAX_BYTES];
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = ascii_fold[(unsigned char)s[i] & 127];
        if (c != 0 && n < sizeof word) {
            word[n++] = (char)c;
            continue;
        }
        if (n > 0)
            fn(arg, word, n, 0);
        n = 0;
        if (c != 0)
            word[n++] = (char)c;
    }
    if (n > 0)
        fn(arg, word, n, 0);
}

/* Words of normalised code points. */
static void
split_code_points(const utf8proc_int32_t *c, size_t n, words_fn *fn, void *arg)
{
    char word[WORDS_MAX_BYTES + 8];
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        if (is_spaceless(c[i]) && is_word_part(c[i])) {
            if (len > 0)
                fn(arg, word, len, 0);
            unsigned char pair[8];
            size_t one =
                (size_t)utf8proc_encode_char(c[i], (utf8proc_uint8_t *)pair);
            fn(arg, (const char *)pair, one, 1);
            if (i + 1 < n && is_spaceless(c[i + 1]) && is_word_part(c[i + 1])) {
                size_t two =
                    one + (size_t)utf8proc_encode_char(c[i + 1], pair + one);
                fn(arg, (const char *)pair, two, 1);
            }
            len = 0;
            continue;
        }
        if (is_word_part(c[i])) {
            unsigned char one[4];
            size_t k = (size_t)utf8proc_encode_char(c[i], one);
            if (len + k > WORDS_MAX_BYTES) {
                fn(arg, word, len, 0);
                len = 0;
            }
            memcpy(word + len, one, k);
            len += k;
            continue;
        }
        if (len > 0)
            fn(arg, word, len, 0);
        len = 0;
    }
    if (len > 0)
        fn(arg, word, len, 0);
}

static unsigned
mark_class(utf8proc_int32_t c)
{
    return (unsigned)utf8proc_get_property(c)->combining_class;
}

/* The canonical order: marks that follow each other by their class, stably,
   so that two ways to type them are one word. A mark moves over MARKS_MAX
   others at most, as no language stacks so many: the cost stays linear. */
static void
order_marks(utf8proc_int32_t *c, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        utf8proc_int32_t moving = c[i];
        unsigned own = mark_class(moving);
        size_t j = i;
        while (own > 0 && j > 0 && i - j < MARKS_MAX &&
               mark_class(c[j - 1]) > own) {
            c[j] = c[j - 1];
            j--;
        }
        c[j] = moving;
    }
}

/* One piece with bytes beyond ASCII. Scratch holds room for the longest
   decomposition of a slice (18 code points a character in NFKC). */
static void
split_unicode(const char *s, size_t len, utf8proc_int32_t *scratch,
    size_t n_scratch, words_fn *fn, void *arg)
{
    size_t n = 0;
    const utf8proc_option_t options = UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT |
                                      UTF8PROC_CASEFOLD | UTF8PROC_IGNORE;
    size_t i = 0;
    while (i < len) {
        utf8proc_int32_t c;
        utf8proc_ssize_t used = utf8proc_iterate(
            (const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(len - i), &c);
        if (used <= 0) {
            scratch[n++] = ' ';
            i++;
            continue;
        }
        i += (size_t)used;
        int boundary = UTF8PROC_BOUNDCLASS_START;
        utf8proc_ssize_t made = utf8proc_decompose_char(c, scratch + n,
            (utf8proc_ssize_t)(n_scratch - n), options, &boundary);
        ASSERT(made >= 0 && (size_t)made <= n_scratch - n);
        size_t kept = n;
        for (size_t j = n; j < n + (size_t)made; j++) {
            if (scratch[j] < 0x300 || scratch[j] > 0x36F)
                scratch[kept++] = scratch[j];
        }
        n = kept;
    }
    order_marks(scratch, n);
    utf8proc_ssize_t composed = utf8proc_normalize_utf32(
        scratch, (utf8proc_ssize_t)n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    ASSERT(composed >= 0);
    split_code_points(scratch, (size_t)composed, fn, arg);
}

enum err
words_split(const char *text, size_t len, words_fn *fn, void *arg)
{
    const size_t n_scratch = (PIECE_MAX_BYTES + 1) * 18;
    utf8proc_int32_t *scratch = NULL;
    size_t i = 0;
    while (i < len) {
        if ((unsigned char)text[i] <= ' ') {
            i++;
            continue;
        }
        size_t end = i;
        unsigned char seen = 0;
        while (end < len && (unsigned char)text[end] > ' ') {
            seen |= (unsigned char)text[end];
            end++;
        }
        if (seen < 128) {
            split_ascii(text + i, end - i, fn, arg);
            i = end;
            continue;
        }
        if (scratch == NULL) {
            scratch = mem_alloc(n_scratch, sizeof *scratch);
            if (scratch == NULL)
                return ERR_NOMEM;
        }
        while (i < end) {
            size_t n = MIN(end - i, (size_t)PIECE_MAX_BYTES);
            /* a slice ends where a character does */
            while (i + n < end && n > PIECE_MAX_BYTES - 4 &&
                   ((unsigned char)text[i + n] & 0xC0) == 0x80)
                n--;
            split_unicode(text + i, n, scratch, n_scratch, fn, arg);
            i += n;
        }
    }
    mem_free(scratch);
    return OK;
}
