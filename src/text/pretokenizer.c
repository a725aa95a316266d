#include "text/pretokenizer.h"

#include <stdint.h>
#include <string.h>

#include "text/steps.h"
#include "text/unicode.h"

enum class { LETTER, SPACE, PUNCTUATION };

/* The characters of ASCII: 1 space, 2 punctuation. */
static const unsigned char ascii_class[128] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, /* 0 */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* 16 */
    1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, /* space */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, /* digits */
    2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* @ */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, /* P */
    2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* ` */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 0, /* p */
};

/* Where the parts of a step go: the next step, or the caller. */
struct chain {
    const struct pretokenizer *pretokenizer;
    size_t step_i;
    struct scratch *scratch;
    pretoken_fn *fn;
    void *arg;
};

static void run_step(
    const struct chain *chain, const char *s, size_t len, bool first);

static void
put(const struct chain *chain, const char *s, size_t len, bool first)
{
    struct chain next = *chain;
    next.step_i++;
    if (next.step_i == next.pretokenizer->n_steps)
        next.fn(next.arg, s, len);
    else
        run_step(&next, s, len, first);
}

static enum class class_at(const char *s, size_t *n) {
    unsigned char c = (unsigned char)s[0];
    if (c < 0x80){ *n = 1; return (enum class)ascii_class[c];}
uint32_t point = utf8_get(s, n);
if (unicode_is_space(point))
    return SPACE;
return unicode_is_punctuation(point) ? PUNCTUATION : LETTER;
}

/* Words between white space; punctuation alone if it is isolated. */
static void
split_words(const struct chain *chain, const char *s, size_t len, bool first,
    bool isolate)
{
    size_t start = 0, i = 0, n;
    while (i < len) {
        enum class k = class_at(s + i, &n);
        if (k == LETTER || (k == PUNCTUATION && !isolate)) {
            i += n;
            continue;
        }
        if (i > start)
            put(chain, s + start, i - start, first && start == 0);
        if (k == PUNCTUATION)
            put(chain, s + i, n, first && i == 0);
        i += n;
        start = i;
    }
    if (i > start)
        put(chain, s + start, i - start, first && start == 0);
}

/* The same as the last step, for speed without a chain. */
static void
split_bert(const char *s, size_t len, pretoken_fn *fn, void *arg)
{
    size_t start = 0, i = 0, n;
    while (i < len) {
        enum class k = class_at(s + i, &n);
        if (k != LETTER) {
            if (i > start)
                fn(arg, s + start, i - start);
            if (k == PUNCTUATION)
                fn(arg, s + i, n);
            start = i + n;
        }
        i += n;
    }
    if (i > start)
        fn(arg, s + start, i - start);
}

static bool
is_mark(const struct pretokenizer_step *step, const char *s, size_t len)
{
    return len >= step->mark_len && memcmp(s, step->mark, step->mark_len) == 0;
}

/* Parts begin at the marks. */
static void
split_at_marks(const struct chain *chain, const struct pretokenizer_step *step,
    const char *s, size_t len, bool first)
{
    size_t start = 0, i = 0;
    while (i < len) {
        if (i > start && is_mark(step, s + i, len - i)) {
            put(chain, s + start, i - start, first && start == 0);
            start = i;
        }
        i += utf8_len((unsigned char)s[i]);
    }
    put(chain, s + start, len - start, first && start == 0);
}

static void
add_with_marks(const struct pretokenizer_step *step, struct scratch *out,
    const char *s, size_t len)
{
    size_t i = 0;
    while (i < len && scratch_room(out, len - i + step->mark_len)) {
        char *to = out->data + out->len;
        while (i < len && s[i] != ' ')
            *to++ = s[i++];
        out->len = (size_t)(to - out->data);
        if (i < len) {
            scratch_add(out, step->mark, step->mark_len);
            i++;
        }
    }
}

static void
metaspace(const struct chain *chain, const struct pretokenizer_step *step,
    const char *s, size_t len, bool first)
{
    struct scratch *copy = chain->scratch;
    copy->len = 0;
    if ((step->prepend == PRETOKENIZER_ALWAYS ||
            (step->prepend == PRETOKENIZER_FIRST && first)) &&
        s[0] != ' ' && !is_mark(step, s, len))
        scratch_add(copy, step->mark, step->mark_len);
    add_with_marks(step, copy, s, len);
    if (copy->err != OK)
        return;
    if (step->split)
        split_at_marks(chain, step, copy->data, copy->len, first);
    else
        put(chain, copy->data, copy->len, first);
}

static void
run_step(const struct chain *chain, const char *s, size_t len, bool first)
{
    const struct pretokenizer_step *step =
        &chain->pretokenizer->steps[chain->step_i];
    bool last = chain->step_i + 1 == chain->pretokenizer->n_steps;
    switch (step->kind) {
    case PRETOKENIZER_WHITESPACE:
        split_words(chain, s, len, first, false);
        break;
    case PRETOKENIZER_BERT:
        if (last)
            split_bert(s, len, chain->fn, chain->arg);
        else
            split_words(chain, s, len, first, true);
        break;
    case PRETOKENIZER_METASPACE:
        metaspace(chain, step, s, len, first);
        break;
    }
}

void
pretokenizer_split(const struct pretokenizer *pretokenizer, const char *s,
    size_t len, bool first, struct scratch *scratch, pretoken_fn *fn, void *arg)
{
    struct chain chain = {pretokenizer, 0, scratch, fn, arg};
    if (len == 0)
        return;
    if (pretokenizer->n_steps == 0)
        fn(arg, s, len);
    else
        run_step(&chain, s, len, first);
}

void
pretokenizer_bert(struct pretokenizer *out)
{
    *out = (struct pretokenizer){
        .steps = {{.kind = PRETOKENIZER_BERT}}, .n_steps = 1};
}

/* ---- from a file --------------------------------------------------------- */

static enum err
read_prepend(struct pretokenizer_step *step, const struct json *node,
    const char *at, struct fault *fault)
{
    static const char *const names[] = {"always", "first", "never"};
    const char *scheme = names[PRETOKENIZER_ALWAYS];
    bool prefix = true;
    const struct json *old = json_find(node, "add_prefix_space");
    enum err err = json_get_str(
        node, at, "prepend_scheme", JSON_OPTIONAL, &scheme, NULL, fault);
    if (err == OK && old != NULL && json_kind(old) != JSON_KIND_NULL)
        err = json_get_bool(
            node, at, "add_prefix_space", JSON_REQUIRED, &prefix, fault);
    if (err != OK)
        return err;
    size_t i = 0;
    while (i < ARRAY_LEN(names) && strcmp(names[i], scheme) != 0)
        i++;
    if (i == ARRAY_LEN(names))
        return fault_set(fault, ERR_INVALID, at,
            "the prepend_scheme \"%.32s\" is none of always, first, never",
            scheme);
    step->prepend = prefix ? (enum pretokenizer_prepend)i : PRETOKENIZER_NEVER;
    return OK;
}

static enum err
read_metaspace(struct pretokenizer_step *step, const struct json *node,
    const char *at, struct fault *fault)
{
    const char *mark;
    size_t len;
    const struct json *split = json_find(node, "split");
    enum err err = json_get_str(
        node, at, "replacement", JSON_REQUIRED, &mark, &len, fault);
    if (err != OK)
        return err;
    if (len == 0 || len != utf8_len((unsigned char)mark[0]))
        return fault_set(
            fault, ERR_INVALID, at, "the replacement is not one character");
    memcpy(step->mark, mark, len);
    step->mark_len = len;
    step->split = true;
    if (split != NULL && json_kind(split) != JSON_KIND_NULL)
        err = json_get_bool(
            node, at, "split", JSON_REQUIRED, &step->split, fault);
    return err == OK ? read_prepend(step, node, at, fault) : err;
}

static enum err
take_step(void *arg, const char *type, const struct json *node, const char *at,
    struct fault *fault)
{
    struct pretokenizer *out = arg;
    if (out->n_steps == PRETOKENIZER_STEPS_MAX)
        return fault_set(fault, ERR_TOO_LARGE, at,
            "more than %d pre-tokenizers", PRETOKENIZER_STEPS_MAX);
    struct pretokenizer_step *step = &out->steps[out->n_steps];
    *step = (struct pretokenizer_step){0};
    enum err err = OK;
    if (strcmp(type, "WhitespaceSplit") == 0) {
        step->kind = PRETOKENIZER_WHITESPACE;
    } else if (strcmp(type, "BertPreTokenizer") == 0) {
        step->kind = PRETOKENIZER_BERT;
    } else if (strcmp(type, "Metaspace") == 0) {
        step->kind = PRETOKENIZER_METASPACE;
        for (size_t i = 0; i < out->n_steps; i++) {
            if (out->steps[i].kind == PRETOKENIZER_METASPACE)
                return fault_set(
                    fault, ERR_UNSUPPORTED, at, "a second Metaspace");
        }
        err = read_metaspace(step, node, at, fault);
    } else {
        err = fault_set(
            fault, ERR_UNSUPPORTED, at, "the pre-tokenizer \"%.64s\"", type);
    }
    out->n_steps += err == OK;
    return err;
}

enum err
pretokenizer_from_json(struct pretokenizer *out, const struct json *node,
    const char *at, struct fault *fault)
{
    struct pretokenizer made = {0};
    enum err err =
        steps_read(node, at, "pretokenizers", take_step, &made, fault);
    if (err == OK)
        *out = made;
    return err;
}
