/*
 * snapshot.h - what a query is answered with: one generation of a collection,
 * whole and unchanging.
 *
 * A snapshot joins an encoder, the index of a space and a temperature. It is
 * counted; encoder and index are counted on their own, because collections
 * that start with equal settings share one encoder, and generations of one
 * space share one index. The index itself changes as items are written;
 * everything else is constant.
 */
#ifndef ENGINE_SNAPSHOT_H
#define ENGINE_SNAPSHOT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "ann/ann.h"
#include "base/err.h"
#include "base/hash.h"
#include "model/encoder.h"
#include "store/encoders.h"

/* ---- encoders ------------------------------------------------------------ */

struct encoder_ref;

/* The encoders in use that several may share, untrained and imported ones, so
   that equal ones are kept once. */
struct encoder_registry {
    pthread_mutex_t lock; /* over the list and the counts of its members; taken
                             last, not held while an encoder is made */
    pthread_cond_t made;  /* or given up */
    struct encoder_ref *first;
};
void encoder_registry_init(struct encoder_registry *registry);
void encoder_registry_release(struct encoder_registry *registry);

/* Take an encoder of one's own (trained); gives one reference. On failure the
   encoder is still the caller's. */
enum err encoder_ref_new(
    struct encoder_ref **out, struct encoder *encoder) NODISCARD;
/* What a shared encoder comes from. */
struct encoder_source {
    const char *family;
    const char *config_json; /* complete */
    struct store *store;     /* where an imported one's weights are */
    int64_t imported;        /* its row; 0: untrained, the settings say all */
};
/*
 * encoder_ref_share - the encoder of this source.
 *
 *   encoder  taken when not NULL (also freed when there is one already), else
 *            made from the source when there is none; who asks for the same
 *            meanwhile waits for it, nobody else
 */
enum err encoder_ref_share(struct encoder_ref **out,
    struct encoder_registry *registry, const struct encoder_source *source,
    struct encoder *encoder, struct fault *fault) NODISCARD;
struct encoder_ref *encoder_ref_more(struct encoder_ref *ref);
void encoder_ref_less(struct encoder_ref *ref); /* NULL is fine */
/* NULL gives NULL: an external collection has none. */
const struct encoder *encoder_ref_get(const struct encoder_ref *ref);
/* Heap of all shared ones, each counted once. */
size_t encoder_registry_bytes(struct encoder_registry *registry);
bool encoder_ref_is_shared(const struct encoder_ref *ref);

/* An encoder from n bytes of weights as the file has them. */
enum err encoder_read_weights(struct encoder **out, const char *family,
    const char *config_json, struct weights_reader *reader, uint64_t n,
    struct fault *fault) NODISCARD;

/* ---- indexes ------------------------------------------------------------- */

struct space_index {
    atomic_size_t refs;
    int64_t space;
    size_t dims;
    uint8_t fingerprint[SHA256_BYTES];
    struct ann *ann;
    atomic_size_t reserved; /* rows that ann has room for */
};
enum err space_index_new(struct space_index **out, int64_t space, size_t dims,
    const uint8_t fingerprint[SHA256_BYTES], struct pool *pool) NODISCARD;
struct space_index *space_index_ref(struct space_index *index);
void space_index_unref(struct space_index *index);
/* Room for n rows, growing by more than is asked so that it seldom grows. */
enum err space_index_reserve(struct space_index *index, size_t n) NODISCARD;

/* ---- snapshots ----------------------------------------------------------- */

struct snapshot {
    atomic_size_t refs;
    int64_t generation;
    int64_t generation_id;       /* the store's row */
    struct encoder_ref *encoder; /* NULL: external */
    struct space_index *index;
    double temperature;
    char fingerprint[SHA256_HEX]; /* of the space */
};

/* Takes one reference each of encoder and index, also on failure. */
enum err snapshot_new(struct snapshot **out, int64_t generation,
    int64_t generation_id, struct encoder_ref *encoder,
    struct space_index *index, double temperature) NODISCARD;
struct snapshot *snapshot_ref(struct snapshot *snapshot);
void snapshot_unref(struct snapshot *snapshot); /* NULL is fine */

/* The fingerprint of the space in which this encoder puts documents made by
   this template. encoder NULL: external, of these dims. */
void space_fingerprint(const struct encoder *encoder, size_t dims,
    const char *template_text, uint8_t out[SHA256_BYTES]);

#endif
