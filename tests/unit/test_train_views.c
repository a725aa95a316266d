/*
 * Goal: views are runs of whole words of the text, of the lengths that
 * views.h and its constants say, and the same generator gives the same views.
 *
 * Method: numbered words, so that a view says where it came from; odd texts:
 * none, one word, blanks only, a title without a body.
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
#include "base/check.h"
#include "base/rng.h"
#include "train/views.h"

/* The view is words first..first + n - 1 of "w0 w1 ...": n, or 0 if not. */
static size_t
words_in_order(struct view view, unsigned *first)
{
    char copy[4096];
    unsigned expect = 0, number;
    size_t n = 0;
    int used;

    assert_true(view.len < sizeof copy);
    memcpy(copy, view.text, view.len);
    copy[view.len] = '\0';
    if (view.len > 0)
        assert_true(copy[0] == 'w' && copy[view.len - 1] != ' ');
    for (char *at = copy; sscanf(at, " w%u%n", &number, &used) == 1;
         at += used) {
        if (n == 0)
            *first = number;
        else
            assert_int_equal(number, expect);
        expect = number + 1;
        n++;
        assert_true(at[used] == '\0' || at[used] == ' ');
    }
    return n;
}

static size_t
numbered(char *text, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++)
        len += (size_t)sprintf(text + len, "w%zu%s", i, i % 3 ? " " : "  ");
    return len;
}

static void
test_spans(void **state)
{
    char text[4096];
    struct rng rng;
    bool differs = false, starts = false, ends = false;

    (void)state;
    rng_seed(&rng, 1);
    for (size_t n = 2; n < 100; n++) {
        size_t len = numbered(text, n);
        for (int i = 0; i < 20; i++) {
            struct view anchor, key;
            unsigned a = 0, k = 0;
            views_text(text, len, &rng, &anchor, &key);
            assert_true(anchor.text >= text && key.text >= text);
            assert_true(anchor.text + anchor.len <= text + len);
            assert_true(key.text + key.len <= text + len);
            size_t in_anchor = words_in_order(anchor, &a);
            size_t in_key = words_in_order(key, &k);
            assert_true(in_anchor >= MIN(n, (size_t)4) && in_anchor <= 16);
            assert_true(in_key >= n / 2 && in_key <= n && in_key > 0);
            assert_true(a + in_anchor <= n && k + in_key <= n);
            differs = differs || a != k;
            starts = starts || a == 0;
            ends = ends || a + in_anchor == n;
        }
    }
    assert_true(differs && starts && ends);
}

static void
test_title_and_body(void **state)
{
    static const char text[] = "A short title\nand the body that it names,\n"
                               "on two lines";
    struct rng rng;
    int n_title = 0;

    (void)state;
    rng_seed(&rng, 2);
    for (int i = 0; i < 400; i++) {
        struct view anchor, key;
        views_text(text, sizeof text - 1, &rng, &anchor, &key);
        if (anchor.len == 13 && memcmp(anchor.text, text, 13) == 0 &&
            key.text == text + 14 && key.len == sizeof text - 15)
            n_title++;
    }
    assert_true(n_title > 140 && n_title < 260); /* half */
    /* a line without words is no title, nor is a last line */
    static const char *const none[] = {
        "  \nw0 w1 w2", "w0 w1 w2\n", "\n\n\nw0 w1", "w0 w1\n \n\t\n"};
    for (size_t t = 0; t < ARRAY_LEN(none); t++) {
        size_t len = strlen(none[t]);
        for (int i = 0; i < 50; i++) {
            struct view anchor, key;
            unsigned first;
            views_text(none[t], len, &rng, &anchor, &key);
            assert_true(words_in_order(anchor, &first) >= 2);
            assert_true(words_in_order(key, &first) >= 1);
        }
    }
}

static void
test_short_texts(void **state)
{
    static const char *const texts[] = {
        "", " ", "word", "  word ", "\n", "\t\n "};
    struct rng rng;

    (void)state;
    rng_seed(&rng, 3);
    for (size_t t = 0; t < ARRAY_LEN(texts); t++) {
        size_t len = strlen(texts[t]);
        struct view anchor, key, judge;
        views_text(texts[t], len, &rng, &anchor, &key);
        views_judge(texts[t], len, &judge);
        assert_ptr_equal(anchor.text, texts[t]);
        assert_ptr_equal(key.text, texts[t]);
        assert_ptr_equal(judge.text, texts[t]);
        assert_int_equal(anchor.len, len);
        assert_int_equal(key.len, len);
        assert_int_equal(judge.len, len);
    }
}

static void
test_same_state_same_views(void **state)
{
    char text[4096];
    size_t len = numbered(text, 60);
    struct rng a, b;

    (void)state;
    rng_seed(&a, 9);
    rng_seed(&b, 9);
    for (int i = 0; i < 50; i++) {
        struct view one[2], two[2];
        views_text(text, len, &a, &one[0], &one[1]);
        views_text(text, len, &b, &two[0], &two[1]);
        for (size_t v = 0; v < 2; v++) {
            assert_ptr_equal(one[v].text, two[v].text);
            assert_int_equal(one[v].len, two[v].len);
        }
    }
}

/* The judging view depends on the text's bytes alone. */
static void
test_judge_view(void **state)
{
    char text[4096], copy[4096];
    struct view view, again;
    unsigned first = 0, last_first = 0;
    bool differs = false;

    (void)state;
    for (size_t n = 2; n < 80; n++) {
        size_t len = numbered(text, n);
        memcpy(copy, text, len);
        views_judge(text, len, &view);
        views_judge(copy, len, &again);
        assert_int_equal(view.text - text, again.text - copy);
        assert_int_equal(view.len, again.len);
        size_t in = words_in_order(view, &first);
        assert_true(in >= MIN(n, (size_t)4) && in <= MIN(n, (size_t)16));
        differs = differs || first != last_first;
        last_first = first;
    }
    assert_true(differs);
}

static size_t
characters(const char *s, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)s[i] & 0xC0) != 0x80;
    return n;
}

/* The share of a text's words that differ from those of its noisy copy, which
   has as many words, each with at most one error. */
static double
check_noise(const char *text, size_t len, const char *noisy, size_t n)
{
    size_t i = 0, j = 0, words = 0, changed = 0;
    while (i < len) {
        size_t a = i, b = j;
        while (i < len && strchr(" \n", text[i]) == NULL)
            i++;
        while (j < n && strchr(" \n", noisy[j]) == NULL)
            j++;
        size_t before = characters(text + a, i - a);
        size_t after = characters(noisy + b, j - b);
        assert_true(after + 1 >= before && after <= before + 1);
        if (i - a != j - b || memcmp(text + a, noisy + b, i - a) != 0) {
            changed++;
            assert_true(before >= 3);
        }
        words++;
        assert_true((i == len) == (j == n));
        if (i < len)
            assert_int_equal(text[i++], noisy[j++]);
    }
    return (double)changed / (double)words;
}

static bool
is_utf8(const char *s, size_t len)
{
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)s[i];
        size_t n = c < 0x80   ? 1
                   : c < 0xC0 ? 0
                   : c < 0xE0 ? 2
                   : c < 0xF0 ? 3
                              : 4;
        if (n == 0 || i + n > len)
            return false;
        for (size_t k = 1; k < n; k++) {
            if (((unsigned char)s[i + k] & 0xC0) != 0x80)
                return false;
        }
        i += n;
    }
    return true;
}

static void
test_typing_errors(void **state)
{
    static const char *const texts[] = {"the quick brown fox jumps over it all",
        "gr\xC3\xBC\xC3\x9F er aus k\xC3\xB6ln\nund m\xC3\xBCnchen",
        "\xF0\x9F\x98\x80\xF0\x9F\x98\x81\xF0\x9F\x98\x82 abc", "a bc de f",
        ""};
    char noisy[256], again[256];
    struct rng rng, same;

    (void)state;
    for (size_t t = 0; t < ARRAY_LEN(texts); t++) {
        size_t len = strlen(texts[t]);
        double changed = 0;
        assert_true(views_noise_bytes(len) <= sizeof noisy);
        for (uint64_t round = 0; round < 400; round++) {
            rng_seed(&rng, round);
            rng_seed(&same, round);
            memset(noisy, '#', sizeof noisy);
            size_t n = views_noise(noisy, texts[t], len, 0.5f, &rng);
            assert_true(n <= views_noise_bytes(len));
            assert_int_equal(noisy[n], '#');
            assert_true(is_utf8(noisy, n));
            assert_int_equal(views_noise(again, texts[t], len, 0.5f, &same), n);
            assert_memory_equal(noisy, again, n);
            if (len > 0)
                changed += check_noise(texts[t], len, noisy, n) / 400;
        }
        if (t < 3) /* an exchange or a copy may change nothing */
            assert_true(changed > 0.2 && changed < 0.55);
        if (t == 3)
            assert_true(changed <= 0);
        assert_int_equal(views_noise(noisy, texts[t], len, 0, &rng), len);
        assert_memory_equal(noisy, texts[t], len);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spans),
        cmocka_unit_test(test_title_and_body),
        cmocka_unit_test(test_short_texts),
        cmocka_unit_test(test_same_state_same_views),
        cmocka_unit_test(test_judge_view),
        cmocka_unit_test(test_typing_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
