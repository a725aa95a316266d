#include "text/unigram.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "text/unicode.h"

#define NOT_REACHED UINT32_MAX
#define N_PARTS 16384
/* Ways closer than this may change places with what stands before. Sums are
   at most some 10^8, which doubles have to 10^-8. */
#define NEAR 1e-6

/* The best way to a place in the text. */
struct node {
    double score;
    uint32_t start; /* where its last piece begins; forward after the search */
    uint32_t id;    /* of that piece */
};

/* Unknown characters that wait to be one piece. */
struct pending {
    const char *s;
    size_t len;
};

static bool
is_space_mark(const char *s, size_t len)
{
    return len >= UNIGRAM_SPACE_LEN &&
           memcmp(s, UNIGRAM_SPACE, UNIGRAM_SPACE_LEN) == 0;
}

/* The first place behind the first character of s where a U+2581 follows
   something else; len when there is none. */
static size_t
part_len(const char *s, size_t len)
{
    size_t i = 0;
    while (i < len && is_space_mark(s + i, len - i))
        i += UNIGRAM_SPACE_LEN;
    for (; i < len; i++) {
        if (s[i] == UNIGRAM_SPACE[0] && is_space_mark(s + i, len - i))
            return i;
    }
    return len;
}

static bool
can_have_parts(const struct pieces *pieces)
{
    uint32_t id;
    size_t len;
    if (!trie_find(&pieces->trie, UNIGRAM_SPACE, UNIGRAM_SPACE_LEN, &id))
        return false;
    for (size_t i = 0; i < pieces->n; i++) {
        const char *s = pieces_get(pieces, i, &len);
        if (s != NULL && !pieces->places[i].hidden && part_len(s, len) < len)
            return false;
    }
    return true;
}

void
unigram_init(struct unigram *out, const struct pieces *pieces, double *scores,
    uint32_t unknown_id, bool byte_fallback)
{
    double lowest = INFINITY;
    size_t len;
    *out = (struct unigram){.scores = scores,
        .unknown_id = unknown_id,
        .byte_fallback = byte_fallback,
        .parts = can_have_parts(pieces)};
    for (size_t i = 0; i < pieces->n; i++) {
        if (pieces_get(pieces, i, &len) != NULL)
            lowest = fmin(lowest, scores[i]);
    }
    out->unknown_score = lowest - UNIGRAM_UNKNOWN_PENALTY;
    out->fingerprint = hash_bytes(pieces->bytes.data, pieces->bytes.len,
        hash_bytes(pieces->places, pieces->n * sizeof *pieces->places,
            hash_bytes(scores, pieces->n * sizeof *scores, unknown_id)));
    for (unsigned i = 0; i < 256; i++) {
        char name[8];
        int n = snprintf(name, sizeof name, "<0x%02X>", i);
        out->bytes[i] = NOT_REACHED;
        (void)trie_find(&pieces->trie, name, (size_t)n, &out->bytes[i]);
    }
}

void
unigram_release(struct unigram *model)
{
    mem_free(model->scores);
    model->scores = NULL;
}

void
unigram_work_init(struct unigram_work *work, size_t max_bytes)
{
    *work = (struct unigram_work){0};
    scratch_init(&work->nodes, (max_bytes + 1) * sizeof(struct node));
}

void
unigram_work_release(struct unigram_work *work)
{
    scratch_release(&work->nodes);
    mem_free(work->parts);
    work->parts = NULL;
}

/* Returns whether the two ways were near each other. */
static bool
improve(struct node *node, double score, size_t start, uint32_t id)
{
    if (node->start == NOT_REACHED) {
        *node = (struct node){score, (uint32_t)start, id};
        return false;
    }
    double gain = score - node->score;
    if (gain > 0)
        *node = (struct node){score, (uint32_t)start, id};
    return gain < NEAR && gain > -NEAR;
}

/* Fill nodes[0..len] with the best way to every place; nodes[0] has what the
   text before scored, so that a text sums up alike in parts and as a whole.
   Returns whether some choice was near. */
static bool
search(const struct unigram *model, const struct trie *trie, const char *s,
    size_t len, struct node *nodes)
{
    for (size_t i = 1; i <= len; i++)
        nodes[i].start = NOT_REACHED;
    size_t n;
    bool near = false;
    for (size_t start = 0; start < len; start += n) {
        const double here = nodes[start].score;
        uint32_t node = trie->root;
        bool alone = false;
        n = utf8_len((unsigned char)s[start]);
        for (size_t end = start; end < len;) {
            if (!trie_step(trie, &node, (unsigned char)s[end++]))
                break;
            if (!trie_ends(node))
                continue;
            uint32_t id = trie_value(trie, node);
            near |= improve(&nodes[end], here + model->scores[id], start, id);
            alone |= end - start == n;
        }
        if (!alone)
            near |= improve(&nodes[start + n], here + model->unknown_score,
                start, model->unknown_id);
    }
    return near;
}

/* Turn the links around: nodes[i].start becomes the end of the piece at i. */
static void
turn_around(struct node *nodes, size_t len)
{
    uint32_t end = (uint32_t)len, start = nodes[len].start;
    while (end > 0) {
        uint32_t before = nodes[start].start;
        nodes[start].start = end;
        end = start;
        start = before;
    }
}

static void
put_unknown(const struct unigram *model, const struct pieces *pieces,
    struct pending *unknown, struct piece_sink *sink)
{
    uint32_t id = model->unknown_id;
    bool all = model->byte_fallback;
    const size_t n = unknown->len;
    unknown->len = 0;
    if (trie_find(&pieces->trie, unknown->s, n, &id)) {
        piece_sink_put(sink, id);
        return;
    }
    for (size_t i = 0; i < n && all; i++)
        all = model->bytes[(unsigned char)unknown->s[i]] != NOT_REACHED;
    if (!all) {
        piece_sink_put(sink, model->unknown_id);
        return;
    }
    for (size_t i = 0; i < n; i++)
        piece_sink_put(sink, model->bytes[(unsigned char)unknown->s[i]]);
}

static void
put_path(const struct unigram *model, const struct pieces *pieces,
    const char *s, size_t len, const struct node *nodes,
    struct pending *unknown, struct piece_sink *sink)
{
    for (size_t i = 0; i < len;) {
        size_t end = nodes[i].start;
        uint32_t id = nodes[end].id;
        if (id == model->unknown_id) {
            if (unknown->len == 0)
                unknown->s = s + i;
            unknown->len += end - i;
        } else {
            if (unknown->len > 0)
                put_unknown(model, pieces, unknown, sink);
            piece_sink_put(sink, id);
        }
        i = end;
    }
}

/* The place of a part, whether or not it is there; NULL for long ones. */
static struct unigram_part *
place_of(struct unigram_work *work, const char *s, size_t len)
{
    if (len > UNIGRAM_PART_BYTES)
        return NULL;
    return &work->parts[hash_bytes(s, len, 0) % N_PARTS];
}

/* Remember the pieces of s; not when one of them is unknown. */
static void
remember(const struct unigram *model, struct unigram_part *part, const char *s,
    size_t len, const struct node *nodes)
{
    size_t n = 0;
    part->len = 0;
    for (size_t i = 0; i < len; i = nodes[i].start) {
        uint32_t id = nodes[nodes[i].start].id;
        if (id == model->unknown_id || n == UNIGRAM_PART_PIECES)
            return;
        part->ids[n++] = id;
    }
    part->len = (unsigned char)len;
    part->n = (unsigned char)n;
    memcpy(part->s, s, len);
}

/* A text on its way: the sum of what is done, and what waits. */
struct path {
    const struct unigram *model;
    const struct pieces *pieces;
    struct piece_sink *sink;
    struct pending unknown;
    double score;
};

/* The scores are added one by one, as the search would. */
static void
put_remembered(struct path *path, const struct unigram_part *part)
{
    if (path->unknown.len > 0)
        put_unknown(path->model, path->pieces, &path->unknown, path->sink);
    for (size_t i = 0; i < part->n; i++) {
        piece_sink_put(path->sink, part->ids[i]);
        path->score += path->model->scores[part->ids[i]];
    }
}

static enum err
put_part(
    struct path *path, const char *s, size_t len, struct unigram_work *work)
{
    struct unigram_part *part = place_of(work, s, len);
    if (part != NULL && part->len == len && memcmp(part->s, s, len) == 0) {
        put_remembered(path, part);
        return OK;
    }
    scratch_clear(&work->nodes);
    if (!scratch_room(&work->nodes, (len + 1) * sizeof(struct node)))
        return work->nodes.err;
    /* mem_realloc aligns for every type. */
    struct node *nodes = (struct node *)(void *)work->nodes.data;
    nodes[0] = (struct node){path->score, 0, 0};
    bool near = search(path->model, &path->pieces->trie, s, len, nodes);
    path->score = nodes[len].score;
    turn_around(nodes, len);
    if (part != NULL && !near)
        remember(path->model, part, s, len, nodes);
    put_path(
        path->model, path->pieces, s, len, nodes, &path->unknown, path->sink);
    return OK;
}

/* The remembered parts are those of this model. */
static enum err
own_parts(const struct unigram *model, struct unigram_work *work)
{
    if (work->parts != NULL && work->owner == model->fingerprint)
        return OK;
    mem_free(work->parts);
    work->parts = mem_calloc(N_PARTS, sizeof *work->parts);
    work->owner = model->fingerprint;
    return work->parts == NULL ? ERR_NOMEM : OK;
}

enum err
unigram_encode(const struct unigram *model, const struct pieces *pieces,
    const char *s, size_t len, struct unigram_work *work,
    struct piece_sink *sink)
{
    struct path path = {
        .model = model, .pieces = pieces, .sink = sink, .unknown = {s, 0}};
    enum err err = own_parts(model, work);
    while (len > 0 && err == OK) {
        size_t n = model->parts ? part_len(s, len) : len;
        err = put_part(&path, s, n, work);
        s += n;
        len -= n;
    }
    if (err == OK && path.unknown.len > 0)
        put_unknown(model, pieces, &path.unknown, sink);
    return err;
}
