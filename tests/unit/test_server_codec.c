/*
 * Goal: bodies become the engine's structs exactly, vectors included, and what
 *   only looks like one of our vectors stays the user's data.
 * Method: examples with known results; the scanner's cuts put in odd places.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/codec.h"
#include "server/scan.h"

static struct arena arena;

static enum err
item(const char *text, struct engine_item *out, struct fault *fault)
{
    memset(fault, 0, sizeof(*fault));
    return codec_read_item(text, strlen(text), NULL, &arena, out, fault);
}

static void
test_item(void **state)
{
    (void)state;
    struct engine_item got;
    struct fault fault;
    assert_int_equal(item("{\"id\":\"a\",\"title\":\"t\",\"text\":\"x\\ny\","
                          "\"metadata\":{\"vector\":[1,2],\"n\":1.5},"
                          "\"vector\" : [ 0.5, -1e-3 ]}",
                         &got, &fault),
        OK);
    assert_string_equal(got.id, "a");
    assert_int_equal(got.text.len, 3);
    assert_int_equal(got.n_vector, 2);
    assert_true(got.vector[0] == 0.5f && got.vector[1] == -1e-3f);
    /* the user's own member of that name is not touched */
    assert_string_equal(got.metadata.s, "{\"n\":1.5,\"vector\":[1,2]}");
}

static void
test_item_without(void **state)
{
    (void)state;
    struct engine_item got;
    struct fault fault;
    assert_int_equal(item("{\"id\":\"a\"}", &got, &fault), OK);
    assert_null(got.text.s);
    assert_null(got.title.s);
    assert_null(got.metadata.s);
    assert_null(got.vector);
    /* the id of a refused one is kept for its outcome */
    assert_int_equal(item("{\"id\":\"b\",\"x\":1}", &got, &fault), ERR_INVALID);
    assert_string_equal(got.id, "b");
    assert_string_equal(fault.pointer, "/x");
}

static void
test_vectors(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n; /* 0: refused */
        const char *pointer;
    } cases[] = {
        {"{\"id\":\"a\",\"vector\":[1]}", 1, ""},
        {"{\"id\":\"a\",\"vector\":\"AACAPwAAAEA=\"}", 2, ""},
        {"{\"id\":\"a\",\"vector\":[]}", 0, "/vector"},
        {"{\"id\":\"a\",\"vector\":[1,]}", 0, "/vector/1"},
        {"{\"id\":\"a\",\"vector\":[1,2", 0, ""},
        {"{\"id\":\"a\",\"vector\":[[1]]}", 0, "/vector/0"},
        {"{\"id\":\"a\",\"vector\":[1,null]}", 0, "/vector/1"},
        {"{\"id\":\"a\",\"vector\":[1 2]}", 0, "/vector/0"},
        {"{\"id\":\"a\",\"vector\":\"AACAPw\"}", 0, "/vector"},
        {"{\"id\":\"a\",\"vector\":{}}", 0, "/vector"},
        {"{\"id\":\"a\",\"v\\u0065ctor\":[7]}", 0, "/vector"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct engine_item got;
        struct fault fault;
        enum err err = item(cases[i].text, &got, &fault);
        if ((err == OK) != (cases[i].n > 0) ||
            (cases[i].pointer[0] && strcmp(fault.pointer, cases[i].pointer)))
            print_error("%s: %d %s\n", cases[i].text, err, fault.pointer);
        assert_int_equal(err == OK, cases[i].n > 0);
        if (cases[i].n > 0)
            assert_int_equal(got.n_vector, cases[i].n);
        else if (cases[i].pointer[0])
            assert_string_equal(fault.pointer, cases[i].pointer);
    }
}

static void
test_queries(void **state)
{
    (void)state;
    static const char text[] =
        "{\"queries\":[{\"vector\":[1,2],\"k\":3},{\"text\":\"a\",\"filter\":"
        "{\"f\":{\"vector\":[1]}}},{\"vector\":[4,5,6]},{\"k\":1},[]]}";
    struct engine_query *queries = NULL;
    struct fault *faults = NULL;
    struct fault fault = {0};
    size_t n = 0;
    assert_int_equal(codec_read_queries(text, strlen(text), &arena, &queries,
                         &faults, &n, &fault),
        OK);
    assert_int_equal(n, 5);
    assert_int_equal(queries[0].n_vector, 2);
    assert_int_equal(queries[0].k, 3);
    assert_int_equal(queries[2].n_vector, 3);
    assert_true(queries[2].vector[2] == 6);
    assert_string_equal(queries[1].filter_json, "{\"f\":{\"vector\":[1]}}");
    assert_int_equal(faults[0].err, OK);
    assert_int_equal(faults[1].err, OK);
    assert_int_equal(faults[3].err, ERR_INVALID);
    assert_int_equal(faults[4].err, ERR_INVALID);
}

/* The bytes of pictures, however their base64 is spelt; and a sentence that
   tells which mistake it is. */
static void
test_images(void **state)
{
    (void)state;
    static const struct {
        const char *image; /* the JSON value */
        const char *bytes; /* NULL: refused */
        const char *says;
    } cases[] = {
        {"\"/9j/\"", "\xff\xd8\xff", NULL},
        {" \"/9j/\"", "\xff\xd8\xff", NULL},
        {"\"\\/9j\\/\"", "\xff\xd8\xff", NULL},
        {"\"\\u002f9j/\"", "\xff\xd8\xff", NULL},
        {"\"_9j_\"", NULL, "character 0 is of the URL alphabet"},
        {"\"/9j/ \"", NULL, "character 4 is not base64"},
        {"\"/9j/\\n\"", NULL, "character 4 is not base64"},
        {"\"/9=j\"", NULL, "character 2 is not base64"},
        {"\"/9j/AA\"", NULL, "6 characters"},
        {"\"/9j/AB==\"", NULL, "no encoder sets"},
        {"\"data:image/png;base64,/9j/\"", NULL, "without \"data:"},
        {"\"\"", NULL, "empty"},
        {"[0]", NULL, "as a string"},
        {"7", NULL, "as a string"},
        {"{}", NULL, "as a string"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[256];
        struct engine_item got;
        struct fault fault;
        (void)snprintf(text, sizeof(text),
            "{\"id\":\"a\",\"image\":%s,\"metadata\":{\"image\":\"x y\"}}",
            cases[i].image);
        enum err err = item(text, &got, &fault);
        if ((err == OK) != (cases[i].bytes != NULL))
            print_error("%s: %d %s\n", text, err, fault.detail);
        assert_int_equal(err, cases[i].bytes ? OK : ERR_INVALID);
        if (cases[i].bytes) {
            assert_int_equal(got.image.n, 3);
            assert_memory_equal(got.image.bytes, cases[i].bytes, 3);
            assert_string_equal(got.metadata.s, "{\"image\":\"x y\"}");
            assert_false(got.no_image);
        } else {
            assert_string_equal(fault.pointer, "/image");
            assert_non_null(strstr(fault.detail, cases[i].says));
        }
    }
    struct engine_item got;
    struct fault fault;
    assert_int_equal(item("{\"id\":\"a\",\"image\":null}", &got, &fault), OK);
    assert_true(got.no_image);
    assert_null(got.image.bytes);
    /* the picture does not go through a tree: the arena holds it once */
    static char large[(3u << 20) + 64];
    char *at = large + sprintf(large, "{\"id\":\"a\",\"image\":\"");
    memset(at, 'A', 3u << 20);
    strcpy(at + (3u << 20), "\"}");
    size_t before = arena.used_bytes;
    assert_int_equal(item(large, &got, &fault), OK);
    assert_int_equal(got.image.n, (3u << 20) / 4 * 3);
    assert_true(arena.used_bytes - before < (3u << 20) / 4 * 3 + 65536);
}

static void
test_query_images(void **state)
{
    (void)state;
    static const char text[] =
        "{\"queries\":[{\"vector\":[1,2]},{\"image\":\"/9j/\"},"
        "{\"image\":null},{\"image\":\"AAAA\",\"text\":\"a\"},"
        "{\"image\":\"AA\"},{\"vector\":[4],\"image\":[0]},"
        "{\"im\\u0061ge\":\"AAAA\"},{\"im\\u0061ge\":[0]},"
        "{\"image\":[1]}]}"; /* not ours, though [1] would be a picture */
    struct engine_query *queries = NULL;
    struct fault *faults = NULL;
    struct fault fault = {0};
    size_t n = 0;
    assert_int_equal(codec_read_queries(text, strlen(text), &arena, &queries,
                         &faults, &n, &fault),
        OK);
    assert_int_equal(n, 9);
    assert_int_equal(faults[0].err, OK);
    assert_int_equal(faults[1].err, OK);
    assert_int_equal(queries[1].image.n, 3);
    for (size_t i = 2; i <= 5; i++)
        assert_int_equal(faults[i].err, ERR_INVALID);
    assert_int_equal(faults[6].err, OK); /* spelt oddly, but a string */
    assert_int_equal(queries[6].image.n, 3);
    assert_int_equal(faults[7].err, ERR_INVALID);
    assert_int_equal(faults[8].err, ERR_INVALID);
}

static void
test_elements(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int n; /* -1: refused */
    } cases[] = {{"[]", 0}, {" [ ] ", 0}, {"[1]", 1},
        {"[1,[2,3],\"],\",{}]", 4}, {"[1", -1}, {"[1}", -1}, {"{}", -1},
        {"", -1}, {"[1] x", -1}, {"[\"a", -1}, {"[1,2,3,4,5,6]", -1},
        {"[\"\\\"]\",2]", 2}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scan_slice *parts = NULL;
        size_t n = 0;
        enum err err = scan_elements(
            cases[i].text, strlen(cases[i].text), 5, &arena, &parts, &n, NULL);
        assert_int_equal(err == OK, cases[i].n >= 0);
        if (err == OK)
            assert_int_equal(n, cases[i].n);
    }
}

/* A small text that would make a large tree is refused before it is one. */
static void
test_bomb(void **state)
{
    (void)state;
    static char text[3 * SCAN_VALUES_MAX + 100] = "{\"id\":\"a\",\"metadata\":"
                                                  "{\"a\":[";
    size_t len = strlen(text);
    for (size_t i = 0; i < SCAN_VALUES_MAX; i++) {
        memcpy(text + len, "[],", 3);
        len += 3;
    }
    struct engine_item got;
    struct fault fault;
    assert_int_equal(item(text, &got, &fault), ERR_TOO_LARGE);
}

static void
test_pair(void **state)
{
    (void)state;
    static const char text[] =
        "{\"anchor\":{\"text\":\"q\"},\"positive\":{\"id\":\"a\"},"
        "\"negatives\":[{\"id\":\"b\"},{\"text\":\"c\"}],\"weight\":0.5,"
        "\"group\":\"g\"}";
    struct engine_pair pair;
    struct fault fault = {0};
    assert_int_equal(
        codec_read_pair(text, strlen(text), &arena, &pair, &fault), OK);
    assert_string_equal(pair.anchor.text.s, "q");
    assert_string_equal(pair.positive.id, "a");
    assert_int_equal(pair.n_negatives, 2);
    assert_string_equal(pair.negatives[1].text.s, "c");
    assert_true(pair.weight == 0.5);
    assert_string_equal(pair.group, "g");
}

static int
set_up(void **state)
{
    (void)state;
    arena_init(&arena, 1u << 24);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    arena_release(&arena);
    return 0;
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_item),
        TEST(test_item_without),
        TEST(test_vectors),
        TEST(test_queries),
        TEST(test_images),
        TEST(test_query_images),
        TEST(test_elements),
        TEST(test_bomb),
        TEST(test_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
