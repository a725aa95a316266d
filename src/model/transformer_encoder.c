#include "model/transformer_encoder.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"

#define BYTES_A_TOKEN 3
#define ENCODE_TEXTS 1024 /* at once: bounds the memory of their tokens */
#define TEXT_BYTES_MAX (TOKENIZER_TEXT_BYTES_MAX - TRANSFORMER_PREFIX_MAX)

/* ------------------------------------------------------------- tokens */

void
transformer_tokens_release(struct transformer_tokens *tokens)
{
    tokenizer_workspace_free(tokens->workspace);
    mem_free(tokens->ids);
    mem_free(tokens->offsets);
    mem_free(tokens->text);
    *tokens = (struct transformer_tokens){.n_ids = 0};
}

static enum err
reserve_ids(struct transformer_tokens *tokens, size_t n)
{
    if (n > tokens->cap_ids) {
        size_t cap = MAX(n, 2 * tokens->cap_ids);
        uint32_t *grown = mem_realloc(tokens->ids, cap, sizeof *grown);
        if (grown == NULL)
            return ERR_NOMEM;
        tokens->ids = grown;
        tokens->cap_ids = cap;
    }
    return OK;
}

static enum err
reserve_texts(struct transformer_tokens *tokens, size_t n)
{
    if (tokens->workspace == NULL)
        tokens->workspace = tokenizer_workspace_new();
    if (tokens->workspace == NULL)
        return ERR_NOMEM;
    if (n + 1 > tokens->cap_offsets) {
        size_t *grown = mem_realloc(tokens->offsets, n + 1, sizeof *grown);
        if (grown == NULL)
            return ERR_NOMEM;
        tokens->offsets = grown;
        tokens->cap_offsets = n + 1;
    }
    return OK;
}

/* The first len bytes of the text with the prefix of its side before them. */
static enum err
with_prefix(struct transformer_tokens *tokens,
    const struct transformer_encoder *e, const struct encoder_input *input,
    size_t len, const char **text)
{
    size_t n = e->prefix_len[input->query];

    *text = len > 0 ? input->text : "";
    if (n == 0)
        return OK;
    if (n + len > tokens->cap_text) {
        char *grown = mem_realloc(tokens->text, n + len, 1);
        if (grown == NULL)
            return ERR_NOMEM;
        tokens->text = grown;
        tokens->cap_text = n + len;
    }
    memcpy(tokens->text, e->prefix[input->query], n);
    if (len > 0)
        memcpy(tokens->text + n, input->text, len);
    *text = tokens->text;
    return OK;
}

/* Leave tokens out of ids [n], but never the special ones, nor all. */
static size_t
drop_tokens(const struct transformer_encoder *e, uint32_t *ids, size_t n,
    const struct encoder_noise *noise)
{
    const struct transformer_asset *asset = e->base.asset->made;
    size_t first = asset->n_before;
    size_t last = n - (asset->n_special - asset->n_before);
    size_t spared = first + rng_below(noise->rng, last - first);
    size_t kept = first;

    for (size_t i = first; i < last; i++)
        if (rng_float(noise->rng) >= noise->token_dropout || i == spared)
            ids[kept++] = ids[i];
    for (size_t i = last; i < n; i++)
        ids[kept++] = ids[i];
    return kept;
}

/* Tokens of a text with its prefix, or of as much of its beginning as the
   tokenizer takes: len bytes. */
static enum err
read_beginning(struct transformer_tokens *tokens,
    const struct transformer_encoder *e, const struct encoder_input *input,
    size_t *len, size_t *n, size_t *n_full)
{
    const struct transformer_asset *asset = e->base.asset->made;
    const char *text;
    enum err err;

    *len = MIN(input->len, TEXT_BYTES_MAX);
    for (;;) {
        err = with_prefix(tokens, e, input, *len, &text);
        if (err == OK)
            err = tokenizer_encode(asset->tokenizer, text,
                e->prefix_len[input->query] + *len, e->base.max_tokens,
                tokens->workspace, tokens->ids + tokens->n_ids, n, n_full);
        if (err != ERR_TOO_LARGE || *len == 0)
            return err;
        *len /= 2; /* normalisation made too much of it */
    }
}

/* Is there no token of the text's own? As many as the prefix alone has are no
   proof: both may have met in a token. */
static enum err
is_empty(struct transformer_tokens *tokens, const struct transformer_encoder *e,
    const struct encoder_input *input, size_t len, size_t n_full, bool *empty)
{
    const struct transformer_asset *asset = e->base.asset->made;
    uint32_t bare[TOKENIZER_SPECIALS_MAX * 2];
    size_t n, n_own = asset->n_special;
    enum err err = OK;

    *empty = n_full <= e->n_bare[input->query];
    if (!*empty || n_full <= asset->n_special)
        return OK;
    if (len > 0)
        err = tokenizer_encode(asset->tokenizer, input->text, len,
            asset->n_special, tokens->workspace, bare, &n, &n_own);
    *empty = n_own <= asset->n_special;
    return err;
}

static enum err
read_text(struct transformer_tokens *tokens,
    const struct transformer_encoder *e, const struct encoder_input *input,
    const struct encoder_noise *noise, struct encoder_info *info)
{
    bool empty = false;
    size_t len, n, n_full;
    enum err err = reserve_ids(tokens, tokens->n_ids + e->base.max_tokens);

    if (err == OK)
        err = read_beginning(tokens, e, input, &len, &n, &n_full);
    if (err == OK)
        err = is_empty(tokens, e, input, len, n_full, &empty);
    if (err != OK)
        return err;
    if (len < input->len)
        n_full = MAX(n_full, n + 1);
    if (info != NULL)
        *info = (struct encoder_info){.n_tokens = empty ? 0 : (uint32_t)n,
            .n_tokens_full =
                empty ? 0 : (uint32_t)MIN(n_full, (size_t)UINT32_MAX),
            .empty = empty};
    if (empty)
        return OK;
    if (noise != NULL && noise->rng != NULL && noise->token_dropout > 0)
        n = drop_tokens(e, tokens->ids + tokens->n_ids, n, noise);
    tokens->n_ids += n;
    return OK;
}

static bool
is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Without the white space around it: where a template leaves a line break, a
   tokenizer that keeps white space would see a token of it. */
static struct encoder_input
trimmed(const struct encoder_input *input)
{
    struct encoder_input t = *input;

    while (t.len > 0 && is_space(t.text[0])) {
        t.text++;
        t.len--;
    }
    while (t.len > 0 && is_space(t.text[t.len - 1]))
        t.len--;
    return t;
}

enum err
transformer_tokens_read(struct transformer_tokens *tokens,
    const struct transformer_encoder *e, const struct encoder_input *inputs,
    size_t n, const struct encoder_noise *noise, struct encoder_info *info)
{
    enum err err = reserve_texts(tokens, n);

    tokens->n_ids = 0;
    if (err == OK)
        tokens->offsets[0] = 0;
    for (size_t i = 0; i < n && err == OK; i++) {
        struct encoder_input input = trimmed(&inputs[i]);
        err =
            read_text(tokens, e, &input, noise, info == NULL ? NULL : &info[i]);
        tokens->offsets[i + 1] = tokens->n_ids;
    }
    return err;
}

/* -------------------------------------------------------------- encode */

/* What one call needs for itself; they are kept for the next. */
struct lane {
    struct lane *next;
    struct transformer_tokens tokens;
    struct transformer_work *work;
};

/* What follows from the parameters: immutable but for the idle lanes. */
struct shared {
    struct transformer_ready *ready;
    pthread_mutex_t lock; /* over the list */
    struct lane *idle;
};

static void
lane_free(struct lane *lane)
{
    transformer_tokens_release(&lane->tokens);
    transformer_work_free(lane->work);
    mem_free(lane);
}

static void
shared_free(void *cache)
{
    struct shared *shared = cache;

    if (shared == NULL)
        return;
    while (shared->idle != NULL) {
        struct lane *lane = shared->idle;
        shared->idle = lane->next;
        lane_free(lane);
    }
    transformer_ready_free(shared->ready);
    pthread_mutex_destroy(&shared->lock);
    mem_free(shared);
}

static enum err
shared_new(
    struct shared **out, const struct transformer_encoder *e, struct pool *pool)
{
    struct shared *shared = mem_calloc(1, sizeof *shared);

    if (shared == NULL)
        return ERR_NOMEM;
    pthread_mutex_init(&shared->lock, NULL);
    enum err err = transformer_ready_new(&shared->ready, &e->net, e->compute);
    if (err != OK) {
        shared_free(shared);
        return err;
    }
    transformer_ready_weights(shared->ready, &e->net, e->base.params, pool);
    *out = shared;
    return OK;
}

/* The encoder's own: made by the first that asks; others who ask meanwhile
   make theirs and drop it. */
static enum err
shared_of(
    const struct transformer_encoder *e, struct pool *pool, struct shared **out)
{
    void *there = atomic_load(e->base.cache);

    if (there == NULL) {
        struct shared *mine;
        enum err err = shared_new(&mine, e, pool);
        if (err != OK)
            return err;
        if (atomic_compare_exchange_strong(e->base.cache, &there, mine))
            there = mine;
        else
            shared_free(mine);
    }
    *out = there;
    return OK;
}

static struct lane *
lane_take(struct shared *shared)
{
    pthread_mutex_lock(&shared->lock);
    struct lane *lane = shared->idle;
    if (lane != NULL)
        shared->idle = lane->next;
    pthread_mutex_unlock(&shared->lock);
    if (lane != NULL)
        return lane;
    lane = mem_calloc(1, sizeof *lane);
    if (lane != NULL && transformer_work_new(&lane->work) != OK) {
        lane_free(lane);
        lane = NULL;
    }
    return lane;
}

static void
lane_give(struct shared *shared, struct lane *lane)
{
    pthread_mutex_lock(&shared->lock);
    lane->next = shared->idle;
    shared->idle = lane;
    pthread_mutex_unlock(&shared->lock);
}

static enum err
encode_with(const struct transformer_encoder *e, struct shared *shared,
    struct lane *lane, const struct encoder_input *inputs, size_t n, float *out,
    struct encoder_info *info, struct pool *pool)
{
    enum err err = OK;

    for (size_t i = 0; i < n && err == OK; i += ENCODE_TEXTS) {
        size_t m = MIN(n - i, (size_t)ENCODE_TEXTS);
        err = transformer_tokens_read(&lane->tokens, e, inputs + i, m, NULL,
            info == NULL ? NULL : info + i);
        if (err != OK)
            break;
        struct transformer_batch batch = {
            .ids = lane->tokens.ids, .offsets = lane->tokens.offsets, .n = m};
        err = transformer_encode(&e->net, e->base.params, shared->ready,
            lane->work, &batch, out + i * e->base.n_dims, pool);
    }
    return err;
}

static enum err
transformer_encode_texts(const struct encoder *encoder,
    const struct encoder_input *inputs, size_t n, float *out,
    struct encoder_info *info, struct pool *pool)
{
    const struct transformer_encoder *e = transformer_of(encoder);
    struct shared *shared = NULL;
    struct lane *lane;
    enum err err = encoder->unsealed ? shared_new(&shared, e, pool)
                                     : shared_of(e, pool, &shared);

    if (err != OK)
        return err;
    lane = lane_take(shared);
    err = lane == NULL
              ? ERR_NOMEM
              : encode_with(e, shared, lane, inputs, n, out, info, pool);
    if (lane != NULL)
        lane_give(shared, lane);
    if (encoder->unsealed)
        shared_free(shared);
    return err;
}

static size_t
transformer_cache_bytes(const struct encoder *encoder)
{
    const struct transformer_encoder *e = transformer_of(encoder);
    return transformer_ready_bytes(&e->net, e->compute);
}

/* All tokens, the special ones with them, as an item without its prefix. */
static enum err
transformer_tokenize(const struct encoder *encoder, const char *text,
    size_t len, encoder_token_fn *fn, void *arg)
{
    const struct transformer_asset *asset = encoder->asset->made;
    struct transformer_tokens tokens = {.n_ids = 0};
    size_t n = 0, n_full = encoder->max_tokens;
    enum err err = reserve_texts(&tokens, 0);

    for (size_t cap = 0; err == OK && cap < n_full;) {
        cap = n_full;
        err = reserve_ids(&tokens, cap);
        if (err == OK)
            err = tokenizer_encode(asset->tokenizer, text, len, cap,
                tokens.workspace, tokens.ids, &n, &n_full);
    }
    for (size_t i = 0; i < n && err == OK; i++) {
        size_t n_piece = 0;
        const char *piece =
            tokenizer_piece(asset->tokenizer, tokens.ids[i], &n_piece);
        fn(arg, piece == NULL ? "" : piece, n_piece, tokens.ids[i]);
    }
    transformer_tokens_release(&tokens);
    return err;
}

/* ------------------------------------------------------------ training */

struct text_tape {
    struct encoder_tape base;
    struct transformer_tape *net;
    size_t n_frozen; /* parts, when it was made */
    struct transformer_tokens tokens;
};

static struct text_tape *
tape_of(struct encoder_tape *tape)
{
    return (struct text_tape *)(void *)tape;
}

static void
text_tape_free(struct encoder_tape *tape)
{
    struct text_tape *t = tape_of(tape);
    transformer_tape_free(t->net);
    transformer_tokens_release(&t->tokens);
    mem_free(t);
}

static enum err
text_tape_new(struct encoder_tape **out, const struct encoder *encoder)
{
    struct text_tape *t = mem_calloc(1, sizeof *t);

    if (t == NULL)
        return ERR_NOMEM;
    t->base.family = &transformer_encoder_family;
    t->n_frozen = encoder->n_frozen;
    enum err err = transformer_tape_new(
        &t->net, &transformer_of(encoder)->net, t->n_frozen);
    if (err != OK) {
        text_tape_free(&t->base);
        return err;
    }
    *out = &t->base;
    return OK;
}

/* By the formula of transformer.h, with a token for BYTES_A_TOKEN bytes; most
   texts have fewer. */
static size_t
text_tape_bytes(
    const struct encoder *encoder, const struct encoder_input *input)
{
    const struct transformer_encoder *e = transformer_of(encoder);
    const struct transformer_config *c = &e->net.config;
    bool pre = c->norm == TRANSFORMER_NORM_PRE;
    size_t skip = encoder->n_frozen > 0 ? encoder->n_frozen - 1 : 0;
    size_t floats = 2 * c->hidden + 2 * c->ffn + 4 * e->net.width;
    size_t tokens = e->base.max_tokens;

    for (size_t l = skip; l < c->layers; l++)
        floats += (pre ? 6 : 5) * e->net.layers[l].in +
                  (pre ? 2 : 3) * (size_t)c->hidden + c->ffn + 4;
    if (input != NULL)
        tokens = MIN(
            tokens, e->n_bare[input->query] + 1 + input->len / BYTES_A_TOKEN);
    return tokens * floats * sizeof(float);
}

static enum err
text_forward(const struct encoder *encoder, struct encoder_tape *tape,
    const struct encoder_input *inputs, size_t n,
    const struct encoder_noise *noise, float *out, struct pool *pool)
{
    const struct transformer_encoder *e = transformer_of(encoder);
    struct text_tape *t = tape_of(tape);
    enum err err =
        transformer_tokens_read(&t->tokens, e, inputs, n, noise, NULL);

    if (err != OK)
        return err;
    struct transformer_batch batch = {
        .ids = t->tokens.ids, .offsets = t->tokens.offsets, .n = n};
    err = transformer_forward(
        &e->net, encoder->params, t->net, &batch, out, pool);
    t->base.bytes = transformer_tape_bytes(t->net) +
                    t->tokens.cap_ids * sizeof *t->tokens.ids;
    return err;
}

static enum err
text_backward(const struct encoder *encoder, struct encoder_tape *tape,
    const float *d_out, struct encoder_grads *grads, struct pool *pool)
{
    const struct transformer_encoder *e = transformer_of(encoder);
    const struct text_tape *t = tape_of(tape);
    enum err err = transformer_backward(&e->net, encoder->params, t->net, d_out,
        grads->d_params, grads->marks, pool);

    if (err == OK)
        grads->n_segments = transformer_segments(
            &e->net, t->n_frozen, grads->marks, grads->segments);
    return err;
}

static size_t
text_n_marks(const struct encoder *encoder)
{
    return transformer_of(encoder)->net.config.vocab;
}

static size_t
text_n_segments_max(const struct encoder *encoder)
{
    return transformer_n_segments_max(&transformer_of(encoder)->net);
}

static size_t
text_n_parts(const struct encoder *encoder)
{
    return 1 + transformer_of(encoder)->net.config.layers;
}

/* Its vocabulary and its norms are the publisher's. */
static enum err
text_refit(struct encoder *encoder, encoder_next_fn *next, void *arg)
{
    (void)encoder;
    (void)next;
    (void)arg;
    return OK;
}

static size_t
text_tensors(
    const struct encoder *encoder, struct encoder_tensor *out, size_t max)
{
    return transformer_tensors(&transformer_of(encoder)->net, out, max);
}

/* --------------------------------------------------------------- asset */

static void
asset_free(void *made)
{
    struct transformer_asset *asset = made;
    tokenizer_free(asset->tokenizer);
    mem_free(asset);
}

/* Tokens of a text in full, or of its beginning. */
static enum err
count_tokens(const struct transformer_encoder *e, const char *text, size_t len,
    struct transformer_tokens *tokens, size_t *n_full)
{
    const struct transformer_asset *asset = e->base.asset->made;
    size_t n;
    enum err err = reserve_ids(tokens, e->base.max_tokens);

    if (err == OK)
        err = tokenizer_encode(asset->tokenizer, text, len, e->base.max_tokens,
            tokens->workspace, tokens->ids, &n, n_full);
    return err;
}

/* What texts of which nothing is left have, and where the special tokens
   stand. */
static enum err
learn_bare(struct transformer_encoder *e, struct transformer_asset *asset)
{
    struct transformer_tokens tokens = {.n_ids = 0};
    uint32_t bare[TOKENIZER_SPECIALS_MAX * 2];
    size_t n;
    enum err err = reserve_texts(&tokens, 0);

    if (err == OK)
        err = count_tokens(e, "", 0, &tokens, &n);
    if (err == OK)
        memcpy(bare, tokens.ids, asset->n_special * sizeof *bare);
    if (err == OK)
        err = count_tokens(e, "a", 1, &tokens, &n);
    while (err == OK && asset->n_before < asset->n_special &&
           tokens.ids[asset->n_before] == bare[asset->n_before])
        asset->n_before++;
    for (size_t side = 0; side < 2 && err == OK; side++)
        err = count_tokens(
            e, e->prefix[side], e->prefix_len[side], &tokens, &e->n_bare[side]);
    transformer_tokens_release(&tokens);
    return err;
}

static enum err
text_take_asset(struct encoder *encoder, struct fault *fault)
{
    struct transformer_encoder *e = (void *)encoder;
    struct transformer_asset *asset = mem_calloc(1, sizeof *asset);
    struct fault said = {.err = OK};
    enum err err;

    if (asset == NULL)
        return ERR_NOMEM;
    encoder->asset->made = asset;
    encoder->asset->free_made = asset_free;
    err = tokenizer_from_json(
        encoder->asset->bytes, encoder->asset->n, &asset->tokenizer, &said);
    if (err != OK)
        return err == ERR_NOMEM
                   ? err
                   : fault_set(fault, err, "", "the tokenizer, at \"%s\": %s",
                         said.pointer, said.detail);
    asset->n_special = tokenizer_n_special(asset->tokenizer);
    if (tokenizer_n_ids(asset->tokenizer) > e->net.config.vocab)
        return fault_set(fault, ERR_INVALID, "/vocab",
            "the tokenizer has ids up to %zu, the embeddings have %u rows",
            tokenizer_n_ids(asset->tokenizer) - 1,
            (unsigned)e->net.config.vocab);
    if (asset->n_special >= encoder->max_tokens)
        return fault_set(fault, ERR_INVALID, "/max_tokens",
            "%zu tokens are less than the %zu special ones and one more",
            encoder->max_tokens, asset->n_special);
    err = learn_bare(e, asset);
    for (size_t side = 0; side < 2 && err == OK; side++)
        if (e->n_bare[side] >= encoder->max_tokens)
            err = fault_set(fault, ERR_INVALID,
                side == 0 ? "/item_prefix" : "/query_prefix",
                "the prefix alone has %zu tokens, a text has %zu at most",
                e->n_bare[side], encoder->max_tokens);
    return err;
}

/* -------------------------------------------------------------- family */

static enum err
text_make(struct encoder **out, const struct json *config, bool fill,
    struct buf *canonical, struct fault *fault)
{
    struct transformer_encoder *e = mem_calloc(1, sizeof *e);

    if (e == NULL)
        return ERR_NOMEM;
    e->base.struct_bytes = sizeof *e;
    enum err err = transformer_settings_read(e, config, fault);
    if (err == OK && fill)
        err = fault_set(fault, ERR_UNSUPPORTED, "",
            "a transformer comes with its weights: import one");
    if (err == OK) {
        e->base.params = mem_alloc_aligned(e->base.n_params, sizeof(float));
        err = e->base.params == NULL ? ERR_NOMEM : OK;
    }
    if (err != OK) {
        mem_free(e);
        return err;
    }
    transformer_settings_write(e, config, canonical);
    *out = &e->base;
    return OK;
}

const struct encoder_family transformer_encoder_family = {.name = "transformer",
    .reads = ENCODER_READS_TEXT,
    .asset = "tokenizer",
    .take_asset = text_take_asset,
    .n_parts = text_n_parts,
    .make = text_make,
    .tensors = text_tensors,
    .encode = transformer_encode_texts,
    .tokenize = transformer_tokenize,
    .tape_new = text_tape_new,
    .tape_free = text_tape_free,
    .tape_input_bytes = text_tape_bytes,
    .forward = text_forward,
    .backward = text_backward,
    .n_marks = text_n_marks,
    .n_segments_max = text_n_segments_max,
    .refit = text_refit,
    .cache_free = shared_free,
    .cache_bytes = transformer_cache_bytes};
