/*
 * flat.c - the rows of the exact index: codes, vectors, ordinals.
 *
 * Rows are dense: a removal moves the last row into the hole. A row costs
 * KERN_CODE_DIMS(D) bytes of codes, 4 D of vector, 8 of scale and residual, 4
 * of ordinal and 4 in the map from ordinals to rows; the chunk that is being
 * filled costs its whole size in address space, but memory only as it fills (by
 * 2 MB where the system has large pages).
 *
 * Everything that can fail (room for rows, pages of the map) happens before
 * the first row of a put is written, and coding happens before the lock is
 * taken; so the lock is held for copies only, FLAT_COPY_ROWS at a time.
 */
#define _DEFAULT_SOURCE /* madvise */

#include "ann/flat.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include "ann/code.h"
#include "base/alloc.h"

#define FLAT_COPY_ROWS 16
#define HUGE_PAGE ((size_t)2 << 20)

/* --- chunks and pages ----------------------------------------------------- */

static size_t
chunk_floats(const struct ann *ann)
{
    return FLAT_CHUNK_ROWS * (ann->n_dims + 3);
}

static size_t
chunk_bytes(const struct ann *ann)
{
    return FLAT_CHUNK_ROWS * ann->n_code + chunk_floats(ann) * sizeof(float);
}

/* Ask for large pages: a pass touches each page of codes once, so small ones
   cost it a walk of the page table each, and rescoring touches vectors all
   over (15% of a pass over 60,000 x 256). */
static void
prefer_huge_pages(void *block, size_t n_bytes)
{
#ifdef MADV_HUGEPAGE
    uintptr_t from = ((uintptr_t)block + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    uintptr_t to = ((uintptr_t)block + n_bytes) & ~(HUGE_PAGE - 1);

    if (to > from)
        (void)madvise((char *)block + (from - (uintptr_t)block), to - from,
            MADV_HUGEPAGE);
#else
    (void)block;
    (void)n_bytes;
#endif
}

static struct flat_chunk *
chunk_new(const struct ann *ann, bool large)
{
    struct flat_chunk *chunk = mem_calloc(1, sizeof(*chunk));
    char *block = mem_alloc_aligned(chunk_bytes(ann), 1);

    if (chunk == NULL || block == NULL) {
        mem_free(chunk);
        mem_free(block);
        return NULL;
    }
    chunk->codes = (uint8_t *)block;
    block += FLAT_CHUNK_ROWS * ann->n_code; /* a multiple of 64 */
    chunk->vectors = (float *)(void *)block;
    chunk->scale = chunk->vectors + FLAT_CHUNK_ROWS * ann->n_dims;
    chunk->residual = chunk->scale + FLAT_CHUNK_ROWS;
    chunk->ords = (uint32_t *)(void *)(chunk->residual + FLAT_CHUNK_ROWS);
    if (large)
        prefer_huge_pages(chunk->codes, chunk_bytes(ann));
    return chunk;
}

static void
chunk_free(struct flat_chunk *chunk)
{
    if (chunk == NULL)
        return;
    mem_free(chunk->codes);
    mem_free(chunk);
}

uint32_t
flat_row_of(const struct ann *ann, uint32_t ord)
{
    size_t page = ord / FLAT_PAGE_ORDS;

    if (page >= ann->n_pages || ann->pages[page] == NULL)
        return FLAT_NO_ROW;
    return ann->pages[page]->row[ord % FLAT_PAGE_ORDS];
}

/* Room for n_rows rows. Under the write lock. */
static enum err
grow_chunks(struct ann *ann, size_t n_rows)
{
    size_t wanted = (n_rows + FLAT_CHUNK_ROWS - 1) / FLAT_CHUNK_ROWS;

    if (n_rows >= FLAT_NO_ROW)
        return ERR_NOMEM;
    if (wanted > ann->cap_chunks) {
        size_t cap = MAX(wanted, 2 * ann->cap_chunks);
        struct flat_chunk **chunks =
            mem_realloc(ann->chunks, cap, sizeof(struct flat_chunk *));

        if (chunks == NULL)
            return ERR_NOMEM;
        ann->chunks = chunks;
        ann->cap_chunks = cap;
    }
    while (ann->n_chunks < wanted) {
        /* a small collection should not take megabytes */
        bool large = n_rows > FLAT_SPAN_ROWS;
        struct flat_chunk *chunk = chunk_new(ann, large);

        if (chunk == NULL)
            return ERR_NOMEM;
        ann->chunks[ann->n_chunks++] = chunk;
    }
    return OK;
}

/* The page of the map for an ordinal. Under the write lock. */
static enum err
grow_pages(struct ann *ann, uint32_t ord)
{
    size_t page_i = ord / FLAT_PAGE_ORDS;

    if (page_i >= ann->n_pages) {
        size_t n = MAX(page_i + 1, ann->n_pages + ann->n_pages / 2);
        struct flat_page **pages =
            mem_realloc(ann->pages, n, sizeof(struct flat_page *));

        if (pages == NULL)
            return ERR_NOMEM;
        memset(pages + ann->n_pages, 0, (n - ann->n_pages) * sizeof(*pages));
        ann->pages = pages;
        ann->n_pages = n;
    }
    if (ann->pages[page_i] == NULL) {
        struct flat_page *page = mem_alloc(1, sizeof(*page));

        if (page == NULL)
            return ERR_NOMEM;
        memset(page, 0xff, sizeof(*page));
        ann->pages[page_i] = page;
    }
    return OK;
}

/* --- life ----------------------------------------------------------------- */

enum err
ann_new(struct ann **out, size_t n_dims, struct pool *pool)
{
    ASSERT(n_dims > 0 && KERN_CODE_DIMS(n_dims) <= 65536);

    struct ann *ann = mem_calloc(1, sizeof(*ann));

    if (ann == NULL)
        return ERR_NOMEM;
    ann->n_dims = n_dims;
    ann->n_code = KERN_CODE_DIMS(n_dims);
    ann->pool = pool;
    ann->lock = mem_alloc(1, sizeof(*ann->lock));
    if (ann->lock == NULL ||
        search_pass_new(&ann->pass, ann->n_code, pool_threads(pool)) != OK) {
        mem_free(ann->lock);
        mem_free(ann);
        return ERR_NOMEM;
    }
    fairlock_init(ann->lock);
    ASSERT(pthread_mutex_init(&ann->queue_lock, NULL) == 0);
    *out = ann;
    return OK;
}

void
ann_free(struct ann *ann)
{
    if (ann == NULL)
        return;
    ASSERT(!ann->leading && ann->first == NULL);
    for (size_t i = 0; i < ann->n_chunks; i++)
        chunk_free(ann->chunks[i]);
    for (size_t i = 0; i < ann->n_pages; i++)
        mem_free(ann->pages[i]);
    mem_free(ann->chunks);
    mem_free(ann->pages);
    search_pass_free(ann->pass);
    fairlock_release(ann->lock);
    mem_free(ann->lock);
    pthread_mutex_destroy(&ann->queue_lock);
    mem_free(ann);
}

enum err
ann_reserve(struct ann *ann, size_t n_rows)
{
    enum err err = OK;

    fairlock_write(ann->lock);
    if (n_rows > ann->n_rows)
        err = grow_chunks(ann, n_rows + ann->n_promised);
    fairlock_write_done(ann->lock);
    return err;
}

/* --- rows ----------------------------------------------------------------- */

static void
write_row(struct ann *ann, uint32_t row, uint32_t ord, const float *vector,
    const int8_t *code, const struct code_of *of)
{
    struct flat_chunk *chunk = ann->chunks[row / FLAT_CHUNK_ROWS];
    size_t at = row % FLAT_CHUNK_ROWS;
    float *span_residual = &chunk->span_residual[at / FLAT_SPAN_ROWS];
    size_t block = at / KERN_BLOCK_ROWS * KERN_BLOCK_ROWS;

    if (at % FLAT_SPAN_ROWS == 0 && row + 1 >= ann->n_rows)
        *span_residual = 0.0f; /* the first of its span */
    kern_block_put(
        chunk->codes + block * ann->n_code, at - block, code, ann->n_code);
    memcpy(chunk->vectors + at * ann->n_dims, vector,
        ann->n_dims * sizeof(*vector));
    chunk->scale[at] = of->scale;
    chunk->residual[at] = of->residual;
    chunk->ords[at] = ord;
    *span_residual = MAX(*span_residual, of->residual);
    ann->max_norm = MAX(ann->max_norm, of->norm);
}

static void
move_row(struct ann *ann, uint32_t to, uint32_t from)
{
    const struct flat_chunk *a = ann->chunks[from / FLAT_CHUNK_ROWS];
    struct flat_chunk *b = ann->chunks[to / FLAT_CHUNK_ROWS];
    size_t at_a = from % FLAT_CHUNK_ROWS, at_b = to % FLAT_CHUNK_ROWS;
    size_t block_a = at_a / KERN_BLOCK_ROWS * KERN_BLOCK_ROWS;
    size_t block_b = at_b / KERN_BLOCK_ROWS * KERN_BLOCK_ROWS;
    float *span_residual = &b->span_residual[at_b / FLAT_SPAN_ROWS];
    uint32_t ord = a->ords[at_a];

    kern_block_move(b->codes + block_b * ann->n_code, at_b - block_b,
        a->codes + block_a * ann->n_code, at_a - block_a, ann->n_code);
    memcpy(b->vectors + at_b * ann->n_dims, a->vectors + at_a * ann->n_dims,
        ann->n_dims * sizeof(float));
    b->scale[at_b] = a->scale[at_a];
    b->residual[at_b] = a->residual[at_a];
    b->ords[at_b] = ord;
    *span_residual = MAX(*span_residual, a->residual[at_a]);
    ann->pages[ord / FLAT_PAGE_ORDS]->row[ord % FLAT_PAGE_ORDS] = to;
}

/* Under the write lock, with room made. */
static void
put_row(struct ann *ann, uint32_t ord, const float *vector, const int8_t *code,
    const struct code_of *of)
{
    uint32_t row = flat_row_of(ann, ord);

    ASSERT(ord != ANN_NONE);
    if (row == FLAT_NO_ROW) {
        row = (uint32_t)ann->n_rows++;
        ann->pages[ord / FLAT_PAGE_ORDS]->row[ord % FLAT_PAGE_ORDS] = row;
    }
    write_row(ann, row, ord, vector, code, of);
}

/* Room for n more rows, of these ordinals. Under the write lock. */
static enum err
make_room(struct ann *ann, const uint32_t *ords, size_t n)
{
    enum err err = grow_chunks(ann, ann->n_rows + ann->n_promised + n);

    for (size_t i = 0; i < n && err == OK; i++)
        err = grow_pages(ann, ords[i]);
    return err;
}

enum err
ann_put(struct ann *ann, uint32_t ord, const float *vector)
{
    return ann_put_many(ann, &ord, vector, 1);
}

/* A put of several copies takes the lock once to promise itself the room, so
   that it can't fail half-way, and then once a copy; a small one needs it once
   only. */
enum err
ann_put_many(
    struct ann *ann, const uint32_t *ords, const float *vectors, size_t n)
{
    bool promised = n > FLAT_COPY_ROWS;
    enum err err = OK;
    int8_t *codes;

    if (n == 0)
        return OK;
    codes = mem_alloc(MIN(n, (size_t)FLAT_COPY_ROWS), ann->n_code);
    if (codes == NULL)
        return ERR_NOMEM;
    if (promised) {
        fairlock_write(ann->lock);
        err = make_room(ann, ords, n);
        ann->n_promised += err == OK ? n : 0;
        fairlock_write_done(ann->lock);
    }
    for (size_t from = 0; from < n && err == OK; from += FLAT_COPY_ROWS) {
        size_t n_now = MIN(n - from, (size_t)FLAT_COPY_ROWS);
        const float *vector = vectors + from * ann->n_dims;
        struct code_of of[FLAT_COPY_ROWS];

        for (size_t i = 0; i < n_now; i++)
            code_row(&of[i], codes + i * ann->n_code, vector + i * ann->n_dims,
                ann->n_dims);
        fairlock_write(ann->lock);
        if (promised)
            ann->n_promised -= n_now;
        else
            err = make_room(ann, ords, n);
        for (size_t i = 0; i < n_now && err == OK; i++)
            put_row(ann, ords[from + i], vector + i * ann->n_dims,
                codes + i * ann->n_code, &of[i]);
        fairlock_write_done(ann->lock);
    }
    mem_free(codes);
    return err;
}

void
ann_remove(struct ann *ann, uint32_t ord)
{
    fairlock_write(ann->lock);

    uint32_t row = flat_row_of(ann, ord);

    if (row != FLAT_NO_ROW) {
        uint32_t last = (uint32_t)ann->n_rows - 1;

        if (row != last)
            move_row(ann, row, last);
        ann->pages[ord / FLAT_PAGE_ORDS]->row[ord % FLAT_PAGE_ORDS] =
            FLAT_NO_ROW;
        ann->n_rows--;
        if (ann->n_rows == 0)
            ann->max_norm = 0.0;
    }
    fairlock_write_done(ann->lock);
}

/* --- looking -------------------------------------------------------------- */

enum err
ann_get(const struct ann *ann, uint32_t ord, float *out)
{
    enum err err = ERR_NOT_FOUND;

    fairlock_read(ann->lock);

    uint32_t row = flat_row_of(ann, ord);

    if (row != FLAT_NO_ROW) {
        memcpy(out, flat_vector(ann, row), ann->n_dims * sizeof(*out));
        err = OK;
    }
    fairlock_read_done(ann->lock);
    return err;
}

size_t
ann_count(const struct ann *ann)
{
    fairlock_read(ann->lock);

    size_t n = ann->n_rows;

    fairlock_read_done(ann->lock);
    return n;
}

size_t
ann_dims(const struct ann *ann)
{
    return ann->n_dims;
}

size_t
ann_bytes(const struct ann *ann)
{
    fairlock_read(ann->lock);

    size_t n = sizeof(*ann) + sizeof(*ann->lock) +
               search_pass_bytes(ann->pass) +
               ann->n_chunks * (chunk_bytes(ann) + sizeof(struct flat_chunk)) +
               ann->cap_chunks * sizeof(*ann->chunks) +
               ann->n_pages * sizeof(*ann->pages);

    for (size_t i = 0; i < ann->n_pages; i++)
        if (ann->pages[i] != NULL)
            n += sizeof(struct flat_page);
    fairlock_read_done(ann->lock);
    return n;
}

void
ann_visit(const struct ann *ann, ann_visit_fn *fn, void *arg)
{
    fairlock_read(ann->lock);
    for (size_t from = 0; from < ann->n_rows; from += FLAT_CHUNK_ROWS) {
        const struct flat_chunk *chunk = ann->chunks[from / FLAT_CHUNK_ROWS];

        if (!fn(arg, chunk->ords, chunk->vectors,
                MIN(ann->n_rows - from, (size_t)FLAT_CHUNK_ROWS)))
            break;
    }
    fairlock_read_done(ann->lock);
}
