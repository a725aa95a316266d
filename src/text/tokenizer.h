/*
 * tokenizer.h - text to the numbers of a published encoder's vocabulary, as
 * that encoder was trained with them.
 *
 * A tokenizer is made from a file of the fast-tokenizer format
 * (tokenizer.json), from a BERT vocabulary (vocab.txt), or from a list of
 * SentencePiece pieces. Models: WordPiece and Unigram; normalizers,
 * pre-tokenizers and what is refused stand in normalizer.h and
 * pretokenizer.h. Post-processors: TemplateProcessing, BertProcessing and
 * RobertaProcessing, each for a single text. The members "truncation",
 * "padding" and "decoder" are not looked at: the caller says how many tokens
 * it takes, and nothing is padded.
 *
 * A tokenizer is immutable once made, and threads share it; each has a
 * workspace of its own.
 *
 * What a tokenizer file may be: TOKENIZER_FILE_BYTES_MAX, 2^20 pieces of at
 * most 512 bytes, 4,096 added tokens, 16 normalizers, 8 pre-tokenizers, 16
 * special tokens before and behind a text. Numbers and pieces are unique. The
 * fault names the member at fault.
 */
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

#define TOKENIZER_FILE_BYTES_MAX ((size_t)64 << 20)
#define TOKENIZER_TEXT_BYTES_MAX ((size_t)4 << 20)
#define TOKENIZER_SPECIALS_MAX 16

struct tokenizer;
struct tokenizer_workspace;

/*
 * tokenizer_from_json - from the bytes of a tokenizer.json.
 *
 *   out  gives the tokenizer; untouched on failure
 *
 * ERR_SYNTAX for what is no JSON; ERR_UNSUPPORTED for a type that is not
 * known here (BPE, WordLevel, a normalizer, ...), by its name; ERR_TOO_LARGE
 * over a limit; ERR_INVALID for values that cannot be; ERR_NOMEM.
 */
enum err tokenizer_from_json(const char *json, size_t len,
    struct tokenizer **out, struct fault *fault) NODISCARD;

/*
 * tokenizer_from_vocab - a BERT tokenizer from its vocab.txt: a piece a line,
 * the line is its number. [UNK], [CLS] and [SEP] must be there; they, [PAD]
 * and [MASK] are found in texts as they are written.
 */
enum err tokenizer_from_vocab(const char *vocab, size_t len, bool lowercase,
    struct tokenizer **out, struct fault *fault) NODISCARD;

/* A piece of a SentencePiece vocabulary. */
struct tokenizer_piece {
    uint32_t id;
    const char *s; /* UTF-8, len bytes; borrowed for the call */
    size_t len;
    double score;
    bool hidden; /* a control piece: never found in a text */
};

/*
 * tokenizer_from_pieces - a Unigram tokenizer from its list of pieces. A text
 * is brought to NFKC, every space becomes U+2581, one more is set before it,
 * and nothing is added at the ends.
 *
 *   pieces      [n]  in any order; of pieces that are alike (published lists
 *               have such) the one with the highest score is found
 *   unknown_id  the number of what no piece covers; in the list
 */
enum err tokenizer_from_pieces(const struct tokenizer_piece *pieces, size_t n,
    uint32_t unknown_id, struct tokenizer **out, struct fault *fault) NODISCARD;

/* NULL is fine. */
void tokenizer_free(struct tokenizer *tokenizer);

/* Numbers are below this; some may have no piece. */
size_t tokenizer_n_ids(const struct tokenizer *tokenizer);

/* The piece of a number (no NUL follows it), or NULL; valid as long as the
   tokenizer. */
const char *tokenizer_piece(
    const struct tokenizer *tokenizer, uint32_t id, size_t *len);

/* How many special tokens every text gets. */
size_t tokenizer_n_special(const struct tokenizer *tokenizer);

/* One thread's memory for tokenizing; it grows to what the longest text needed,
   and remembers words of the Unigram tokenizer that it served last (1 MB). Any
   tokenizer may use it, but in turns it is slow: have one for each. Gives NULL
   when memory is out; free takes NULL. */
struct tokenizer_workspace *tokenizer_workspace_new(void) NODISCARD;
void tokenizer_workspace_free(struct tokenizer_workspace *workspace);

/*
 * tokenizer_encode - the tokens of a text.
 *
 *   text, len   bytes; what is not UTF-8 counts as U+FFFD (one for each
 *               maximal part of a broken sequence)
 *   max_tokens  at least tokenizer_n_special
 *   ids         [max_tokens]  overwritten
 *   n           how many there are, special tokens with them
 *   n_full      how many there would be without max_tokens: the text was
 *               truncated when this is more than *n
 *
 * The special tokens are always there; the text's own are cut at the end.
 * ERR_TOO_LARGE over TOKENIZER_TEXT_BYTES_MAX, or when normalisation makes
 * the text four times as long as that; ERR_NOMEM. Allocates only when the
 * workspace has not yet seen a text so long. Linear in len.
 */
enum err tokenizer_encode(const struct tokenizer *tokenizer, const char *text,
    size_t len, size_t max_tokens, struct tokenizer_workspace *workspace,
    uint32_t *ids, size_t *n, size_t *n_full) NODISCARD;

#endif
