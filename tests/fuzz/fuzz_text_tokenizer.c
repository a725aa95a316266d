/*
 * fuzz_text_tokenizer - a tokenizer file and a text, any bytes each.
 *
 * The input is the file up to the first byte 0 (which JSON has not), then the
 * text. Without a file two built-in ones take the text; without a text some
 * fixed ones are cut.
 *
 * Checked beside the absence of crashes: a refusal says why; a tokenizer that
 * was made gives numbers that it knows, the special tokens however short the
 * answer is, and the beginning of the whole answer when it is cut; a text and
 * the same text in a workspace that has seen it give the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                             \
    do {                                                                       \
        if (!(cond)) {                                                         \
            abort();                                                           \
        }                                                                      \
    } while (0)

#define TOKENS_MAX 4096

static const char *const own[] = {
    "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"[CLS]\":1,"
    "\"[SEP]\":2,\"a\":3,\"##a\":4,\"##b\":5,\"b\":6,\".\":7}},"
    "\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":"
    "{\"type\":\"BertPreTokenizer\"},\"post_processor\":{\"type\":"
    "\"BertProcessing\",\"cls\":[\"[CLS]\",1],\"sep\":[\"[SEP]\",2]},"
    "\"added_tokens\":[{\"id\":2,\"content\":\"[SEP]\"}]}",
    "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"byte_fallback\":true,"
    "\"vocab\":[[\"?\",0],[\"\\u2581\",-1],[\"a\",-2],[\"\\u2581a\",-2],"
    "[\"ab\",-3],[\"<0xC3>\",-9],[\"<0x81>\",-9]]},\"normalizer\":"
    "{\"type\":\"NFKC\"},\"pre_tokenizer\":{\"type\":\"Metaspace\","
    "\"replacement\":\"\\u2581\",\"split\":false}}",
};
static const char *const texts[] = {"", "a", "Hello, w\xC3\xB6rld! [SEP] ab",
    "\xEF\xBC\xA1\xCC\x81 \xE2\x96\x81 <s>\r\n", "\xFF\xE4\xB8"};

static void
check_text(const struct tokenizer *t, const char *s, size_t len)
{
    static uint32_t all[TOKENS_MAX], some[TOKENS_MAX];
    struct tokenizer_workspace *w = tokenizer_workspace_new();
    size_t n, n_full, n_some, n_again, n_piece;
    size_t least = tokenizer_n_special(t);

    MUST(w != NULL);
    enum err err = tokenizer_encode(t, s, len, TOKENS_MAX, w, all, &n, &n_full);
    MUST(err == OK || err == ERR_TOO_LARGE);
    if (err != OK) {
        tokenizer_workspace_free(w);
        return;
    }
    MUST(n >= least && n <= TOKENS_MAX && n <= n_full);
    for (size_t i = 0; i < n; i++)
        MUST(tokenizer_piece(t, all[i], &n_piece) != NULL && n_piece > 0);
    for (size_t max = least; max <= n && max < least + 3; max++) {
        MUST(
            tokenizer_encode(t, s, len, max, w, some, &n_some, &n_again) == OK);
        MUST(n_again == n_full && n_some == max);
    }
    MUST(tokenizer_encode(t, s, len, TOKENS_MAX, w, some, &n_some, &n_again) ==
         OK);
    MUST(n_some == n && n_again == n_full);
    MUST(memcmp(all, some, n * sizeof *all) == 0);
    tokenizer_workspace_free(w);
}

static void
check_file(const char *json, size_t json_len, const char *s, size_t len)
{
    struct tokenizer *t = NULL;
    struct fault fault = {0};
    enum err err = tokenizer_from_json(json, json_len, &t, &fault);

    MUST((err == OK) == (t != NULL));
    if (err != OK) {
        MUST(fault.err == err && fault.detail[0] != '\0');
        return;
    }
    if (s != NULL)
        check_text(t, s, len);
    for (size_t i = 0; s == NULL && i < ARRAY_LEN(texts); i++)
        check_text(t, texts[i], strlen(texts[i]));
    tokenizer_free(t);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *bytes = size == 0 ? "" : (const char *)data;
    const char *end = memchr(bytes, 0, size);
    size_t json_len = end == NULL ? size : (size_t)(end - bytes);
    size_t len = end == NULL ? 0 : size - json_len - 1;
    struct tokenizer *t = NULL;

    if (json_len > 0)
        check_file(bytes, json_len, end == NULL ? NULL : end + 1, len);
    for (size_t i = 0; json_len == 0 && i < ARRAY_LEN(own); i++)
        check_file(own[i], strlen(own[i]), end == NULL ? NULL : end + 1, len);
    if (tokenizer_from_vocab(bytes, size, (size & 1) != 0, &t, NULL) == OK)
        check_text(t, bytes, size);
    tokenizer_free(t);
    return 0;
}
