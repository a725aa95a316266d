/*
 * document.h - what is embedded of an item: the collection's document template
 * over its title, text and metadata.
 *
 * A template is text with {title}, {text} and {metadata.path} in it; "{{" and
 * "}}" stand for the braces themselves. The default is "{title}\n{text}". A
 * field that an item lacks is empty; an array gives its strings, numbers and
 * booleans with a blank between them, an object nothing.
 */
#ifndef ENGINE_DOCUMENT_H
#define ENGINE_DOCUMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"
#include "engine/engine.h"

#define DOCUMENT_TEMPLATE_DEFAULT "{title}\n{text}"
#define DOCUMENT_TEMPLATE_BYTES_MAX 4096
#define DOCUMENT_HASH_BYTES 16

struct document_template;

/* ERR_INVALID with "/template" for an unknown field or an open brace. */
enum err document_template_new(struct document_template **out, const char *text,
    struct fault *fault) NODISCARD;
void document_template_free(struct document_template *template);

/* Does it use metadata at all? */
bool document_uses_metadata(const struct document_template *template);

/* Append the document of an item; metadata is its JSON text or absent. */
enum err document_render(const struct document_template *template,
    struct engine_text title, struct engine_text text,
    struct engine_text metadata, struct buf *out) NODISCARD;

/* The first bytes of the SHA-256 of a document (for an external collection of
   its vector), by which an unchanged one is known. */
void document_hash(
    const void *bytes, size_t n, uint8_t out[DOCUMENT_HASH_BYTES]);

#endif
