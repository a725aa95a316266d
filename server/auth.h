/*
 * auth.h - keys: who may do what, and how often one may guess.
 *
 * Three sets of keys, read, write and admin, each including the one before.
 * Only salted SHA-256 digests are kept; a presented key is digested and
 * compared with every stored digest without an early exit, so the time tells
 * nothing. Wrong keys are counted per address (a /64 for IPv6); an address
 * over its budget gets 429 without its key being looked at.
 *
 * Carries its own lock; any thread.
 */
#ifndef SERVER_AUTH_H
#define SERVER_AUTH_H

#include <stdbool.h>
#include <sys/socket.h>
#include "base/err.h"
#include "server/config.h"
#include "server/route.h"

struct auth;

/* Read the key files and KINDRED_KEY_*. ERR_INVALID names the file, never a
   key: unreadable, empty, a key shorter than 16 or longer than 256 bytes, a
   file that others may read. */
enum err auth_new(struct auth **out, const struct config *config,
    struct fault *fault) NODISCARD;
void auth_free(struct auth *auth);

/* Read all again; on failure the old keys stay. */
enum err auth_reload(struct auth *auth, const struct config *config,
    struct fault *fault) NODISCARD;

/* Whether any key is set. Without, everyone may do everything. */
bool auth_enabled(const struct auth *auth);

enum auth_verdict {
    AUTH_GRANTED,
    AUTH_MISSING,   /* no or an unknown key: 401 */
    AUTH_FORBIDDEN, /* a known key of a lesser set: 403 */
    AUTH_LIMITED    /* 429 */
};

/*
 * auth_check - may the holder of this Authorization header do this?
 *
 *   header   the header's value, or NULL
 *   scope    what is needed
 *   address  of the peer, or NULL
 *   granted  what the key allows, set when granted
 */
enum auth_verdict auth_check(struct auth *auth, const char *header,
    enum scope scope, const struct sockaddr *address, enum scope *granted);

#endif
