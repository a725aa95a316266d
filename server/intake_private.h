/*
 * intake_private.h - what all kinds of intakes have, and what each does with
 * the bytes: lines for the engine (intake_lines.c), a file (intake_file.c).
 */
#ifndef SERVER_INTAKE_PRIVATE_H
#define SERVER_INTAKE_PRIVATE_H

#include "base/buf.h"
#include "server/intake.h"

#define INTAKE_FILL_BYTES 65536 /* read ahead of the worker */

/* The hands of a kind; worker only, one call at a time. */
struct intake_kind {
    /* May it take in more? false: it is handed over again when it may. */
    bool (*enter)(struct intake *intake);
    /* Asked to give its place up while it waits for bytes. */
    enum err (*leave)(struct intake *intake, struct fault *fault);
    /* The bytes of work, which it empties; last: the body is complete. An
       error ends the intake. */
    enum err (*take)(struct intake *intake, bool last, struct fault *fault);
    /* The end, with the first error of the above: make the reply. */
    void (*finish)(struct intake *intake, enum err err, struct fault *fault);
    /* The connection is gone: keep nothing. */
    void (*drop)(struct intake *intake);
    void (*release)(struct intake *intake);
};

/* The head of every kind's struct, which is freed by this pointer. */
struct intake {
    struct request *req; /* borrowed: the intake is part of it */
    const struct intake_kind *kind;

    /* req->lock */
    struct buf fill; /* written by the loop, swapped out by the worker */
    bool busy;       /* a worker has it, or it is queued or waits */
    bool body_ended;
    bool aborted; /* the connection is gone: drop everything */
    bool yield;   /* leave when idle */

    /* the worker's while busy */
    struct buf work;
    bool finished; /* the reply is made */
};

enum err intake_lines_new(
    struct intake **out, const struct request *req) NODISCARD;
enum err intake_file_new(
    struct intake **out, const struct request *req) NODISCARD;

#endif
