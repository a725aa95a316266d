#include "text/trie.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define BLOCK 256
#define FREE_UNIT 0x1FFU
#define VALUE_UNIT 0x100U
#define N_BLOCKS_MAX ((1U << 22) / BLOCK)
/* Older blocks are left as they are: their last holes are hard to fill. */
#define N_BLOCKS_OPEN 24

/* What the build knows of a block: which units are taken, and which numbers
   are the base of a node. */
struct block {
    uint64_t taken[4];
    uint64_t is_base[4];
    unsigned n_free;
};

/* Keys begin..end share their first depth bytes; unit is their node. */
struct range {
    uint32_t begin, end, depth, unit;
};

struct builder {
    const struct trie_key *keys;
    uint32_t *units;
    struct block *blocks;
    size_t n_blocks, cap_blocks;
    struct range *queue;
    size_t n_queue, cap_queue;
};

#define ROOT_UNIT UINT32_MAX

static int
compare_keys(const void *a, const void *b)
{
    const struct trie_key *x = a, *y = b;
    int order = memcmp(x->s, y->s, MIN(x->len, y->len));
    if (order != 0)
        return order;
    return x->len < y->len ? -1 : x->len > y->len;
}

size_t
trie_sort(struct trie_key *keys, size_t n)
{
    if (n > 1)
        qsort(keys, n, sizeof *keys, compare_keys);
    for (size_t i = 1; i < n; i++) {
        if (compare_keys(&keys[i - 1], &keys[i]) == 0)
            return i;
    }
    return n;
}

static bool
has_bit(const uint64_t set[4], unsigned i)
{
    return (set[i >> 6] >> (i & 63) & 1) != 0;
}

static void
set_bit(uint64_t set[4], unsigned i)
{
    set[i >> 6] |= (uint64_t)1 << (i & 63);
}

static enum err
push_range(struct builder *b, struct range range)
{
    if (b->n_queue == b->cap_queue) {
        size_t cap = MAX(b->cap_queue * 2, (size_t)1024);
        struct range *grown = mem_realloc(b->queue, cap, sizeof *grown);
        if (grown == NULL)
            return ERR_NOMEM;
        b->queue = grown;
        b->cap_queue = cap;
    }
    b->queue[b->n_queue++] = range;
    return OK;
}

static enum err
add_block(struct builder *b)
{
    if (b->n_blocks == N_BLOCKS_MAX)
        return ERR_TOO_LARGE;
    if (b->n_blocks == b->cap_blocks) {
        size_t cap = MAX(b->cap_blocks * 2, (size_t)16);
        struct block *blocks = mem_realloc(b->blocks, cap, sizeof *blocks);
        if (blocks == NULL)
            return ERR_NOMEM;
        b->blocks = blocks;
        uint32_t *units = mem_realloc(b->units, cap * BLOCK, sizeof *units);
        if (units == NULL)
            return ERR_NOMEM;
        b->units = units;
        b->cap_blocks = cap;
    }
    b->blocks[b->n_blocks] = (struct block){.n_free = BLOCK};
    for (size_t i = 0; i < BLOCK; i++)
        b->units[b->n_blocks * BLOCK + i] = FREE_UNIT;
    b->n_blocks++;
    return OK;
}

/* A base in this block under which all labels find free units, or BLOCK. */
static unsigned
base_in_block(
    const struct block *block, const unsigned char *labels, size_t n_labels)
{
    if (block->n_free < n_labels)
        return BLOCK;
    for (unsigned word = 0; word < 4; word++) {
        uint64_t left = ~block->taken[word];
        for (; left != 0; left &= left - 1) {
            unsigned base = (word * 64 + BIT_LOWEST64(left)) ^ labels[0];
            size_t i = 1;
            if (has_bit(block->is_base, base))
                continue;
            while (i < n_labels && !has_bit(block->taken, base ^ labels[i]))
                i++;
            if (i == n_labels)
                return base;
        }
    }
    return BLOCK;
}

static enum err
find_base(struct builder *b, const unsigned char *labels, size_t n_labels,
    uint32_t *base)
{
    size_t first =
        b->n_blocks > N_BLOCKS_OPEN ? b->n_blocks - N_BLOCKS_OPEN : 0;
    unsigned low = BLOCK;
    size_t i = first;
    for (; i < b->n_blocks; i++) {
        low = base_in_block(&b->blocks[i], labels, n_labels);
        if (low < BLOCK)
            break;
    }
    if (low == BLOCK) {
        enum err err = add_block(b);
        if (err != OK)
            return err;
        low = base_in_block(&b->blocks[i], labels, n_labels);
        ASSERT(low < BLOCK);
    }
    set_bit(b->blocks[i].is_base, low);
    for (size_t j = 0; j < n_labels; j++)
        set_bit(b->blocks[i].taken, low ^ labels[j]);
    b->blocks[i].n_free -= (unsigned)n_labels;
    *base = (uint32_t)(i * BLOCK + low);
    return OK;
}

static unsigned char
byte_at(const struct builder *b, uint32_t key, uint32_t depth)
{
    return (unsigned char)b->keys[key].s[depth];
}

/* The first key of the range behind key that has another byte at depth. */
static uint32_t
end_of_group(const struct builder *b, const struct range *range, uint32_t key)
{
    unsigned char c = byte_at(b, key, range->depth);
    while (key < range->end && byte_at(b, key, range->depth) == c)
        key++;
    return key;
}

static enum err
place_children(struct builder *b, struct range range, uint32_t *root)
{
    unsigned char labels[BLOCK];
    size_t n_labels = 0;
    uint32_t first = range.begin;
    bool ends = b->keys[first].len == range.depth;
    if (ends) {
        labels[n_labels++] = 0;
        first++;
    }
    for (uint32_t k = first; k < range.end; k = end_of_group(b, &range, k))
        labels[n_labels++] = byte_at(b, k, range.depth);
    uint32_t base;
    enum err err = find_base(b, labels, n_labels, &base);
    if (err != OK)
        return err;
    uint32_t *own = range.unit == ROOT_UNIT ? root : &b->units[range.unit];
    *own = (*own & 0xFF) | (ends ? TRIE_ENDS_BIT : 0) | base << 10;
    if (ends)
        b->units[base] = b->keys[range.begin].value << 10 | VALUE_UNIT;
    uint32_t k = first;
    while (k < range.end && err == OK) {
        uint32_t end = end_of_group(b, &range, k);
        unsigned char c = byte_at(b, k, range.depth);
        b->units[base ^ c] = c;
        err = push_range(b, (struct range){k, end, range.depth + 1, base ^ c});
        k = end;
    }
    return err;
}

enum err
trie_build(struct trie *out, const struct trie_key *keys, size_t n)
{
    struct builder b = {.keys = keys};
    uint32_t root = 0;
    enum err err = add_block(&b);
    if (err == OK && n > 0)
        err = push_range(&b, (struct range){0, (uint32_t)n, 0, ROOT_UNIT});
    for (size_t i = 0; i < b.n_queue && err == OK; i++)
        err = place_children(&b, b.queue[i], &root);
    if (err == OK) {
        *out = (struct trie){b.units, b.n_blocks * BLOCK, root};
        b.units = NULL;
    }
    mem_free(b.units);
    mem_free(b.blocks);
    mem_free(b.queue);
    return err;
}

void
trie_release(struct trie *trie)
{
    mem_free(trie->units);
    *trie = (struct trie){0};
}

size_t
trie_longest(
    const struct trie *trie, const char *s, size_t len, uint32_t *value)
{
    uint32_t node = trie->root;
    size_t longest = 0;
    for (size_t i = 0; i < len; i++) {
        if (!trie_step(trie, &node, (unsigned char)s[i]))
            break;
        if (trie_ends(node)) {
            longest = i + 1;
            *value = trie_value(trie, node);
        }
    }
    return longest;
}

bool
trie_find(const struct trie *trie, const char *s, size_t len, uint32_t *value)
{
    uint32_t node = trie->root;
    for (size_t i = 0; i < len; i++) {
        if (!trie_step(trie, &node, (unsigned char)s[i]))
            return false;
    }
    if (len == 0 || !trie_ends(node))
        return false;
    *value = trie_value(trie, node);
    return true;
}
