/*
 * Goal: tokenizers give the numbers that the published implementation gives.
 * Method: 2,000 texts of mixed scripts (tests/data/tokenizer/texts.txt), cut
 * by every variant of variants.json around the small models beside it, and by
 * the vocabulary of all-MiniLM-L6-v2 below KINDRED_DATA; tokenizer_ids.txt has
 * a checksum for every five texts. make_tokenizer.mjs makes all of these, and
 * can write the numbers themselves. use-lite's list of pieces below
 * KINDRED_DATA has golden numbers of its own.
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

#include "base/buf.h"
#include "base/fsio.h"
#include "base/json.h"
#include "text/tokenizer.h"

#define DATA "tests/data/tokenizer/"
#define N_TEXTS 2000
#define GROUP 5
#define N_COLUMNS_MAX 32
#define TOKENS_MAX 4096
#define PIECES_OF_USE_LITE 8000

struct text {
    char *s;
    size_t len;
};

static struct buf text_file, ids_file, variants_file;
static struct text texts[N_TEXTS];
static char names[N_COLUMNS_MAX][32];
static size_t n_names;
static uint32_t sums[N_TEXTS / GROUP][N_COLUMNS_MAX];
static struct json *variants;

static void
read_file(const char *path, struct buf *out)
{
    struct fault fault = {0};
    buf_init(out, (size_t)32 << 20);
    if (fsio_read(path, out, &fault) != OK)
        fail_msg("%s", fault.detail);
}

/* The texts, in place: the escapes of one line are never longer. */
static void
read_texts(void)
{
    char *from = text_file.data;
    for (size_t i = 0; i < N_TEXTS; i++) {
        char *to = from;
        texts[i].s = from;
        for (; *from != '\n'; from++) {
            assert_true(from < text_file.data + text_file.len);
            if (*from == '\\') {
                from++;
                *to++ = (char)(*from == 'n'   ? '\n'
                               : *from == 'r' ? '\r'
                               : *from == '0' ? '\0'
                                              : *from);
            } else {
                *to++ = *from;
            }
        }
        texts[i].len = (size_t)(to - texts[i].s);
        from++;
    }
    assert_ptr_equal(from, text_file.data + text_file.len);
}

static void
read_sums(void)
{
    char *s = ids_file.data;
    char *end = strchr(s, '\n');
    assert_non_null(end);
    while (s < end) {
        size_t n = strcspn(s, " \n");
        assert_true(n_names < N_COLUMNS_MAX && n < sizeof names[0]);
        memcpy(names[n_names++], s, n);
        s += n + 1;
    }
    for (size_t g = 0; g < N_TEXTS / GROUP; g++) {
        for (size_t c = 0; c < n_names; c++)
            sums[g][c] = (uint32_t)strtoul(s, &s, 16);
    }
    assert_string_equal(s, "\n");
}

static int
read_all(void **state)
{
    struct fault fault = {0};
    (void)state;
    read_file(DATA "texts.txt", &text_file);
    read_file("tests/golden/tokenizer_ids.txt", &ids_file);
    read_file(DATA "variants.json", &variants_file);
    read_texts();
    read_sums();
    assert_int_equal(json_parse(variants_file.data, variants_file.len, 1 << 20,
                         &variants, &fault),
        OK);
    return 0;
}

static int
release_all(void **state)
{
    (void)state;
    json_free(variants);
    buf_release(&text_file);
    buf_release(&ids_file);
    buf_release(&variants_file);
    return 0;
}

static uint32_t
sum_of(uint32_t sum, uint32_t v)
{
    for (int k = 0; k < 32; k += 8)
        sum = (sum ^ (v >> k & 255)) * 16777619U;
    return sum;
}

static struct tokenizer *
make(const char *json, size_t len)
{
    struct tokenizer *t = NULL;
    struct fault fault = {0};
    if (tokenizer_from_json(json, len, &t, &fault) != OK)
        fail_msg("%s: %s", fault.pointer, fault.detail);
    return t;
}

/* A tokenizer.json around the model that the variant names. */
static struct tokenizer *
make_variant(const struct json *variant)
{
    char path[256];
    struct buf model, all;
    const char *name = json_str(json_find(variant, "model"), NULL);

    snprintf(path, sizeof path, DATA "%s.json", name);
    read_file(path, &model);
    buf_init(&all, 1 << 22);
    buf_add_char(&all, '{');
    for (void *it = json_first(variant); it != NULL;
         it = json_next(variant, it)) {
        if (strcmp(json_it_key(it), "model") == 0)
            continue;
        buf_json_cstr(&all, json_it_key(it));
        buf_add_char(&all, ':');
        json_dump(json_it_value(it), &all);
        buf_add_char(&all, ',');
    }
    buf_add_str(&all, "\"model\":");
    buf_add(&all, model.data, model.len);
    buf_add_char(&all, '}');
    assert_int_equal(buf_status(&all), OK);
    struct tokenizer *t = make(all.data, all.len);
    buf_release(&model);
    buf_release(&all);
    return t;
}

/* How many groups of texts have another sum than column c says. The workspace
   goes from tokenizer to tokenizer. */
static size_t
n_wrong(const struct tokenizer *t, size_t c, struct tokenizer_workspace *w)
{
    static uint32_t ids[TOKENS_MAX];
    size_t wrong = 0, n, n_full;
    for (size_t g = 0; g < N_TEXTS / GROUP; g++) {
        uint32_t sum = 2166136261U;
        for (size_t i = g * GROUP; i < (g + 1) * GROUP; i++) {
            assert_int_equal(tokenizer_encode(t, texts[i].s, texts[i].len,
                                 TOKENS_MAX, w, ids, &n, &n_full),
                OK);
            assert_int_equal(n, n_full);
            sum = sum_of(sum, (uint32_t)n);
            for (size_t k = 0; k < n; k++)
                sum = sum_of(sum, ids[k]);
        }
        if (sum != sums[g][c]) {
            print_message("%s: texts %zu to %zu differ\n", names[c],
                g * GROUP + 1, (g + 1) * GROUP);
            wrong++;
        }
    }
    return wrong;
}

static size_t
column_of(const char *name)
{
    size_t c = 0;
    while (c < n_names && strcmp(names[c], name) != 0)
        c++;
    assert_true(c < n_names);
    return c;
}

static void
test_variants(void **state)
{
    struct tokenizer_workspace *w = tokenizer_workspace_new();
    size_t wrong = 0, n = 0;
    (void)state;
    for (void *it = json_first(variants); it != NULL;
         it = json_next(variants, it)) {
        struct tokenizer *t = make_variant(json_it_value(it));
        wrong += n_wrong(t, column_of(json_it_key(it)), w);
        tokenizer_free(t);
        n++;
    }
    assert_int_equal(n, 13);
    assert_int_equal(wrong, 0);
    tokenizer_workspace_free(w);
}

/* PATH below KINDRED_DATA, or skip. */
static void
read_data(const char *path, struct buf *out)
{
    char whole[4096];
    const char *data = getenv("KINDRED_DATA");
    buf_init(out, (size_t)32 << 20);
    if (data == NULL) {
        print_message("SKIPPED: KINDRED_DATA does not name the folder of "
                      "published vocabularies\n");
        skip();
    }
    snprintf(whole, sizeof whole, "%s/%s", data, path);
    if (fsio_read(whole, out, NULL) != OK) {
        print_message("SKIPPED: no %s\n", whole);
        skip();
    }
}

static void
test_minilm(void **state)
{
    struct buf file;
    (void)state;
    read_data("models/all-MiniLM-L6-v2-noweights/tokenizer.json", &file);
    struct tokenizer_workspace *w = tokenizer_workspace_new();
    struct tokenizer *t = make(file.data, file.len);
    assert_int_equal(n_wrong(t, column_of("minilm"), w), 0);
    tokenizer_free(t);
    buf_release(&file);
    /* and from its vocabulary alone */
    t = NULL;
    read_data("models/all-MiniLM-L6-v2-noweights/vocab.txt", &file);
    assert_int_equal(
        tokenizer_from_vocab(file.data, file.len, true, &t, NULL), OK);
    assert_int_equal(n_wrong(t, column_of("minilm"), w), 0);
    tokenizer_free(t);
    buf_release(&file);
    tokenizer_workspace_free(w);
}

/* The lines of vocab.tsv: id, piece, score. */
static struct tokenizer *
make_use_lite(struct buf *file)
{
    static struct tokenizer_piece pieces[PIECES_OF_USE_LITE];
    struct tokenizer *t = NULL;
    size_t n = 0;
    for (char *s = file->data; *s != '\0' && n < PIECES_OF_USE_LITE; n++) {
        pieces[n].id = (uint32_t)strtoul(s, &s, 10);
        pieces[n].s = ++s;
        s = strchr(s, '\t');
        assert_non_null(s);
        pieces[n].len = (size_t)(s - pieces[n].s);
        pieces[n].score = strtod(s, &s);
        pieces[n].hidden = pieces[n].id < 6;
        s += *s == '\n';
    }
    assert_int_equal(tokenizer_from_pieces(pieces, n, 0, &t, NULL), OK);
    return t;
}

static void
test_use_lite(void **state)
{
    static const uint32_t hello[] = {341, 4125, 8, 140, 31, 19, 54};
    struct buf file, golden;
    struct json *root = NULL;
    uint32_t ids[128];
    size_t n, n_full, len;
    (void)state;
    read_data("models/use-lite/vocab.tsv", &file);
    struct tokenizer *t = make_use_lite(&file);
    struct tokenizer_workspace *w = tokenizer_workspace_new();
    assert_int_equal(tokenizer_encode(t, "Hello, how are you?", 19, 128, w, ids,
                         &n, &n_full),
        OK);
    assert_int_equal(n, ARRAY_LEN(hello));
    assert_memory_equal(ids, hello, sizeof hello);
    read_data("models/use-lite/golden.json", &golden);
    assert_int_equal(
        json_parse(golden.data, golden.len, 1 << 22, &root, NULL), OK);
    assert_true(json_count(root) > 10);
    for (size_t i = 0; i < json_count(root); i++) {
        const char *s = json_str(json_find(json_item(root, i), "text"), &len);
        const struct json *want = json_find(json_item(root, i), "ids");
        assert_int_equal(
            tokenizer_encode(t, s, len, 128, w, ids, &n, &n_full), OK);
        assert_int_equal(n, json_count(want));
        for (size_t k = 0; k < n; k++)
            assert_int_equal(ids[k], json_i64(json_item(want, k)));
    }
    json_free(root);
    buf_release(&file);
    buf_release(&golden);
    tokenizer_free(t);
    tokenizer_workspace_free(w);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variants),
        cmocka_unit_test(test_minilm),
        cmocka_unit_test(test_use_lite),
    };
    return cmocka_run_group_tests(tests, read_all, release_all);
}
