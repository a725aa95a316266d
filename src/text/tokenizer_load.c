/* tokenizer_load.c - tokenizers from files: tokenizer.json, vocab.txt, lists
   of pieces. Its contract is in tokenizer.h. */
#include "text/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "text/tokenizer_parts.h"

#define CHARS_PER_WORD 100 /* of a vocab.txt */
#define CHARS_PER_WORD_MAX 10000

/* The pointer of element i of the array at `at`. */
static void
item_pointer(char out[FAULT_POINTER_MAX], const char *at, size_t i)
{
    char number[24];
    snprintf(number, sizeof number, "%zu", i);
    json_pointer(out, at, number);
}

/* ---- models -------------------------------------------------------------- */

static enum err
find_required(const struct pieces *pieces, const char *piece, uint32_t *id,
    const char *at, struct fault *fault)
{
    if (trie_find(&pieces->trie, piece, strlen(piece), id))
        return OK;
    return fault_set(
        fault, ERR_INVALID, at, "the vocabulary has no piece \"%.64s\"", piece);
}

static enum err
read_wordpiece_vocab(struct pieces *pieces, const struct json *model,
    const char *at, struct fault *fault)
{
    const struct json *vocab;
    char vocab_at[FAULT_POINTER_MAX], item_at[FAULT_POINTER_MAX];
    json_pointer(vocab_at, at, "vocab");
    enum err err =
        json_get_object(model, at, "vocab", JSON_REQUIRED, &vocab, fault);
    if (err != OK)
        return err;
    for (void *it = json_first(vocab); it != NULL && err == OK;
         it = json_next(vocab, it)) {
        const char *piece = json_it_key(it);
        const struct json *id = json_it_value(it);
        json_pointer(item_at, vocab_at, piece);
        if (json_kind(id) != JSON_KIND_INT)
            err = fault_set(fault, ERR_INVALID, item_at, "not an integer");
        else
            err = pieces_add(pieces, json_i64(id), piece, strlen(piece), false,
                item_at, fault);
    }
    return err == OK ? pieces_build(pieces, vocab_at, fault) : err;
}

static enum err
read_wordpiece(struct tokenizer *t, const struct json *model, const char *at,
    struct fault *fault)
{
    const char *unknown = "[UNK]", *prefix = "##";
    size_t prefix_len = strlen(prefix);
    int64_t chars_max = CHARS_PER_WORD;
    uint32_t unknown_id;
    enum err err = json_get_str(
        model, at, "unk_token", JSON_OPTIONAL, &unknown, NULL, fault);
    if (err == OK)
        err = json_get_str(model, at, "continuing_subword_prefix",
            JSON_OPTIONAL, &prefix, &prefix_len, fault);
    if (err == OK)
        err = json_get_i64(model, at, "max_input_chars_per_word", JSON_OPTIONAL,
            0, CHARS_PER_WORD_MAX, &chars_max, fault);
    if (err == OK)
        err = read_wordpiece_vocab(&t->pieces, model, at, fault);
    if (err == OK)
        err = find_required(&t->pieces, unknown, &unknown_id, at, fault);
    if (err != OK)
        return err;
    t->model = TOKENIZER_WORDPIECE;
    wordpiece_init(&t->wordpiece, &t->pieces, unknown_id, prefix, prefix_len,
        (size_t)chars_max);
    return OK;
}

/* Element i of a Unigram's vocabulary: [piece, score]. */
static enum err
read_scored(struct pieces *pieces, double *scores, const struct json *vocab,
    size_t i, const char *at, struct fault *fault)
{
    const struct json *pair = json_item(vocab, i), *piece, *score;
    if (json_kind(pair) != JSON_KIND_ARRAY || json_count(pair) != 2)
        return fault_set(fault, ERR_INVALID, at, "not [piece, score]");
    piece = json_item(pair, 0);
    score = json_item(pair, 1);
    if (json_kind(piece) != JSON_KIND_STRING ||
        (json_kind(score) != JSON_KIND_REAL &&
            json_kind(score) != JSON_KIND_INT))
        return fault_set(fault, ERR_INVALID, at, "not [piece, score]");
    size_t len;
    const char *s = json_str(piece, &len);
    scores[i] = json_f64(score);
    return pieces_add(pieces, (int64_t)i, s, len, false, at, fault);
}

static enum err
read_unigram(struct tokenizer *t, const struct json *model, const char *at,
    struct fault *fault)
{
    const struct json *vocab, *unknown = json_find(model, "unk_id");
    char vocab_at[FAULT_POINTER_MAX], item_at[FAULT_POINTER_MAX];
    bool byte_fallback = false;
    int64_t unknown_id = 0;
    json_pointer(vocab_at, at, "vocab");
    enum err err =
        json_get_array(model, at, "vocab", JSON_REQUIRED, &vocab, fault);
    if (err != OK)
        return err;
    size_t n = json_count(vocab);
    if (n == 0 || n > PIECES_MAX)
        return fault_set(fault, ERR_INVALID, vocab_at,
            "%zu pieces; there must be 1 to %zu", n, PIECES_MAX);
    if (unknown == NULL || json_kind(unknown) == JSON_KIND_NULL)
        return fault_set(
            fault, ERR_UNSUPPORTED, at, "a Unigram without an unk_id");
    err = json_get_i64(model, at, "unk_id", JSON_REQUIRED, 0, (int64_t)n - 1,
        &unknown_id, fault);
    if (err == OK)
        err = json_get_bool(
            model, at, "byte_fallback", JSON_OPTIONAL, &byte_fallback, fault);
    double *scores = mem_alloc(n, sizeof *scores);
    if (err == OK && scores == NULL)
        err = ERR_NOMEM;
    for (size_t i = 0; i < n && err == OK; i++) {
        item_pointer(item_at, vocab_at, i);
        err = read_scored(&t->pieces, scores, vocab, i, item_at, fault);
    }
    if (err == OK)
        err = pieces_build(&t->pieces, vocab_at, fault);
    if (err != OK) {
        mem_free(scores);
        return err;
    }
    t->model = TOKENIZER_UNIGRAM;
    unigram_init(
        &t->unigram, &t->pieces, scores, (uint32_t)unknown_id, byte_fallback);
    return OK;
}

/* Old files name no type: then the members tell. */
static const char *
guess_type(const struct json *model)
{
    const struct json *vocab = json_find(model, "vocab");
    if (vocab != NULL && json_kind(vocab) == JSON_KIND_ARRAY)
        return "Unigram";
    if (json_find(model, "merges") != NULL)
        return "BPE";
    return json_find(model, "max_input_chars_per_word") != NULL ? "WordPiece"
                                                                : "WordLevel";
}

static enum err
read_model(struct tokenizer *t, const struct json *root, struct fault *fault)
{
    const struct json *model;
    enum err err =
        json_get_object(root, "", "model", JSON_REQUIRED, &model, fault);
    if (err != OK)
        return err;
    const char *type = guess_type(model);
    err = json_get_str(
        model, "/model", "type", JSON_OPTIONAL, &type, NULL, fault);
    if (err != OK)
        return err;
    if (strcmp(type, "WordPiece") == 0)
        return read_wordpiece(t, model, "/model", fault);
    if (strcmp(type, "Unigram") == 0)
        return read_unigram(t, model, "/model", fault);
    return fault_set(
        fault, ERR_UNSUPPORTED, "/model/type", "the model \"%.64s\"", type);
}

/* ---- post-processors ----------------------------------------------------- */

static enum err
add_special(struct tokenizer *t, struct tokenizer_specials *to, int64_t id,
    const char *at, struct fault *fault)
{
    size_t len;
    if (id < 0 || id >= (int64_t)PIECES_MAX ||
        pieces_get(&t->pieces, (size_t)id, &len) == NULL)
        return fault_set(fault, ERR_INVALID, at,
            "no piece has the special token's number %lld", (long long)id);
    if (to->n == TOKENIZER_SPECIALS_MAX)
        return fault_set(fault, ERR_TOO_LARGE, at,
            "more than %d special tokens at one end", TOKENIZER_SPECIALS_MAX);
    to->ids[to->n++] = (uint32_t)id;
    return OK;
}

/* The numbers that a template's special token stands for. */
static enum err
add_template_special(struct tokenizer *t, struct tokenizer_specials *to,
    const struct json *processor, const struct json *special, const char *at,
    struct fault *fault)
{
    const char *name;
    const struct json *map, *entry, *ids;
    enum err err =
        json_get_str(special, at, "id", JSON_REQUIRED, &name, NULL, fault);
    if (err == OK)
        err = json_get_object(processor, "/post_processor", "special_tokens",
            JSON_REQUIRED, &map, fault);
    if (err == OK)
        err = json_get_object(map, "/post_processor/special_tokens", name,
            JSON_REQUIRED, &entry, fault);
    if (err == OK)
        err = json_get_array(entry, "/post_processor/special_tokens", "ids",
            JSON_REQUIRED, &ids, fault);
    for (size_t i = 0; err == OK && i < json_count(ids); i++) {
        const struct json *id = json_item(ids, i);
        if (json_kind(id) != JSON_KIND_INT)
            return fault_set(fault, ERR_INVALID, at,
                "the numbers of \"%.64s\" are not integers", name);
        err = add_special(t, to, json_i64(id), at, fault);
    }
    return err;
}

/* Element i of the template; *seen: the text's place was there. */
static enum err
read_template_item(struct tokenizer *t, const struct json *processor,
    const struct json *item, const char *at, bool *seen, struct fault *fault)
{
    const char *id;
    const struct json *special = json_find(item, "SpecialToken");
    const struct json *sequence = json_find(item, "Sequence");
    if (special != NULL)
        return add_template_special(
            t, *seen ? &t->behind : &t->before, processor, special, at, fault);
    if (sequence == NULL)
        return fault_set(fault, ERR_UNSUPPORTED, at,
            "neither a SpecialToken nor a Sequence");
    enum err err =
        json_get_str(sequence, at, "id", JSON_REQUIRED, &id, NULL, fault);
    if (err == OK && (strcmp(id, "A") != 0 || *seen))
        err = fault_set(fault, ERR_UNSUPPORTED, at,
            "a template of a single text with more than that text");
    *seen = true;
    return err;
}

static enum err
read_template(struct tokenizer *t, const struct json *node, struct fault *fault)
{
    const char *at = "/post_processor/single";
    const struct json *single;
    char item_at[FAULT_POINTER_MAX];
    bool seen = false;
    enum err err = json_get_array(
        node, "/post_processor", "single", JSON_REQUIRED, &single, fault);
    for (size_t i = 0; err == OK && i < json_count(single); i++) {
        item_pointer(item_at, at, i);
        err = read_template_item(
            t, node, json_item(single, i), item_at, &seen, fault);
    }
    if (err == OK && !seen)
        err = fault_set(fault, ERR_INVALID, at, "no place for the text");
    return err;
}

/* BertProcessing and RobertaProcessing: "cls" and "sep" are [piece, id]. */
static enum err
read_pair_processor(
    struct tokenizer *t, const struct json *node, struct fault *fault)
{
    static const char *const keys[] = {"cls", "sep"};
    struct tokenizer_specials *const ends[] = {&t->before, &t->behind};
    char at[FAULT_POINTER_MAX];
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const struct json *pair;
        json_pointer(at, "/post_processor", keys[i]);
        enum err err = json_get_array(
            node, "/post_processor", keys[i], JSON_REQUIRED, &pair, fault);
        if (err != OK)
            return err;
        if (json_count(pair) != 2 ||
            json_kind(json_item(pair, 1)) != JSON_KIND_INT)
            return fault_set(fault, ERR_INVALID, at, "not [piece, number]");
        err = add_special(t, ends[i], json_i64(json_item(pair, 1)), at, fault);
        if (err != OK)
            return err;
    }
    return OK;
}

static enum err
read_post_processor(
    struct tokenizer *t, const struct json *root, struct fault *fault)
{
    const struct json *node = json_find(root, "post_processor");
    const char *type;
    if (node == NULL || json_kind(node) == JSON_KIND_NULL)
        return OK;
    enum err err = json_get_object(
        root, "", "post_processor", JSON_REQUIRED, &node, fault);
    if (err == OK)
        err = json_get_str(
            node, "/post_processor", "type", JSON_REQUIRED, &type, NULL, fault);
    if (err != OK)
        return err;
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(t, node, fault);
    if (strcmp(type, "BertProcessing") == 0 ||
        strcmp(type, "RobertaProcessing") == 0)
        return read_pair_processor(t, node, fault);
    return fault_set(fault, ERR_UNSUPPORTED, "/post_processor/type",
        "the post-processor \"%.64s\"", type);
}

/* ---- sources ------------------------------------------------------------- */

static enum err
read_tokenizer(
    struct tokenizer *t, const struct json *root, struct fault *fault)
{
    struct normalizer_work work;
    if (json_kind(root) != JSON_KIND_OBJECT)
        return fault_set(fault, ERR_INVALID, "", "not an object");
    normalizer_work_init(&work, TOKENIZER_NORMALIZED_BYTES_MAX);
    enum err err = read_model(t, root, fault);
    if (err == OK)
        err = normalizer_from_json(&t->normalizer,
            json_find(root, "normalizer"), "/normalizer", fault);
    if (err == OK)
        err = pretokenizer_from_json(&t->pretokenizer,
            json_find(root, "pre_tokenizer"), "/pre_tokenizer", fault);
    if (err == OK)
        err = added_from_json(&t->added, json_find(root, "added_tokens"),
            &t->pieces, &t->normalizer, &work, "/added_tokens", fault);
    if (err == OK)
        err = read_post_processor(t, root, fault);
    normalizer_work_release(&work);
    return err;
}

/* Hand over what was read, or drop it. */
static enum err
finish(struct tokenizer *t, enum err err, struct tokenizer **out)
{
    if (err == OK)
        *out = t;
    else
        tokenizer_free(t);
    return err;
}

enum err
tokenizer_from_json(
    const char *json, size_t len, struct tokenizer **out, struct fault *fault)
{
    struct json *root;
    enum err err =
        json_parse(json, len, TOKENIZER_FILE_BYTES_MAX, &root, fault);
    if (err != OK)
        return err;
    struct tokenizer *t = tokenizer_new();
    err = t == NULL ? ERR_NOMEM : read_tokenizer(t, root, fault);
    json_free(root);
    return finish(t, err, out);
}

static enum err
read_lines(
    struct pieces *pieces, const char *vocab, size_t len, struct fault *fault)
{
    char at[FAULT_POINTER_MAX];
    enum err err = OK;
    size_t start = 0;
    for (int64_t id = 0; start < len && err == OK; id++) {
        const char *line = vocab + start;
        const char *end = memchr(line, '\n', len - start);
        size_t n = end == NULL ? len - start : (size_t)(end - line);
        start += n + 1;
        if (n > 0 && line[n - 1] == '\r')
            n--;
        snprintf(at, sizeof at, "line %lld", (long long)id + 1);
        err = pieces_add(pieces, id, line, n, false, at, fault);
    }
    return err == OK ? pieces_build(pieces, "", fault) : err;
}

static enum err
read_vocab(struct tokenizer *t, const char *vocab, size_t len, bool lowercase,
    struct fault *fault)
{
    static const char *const required[] = {"[UNK]", "[CLS]", "[SEP]"};
    static const char *const others[] = {"[PAD]", "[MASK]"};
    uint32_t ids[ARRAY_LEN(required) + ARRAY_LEN(others)];
    size_t n = ARRAY_LEN(required);
    if (len > TOKENIZER_FILE_BYTES_MAX)
        return fault_set(fault, ERR_TOO_LARGE, "", "more than %zu bytes",
            TOKENIZER_FILE_BYTES_MAX);
    enum err err = read_lines(&t->pieces, vocab, len, fault);
    for (size_t i = 0; i < ARRAY_LEN(required) && err == OK; i++)
        err = find_required(&t->pieces, required[i], &ids[i], "", fault);
    for (size_t i = 0; i < ARRAY_LEN(others) && err == OK; i++)
        n += trie_find(&t->pieces.trie, others[i], strlen(others[i]), &ids[n]);
    if (err == OK)
        err = added_from_ids(&t->added, ids, n, &t->pieces);
    if (err != OK)
        return err;
    t->model = TOKENIZER_WORDPIECE;
    wordpiece_init(&t->wordpiece, &t->pieces, ids[0], "##", 2, CHARS_PER_WORD);
    normalizer_add_bert(&t->normalizer, lowercase);
    pretokenizer_bert(&t->pretokenizer);
    t->before = (struct tokenizer_specials){{ids[1]}, 1};
    t->behind = (struct tokenizer_specials){{ids[2]}, 1};
    return OK;
}

enum err
tokenizer_from_vocab(const char *vocab, size_t len, bool lowercase,
    struct tokenizer **out, struct fault *fault)
{
    struct tokenizer *t = tokenizer_new();
    enum err err =
        t == NULL ? ERR_NOMEM : read_vocab(t, vocab, len, lowercase, fault);
    return finish(t, err, out);
}

/* hidden[i] for the pieces that are not to be found: the control pieces, and
   of those that are alike all but the one with the highest score. */
static enum err
mark_hidden(bool *hidden, const struct tokenizer_piece *pieces, size_t n)
{
    struct trie_key *keys = mem_alloc(n, sizeof *keys);
    size_t n_keys = 0, best = 0;
    if (keys == NULL)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        hidden[i] = pieces[i].hidden;
        if (!hidden[i])
            keys[n_keys++] = (struct trie_key){
                pieces[i].s, (uint32_t)pieces[i].len, (uint32_t)i};
    }
    (void)trie_sort(keys, n_keys);
    for (size_t k = 1; k < n_keys; k++) {
        uint32_t i = keys[k].value, j = keys[best].value;
        if (keys[k].len != keys[best].len ||
            memcmp(keys[k].s, keys[best].s, keys[k].len) != 0) {
            best = k;
        } else if (pieces[i].score > pieces[j].score) {
            hidden[j] = true;
            best = k;
        } else {
            hidden[i] = true;
        }
    }
    mem_free(keys);
    return OK;
}

static enum err
add_pieces(struct pieces *to, const struct tokenizer_piece *pieces, size_t n,
    struct fault *fault)
{
    char at[FAULT_POINTER_MAX];
    bool *hidden = mem_alloc(n, sizeof *hidden);
    enum err err = hidden == NULL ? ERR_NOMEM : OK;
    for (size_t i = 0; i < n && err == OK; i++) {
        item_pointer(at, "", i);
        if (!isfinite(pieces[i].score) || pieces[i].len > PIECE_BYTES_MAX)
            err = fault_set(fault, ERR_INVALID, at,
                "a score that is no number, or a piece of %zu bytes",
                pieces[i].len);
    }
    if (err == OK)
        err = mark_hidden(hidden, pieces, n);
    for (size_t i = 0; i < n && err == OK; i++) {
        item_pointer(at, "", i);
        err = pieces_add(
            to, pieces[i].id, pieces[i].s, pieces[i].len, hidden[i], at, fault);
    }
    mem_free(hidden);
    return err == OK ? pieces_build(to, "", fault) : err;
}

static enum err
read_pieces(struct tokenizer *t, const struct tokenizer_piece *pieces, size_t n,
    uint32_t unknown_id, struct fault *fault)
{
    size_t len;
    if (n == 0 || n > PIECES_MAX)
        return fault_set(fault, ERR_INVALID, "",
            "%zu pieces; there must be 1 to %zu", n, PIECES_MAX);
    enum err err = add_pieces(&t->pieces, pieces, n, fault);
    if (err == OK && pieces_get(&t->pieces, unknown_id, &len) == NULL)
        err = fault_set(fault, ERR_INVALID, "",
            "no piece has the number %lu of the unknown",
            (unsigned long)unknown_id);
    if (err == OK)
        err = added_from_ids(&t->added, NULL, 0, &t->pieces);
    if (err != OK)
        return err;
    double *scores = mem_calloc(t->pieces.n, sizeof *scores);
    if (scores == NULL)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        scores[pieces[i].id] = pieces[i].score;
    t->model = TOKENIZER_UNIGRAM;
    unigram_init(&t->unigram, &t->pieces, scores, unknown_id, false);
    normalizer_add_nfkc(&t->normalizer);
    normalizer_add_replace(&t->normalizer, " ", UNIGRAM_SPACE);
    normalizer_add_prepend(&t->normalizer, UNIGRAM_SPACE);
    return OK;
}

enum err
tokenizer_from_pieces(const struct tokenizer_piece *pieces, size_t n,
    uint32_t unknown_id, struct tokenizer **out, struct fault *fault)
{
    struct tokenizer *t = tokenizer_new();
    enum err err =
        t == NULL ? ERR_NOMEM : read_pieces(t, pieces, n, unknown_id, fault);
    return finish(t, err, out);
}
