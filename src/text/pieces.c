#include "text/pieces.h"

#include "base/alloc.h"
#include "text/unicode.h"

#define NOWHERE UINT32_MAX

void
pieces_init(struct pieces *pieces)
{
    *pieces = (struct pieces){0};
    scratch_init(&pieces->bytes, PIECES_BYTES_MAX);
}

void
pieces_release(struct pieces *pieces)
{
    mem_free(pieces->places);
    scratch_release(&pieces->bytes);
    trie_release(&pieces->trie);
    *pieces = (struct pieces){0};
}

static enum err
reserve(struct pieces *pieces, size_t id)
{
    if (id >= pieces->cap) {
        size_t cap = MAX(pieces->cap * 2, MAX(id + 1, (size_t)256));
        struct piece_place *grown =
            mem_realloc(pieces->places, cap, sizeof *grown);
        if (grown == NULL)
            return ERR_NOMEM;
        pieces->places = grown;
        pieces->cap = cap;
    }
    for (; pieces->n <= id; pieces->n++)
        pieces->places[pieces->n] = (struct piece_place){.start = NOWHERE};
    return OK;
}

static enum err
check_bytes(const char *s, size_t len, const char *at, struct fault *fault)
{
    if (len == 0 || len > PIECE_BYTES_MAX)
        return fault_set(fault, ERR_INVALID, at,
            "a piece has 1 to %d bytes, this one %zu", PIECE_BYTES_MAX, len);
    if (memchr(s, '\0', len) != NULL)
        return fault_set(fault, ERR_INVALID, at, "a piece with a NUL");
    if (utf8_valid_prefix(s, len) < len)
        return fault_set(fault, ERR_INVALID, at, "a piece that is not UTF-8");
    return OK;
}

enum err
pieces_add(struct pieces *pieces, int64_t id, const char *s, size_t len,
    bool hidden, const char *at, struct fault *fault)
{
    if (id < 0 || (uint64_t)id >= PIECES_MAX)
        return fault_set(fault, ERR_INVALID, at,
            "the number %lld; pieces have 0 to %zu", (long long)id,
            PIECES_MAX - 1);
    enum err err = check_bytes(s, len, at, fault);
    if (err == OK)
        err = reserve(pieces, (size_t)id);
    if (err != OK)
        return err;
    struct piece_place *place = &pieces->places[id];
    if (place->start != NOWHERE)
        return fault_set(fault, ERR_INVALID, at,
            "the number %lld is \"%.*s\" already", (long long)id,
            (int)place->len, pieces->bytes.data + place->start);
    size_t start = pieces->bytes.len;
    scratch_add(&pieces->bytes, s, len);
    if (pieces->bytes.err == ERR_TOO_LARGE)
        return fault_set(fault, ERR_TOO_LARGE, at,
            "the pieces have more than %zu bytes", PIECES_BYTES_MAX);
    if (pieces->bytes.err != OK)
        return pieces->bytes.err;
    *place = (struct piece_place){.start = (uint32_t)start,
        .len = (uint32_t)len & 0x7FFFFFFF,
        .hidden = hidden};
    return OK;
}

enum err
pieces_build(struct pieces *pieces, const char *at, struct fault *fault)
{
    struct trie_key *keys = mem_alloc(pieces->n + 1, sizeof *keys);
    size_t n = 0;
    if (keys == NULL)
        return ERR_NOMEM;
    for (size_t id = 0; id < pieces->n; id++) {
        struct piece_place place = pieces->places[id];
        if (place.start != NOWHERE && !place.hidden)
            keys[n++] = (struct trie_key){
                pieces->bytes.data + place.start, place.len, (uint32_t)id};
    }
    size_t twice = trie_sort(keys, n);
    enum err err = OK;
    if (twice < n)
        err = fault_set(fault, ERR_INVALID, at,
            "the piece \"%.*s\" has the numbers %lu and %lu",
            (int)MIN(keys[twice].len, 64U), keys[twice].s,
            (unsigned long)MIN(keys[twice - 1].value, keys[twice].value),
            (unsigned long)MAX(keys[twice - 1].value, keys[twice].value));
    if (err == OK)
        err = trie_build(&pieces->trie, keys, n);
    if (err == ERR_TOO_LARGE)
        err = fault_set(
            fault, err, at, "the vocabulary of %zu pieces is too large", n);
    mem_free(keys);
    return err;
}

const char *
pieces_get(const struct pieces *pieces, size_t id, size_t *len)
{
    if (id >= pieces->n || pieces->places[id].start == NOWHERE)
        return NULL;
    *len = pieces->places[id].len;
    return pieces->bytes.data + pieces->places[id].start;
}
