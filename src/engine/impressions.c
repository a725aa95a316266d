#include "engine/impressions.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/rng.h"

struct slot {
    uint64_t key; /* 0: empty */
    int64_t collection;
    char *bytes; /* items, then text, then id with its NUL */
    uint32_t n_items;
    uint32_t text_len;
    uint32_t size;
    bool has_text;
    bool has_id;
    bool by_image;
};

struct impressions {
    pthread_mutex_t lock;
    struct rng rng;
    struct slot *slots; /* a ring, oldest at first */
    size_t cap;
    size_t first;
    size_t n;
    size_t bytes;
    uint32_t *table; /* key -> slot, open addressing; UINT32_MAX empty */
    size_t table_size;
};

enum err
impressions_new(struct impressions **out, size_t max)
{
    struct impressions *im = mem_calloc(1, sizeof(*im));
    if (!im) {
        return ERR_NOMEM;
    }
    pthread_mutex_init(&im->lock, NULL);
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed)) {
        seed = (uint64_t)clock_mono_ns() ^ (uint64_t)(uintptr_t)im;
    }
    rng_seed(&im->rng, seed);
    im->cap = max;
    im->table_size = 16;
    while (im->table_size < max * 2) {
        im->table_size *= 2;
    }
    im->slots = mem_calloc(max, sizeof(*im->slots));
    im->table = mem_alloc(im->table_size, sizeof(*im->table));
    if (!im->slots || !im->table) {
        impressions_free(im);
        return ERR_NOMEM;
    }
    memset(im->table, 0xff, im->table_size * sizeof(*im->table));
    *out = im;
    return OK;
}

void
impressions_free(struct impressions *im)
{
    if (!im) {
        return;
    }
    for (size_t i = 0; im->slots && i < im->cap; i++) {
        mem_free(im->slots[i].bytes);
    }
    mem_free(im->slots);
    mem_free(im->table);
    pthread_mutex_destroy(&im->lock);
    mem_free(im);
}

size_t
impressions_bytes(struct impressions *im)
{
    pthread_mutex_lock(&im->lock);
    size_t n = im->bytes + im->cap * sizeof(*im->slots) +
               im->table_size * sizeof(*im->table);
    pthread_mutex_unlock(&im->lock);
    return n;
}

static size_t
find(const struct impressions *im, uint64_t key)
{
    size_t mask = im->table_size - 1;
    size_t at = hash_u64(key) & mask;
    while (im->table[at] != UINT32_MAX && im->slots[im->table[at]].key != key) {
        at = (at + 1) & mask;
    }
    return at;
}

/* Take an entry out of the table, closing the gap (Knuth, 6.4, algorithm R). */
static void
unlink_key(struct impressions *im, uint64_t key)
{
    size_t mask = im->table_size - 1;
    size_t hole = find(im, key);
    if (im->table[hole] == UINT32_MAX) {
        return;
    }
    for (size_t at = (hole + 1) & mask; im->table[at] != UINT32_MAX;
         at = (at + 1) & mask) {
        size_t home = hash_u64(im->slots[im->table[at]].key) & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            im->table[hole] = im->table[at];
            hole = at;
        }
    }
    im->table[hole] = UINT32_MAX;
}

static void
forget_oldest(struct impressions *im)
{
    struct slot *s = &im->slots[im->first];
    unlink_key(im, s->key);
    im->bytes -= s->size;
    mem_free(s->bytes);
    *s = (struct slot){.key = 0};
    im->first = (im->first + 1) % im->cap;
    im->n--;
}

void
impressions_add(struct impressions *im, const struct impression *in,
    char search_id[ENGINE_SEARCH_ID_BYTES])
{
    /* Of a query by picture nothing but that is kept. */
    size_t n_items = in->by_image ? 0 : in->n_items;
    size_t items_size = n_items * sizeof(*in->items);
    size_t text_len = in->text.s ? in->text.len : 0;
    size_t id_size = in->id ? strlen(in->id) + 1 : 0;
    size_t size = items_size + text_len + id_size;
    char *bytes = NULL;
    if (size <= IMPRESSIONS_BYTES_MAX / 16 &&
        (in->text.s || in->id || in->by_image)) {
        bytes = mem_alloc(size + 1, 1);
    }
    if (bytes) {
        if (items_size) {
            memcpy(bytes, in->items, items_size);
        }
        memcpy(bytes + items_size, text_len ? in->text.s : "", text_len);
        memcpy(bytes + items_size + text_len, in->id ? in->id : "", id_size);
    }
    pthread_mutex_lock(&im->lock);
    uint64_t key = rng_u64(&im->rng) | 1;
    if (bytes) {
        while (im->n == im->cap ||
               (im->n && im->bytes + size > IMPRESSIONS_BYTES_MAX)) {
            forget_oldest(im);
        }
        size_t i = (im->first + im->n++) % im->cap;
        im->slots[i] = (struct slot){.key = key,
            .collection = in->collection,
            .bytes = bytes,
            .n_items = (uint32_t)n_items,
            .text_len = (uint32_t)text_len,
            .size = (uint32_t)size,
            .has_text = in->text.s != NULL,
            .has_id = in->id != NULL,
            .by_image = in->by_image};
        im->table[find(im, key)] = (uint32_t)i;
        im->bytes += size;
    }
    pthread_mutex_unlock(&im->lock);
    snprintf(
        search_id, ENGINE_SEARCH_ID_BYTES, "s%016llx", (unsigned long long)key);
}

static bool
read_key(const char *search_id, uint64_t *key)
{
    if (search_id[0] != 's' || strlen(search_id) != 17) {
        return false;
    }
    uint64_t v = 0;
    for (const char *c = search_id + 1; *c; c++) {
        const char *digits = "0123456789abcdef";
        const char *d = strchr(digits, *c);
        if (!d) {
            return false;
        }
        v = v * 16 + (uint64_t)(d - digits);
    }
    *key = v;
    return true;
}

enum err
impressions_get(struct impressions *im, const char *search_id,
    struct arena *arena, struct impression *out)
{
    uint64_t key;
    if (!read_key(search_id, &key) || key == 0) {
        return ERR_NOT_FOUND;
    }
    enum err err = ERR_NOT_FOUND;
    pthread_mutex_lock(&im->lock);
    uint32_t i = im->table[find(im, key)];
    if (i != UINT32_MAX) {
        const struct slot *s = &im->slots[i];
        char *copy = arena_alloc(arena, (size_t)s->size + 2, 1);
        err = copy ? OK : ERR_NOMEM;
        if (copy) {
            size_t items_size = s->n_items * sizeof(int64_t);
            int64_t *items =
                arena_alloc(arena, (size_t)s->n_items + 1, sizeof(*items));
            const char *text =
                arena_strndup(arena, s->bytes + items_size, s->text_len);
            if (items && text) {
                memcpy(items, s->bytes, items_size);
                memcpy(copy, s->bytes + items_size + s->text_len,
                    s->size - items_size - s->text_len);
                *out = (struct impression){.collection = s->collection,
                    .text = {.s = s->has_text ? text : NULL,
                        .len = s->text_len},
                    .id = s->has_id ? copy : NULL,
                    .by_image = s->by_image,
                    .items = items,
                    .n_items = s->n_items};
            } else {
                err = ERR_NOMEM;
            }
        }
    }
    pthread_mutex_unlock(&im->lock);
    return err;
}
