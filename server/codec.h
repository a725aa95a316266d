/*
 * codec.h - request bodies into the engine's plain structs, and its results
 * into JSON.
 *
 * Readers put everything into the arena; nothing of a tree leaves this module.
 * They refuse by name what they do not know, and say by JSON pointer where.
 * Numbers of vectors and bytes of pictures do not go through a tree (scan.h).
 * Writers append to a buffer and cannot fail on their own: the buffer carries
 * the failure.
 */
#ifndef SERVER_CODEC_H
#define SERVER_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "engine/engine.h"

#define CODEC_VECTOR_MAX 4096     /* longest vector */
#define CODEC_BATCH_QUERIES 10000 /* queries in one body */
#define CODEC_EMBED_INPUTS 8192   /* inputs in one body */

/* ---- items (codec_items.c) ----------------------------------------------- */

/*
 * One item. path_id NULL: "id" is required; else it may be left out and must
 * be equal. On failure item->id is what could be read, or NULL.
 */
enum err codec_read_item(const char *s, size_t len, const char *path_id,
    struct arena *arena, struct engine_item *item,
    struct fault *fault) NODISCARD;
/* A JSON array; pointers start with the index. */
enum err codec_read_items(const char *s, size_t len, struct arena *arena,
    struct engine_item **items, size_t *n, struct fault *fault) NODISCARD;
/* {"metadata": {...}}; the object as text. */
enum err codec_read_metadata_patch(const char *s, size_t len,
    struct arena *arena, const char **metadata, struct fault *fault) NODISCARD;
/* {"ids": [...]} or {"filter": {...}}. */
struct codec_delete {
    const char *const *ids; /* NULL: by filter */
    size_t n_ids;
    const char *filter_json;
};
enum err codec_read_delete(const char *s, size_t len, struct arena *arena,
    struct codec_delete *out, struct fault *fault) NODISCARD;

enum err codec_read_pair(const char *s, size_t len, struct arena *arena,
    struct engine_pair *pair, struct fault *fault) NODISCARD;
enum err codec_read_pairs(const char *s, size_t len, struct arena *arena,
    struct engine_pair **pairs, size_t *n, struct fault *fault) NODISCARD;
struct codec_feedback {
    const char *search_id;
    const char *item_id;
    double weight;
};
enum err codec_read_feedback(const char *s, size_t len, struct arena *arena,
    struct codec_feedback *out, struct fault *fault) NODISCARD;

/* counter: "line" or "index"; an index counts from 0, a line from 1. */
void codec_write_outcome(struct buf *out, const struct engine_outcome *outcome,
    int status, const char *counter);
void codec_write_item(struct buf *out, const struct engine_item_view *item);
/* The answer to one write: {"id", "outcome", "version", ...}. */
void codec_write_written(
    struct buf *out, const struct engine_outcome *outcome, const char *id);
void codec_write_pair(struct buf *out, const struct engine_pair_view *pair);

/* ---- search and encoding (codec_search.c) -------------------------------- */

enum err codec_read_query(const char *s, size_t len, struct arena *arena,
    struct engine_query *query, struct fault *fault) NODISCARD;
/* {"queries": [...]}. faults [n]: a query that could not be read has its
   fault there and is otherwise empty. */
enum err codec_read_queries(const char *s, size_t len, struct arena *arena,
    struct engine_query **queries, struct fault **faults, size_t *n,
    struct fault *fault) NODISCARD;
void codec_write_answer(struct buf *out, const struct engine_answer *answer,
    const struct engine_query *query);

struct codec_embed {
    const char *model;
    struct engine_text *inputs;
    size_t n;
    size_t dims; /* 0: all */
    bool base64;
};
/* Unknown fields are ignored, as OpenAI's clients expect. */
enum err codec_read_embed(const char *s, size_t len, struct arena *arena,
    struct codec_embed *out, struct fault *fault) NODISCARD;
/* {"inputs": string or array, "model": ...} of Text Embeddings Inference. */
enum err codec_read_tokenize(const char *s, size_t len, struct arena *arena,
    struct codec_embed *out, struct fault *fault) NODISCARD;
/* {"inputs": {"source_sentence", "sentences"}, "model": ...}. */
struct codec_similarity {
    const char *model;
    struct engine_text source;
    struct engine_text *sentences;
    size_t n;
};
enum err codec_read_similarity(const char *s, size_t len, struct arena *arena,
    struct codec_similarity *out, struct fault *fault) NODISCARD;

/* ---- the rest (codec.c) -------------------------------------------------- */

/* The body is one JSON object, as text for the engine; empty: "{}". */
enum err codec_read_object(const char *s, size_t len, struct arena *arena,
    const char **text, struct fault *fault) NODISCARD;
/* Nothing, or an object without members. */
enum err codec_read_nothing(
    const char *s, size_t len, struct fault *fault) NODISCARD;
/* {"collection": "..."}. */
enum err codec_read_alias(const char *s, size_t len, struct arena *arena,
    const char **collection, struct fault *fault) NODISCARD;

void codec_write_collection(
    struct buf *out, const struct engine_collection_info *info);
void codec_write_generation(
    struct buf *out, const struct engine_generation *generation);
void codec_write_job(struct buf *out, const struct engine_job *job);
/* The encoders that are built in, as an array. */
void codec_write_families(struct buf *out, const struct engine_info *info);
/* One that was imported. */
void codec_write_encoder(struct buf *out, const struct engine_encoder *encoder);

/* ---- shared by the codec's files ----------------------------------------- */

struct json;
struct scan_slice;

/* Parse after the scan; the tree is freed with json_free. */
enum err codec_parse(const char *s, size_t len, struct json **out,
    struct fault *fault) NODISCARD;

/* A member that must be a string, copied; *out untouched when absent. */
enum err codec_get_text(const struct json *object, const char *at,
    const char *key, bool required, struct arena *arena,
    struct engine_text *out, struct fault *fault) NODISCARD;
enum err codec_get_string(const struct json *object, const char *at,
    const char *key, bool required, struct arena *arena, const char **out,
    struct fault *fault) NODISCARD;
/* A member that must be an array of strings; untouched when absent. */
enum err codec_get_strings(const struct json *object, const char *at,
    const char *key, size_t max, struct arena *arena, const char *const **out,
    size_t *n, struct fault *fault) NODISCARD;
/* A member that must be an object, as canonical text; untouched when absent. */
enum err codec_get_json(const struct json *object, const char *at,
    const char *key, struct arena *arena, const char **out, size_t *len,
    struct fault *fault) NODISCARD;
/* "vector": a cut array or base64 of little-endian f32; untouched when
   absent. */
enum err codec_get_vector(const struct json *object, const char *at,
    const struct scan_slice *slices, size_t n_slices, struct arena *arena,
    const float **out, size_t *n, struct fault *fault) NODISCARD;
/* "image": a picture file in base64, from a cut string. null, if not NULL, is
   set for "image": null, which is refused otherwise; both untouched when
   absent. The bytes are in the arena. */
enum err codec_get_image(const struct json *object, const char *at,
    const struct scan_slice *slices, size_t n_slices, struct arena *arena,
    struct engine_image *out, bool *null, struct fault *fault) NODISCARD;
/* Put "/i" in front of a fault's pointer. */
void codec_prefix(struct fault *fault, const char *prefix, size_t i);

/* ,"name":value with null where s is NULL */
void codec_put_floats(struct buf *out, const float *v, size_t n);

#endif
