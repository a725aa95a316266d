/*
 * fuzz_server_codec_query - bodies of searches and of the encoding endpoints,
 * and request targets, from any bytes.
 *
 * Checked beside the absence of crashes: a refusal has a reason; an accepted
 * query has exactly one source and values within their ranges; what is decoded
 * from a target is no longer than it.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/codec.h"
#include "server/route.h"
#include "server/uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                             \
    do {                                                                       \
        if (!(cond)) {                                                         \
            abort();                                                           \
        }                                                                      \
    } while (0)

static void
check_query(const struct engine_query *query)
{
    int n = (query->text.s != NULL) + (query->image.bytes != NULL) +
            (query->vector != NULL) + (query->id != NULL) +
            (query->positive != NULL);
    MUST(n == 1);
    MUST(query->k >= 1 && query->k <= ENGINE_K_MAX);
    MUST(query->min_probability >= 0 && query->min_probability <= 1);
    for (size_t i = 0; i < query->n_vector; i++)
        MUST(isfinite(query->vector[i]));
    MUST((query->image.bytes == NULL) == (query->image.n == 0));
}

static void
try_target(const char *s, size_t size)
{
    char *copy = malloc(size + 1);
    struct uri_param args[URI_QUERY_MAX];
    struct uri_slice params[URI_PARAMS_MAX];
    char allow[128];
    size_t n = 0;
    if (!copy)
        return;
    memcpy(copy, s, size);
    copy[size] = '\0';
    const struct route *route =
        route_find("GET", copy, strlen(copy), params, &n, allow, sizeof(allow));
    MUST(!route || n <= URI_PARAMS_MAX);
    if (uri_query(copy, strlen(copy), args, &n) == OK)
        for (size_t i = 0; i < n; i++)
            MUST(strlen(args[i].name) == args[i].name_len &&
                 strlen(args[i].value) == args[i].value_len &&
                 args[i].value_len <= size);
    free(copy);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *s = (const char *)data;
    struct arena arena;
    struct fault fault = {0};
    struct engine_query query;
    struct engine_query *queries = NULL;
    struct fault *faults = NULL;
    struct codec_embed embed;
    struct codec_similarity similarity;
    size_t n = 0;
    arena_init(&arena, 16u << 20);

    enum err err = codec_read_query(s, size, &arena, &query, &fault);
    if (err == OK)
        check_query(&query);
    else
        MUST(fault.err == err && fault.detail[0] != '\0');
    err = codec_read_queries(s, size, &arena, &queries, &faults, &n, &fault);
    for (size_t i = 0; err == OK && i < n; i++)
        if (faults[i].err == OK)
            check_query(&queries[i]);
    if (codec_read_embed(s, size, &arena, &embed, &fault) == OK)
        MUST(embed.model && embed.n >= 1 && embed.n <= CODEC_EMBED_INPUTS);
    if (codec_read_tokenize(s, size, &arena, &embed, &fault) == OK)
        MUST(embed.model && embed.n >= 1);
    if (codec_read_similarity(s, size, &arena, &similarity, &fault) == OK)
        MUST(similarity.source.s && similarity.n >= 1);
    try_target(s, size);
    arena_release(&arena);
    return 0;
}
