/*
 * fuzz_server_codec_item - bodies of items, pairs and the small requests, from
 * any bytes.
 *
 * Checked beside the absence of crashes: a refusal has a reason; what is
 * accepted is finite, terminated and within its limits.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                             \
    do {                                                                       \
        if (!(cond)) {                                                         \
            abort();                                                           \
        }                                                                      \
    } while (0)

static void
refused(enum err err, const struct fault *fault)
{
    MUST(err != OK && fault->err == err && fault->detail[0] != '\0');
}

static void
check_item(const struct engine_item *item)
{
    MUST(item->id != NULL);
    MUST(!item->text.s || item->text.s[item->text.len] == '\0');
    MUST(!item->metadata.s || item->metadata.s[0] == '{');
    MUST(item->n_vector <= CODEC_VECTOR_MAX);
    MUST((item->vector == NULL) == (item->n_vector == 0));
    for (size_t i = 0; i < item->n_vector; i++)
        MUST(isfinite(item->vector[i]));
    MUST((item->image.bytes == NULL) == (item->image.n == 0));
    MUST(!item->image.bytes || !item->no_image);
    /* every byte is ours to read */
    const uint8_t *bytes = item->image.bytes;
    unsigned sum = 0;
    for (size_t i = 0; i < item->image.n; i++)
        sum += bytes[i];
    MUST(sum <= 255u * item->image.n);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *s = (const char *)data;
    struct arena arena;
    struct fault fault = {0};
    struct engine_item item;
    struct engine_item *items = NULL;
    struct engine_pair pair;
    struct engine_pair *pairs = NULL;
    struct codec_delete what;
    struct codec_feedback pick;
    const char *text = NULL;
    size_t n = 0;
    arena_init(&arena, 16u << 20);

    enum err err = codec_read_item(s, size, NULL, &arena, &item, &fault);
    if (err == OK)
        check_item(&item);
    else
        refused(err, &fault);
    memset(&fault, 0, sizeof(fault));
    err = codec_read_items(s, size, &arena, &items, &n, &fault);
    if (err != OK)
        refused(err, &fault);
    for (size_t i = 0; err == OK && i < n; i++)
        check_item(&items[i]);
    memset(&fault, 0, sizeof(fault));
    err = codec_read_pair(s, size, &arena, &pair, &fault);
    if (err != OK)
        refused(err, &fault);
    else
        MUST(pair.weight > 0 && isfinite(pair.weight) &&
             pair.n_negatives <= ENGINE_NEGATIVES_MAX);
    if (codec_read_pairs(s, size, &arena, &pairs, &n, &fault) == OK)
        MUST(n <= ENGINE_BATCH_ITEMS_MAX);
    if (codec_read_delete(s, size, &arena, &what, &fault) == OK)
        MUST((what.ids != NULL) != (what.filter_json != NULL));
    if (codec_read_feedback(s, size, &arena, &pick, &fault) == OK)
        MUST(pick.search_id && pick.item_id);
    if (codec_read_metadata_patch(s, size, &arena, &text, &fault) == OK)
        MUST(text[0] == '{');
    if (codec_read_object(s, size, &arena, &text, &fault) == OK)
        MUST(text != NULL);
    (void)!codec_read_nothing(s, size, &fault);
    arena_release(&arena);
    return 0;
}
