#include "engine/pictures.h"

#include <pthread.h>
#include <string.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "store/images.h"
#include "engine/internal.h"

#define LARGE_FROM_BYTES ((size_t)8 << 20) /* smaller ones take no turn */
#define READ_ITEMS 256

/* ---- turns --------------------------------------------------------------- */

struct picture_gate {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    uint64_t bytes;         /* being decoded */
    uint64_t next, serving; /* who comes first is let in first */
    size_t n_askers, askers_max;
};

enum err
picture_gate_new(struct picture_gate **out, size_t askers_max)
{
    struct picture_gate *gate = mem_calloc(1, sizeof(*gate));
    if (!gate) {
        return ERR_NOMEM;
    }
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->cond, NULL);
    gate->askers_max = askers_max;
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

static bool
must_wait(const struct picture_gate *gate, uint64_t turn, uint64_t bytes)
{
    return turn != gate->serving ||
           (gate->bytes && gate->bytes + bytes > PICTURES_LARGE_BYTES);
}

enum err
picture_gate_enter(struct picture_gate *gate, uint64_t bytes, bool asks)
{
    enum err err = OK;
    pthread_mutex_lock(&gate->lock);
    if (asks && gate->n_askers >= gate->askers_max &&
        must_wait(gate, gate->next, bytes)) {
        err = ERR_BUSY;
    } else {
        uint64_t turn = gate->next++;
        gate->n_askers += asks;
        while (must_wait(gate, turn, bytes)) {
            pthread_cond_wait(&gate->cond, &gate->lock);
        }
        gate->n_askers -= asks;
        gate->serving++;
        gate->bytes += bytes;
        pthread_cond_broadcast(&gate->cond);
    }
    pthread_mutex_unlock(&gate->lock);
    return err;
}

void
picture_gate_leave(struct picture_gate *gate, uint64_t bytes)
{
    pthread_mutex_lock(&gate->lock);
    gate->bytes -= bytes;
    pthread_cond_broadcast(&gate->cond);
    pthread_mutex_unlock(&gate->lock);
}

size_t
picture_gate_waiting(struct picture_gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    size_t n = (size_t)(gate->next - gate->serving);
    pthread_mutex_unlock(&gate->lock);
    return n;
}

/* ---- decoding ------------------------------------------------------------ */

struct decoding {
    struct engine *engine;
    struct picture *pictures;
    uint32_t side, channels;
    bool asks;
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
    bool large = facts.decode_bytes >= LARGE_FROM_BYTES;
    if (large) {
        err = picture_gate_enter(d->engine->gate, facts.decode_bytes, d->asks);
    }
    if (err) {
        return fault_set(&p->fault, err, "",
            "too many large pictures wait to be decoded; try again");
    }
    struct image whole = {.pixels = NULL};
    err = image_decode(&whole, p->bytes, p->n, &d->limits, &p->fault);
    if (!err && p->out) {
        image_fit(p->out, d->side, d->channels, &whole);
    }
    image_release(&whole);
    if (large) {
        picture_gate_leave(d->engine->gate, facts.decode_bytes);
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
    uint32_t side, uint32_t channels, unsigned how, struct pool *pool)
{
    struct decoding d = {.engine = engine,
        .pictures = pictures,
        .side = side,
        .channels = channels,
        .asks = how & PICTURES_ASKED,
        .limits = {.bytes_max = IMAGE_STORED_BYTES_MAX,
            .pixels_max = MAX(engine->image_pixels_max, IMAGE_PIXELS_MAX),
            .side_wanted = side}};
    if (how & PICTURES_SENT) {
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

struct picture_files {
    const int64_t *items; /* of this reading */
    size_t n;             /* of them, whose turn it was */
    struct arena arena;
    size_t bytes;
    struct picture pictures[READ_ITEMS];
};

enum err
picture_files_new(struct picture_files **out)
{
    struct picture_files *files = mem_calloc(1, sizeof(*files));
    if (!files) {
        return ERR_NOMEM;
    }
    arena_init(&files->arena, SIZE_MAX / 2);
    *out = files;
    return OK;
}

void
picture_files_free(struct picture_files *files)
{
    if (files) {
        arena_release(&files->arena);
        mem_free(files);
    }
}

static enum err
take_file(void *arg, const struct image_row *row)
{
    struct picture_files *files = arg;
    while (files->items[files->n] != row->item) {
        files->n++; /* without a picture */
    }
    struct picture *p = &files->pictures[files->n++];
    if (row->bytes.s) {
        p->bytes = arena_strndup(&files->arena, row->bytes.s, row->bytes.len);
        p->n = row->bytes.len;
        if (!p->bytes) {
            return ERR_NOMEM;
        }
        files->bytes += p->n;
    }
    /* Not an error: enough for this time. */
    return files->bytes >= PICTURES_READ_BYTES ? ERR_TOO_LARGE : OK;
}

enum err
picture_files_read(struct picture_files *files, struct db *db,
    const int64_t *items, size_t n, size_t *n_read)
{
    n = MIN(n, (size_t)READ_ITEMS);
    arena_release(&files->arena);
    arena_init(&files->arena, SIZE_MAX / 2);
    memset(files->pictures, 0, sizeof(files->pictures));
    files->bytes = files->n = 0;
    files->items = items;
    enum err err = images_get_many(db, items, n, true, take_file, files);
    if (!err) {
        files->n = n;
    } else if (err == ERR_TOO_LARGE) {
        err = OK;
    }
    *n_read = err ? 0 : files->n;
    return err;
}

enum err
picture_files_decode(struct picture_files *files, struct collection *c,
    uint32_t side, uint32_t channels, struct pool *pool, uint8_t *pixels,
    struct image *out)
{
    size_t size = (size_t)side * side * channels;
    enum err err = OK;
    for (size_t i = 0; i < files->n; i++) {
        files->pictures[i].out = pixels + i * size;
    }
    pictures_decode(
        c->engine, files->pictures, files->n, side, channels, 0, pool);
    for (size_t i = 0; i < files->n; i++) {
        const struct picture *p = &files->pictures[i];
        bool good = p->bytes && !p->fault.err;
        out[i] = (struct image){.width = side,
            .height = side,
            .channels = channels,
            .pixels = good ? p->out : NULL};
        if (p->fault.err == ERR_NOMEM) {
            err = ERR_NOMEM;
        } else if (p->fault.err) {
            log_warn("engine", "picture collection=%s item=%lld: %s", c->name,
                (long long)files->items[i], p->fault.detail);
        }
    }
    return err;
}

enum err
pictures_load(struct collection *c, const int64_t *items, size_t n,
    uint32_t side, uint32_t channels, struct pool *pool, uint8_t *pixels,
    struct image *out)
{
    size_t size = (size_t)side * side * channels, n_read = 0;
    struct store *store = c->engine->store;
    struct picture_files *files = NULL;
    enum err err = picture_files_new(&files);
    for (size_t at = 0; at < n && !err; at += n_read) {
        struct db *db;
        err = store_read_begin(store, &db);
        if (err) {
            break;
        }
        err = picture_files_read(files, db, items + at, n - at, &n_read);
        store_read_end(store, db);
        if (!err) {
            err = picture_files_decode(
                files, c, side, channels, pool, pixels + at * size, out + at);
        }
    }
    picture_files_free(files);
    return err;
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
