#include "base/alloc.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#define KERNEL_ALIGN 64
#define LARGE_BLOCK_BYTES (1 << 20)

/* The experiment of a torture test. `fail_n` is 0 in every real run, so that
   the only cost is one relaxed load of a line that nobody writes. */
static _Atomic uint64_t fail_n;
static _Atomic uint64_t seen_n;

static bool
must_fail(void)
{
    uint64_t at = atomic_load_explicit(&fail_n, memory_order_relaxed);

    if (at == 0) {
        return false;
    }
    return atomic_fetch_add(&seen_n, 1) + 1 == at;
}

/* n * size in *total; false when that does not fit or exceeds what an object
   may be (PTRDIFF_MAX). */
static bool
multiply(size_t n, size_t size, size_t *total)
{
    if (size != 0 && n > (size_t)PTRDIFF_MAX / size) {
        return false;
    }
    *total = n * size;
    return true;
}

void
mem_setup(void)
{
#ifdef __GLIBC__
    (void)mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES);
#endif
}

uint64_t
alloc_fail_at(uint64_t n)
{
    atomic_store(&fail_n, 0);
    uint64_t seen = atomic_exchange(&seen_n, 0);
    atomic_store(&fail_n, n);
    return seen;
}

void *
mem_alloc(size_t n, size_t size)
{
    size_t total;

    if (!multiply(n, size, &total) || must_fail()) {
        return NULL;
    }
    return malloc(total == 0 ? 1 : total);
}

void *
mem_calloc(size_t n, size_t size)
{
    size_t total;

    if (!multiply(n, size, &total) || must_fail()) {
        return NULL;
    }
    return calloc(total == 0 ? 1 : total, 1);
}

void *
mem_realloc(void *p, size_t n, size_t size)
{
    size_t total;

    if (!multiply(n, size, &total) || must_fail()) {
        return NULL;
    }
    return realloc(p, total == 0 ? 1 : total);
}

void *
mem_alloc_aligned(size_t n, size_t size)
{
    size_t total;

    if (!multiply(n, size, &total) ||
        total > (size_t)PTRDIFF_MAX - KERNEL_ALIGN || must_fail()) {
        return NULL;
    }
    /* aligned_alloc wants a multiple of the alignment. */
    total = (total + KERNEL_ALIGN - 1) & ~(size_t)(KERNEL_ALIGN - 1);
    return aligned_alloc(KERNEL_ALIGN, total == 0 ? KERNEL_ALIGN : total);
}

char *
mem_strndup(const char *s, size_t len)
{
    char *copy;

    if (len == SIZE_MAX) {
        return NULL;
    }
    copy = mem_alloc(len + 1, 1);
    if (copy == NULL) {
        return NULL;
    }
    if (len > 0) {
        memcpy(copy, s, len);
    }
    copy[len] = '\0';
    return copy;
}

char *
mem_strdup(const char *s)
{
    return mem_strndup(s, strlen(s));
}

void
mem_free(void *p)
{
    free(p);
}
