#include "tests/support/use_lite_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fsio.h"
#include "model/published.h"
#include "model/safetensors.h"
#include "model/transformer_encoder.h"

#define PIECES_FIRST 6 /* those before it are never found in a text */
#define SETTINGS                                                               \
    "{\"layers\":2,\"hidden\":512,\"heads\":4,\"ffn\":1536,\"vocab\":8002,"    \
    "\"embedding\":256,\"positions\":\"sinusoidal\",\"max_positions\":128,"    \
    "\"embedding_scale\":2,\"embedding_norm\":false,\"norm\":\"pre\","         \
    "\"norm_eps\":1e-6,\"act\":\"relu\",\"dense\":512}"
#define CARD                                                                   \
    "{\"source\":\"universal-sentence-encoder-lite\","                         \
    "\"license\":\"apache-2.0\",\"languages\":[\"en\"]}"

/* ------------------------------------------------------------- tokenizer */

#define PIECES_MAX 8192

/* A line of the vocabulary. */
struct piece {
    const char *s, *score; /* borrowed */
    size_t len, score_len;
};

/* The pieces of the file in the order of their numbers; 0: it is wrong. */
static size_t
read_pieces(struct piece *out, const struct buf *tsv)
{
    const char *line = tsv->data, *end = tsv->data + tsv->len;
    size_t n = 0;

    for (; line < end && n < PIECES_MAX; n++) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        const char *tab =
            stop == NULL ? NULL : memchr(line, '\t', (size_t)(stop - line));
        const char *second =
            tab == NULL ? NULL
                        : memchr(tab + 1, '\t', (size_t)(stop - tab - 1));
        if (second == NULL || strtoul(line, NULL, 10) != n)
            return 0;
        out[n] = (struct piece){.s = tab + 1,
            .len = (size_t)(second - tab - 1),
            .score = second + 1,
            .score_len = (size_t)(stop - second - 1)};
        line = stop + 1;
    }
    return n;
}

/* Is there the same piece with a higher score, or as high a one before it? */
static bool
is_beaten(const struct piece *pieces, size_t n, size_t i)
{
    for (size_t j = PIECES_FIRST; j < n; j++) {
        if (j == i || pieces[j].len != pieces[i].len ||
            memcmp(pieces[j].s, pieces[i].s, pieces[i].len) != 0)
            continue;
        double score = strtod(pieces[i].score, NULL);
        double other = strtod(pieces[j].score, NULL);
        if (other > score || (other >= score && j < i))
            return true;
    }
    return false;
}

/* What a text can not have keeps its number and gets a name with a space, which
   no normalised text has. */
static enum err
put_tokenizer(struct buf *out, const struct buf *tsv, struct fault *fault)
{
    static struct piece pieces[PIECES_MAX];
    size_t n = read_pieces(pieces, tsv);

    if (n == 0)
        return fault_set(fault, ERR_INVALID, "", "vocab.tsv is damaged");
    buf_add_str(out,
        "{\"added_tokens\":[],\"normalizer\":{\"type\":\"Sequence\","
        "\"normalizers\":[{\"type\":\"NFKC\"},{\"type\":\"Replace\","
        "\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"},"
        "{\"type\":\"Prepend\",\"prepend\":\"\xE2\x96\x81\"}]},"
        "\"pre_tokenizer\":null,\"post_processor\":null,\"decoder\":null,"
        "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[");
    for (size_t i = 0; i < n; i++) {
        buf_add_str(out, i == 0 ? "[" : ",[");
        if (i < PIECES_FIRST || is_beaten(pieces, n, i)) {
            char name[64];
            (void)snprintf(name, sizeof name, "not found %zu", i);
            buf_json_cstr(out, name);
        } else {
            buf_json_string(out, pieces[i].s, pieces[i].len);
        }
        buf_add_char(out, ',');
        buf_add(out, pieces[i].score, pieces[i].score_len);
        buf_add_char(out, ']');
    }
    buf_add_str(out, "]}}");
    return buf_status(out);
}

/* --------------------------------------------------------------- weights */

/* A tensor to its place; of a matrix [in, out] the transposed. */
static enum err
copy_tensor(const struct safetensors *from, const char *name, float *to,
    size_t rows, size_t cols, bool turned, struct fault *fault)
{
    const struct safetensors_tensor *t = safetensors_find(from, name);
    float *values = mem_alloc(rows * cols, sizeof *values);
    enum err err = values == NULL ? ERR_NOMEM : OK;

    if (err == OK && (t == NULL || t->n != rows * cols))
        err = fault_set(fault, ERR_NOT_FOUND, "", "no tensor %s", name);
    if (err == OK)
        err = safetensors_read(from, t, values, fault);
    for (size_t i = 0; err == OK && i < rows * cols; i++)
        to[i] = values[turned ? i % cols * rows + i / cols : i];
    mem_free(values);
    return err;
}

static enum err
copy_layer(const struct safetensors *from, const struct transformer *t,
    float *params, size_t i, struct fault *fault)
{
    const struct transformer_layer *l = &t->layers[i];
    size_t W = l->in, H = t->config.hidden, F = t->config.ffn;
    const struct {
        const char *name;
        size_t at, rows, cols; /* rows = out */
    } parts[] = {{"attn_ln.scale", l->norm1, W, 1},
        {"attn_ln.bias", l->norm1 + W, W, 1},
        {"qkv.weight", l->qkv_w, 3 * W, W}, {"qkv.bias", l->qkv_b, 3 * W, 1},
        {"attn_out.weight", l->out_w, H, W}, {"attn_out.bias", l->out_b, H, 1},
        {"ffn_ln.scale", l->norm2, H, 1}, {"ffn_ln.bias", l->norm2 + H, H, 1},
        {"ffn1.weight", l->up_w, F, H}, {"ffn1.bias", l->up_b, F, 1},
        {"ffn2.weight", l->down_w, H, F}, {"ffn2.bias", l->down_b, H, 1},
        {"residual.weight", l->res_w, H, W}, {"residual.bias", l->res_b, H, 1}};
    size_t n = ARRAY_LEN(parts) - (l->res_w == 0 ? 2 : 0);
    enum err err = OK;

    for (size_t j = 0; j < n && err == OK; j++) {
        char name[64];
        (void)snprintf(name, sizeof name, "layer%zu.%s", i, parts[j].name);
        err = copy_tensor(from, name, params + parts[j].at, parts[j].rows,
            parts[j].cols, true, fault);
    }
    return err;
}

static enum err
copy_weights(const struct safetensors *from, struct encoder *encoder,
    struct fault *fault)
{
    const struct transformer *t = &transformer_of(encoder)->net;
    size_t n;
    float *params = encoder_params(encoder, &n);
    enum err err = copy_tensor(from, "embeddings", params + t->word,
        t->config.vocab, t->embedding, false, fault);

    for (size_t i = 0; i < t->config.layers && err == OK; i++)
        err = copy_layer(from, t, params, i, fault);
    if (err == OK)
        err = copy_tensor(from, "head.weight", params + t->dense_w,
            t->config.dense, t->config.hidden, true, fault);
    if (err == OK)
        err = copy_tensor(from, "head.bias", params + t->dense_b,
            t->config.dense, 1, false, fault);
    encoder_seal(encoder);
    return err;
}

enum err
use_lite_folder(const char *from, const char *to, struct fault *fault)
{
    struct safetensors st = {0};
    struct encoder *encoder = NULL;
    struct buf tsv, tokenizer;
    char path[4096];
    enum err err;

    buf_init(&tsv, 1 << 20);
    buf_init(&tokenizer, 1 << 22);
    (void)snprintf(path, sizeof path, "%s/vocab.tsv", from);
    err = fsio_read(path, &tsv, fault);
    (void)snprintf(path, sizeof path, "%s/model.safetensors", from);
    if (err == OK)
        err = safetensors_open(&st, path, fault);
    if (err == OK)
        err = put_tokenizer(&tokenizer, &tsv, fault);
    if (err == OK)
        err = encoder_build(&encoder, "transformer", SETTINGS, tokenizer.data,
            tokenizer.len, fault);
    if (err == OK)
        err = copy_weights(&st, encoder, fault);
    if (err == OK)
        err = published_export(encoder, to, "use-lite", CARD, fault);
    encoder_free(encoder);
    safetensors_release(&st);
    buf_release(&tsv);
    buf_release(&tokenizer);
    return err;
}
