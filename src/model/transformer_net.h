/*
 * transformer_net.h - a shard of sequences through the network: what
 * transformer_net.c and transformer_train.c share.
 */
#ifndef MODEL_TRANSFORMER_NET_H
#define MODEL_TRANSFORMER_NET_H

#include "model/transformer.h"

/* Sequences [first, first + n) with tokens [token, token + tokens). */
struct transformer_shard {
    size_t first, n;
    size_t token, tokens;
};

/* One layer's arrays over the tokens of a shard, W the width of its input, H
   of its output: norm post
     a = x, n1 = res(a) + Wo o, b = LN1(n1), n2 = b + Wd act(u), x' = LN2(n2)
   and norm pre
     n1 = x, a = LN1(n1), n2 = res(n1) + Wo o, b = LN2(n2), x' = n2 + Wd act(u)
   where o is attention over qkv = Wqkv a, u = Wu b. */
struct transformer_acts {
    float *a;      /* [T, W] */
    float *qkv;    /* [T, 3 W] */
    float *o;      /* [T, W] */
    float *n1;     /* post [T, H], pre [T, W] */
    float *b;      /* [T, H] */
    float *u;      /* [T, ffn] */
    float *n2;     /* [T, H] */
    float *stats1; /* [T, 2], as stats2; NULL: not kept */
    float *stats2;
};

/* Where the layer finds its input. */
float *transformer_acts_input(
    const struct transformer *t, const struct transformer_acts *acts);

/* Scratch of a thread, for shards of at most cap_tokens tokens in sequences of
   at most cap_length. */
struct transformer_scratch {
    float *block;
    struct transformer_acts acts; /* of a layer that keeps nothing */
    float *next;                  /* [T, width] pre: the layer's output */
    float *residual;              /* [T, H] */
    float *g;                     /* [T, ffn] act(u); or codes of an input */
    float *attention;             /* [attention's workspace] */
};

/* All that calls leave to later ones: scratch and shards. */
struct transformer_work {
    struct transformer_scratch *scratch; /* [n_threads] */
    size_t n_threads, cap_tokens, cap_length;
    size_t scratch_bytes; /* of one */
    struct transformer_shard *shards;
    size_t n_shards, cap_shards;
    float *f; /* [n, H] what was pooled */
    size_t cap_sequences;
};

/* Check the batch, cut it into shards, and make room for the pool. */
enum err transformer_work_begin(struct transformer_work *work,
    const struct transformer *t, const struct transformer_batch *batch,
    struct pool *pool);
void transformer_work_release(struct transformer_work *work);

/* What a pass over one shard needs everywhere. */
struct transformer_run {
    const struct transformer *t;
    const float *params;
    const struct transformer_ready *ready;
    const struct transformer_batch *batch;
    const struct transformer_shard *shard;
    struct transformer_scratch *s;
};

/* x [T, E] = the embeddings of the shard, before their norm. */
void transformer_embed(const struct transformer_run *r, float *x);
/* x [T, E] becomes the input of the first layer, in y, which may be x. */
void transformer_embed_norm(
    const struct transformer_run *r, float *y, float *stats, float *x);
/* Layer i: from its input, in acts, to next [T, H], which may be the scratch's
   own; g [T, ffn] may be acts->u. */
void transformer_layer_forward(const struct transformer_run *r, size_t i,
    const struct transformer_acts *acts, float *g, float *next);
/* f [n, H] of the shard's sequences from the last layer's output x [T, H]. */
void transformer_pool(
    const struct transformer_run *r, float *f, const float *x);
/* out [n, n_dims] from f; z [n, n_dims] what is normalised, norm [n] its
   length; z may be out, norm NULL. */
void transformer_head(const struct transformer_run *r, float *out, float *z,
    float *norm, const float *f);

struct kern_norm transformer_norm_of(
    const struct transformer *t, const float *params, size_t at, size_t n);

#endif
