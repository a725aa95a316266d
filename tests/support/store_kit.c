#include "store/weights.h"
#include "tests/support/store_kit.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

static void
must(enum err err, const char *what)
{
    if (err != OK) {
        fprintf(stderr, "store_kit: %s: %s\n", what, err_text(err));
        abort();
    }
}

void
kit_make_dir(char *dir, size_t n)
{
    const char *tmp = getenv("TMPDIR");

    snprintf(dir, n, "%s/store_test.XXXXXX", tmp == NULL ? "/tmp" : tmp);
    must(mkdtemp(dir) == NULL ? ERR_IO : OK, dir);
}

void
kit_remove_dir(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        char inner[512];
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 ||
            strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
        if (lstat(inner, &st) == 0 && S_ISDIR(st.st_mode)) {
            kit_remove_dir(inner);
        } else {
            unlink(inner);
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    rmdir(path);
}

void
kit_open(struct kit *kit, const struct store_options *options)
{
    struct fault fault = {0};

    memset(kit, 0, sizeof(*kit));
    arena_init(&kit->arena, 1 << 24);
    kit_make_dir(kit->dir, sizeof(kit->dir));
    must(store_open(&kit->store, kit->dir, options, &fault), fault.detail);
}

void
kit_reopen(struct kit *kit, const struct store_options *options)
{
    struct fault fault = {0};

    store_close(kit->store);
    kit->store = NULL;
    must(store_open(&kit->store, kit->dir, options, &fault), fault.detail);
}

void
kit_close(struct kit *kit)
{
    store_close(kit->store);
    arena_release(&kit->arena);
    kit_remove_dir(kit->dir);
    memset(kit, 0, sizeof(*kit));
}

struct make {
    struct kit *kit;
    const char *name;
};

static enum err
make_collection(struct db *db, void *arg)
{
    struct make *make = arg;
    struct kit *kit = make->kit;
    struct generation_new first = {.dims = KIT_DIMS,
        .fingerprint = {1},
        .temperature = 0.05,
        .family = store_text_of("static"),
        .config = store_text_of("{}"),
        .seed = 0xfedcba9876543210};
    enum err err = collections_create(db, store_text_of(make->name),
        store_text_of("{\"dims\":4}"), store_text_of("{}"), 1000,
        &kit->collection);

    if (err == OK) {
        err = generations_create(db, kit->collection, &first, 1000,
            &kit->generation_id, &kit->generation, &kit->space);
    }
    struct generation_publish publish = {.collection = kit->collection,
        .generation = kit->generation,
        .now_ms = 1000};
    return err == OK ? generations_publish(db, &publish) : err;
}

void
kit_make_collection(struct kit *kit, const char *name)
{
    struct make make = {kit, name};

    must(store_run(kit->store, make_collection, &make), "collection");
}

struct make_generation {
    struct kit *kit;
    uint8_t fingerprint;
    int64_t id, generation, space;
};

static enum err
make_generation(struct db *db, void *arg)
{
    struct make_generation *make = arg;
    struct generation_new next = {.parent = make->kit->generation,
        .dims = KIT_DIMS,
        .fingerprint = {make->fingerprint},
        .temperature = 0.07,
        .family = store_text_of("static"),
        .config = store_text_of("{\"v\":2}"),
        .pairs_upto = 7};

    return generations_create(db, make->kit->collection, &next, 2000, &make->id,
        &make->generation, &make->space);
}

void
kit_make_generation(struct kit *kit, uint8_t fingerprint, int64_t *id,
    int64_t *generation, int64_t *space)
{
    struct make_generation make = {.kit = kit, .fingerprint = fingerprint};

    must(store_run(kit->store, make_generation, &make), "generation");
    *id = make.id;
    *generation = make.generation;
    *space = make.space;
}

struct put {
    struct kit *kit;
    const char *prefix;
    size_t n;
    uint8_t version;
    bool with_vectors;
};

static enum err
put_items(struct db *db, void *arg)
{
    const struct put *put = arg;
    enum err err = OK;

    for (size_t i = 0; i < put->n && err == OK; i++) {
        char id[64], text[96];
        struct item_result result;
        float vector[KIT_DIMS];
        snprintf(id, sizeof(id), "%s%zu", put->prefix, i);
        snprintf(text, sizeof(text), "text of %s", id);
        struct item_put item = {.ext_id = store_text_of(id),
            .title = store_text_of("title"),
            .text = store_text_of(text),
            .metadata = store_text_of("{}")};
        memset(item.content_hash, put->version, ITEM_HASH_BYTES);
        err = items_put(db, put->kit->collection, &item, 1, 1000, &result);
        for (size_t d = 0; d < KIT_DIMS; d++) {
            vector[d] = (float)result.item;
        }
        if (err == OK && put->with_vectors) {
            err = vectors_put(
                db, put->kit->space, &result.item, 1, vector, KIT_DIMS);
        }
    }
    return err;
}

enum err
kit_put_items(struct kit *kit, const char *prefix, size_t n, uint8_t version,
    bool with_vectors)
{
    struct put put = {kit, prefix, n, version, with_vectors};

    return store_run(kit->store, put_items, &put);
}

struct delete
{
    struct kit *kit;
    const char *id;
};

static enum err
delete_item(struct db *db, void *arg)
{
    const struct delete *delete = arg;
    struct store_text id = store_text_of(delete->id);
    struct item_result result;
    enum err err =
        items_delete(db, delete->kit->collection, &id, 1, 0, &result);

    return err == OK ? result.err : err;
}

enum err
kit_delete_item(struct kit *kit, const char *id)
{
    struct delete delete = {kit, id};

    return store_run(kit->store, delete_item, &delete);
}

struct backfill {
    int64_t space;
    size_t n;
    int64_t items[256];
    uint8_t hashes[256][ITEM_HASH_BYTES];
    float vectors[256 * KIT_DIMS];
    size_t n_put;
};

static enum err
note_missing(void *ctx, const struct item_row *row)
{
    struct backfill *b = ctx;

    b->items[b->n] = row->item;
    memcpy(b->hashes[b->n], row->content_hash, ITEM_HASH_BYTES);
    b->n++;
    return OK;
}

static enum err
put_backfill(struct db *db, void *arg)
{
    struct backfill *b = arg;

    return vectors_backfill(db, b->space, b->items,
        (const uint8_t(*)[ITEM_HASH_BYTES])b->hashes, b->n, b->vectors,
        KIT_DIMS, &b->n_put);
}

size_t
kit_backfill(struct kit *kit, int64_t space)
{
    struct backfill *b = mem_calloc(1, sizeof(*b));
    size_t total = 0;

    must(b == NULL ? ERR_NOMEM : OK, "memory");
    do {
        struct db *db = NULL;
        b->space = space;
        b->n = 0;
        must(store_read_begin(kit->store, &db), "reader");
        must(vectors_walk_missing(db, space, 0, 256, 0, note_missing, b),
            "missing");
        store_read_end(kit->store, db);
        must(store_run(kit->store, put_backfill, b), "backfill");
        total += b->n_put;
    } while (b->n > 0);
    mem_free(b);
    return total;
}

static enum err
publish(struct db *db, void *arg)
{
    return generations_publish(db, arg);
}

enum err
kit_publish(struct kit *kit, int64_t generation, int64_t expected_live)
{
    struct generation_publish arg = {.collection = kit->collection,
        .generation = generation,
        .expected_live = expected_live,
        .now_ms = 3000};

    return store_run(kit->store, publish, &arg);
}

void
kit_check(struct kit *kit)
{
    struct fault fault = {0};

    must(store_check(kit->store, &fault), fault.detail);
}

struct load {
    unsigned char *bytes;
    size_t n;
};

static enum err
load_chunk(void *ctx, const void *bytes, size_t n)
{
    struct load *load = ctx;
    void *grown = mem_realloc(load->bytes, load->n + n + 1, 1);

    if (grown == NULL) {
        return ERR_NOMEM;
    }
    load->bytes = grown;
    memcpy(load->bytes + load->n, bytes, n);
    load->n += n;
    return OK;
}

enum err
weights_load(
    struct store *store, int64_t generation_id, void **bytes, size_t *n)
{
    struct load load = {.n = 0};
    enum err err = weights_read(store, generation_id, load_chunk, &load);

    if (err != OK) {
        mem_free(load.bytes);
        return err;
    }
    *bytes = load.bytes;
    *n = load.n;
    return OK;
}
