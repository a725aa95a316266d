/*
 * views.h - two views of one item, for instance discrimination.
 *
 * A view is a run of whole words of the item's text. The anchor's view is
 * short, as a query is; the key's is long, as an item is. A text of two lines
 * or more (title and body) sometimes gives its first line against the rest.
 * Token dropout is the encoder's business (struct encoder_noise).
 */
#ifndef TRAIN_VIEWS_H
#define TRAIN_VIEWS_H

#include <stddef.h>
#include "base/rng.h"

struct view {
    const char *text; /* into the item's text; borrowed */
    size_t len;
};

/*
 * views_text - an anchor view and a key view of a text.
 *
 * Cost: linear in the text. The same generator state gives the same views.
 */
void views_text(const char *text, size_t len, struct rng *rng,
    struct view *anchor, struct view *key);

/*
 * views_noise - a text with typing errors: a share of its words have two
 * neighbouring characters exchanged, one left out, doubled, or replaced by
 * another one of the word.
 *
 *   out    [views_noise_bytes(len)]  not ended by a NUL
 *   text   [len]  UTF-8; a text that is not is treated by bytes where it is not
 *   share  of the words of three characters or more, [0, 1]
 *
 * Returns the length of what is in out. Valid UTF-8 stays valid.
 */
size_t views_noise_bytes(size_t len);
size_t views_noise(
    char *out, const char *text, size_t len, float share, struct rng *rng);

/* The view that stands for an item as a query when items judge themselves:
   fixed by the text alone. */
void views_judge(const char *text, size_t len, struct view *anchor);

#endif
