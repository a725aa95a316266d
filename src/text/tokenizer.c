#include "text/tokenizer.h"

#include <string.h>

#include "base/alloc.h"
#include "text/tokenizer_parts.h"
#include "text/unicode.h"

struct tokenizer *
tokenizer_new(void)
{
    struct tokenizer *made = mem_calloc(1, sizeof *made);
    if (made != NULL)
        pieces_init(&made->pieces);
    return made;
}

void
tokenizer_free(struct tokenizer *tokenizer)
{
    if (tokenizer == NULL)
        return;
    pieces_release(&tokenizer->pieces);
    normalizer_release(&tokenizer->normalizer);
    added_release(&tokenizer->added);
    unigram_release(&tokenizer->unigram);
    mem_free(tokenizer);
}

size_t
tokenizer_n_ids(const struct tokenizer *tokenizer)
{
    return tokenizer->pieces.n;
}

const char *
tokenizer_piece(const struct tokenizer *tokenizer, uint32_t id, size_t *len)
{
    return pieces_get(&tokenizer->pieces, id, len);
}

size_t
tokenizer_n_special(const struct tokenizer *tokenizer)
{
    return tokenizer->before.n + tokenizer->behind.n;
}

struct tokenizer_workspace *
tokenizer_workspace_new(void)
{
    struct tokenizer_workspace *made = mem_calloc(1, sizeof *made);
    if (made == NULL)
        return NULL;
    /* A broken byte becomes three. */
    scratch_init(&made->repaired, 3 * TOKENIZER_TEXT_BYTES_MAX);
    scratch_init(&made->pretokens, 3 * TOKENIZER_NORMALIZED_BYTES_MAX);
    normalizer_work_init(&made->normalizer, TOKENIZER_NORMALIZED_BYTES_MAX);
    unigram_work_init(&made->unigram, 3 * TOKENIZER_NORMALIZED_BYTES_MAX);
    return made;
}

void
tokenizer_workspace_free(struct tokenizer_workspace *workspace)
{
    if (workspace == NULL)
        return;
    scratch_release(&workspace->repaired);
    scratch_release(&workspace->pretokens);
    normalizer_work_release(&workspace->normalizer);
    unigram_work_release(&workspace->unigram);
    mem_free(workspace);
}

/* A text on its way through a tokenizer. */
struct run {
    const struct tokenizer *tokenizer;
    struct tokenizer_workspace *workspace;
    struct piece_sink sink;
    enum err err;
};

static void
take_pretoken(void *arg, const char *s, size_t len)
{
    struct run *run = arg;
    const struct tokenizer *t = run->tokenizer;
    if (t->model == TOKENIZER_WORDPIECE) {
        wordpiece_encode(&t->wordpiece, &t->pieces, s, len, &run->sink);
        return;
    }
    enum err err = unigram_encode(
        &t->unigram, &t->pieces, s, len, &run->workspace->unigram, &run->sink);
    if (run->err == OK)
        run->err = err;
}

/* Text in which no added token is left. */
static void
run_plain(struct run *run, const char *s, size_t len, bool first)
{
    struct scratch *scratch = &run->workspace->pretokens;
    scratch_clear(scratch);
    pretokenizer_split(&run->tokenizer->pretokenizer, s, len, first, scratch,
        take_pretoken, run);
    if (run->err == OK)
        run->err = scratch->err;
}

/* Text between the added tokens that are looked for before normalisation. */
static void
run_text(struct run *run, const char *s, size_t len, bool first)
{
    const struct added *added = &run->tokenizer->added;
    struct normalized form;
    struct added_part text, token;
    size_t i = 0;
    run->err = normalizer_apply(&run->tokenizer->normalizer, s, len,
        &run->workspace->normalizer, &form);
    if (run->err != OK)
        return;
    first = first && !form.lead_dropped;
    while (run->err == OK && added_next(added, &added->normalized, form.s,
                                 form.len, &i, &text, &token)) {
        run_plain(run, text.s, text.len, first && text.s == form.s);
        if (token.is_token)
            piece_sink_put(&run->sink, token.id);
    }
}

static enum err
run_whole(struct run *run, const char *s, size_t len)
{
    const struct added *added = &run->tokenizer->added;
    struct added_part text, token;
    size_t i = 0;
    while (run->err == OK &&
           added_next(added, &added->raw, s, len, &i, &text, &token)) {
        if (text.len > 0)
            run_text(run, text.s, text.len, text.s == s);
        if (token.is_token)
            piece_sink_put(&run->sink, token.id);
    }
    return run->err;
}

enum err
tokenizer_encode(const struct tokenizer *tokenizer, const char *text,
    size_t len, size_t max_tokens, struct tokenizer_workspace *workspace,
    uint32_t *ids, size_t *n, size_t *n_full)
{
    const struct tokenizer_specials *before = &tokenizer->before;
    const struct tokenizer_specials *behind = &tokenizer->behind;
    ASSERT(max_tokens >= before->n + behind->n);
    if (len > TOKENIZER_TEXT_BYTES_MAX)
        return ERR_TOO_LARGE;
    if (utf8_valid_prefix(text, len) < len) {
        scratch_clear(&workspace->repaired);
        utf8_repair(&workspace->repaired, text, len);
        if (workspace->repaired.err != OK)
            return workspace->repaired.err;
        text = workspace->repaired.data;
        len = workspace->repaired.len;
    }
    struct run run = {.tokenizer = tokenizer,
        .workspace = workspace,
        .sink = {ids + before->n, max_tokens - before->n - behind->n, 0}};
    enum err err = run_whole(&run, text, len);
    if (err != OK)
        return err;
    size_t kept = MIN(run.sink.n, run.sink.cap);
    memcpy(ids, before->ids, before->n * sizeof *ids);
    memcpy(ids + before->n + kept, behind->ids, behind->n * sizeof *ids);
    *n = before->n + kept + behind->n;
    *n_full = before->n + run.sink.n + behind->n;
    return OK;
}
