/*
 * Goal: a safetensors file is read exactly or refused with its reason, and what
 * is written is read.
 * Method: headers by hand, one wrong member each, and the word that the fault
 * must have; files with every kind of value; every failing allocation.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/fsio.h"
#include "model/safetensors.h"

#define A(type, shape, start, end)                                             \
    "\"a\":{\"dtype\":\"" type "\",\"shape\":" shape                           \
    ",\"data_offsets\":[" start "," end "]}"
#define B(start, end)                                                          \
    "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[" start "," end   \
    "]}"

static enum err
parse(const char *header, uint64_t n_data, struct fault *fault)
{
    struct safetensors st = {0};
    enum err err =
        safetensors_parse(&st, header, strlen(header), n_data, fault);

    assert_true(err == OK || st.tensors == NULL);
    safetensors_release(&st);
    return err;
}

static void
test_headers(void **state)
{
    static const struct {
        const char *header;
        uint64_t n_data;
    } good[] = {{"{}", 0}, {"{\"__metadata__\":{\"format\":\"pt\"}}  ", 0},
        {"{" A("F32", "[2,3]", "0", "24") "}", 24},
        {"{" A("F32", "[]", "0", "4") "}", 4},
        {"{" A("F16", "[0,7]", "0", "0") "}", 0},
        {"{" A("I64", "[1]", "4", "12") "," B("0", "4") "}", 12},
        {"{" A("BOOL", "[1,1,1,1,1,1,1,2]", "0", "2") "}", 2}};
    static const struct {
        const char *header;
        uint64_t n_data;
        const char *why;
    } bad[] = {{"", 0, "JSON"}, {"[]", 0, "object"}, {"{\"a\":", 0, "JSON"},
        {"{\"a\":7}", 0, "dtype"},
        {"{\"__metadata__\":{\"format\":1}}", 0, "metadata"},
        {"{\"__metadata__\":[]}", 0, "__metadata__"},
        {"{" A("F32", "[1]", "0", "4") "," A("F32", "[1]", "4", "8") "}", 8,
            "duplicate"},
        {"{" A("F31", "[1]", "0", "4") "}", 4, "F31"},
        {"{\"a\":{\"dtype\":3}}", 0, "dtype"},
        {"{\"a\":{\"dtype\":\"F32\"}}", 0, "shape"},
        {"{" A("U8", "[1,1,1,1,1,1,1,1,4]", "0", "4") "}", 4, "shape"},
        {"{" A("U8", "[-4]", "0", "4") "}", 4, "dimension 0"},
        {"{" A("U8", "[4,1.0]", "0", "4") "}", 4, "dimension 1"},
        {"{" A("F32", "[4294967296,4294967296]", "0", "4") "}", 4, "overflow"},
        {"{" A("F64", "[9223372036854775807]", "0", "4") "}", 4, "overflow"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "data_offsets"},
        {"{" A("U8", "[4]", "0", "\"4\"") "}", 4, "data_offsets"},
        {"{" A("U8", "[4]", "-4", "0") "}", 4, "data_offsets"},
        {"{" A("U8", "[4]", "0", "4,4") "}", 4, "data_offsets"},
        {"{" A("U8", "[4]", "4", "0") "}", 4, "lies at"},
        {"{" A("U8", "[4]", "0", "4") "}", 3, "lies at"},
        {"{" A("U8", "[4]", "0", "3") "}", 3, "asks for 4"},
        {"{" A("U8", "[4]", "0", "5") "}", 5, "asks for 4"},
        {"{" A("U8", "[4]", "2", "6") "," B("0", "4") "}", 6, "overlap"},
        {"{" A("U8", "[4]", "0", "4") "," B("0", "4") "}", 4, "overlap"},
        {"{" A("U8", "[4]", "5", "9") "," B("0", "4") "}", 9, "gap"},
        {"{" A("U8", "[4]", "1", "5") "}", 5, "gap"},
        {"{" A("U8", "[4]", "0", "4") "}", 5, "behind the last"},
        {"{}", 1, "behind the last"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        struct fault fault = {0};
        if (parse(good[i].header, good[i].n_data, &fault) != OK)
            print_error("%s: %s\n", good[i].header, fault.detail);
        assert_int_equal(fault.err, OK);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct fault fault = {0};
        enum err err = parse(bad[i].header, bad[i].n_data, &fault);
        if (err != ERR_CORRUPT || strstr(fault.detail, bad[i].why) == NULL)
            print_error(
                "%s: %s, \"%s\"\n", bad[i].header, err_text(err), fault.detail);
        assert_int_equal(err, ERR_CORRUPT);
        assert_non_null(strstr(fault.detail, bad[i].why));
        assert_int_equal(parse(bad[i].header, bad[i].n_data, NULL), err);
    }
}

static void
test_header_bytes(void **state)
{
    static const struct {
        uint8_t first[8];
        uint64_t n_file;
        enum err err;
    } cases[] = {{{2}, 10, OK}, {{2}, 9, ERR_CORRUPT}, {{2}, 7, ERR_CORRUPT},
        {{0, 0, 16}, 8 + (1 << 20), OK}, {{1, 0, 16}, 1 << 21, ERR_CORRUPT},
        {{255, 255, 255, 255, 255, 255, 255, 255}, 100, ERR_CORRUPT}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t n = 0;
        assert_int_equal(
            safetensors_header_bytes(cases[i].first, cases[i].n_file, &n, NULL),
            cases[i].err);
        assert_true((n > 0) == (cases[i].err == OK));
    }
}

/* ----------------------------------------------------------------- files */

static char path[] = "/tmp/kindred-safetensors-XXXXXX";

/* A file of one tensor "a". */
static void
write_tensor(enum safetensors_type type, const void *bytes, size_t n)
{
    struct safetensors_head head;
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    safetensors_begin(&head);
    safetensors_meta(&head, "format", "pt");
    safetensors_meta(&head, "by", "\"tests\"");
    safetensors_add(&head, "a", type, &n, 1);
    assert_int_equal(safetensors_end(&head), OK);
    assert_int_equal(head.text.len % 8, 0);
    assert_int_equal(head.at, n * safetensors_type_bytes(type));
    assert_int_equal(
        fwrite(head.text.data, 1, head.text.len, file), head.text.len);
    assert_int_equal(fwrite(bytes, safetensors_type_bytes(type), n, file), n);
    assert_int_equal(fclose(file), 0);
    safetensors_head_release(&head);
}

/* That tensor; *n values. */
static enum err
read_tensor(float *out, size_t max, struct fault *fault)
{
    struct safetensors st = {0};
    enum err err = safetensors_open(&st, path, fault);

    if (err == OK) {
        assert_int_equal(st.n, 1);
        assert_null(safetensors_find(&st, "b"));
        const struct safetensors_tensor *a = safetensors_find(&st, "a");
        assert_non_null(a);
        assert_true(a->n <= max);
        err = safetensors_read(&st, a, out, fault);
    }
    safetensors_release(&st);
    return err;
}

static void
test_floats(void **state)
{
    static float f32[100003], back[100003];
    static const struct {
        uint16_t half;
        float value;
    } halves[] = {{0x0000, 0}, {0x3C00, 1}, {0xC000, -2}, {0x7BFF, 65504},
        {0x0001, 0x1p-24f}, {0x83FF, -0x1.FF8p-15f}, {0x0400, 0x1p-14f},
        {0x3555, 0x1.554p-2f}},
      brains[] = {{0x3F80, 1}, {0xC040, -3}, {0x7F7F, 0x1.FEp127f},
          {0x0001, 0x1p-133f}};
    uint16_t bits[8];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(f32); i++)
        f32[i] = (float)i * 0.7f - 9;
    write_tensor(SAFETENSORS_F32, f32, ARRAY_LEN(f32));
    assert_int_equal(read_tensor(back, ARRAY_LEN(back), NULL), OK);
    assert_memory_equal(back, f32, sizeof f32);
    for (size_t i = 0; i < ARRAY_LEN(halves); i++)
        bits[i] = halves[i].half;
    write_tensor(SAFETENSORS_F16, bits, ARRAY_LEN(halves));
    assert_int_equal(read_tensor(back, ARRAY_LEN(back), NULL), OK);
    for (size_t i = 0; i < ARRAY_LEN(halves); i++)
        assert_memory_equal(&back[i], &halves[i].value, sizeof(float));
    for (size_t i = 0; i < ARRAY_LEN(brains); i++)
        bits[i] = brains[i].half;
    write_tensor(SAFETENSORS_BF16, bits, ARRAY_LEN(brains));
    assert_int_equal(read_tensor(back, ARRAY_LEN(back), NULL), OK);
    for (size_t i = 0; i < ARRAY_LEN(brains); i++)
        assert_memory_equal(&back[i], &brains[i].value, sizeof(float));
}

static void
test_values_refused(void **state)
{
    static const uint16_t half[] = {0x3C00, 0x7C00}, nan[] = {0xFE00, 0},
                          brain[] = {0, 0x7F80};
    static float f32[40000], out[40000];
    static const struct {
        enum safetensors_type type;
        const void *bytes;
        enum err err;
        const char *why;
    } cases[] = {{SAFETENSORS_F16, half, ERR_CORRUPT, "\"a\" holds a NaN"},
        {SAFETENSORS_F16, nan, ERR_CORRUPT, "\"a\" holds a NaN"},
        {SAFETENSORS_BF16, brain, ERR_CORRUPT, "\"a\" holds a NaN"},
        {SAFETENSORS_I16, half, ERR_UNSUPPORTED, "\"a\" is of type I16"},
        {SAFETENSORS_F8_E4M3, half, ERR_UNSUPPORTED, "F8_E4M3"}};
    struct fault fault = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        write_tensor(cases[i].type, cases[i].bytes, 2);
        assert_int_equal(
            read_tensor(out, ARRAY_LEN(out), &fault), cases[i].err);
        assert_non_null(strstr(fault.detail, cases[i].why));
    }
    f32[39999] = -INFINITY;
    write_tensor(SAFETENSORS_F32, f32, ARRAY_LEN(f32));
    assert_int_equal(read_tensor(out, ARRAY_LEN(out), &fault), ERR_CORRUPT);
}

static void
test_files_refused(void **state)
{
    struct safetensors st = {0};
    struct fault fault = {0};
    float one = 1;

    (void)state;
    assert_int_equal(safetensors_open(&st, "/tmp", &fault), ERR_INVALID);
    assert_non_null(strstr(fault.detail, "regular"));
    assert_int_equal(
        safetensors_open(&st, "/tmp/kindred-none", &fault), ERR_NOT_FOUND);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0); /* which nobody writes to */
    assert_int_equal(safetensors_open(&st, path, &fault), ERR_INVALID);
    assert_int_equal(unlink(path), 0);
    write_tensor(SAFETENSORS_F32, &one, 1);
    assert_int_equal(truncate(path, 7), 0);
    assert_int_equal(safetensors_open(&st, path, &fault), ERR_CORRUPT);
    write_tensor(SAFETENSORS_F32, &one, 1);
    assert_int_equal(safetensors_open(&st, path, &fault), OK);
    assert_int_equal(truncate(path, 100), 0); /* while it is open */
    assert_int_equal(
        safetensors_read(&st, &st.tensors[0], &one, &fault), ERR_CORRUPT);
    assert_non_null(strstr(fault.detail, "short"));
    safetensors_release(&st);
}

static void
test_memory(void **state)
{
    float in[3] = {1, 2, 3}, out[3];
    enum err err = ERR_NOMEM;

    (void)state;
    write_tensor(SAFETENSORS_F32, in, 3);
    for (uint64_t n = 1; err != OK; n++) {
        (void)alloc_fail_at(n);
        err = read_tensor(out, 3, NULL);
        (void)alloc_fail_at(0);
        assert_true(err == OK || err == ERR_NOMEM);
        assert_true(n < 1000);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_header_bytes),
        cmocka_unit_test(test_floats),
        cmocka_unit_test(test_values_refused),
        cmocka_unit_test(test_files_refused),
        cmocka_unit_test(test_memory),
    };
    int fd = mkstemp(path);

    if (fd < 0)
        return 1;
    (void)close(fd);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return failed;
}
