/*
 * prior.h - document frequencies of a general corpus, built in.
 *
 * What a new collection weighs its features by before it has documents. The
 * table has one byte a slot; a feature's slot is a run of its hash's bits
 * (prior_slot). The byte is round(255 idf) with
 *
 *   idf = ln(1 + N / (df + 1/2)) / ln(1 + 2 N)    in (0, 1]
 *
 * for the N texts of the corpus, so 255 is a feature of no text. Features
 * that share a slot share the sum of their frequencies. The recipe that makes
 * src/text/prior_df.bin is `make prior`: see src/text/README.md.
 */
#ifndef TEXT_PRIOR_H
#define TEXT_PRIOR_H

#include <stddef.h>
#include <stdint.h>

/* How many slots the table has: a power of two. */
size_t prior_slots(void);

/* The bits of a feature's hash that name weights and slots, lowest first. */
static inline uint64_t
prior_slot_bits(uint64_t feature)
{
    return feature >> 24;
}

/* The relative idf of a slot, in (0, 1]. */
float prior_idf(size_t slot);

/* idf as above, for df of n texts. */
float prior_idf_of(uint32_t df, uint32_t n);

#endif
