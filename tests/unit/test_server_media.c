/*
 * Goal: what may come as a body is told from its header: each kind of route
 *   takes its own types and sizes and refuses the rest with the right status.
 * Method: a table over the kinds of bodies, types and lengths.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/media.h"

static const struct config config = {.body_bytes_max = 1000,
    .image_bytes_max = 5000,
    .encoder_bytes_max = 20000,
    .body_memory_bytes = 9000};

static void
test_types(void **state)
{
    (void)state;
    static const struct {
        enum body_kind kind;
        const char *type;
        bool present;
        long long length;
        int status;
    } cases[] = {
        {BODY_NONE, "text/plain", true, 9999, 0},
        {BODY_JSON, "application/json", true, 1000, 0},
        {BODY_JSON, "application/json", true, 1001, 413},
        {BODY_JSON, "application/JSON; charset=utf-8", true, 0, 0},
        {BODY_JSON, "application/jsonx", true, 5, 415},
        {BODY_JSON, "", true, 5, 415},
        {BODY_JSON, "", false, 0, 0},
        {BODY_JSON, "image/png", true, 5, 415},
        {BODY_JSON, "application/x-ndjson", true, 5, 415},
        {BODY_LINES, "application/x-ndjson", true, 999999, 0},
        {BODY_LINES, "application/jsonl", true, 5, 0},
        {BODY_LINES, "application/json", true, 1001, 413},
        {BODY_LINES, "text/csv", true, 5, 415},
        {BODY_STREAM, "application/x-ndjson", true, 999999, 0},
        {BODY_STREAM, "application/json", true, 5, 415},
        {BODY_STREAM, "", false, 0, 415},
        {BODY_IMAGE, "image/jpeg", true, 5000, 0},
        {BODY_IMAGE, "image/jpeg", true, 5001, 413},
        {BODY_IMAGE, "IMAGE/PNG;x=y", true, 1001, 0},
        {BODY_IMAGE, "image/webp", true, 0, 0},
        {BODY_IMAGE, "application/octet-stream", true, 5, 0},
        {BODY_IMAGE, "", true, 5, 0},
        {BODY_IMAGE, "image/gif", true, 5, 415},
        {BODY_IMAGE, "image/svg+xml", true, 5, 415},
        {BODY_IMAGE, "text/plain", true, 5, 415},
        {BODY_IMAGE, "application/json", true, 5, 415},
        {BODY_IMAGE, "application/x-ndjson", true, 5, 415},
        {BODY_IMAGE, "text/plain", false, 0, 0},
        {BODY_TAR, "application/x-tar", true, 20000, 0},
        {BODY_TAR, "application/x-tar", true, 20001, 413},
        {BODY_TAR, "application/x-tar", true, 0, 0},
        {BODY_TAR, "application/x-tar", false, 0, 0},
        {BODY_TAR, "application/gzip", true, 5, 415},
        {BODY_TAR, "application/x-ndjson", true, 5, 415},
        {BODY_TAR, "", false, 0, 415},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct route route = {.body = cases[i].kind};
        const struct media_body body = {
            cases[i].type, cases[i].present, cases[i].length};
        char detail[FAULT_DETAIL_MAX] = "";
        int status = media_check(&route, &config, &body, detail);
        if (status != cases[i].status)
            print_error("case %zu, %s: %d\n", i, cases[i].type, status);
        assert_int_equal(status, cases[i].status);
        assert_int_equal(status != 0, detail[0] != '\0');
        if (status == 413)
            assert_non_null(
                strstr(detail, cases[i].kind == BODY_IMAGE ? "5000"
                               : cases[i].kind == BODY_TAR ? "20000"
                                                           : "1000"));
    }
}

/* What is taken in while it comes. */
static void
test_streams(void **state)
{
    (void)state;
    static const struct {
        struct route route;
        const char *type;
        bool stream;
    } cases[] = {
        {{.body = BODY_LINES, .lines = LINES_ITEMS}, "application/jsonl", true},
        {{.body = BODY_LINES, .lines = LINES_ITEMS}, "application/json", false},
        {{.body = BODY_JSON}, "application/x-ndjson", false},
        {{.body = BODY_IMAGE}, "image/png", false},
        {{.body = BODY_TAR}, "application/x-tar", true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(
            media_is_stream(&cases[i].route, cases[i].type), cases[i].stream);
}

static void
test_memory(void **state)
{
    (void)state;
    const struct config narrow = {
        .body_bytes_max = 10, .image_bytes_max = 5000, .body_memory_bytes = 70};
    const struct route image = {.body = BODY_IMAGE};
    const struct route json = {.body = BODY_JSON};
    assert_int_equal(media_body_max(&image, &config), 5000);
    assert_int_equal(media_body_max(&image, &narrow), 70);
    assert_int_equal(media_body_max(&json, &narrow), 10);
}

/* An export's lines can come back whatever lines are allowed elsewhere. */
static void
test_lines(void **state)
{
    (void)state;
    const struct config short_lines = {.line_bytes_max = 1024,
        .text_bytes_max = 4096,
        .image_bytes_max = 3 << 20};
    const struct config long_lines = {.line_bytes_max = 100 << 20,
        .text_bytes_max = 4096,
        .image_bytes_max = 3 << 20};
    const struct route items = {.lines = LINES_ITEMS};
    const struct route import = {.lines = LINES_IMPORT};
    assert_int_equal(media_line_max(&items, &short_lines), 1024);
    assert_true(
        media_line_max(&import, &short_lines) > (4 << 20) + 2 * 4096 + 65536);
    assert_int_equal(media_line_max(&import, &long_lines), 100 << 20);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_types),
        cmocka_unit_test(test_streams), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_lines)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
