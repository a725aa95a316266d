/*
 * Goal: a tokenizer file that is wrong, hostile or of a kind that is not known
 * here is refused with the right code, and the fault says what and where.
 * Method: a small file that is right, with one member put in the place of
 * another; precompiled maps made by hand; every failing allocation; vocab.txt
 * and lists of pieces likewise.
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

#include <math.h>

#include "base/alloc.h"
#include "base/base64.h"
#include "base/buf.h"
#include "text/charsmap.h"
#include "text/tokenizer.h"

#define WORDPIECE                                                              \
    "{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\","                         \
    "\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":9,"     \
    "\"vocab\":{\"[UNK]\":0,\"[CLS]\":1,\"[SEP]\":2,\"un\":3,\"##able\":4,"    \
    "\"a\":5}}"
#define UNIGRAM                                                                \
    "{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],"             \
    "[\"a\",-1.5],[\"ab\",-2]]}"

#define BERT_PROCESSING                                                        \
    "{\"type\":\"BertProcessing\",\"cls\":[\"[CLS]\",1],\"sep\":[\"[SEP]\",2]" \
    "}"

static const char *const member_names[] = {
    "model", "normalizer", "pre_tokenizer", "post_processor", "added_tokens"};
static const char *const members[] = {WORDPIECE,
    "{\"type\":\"BertNormalizer\"}", "{\"type\":\"BertPreTokenizer\"}",
    BERT_PROCESSING, "[{\"id\":2,\"content\":\"[SEP]\"}]"};

/* The file with one member replaced (or none, for NULL). */
static void
write_file(struct buf *out, const char *name, const char *value)
{
    buf_init(out, 1 << 22);
    for (size_t i = 0; i < ARRAY_LEN(members); i++) {
        bool here = name != NULL && strcmp(name, member_names[i]) == 0;
        buf_printf(out, "%c\"%s\":", i == 0 ? '{' : ',', member_names[i]);
        buf_add_str(out, here ? value : members[i]);
    }
    buf_add_char(out, '}');
    assert_int_equal(buf_status(out), OK);
}

static enum err
load(const char *name, const char *value, struct fault *fault)
{
    struct buf file;
    struct tokenizer *t = NULL;
    write_file(&file, name, value);
    enum err err = tokenizer_from_json(file.data, file.len, &t, fault);
    assert_true((err == OK) == (t != NULL));
    tokenizer_free(t);
    buf_release(&file);
    return err;
}

static void
test_right(void **state)
{
    struct fault fault = {0};
    (void)state;
    assert_int_equal(load(NULL, NULL, &fault), OK);
    assert_int_equal(load("normalizer", "null", &fault), OK);
    assert_int_equal(load("pre_tokenizer", "null", &fault), OK);
    assert_int_equal(load("post_processor", "null", &fault), OK);
    assert_int_equal(load("added_tokens", "[]", &fault), OK);
}

struct refusal {
    const char *member, *value;
    enum err err;
    const char *pointer; /* how the fault's begins */
    const char *word;    /* in the fault's detail */
};

static const struct refusal refusals[] = {
    {"model", "{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}", ERR_UNSUPPORTED,
        "/model/type", "BPE"},
    {"model", "{\"vocab\":{},\"merges\":[]}", ERR_UNSUPPORTED, "/model/type",
        "BPE"},
    {"model", "{\"type\":\"WordLevel\",\"vocab\":{}}", ERR_UNSUPPORTED,
        "/model/type", "WordLevel"},
    {"model", "7", ERR_INVALID, "/model", ""},
    {"model", "{\"type\":\"WordPiece\"}", ERR_INVALID, "/model/vocab", ""},
    {"model", "{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}", ERR_INVALID,
        "/model", "[UNK]"},
    {"model", "{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"a\":0}}",
        ERR_INVALID, "/model/vocab/a", "number 0"},
    {"model", "{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"a\":-1}}",
        ERR_INVALID, "/model/vocab/a", "-1"},
    {"model",
        "{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"a\":99999999999}}",
        ERR_INVALID, "/model/vocab/a", "99999999999"},
    {"model", "{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"a\":1.5}}",
        ERR_INVALID, "/model/vocab/a", "integer"},
    {"model", "{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"\":1}}",
        ERR_INVALID, "/model/vocab/", "512"},
    {"model",
        "{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0},"
        "\"max_input_chars_per_word\":1000000000}",
        ERR_INVALID, "/model/max_input_chars_per_word", ""},
    {"model", "{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[]}", ERR_INVALID,
        "/model/vocab", "0 pieces"},
    {"model", "{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",0]]}",
        ERR_INVALID, "/model/unk_id", ""},
    {"model", "{\"type\":\"Unigram\",\"unk_id\":null,\"vocab\":[[\"a\",0]]}",
        ERR_UNSUPPORTED, "/model", "unk_id"},
    {"model",
        "{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"a\",0],[\"a\",1]]}",
        ERR_INVALID, "/model/vocab", "0 and 1"},
    {"model",
        "{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"a\",0],[\"b\"]]}",
        ERR_INVALID, "/model/vocab/1", "[piece, score]"},
    {"model", "{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"a\",\"b\"]]}",
        ERR_INVALID, "/model/vocab/0", "[piece, score]"},
    {"normalizer", "{\"type\":\"ByteLevel\"}", ERR_UNSUPPORTED, "/normalizer",
        "ByteLevel"},
    {"normalizer",
        "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},"
        "{\"type\":\"Magic\"}]}",
        ERR_UNSUPPORTED, "/normalizer/normalizers/1", "Magic"},
    {"normalizer", "[]", ERR_INVALID, "/normalizer", "object"},
    {"normalizer",
        "{\"type\":\"Replace\",\"content\":\"\","
        "\"pattern\":{\"Regex\":\"a+\"}}",
        ERR_UNSUPPORTED, "/normalizer/pattern", "a+"},
    {"normalizer",
        "{\"type\":\"Replace\",\"content\":\"\","
        "\"pattern\":{\"String\":\"\"}}",
        ERR_INVALID, "/normalizer/pattern", "empty"},
    {"normalizer", "{\"type\":\"BertNormalizer\",\"lowercase\":1}", ERR_INVALID,
        "/normalizer/lowercase", ""},
    {"pre_tokenizer", "{\"type\":\"ByteLevel\"}", ERR_UNSUPPORTED,
        "/pre_tokenizer", "ByteLevel"},
    {"pre_tokenizer", "{\"type\":\"Metaspace\",\"replacement\":\"ab\"}",
        ERR_INVALID, "/pre_tokenizer", "one character"},
    {"pre_tokenizer",
        "{\"type\":\"Metaspace\",\"replacement\":\"_\","
        "\"prepend_scheme\":\"often\"}",
        ERR_INVALID, "/pre_tokenizer", "often"},
    {"pre_tokenizer",
        "{\"type\":\"Sequence\",\"pretokenizers\":["
        "{\"type\":\"Metaspace\",\"replacement\":\"_\"},"
        "{\"type\":\"Metaspace\",\"replacement\":\"_\"}]}",
        ERR_UNSUPPORTED, "/pre_tokenizer/pretokenizers/1", "Metaspace"},
    {"post_processor", "{\"type\":\"ByteLevel\"}", ERR_UNSUPPORTED,
        "/post_processor/type", "ByteLevel"},
    {"post_processor",
        "{\"type\":\"BertProcessing\",\"cls\":[\"x\",77],\"sep\":[\"y\",2]}",
        ERR_INVALID, "/post_processor/cls", "77"},
    {"post_processor",
        "{\"type\":\"BertProcessing\",\"cls\":[\"x\"],\"sep\":[\"y\",2]}",
        ERR_INVALID, "/post_processor/cls", "[piece, number]"},
    {"post_processor",
        "{\"type\":\"TemplateProcessing\",\"special_tokens\":{},\"single\":[]}",
        ERR_INVALID, "/post_processor/single", "place"},
    {"post_processor",
        "{\"type\":\"TemplateProcessing\",\"special_tokens\":{},\"single\":["
        "{\"Sequence\":{\"id\":\"A\"}},{\"Sequence\":{\"id\":\"B\"}}]}",
        ERR_UNSUPPORTED, "/post_processor/single/1", "single"},
    {"post_processor",
        "{\"type\":\"TemplateProcessing\",\"special_tokens\":{},\"single\":["
        "{\"SpecialToken\":{\"id\":\"[X]\"}}]}",
        ERR_INVALID, "/post_processor/special_tokens/[X]", ""},
    {"added_tokens", "{}", ERR_INVALID, "/added_tokens", "array"},
    {"added_tokens", "[{\"id\":1,\"content\":\"[SEP]\"}]", ERR_INVALID,
        "/added_tokens/0", "number 1"},
    {"added_tokens", "[{\"id\":2,\"content\":\"new\"}]", ERR_INVALID,
        "/added_tokens/0", "[SEP]"},
    {"added_tokens", "[{\"id\":1048576,\"content\":\"new\"}]", ERR_INVALID,
        "/added_tokens/0", ""},
    {"added_tokens", "[{\"id\":9,\"content\":\"\"}]", ERR_INVALID,
        "/added_tokens/0", "512"},
    {"added_tokens",
        "[{\"id\":9,\"content\":\"new\"},{\"id\":9,\"content\":\"new\"}]",
        ERR_INVALID, "/added_tokens", "twice"},
    {"added_tokens", "[{\"id\":9,\"content\":\"\\u0001\",\"normalized\":true}]",
        ERR_INVALID, "/added_tokens/0", "normalised"},
};

static void
test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
        const struct refusal *r = &refusals[i];
        struct fault fault = {0};
        enum err err = load(r->member, r->value, &fault);
        if (err != r->err ||
            strncmp(fault.pointer, r->pointer, strlen(r->pointer)) != 0 ||
            strstr(fault.detail, r->word) == NULL)
            fail_msg("%s: error %d at \"%s\": %s", r->value, (int)err,
                fault.pointer, fault.detail);
        assert_int_equal(load(r->member, r->value, NULL), r->err);
    }
}

static void
test_no_json(void **state)
{
    struct tokenizer *t = NULL;
    struct fault fault = {0};
    (void)state;
    assert_int_equal(tokenizer_from_json("{", 1, &t, &fault), ERR_SYNTAX);
    assert_int_equal(tokenizer_from_json("[]", 2, &t, &fault), ERR_INVALID);
    assert_int_equal(tokenizer_from_json("{}", 2, &t, &fault), ERR_INVALID);
    assert_string_equal(fault.pointer, "/model");
    assert_null(t);
}

static void
test_counts(void **state)
{
    struct buf value;
    struct fault fault = {0};
    (void)state;
    buf_init(&value, 1 << 22);
    buf_add_str(&value, "{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 17; i++)
        buf_printf(&value, "%s{\"type\":\"NFC\"}", i == 0 ? "" : ",");
    buf_add_str(&value, "]}");
    assert_int_equal(load("normalizer", value.data, &fault), ERR_TOO_LARGE);
    assert_string_equal(fault.pointer, "/normalizer/normalizers/16");
    buf_clear(&value);
    buf_add_str(&value, "{\"type\":\"Sequence\",\"pretokenizers\":[");
    for (int i = 0; i < 9; i++)
        buf_printf(
            &value, "%s{\"type\":\"WhitespaceSplit\"}", i == 0 ? "" : ",");
    buf_add_str(&value, "]}");
    assert_int_equal(load("pre_tokenizer", value.data, &fault), ERR_TOO_LARGE);
    buf_clear(&value);
    for (int i = 0; i < 4097; i++)
        buf_printf(&value, "%c{\"id\":%d,\"content\":\"t%d\"}",
            i == 0 ? '[' : ',', i + 10, i);
    buf_add_char(&value, ']');
    assert_int_equal(load("added_tokens", value.data, &fault), ERR_TOO_LARGE);
    buf_clear(&value);
    buf_add_str(&value, "{\"type\":\"Prepend\",\"prepend\":\"");
    for (int i = 0; i < 65; i++)
        buf_add_char(&value, 'x');
    buf_add_str(&value, "\"}");
    assert_int_equal(load("normalizer", value.data, &fault), ERR_TOO_LARGE);
    /* nesting is bounded where JSON is read */
    buf_clear(&value);
    for (int i = 0; i < 40; i++)
        buf_add_str(&value, "{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 40; i++)
        buf_add_str(&value, "]}");
    assert_int_equal(load("normalizer", value.data, &fault), ERR_INVALID);
    buf_release(&value);
}

/* ---- precompiled maps: one block of units, then replacements ------------- */

#define N_UNITS 256

struct map {
    uint32_t size; /* of the units in bytes, as it is written */
    uint32_t units[N_UNITS];
    const char *strings;
    size_t n_strings;
};

/* "a" becomes "xy": root at base 1, unit 1 ^ 'a' ends, its value beside it. */
static void
make_map(struct map *map)
{
    const uint32_t a = 1 ^ 'a', base = 200;
    *map = (struct map){
        .size = sizeof map->units, .strings = "\0xy\0", .n_strings = 4};
    map->units[0] = 1 << 10;
    map->units[a] = 'a' | 1 << 8 | (a ^ base) << 10;
    map->units[base] = 0x80000000U | 1;
}

/* The base64 text of a map, appended. */
static void
add_map(struct buf *out, const struct map *map)
{
    struct buf bytes;
    buf_init(&bytes, 1 << 16);
    for (int k = 0; k < 32; k += 8)
        buf_add_char(&bytes, (char)(map->size >> k & 255));
    for (size_t i = 0; i < N_UNITS; i++) {
        for (int k = 0; k < 32; k += 8)
            buf_add_char(&bytes, (char)(map->units[i] >> k & 255));
    }
    buf_add(&bytes, map->strings, map->n_strings);
    base64_encode(out, bytes.data, bytes.len);
    buf_release(&bytes);
}

static enum err
load_map(const struct map *map, struct fault *fault)
{
    struct buf value;
    buf_init(&value, 1 << 16);
    buf_add_str(
        &value, "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"");
    add_map(&value, map);
    buf_add_str(&value, "\"}");
    enum err err = load("normalizer", value.data, fault);
    buf_release(&value);
    return err;
}

static void
check_mapped(const struct charsmap *map, const char *text, const char *want)
{
    struct scratch out;
    scratch_init(&out, 1 << 16);
    charsmap_apply(map, &out, text, strlen(text));
    assert_int_equal(out.len, strlen(want));
    assert_memory_equal(out.data, want, out.len);
    scratch_release(&out);
}

/* What a map does: the shortest key of a cluster takes the whole of it. */
static void
test_map_applied(void **state)
{
    struct map map;
    struct charsmap made = {0};
    struct buf text;
    const uint32_t cr = 1 ^ '\r', crlf = 64 ^ '\n', value = 201;
    (void)state;
    make_map(&map);
    map.units[cr] = '\r' | (cr ^ 64) << 10;
    map.units[crlf] = '\n' | 1 << 8 | (crlf ^ value) << 10;
    map.units[value] = 0x80000000U | 2;
    buf_init(&text, 1 << 16);
    add_map(&text, &map);
    assert_int_equal(charsmap_init(&made, text.data, text.len, "", NULL), OK);
    check_mapped(&made, "", "");
    check_mapped(&made, "bab", "bxyb");
    check_mapped(&made, "b\r\nb\rb\n", "byb\rb\n");
    check_mapped(&made, "ba\xCC\x81z", "bxyz"); /* a with its mark */
    check_mapped(&made, "a\xCC\x81\xCC\x81z", "xyz");
    check_mapped(&made, "a\xCC\x81\xCC\x81\xCC\x81z", /* seven bytes */
        "xy\xCC\x81\xCC\x81\xCC\x81z");
    charsmap_release(&made);
    buf_release(&text);
}

static void
refuse_map(const struct map *map, const char *word)
{
    struct fault fault = {0};
    assert_int_equal(load_map(map, &fault), ERR_INVALID);
    assert_string_equal(fault.pointer, "/normalizer");
    if (strstr(fault.detail, word) == NULL)
        fail_msg("%s", fault.detail);
}

static void
test_maps(void **state)
{
    struct map map;
    struct fault fault = {0};
    const uint32_t a = 1 ^ 'a';
    (void)state;
    make_map(&map);
    assert_int_equal(load_map(&map, &fault), OK);
    map.size = 0;
    refuse_map(&map, "double array of 0 bytes");
    map.size = 0xFFFFFFFF;
    refuse_map(&map, "double array");
    map.size = 1000;
    refuse_map(&map, "double array of 1000 bytes");
    make_map(&map);
    map.units[0] = 300 << 10; /* the root's children lie behind the array */
    refuse_map(&map, "unit 0 ");
    make_map(&map);
    map.units[0] |= 0x80000000U;
    refuse_map(&map, "begins with a value");
    make_map(&map);
    map.units[a] = 'a' | 1 << 9 | 7 << 10; /* the far offset: 7 << 8 */
    refuse_map(&map, "points to unit");
    make_map(&map);
    map.units[200] = 0x80000000U | 5; /* behind the replacements */
    refuse_map(&map, "no replacement");
    make_map(&map);
    map.units[200] = 1; /* no value */
    refuse_map(&map, "no replacement");
    make_map(&map);
    map.strings = "\0\xC3\xA9\0";
    map.units[200] = 0x80000000U | 2; /* inside a character */
    refuse_map(&map, "no replacement");
    make_map(&map);
    map.strings = "\0\xFFy\0";
    refuse_map(&map, "byte 1 ");
    assert_int_equal(load("normalizer",
                         "{\"type\":\"Precompiled\","
                         "\"precompiled_charsmap\":\"a!\"}",
                         &fault),
        ERR_INVALID);
    assert_non_null(strstr(fault.detail, "base64"));
    assert_int_equal(load("normalizer",
                         "{\"type\":\"Precompiled\","
                         "\"precompiled_charsmap\":\"\"}",
                         &fault),
        ERR_INVALID);
}

static void
refuse_vocab(const char *vocab, const char *pointer, const char *word)
{
    struct tokenizer *t = NULL;
    struct fault fault = {0};
    assert_int_equal(
        tokenizer_from_vocab(vocab, strlen(vocab), true, &t, &fault),
        ERR_INVALID);
    assert_null(t);
    assert_string_equal(fault.pointer, pointer);
    if (strstr(fault.detail, word) == NULL)
        fail_msg("%s", fault.detail);
}

static void
test_vocab_txt(void **state)
{
    struct tokenizer *t = NULL;
    const char *right = "[UNK]\n[CLS]\r\n[SEP]\na";
    size_t len;
    (void)state;
    assert_int_equal(
        tokenizer_from_vocab(right, strlen(right), true, &t, NULL), OK);
    assert_int_equal(tokenizer_n_ids(t), 4);
    assert_memory_equal(tokenizer_piece(t, 1, &len), "[CLS]", 5);
    assert_int_equal(len, 5);
    assert_null(tokenizer_piece(t, 4, &len));
    tokenizer_free(t);
    refuse_vocab("", "", "[UNK]");
    refuse_vocab("[UNK]\n[CLS]\n", "", "[SEP]");
    refuse_vocab("[UNK]\n\n[CLS]\n[SEP]\n", "line 2", "512");
    refuse_vocab("[UNK]\n[CLS]\n[SEP]\na\na\n", "", "\"a\"");
    refuse_vocab("[UNK]\n[CLS]\n[SEP]\n\xFF\n", "line 4", "UTF-8");
}

static void
refuse_pieces(const struct tokenizer_piece *pieces, size_t n,
    uint32_t unknown_id, const char *pointer)
{
    struct tokenizer *t = NULL;
    struct fault fault = {0};
    assert_int_equal(
        tokenizer_from_pieces(pieces, n, unknown_id, &t, &fault), ERR_INVALID);
    assert_null(t);
    assert_string_equal(fault.pointer, pointer);
}

static void
test_pieces(void **state)
{
    struct tokenizer *t = NULL;
    struct tokenizer_piece pieces[] = {
        {0, "?", 1, 0, true}, {1, "a", 1, -1, false}, {3, "a", 1, -2, false}};
    (void)state;
    assert_int_equal(tokenizer_from_pieces(pieces, 3, 0, &t, NULL), OK);
    assert_int_equal(tokenizer_n_ids(t), 4);
    tokenizer_free(t);
    refuse_pieces(pieces, 0, 0, "");
    refuse_pieces(pieces, 3, 2, "");
    pieces[1].score = (double)NAN;
    refuse_pieces(pieces, 3, 0, "/1");
    pieces[1].score = (double)INFINITY;
    refuse_pieces(pieces, 3, 0, "/1");
    pieces[1].score = 0;
    pieces[2].id = 1;
    refuse_pieces(pieces, 3, 0, "/2");
    pieces[2] = (struct tokenizer_piece){2, "a\0b", 3, 0, false};
    refuse_pieces(pieces, 3, 0, "/2");
    pieces[2] = (struct tokenizer_piece){1U << 20, "b", 1, 0, false};
    refuse_pieces(pieces, 3, 0, "/2");
}

/* Every allocation fails once: the code says so, and nothing is lost (the
   sanitizers' builds look). */
static void
test_memory_runs_out(void **state)
{
    static const char *const models[] = {WORDPIECE, UNIGRAM};
    uint32_t ids[16];
    size_t n, n_full;
    (void)state;
    for (size_t m = 0; m < ARRAY_LEN(models); m++) {
        struct buf file;
        enum err err = ERR_NOMEM;
        size_t at = 0;
        write_file(&file, "model", models[m]);
        for (char *s = strstr(file.data, "\"post_processor\"");
             m == 1 && s != NULL; s = NULL)
            s[1] = 'q'; /* whose special tokens a Unigram lacks */
        for (char *s = strstr(file.data, "\"added_tokens\"");
             m == 1 && s != NULL; s = NULL)
            s[1] = 'q';
        while (err == ERR_NOMEM) {
            struct tokenizer *t = NULL;
            struct tokenizer_workspace *w = NULL;
            alloc_fail_at(++at);
            err = tokenizer_from_json(file.data, file.len, &t, NULL);
            if (err == OK && (w = tokenizer_workspace_new()) == NULL)
                err = ERR_NOMEM;
            if (err == OK)
                err = tokenizer_encode(
                    t, "aba \xC3\xA9 \xFF", 8, 16, w, ids, &n, &n_full);
            alloc_fail_at(0);
            tokenizer_workspace_free(w);
            tokenizer_free(t);
            assert_true(at < 1000);
        }
        assert_int_equal(err, OK);
        assert_true(at > 20);
        buf_release(&file);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_no_json),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_maps),
        cmocka_unit_test(test_map_applied),
        cmocka_unit_test(test_vocab_txt),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
