#include "train/state.h"

#include <string.h>

#include "base/alloc.h"

void
state_init_write(struct state *s, encoder_write_fn *write, void *arg)
{
    *s = (struct state){.write = write, .arg = arg};
    sha256_start(&s->sum);
}

void
state_init_read(struct state *s, encoder_read_fn *read, void *arg)
{
    *s = (struct state){.read = read, .arg = arg};
    sha256_start(&s->sum);
}

void
state_release(struct state *s)
{
    for (size_t i = 0; i < s->n_aside; i++)
        mem_free(s->aside[i].bytes);
    s->n_aside = 0;
}

bool
state_reads(const struct state *s)
{
    return s->read != NULL;
}

void
state_bytes(struct state *s, void *p, size_t n)
{
    if (s->err != OK || n == 0)
        return;
    s->err = s->read != NULL ? s->read(s->arg, p, n) : s->write(s->arg, p, n);
    if (s->err == OK)
        sha256_add(&s->sum, p, n);
}

void
state_aside(struct state *s, void *p, size_t n)
{
    if (s->read == NULL || s->err != OK) {
        state_bytes(s, p, n);
        return;
    }
    ASSERT(s->n_aside < STATE_ASIDE_MAX);
    void *bytes = mem_alloc(n, 1);
    if (bytes == NULL) {
        s->err = ERR_NOMEM;
        return;
    }
    s->aside[s->n_aside].to = p;
    s->aside[s->n_aside].bytes = bytes;
    s->aside[s->n_aside++].n = n;
    state_bytes(s, bytes, n);
}

enum err
state_finish(struct state *s)
{
    uint8_t sum[SHA256_BYTES], read[SHA256_BYTES];

    if (s->err != OK)
        return s->err;
    sha256_finish(&s->sum, sum);
    if (s->write != NULL) {
        s->err = s->write(s->arg, sum, sizeof sum);
        return s->err;
    }
    s->err = s->read(s->arg, read, sizeof read);
    if (s->err == OK && memcmp(sum, read, sizeof sum) != 0)
        s->err = ERR_CORRUPT;
    return s->err;
}

void
state_accept(struct state *s)
{
    ASSERT(s->err == OK);
    for (size_t i = 0; i < s->n_aside; i++)
        memcpy(s->aside[i].to, s->aside[i].bytes, s->aside[i].n);
    state_release(s);
}
