#include "model/bag.h"

#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "text/hashed.h"
#include "text/words.h"

#define NO_ENTRY UINT32_MAX

void
bag_init(struct bag *bag)
{
    *bag = (struct bag){0};
}

void
bag_release(struct bag *bag)
{
    mem_free(bag->text_start);
    mem_free(bag->text_words);
    mem_free(bag->text_words_full);
    mem_free(bag->entries);
    mem_free(bag->word_hash);
    mem_free(bag->feature_start);
    mem_free(bag->last_entry);
    mem_free(bag->features);
    mem_free(bag->slots);
    bag_init(bag);
}

void
bag_clear(struct bag *bag)
{
    bag->n_texts = bag->n_entries = bag->n_words = bag->n_features = 0;
    if (bag->slots != NULL)
        memset(bag->slots, 0, bag->n_slots * sizeof *bag->slots);
}

/* Make room for need elements in the array whose pointer array points to,
   growing by half; false when memory is out. */
static bool
grow(void *array, size_t size, size_t *cap, size_t need)
{
    if (need <= *cap)
        return true;
    size_t cap_new = MAX(need, *cap + *cap / 2 + 64);
    void *p;
    memcpy(&p, array, sizeof p); /* any object pointer, copied as such */
    p = mem_realloc(p, cap_new, size);
    if (p == NULL)
        return false;
    memcpy(array, &p, sizeof p);
    *cap = cap_new;
    return true;
}

static bool
reserve_texts(struct bag *bag, size_t n)
{
    size_t cap_a = bag->cap_texts, cap_b = cap_a, cap_c = cap_a;
    if (!grow(&bag->text_start, sizeof *bag->text_start, &cap_a, n + 1) ||
        !grow(&bag->text_words, sizeof *bag->text_words, &cap_b, n + 1) ||
        !grow(
            &bag->text_words_full, sizeof *bag->text_words_full, &cap_c, n + 1))
        return false;
    bag->cap_texts = cap_a;
    return true;
}

static bool
reserve_words(struct bag *bag, size_t n)
{
    size_t cap_a = bag->cap_words, cap_b = cap_a, cap_c = cap_a;
    if (!grow(&bag->word_hash, sizeof *bag->word_hash, &cap_a, n + 1) ||
        !grow(&bag->feature_start, sizeof *bag->feature_start, &cap_b, n + 1) ||
        !grow(&bag->last_entry, sizeof *bag->last_entry, &cap_c, n + 1))
        return false;
    bag->cap_words = cap_a;
    return true;
}

static bool
rehash(struct bag *bag, size_t n_slots)
{
    uint32_t *slots = mem_calloc(n_slots, sizeof *slots);
    if (slots == NULL)
        return false;
    for (size_t i = 0; i < bag->n_words; i++) {
        size_t s = bag->word_hash[i] & (n_slots - 1);
        while (slots[s] != 0)
            s = (s + 1) & (n_slots - 1);
        slots[s] = (uint32_t)i + 1;
    }
    mem_free(bag->slots);
    bag->slots = slots;
    bag->n_slots = n_slots;
    return true;
}

/* The slot of a word: holds its index + 1, or 0 when it is new. */
static bool
find_slot(struct bag *bag, uint64_t hash, uint32_t **slot)
{
    if (bag->n_slots < 2 * (bag->n_words + 1) &&
        !rehash(bag, bag->n_slots < 64 ? 128 : 2 * bag->n_slots))
        return false;
    size_t s = hash & (bag->n_slots - 1);
    while (bag->slots[s] != 0 && bag->word_hash[bag->slots[s] - 1] != hash)
        s = (s + 1) & (bag->n_slots - 1);
    *slot = &bag->slots[s];
    return true;
}

/* A new word with its features; the caller fills the slot. */
static bool
add_word(struct bag *bag, uint64_t hash, const uint64_t *features, size_t n)
{
    if (!reserve_words(bag, bag->n_words + 1) ||
        !grow(&bag->features, sizeof *bag->features, &bag->cap_features,
            bag->n_features + n))
        return false;
    if (bag->n_words == 0)
        bag->feature_start[0] = 0;
    memcpy(bag->features + bag->n_features, features, n * sizeof *features);
    bag->n_features += n;
    bag->word_hash[bag->n_words] = hash;
    bag->last_entry[bag->n_words] = NO_ENTRY;
    bag->n_words++;
    bag->feature_start[bag->n_words] = (uint32_t)bag->n_features;
    return true;
}

struct adding {
    struct bag *bag;
    const struct bag_options *options;
    size_t text_start; /* first entry of this text */
    uint32_t n_words, n_words_full;
    bool nomem;
};

static void
add_token(void *arg, const char *word, size_t len, int spaceless)
{
    struct adding *a = arg;
    struct bag *bag = a->bag;
    uint32_t position = a->n_words_full++;
    uint32_t *slot;

    if (a->nomem || position >= a->options->max_words)
        return;
    a->n_words++;
    if (a->options->rng != NULL && a->options->token_dropout > 0 &&
        rng_float(a->options->rng) < a->options->token_dropout)
        return;
    uint64_t hash = hashed_word(word, len);
    if (!find_slot(bag, hash, &slot)) {
        a->nomem = true;
        return;
    }
    if (*slot == 0) {
        uint64_t features[HASHED_FEATURES_MAX];
        size_t n = 1;
        features[0] = hash;
        if (!spaceless)
            n = hashed_features(
                features, word, len, a->options->n_min, a->options->n_max);
        if (!add_word(bag, hash, features, n)) {
            a->nomem = true;
            return;
        }
        *slot = (uint32_t)bag->n_words;
    }
    uint32_t w = *slot - 1;
    uint32_t last = bag->last_entry[w];
    if (last != NO_ENTRY && last >= a->text_start && last < bag->n_entries &&
        bag->entries[last].word == w) {
        bag->entries[last].count++;
        return;
    }
    if (!grow(&bag->entries, sizeof *bag->entries, &bag->cap_entries,
            bag->n_entries + 1)) {
        a->nomem = true;
        return;
    }
    bag->last_entry[w] = (uint32_t)bag->n_entries;
    bag->entries[bag->n_entries++] =
        (struct bag_entry){.word = w, .count = 1, .position = position};
}

enum err
bag_add(struct bag *bag, const char *text, size_t len,
    const struct bag_options *options)
{
    struct adding a = {
        .bag = bag, .options = options, .text_start = bag->n_entries};
    if (!reserve_texts(bag, bag->n_texts + 1))
        return ERR_NOMEM;
    enum err err = words_split(text, len, add_token, &a);
    if (err != OK || a.nomem)
        return ERR_NOMEM;
    bag->text_start[bag->n_texts] = (uint32_t)a.text_start;
    bag->text_words[bag->n_texts] = a.n_words;
    bag->text_words_full[bag->n_texts] = a.n_words_full;
    bag->n_texts++;
    bag->text_start[bag->n_texts] = (uint32_t)bag->n_entries;
    return OK;
}

enum err
bag_merge(struct bag *bag, const struct bag *from)
{
    uint32_t *map = mem_alloc(from->n_words, sizeof *map);
    if (map == NULL || !reserve_texts(bag, bag->n_texts + from->n_texts) ||
        !grow(&bag->entries, sizeof *bag->entries, &bag->cap_entries,
            bag->n_entries + from->n_entries))
        goto nomem;
    for (size_t i = 0; i < from->n_words; i++) {
        uint32_t *slot;
        if (!find_slot(bag, from->word_hash[i], &slot))
            goto nomem;
        if (*slot == 0) {
            size_t start = from->feature_start[i];
            if (!add_word(bag, from->word_hash[i], from->features + start,
                    from->feature_start[i + 1] - start))
                goto nomem;
            *slot = (uint32_t)bag->n_words;
        }
        map[i] = *slot - 1;
    }
    for (size_t i = 0; i < from->n_entries; i++) {
        bag->entries[bag->n_entries + i] = from->entries[i];
        bag->entries[bag->n_entries + i].word = map[from->entries[i].word];
    }
    for (size_t t = 0; t < from->n_texts; t++) {
        bag->text_start[bag->n_texts + t] =
            (uint32_t)bag->n_entries + from->text_start[t];
        bag->text_words[bag->n_texts + t] = from->text_words[t];
        bag->text_words_full[bag->n_texts + t] = from->text_words_full[t];
    }
    bag->n_entries += from->n_entries;
    bag->n_texts += from->n_texts;
    bag->text_start[bag->n_texts] = (uint32_t)bag->n_entries;
    mem_free(map);
    return OK;
nomem:
    mem_free(map);
    return ERR_NOMEM;
}
