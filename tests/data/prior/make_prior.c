/*
 * make_prior.c - document frequencies of a corpus, as src/text/prior_df.bin.
 *
 * usage: make_prior N_SLOTS <texts >prior_df.bin
 *
 * One text a line. The table's format stands in src/text/prior.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "model/bag.h"
#include "text/prior.h"

#define N_MIN 2 /* every n-gram length that an encoder may ask for */
#define N_MAX 6

int
main(int argc, char **argv)
{
    size_t n_slots = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    if (n_slots == 0 || (n_slots & (n_slots - 1)) != 0) {
        fprintf(stderr, "usage: make_prior N_SLOTS (a power of two)\n");
        return 2;
    }
    uint32_t *df = mem_calloc(n_slots, sizeof *df);
    uint32_t *last = mem_calloc(n_slots, sizeof *last);
    struct bag bag;
    struct bag_options options = {
        .n_min = N_MIN, .n_max = N_MAX, .max_words = 100000};
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    uint32_t n = 0;

    if (df == NULL || last == NULL)
        return 1;
    bag_init(&bag);
    while ((len = getline(&line, &cap, stdin)) > 0) {
        if (bag.n_words > 65536)
            bag_clear(&bag);
        if (bag_add(&bag, line, (size_t)len, &options) != OK)
            return 1;
        n++;
        size_t t = bag.n_texts - 1;
        for (size_t j = bag.text_start[t]; j < bag.text_start[t + 1]; j++) {
            size_t u = bag.entries[j].word;
            for (size_t f = bag.feature_start[u]; f < bag.feature_start[u + 1];
                 f++) {
                size_t s =
                    (size_t)prior_slot_bits(bag.features[f]) & (n_slots - 1);
                if (last[s] != n) {
                    last[s] = n;
                    df[s]++;
                }
            }
        }
    }
    for (size_t s = 0; s < n_slots; s++)
        putchar((int)(255 * prior_idf_of(df[s], n) + 0.5f));
    fprintf(stderr, "%u texts, %zu slots\n", n, n_slots);
    free(line);
    bag_release(&bag);
    mem_free(df);
    mem_free(last);
    return fflush(stdout) == 0 ? 0 : 1;
}
