/*
 * fuzz_base_json - the JSON tree, its canonical text, the float reader and
 * base64 on any bytes.
 *
 * Checked beside the absence of crashes: a dump parses again and dumps to the
 * same text; whatever the float reader accepts, the tree accepts too, with the
 * same values; what base64_decode accepts encodes to the same text.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                             \
    do {                                                                       \
        if (!(cond)) {                                                         \
            abort();                                                           \
        }                                                                      \
    } while (0)

static void
try_tree(const char *text, size_t len)
{
    struct json *root = NULL, *again = NULL;
    struct fault fault = {0};
    struct buf first, second;

    if (json_parse(text, len, 1 << 20, &root, &fault) != OK) {
        MUST(root == NULL && fault.err != OK && fault.detail[0] != '\0');
        return;
    }
    buf_init(&first, 16 << 20);
    buf_init(&second, 16 << 20);
    json_dump(root, &first);
    MUST(buf_status(&first) == OK);
    MUST(json_parse(first.data, first.len, 16 << 20, &again, NULL) == OK);
    json_dump(again, &second);
    MUST(buf_status(&second) == OK && first.len == second.len);
    MUST(memcmp(first.data, second.data, first.len) == 0);
    json_free(root);
    json_free(again);
    buf_release(&first);
    buf_release(&second);
}

static void
try_floats(const char *text, size_t len)
{
    static float out[4096];
    struct json *root = NULL;
    const char *end = NULL;
    size_t n = 0;

    if (json_read_floats(text, len, out, 4096, &n, &end, NULL) != OK) {
        return;
    }
    MUST(n <= 4096 && end > text && end <= text + len && end[-1] == ']');
    enum err err = json_parse(text, (size_t)(end - text), 1 << 20, &root, NULL);
    if (err == ERR_TOO_LARGE || err == ERR_INVALID) {
        return; /* an integer past int64, which is a float all the same */
    }
    MUST(err == OK && json_count(root) == n);
    for (size_t i = 0; i < n; i++) {
        /* By bits but for the sign of zero: a tree has integers, -0 is 0. */
        float want = (float)json_f64(json_item(root, i));
        MUST(memcmp(&want, &out[i], sizeof(want)) == 0 ||
             (want == 0 && out[i] == 0));
    }
    json_free(root);
}

static void
try_base64(const char *text, size_t len)
{
    static char out[1 << 16];
    struct buf buf;
    size_t n = 0;

    if (base64_decode(text, len, out, sizeof(out), &n) != OK) {
        return;
    }
    buf_init(&buf, 1 << 20);
    base64_encode(&buf, out, n);
    MUST(buf_status(&buf) == OK && buf.len == len);
    MUST(len == 0 || memcmp(buf.data, text, len) == 0);
    buf_release(&buf);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;

    if (size == 0) {
        text = "";
    }
    try_tree(text, size);
    try_floats(text, size);
    try_base64(text, size);
    return 0;
}
