/*
 * ingest_internal.h - what the files of ingest share: a batch from the inside.
 * ingest.c gathers and commits, ingest_encode.c finds out what is new and makes
 * its vectors, ingest_pictures.c looks at its pictures.
 */
#ifndef ENGINE_INGEST_INTERNAL_H
#define ENGINE_INGEST_INTERNAL_H

#include <pthread.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/hash.h"
#include "image/decode.h"
#include "store/images.h"
#include "engine/ingest.h"
#include "engine/internal.h"

#define INGEST_NONE UINT32_MAX
#define INGEST_POOL_FROM 8 /* fewer are encoded by the calling thread alone */

/* The picture that came with an item. */
struct ingest_picture {
    struct engine_image file; /* in the arena */
    struct image_facts facts;
    uint8_t sha256[SHA256_BYTES];
    const char *prefix; /* of the item in its request */
    bool same;          /* the item has it already: it was checked before */
    bool good;          /* it has been decoded */
};

struct ingest_entry {
    uint64_t line;
    const char *id;
    size_t id_len;
    struct engine_text title, text, metadata;
    const float *vector;            /* given, unit or zero; else NULL */
    struct ingest_picture *picture; /* given; else NULL */
    bool no_image;                  /* the item's picture goes */
    bool inherits;          /* picture or no_image is that of the line which
                               this one supersedes */
    bool has_image;         /* the present row has a picture */
    size_t doc_at, doc_len; /* in the batch's documents */
    uint8_t hash[ITEM_HASH_BYTES];
    enum engine_status status; /* REFUSED, SUPERSEDED: does nothing */
    uint64_t superseded_by, supersedes;
    bool unchanged; /* nothing to write */
    bool known;     /* the present row has this hash: keep its vectors */
    uint32_t row;   /* of the encoded vectors, or INGEST_NONE */
    uint32_t put;   /* index among the puts, or INGEST_NONE */
    int64_t version;
    struct encoder_info info;
    struct fault *fault;
};

struct ingest {
    struct collection *c;
    struct ingest_options options;
    bool reads_images; /* pictures are embedded, not documents */
    struct arena arena;
    struct ingest_entry *entries;
    size_t n, cap;
    size_t bytes;
    uint32_t *table; /* id -> entry, open addressing */
    size_t table_size;
    struct buf documents;

    struct snapshot *live, *shadow;
    float *live_vectors, *shadow_vectors;  /* [n_rows, dims] */
    size_t rows_cap_live, rows_cap_shadow; /* floats */
    struct encoder_input *inputs;
    struct encoder_info *infos;
    size_t cap_rows;
    uint32_t *row_entry; /* [n_rows] */
    size_t n_rows;
    bool force; /* take nothing for unchanged */

    struct item_put *puts;
    struct item_result *results;
    uint32_t *put_entry;
    int64_t *row_items; /* [n_rows] numbers, as put */
    struct store_text *ids;
    uint32_t *ords;
    size_t cap_puts, n_puts;
    struct image_row *image_rows; /* [n_image_rows] in the arena, as the rest */
    uint32_t *image_puts;         /* [n_image_rows] whose put */
    int64_t *drop_items;          /* [n_drops] pictures to be removed */
    uint32_t *drop_puts;          /* [n_drops] whose put */
    size_t n_image_rows, n_drops;
    size_t reserved;

    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool submitted, done;
    enum err err;
};

/* Realloc *pointer to cap elements of size; false leaves it. */
bool ingest_grow(void *pointer, size_t cap, size_t size) NODISCARD;
/* The entry of an id in a batch (NULL: none), or NULL. */
const struct ingest_entry *ingest_find(
    const struct ingest *b, const char *id, size_t len);
/* Does it write something, as far as is known? */
bool ingest_entry_writes(const struct ingest_entry *e);
/* Is the item's picture, which nothing is said of, what is embedded? Its hash
   is then that of the present row, or there is none. */
bool ingest_keeps_picture(const struct ingest *b, const struct ingest_entry *e);
/* Is the vector that came with it the one that the live space gets? */
bool ingest_takes_given(const struct ingest *b, const struct ingest_entry *e);

/* ---- ingest_pictures.c --------------------------------------------------- */

/* Check and copy the picture of an item that is being added to the arena;
 *out NULL when it has none. The fault points at PREFIX/image. */
enum err ingest_picture_add(struct ingest *b, const struct engine_item *item,
    const char *prefix, struct ingest_picture **out,
    struct fault *fault) NODISCARD;
/* The hash of what is embedded of an entry whose picture is known, NULL: it
   has none. */
void ingest_picture_hash(
    const struct ingest_picture *picture, uint8_t out[ITEM_HASH_BYTES]);
/* Mark the pictures that their items have already. items [n] numbers of
   entries [n]. */
enum err ingest_pictures_known(struct ingest *b, struct db *db,
    struct ingest_entry *const *entries, const int64_t *items,
    size_t n) NODISCARD;
/*
 * ingest_pictures_check - decode the new pictures of a batch, where that was
 * not done before: what is done where the encoder does not read them.
 * ingest_pictures_encode - fill rows, vectors and infos of a batch whose
 * encoder does, in blocks: decode, encode for both spaces.
 *
 * A picture that cannot be decoded refuses its entry, or the batch when that
 * is all or nothing. *again is set when a refusal brought an earlier line with
 * the same id back: the call must be made once more.
 */
enum err ingest_pictures_check(
    struct ingest *b, bool *again, struct fault *fault) NODISCARD;
enum err ingest_pictures_encode(
    struct ingest *b, bool *again, struct fault *fault) NODISCARD;
/* Refuse all the others that must be, before the call is made again: each
   picture is decoded once here, however many lines have the same id. */
enum err ingest_pictures_settle(
    struct ingest *b, struct fault *fault) NODISCARD;
/* Room for the pictures' rows of a batch, and the rows, before it is
   submitted. */
enum err ingest_pictures_submit(struct ingest *b) NODISCARD;
/* In the operation, after items_put. */
enum err ingest_pictures_put(struct ingest *b, struct db *db) NODISCARD;

#endif
