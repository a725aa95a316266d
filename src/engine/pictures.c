#include "engine/pictures.h"

#include <pthread.h>
#include <string.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "store/images.h"
#include "engine/internal.h"

#define LARGE_FROM_BYTES ((size_t)8 << 20) /* smaller ones take no turn */
#define DECODED_BYTES_A_PIXEL 4            /* coefficients of a JPEG too */
#define READ_ITEMS 256

/* ---- turns --------------------------------------------------------------- */

struct picture_gate {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    uint64_t bytes; /* being decoded */
};

enum err
picture_gate_new(struct picture_gate **out)
{
    struct picture_gate *gate = mem_calloc(1, sizeof(*gate));
    if (!gate) {
        return ERR_NOMEM;
    }
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->cond, NULL);
    *out = gate;
    return OK;
}

void
picture_gate_free(struct picture_gate *gate)
{
    if (gate) {
        pthread_mutex_destroy(&gate->lock);
        pthread_cond_destroy(&gate->cond);
        mem_free(gate);
    }
}

/* Wait until these bytes fit beside the others, or are alone. */
static void
gate_enter(struct picture_gate *gate, uint64_t bytes)
{
    pthread_mutex_lock(&gate->lock);
    while (gate->bytes && gate->bytes + bytes > PICTURES_LARGE_BYTES) {
        pthread_cond_wait(&gate->cond, &gate->lock);
    }
    gate->bytes += bytes;
    pthread_mutex_unlock(&gate->lock);
}

static void
gate_leave(struct picture_gate *gate, uint64_t bytes)
{
    pthread_mutex_lock(&gate->lock);
    gate->bytes -= bytes;
    pthread_cond_broadcast(&gate->cond);
    pthread_mutex_unlock(&gate->lock);
}

/* ---- decoding ------------------------------------------------------------ */

struct decoding {
    struct engine *engine;
    struct picture *pictures;
    uint32_t side, channels;
    struct image_limits limits;
};

static enum err
decode_one(const struct decoding *d, struct picture *p)
{
    struct image_facts facts;
    enum err err = image_inspect(&facts, p->bytes, p->n, &d->limits, &p->fault);
    if (err) {
        return err;
    }
    uint64_t bytes =
        (uint64_t)facts.width * facts.height * DECODED_BYTES_A_PIXEL;
    bool large = bytes >= LARGE_FROM_BYTES;
    if (large) {
        gate_enter(d->engine->gate, bytes);
    }
    struct image whole = {.pixels = NULL};
    err = image_decode(&whole, p->bytes, p->n, &d->limits, &p->fault);
    if (!err && p->out) {
        image_fit(p->out, d->side, d->channels, &whole);
    }
    image_release(&whole);
    if (large) {
        gate_leave(d->engine->gate, bytes);
    }
    return err;
}

static void
decode_shard(void *arg, size_t shard_i, size_t thread_i)
{
    (void)thread_i;
    const struct decoding *d = arg;
    struct picture *p = &d->pictures[shard_i];
    p->fault = (struct fault){.err = OK};
    if (!p->bytes) {
        return;
    }
    int64_t start = clock_mono_ns();
    enum err err = decode_one(d, p);
    if (err) {
        (void)fault_of(&p->fault, err, "decoding the picture");
    }
    d->engine->totals.images_decoded++;
    d->engine->totals.decode_ns += (uint64_t)(clock_mono_ns() - start);
}

void
pictures_decode(struct engine *engine, struct picture *pictures, size_t n,
    uint32_t side, uint32_t channels, bool sent, struct pool *pool)
{
    struct decoding d = {.engine = engine,
        .pictures = pictures,
        .side = side,
        .channels = channels,
        .limits = {.bytes_max = IMAGE_STORED_BYTES_MAX,
            .pixels_max = MAX(engine->image_pixels_max, IMAGE_PIXELS_MAX),
            .side_wanted = side}};
    if (sent) {
        d.limits.bytes_max = engine->image_bytes_max;
        d.limits.pixels_max = engine->image_pixels_max;
    }
    pool_run(n > 1 ? pool : NULL, n, decode_shard, &d);
}

size_t
pictures_in_block(uint32_t side, uint32_t channels)
{
    size_t n =
        PICTURES_BLOCK_BYTES / MAX((size_t)side * side * channels, (size_t)1);
    return MAX((size_t)8, MIN(n, (size_t)512));
}

/* ---- stored pictures ----------------------------------------------------- */

/* Files read and not yet decoded. */
struct loading {
    struct collection *c;
    const int64_t *items;
    size_t at, end; /* rows of this reading: items[at..end) */
    struct arena arena;
    size_t bytes;
    struct picture pictures[READ_ITEMS];
};

static enum err
take_file(void *arg, const struct image_row *row)
{
    struct loading *l = arg;
    while (l->items[l->end] != row->item) {
        l->end++; /* without a picture */
    }
    struct picture *p = &l->pictures[l->end - l->at];
    l->end++;
    if (row->bytes.s) {
        p->bytes = arena_strndup(&l->arena, row->bytes.s, row->bytes.len);
        p->n = row->bytes.len;
        if (!p->bytes) {
            return ERR_NOMEM;
        }
        l->bytes += p->n;
    }
    /* Not an error: enough for this time. */
    return l->bytes >= PICTURES_READ_BYTES ? ERR_TOO_LARGE : OK;
}

/* Read the files of the next items, at most READ_ITEMS of n. */
static enum err
read_files(struct loading *l, struct db *held, size_t n)
{
    struct db *db = held;
    enum err err = OK;
    size_t count = MIN(n - l->at, (size_t)READ_ITEMS);
    arena_release(&l->arena);
    arena_init(&l->arena, SIZE_MAX / 2);
    memset(l->pictures, 0, sizeof(l->pictures));
    l->bytes = 0;
    l->end = l->at;
    if (!held) {
        err = store_read_begin(l->c->engine->store, &db);
    }
    if (!err) {
        err = images_get_many(db, l->items + l->at, count, true, take_file, l);
        if (!held) {
            store_read_end(l->c->engine->store, db);
        }
    }
    if (!err) {
        l->end = l->at + count;
    }
    return err == ERR_TOO_LARGE ? OK : err;
}

enum err
pictures_load_from(struct collection *c, struct db *db, const int64_t *items,
    size_t n, uint32_t side, uint32_t channels, struct pool *pool,
    uint8_t *pixels, struct image *out)
{
    size_t size = (size_t)side * side * channels;
    struct loading *l = mem_calloc(1, sizeof(*l));
    if (!l) {
        return ERR_NOMEM;
    }
    l->c = c;
    l->items = items;
    arena_init(&l->arena, SIZE_MAX / 2);
    enum err err = OK;
    while (l->at < n && !err) {
        err = read_files(l, db, n);
        size_t count = err ? 0 : l->end - l->at;
        for (size_t i = 0; i < count; i++) {
            l->pictures[i].out = pixels + (l->at + i) * size;
        }
        pictures_decode(
            c->engine, l->pictures, count, side, channels, false, pool);
        for (size_t i = 0; i < count; i++) {
            const struct picture *p = &l->pictures[i];
            bool good = p->bytes && !p->fault.err;
            out[l->at + i] = (struct image){.width = side,
                .height = side,
                .channels = channels,
                .pixels = good ? p->out : NULL};
            if (p->fault.err == ERR_NOMEM) {
                err = ERR_NOMEM;
            } else if (p->fault.err) {
                log_warn("engine", "picture collection=%s item=%lld: %s",
                    c->name, (long long)items[l->at + i], p->fault.detail);
            }
        }
        l->at += count;
    }
    arena_release(&l->arena);
    mem_free(l);
    return err;
}

enum err
pictures_load(struct collection *c, const int64_t *items, size_t n,
    uint32_t side, uint32_t channels, struct pool *pool, uint8_t *pixels,
    struct image *out)
{
    return pictures_load_from(
        c, NULL, items, n, side, channels, pool, pixels, out);
}

void
picture_facts(const struct image_row *row, struct engine_image_facts *out)
{
    *out = (struct engine_image_facts){
        .type = image_format_type((enum image_format)row->format),
        .width = row->width,
        .height = row->height,
        .n_bytes = (uint64_t)row->n_bytes,
        .kept = row->kept};
    sha256_hex(row->sha256, out->sha256);
}
