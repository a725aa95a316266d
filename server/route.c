#include "server/route.h"

#include <stdio.h>
#include <string.h>
#include "server/ep.h"

#define C "/v1/collections/{collection}"
#define A "/v1/admin/collections/{collection}"

#define NO_LINES LINES_NONE
#define GET_READ(pattern, name, fn)                                            \
    {                                                                          \
        "GET", pattern, name, SCOPE_READ, BODY_NONE, POOL_READ, NO_LINES, 0,   \
            fn                                                                 \
    }
#define POST_READ(pattern, name, fn, flags)                                    \
    {                                                                          \
        "POST", pattern, name, SCOPE_READ, BODY_JSON, POOL_READ, NO_LINES,     \
            flags, fn                                                          \
    }
#define WRITE(method, pattern, name, scope, body, fn, flags)                   \
    {                                                                          \
        method, pattern, name, scope, body, POOL_WRITE, NO_LINES, flags, fn    \
    }
#define QUICK(pattern, name, scope, fn)                                        \
    {                                                                          \
        "GET", pattern, name, scope, BODY_NONE, POOL_QUICK, NO_LINES, 0, fn    \
    }
const struct route routes[] = {
    QUICK("/", "root", SCOPE_NONE, ep_root),
    QUICK("/healthz", "healthz", SCOPE_NONE, ep_healthz),
    QUICK("/livez", "livez", SCOPE_NONE, ep_livez),
    QUICK("/readyz", "readyz", SCOPE_NONE, ep_readyz),
    QUICK("/openapi.json", "openapi", SCOPE_NONE, ep_openapi),
    GET_READ("/metrics", "metrics", ep_metrics),
    GET_READ("/v1/info", "info", ep_info),
    GET_READ("/v1/encoders", "listEncoders", ep_encoders_list),
    GET_READ("/v1/encoders/{name}", "getEncoder", ep_encoder_get),
    WRITE("PUT", "/v1/admin/encoders/{name}", "importEncoder", SCOPE_ADMIN,
        BODY_TAR, ep_encoder_put, 0),
    WRITE("DELETE", "/v1/admin/encoders/{name}", "deleteEncoder", SCOPE_ADMIN,
        BODY_NONE, ep_encoder_delete, 0),

    POST_READ("/v1/embeddings", "createEmbeddings", ep_embeddings,
        ROUTE_IDEMPOTENT | ROUTE_OPENAI),
    POST_READ("/v1/tokenize", "tokenize", ep_tokenize, ROUTE_IDEMPOTENT),
    POST_READ("/v1/similarity", "similarity", ep_similarity, ROUTE_IDEMPOTENT),

    GET_READ("/v1/collections", "listCollections", ep_collections_list),
    WRITE("PUT", C, "putCollection", SCOPE_ADMIN, BODY_JSON, ep_collection_put,
        ROUTE_BODY_OPTIONAL),
    GET_READ(C, "getCollection", ep_collection_get),
    WRITE("PATCH", C, "patchCollection", SCOPE_ADMIN, BODY_JSON,
        ep_collection_patch, 0),
    WRITE("DELETE", C, "deleteCollection", SCOPE_ADMIN, BODY_NONE,
        ep_collection_delete, 0),

    {"GET", "/v1/aliases", "listAliases", SCOPE_ADMIN, BODY_NONE, POOL_READ,
        NO_LINES, 0, ep_aliases_list},
    WRITE("PUT", "/v1/aliases/{alias}", "putAlias", SCOPE_ADMIN, BODY_JSON,
        ep_alias_put, 0),
    {"GET", "/v1/aliases/{alias}", "getAlias", SCOPE_ADMIN, BODY_NONE,
        POOL_READ, NO_LINES, 0, ep_alias_get},
    WRITE("DELETE", "/v1/aliases/{alias}", "deleteAlias", SCOPE_ADMIN,
        BODY_NONE, ep_alias_delete, 0),

    {"POST", C "/items", "addItems", SCOPE_WRITE, BODY_LINES, POOL_WRITE,
        LINES_ITEMS, ROUTE_IDEMPOTENT, ep_items_add},
    GET_READ(C "/items", "listItems", ep_items_list),
    WRITE("POST", C "/items/delete", "deleteItems", SCOPE_WRITE, BODY_JSON,
        ep_items_delete, ROUTE_IDEMPOTENT),
    WRITE("PUT", C "/items/{id}", "putItem", SCOPE_WRITE, BODY_JSON,
        ep_item_put, 0),
    GET_READ(C "/items/{id}", "getItem", ep_item_get),
    WRITE("PATCH", C "/items/{id}", "patchItem", SCOPE_WRITE, BODY_JSON,
        ep_item_patch, 0),
    WRITE("DELETE", C "/items/{id}", "deleteItem", SCOPE_WRITE, BODY_NONE,
        ep_item_delete, 0),
    WRITE("PUT", C "/items/{id}/image", "putItemImage", SCOPE_WRITE, BODY_IMAGE,
        ep_image_put, 0),
    GET_READ(C "/items/{id}/image", "getItemImage", ep_image_get),
    WRITE("DELETE", C "/items/{id}/image", "deleteItemImage", SCOPE_WRITE,
        BODY_NONE, ep_image_delete, 0),
    GET_READ(C "/items/{id}/views", "getItemViews", ep_image_views),

    POST_READ(C "/search", "search", ep_search, ROUTE_IDEMPOTENT),
    POST_READ(
        C "/search/batch", "searchBatch", ep_search_batch, ROUTE_IDEMPOTENT),
    {"POST", C "/search/image", "searchImage", SCOPE_READ, BODY_IMAGE,
        POOL_READ, NO_LINES, 0, ep_search_image},

    {"POST", C "/pairs", "addPairs", SCOPE_WRITE, BODY_LINES, POOL_WRITE,
        LINES_PAIRS, ROUTE_IDEMPOTENT, ep_pairs_add},
    GET_READ(C "/pairs", "listPairs", ep_pairs_list),
    GET_READ(C "/pairs/{pair}", "getPair", ep_pair_get),
    WRITE("DELETE", C "/pairs/{pair}", "deletePair", SCOPE_WRITE, BODY_NONE,
        ep_pair_delete, 0),
    WRITE("POST", C "/feedback", "feedback", SCOPE_WRITE, BODY_JSON,
        ep_feedback, ROUTE_IDEMPOTENT),

    {"GET", A "/export", "exportCollection", SCOPE_ADMIN, BODY_NONE, POOL_WRITE,
        NO_LINES, 0, ep_export},
    {"POST", A "/import", "importCollection", SCOPE_ADMIN, BODY_STREAM,
        POOL_WRITE, LINES_IMPORT, 0, ep_import},
    WRITE("POST", A "/train", "train", SCOPE_ADMIN, BODY_JSON, ep_train,
        ROUTE_IDEMPOTENT | ROUTE_BODY_OPTIONAL),
    GET_READ(C "/generations", "listGenerations", ep_generations_list),
    GET_READ(C "/generations/{generation}", "getGeneration", ep_generation_get),
    {"GET", C "/generations/{generation}/weights", "getWeights", SCOPE_READ,
        BODY_NONE, POOL_WRITE, NO_LINES, 0, ep_weights},
    {"GET", C "/generations/{generation}/folder", "getFolder", SCOPE_READ,
        BODY_NONE, POOL_WRITE, NO_LINES, 0, ep_folder},
    WRITE("POST", A "/generations/{generation}/promote", "promoteGeneration",
        SCOPE_ADMIN, BODY_JSON, ep_promote,
        ROUTE_IDEMPOTENT | ROUTE_BODY_OPTIONAL),
    WRITE("POST", A "/rollback", "rollback", SCOPE_ADMIN, BODY_JSON,
        ep_rollback, ROUTE_IDEMPOTENT | ROUTE_BODY_OPTIONAL),

    GET_READ("/v1/jobs", "listJobs", ep_jobs_list),
    GET_READ("/v1/jobs/{job}", "getJob", ep_job_get),
    WRITE("DELETE", "/v1/jobs/{job}", "cancelJob", SCOPE_ADMIN, BODY_NONE,
        ep_job_cancel, 0),
    GET_READ("/v1/jobs/{job}/events", "jobEvents", ep_job_events),

    WRITE("POST", "/v1/admin/backup", "startBackup", SCOPE_ADMIN, BODY_JSON,
        ep_backup_start, ROUTE_IDEMPOTENT | ROUTE_BODY_OPTIONAL),
    {"GET", "/v1/admin/backups", "listBackups", SCOPE_ADMIN, BODY_NONE,
        POOL_READ, NO_LINES, 0, ep_backups_list},
    {"GET", "/v1/admin/backups/{name}", "getBackup", SCOPE_ADMIN, BODY_NONE,
        POOL_WRITE, NO_LINES, 0, ep_backup_get},
};

const size_t n_routes = sizeof(routes) / sizeof(routes[0]);

static void
add_allowed(char *allow, size_t cap, const char *method)
{
    /* A method is listed once, even when two patterns match the path. */
    const char *at = strstr(allow, method);
    if (at && (at == allow || at[-1] == ' '))
        return;
    size_t len = strlen(allow);
    (void)snprintf(allow + len, cap - len, "%s%s", len > 0 ? ", " : "", method);
}

const struct route *
route_find(const char *method, const char *path, size_t path_len,
    struct uri_slice params[URI_PARAMS_MAX], size_t *n_params, char *allow,
    size_t cap)
{
    const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
    allow[0] = '\0';
    for (size_t i = 0; i < n_routes; i++) {
        struct uri_slice found[URI_PARAMS_MAX];
        size_t n = 0;
        if (!uri_match(routes[i].pattern, path, path_len, found, &n))
            continue;
        if (strcmp(routes[i].method, wanted) == 0) {
            /* The table lists literal patterns before those with {names}. */
            memcpy(params, found, sizeof(found));
            *n_params = n;
            return &routes[i];
        }
        add_allowed(allow, cap, routes[i].method);
        if (strcmp(routes[i].method, "GET") == 0)
            add_allowed(allow, cap, "HEAD");
    }
    if (allow[0] != '\0')
        add_allowed(allow, cap, "OPTIONS");
    return NULL;
}
