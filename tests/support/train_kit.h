/*
 * train_kit.h - small tasks for tests of training: pairs of texts that share
 * no word, texts with a title, pictures of blobs; encoders to match.
 *
 * The examples point into static memory of the kit and last for the process.
 */
#ifndef TESTS_TRAIN_KIT_H
#define TESTS_TRAIN_KIT_H

#include "train/batch.h"

#define TRAIN_KIT_N 48
#define TRAIN_KIT_SIDE 28
#define TRAIN_KIT_TEXT "{\"dims\":32,\"buckets\":1024}"
#define TRAIN_KIT_PICTURES                                                     \
    "{\"input\":28,\"channels\":1,\"width\":16,\"blocks\":1,\"stages\":1,"     \
    "\"dims\":32}"

/* [TRAIN_KIT_N] examples each; weight 1, a label for every eight. */
void train_kit_pairs(struct batch_example *out);
void train_kit_items(struct batch_example *out);    /* texts, instances */
void train_kit_pictures(struct batch_example *out); /* grey, instances */

#endif
