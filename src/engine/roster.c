#include "engine/roster.h"

#include <pthread.h>
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/hash.h"

/* An id's text is named by one word: chunk, offset in it, length. */
#define CHUNK_BYTES ((size_t)1 << 20)
#define LEN_BITS 10 /* ids have at most 512 bytes */
#define OFF_BITS 20
#define LEN_MAX ((1u << LEN_BITS) - 1)

/* Slots of the hash table that hold no ordinal. */
#define EMPTY UINT32_MAX
#define TOMB (UINT32_MAX - 1)

enum { ORD_FREE, ORD_LIVE, ORD_LIMBO };

struct roster {
    pthread_rwlock_t lock;
    /* by ordinal, under the lock */
    int64_t *item;
    int64_t *version;
    uint64_t *ref;
    uint32_t *hash; /* live: of the id; else: next ordinal of its list */
    uint8_t *state;
    size_t span;
    size_t cap;
    size_t n_live;
    /* open addressing over hash, linear probing */
    uint32_t *table;
    size_t table_size; /* power of two, or 0 */
    size_t table_used; /* live and tombs */
    /* id text, appended; reclaimed by a rewrite once most of it is dead */
    char **chunks;
    size_t n_chunks; /* allocated: those after chunk_i are spare */
    size_t cap_chunks;
    size_t chunk_i;
    size_t chunk_used;
    size_t text_bytes; /* of ordinals that are not free */
    /* lists of ordinals linked through hash */
    uint32_t free_head;
    uint32_t limbo_now; /* removed in this epoch */
    uint32_t limbo_old; /* removed in the one before */
    uint64_t seed;
    /* searches running, by the parity of the epoch in which they began */
    pthread_mutex_t gate;
    unsigned epoch;
    size_t running[2];
};

enum err
roster_new(struct roster **out)
{
    struct roster *r = mem_calloc(1, sizeof(*r));
    if (!r) {
        return ERR_NOMEM;
    }
    pthread_rwlock_init(&r->lock, NULL);
    pthread_mutex_init(&r->gate, NULL);
    r->free_head = r->limbo_now = r->limbo_old = ROSTER_NONE;
    /* An address is unknown to whoever chooses ids, so that the table cannot
       be flooded on purpose. */
    r->seed = hash_u64((uint64_t)(uintptr_t)r);
    *out = r;
    return OK;
}

void
roster_free(struct roster *r)
{
    if (!r) {
        return;
    }
    for (size_t i = 0; i < r->n_chunks; i++) {
        mem_free(r->chunks[i]);
    }
    mem_free(r->chunks);
    mem_free(r->item);
    mem_free(r->version);
    mem_free(r->ref);
    mem_free(r->hash);
    mem_free(r->state);
    mem_free(r->table);
    pthread_rwlock_destroy(&r->lock);
    pthread_mutex_destroy(&r->gate);
    mem_free(r);
}

static const char *
text_of(char *const *chunks, uint64_t ref, size_t *len)
{
    *len = (size_t)(ref & LEN_MAX);
    size_t off = (size_t)(ref >> LEN_BITS) & (CHUNK_BYTES - 1);
    return chunks[ref >> (LEN_BITS + OFF_BITS)] + off;
}

static bool
grow_array(void *pointer, size_t cap, size_t size)
{
    void *p;
    memcpy(&p, pointer, sizeof(p));
    void *q = mem_realloc(p, cap, size);
    if (q) {
        memcpy(pointer, &q, sizeof(q));
    }
    return q != NULL;
}

static bool
grow_ordinals(struct roster *r, size_t n)
{
    if (n <= r->cap) {
        return true;
    }
    size_t cap = MAX(n, r->cap + r->cap / 4 + 64);
    if (!grow_array(&r->item, cap, sizeof(*r->item)) ||
        !grow_array(&r->version, cap, sizeof(*r->version)) ||
        !grow_array(&r->ref, cap, sizeof(*r->ref)) ||
        !grow_array(&r->hash, cap, sizeof(*r->hash)) ||
        !grow_array(&r->state, cap, sizeof(*r->state))) {
        return false;
    }
    r->cap = cap;
    return true;
}

/* A table without tombs, at most 2/3 full with n ids. */
static bool
rebuild_table(struct roster *r, size_t n)
{
    size_t size = 64;
    while (size * 2 < n * 3) {
        size *= 2;
    }
    uint32_t *table = mem_alloc(size, sizeof(*table));
    if (!table) {
        return false;
    }
    memset(table, 0xff, size * sizeof(*table));
    for (size_t i = 0; i < r->span; i++) {
        if (r->state[i] != ORD_LIVE) {
            continue;
        }
        size_t at = r->hash[i] & (size - 1);
        while (table[at] != EMPTY) {
            at = (at + 1) & (size - 1);
        }
        table[at] = (uint32_t)i;
    }
    mem_free(r->table);
    r->table = table;
    r->table_size = size;
    r->table_used = r->n_live;
    return true;
}

static bool
reserve_chunks(struct roster *r, size_t n)
{
    if (n > r->cap_chunks) {
        size_t cap = MAX(n, r->cap_chunks * 2);
        if (!grow_array(&r->chunks, cap, sizeof(*r->chunks))) {
            return false;
        }
        r->cap_chunks = cap;
    }
    while (r->n_chunks < n) {
        char *chunk = mem_alloc(CHUNK_BYTES, 1);
        if (!chunk) {
            return false;
        }
        r->chunks[r->n_chunks++] = chunk;
    }
    return true;
}

/* Append a text; the chunk it needs has been reserved. */
static uint64_t
append_text(struct roster *r, const char *s, size_t len)
{
    if (r->chunk_used + len > CHUNK_BYTES) {
        r->chunk_i++;
        r->chunk_used = 0;
    }
    ASSERT(r->chunk_i < r->n_chunks && len <= LEN_MAX);
    memcpy(r->chunks[r->chunk_i] + r->chunk_used, s, len);
    uint64_t ref = ((uint64_t)r->chunk_i << (LEN_BITS + OFF_BITS)) |
                   ((uint64_t)r->chunk_used << LEN_BITS) | len;
    r->chunk_used += len;
    return ref;
}

/* Copy the living texts into new chunks when most bytes are dead. Memory may
   be out: then the old ones stay. */
static void
reclaim_text(struct roster *r)
{
    size_t used = r->chunk_i * CHUNK_BYTES + r->chunk_used;
    if (used < 4 * CHUNK_BYTES || r->text_bytes * 2 > used) {
        return;
    }
    char **old = r->chunks;
    size_t n_old = r->n_chunks, cap_old = r->cap_chunks;
    r->chunks = NULL;
    r->n_chunks = r->cap_chunks = 0;
    size_t need = r->text_bytes / (CHUNK_BYTES - LEN_MAX) + 2;
    if (!reserve_chunks(r, need)) {
        for (size_t i = 0; i < r->n_chunks; i++) {
            mem_free(r->chunks[i]);
        }
        mem_free(r->chunks);
        r->chunks = old;
        r->n_chunks = n_old;
        r->cap_chunks = cap_old;
        return;
    }
    r->chunk_i = r->chunk_used = 0;
    for (size_t i = 0; i < r->span; i++) {
        if (r->state[i] != ORD_FREE) {
            size_t len;
            const char *s = text_of(old, r->ref[i], &len);
            r->ref[i] = append_text(r, s, len);
        }
    }
    for (size_t i = 0; i < n_old; i++) {
        mem_free(old[i]);
    }
    mem_free(old);
}

static bool
reserve_locked(struct roster *r, size_t n, size_t id_bytes)
{
    if (!grow_ordinals(r, r->span + n)) {
        return false;
    }
    if ((r->table_used + n) * 3 > r->table_size * 2 &&
        !rebuild_table(r, (r->n_live + n) * 3 / 2)) {
        return false;
    }
    /* An id does not cross chunks: each may lose LEN_MAX bytes at its end. */
    size_t more = (r->chunk_used + id_bytes) / (CHUNK_BYTES - LEN_MAX) + 1;
    return reserve_chunks(r, r->chunk_i + more + 1);
}

enum err
roster_reserve(struct roster *r, size_t n, size_t id_bytes)
{
    pthread_rwlock_wrlock(&r->lock);
    bool ok = reserve_locked(r, n, id_bytes);
    pthread_rwlock_unlock(&r->lock);
    return ok ? OK : ERR_NOMEM;
}

/* The table slot of an id, or SIZE_MAX. */
static size_t
find_slot(const struct roster *r, const char *id, size_t len, uint32_t hash)
{
    if (r->table_size == 0) {
        return SIZE_MAX;
    }
    size_t mask = r->table_size - 1;
    for (size_t at = hash & mask; r->table[at] != EMPTY; at = (at + 1) & mask) {
        uint32_t ord = r->table[at];
        if (ord == TOMB || r->hash[ord] != hash) {
            continue;
        }
        size_t n;
        const char *s = text_of(r->chunks, r->ref[ord], &n);
        if (n == len && memcmp(s, id, len) == 0) {
            return at;
        }
    }
    return SIZE_MAX;
}

static uint32_t
hash_id(const struct roster *r, const char *id, size_t len)
{
    return (uint32_t)hash_bytes(id, len, r->seed);
}

static uint32_t
take_ordinal(struct roster *r)
{
    if (r->free_head != ROSTER_NONE) {
        uint32_t ord = r->free_head;
        r->free_head = r->hash[ord];
        return ord;
    }
    return (uint32_t)r->span++;
}

enum err
roster_put(struct roster *r, const char *id, int64_t item, int64_t version,
    uint32_t *ord, bool *created)
{
    size_t len = strlen(id);
    enum err err = OK;
    pthread_rwlock_wrlock(&r->lock);
    uint32_t hash = hash_id(r, id, len);
    size_t at = find_slot(r, id, len, hash);
    uint32_t o;
    if (at != SIZE_MAX) {
        o = r->table[at];
    } else {
        if (r->span >= TOMB) {
            err = ERR_TOO_LARGE;
            goto out;
        }
        if (!reserve_locked(r, 1, len)) {
            err = ERR_NOMEM;
            goto out;
        }
        o = take_ordinal(r);
        r->ref[o] = append_text(r, id, len);
        r->text_bytes += len;
        r->hash[o] = hash;
        r->state[o] = ORD_LIVE;
        r->n_live++;
        size_t mask = r->table_size - 1;
        for (at = hash & mask; r->table[at] < TOMB; at = (at + 1) & mask) {
        }
        r->table_used += r->table[at] == EMPTY;
        r->table[at] = o;
        if (created) {
            *created = true;
        }
        created = NULL;
    }
    r->item[o] = item;
    r->version[o] = version;
    *ord = o;
    if (created) {
        *created = false;
    }
out:
    pthread_rwlock_unlock(&r->lock);
    return err;
}

/* Move an epoch on when no search of the one before runs any more: its limbo
   becomes free. Called with the write lock held. */
static void
advance_epoch(struct roster *r)
{
    pthread_mutex_lock(&r->gate);
    bool idle = r->running[(r->epoch + 1) & 1] == 0;
    if (idle) {
        r->epoch++;
    }
    pthread_mutex_unlock(&r->gate);
    if (!idle) {
        return;
    }
    while (r->limbo_old != ROSTER_NONE) {
        uint32_t ord = r->limbo_old;
        r->limbo_old = r->hash[ord];
        r->text_bytes -= (size_t)(r->ref[ord] & LEN_MAX);
        r->state[ord] = ORD_FREE;
        r->hash[ord] = r->free_head;
        r->free_head = ord;
    }
    r->limbo_old = r->limbo_now;
    r->limbo_now = ROSTER_NONE;
}

uint32_t
roster_remove(struct roster *r, const char *id)
{
    size_t len = strlen(id);
    uint32_t ord = ROSTER_NONE;
    pthread_rwlock_wrlock(&r->lock);
    size_t at = find_slot(r, id, len, hash_id(r, id, len));
    if (at != SIZE_MAX) {
        ord = r->table[at];
        r->table[at] = TOMB;
        r->state[ord] = ORD_LIMBO;
        r->hash[ord] = r->limbo_now;
        r->limbo_now = ord;
        r->n_live--;
        advance_epoch(r);
        reclaim_text(r);
    }
    pthread_rwlock_unlock(&r->lock);
    return ord;
}

bool
roster_find(struct roster *r, const char *id, struct roster_entry *out)
{
    size_t len = strlen(id);
    pthread_rwlock_rdlock(&r->lock);
    size_t at = find_slot(r, id, len, hash_id(r, id, len));
    if (at != SIZE_MAX) {
        uint32_t ord = r->table[at];
        *out = (struct roster_entry){
            .ord = ord, .item = r->item[ord], .version = r->version[ord]};
    }
    pthread_rwlock_unlock(&r->lock);
    return at != SIZE_MAX;
}

enum err
roster_name(struct roster *r, uint32_t ord, struct arena *arena,
    const char **id, int64_t *item)
{
    enum err err = ERR_NOT_FOUND;
    pthread_rwlock_rdlock(&r->lock);
    if (ord < r->span && r->state[ord] != ORD_FREE) {
        size_t len;
        const char *s = text_of(r->chunks, r->ref[ord], &len);
        const char *copy = arena_strndup(arena, s, len);
        err = copy ? OK : ERR_NOMEM;
        if (copy) {
            *id = copy;
            *item = r->item[ord];
        }
    }
    pthread_rwlock_unlock(&r->lock);
    return err;
}

int
roster_compare(struct roster *r, uint32_t a, uint32_t b)
{
    int order = 0;
    pthread_rwlock_rdlock(&r->lock);
    if (a < r->span && b < r->span && r->state[a] != ORD_FREE &&
        r->state[b] != ORD_FREE) {
        size_t la, lb;
        const char *sa = text_of(r->chunks, r->ref[a], &la);
        const char *sb = text_of(r->chunks, r->ref[b], &lb);
        order = memcmp(sa, sb, MIN(la, lb));
        if (order == 0) {
            order = (la > lb) - (la < lb);
        }
    }
    pthread_rwlock_unlock(&r->lock);
    return order;
}

void
roster_items(struct roster *r, const uint32_t *ords, size_t n, int64_t *items)
{
    pthread_rwlock_rdlock(&r->lock);
    for (size_t i = 0; i < n; i++) {
        uint32_t ord = ords[i];
        bool live = ord < r->span && r->state[ord] == ORD_LIVE;
        items[i] = live ? r->item[ord] : 0;
    }
    pthread_rwlock_unlock(&r->lock);
}

void
roster_mark(struct roster *r, uint64_t *words, size_t n_words)
{
    memset(words, 0, n_words * sizeof(*words));
    pthread_rwlock_rdlock(&r->lock);
    size_t n = MIN(r->span, n_words * 64);
    for (size_t i = 0; i < n; i++) {
        words[i >> 6] |= (uint64_t)(r->state[i] == ORD_LIVE) << (i & 63);
    }
    pthread_rwlock_unlock(&r->lock);
}

size_t
roster_count(struct roster *r)
{
    pthread_rwlock_rdlock(&r->lock);
    size_t n = r->n_live;
    pthread_rwlock_unlock(&r->lock);
    return n;
}

size_t
roster_span(struct roster *r)
{
    pthread_rwlock_rdlock(&r->lock);
    size_t n = r->span;
    pthread_rwlock_unlock(&r->lock);
    return n;
}

size_t
roster_bytes(struct roster *r)
{
    pthread_rwlock_rdlock(&r->lock);
    size_t n = sizeof(*r) + r->n_chunks * CHUNK_BYTES +
               r->table_size * sizeof(*r->table) +
               r->cap * (2 * sizeof(int64_t) + sizeof(uint64_t) +
                            sizeof(uint32_t) + 1);
    pthread_rwlock_unlock(&r->lock);
    return n;
}

unsigned
roster_enter(struct roster *r)
{
    pthread_mutex_lock(&r->gate);
    unsigned slot = r->epoch & 1;
    r->running[slot]++;
    pthread_mutex_unlock(&r->gate);
    return slot;
}

void
roster_leave(struct roster *r, unsigned slot)
{
    pthread_mutex_lock(&r->gate);
    ASSERT(r->running[slot] > 0);
    r->running[slot]--;
    pthread_mutex_unlock(&r->gate);
}
