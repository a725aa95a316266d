/*
 * Goal: words_split cuts and normalises every text as words.h says.
 *
 * Method: examples by script and by kind of damage; then properties over
 * random texts of a nasty alphabet: splitting at ASCII spaces first changes
 * nothing, words are short and valid UTF-8 in normal form; and the largest
 * inputs without any space.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/buf.h"
#include "base/rng.h"
#include "text/words.h"

/* Words in a row, each closed by '|', or '~' where it has no inside. */
static void
collect(void *arg, const char *word, size_t len, int spaceless)
{
    buf_add(arg, word, len);
    buf_add_char(arg, spaceless ? '~' : '|');
}

static void
split(struct buf *out, const char *text, size_t len)
{
    assert_int_equal(words_split(text, len, collect, out), OK);
    assert_int_equal(buf_status(out), OK);
}

static void
check(const char *text, const char *want)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    split(&out, text, strlen(text));
    const char *got = out.data == NULL ? "" : out.data;
    if (strcmp(got, want) != 0)
        print_error("\"%s\" gave %s, not %s\n", text, got, want);
    assert_string_equal(got, want);
    buf_release(&out);
}

static void
test_ascii(void **state)
{
    (void)state;
    check("", "");
    check(" \t\r\n", "");
    check("Hello, World! 42nd", "hello|world|42nd|");
    check("don't", "don|t|");
    check("a_b-c.d@e", "a|b|c|d|e|");
    check("x\x01y\x1fz\x7fw", "x|y|z|w|");
    check("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
        "abcdefghijklmnopqrstuvwxyz0123456789|");
    check("@[`{/:", "");
}

/* A NUL is a control character like others; len rules. */
static void
test_length_rules(void **state)
{
    struct buf out;
    (void)state;
    buf_init(&out, 100);
    split(&out, "ab\0cd\0\xC3\x89", 8);
    assert_string_equal(out.data, "ab|cd|e|");
    buf_clear(&out);
    split(&out, "abcd", 2);
    assert_string_equal(out.data, "ab|");
    buf_clear(&out);
    split(&out, "\xC3\x89", 1); /* half a character */
    assert_int_equal(out.len, 0);
    buf_release(&out);
}

static void
test_accents_and_case(void **state)
{
    (void)state;
    check("\xC3\x84rger \xC3\x84RGER arger A\xCC\x88rger",
        "arger|arger|arger|arger|");
    check("Stra\xC3\x9F"
          "e STRASSE",
        "strasse|strasse|");
    check("\xCE\xA3\xCE\x91\xCE\xA3 \xCF\x83\xCE\xB1\xCF\x82",
        "\xCF\x83\xCE\xB1\xCF\x83|\xCF\x83\xCE\xB1\xCF\x83|");
    check("\xD0\x9C\xD0\x9E\xD0\xA1\xD0\x9A\xD0\x92\xD0\x90",
        "\xD0\xBC\xD0\xBE\xD1\x81\xD0\xBA\xD0\xB2\xD0\xB0|");
    check("\xC4\xB0stanbul", "istanbul|"); /* I with a dot */
    check("e\xCC\x81\xCC\x82\xCC\x83", "e|");
    check("\xCC\x81", ""); /* a mark alone */
}

static void
test_compatibility_forms(void **state)
{
    (void)state;
    check("\xEF\xAC\x81n", "fin|");                        /* fi ligature */
    check("\xEF\xBC\xA1\xEF\xBC\xA2\xEF\xBC\xA3", "abc|"); /* full width */
    check("x\xC2\xB2 \xE2\x91\xA0", "x2|1|");              /* 2, circled 1 */
    check("a\xC2\xA0"                                      /* nbsp */
          "b\xE3\x80\x80"                                  /* ideographic */
          "c",
        "a|b|c|");
    check("co\xC2\xADop na\xE2\x80\x8Dme", "coop|name|"); /* ignorable */
    check("don\xE2\x80\x99t", "don|t|");
    check("\xE2\x84\xAB", "a|"); /* Angstrom sign */
    /* both orders of marks of different classes are one text */
    check("\xD7\xA9\xD7\x81\xD6\xBC \xD7\xA9\xD6\xBC\xD7\x81",
        "\xD7\xA9\xD6\xBC\xD7\x81|\xD7\xA9\xD6\xBC\xD7\x81|");
    /* jamo compose */
    check("\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB \xED\x95\x9C",
        "\xED\x95\x9C|\xED\x95\x9C|");
}

static void
test_scripts_without_spaces(void **state)
{
    (void)state;
    check("\xE5\x8C\x97\xE4\xBA\xAC\xE5\xA4\xA7",
        "\xE5\x8C\x97~\xE5\x8C\x97\xE4\xBA\xAC~\xE4\xBA\xAC~"
        "\xE4\xBA\xAC\xE5\xA4\xA7~\xE5\xA4\xA7~");
    check("\xE0\xB8\x81\xE0\xB8\xB2",
        "\xE0\xB8\x81~\xE0\xB8\x81\xE0\xB8\xB2~\xE0\xB8\xB2~");
    /* half-width kana with its mark is one character */
    check("\xEF\xBD\xB6\xEF\xBE\x9E", "\xE3\x82\xAC~");
    check("ab\xE5\x8C\x97"
          "cd",
        "ab|\xE5\x8C\x97~cd|");
    /* punctuation parts neighbours */
    check("\xE5\x8C\x97\xE3\x80\x82\xE4\xBA\xAC", "\xE5\x8C\x97~\xE4\xBA\xAC~");
    /* an ideograph of four bytes */
    check("\xF0\xA0\x80\x80", "\xF0\xA0\x80\x80~");
    check("\xF0\x9F\x98\x80", ""); /* a face is no word */
}

static void
test_not_utf8(void **state)
{
    (void)state;
    check("ab\xFF"
          "cd",
        "ab|cd|");
    check("a\x80\xBF"
          "b",
        "a|b|");
    check("a\xC0\x80"
          "b",
        "a|b|"); /* overlong */
    check("a\xED\xA0\x80"
          "b",
        "a|b|"); /* surrogate */
    check("a\xF4\x90\x80\x80"
          "b",
        "a|b|"); /* past U+10FFFF */
    check("a\xE4\xBA", "a|");
    check("\xC3 \xA9", "");
}

static void
test_long_words(void **state)
{
    char text[400], want[800];
    size_t n;

    (void)state;
    memset(text, 'a', 64);
    text[64] = '\0';
    snprintf(want, sizeof want, "%s|", text);
    check(text, want);
    memset(text, 'a', 130);
    text[130] = '\0';
    snprintf(want, sizeof want, "%.64s|%.64s|aa|", text, text);
    check(text, want);
    for (n = 0; n < 80; n += 2)
        memcpy(text + n, "\xCE\xB1", 2);
    text[80] = '\0';
    snprintf(want, sizeof want, "%.64s|%.16s|", text, text);
    check(text, want);
    text[0] = 'a'; /* and a byte before them: the 32nd does not fit */
    for (n = 1; n < 65; n += 2)
        memcpy(text + n, "\xCE\xB1", 2);
    text[65] = '\0';
    snprintf(want, sizeof want, "%.63s|\xCE\xB1|", text);
    check(text, want);
    /* a character is never cut: 21 of three bytes fit */
    for (n = 0; n < 90; n += 3)
        memcpy(text + n, "\xE0\xA4\x85", 3);
    text[90] = '\0';
    snprintf(want, sizeof want, "%.63s|%.27s|", text, text);
    check(text, want);
}

struct counted {
    size_t n_words, n_bytes, longest;
};

static void
count(void *arg, const char *word, size_t len, int spaceless)
{
    struct counted *c = arg;
    (void)word;
    (void)spaceless;
    c->n_words++;
    c->n_bytes += len;
    if (len > c->longest)
        c->longest = len;
}

#define MB ((size_t)1 << 20)

static void
fill(char *text, const char *unit)
{
    size_t n = strlen(unit);
    for (size_t i = 0; i < MB; i++)
        text[i] = unit[i % n];
}

static void
test_no_space_in_a_megabyte(void **state)
{
    char *text = malloc(MB);
    struct counted c = {0};

    (void)state;
    assert_non_null(text);
    fill(text, "a");
    assert_int_equal(words_split(text, MB, count, &c), OK);
    assert_int_equal(c.n_words, MB / 64);
    assert_int_equal(c.n_bytes, MB);
    /* beyond ASCII: nothing is lost where slices meet */
    c = (struct counted){0};
    fill(text, "\xCE\xB1");
    assert_int_equal(words_split(text, MB, count, &c), OK);
    assert_int_equal(c.n_bytes, MB);
    assert_int_equal(c.longest, 64);
    c = (struct counted){0};
    fill(text, "\xF0\xA0\x80\x80");
    assert_int_equal(words_split(text, MB, count, &c), OK);
    assert_true(c.n_words <= MB / 2 && c.n_words >= MB / 2 - MB / 2048);
    assert_int_equal(c.longest, 8);
    /* marks that vanish, marks out of order, and the longest decomposition */
    c = (struct counted){0};
    fill(text, "\xCC\x96\xCC\x81");
    text[0] = text[1] = 'a';
    assert_int_equal(words_split(text, MB, count, &c), OK);
    assert_int_equal(c.n_bytes, 2);
    c = (struct counted){0};
    fill(text, "\xD7\x81\xD6\xBC");
    assert_int_equal(words_split(text, MB, count, &c), OK);
    assert_int_equal(c.n_bytes, MB);
    c = (struct counted){0};
    fill(text, "\xEF\xB7\xBA"); /* 18 code points each, four words */
    assert_int_equal(words_split(text, MB, count, &c), OK);
    assert_true(c.n_words >= MB / 3 * 3);
    /* bytes that are nothing */
    c = (struct counted){0};
    fill(text, "\x80\xFF\xFE");
    assert_int_equal(words_split(text, MB, count, &c), OK);
    assert_int_equal(c.n_words, 0);
    free(text);
}

static const char *const alphabet[] = {"a", "B", "7", "z", " ", "  ", "\n", ".",
    "-", "\xC3\xA9", "\xC3\x84", "\xCC\x81", "\xCE\xA9", "\xD7\xA9", "\xD7\x81",
    "\xD6\xBC", "\xE5\x8C\x97", "\xE4\xBA\xAC", "\xE3\x80\x82", "\xE0\xB8\x81",
    "\xE0\xB8\xB1", "\xE0\xA4\x95", "\xE0\xA5\x8D", "\xE1\x84\x92",
    "\xE1\x85\xA1", "\xEF\xAC\x81", "\xEF\xB7\xBA", "\xC2\xAD", "\xC2\xA0",
    "\xF0\x9F\x98\x80", "\xF0\xA0\x80\x80", "\xFF", "\xC3", "\x80", "\xE4\xBA",
    "\xED\xA0\x80", "\xEF\xBD\xB6", "\xEF\xBE\x9E", "\x7F", "_"};

static size_t
random_text(struct rng *rng, char *text, size_t cap)
{
    size_t n = 0;
    size_t n_units = (size_t)rng_below(rng, 60);
    for (size_t i = 0; i < n_units; i++) {
        const char *unit = alphabet[rng_below(rng, ARRAY_LEN(alphabet))];
        size_t len = strlen(unit);
        assert_true(n + len <= cap);
        memcpy(text + n, unit, len);
        n += len;
    }
    return n;
}

/* The words of a text are those of its pieces between spaces. */
static void
test_pieces_equal_whole(void **state)
{
    struct rng rng;
    struct buf whole, pieces;
    char text[512];

    (void)state;
    rng_seed(&rng, 1);
    buf_init(&whole, 1 << 20);
    buf_init(&pieces, 1 << 20);
    for (int round = 0; round < 5000; round++) {
        size_t n = random_text(&rng, text, sizeof text);
        buf_clear(&whole);
        buf_clear(&pieces);
        split(&whole, text, n);
        size_t start = 0;
        for (size_t i = 0; i <= n; i++) {
            if (i < n && text[i] != ' ' && text[i] != '\n')
                continue;
            split(&pieces, text + start, i - start);
            start = i + 1;
        }
        assert_int_equal(whole.len, pieces.len);
        assert_true(
            whole.len == 0 || memcmp(whole.data, pieces.data, whole.len) == 0);
    }
    buf_release(&whole);
    buf_release(&pieces);
}

struct again {
    size_t n;
    bool same;
    const char *word;
    size_t len;
};

static void
compare_again(void *arg, const char *word, size_t len, int spaceless)
{
    struct again *a = arg;
    (void)spaceless;
    a->n++;
    a->same = len == a->len && memcmp(word, a->word, len) == 0;
}

static void
check_word(void *arg, const char *word, size_t len, int spaceless)
{
    struct again a = {.word = word, .len = len};
    size_t continuation = 0;
    (void)arg;
    assert_true(len > 0 && len <= WORDS_MAX_BYTES);
    assert_true(((unsigned char)word[0] & 0xC0) != 0x80);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)word[i];
        assert_true(c > ' ' && c != 0x7F && c < 0xF5 && c != 0xC0 && c != 0xC1);
        assert_false(c >= 'A' && c <= 'Z');
        if ((c & 0xC0) == 0x80) {
            assert_true(continuation > 0);
            continuation--;
        } else {
            assert_int_equal(continuation, 0);
            continuation = c < 0x80 ? 0 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
        }
    }
    assert_int_equal(continuation, 0);
    if (spaceless)
        return;
    /* what is normal stays as it is */
    assert_int_equal(words_split(word, len, compare_again, &a), OK);
    assert_true(a.n == 1 && a.same);
}

static void
test_words_are_normal(void **state)
{
    struct rng rng;
    char text[512];

    (void)state;
    rng_seed(&rng, 2);
    for (int round = 0; round < 5000; round++) {
        size_t n = random_text(&rng, text, sizeof text);
        assert_int_equal(words_split(text, n, check_word, NULL), OK);
    }
    for (int round = 0; round < 5000; round++) { /* plain noise */
        for (size_t i = 0; i < 100; i++)
            text[i] = (char)rng_u64(&rng);
        assert_int_equal(words_split(text, 100, check_word, NULL), OK);
    }
}

static void
test_memory_runs_out(void **state)
{
    struct counted c = {0};

    (void)state;
    alloc_fail_at(1);
    assert_int_equal(words_split("plain words", 11, count, &c), OK);
    assert_int_equal(c.n_words, 2);
    assert_int_equal(words_split("caf\xC3\xA9", 5, count, &c), ERR_NOMEM);
    alloc_fail_at(0);
    assert_int_equal(words_split("caf\xC3\xA9", 5, count, &c), OK);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ascii),
        cmocka_unit_test(test_length_rules),
        cmocka_unit_test(test_accents_and_case),
        cmocka_unit_test(test_compatibility_forms),
        cmocka_unit_test(test_scripts_without_spaces),
        cmocka_unit_test(test_not_utf8),
        cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_no_space_in_a_megabyte),
        cmocka_unit_test(test_pieces_equal_whole),
        cmocka_unit_test(test_words_are_normal),
        cmocka_unit_test(test_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
