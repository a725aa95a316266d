/*
 * replies.h - what was answered to a request with an Idempotency-Key, so that
 * the same request gets the same answer.
 *
 * The key's hash should cover the key, the credential and the path. Put the
 * reply in the operation that did the work: then either both are there or
 * neither.
 */
#ifndef STORE_REPLIES_H
#define STORE_REPLIES_H

#include "base/hash.h"
#include "store/store.h"

struct reply_row {
    uint8_t body_hash[SHA256_BYTES]; /* of the request's body */
    int status;
    struct store_text headers; /* as the caller wrote them, or absent */
    struct store_text body;
    int64_t expires_ms;
};

/* Copied into arena; ERR_NOT_FOUND when missing or expired. */
enum err replies_get(struct db *db, const uint8_t key_hash[SHA256_BYTES],
    int64_t now_ms, struct arena *arena, struct reply_row *out) NODISCARD;

/* ERR_EXISTS when a reply that has not expired has the key. */
enum err replies_put(struct db *db, const uint8_t key_hash[SHA256_BYTES],
    const struct reply_row *reply, int64_t now_ms) NODISCARD;

/* Remove at most max_rows expired ones; n (may be NULL) gives how many. */
enum err replies_expire(
    struct db *db, int64_t now_ms, size_t max_rows, size_t *n) NODISCARD;

#endif
