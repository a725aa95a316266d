/*
 * family.h - what a family of encoders implements behind encoder.h.
 *
 * Every family embeds struct encoder as its first member; encoder.c checks
 * arguments, keeps what all families share, and calls through the table.
 */
#ifndef MODEL_FAMILY_H
#define MODEL_FAMILY_H

#include <stdatomic.h>
#include "base/json.h"
#include "model/encoder.h"

struct encoder_family {
    const char *name;
    enum encoder_reads reads;
    const char *asset; /* NULL: none; the name of its tensor in the saved form,
                          and of its SHA-256 in the settings */
    /* Take encoder->asset, which was just set; pointer "" in the fault. */
    enum err (*take_asset)(struct encoder *encoder, struct fault *fault);
    size_t (*n_parts)(const struct encoder *encoder); /* NULL: none */
    /* fill: set the untrained parameters; else they are about to be read */
    enum err (*make)(struct encoder **out, const struct json *config, bool fill,
        struct buf *canonical, struct fault *fault);
    /* The parts of params, ascending; out may be NULL to count them. */
    size_t (*tensors)(
        const struct encoder *encoder, struct encoder_tensor *out, size_t max);
    enum err (*encode)(const struct encoder *encoder,
        const struct encoder_input *inputs, size_t n, float *out,
        struct encoder_info *info, struct pool *pool);
    enum err (*tokenize)(const struct encoder *encoder, const char *text,
        size_t len, encoder_token_fn *fn, void *arg);
    enum err (*tape_new)(
        struct encoder_tape **out, const struct encoder *encoder);
    void (*tape_free)(struct encoder_tape *tape);
    /* as of encoder_tape_input_bytes; NULL: it is little */
    size_t (*tape_input_bytes)(
        const struct encoder *encoder, const struct encoder_input *input);
    enum err (*forward)(const struct encoder *encoder,
        struct encoder_tape *tape, const struct encoder_input *inputs, size_t n,
        const struct encoder_noise *noise, float *out, struct pool *pool);
    enum err (*backward)(const struct encoder *encoder,
        struct encoder_tape *tape, const float *d_out,
        struct encoder_grads *grads, struct pool *pool);
    /* How many marks and how many segments a gradient may have. */
    size_t (*n_marks)(const struct encoder *encoder);
    size_t (*n_segments_max)(const struct encoder *encoder);
    enum err (*refit)(
        struct encoder *encoder, encoder_next_fn *next, void *arg);
    /* Free what encode left in *encoder->cache; NULL: it leaves nothing. */
    void (*cache_free)(void *cache);
    /* Heap of such a cache; NULL: as above. */
    size_t (*cache_bytes)(const struct encoder *encoder);
};

/* Bytes beside the parameters and what the family made of them; immutable,
   shared by clones. */
struct encoder_asset {
    atomic_size_t refs;
    char *bytes;
    size_t n;
    void *made; /* NULL: nothing */
    void (*free_made)(void *made);
};

struct encoder {
    const struct encoder_family *family;
    size_t n_dims;
    size_t max_tokens;
    uint32_t image_side, image_channels; /* 0: reads text */
    float *params;                       /* [n_params + n_adapter], one block */
    size_t n_params;                     /* the family's */
    size_t n_adapter;       /* of the adapter behind them; 0: none */
    bool trained;           /* parameters differ from what the seed gives */
    bool unsealed;          /* parameters may change between two calls */
    _Atomic(void *) *cache; /* what encode derived from the parameters; only
                               while sealed; the family's */
    struct encoder_asset *asset; /* NULL: the family has none */
    size_t n_frozen;             /* parts from the bottom */
    char *config_json;           /* canonical */
    size_t struct_bytes; /* of the family's struct, which holds no pointer
                            of its own: a copy of it is a copy */
};

struct encoder_tape {
    const struct encoder_family *family;
    size_t bytes; /* of what it keeps of the inputs; the family's to set */
};

/* What encoder.c has for encoder_saved.c. */
#define ENCODER_CONFIG_MAX_BYTES 16384
#define ENCODER_ASSET_MAX_BYTES ((size_t)64 << 20)

/* As encoder_new where fill is set; else parameters and asset are about to be
   read. */
enum err encoder_make(struct encoder **out, const char *family,
    const char *config_json, bool fill, struct buf *config,
    struct fault *fault) NODISCARD;
/* Room for an asset of n bytes, to be filled and then taken by the family. */
enum err encoder_asset_new(struct encoder *encoder, size_t n) NODISCARD;
/* The settings with the digest of the asset under `member`; ERR_INVALID when
   they name another. */
enum err encoder_config_with_asset(const char *config_json, const char *member,
    const void *asset, size_t n_asset, struct buf *out,
    struct fault *fault) NODISCARD;

extern const struct encoder_family static_encoder_family;
extern const struct encoder_family vision_encoder_family;
extern const struct encoder_family transformer_encoder_family;

#endif
