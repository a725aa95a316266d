#include "text/scratch.h"

#include "base/alloc.h"

#define SCRATCH_BYTES_MIN 256

void
scratch_init(struct scratch *scratch, size_t max_bytes)
{
    *scratch = (struct scratch){.max_bytes = max_bytes};
}

void
scratch_release(struct scratch *scratch)
{
    mem_free(scratch->data);
    *scratch = (struct scratch){.max_bytes = scratch->max_bytes};
}

void
scratch_clear(struct scratch *scratch)
{
    scratch->len = 0;
    scratch->err = OK;
}

bool
scratch_grow(struct scratch *scratch, size_t n)
{
    if (scratch->err != OK)
        return false;
    if (n > scratch->max_bytes - scratch->len) {
        scratch->err = ERR_TOO_LARGE;
        return false;
    }
    if (scratch->cap - scratch->len >= n)
        return true;
    size_t cap = MAX(scratch->cap, (size_t)SCRATCH_BYTES_MIN);
    while (cap < scratch->len + n)
        cap *= 2;
    cap = MIN(cap, scratch->max_bytes);
    char *grown = mem_realloc(scratch->data, cap, 1);
    if (grown == NULL) {
        scratch->err = ERR_NOMEM;
        return false;
    }
    scratch->data = grown;
    scratch->cap = cap;
    return true;
}
