/*
 * Goal: the splitter gives the same lines however the bytes arrive, and holds
 *   no more than a line's limit of an unfinished one.
 * Method: texts with long, blank, broken and unterminated lines, fed in every
 *   chunk size from 1 to 40, against a naive model.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "server/ndjson.h"

#define LIMIT 10

struct found {
    int64_t line_no;
    bool too_long;
    char text[LIMIT + 1];
};

/* What must come, by looking at the whole text. */
static size_t
model(const char *text, struct found *out)
{
    size_t n = 0;
    int64_t line_no = 0;
    while (*text) {
        size_t len = strcspn(text, "\n");
        size_t shown = len;
        line_no++;
        if (shown > 0 && text[shown - 1] == '\r')
            shown--;
        size_t blank = strspn(text, " \t\r");
        if (shown > LIMIT) {
            out[n].line_no = line_no;
            out[n].too_long = true;
            out[n++].text[0] = '\0';
        } else if (blank < shown) {
            out[n].line_no = line_no;
            out[n].too_long = false;
            memcpy(out[n].text, text, shown);
            out[n++].text[shown] = '\0';
        }
        text += len + (text[len] == '\n');
    }
    return n;
}

static void
check_text(const char *text)
{
    static struct found want[400];
    size_t n_want = model(text, want);
    size_t len = strlen(text);
    for (size_t chunk = 1; chunk <= 40; chunk++) {
        struct ndjson nd;
        struct ndjson_line line;
        size_t n = 0;
        ndjson_init(&nd, LIMIT);
        for (size_t at = 0; at <= len; at += chunk) {
            size_t part = len - at < chunk ? len - at : chunk;
            assert_int_equal(ndjson_feed(&nd, text + at, part), OK);
            if (at + chunk > len)
                ndjson_end(&nd);
            while (ndjson_next(&nd, &line)) {
                assert_true(n < n_want);
                assert_int_equal(line.line_no, want[n].line_no);
                assert_int_equal(line.too_long, want[n].too_long);
                if (!line.too_long) {
                    assert_int_equal(line.len, strlen(want[n].text));
                    assert_memory_equal(line.text, want[n].text, line.len);
                }
                n++;
            }
            assert_true(nd.pending.len - nd.at <= LIMIT + 1);
        }
        assert_int_equal(n, n_want);
        ndjson_release(&nd);
    }
}

static void
test_fixed(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "\n", "a", "a\n", "a\nb",
        "a\r\nb\r\n", "\n\n  \na\n\t\n", "0123456789\n", "0123456789\r\n",
        "01234567890\n", "01234567890123456789012345\nx\n",
        "0123456789012345678901234", "\r\r\n", "           \n",
        "x\n0123456789ab"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        check_text(texts[i]);
}

static void
test_random(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 7);
    for (int round = 0; round < 300; round++) {
        char text[200];
        size_t n = (size_t)rng_below(&rng, sizeof(text) - 1);
        for (size_t i = 0; i < n; i++)
            text[i] = "abc \r\n"[rng_below(&rng, 6)];
        if (round % 3 == 0) /* long lines */
            for (size_t i = 0; i < n; i++)
                if (text[i] == '\n' && rng_below(&rng, 4) != 0)
                    text[i] = 'z';
        text[n] = '\0';
        check_text(text);
    }
}

/* A line that was given up is reported when its end comes. */
static void
test_skip(void **state)
{
    (void)state;
    struct ndjson nd;
    struct ndjson_line line;
    ndjson_init(&nd, 1000);
    assert_int_equal(ndjson_feed(&nd, "ok\nabcdef", 9), OK);
    assert_true(ndjson_next(&nd, &line));
    assert_false(ndjson_next(&nd, &line));
    ndjson_skip_line(&nd);
    ndjson_shrink(&nd);
    assert_null(nd.pending.data);
    assert_int_equal(ndjson_feed(&nd, "ghi", 3), OK);
    assert_false(ndjson_next(&nd, &line));
    assert_int_equal(ndjson_feed(&nd, "jkl\nnext\n", 9), OK);
    assert_true(ndjson_next(&nd, &line));
    assert_true(line.too_long);
    assert_int_equal(line.line_no, 2);
    assert_true(ndjson_next(&nd, &line));
    assert_int_equal(line.len, 4);
    ndjson_release(&nd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixed),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_skip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
