/*
 * fuzz_server_ndjson - the line splitter on any bytes in any portions.
 *
 * The first byte chooses the size of the portions and the limit of a line.
 * Checked: the same lines come as from one portion, none over the limit, and
 * an unfinished line is never held beyond it.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "server/ndjson.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                             \
    do {                                                                       \
        if (!(cond)) {                                                         \
            abort();                                                           \
        }                                                                      \
    } while (0)

/* A digest of all that is reported. */
static uint64_t
split(const char *s, size_t size, size_t portion, size_t limit)
{
    struct ndjson nd;
    struct ndjson_line line;
    uint64_t digest = 0;
    int64_t last = 0;
    ndjson_init(&nd, limit);
    for (size_t at = 0; at <= size; at += portion) {
        size_t n = size - at < portion ? size - at : portion;
        MUST(ndjson_feed(&nd, s + at, n) == OK);
        if (size - at < portion)
            ndjson_end(&nd);
        while (ndjson_next(&nd, &line)) {
            MUST(line.line_no > last && line.len <= limit);
            MUST(line.too_long == (line.text == NULL));
            last = line.line_no;
            digest = hash_u64(digest ^ (uint64_t)line.line_no);
            digest = hash_bytes(line.text ? line.text : "", line.len, digest);
        }
        MUST(nd.pending.len - nd.at <= limit + 1);
    }
    ndjson_release(&nd);
    return digest;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *s = (const char *)data + 1;
    size_t portion = 1u + (data[0] & 15u);
    size_t limit = 1u + (data[0] >> 4);
    MUST(split(s, size - 1, portion, limit) ==
         split(s, size - 1, size + 1, limit));
    return 0;
}
