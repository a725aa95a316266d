/*
 * err.h - the one error enumeration, and the fault that explains it.
 *
 * Functions that can fail return an enum err and leave their outputs untouched
 * on failure. A function whose caller must tell a person what was wrong also
 * takes a struct fault, which may be NULL: the code that detects the problem
 * fills it, everything above passes it along, server/ turns it into a problem
 * document.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include "base/check.h"

/* X(name, text) */
#define ERR_LIST(X)                                                            \
    X(OK, "ok")                                                                \
    X(ERR_NOMEM, "out of memory")                                              \
    X(ERR_IO, "input/output error")                                            \
    X(ERR_FULL, "no space left on the device")                                 \
    X(ERR_CORRUPT, "damaged data")                                             \
    X(ERR_NEWER, "made by a newer version")                                    \
    X(ERR_LOCKED, "in use by another process")                                 \
    X(ERR_SYNTAX, "malformed input")                                           \
    X(ERR_INVALID, "value not allowed")                                        \
    X(ERR_TOO_LARGE, "over a limit")                                           \
    X(ERR_NOT_FOUND, "not found")                                              \
    X(ERR_EXISTS, "exists already")                                            \
    X(ERR_CONFLICT, "conflicts with the present state")                        \
    X(ERR_PRECONDITION, "precondition failed")                                 \
    X(ERR_BUSY, "busy, try again")                                             \
    X(ERR_CANCELLED, "cancelled")                                              \
    X(ERR_TIMEOUT, "too slow")                                                 \
    X(ERR_READ_ONLY, "read-only after a storage error")                        \
    X(ERR_UNSUPPORTED, "not in this version")                                  \
    X(ERR_INTERNAL, "internal error")

#define ERR_ENUM(name, text) name,
enum err { ERR_LIST(ERR_ENUM) ERR_COUNT };
#undef ERR_ENUM

#define FAULT_POINTER_MAX 192
#define FAULT_DETAIL_MAX 512

/* Why an operation was refused, in words for the person who asked. */
struct fault {
    enum err err;                    /* OK while nothing was refused */
    char pointer[FAULT_POINTER_MAX]; /* JSON pointer of the field, or "" */
    char detail[FAULT_DETAIL_MAX];   /* one sentence with the facts */
    long long extra_id;              /* a job or item number, or 0 */
};

/* The constant text of an error code. */
const char *err_text(enum err err);

/*
 * fault_set - note why an operation is refused, and return its code.
 *
 *   fault    overwritten, or NULL (then only the code is returned)
 *   err      the code, not OK
 *   pointer  JSON pointer of the field at fault, "" for the whole; borrowed
 *   fmt      printf format of the sentence; cut at FAULT_DETAIL_MAX
 *
 * So that refusals read: return fault_set(fault, ERR_INVALID, "/k", "...").
 */
enum err fault_set(struct fault *fault, enum err err, const char *pointer,
    const char *fmt, ...) PRINTF_LIKE(4, 5);

#endif
