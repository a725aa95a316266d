/*
 * state.h - one description of a run's state that both writes and reads it.
 *
 * A part of the state is a run of bytes in memory; whoever owns it names it
 * once, in a fixed order, and the direction decides whether it is written or
 * read. A SHA-256 over everything goes along. Memory that a damaged file must
 * not change (the caller's encoder, the bank) is read aside and put in place by
 * state_accept, once the sum has proved right. After the first error nothing
 * is moved any more.
 */
#ifndef TRAIN_STATE_H
#define TRAIN_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include "base/hash.h"
#include "model/encoder.h"

#define STATE_ASIDE_MAX 4

struct state {
    encoder_write_fn *write; /* exactly one of both */
    encoder_read_fn *read;
    void *arg;
    enum err err;
    struct sha256 sum;
    struct {
        void *to, *bytes;
        size_t n;
    } aside[STATE_ASIDE_MAX];
    size_t n_aside;
};

void state_init_write(struct state *s, encoder_write_fn *write, void *arg);
void state_init_read(struct state *s, encoder_read_fn *read, void *arg);
void state_release(struct state *s);
bool state_reads(const struct state *s);

/* The next n bytes of the state, at p. */
void state_bytes(struct state *s, void *p, size_t n);
/* The same; read aside. */
void state_aside(struct state *s, void *p, size_t n);

/* The sum: written, or compared (ERR_CORRUPT). Then the first error. */
enum err state_finish(struct state *s) NODISCARD;
/* Put in place what was read aside. */
void state_accept(struct state *s);

#endif
