/*
 * jdoc.h - a JSON text as a tree in an arena, for what the engine itself looks
 * into: metadata, filters, settings, export lines.
 *
 * Strict RFC 8259 and stricter: UTF-8 must be well formed, numbers must be
 * finite doubles, equal keys in one object, \u0000 and lone surrogates are
 * refused, and there are limits on depth and on members. Numbers keep their
 * spelling, so that what is written back is what was read.
 */
#ifndef ENGINE_JDOC_H
#define ENGINE_JDOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

#define JDOC_DEPTH_MAX 64
#define JDOC_MEMBERS_MAX 2000 /* of one object */

enum jtype { J_NULL, J_BOOL, J_NUMBER, J_STRING, J_ARRAY, J_OBJECT };

struct jnode {
    enum jtype type;
    bool truth;      /* J_BOOL */
    bool is_int;     /* J_NUMBER without fraction or exponent, in range */
    double number;   /* J_NUMBER */
    int64_t integer; /* when is_int */
    const char *s;   /* J_STRING: decoded, NUL-terminated; J_NUMBER: as spelt */
    size_t len;
    const char *key; /* of a member; NUL-terminated; else NULL */
    size_t key_len;
    struct jnode *child; /* first element or member */
    struct jnode *next;  /* sibling */
    size_t n;            /* children */
};

/*
 * jdoc_parse - the tree of one JSON text (nothing but blanks after it).
 *
 *   pointer  where the text stands in the request, for the fault; borrowed
 *
 * Errors: ERR_SYNTAX, ERR_TOO_LARGE (depth, members, or the arena's cap by a
 * large text), ERR_NOMEM. The tree is valid until the arena is released.
 */
enum err jdoc_parse(struct arena *arena, const char *text, size_t len,
    struct jnode **out, const char *pointer, struct fault *fault) NODISCARD;

/* A member of an object, or NULL (also when node is no object). */
struct jnode *jdoc_get(const struct jnode *node, const char *key);

/* Append the node as compact JSON; with members in their order. */
void jdoc_write(struct buf *out, const struct jnode *node);

/* "a string", "a number", ... for messages. */
const char *jdoc_type_name(enum jtype type);

/* Write prefix and "/" and the key, with ~ and / escaped, into out. */
void jdoc_pointer(
    char out[FAULT_POINTER_MAX], const char *prefix, const char *key);

#endif
