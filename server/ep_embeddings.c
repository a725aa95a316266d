/* Texts into vectors, in the shapes of OpenAI and of Text Embeddings
   Inference. */
#include <stdio.h>
#include <string.h>
#include "server/ep.h"
#include "base/base64.h"
#include "engine/engine.h"
#include "server/codec.h"
#include "server/http.h"
#include "server/problem.h"

static void
put_embedding(struct buf *out, const struct engine_embeddings *from, size_t i,
    size_t index, bool base64)
{
    buf_printf(out, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":",
        index > 0 ? "," : "", index);
    const float *v = from->rows[i].vector;
    if (base64) {
        /* f32 as the machine has it: little-endian on all that we run on */
        buf_add_char(out, '"');
        base64_encode(out, v, from->dims * sizeof(*v));
        buf_add_char(out, '"');
    } else {
        codec_put_floats(out, v, from->dims);
    }
    buf_add_char(out, '}');
}

/*
 * More inputs than the engine takes at once go in several calls. A switch
 * between two of them would mix spaces in one answer: then all start anew.
 */
static enum err
embed_all(struct request *req, const struct codec_embed *what, struct buf *out,
    struct engine_embeddings *last, uint64_t *n_tokens, struct fault *fault)
{
    char fingerprint[SHA256_HEX] = "";
    size_t at = 0;
    int tries = 0;
    *n_tokens = 0;
    while (at < what->n) {
        size_t n = MIN(what->n - at, (size_t)ENGINE_EMBED_INPUTS_MAX);
        enum err err = engine_embed(req->daemon->engine, what->model,
            what->inputs + at, n, what->dims, false, &req->arena, last, fault);
        if (err != OK)
            return err;
        if (at == 0) {
            memcpy(fingerprint, last->fingerprint, sizeof(fingerprint));
        } else if (memcmp(fingerprint, last->fingerprint,
                       sizeof(fingerprint)) != 0) {
            if (++tries == 3)
                return fault_set(fault, ERR_BUSY, "",
                    "the model changed while the inputs were embedded");
            buf_clear(out);
            buf_add_str(out, "{\"object\":\"list\",\"data\":[");
            *n_tokens = 0;
            at = 0;
            continue;
        }
        for (size_t i = 0; i < n; i++)
            put_embedding(out, last, i, at + i, what->base64);
        *n_tokens += last->n_tokens;
        at += n;
    }
    return OK;
}

void
ep_embeddings(struct request *req)
{
    struct fault fault = {0};
    struct codec_embed what;
    struct engine_embeddings last;
    uint64_t n_tokens = 0;
    enum err err = codec_read_embed(
        req->body.data, req->body.len, &req->arena, &what, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    struct buf *out = reply_json(req, 200);
    buf_add_str(out, "{\"object\":\"list\",\"data\":[");
    err = embed_all(req, &what, out, &last, &n_tokens, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    buf_add_str(out, "],\"model\":");
    buf_json_cstr(out, what.model);
    buf_printf(out, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}",
        (unsigned long long)n_tokens, (unsigned long long)n_tokens);
    buf_add_str(out, ",\"fingerprint\":");
    buf_json_cstr(out, last.fingerprint);
    buf_add_char(out, '}');
}

void
ep_tokenize(struct request *req)
{
    struct fault fault = {0};
    struct codec_embed what;
    enum err err = codec_read_tokenize(
        req->body.data, req->body.len, &req->arena, &what, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    struct buf *out = reply_json(req, 200);
    buf_add_char(out, '[');
    for (size_t i = 0; err == OK && i < what.n; i++) {
        struct engine_token *tokens = NULL;
        size_t n = 0;
        err = engine_tokenize(req->daemon->engine, what.model, &what.inputs[i],
            &req->arena, &tokens, &n, &fault);
        buf_add_str(out, i > 0 ? ",[" : "[");
        for (size_t t = 0; err == OK && t < n; t++) {
            buf_printf(
                out, "%s{\"id\":%u,\"text\":", t > 0 ? "," : "", tokens[t].id);
            buf_json_string(out, tokens[t].text, tokens[t].len);
            buf_add_str(out, ",\"special\":false}");
        }
        buf_add_char(out, ']');
    }
    buf_add_char(out, ']');
    if (err != OK)
        problem_reply(req, &fault);
}

void
ep_similarity(struct request *req)
{
    struct fault fault = {0};
    struct codec_similarity what;
    double *cosines = NULL;
    enum err err = codec_read_similarity(
        req->body.data, req->body.len, &req->arena, &what, &fault);
    if (err == OK) {
        cosines = arena_alloc(&req->arena, what.n, sizeof(*cosines));
        if (!cosines)
            err = fault_set(&fault, ERR_NOMEM, "", "out of memory");
    }
    /* In steps of what the engine takes at once. */
    for (size_t at = 0; err == OK && at < what.n;) {
        size_t n = MIN(what.n - at, (size_t)ENGINE_EMBED_INPUTS_MAX - 1);
        err = engine_similarity(req->daemon->engine, what.model, &what.source,
            what.sentences + at, n, cosines + at, &fault);
        at += n;
    }
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    struct buf *out = reply_json(req, 200);
    buf_add_char(out, '[');
    for (size_t i = 0; i < what.n; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        buf_json_double(out, cosines[i]);
    }
    buf_add_char(out, ']');
}
