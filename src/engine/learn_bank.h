/*
 * learn_bank.h - the collection's stored vectors as the bank that
 * "memory_bank" draws its negative keys from.
 *
 * It is a copy: training refreshes its rows as it encodes their items, and
 * what it holds at the end is thrown away; the vectors of the new generation
 * are made by re-embedding. Items that tune or judge are not in it. Rows have
 * the keys of the examples' sides, also those of items that hold the same
 * (their vectors are equal); every other one has a key of its own.
 */
#ifndef ENGINE_LEARN_BANK_H
#define ENGINE_LEARN_BANK_H

#include "engine/learn_data.h"

#define LEARN_BANK_BYTES_MAX ((size_t)1 << 30)

struct learn_bank {
    struct train_bank train;
    uint64_t *keys;
};

/*
 * learn_bank_load - the rows of the live index, by item number, up to the
 * number that the round began with. Of more than fit those of the examples
 * stay, and others by the seed.
 *
 * Errors: ERR_NOMEM, ERR_INVALID when it would be empty.
 */
enum err learn_bank_load(struct learn_bank *out, const struct learn_data *data,
    struct collection *c, struct snapshot *live, uint64_t seed,
    int64_t items_upto, struct fault *fault) NODISCARD;
void learn_bank_release(struct learn_bank *bank); /* all zero is fine */

#endif
