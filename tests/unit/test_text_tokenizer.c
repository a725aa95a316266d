/*
 * Goal: tokenizer.h keeps its contract: special tokens stay when a text is
 * cut, the full count is told, bytes that are not UTF-8 count as U+FFFD, added
 * tokens are found as the file says, limits hold, threads share a tokenizer.
 * Method: small vocabularies written here, with ids worked out by hand; every
 * text cut at every length; texts of many megabytes. What the published
 * implementation gives is in tests/golden.
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

#include <pthread.h>

#include "base/buf.h"
#include "base/rng.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

#define TOKENS_MAX 64

static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n" /* 0 - 4 */
                            "a\nb\n##b\n##c\nabc\n"                /* 5 - 9 */
                            ".\n\xE4\xB8\xAD\nhello\n##lo\nhel\n"; /* - 14 */

static struct tokenizer_workspace *workspace;

static int
setup(void **state)
{
    (void)state;
    workspace = tokenizer_workspace_new();
    return workspace == NULL;
}

static int
teardown(void **state)
{
    (void)state;
    tokenizer_workspace_free(workspace);
    tokenizer_workspace_free(NULL);
    tokenizer_free(NULL);
    return 0;
}

static struct tokenizer *
make_bert(void)
{
    struct tokenizer *t = NULL;
    assert_int_equal(
        tokenizer_from_vocab(vocab, strlen(vocab), true, &t, NULL), OK);
    return t;
}

static struct tokenizer *
make_json(const char *json)
{
    struct tokenizer *t = NULL;
    struct fault fault = {0};
    if (tokenizer_from_json(json, strlen(json), &t, &fault) != OK)
        fail_msg("%s: %s", fault.pointer, fault.detail);
    return t;
}

/* The ids, as text. */
static void
check_bytes(
    const struct tokenizer *t, const char *text, size_t len, const char *want)
{
    uint32_t ids[TOKENS_MAX];
    char got[1024] = "";
    size_t n, n_full, at = 0;
    assert_int_equal(
        tokenizer_encode(t, text, len, TOKENS_MAX, workspace, ids, &n, &n_full),
        OK);
    assert_int_equal(n, n_full);
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(got + at, sizeof got - at, "%s%lu",
            i == 0 ? "" : " ", (unsigned long)ids[i]);
    assert_string_equal(got, want);
}

static void
check(const struct tokenizer *t, const char *text, const char *want)
{
    check_bytes(t, text, strlen(text), want);
}

static void
test_wordpiece(void **state)
{
    struct tokenizer *t = make_bert();
    char word[102];
    (void)state;
    check(t, "", "2 3");
    check(t, " \t\r\n", "2 3");
    check(t, "abc", "2 9 3");
    check(t, "ABC", "2 9 3");
    check(t, "a b abcb", "2 5 6 9 7 3");
    check(t, "ab.a", "2 5 7 10 5 3");
    check(t, "abd", "2 1 3"); /* a word as a whole is unknown */
    check(t, "hello helb hell", "2 12 14 7 1 3");
    check(t, "\xC3\xA1\xCC\x81", "2 5 3"); /* accents go */
    check(t,
        "a\xE4\xB8\xAD"
        "b",
        "2 5 11 6 3");                    /* an ideograph stands alone */
    check_bytes(t, "a\0b", 3, "2 5 7 3"); /* U+0000 is removed */
    check(t, "a[SEP]b", "2 5 3 6 3");
    check(t, "a[sep]", "2 5 1 1 1 3");
    memset(word, 'b', 101);
    word[0] = 'a';
    word[101] = '\0';
    check(t, word, "2 1 3"); /* 101 characters are too many */
    word[50] = ' ';
    size_t n, n_full;
    uint32_t ids[200];
    assert_int_equal(
        tokenizer_encode(t, word, 101, 200, workspace, ids, &n, &n_full), OK);
    assert_int_equal(n, 2 + 50 + 50);
    tokenizer_free(t);
}

static void
test_not_utf8(void **state)
{
    struct tokenizer *t =
        make_json("{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":"
                  "[[\"?\",0],[\"a\",-1],[\"\\uFFFD\",-2]]}}");
    (void)state;
    check(t,
        "a\xFF"
        "a",
        "1 2 1");
    check(t, "\xFF\xFE", "2 2");
    check(t, "a\xE4\xB8", "1 2");            /* one for a part of a character */
    check(t, "\xE4\xB8\x61", "2 1");         /* which ends where it breaks */
    check(t, "\xED\xA0\x80", "2 2 2");       /* a surrogate is three */
    check(t, "\xF0\x9F\x98", "2");           /* */
    check(t, "\xC0\x80", "2 2");             /* overlong */
    check(t, "\xF4\x90\x80\x80", "2 2 2 2"); /* past U+10FFFF */
    check(t, "\xEF\xBF\xBD", "2");
    tokenizer_free(t);
    t = make_bert(); /* whose normalizer drops it */
    check(t,
        "a\xFF"
        "b",
        "2 5 7 3");
    tokenizer_free(t);
}

static void
test_truncation(void **state)
{
    struct tokenizer *t = make_bert();
    const char *text = "a b abcb . hello";
    uint32_t all[TOKENS_MAX], ids[TOKENS_MAX + 1];
    size_t n_all, n, n_full;
    (void)state;
    assert_int_equal(tokenizer_n_special(t), 2);
    assert_int_equal(tokenizer_encode(t, text, strlen(text), TOKENS_MAX,
                         workspace, all, &n_all, &n_full),
        OK);
    assert_int_equal(n_all, 8);
    for (size_t max = 2; max < TOKENS_MAX; max++) {
        memset(ids, 0xEE, sizeof ids);
        assert_int_equal(tokenizer_encode(t, text, strlen(text), max, workspace,
                             ids, &n, &n_full),
            OK);
        assert_int_equal(n_full, n_all);
        assert_int_equal(n, max < n_all ? max : n_all);
        assert_memory_equal(ids, all, (n - 1) * sizeof *ids);
        assert_int_equal(ids[n - 1], 3);
        assert_int_equal(ids[max], 0xEEEEEEEE); /* nothing behind them */
    }
    tokenizer_free(t);
}

#define UNIGRAM                                                                \
    "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"byte_fallback\":%s,"       \
    "\"vocab\":[[\"<unk>\",0],[\"\\u2581\",-3],[\"a\",-3],[\"b\",-3],"         \
    "[\"ab\",-4],[\"\\u2581a\",-4],[\"<0xC3>\",-9],[\"<0xA9>\",-9],"           \
    "[\"abab\",-7]]}"
#define METASPACE                                                              \
    "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":"               \
    "\"\\u2581\"}"

static struct tokenizer *
make_unigram(const char *fallback)
{
    char json[1024];
    snprintf(json, sizeof json, "{" UNIGRAM "," METASPACE "}", fallback);
    return make_json(json);
}

static void
test_unigram(void **state)
{
    struct tokenizer *t = make_unigram("false");
    (void)state;
    check(t, "", "");
    check(t, "a", "5");
    check(t, "ab", "1 4"); /* U+2581a and b are -7 too, but b begins later */
    check(t, "bab", "1 3 4");
    check(t, "babab", "1 3 8");
    check(t, "xyz a", "1 0 5"); /* unknown ones are one */
    check(t, "x y", "1 0 1 0"); /* in a word */
    check(t, "\xC3\xA9", "1 0");
    tokenizer_free(t);
    t = make_unigram("true");
    check(t,
        "\xC3\xA9"
        "a",
        "1 6 7 2");
    check(t, "\xC3\xA9x", "1 0"); /* no piece for the byte 78 */
    check(t, "\xC3\xA9\xC3\xA9", "1 6 7 6 7");
    tokenizer_free(t);
}

/* Parts that are remembered give what the first search gave, whichever
   tokenizer the workspace served last. */
static void
test_workspace_goes_round(void **state)
{
    struct tokenizer *one = make_unigram("false");
    struct tokenizer *other = make_json(
        "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",0],"
        "[\"\\u2581a\",-1],[\"b\",-1],[\"a\",-1]]}," METASPACE "}");
    (void)state;
    for (int i = 0; i < 3; i++) {
        check(one, "ab ab bab", "1 4 1 4 1 3 4");
        check(other, "ab ab bab", "1 2 1 2 0 2 3 2");
    }
    tokenizer_free(one);
    tokenizer_free(other);
}

static void
test_added_tokens(void **state)
{
    struct tokenizer *t = make_json(
        "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"a\":1,"
        "\"##a\":2,\"<m>\":9}},\"pre_tokenizer\":{\"type\":"
        "\"WhitespaceSplit\"},\"normalizer\":{\"type\":\"Lowercase\"},"
        "\"added_tokens\":["
        "{\"id\":9,\"content\":\"<m>\",\"lstrip\":true},"
        "{\"id\":10,\"content\":\"<mm>\",\"rstrip\":true},"
        "{\"id\":11,\"content\":\"<m>a\"},"
        "{\"id\":12,\"content\":\"Word\",\"single_word\":true},"
        "{\"id\":13,\"content\":\"NoRm\",\"normalized\":true}]}");
    size_t len;
    (void)state;
    check(t, "a<m>", "1 9");
    check(t, "a  <m>  a", "1 9 1");
    check(t, "<m>a<m>", "11 9");  /* the longest */
    check(t, "<mm><MM>", "10 0"); /* as it is written */
    check(t, "<mm>  <m>", "10 9");
    check(t, "Word", "12");
    check(t, "a Word a", "1 12 1");
    check(t, "aWord", "0"); /* inside of a word */
    check(t, "Word_", "0");
    check(t, "Word.", "12 0");
    check(t, "\xC3\xA9Word", "0");
    check(t, "norm NORM aNormA", "13 13 1 13 1");
    assert_memory_equal(tokenizer_piece(t, 13, &len), "NoRm", 4);
    assert_null(tokenizer_piece(t, 5, &len)); /* numbers may have holes */
    assert_int_equal(tokenizer_n_ids(t), 14);
    tokenizer_free(t);
}

/* The beginning of the text is that of its first part alone. */
static void
test_mark_only_first(void **state)
{
    struct tokenizer *t = make_json(
        "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",0],"
        "[\"\\u2581\",-1],[\"a\",-2],[\"\\u2581a\",-2]]},\"pre_tokenizer\":"
        "{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\","
        "\"prepend_scheme\":\"first\"},\"added_tokens\":["
        "{\"id\":4,\"content\":\"<n>\",\"normalized\":true},"
        "{\"id\":5,\"content\":\"<r>\"}]}");
    (void)state;
    check(t, "a<n>a a", "3 4 2 3");
    check(t, "<n>a", "4 2");
    check(t, "a<r>a", "3 5 2");
    tokenizer_free(t);
}

/* Marks that stay (they are spacing) change places with each other, over marks
   and control characters that go. */
static void
test_marks_in_order(void **state)
{
    struct tokenizer *t =
        make_json("{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,"
                  "\"\xF0\x9D\x85\xA5\":1,\"##\xF0\x9D\x85\xAD\":2}},"
                  "\"normalizer\":{\"type\":\"BertNormalizer\"}}");
    (void)state;
    check(t, "\xF0\x9D\x85\xAD\xF0\x9D\x85\xA5", "1 2");
    check(t, "\xF0\x9D\x85\xAD\xCC\x81\xF0\x9D\x85\xA5", "1 2");
    check(t, "\xF0\x9D\x85\xAD\x01\xF0\x9D\x85\xA5", "1 2");
    tokenizer_free(t);
}

static void
test_template(void **state)
{
    struct tokenizer *t = make_json(
        "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"a\":1,"
        "\"x\":2,\"y\":3}},\"post_processor\":{\"type\":"
        "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"X\"}},"
        "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"Y\"}},"
        "{\"SpecialToken\":{\"id\":\"X\"}}],\"special_tokens\":{"
        "\"X\":{\"ids\":[2,3]},\"Y\":{\"ids\":[3]}}}}");
    (void)state;
    assert_int_equal(tokenizer_n_special(t), 5);
    check(t, "a", "2 3 1 3 2 3");
    check(t, "", "2 3 3 2 3");
    tokenizer_free(t);
}

static void
test_precedence_of_equal_pieces(void **state)
{
    struct tokenizer *t = NULL;
    const struct tokenizer_piece pieces[] = {{0, "?", 1, 0, true},
        {1, "a", 1, -5, false}, {2, "\xE2\x96\x81", 3, -1, false},
        {3, "a", 1, -2, false}, {4, "a", 1, -3, false}, {5, "b", 1, 0, true}};
    (void)state;
    assert_int_equal(
        tokenizer_from_pieces(pieces, ARRAY_LEN(pieces), 0, &t, NULL), OK);
    check(t, "a", "2 3");
    check(t, "b", "2 0");            /* hidden */
    check(t, " a", "2 2 3");         /* one more before it */
    check(t, "\xEF\xBD\x81", "2 3"); /* full-width: NFKC */
    tokenizer_free(t);
}

static void
fill(char *text, size_t len, const char *unit)
{
    size_t n = strlen(unit);
    for (size_t i = 0; i < len; i++)
        text[i] = unit[i % n];
}

static void
test_long_texts(void **state)
{
    static const char *const units[] = {"a", "a b ", "\xCC\x81\xCC\x96", "\xFF",
        "\xEF\xB7\xBA", "[SEP]", "\xE4\xB8\xAD", "aA\xCC\x81. "};
    size_t len = TOKENIZER_TEXT_BYTES_MAX;
    char *text = malloc(len + 1);
    struct tokenizer *some[] = {make_bert(), make_unigram("true"),
        make_json("{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":["
                  "[\"?\",0]]},\"normalizer\":{\"type\":\"NFKC\"}}")};
    uint32_t ids[8];
    size_t n = 0, n_full;
    (void)state;
    assert_non_null(text);
    for (size_t k = 0; k < ARRAY_LEN(some); k++) {
        for (size_t i = 0; i < ARRAY_LEN(units); i++) {
            size_t used = i % 4 == 0 ? len : len / 16;
            fill(text, used, units[i]);
            enum err err = tokenizer_encode(
                some[k], text, used, 8, workspace, ids, &n, &n_full);
            /* U+FDFA is eleven times as long in NFKC */
            assert_int_equal(err, k == 2 && i == 4 ? ERR_TOO_LARGE : OK);
            assert_true(n <= 8);
        }
        assert_int_equal(tokenizer_encode(some[k], text, len + 1, 8, workspace,
                             ids, &n, &n_full),
            ERR_TOO_LARGE);
        /* a failure leaves a workspace that serves */
        assert_int_equal(
            tokenizer_encode(some[k], "a", 1, 8, workspace, ids, &n, &n_full),
            OK);
        tokenizer_free(some[k]);
    }
    free(text);
}

struct shared {
    const struct tokenizer *tokenizer;
    uint64_t seed;
    size_t n_tokens;
};

static void *
encode_many(void *arg)
{
    static const char *const words[] = {
        "a", "ab", "bab", " ", "x", "\xC3\xA9", "abab", "  a"};
    struct shared *shared = arg;
    struct tokenizer_workspace *own = tokenizer_workspace_new();
    struct rng rng;
    uint32_t ids[TOKENS_MAX];
    size_t n, n_full;
    rng_seed(&rng, shared->seed);
    for (int i = 0; i < 2000 && own != NULL; i++) {
        char text[128] = "";
        size_t len = 0;
        for (uint64_t k = rng_below(&rng, 12); k > 0; k--)
            len += (size_t)snprintf(text + len, sizeof text - len, "%s",
                words[rng_below(&rng, ARRAY_LEN(words))]);
        if (tokenizer_encode(shared->tokenizer, text, len, TOKENS_MAX, own, ids,
                &n, &n_full) == OK)
            shared->n_tokens += n_full;
    }
    tokenizer_workspace_free(own);
    return NULL;
}

static void
test_threads(void **state)
{
    struct tokenizer *t = make_unigram("true");
    struct shared shared[4];
    pthread_t threads[4];
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        shared[i] = (struct shared){t, i / 2, 0};
        assert_int_equal(
            pthread_create(&threads[i], NULL, encode_many, &shared[i]), 0);
    }
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_true(shared[0].n_tokens > 1000);
    assert_int_equal(shared[0].n_tokens, shared[1].n_tokens);
    assert_int_equal(shared[2].n_tokens, shared[3].n_tokens);
    tokenizer_free(t);
}

/* The classes of characters at their edges. */
static void
test_classes(void **state)
{
    uint32_t lower[2];
    (void)state;
    assert_true(unicode_is_space(0x85) && unicode_is_space(0x3000));
    assert_false(unicode_is_space(0x200B) || unicode_is_space(0x1F));
    assert_true(unicode_is_punctuation('$') && unicode_is_punctuation('~'));
    assert_true(unicode_is_punctuation(0x2014) && !unicode_is_punctuation('0'));
    assert_false(unicode_is_punctuation(0x20AC)); /* a symbol */
    assert_true(unicode_is_ideograph(0x4E00) && !unicode_is_ideograph(0x3042));
    assert_true(unicode_is_control(0) && unicode_is_control(0xAD));
    assert_false(unicode_is_control('\t') || unicode_is_control(0x378));
    assert_true(unicode_is_word('_') && unicode_is_word(0x301));
    assert_false(unicode_is_word('-') || unicode_is_word(0x2014));
    assert_int_equal(unicode_lower(lower, 0x130), 2);
    assert_true(lower[0] == 'i' && lower[1] == 0x307);
    assert_int_equal(unicode_lower(lower, 0x3A3), 1);
    assert_int_equal(lower[0], 0x3C3);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wordpiece),
        cmocka_unit_test(test_not_utf8),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_unigram),
        cmocka_unit_test(test_workspace_goes_round),
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_mark_only_first),
        cmocka_unit_test(test_marks_in_order),
        cmocka_unit_test(test_template),
        cmocka_unit_test(test_precedence_of_equal_pieces),
        cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_classes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
