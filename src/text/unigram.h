/*
 * unigram.h - a text into the pieces whose scores sum highest (Kudo 2018,
 * arXiv:1804.10959, with Viterbi's search over a trie).
 *
 * Where no piece covers a character alone, the unknown piece may, at the
 * lowest score of all pieces less UNIGRAM_UNKNOWN_PENALTY. Unknown pieces in a
 * row are one; if they make a piece that is known after all it is that, and
 * with byte_fallback they are the pieces <0x00> to <0xFF> of their bytes, when
 * all of these are there. Sums are in double, in the order of the text; of two
 * sums that are alike the one whose last piece begins first wins.
 *
 * A text is searched in parts that cannot share a piece: it is cut before a
 * U+2581 behind another character, if no piece has such a place inside. The
 * parts that a thread met last are remembered, when they are short, all known,
 * and no other way came near the best: then the sum of what stands before
 * cannot have decided, and a part has one answer.
 */
#ifndef TEXT_UNIGRAM_H
#define TEXT_UNIGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "text/pieces.h"
#include "text/scratch.h"
#include "text/wordpiece.h"

#define UNIGRAM_UNKNOWN_PENALTY 10.0
#define UNIGRAM_SPACE "\xE2\x96\x81" /* U+2581 */
#define UNIGRAM_SPACE_LEN 3

struct unigram {
    double *scores; /* by number; owned */
    double unknown_score;
    uint32_t unknown_id;
    bool byte_fallback;
    bool parts;           /* texts may be cut before U+2581 */
    uint32_t bytes[256];  /* with byte_fallback; UINT32_MAX: not there */
    uint64_t fingerprint; /* of all that a path depends on */
};

#define UNIGRAM_PART_BYTES 29
#define UNIGRAM_PART_PIECES 8

/* A part that was met: 64 bytes. */
struct unigram_part {
    unsigned char len; /* 0: none here */
    unsigned char n;
    char s[UNIGRAM_PART_BYTES + 1];
    uint32_t ids[UNIGRAM_PART_PIECES];
};

/* What a search needs of its thread. */
struct unigram_work {
    struct scratch nodes;
    struct unigram_part *parts; /* NULL until the first search */
    uint64_t owner;             /* whose parts they are */
};

/*
 * unigram_init - from pieces that are built.
 *
 *   scores      by number, finite; taken, also on failure
 *   unknown_id  has a piece
 */
void unigram_init(struct unigram *out, const struct pieces *pieces,
    double *scores, uint32_t unknown_id, bool byte_fallback);
void unigram_release(struct unigram *model);

void unigram_work_init(struct unigram_work *work, size_t max_bytes);
void unigram_work_release(struct unigram_work *work);

/* The pieces of valid UTF-8. ERR_NOMEM or ERR_TOO_LARGE from the work; then
   the sink has some of them. */
enum err unigram_encode(const struct unigram *model,
    const struct pieces *pieces, const char *s, size_t len,
    struct unigram_work *work, struct piece_sink *sink) NODISCARD;

#endif
