#include "train/inputs.h"

#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/hash.h"
#include "train/views.h"

#define VIEWS_A_SHARD 8
#define ROW_STREAMS ((uint64_t)1 << 20) /* more than rows of a step */
#define VIEW_SALT 0x7669657773ULL

struct inputs {
    const struct train_options *options;
    bool pictures;
    uint32_t side, channels;
    size_t max_negatives, piece;
    size_t cap_rows;
    size_t step, B, M;
    struct encoder_input *rows; /* [cap_rows] */
    uint64_t *keys;             /* [cap_rows] of positives and negatives */
    struct encoder_input *made; /* [piece] pictures' views */
    struct image *images;       /* [piece] */
    uint8_t *pixels;            /* [piece, side, side, channels] */
    float *workspace;           /* [threads, augment_workspace_floats] */
    size_t n_threads;
    char *noisy; /* texts with errors in them */
    size_t cap_noisy, n_noisy;
    size_t first, n_made; /* rows that lie in made */
    int64_t ns;
};

enum err
inputs_new(struct inputs **out, const struct encoder *encoder,
    const struct train_options *options, size_t B, size_t max_negatives,
    size_t piece)
{
    struct inputs *in = mem_calloc(1, sizeof *in);

    if (in == NULL)
        return ERR_NOMEM;
    in->options = options;
    in->pictures = encoder_reads(encoder) == ENCODER_READS_IMAGE;
    in->side = encoder_image_side(encoder);
    in->channels = encoder_image_channels(encoder);
    in->max_negatives = max_negatives;
    in->piece = piece;
    in->cap_rows = 2 * B + max_negatives;
    ASSERT(in->cap_rows <= ROW_STREAMS);
    in->rows = mem_alloc(in->cap_rows, sizeof *in->rows);
    in->keys = mem_alloc(in->cap_rows, sizeof *in->keys);
    if (in->rows == NULL || in->keys == NULL)
        goto nomem;
    if (in->pictures) {
        size_t bytes = (size_t)in->side * in->side * in->channels;
        in->made = mem_calloc(piece, sizeof *in->made);
        in->images = mem_calloc(piece, sizeof *in->images);
        in->pixels = mem_alloc_aligned(piece, bytes);
        if (in->made == NULL || in->images == NULL || in->pixels == NULL)
            goto nomem;
        for (size_t i = 0; i < piece; i++)
            in->images[i] = (struct image){.width = in->side,
                .height = in->side,
                .channels = in->channels,
                .pixels = in->pixels + i * bytes};
    }
    *out = in;
    return OK;
nomem:
    inputs_free(in);
    return ERR_NOMEM;
}

void
inputs_free(struct inputs *in)
{
    if (in == NULL)
        return;
    mem_free(in->rows);
    mem_free(in->keys);
    mem_free(in->made);
    mem_free(in->images);
    mem_free(in->pixels);
    mem_free(in->workspace);
    mem_free(in->noisy);
    mem_free(in);
}

size_t
inputs_bytes(const struct inputs *in)
{
    size_t bytes = in->cap_rows * (sizeof *in->rows + sizeof *in->keys);
    if (in->pictures)
        bytes += in->piece * ((size_t)in->side * in->side * in->channels +
                                 sizeof *in->made + sizeof *in->images);
    return bytes + in->cap_noisy;
}

/* The generator of one row's view. */
static void
seed_row(const struct inputs *in, size_t row, struct rng *rng)
{
    rng_seed_stream(rng, in->options->seed,
        hash_u64(VIEW_SALT + in->step * ROW_STREAMS + row));
}

/* Views of texts with typing errors, in memory of our own. The rows of a step
   must not move, so their sizes are known first. */
static enum err
add_noise(struct inputs *in, size_t n_rows)
{
    size_t need = 0;
    for (size_t i = 0; i < n_rows; i++)
        need += views_noise_bytes(in->rows[i].len);
    if (need > in->cap_noisy) {
        mem_free(in->noisy);
        in->noisy = mem_alloc(need, 1);
        in->cap_noisy = in->noisy == NULL ? 0 : need;
        if (in->noisy == NULL)
            return ERR_NOMEM;
    }
    char *at = in->noisy;
    for (size_t i = 0; i < n_rows; i++) {
        struct rng rng;
        struct encoder_input *row = &in->rows[i];
        seed_row(in, i, &rng);
        size_t n =
            views_noise(at, row->text, row->len, in->options->char_noise, &rng);
        row->text = at;
        at += views_noise_bytes(row->len);
        row->len = n;
    }
    return OK;
}

static void
fill_texts(struct inputs *in, const struct batch_example *e, size_t i, size_t B,
    struct rng *rng)
{
    struct view anchor, key;
    views_text(e->anchor.input.text, e->anchor.input.len, rng, &anchor, &key);
    in->rows[i] =
        (struct encoder_input){.text = anchor.text, .len = anchor.len};
    in->rows[B + i] = (struct encoder_input){.text = key.text, .len = key.len};
}

enum err
inputs_fill(struct inputs *in, const struct batch_example *examples,
    const uint32_t *index, size_t B, size_t step, struct rng *rng)
{
    bool instances = in->options->pretext == TRAIN_INSTANCES;
    int64_t start = clock_mono_ns();
    enum err err = OK;

    ASSERT(2 * B + in->max_negatives <= in->cap_rows);
    in->step = step;
    in->B = B;
    in->M = B;
    in->n_made = 0;
    for (size_t i = 0; i < B; i++) {
        const struct batch_example *e = &examples[index[i]];
        in->keys[i] = instances ? e->anchor.key : e->positive.key;
        if (instances && !in->pictures) {
            fill_texts(in, e, i, B, rng);
            continue;
        }
        in->rows[i] = e->anchor.input;
        in->rows[B + i] = instances ? e->anchor.input : e->positive.input;
    }
    for (size_t i = 0; i < B && !instances; i++) {
        const struct batch_example *e = &examples[index[i]];
        for (size_t j = 0; j < e->n_negatives && in->M - B < in->max_negatives;
             j++) {
            in->rows[B + in->M] = e->negatives[j].input;
            in->keys[in->M++] = e->negatives[j].key;
        }
    }
    if (!in->pictures && in->options->char_noise > 0)
        err = add_noise(in, B + in->M);
    in->ns += clock_mono_ns() - start;
    return err;
}

size_t
inputs_keys(const struct inputs *in)
{
    return in->M;
}

const uint64_t *
inputs_key(const struct inputs *in)
{
    return in->keys;
}

static void
render_worker(void *arg, size_t shard_i, size_t thread_i)
{
    struct inputs *in = arg;
    size_t from = shard_i * VIEWS_A_SHARD;
    size_t to = MIN(in->n_made, from + VIEWS_A_SHARD);
    float *workspace = in->workspace + thread_i * augment_workspace_floats(
                                                      in->side, in->channels);

    for (size_t i = from; i < to; i++) {
        const struct image *image = in->rows[in->first + i].image;
        struct rng rng;
        if (image == NULL) {
            in->made[i] = (struct encoder_input){.image = NULL};
            continue;
        }
        seed_row(in, in->first + i, &rng);
        augment(in->images[i].pixels, in->side, in->channels, image,
            &in->options->views, &rng, workspace);
        in->made[i] = (struct encoder_input){.image = &in->images[i]};
    }
}

enum err
inputs_rows(struct inputs *in, size_t first, size_t n,
    const struct encoder_input **out, struct pool *pool)
{
    if (!in->pictures) {
        *out = in->rows + first;
        return OK;
    }
    ASSERT(n <= in->piece);
    if (in->n_made != n || in->first != first) {
        int64_t start = clock_mono_ns();
        size_t n_threads = pool_threads(pool);
        if (n_threads > in->n_threads) {
            size_t each = augment_workspace_floats(in->side, in->channels);
            mem_free(in->workspace);
            in->n_threads = 0;
            in->workspace =
                mem_alloc_aligned(n_threads * each, sizeof *in->workspace);
            if (in->workspace == NULL)
                return ERR_NOMEM;
            in->n_threads = n_threads;
        }
        in->first = first;
        in->n_made = n;
        pool_run(
            pool, (n + VIEWS_A_SHARD - 1) / VIEWS_A_SHARD, render_worker, in);
        in->ns += clock_mono_ns() - start;
    }
    *out = in->made;
    return OK;
}

const struct encoder_input *
inputs_texts(const struct inputs *in)
{
    return in->pictures ? NULL : in->rows;
}

int64_t
inputs_take_ns(struct inputs *in)
{
    int64_t ns = in->ns;
    in->ns = 0;
    return ns;
}
