/* Encoding without storing: embeddings, tokens, similarity. */
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "kern/kern.h"
#include "engine/batcher.h"
#include "engine/internal.h"

/* What a model's name stands for: a collection's live generation, an imported
   encoder, or an untrained one with its default settings. */
struct model {
    struct collection *c; /* NULL: a bare encoder */
    struct snapshot *live;
    struct encoder_ref *bare;
    const struct encoder *encoder;
};

static void
model_release(struct model *m)
{
    snapshot_unref(m->live);
    collection_unref(m->c);
    encoder_ref_less(m->bare);
}

/* Of a collection that was found: its encoder, if that reads text. */
static enum err
take_live(struct model *m, const char *name, struct fault *fault)
{
    m->live = collection_live(m->c);
    m->encoder = encoder_ref_get(m->live->encoder);
    if (!m->encoder) {
        model_release(m);
        return fault_set(fault, ERR_INVALID, "/model",
            "the collection \"%.64s\" has no encoder of its own", name);
    }
    if (encoder_reads(m->encoder) == ENCODER_READS_IMAGE) {
        model_release(m);
        return fault_set(fault, ERR_INVALID, "/model",
            "the encoder of the collection \"%.64s\" reads pictures, not "
            "text",
            name);
    }
    return OK;
}

static enum err
take_imported(struct engine *engine, const char *name, struct model *m,
    struct fault *fault)
{
    struct encoder_row row;
    struct arena arena;
    arena_init(&arena, SMALL_ARENA_BYTES);
    enum err err = imported_find(engine, name, &arena, &row);
    if (!err) {
        err = imported_share(engine, &row, &m->bare, fault);
        m->encoder = encoder_ref_get(m->bare);
    }
    arena_release(&arena);
    if (err == ERR_NOT_FOUND) {
        return fault_set(fault, err, "/model",
            "there is no collection, alias or encoder \"%.64s\"", name);
    }
    return fault_of(fault, err, "loading the encoder");
}

static enum err
take_static(struct engine *engine, struct model *m, struct fault *fault)
{
    struct buf config;
    buf_init(&config, SETTINGS_BYTES_MAX);
    /* "{}" and the complete settings are one encoder: share by the latter. */
    struct encoder *encoder = NULL;
    enum err err = OK;
    pthread_mutex_lock(&engine->families);
    if (engine->static_config) {
        buf_add_str(&config, engine->static_config);
        err = buf_status(&config);
    } else {
        err = encoder_new(&encoder, "static", "{}", &config, fault);
        if (!err) {
            engine->static_config = mem_strdup(config.data);
        }
    }
    pthread_mutex_unlock(&engine->families);
    if (!err) {
        struct encoder_source source = {
            .family = "static", .config_json = config.data};
        err = encoder_ref_share(
            &m->bare, &engine->encoders, &source, encoder, fault);
    }
    buf_release(&config);
    m->encoder = encoder_ref_get(m->bare);
    return fault_of(fault, err, "loading the encoder");
}

static enum err
model_find(struct engine *engine, const char *name, struct model *m,
    struct fault *fault)
{
    *m = (struct model){.c = NULL};
    if (!collection_find(engine, name, &m->c, NULL)) {
        return take_live(m, name, fault);
    }
    if (settings_family_reads(name) == SETTINGS_READS_IMAGE) {
        return fault_set(fault, ERR_INVALID, "/model",
            "the encoder \"%s\" reads pictures, not text", name);
    }
    return strcmp(name, "static") == 0 ? take_static(engine, m, fault)
                                       : take_imported(engine, name, m, fault);
}

static enum err
check_inputs(struct engine *engine, const struct engine_text *inputs, size_t n,
    struct fault *fault)
{
    if (n == 0 || n > ENGINE_EMBED_INPUTS_MAX) {
        return fault_set(fault, n ? ERR_TOO_LARGE : ERR_INVALID, "/input",
            "%zu texts, a request has 1 to %d", n, ENGINE_EMBED_INPUTS_MAX);
    }
    for (size_t i = 0; i < n; i++) {
        char at[FAULT_POINTER_MAX];
        pointer_index(at, "/input", i);
        if (!inputs[i].s || inputs[i].len == 0) {
            return fault_set(fault, ERR_INVALID, at, "the text is empty");
        }
        if (inputs[i].len > engine->text_bytes_max) {
            return fault_set(fault, ERR_TOO_LARGE, at,
                "the text has %zu bytes, the limit is %zu", inputs[i].len,
                engine->text_bytes_max);
        }
        if (!check_utf8(inputs[i].s, inputs[i].len)) {
            return fault_set(fault, ERR_INVALID, at, "not valid UTF-8");
        }
    }
    return OK;
}

/* Vectors [n, D] and infos [n] in the arena. */
static enum err
encode(struct engine *engine, const struct encoder *encoder,
    const struct engine_text *inputs, size_t n, struct arena *arena,
    float **vectors, struct encoder_info **infos)
{
    size_t dims = encoder_dims(encoder);
    struct encoder_input *in = arena_alloc(arena, n, sizeof(*in));
    *vectors = arena_alloc(arena, n * dims, sizeof(**vectors));
    *infos = arena_calloc(arena, n, sizeof(**infos));
    if (!in || !*vectors || !*infos) {
        return ERR_NOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        in[i] =
            (struct encoder_input){.text = inputs[i].s, .len = inputs[i].len};
    }
    int64_t start = clock_mono_ns();
    enum err err =
        batcher_encode(engine->batcher, encoder, in, n, *vectors, *infos);
    engine->totals.texts_encoded += n;
    engine->totals.encode_ns += (uint64_t)(clock_mono_ns() - start);
    return err;
}

static enum err
check_whole(const struct encoder_info *infos, size_t n, struct fault *fault)
{
    for (size_t i = 0; i < n; i++) {
        char at[FAULT_POINTER_MAX];
        pointer_index(at, "/input", i);
        if (infos[i].n_tokens < infos[i].n_tokens_full) {
            return fault_set(fault, ERR_INVALID, at,
                "the text has %u tokens, the encoder takes %u",
                (unsigned)infos[i].n_tokens_full, (unsigned)infos[i].n_tokens);
        }
    }
    return OK;
}

enum err
engine_embed(struct engine *engine, const char *model,
    const struct engine_text *inputs, size_t n, size_t dims, bool no_truncate,
    struct arena *arena, struct engine_embeddings *out, struct fault *fault)
{
    enum err err = check_inputs(engine, inputs, n, fault);
    if (err) {
        return err;
    }
    struct model m;
    err = model_find(engine, model, &m, fault);
    if (err) {
        return err;
    }
    size_t full = encoder_dims(m.encoder);
    if (dims > full) {
        model_release(&m);
        return fault_set(fault, ERR_INVALID, "/dimensions",
            "the model has %zu dimensions, %zu were asked for", full, dims);
    }
    dims = dims ? dims : full;
    float *vectors;
    struct encoder_info *infos;
    err = encode(engine, m.encoder, inputs, n, arena, &vectors, &infos);
    if (!err && no_truncate) {
        err = check_whole(infos, n, fault);
    }
    struct engine_embeddings result = {.n = n, .dims = dims};
    if (!err) {
        const char *name = m.c ? m.c->name : model;
        result.model = arena_strndup(arena, name, strlen(name));
        result.rows = arena_calloc(arena, n, sizeof(*result.rows));
        err = result.model && result.rows ? OK : ERR_NOMEM;
    }
    for (size_t i = 0; i < n && !err; i++) {
        float *row = vectors + i * full;
        if (dims < full) {
            (void)normalize(row, dims);
        }
        result.rows[i] = (struct engine_embedding){.vector = row,
            .n_tokens = infos[i].n_tokens,
            .n_tokens_full = infos[i].n_tokens_full};
        result.n_tokens += infos[i].n_tokens;
    }
    if (m.live) {
        result.generation = m.live->generation;
        memcpy(result.fingerprint, m.live->fingerprint, SHA256_HEX);
    } else {
        uint8_t print[SHA256_BYTES];
        encoder_fingerprint(m.encoder, print);
        sha256_hex(print, result.fingerprint);
    }
    model_release(&m);
    if (!err) {
        *out = result;
    }
    return fault_of(fault, err, "encoding");
}

struct tokens {
    struct arena *arena;
    struct engine_token *v; /* on the heap while it grows */
    size_t n, cap;
    enum err err;
};

static void
take_token(void *arg, const char *token, size_t len, uint32_t id)
{
    struct tokens *t = arg;
    if (t->err) {
        return;
    }
    if (t->n == t->cap) {
        size_t cap = t->cap * 2 + 64;
        struct engine_token *v = mem_realloc(t->v, cap, sizeof(*v));
        if (!v) {
            t->err = ERR_NOMEM;
            return;
        }
        t->v = v;
        t->cap = cap;
    }
    const char *copy = arena_strndup(t->arena, token, len);
    if (!copy) {
        t->err = ERR_NOMEM;
        return;
    }
    t->v[t->n++] = (struct engine_token){.text = copy, .len = len, .id = id};
}

enum err
engine_tokenize(struct engine *engine, const char *model,
    const struct engine_text *text, struct arena *arena,
    struct engine_token **out, size_t *n, struct fault *fault)
{
    if (text->len > engine->text_bytes_max) {
        return fault_set(fault, ERR_TOO_LARGE, "/inputs",
            "the text has %zu bytes, the limit is %zu", text->len,
            engine->text_bytes_max);
    }
    struct model m;
    enum err err = model_find(engine, model, &m, fault);
    if (err) {
        return err;
    }
    struct tokens t = {.arena = arena};
    err = encoder_tokenize(
        m.encoder, text->s ? text->s : "", text->len, take_token, &t);
    err = err ? err : t.err;
    struct engine_token *copy = NULL;
    if (!err) {
        copy = arena_alloc(arena, t.n + 1, sizeof(*copy));
        err = copy ? OK : ERR_NOMEM;
    }
    if (!err) {
        if (t.n) {
            memcpy(copy, t.v, t.n * sizeof(*copy));
        }
        *out = copy;
        *n = t.n;
    }
    mem_free(t.v);
    model_release(&m);
    return fault_of(fault, err, "splitting the text");
}

enum err
engine_similarity(struct engine *engine, const char *model,
    const struct engine_text *source, const struct engine_text *sentences,
    size_t n, double *cosines, struct fault *fault)
{
    enum err err = check_inputs(engine, source, 1, fault);
    if (!err) {
        err = check_inputs(engine, sentences, n, fault);
    }
    struct model m;
    if (!err) {
        err = model_find(engine, model, &m, fault);
    }
    if (err) {
        return err;
    }
    struct arena arena;
    arena_init(&arena, SIZE_MAX / 2);
    float *query, *vectors;
    struct encoder_info *infos;
    err = encode(engine, m.encoder, source, 1, &arena, &query, &infos);
    if (!err) {
        err = encode(engine, m.encoder, sentences, n, &arena, &vectors, &infos);
    }
    size_t dims = encoder_dims(m.encoder);
    for (size_t i = 0; i < n && !err; i++) {
        cosines[i] = kern()->dot_f64(query, vectors + i * dims, dims);
    }
    arena_release(&arena);
    model_release(&m);
    return fault_of(fault, err, "comparing");
}
