#include "train/gradcache.h"

#include "base/alloc.h"

struct gradcache {
    struct encoder_tape *tape;
    size_t piece;
    struct encoder_noise noise; /* of the last forward pass, as the rest */
    size_t n_pieces;
    size_t *start;      /* [pieces + 1] their first rows; the number of rows */
    struct rng *before; /* [pieces] the generator before each piece */
};

enum err
gradcache_new(struct gradcache **out, const struct encoder *encoder,
    size_t piece, size_t n_max)
{
    struct gradcache *cache = mem_calloc(1, sizeof *cache);

    if (cache == NULL)
        return ERR_NOMEM;
    ASSERT(piece > 0);
    cache->piece = piece;
    cache->before = mem_alloc(n_max, sizeof *cache->before);
    cache->start = mem_alloc(n_max + 1, sizeof *cache->start);
    enum err err = cache->before == NULL || cache->start == NULL
                       ? ERR_NOMEM
                       : encoder_tape_new(&cache->tape, encoder);
    if (err != OK) {
        gradcache_free(cache);
        return err;
    }
    *out = cache;
    return OK;
}

void
gradcache_free(struct gradcache *cache)
{
    if (cache == NULL)
        return;
    encoder_tape_free(cache->tape);
    mem_free(cache->before);
    mem_free(cache->start);
    mem_free(cache);
}

size_t
gradcache_bytes(const struct gradcache *cache)
{
    return encoder_tape_bytes(cache->tape);
}

static void
cut_pieces(struct gradcache *cache, const struct encoder *encoder,
    const struct encoder_input *texts, size_t n)
{
    size_t held = 0, first = 0;

    cache->n_pieces = 0;
    for (size_t i = 0; i < n; i++) {
        size_t each =
            texts == NULL ? 0 : encoder_tape_input_bytes(encoder, &texts[i]);
        held += each;
        if (i == 0 || i - first == cache->piece ||
            held > GRADCACHE_TAPE_BYTES) {
            cache->start[cache->n_pieces++] = first = i;
            held = each;
        }
    }
    cache->start[cache->n_pieces] = n;
}

/* Piece p onto the tape, with the generator given. */
static enum err
forward_piece(struct gradcache *cache, const struct encoder *encoder,
    struct inputs *inputs, size_t p, struct rng *rng, float *out,
    struct pool *pool)
{
    size_t first = cache->start[p], n = cache->start[p + 1] - first;
    struct encoder_noise noise = cache->noise;
    const struct encoder_input *rows;

    noise.rng = rng;
    enum err err = inputs_rows(inputs, first, n, &rows, pool);
    if (err == OK)
        err = encoder_forward(encoder, cache->tape, rows, n, &noise, out, pool);
    return err;
}

enum err
gradcache_forward(struct gradcache *cache, const struct encoder *encoder,
    struct inputs *inputs, size_t n, const struct encoder_noise *noise,
    float *out, struct pool *pool)
{
    size_t D = encoder_dims(encoder);
    enum err err = OK;

    cache->noise = *noise;
    cut_pieces(cache, encoder, inputs_texts(inputs), n);
    for (size_t p = 0; p < cache->n_pieces && err == OK; p++) {
        cache->before[p] = *noise->rng;
        err = forward_piece(cache, encoder, inputs, p, noise->rng,
            out + cache->start[p] * D, pool);
    }
    return err;
}

enum err
gradcache_backward(struct gradcache *cache, const struct encoder *encoder,
    struct inputs *inputs, const float *d_out, struct encoder_grads *grads,
    float *scratch, struct pool *pool)
{
    size_t D = encoder_dims(encoder);
    enum err err = OK;

    /* from the last, whose tape is there, to the first */
    for (size_t p = cache->n_pieces; p-- > 0 && err == OK;) {
        struct rng rng = cache->before[p];
        if (p + 1 < cache->n_pieces)
            err = forward_piece(cache, encoder, inputs, p, &rng, scratch, pool);
        if (err == OK)
            err = encoder_backward(
                encoder, cache->tape, d_out + cache->start[p] * D, grads, pool);
    }
    return err;
}

enum err
gradcache_encode(struct gradcache *cache, const struct encoder *encoder,
    struct inputs *inputs, size_t first, size_t n, float *out,
    struct pool *pool)
{
    size_t D = encoder_dims(encoder);
    enum err err = OK;

    for (size_t i = 0; i < n && err == OK; i += cache->piece) {
        const struct encoder_input *rows;
        size_t m = MIN(cache->piece, n - i);
        err = inputs_rows(inputs, first + i, m, &rows, pool);
        if (err == OK)
            err = encoder_encode(encoder, rows, m, out + i * D, NULL, pool);
    }
    return err;
}
