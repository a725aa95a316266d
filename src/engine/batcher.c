#include "engine/batcher.h"

#include <pthread.h>
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"

/* A request; on its thread's stack. */
struct waiting {
    const struct encoder *encoder;
    const struct encoder_input *inputs;
    size_t n, bytes;
    float *out;
    struct encoder_info *info; /* may be NULL */
    enum err err;
    enum { WAITING, TAKEN, DONE } state;
    struct waiting *next;
};

struct batcher {
    pthread_mutex_t lock; /* over the following */
    pthread_cond_t moved; /* a lane is free, or somebody is done */
    size_t n_lanes, n_running;
    struct pool *pool;
    struct waiting *first, **last; /* WAITING ones, the oldest first */
};

enum err
batcher_new(struct batcher **out, size_t n_lanes, struct pool *pool)
{
    struct batcher *b = mem_calloc(1, sizeof(*b));
    if (!b) {
        return ERR_NOMEM;
    }
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->moved, NULL);
    b->n_lanes = MAX(n_lanes, (size_t)1);
    b->pool = pool;
    b->last = &b->first;
    *out = b;
    return OK;
}

void
batcher_free(struct batcher *b)
{
    if (!b) {
        return;
    }
    pthread_cond_destroy(&b->moved);
    pthread_mutex_destroy(&b->lock);
    mem_free(b);
}

/* Move self, and behind it what fits of those that wait for its encoder, from
   the list to one of their own. */
static void
take_along(struct batcher *b, struct waiting *self)
{
    struct waiting **at = &b->first, *others = NULL, **end = &others;
    size_t bytes = self->bytes;
    while (*at) {
        struct waiting *w = *at;
        bool fits =
            w->encoder == self->encoder && bytes + w->bytes <= BATCHER_BYTES;
        if (w != self && !fits) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        w->state = TAKEN;
        if (w != self) {
            bytes += w->bytes;
            *end = w;
            end = &w->next;
        }
    }
    b->last = at;
    *end = NULL;
    self->next = others;
}

/* All of the list in one call. */
static enum err
encode_together(const struct waiting *list)
{
    size_t dims = encoder_dims(list->encoder), n = 0, at = 0;
    for (const struct waiting *w = list; w; w = w->next) {
        n += w->n;
    }
    struct encoder_input *inputs = mem_alloc(n, sizeof(*inputs));
    float *out = mem_alloc_aligned(n * dims, sizeof(*out));
    struct encoder_info *info = mem_alloc(n, sizeof(*info));
    enum err err = inputs && out && info ? OK : ERR_NOMEM;
    for (const struct waiting *w = list; w && !err; w = w->next) {
        memcpy(inputs + at, w->inputs, w->n * sizeof(*inputs));
        at += w->n;
    }
    if (!err) {
        err = encoder_encode(list->encoder, inputs, n, out, info, NULL);
    }
    at = 0;
    for (const struct waiting *w = list; w && !err; w = w->next) {
        memcpy(w->out, out + at * dims, w->n * dims * sizeof(*out));
        if (w->info) {
            memcpy(w->info, info + at, w->n * sizeof(*info));
        }
        at += w->n;
    }
    mem_free(inputs);
    mem_free(out);
    mem_free(info);
    return err;
}

static enum err
encode_alone(const struct waiting *w)
{
    return encoder_encode(w->encoder, w->inputs, w->n, w->out, w->info, NULL);
}

/* A refusal of one text is not the others': then each goes alone. */
static void
encode_all(struct waiting *list)
{
    enum err err = list->next ? encode_together(list) : encode_alone(list);
    for (struct waiting *w = list; w; w = w->next) {
        w->err = err && list->next ? encode_alone(w) : err;
    }
}

enum err
batcher_encode(struct batcher *b, const struct encoder *encoder,
    const struct encoder_input *inputs, size_t n, float *out,
    struct encoder_info *info)
{
    struct waiting self = {.encoder = encoder,
        .inputs = inputs,
        .n = n,
        .out = out,
        .info = info,
        .state = WAITING};
    for (size_t i = 0; i < n; i++) {
        self.bytes += inputs[i].len;
    }
    if (n >= BATCHER_ALONE) {
        return encoder_encode(encoder, inputs, n, out, info, b->pool);
    }
    if (encoder_n_parts(encoder) == 0) {
        return encode_alone(&self);
    }
    pthread_mutex_lock(&b->lock);
    *b->last = &self;
    b->last = &self.next;
    while (self.state == TAKEN ||
           (self.state == WAITING && b->n_running == b->n_lanes)) {
        pthread_cond_wait(&b->moved, &b->lock);
    }
    if (self.state == WAITING) {
        take_along(b, &self);
        b->n_running++;
        pthread_mutex_unlock(&b->lock);
        encode_all(&self);
        pthread_mutex_lock(&b->lock);
        b->n_running--;
        for (struct waiting *w = &self, *next; w; w = next) {
            next = w->next;
            w->state = DONE;
        }
        pthread_cond_broadcast(&b->moved);
    }
    pthread_mutex_unlock(&b->lock);
    return self.err;
}
