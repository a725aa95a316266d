#include "text/added.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "text/unicode.h"

/* What a set is made of; the strings of normalised tokens are copies. */
struct pattern {
    const char *s;
    size_t len;
    uint32_t token_i;
};

static enum err
make_set(struct added_set *set, const struct pattern *patterns, size_t n,
    const char *at, struct fault *fault)
{
    struct trie_key *keys = mem_alloc(n + 1, sizeof *keys);
    if (keys == NULL)
        return ERR_NOMEM;
    set->n = n;
    for (size_t i = 0; i < n; i++) {
        unsigned char lead = (unsigned char)patterns[i].s[0];
        keys[i] = (struct trie_key){
            patterns[i].s, (uint32_t)patterns[i].len, patterns[i].token_i};
        set->begins[lead] = true;
        set->only = lead;
    }
    size_t n_leads = 0;
    for (size_t i = 0; i < 256; i++)
        n_leads += set->begins[i];
    if (n_leads != 1)
        set->only = -1;
    size_t twice = trie_sort(keys, n);
    enum err err = OK;
    if (twice < n)
        err = fault_set(fault, ERR_INVALID, at,
            "the added token \"%.*s\" is there twice",
            (int)MIN(keys[twice].len, 64U), keys[twice].s);
    if (err == OK)
        err = trie_build(&set->trie, keys, n);
    mem_free(keys);
    return err;
}

static enum err
read_token(struct added_token *out, bool *normalized, const char **content,
    size_t *len, const struct json *node, const char *at, struct fault *fault)
{
    int64_t id = 0;
    *normalized = false;
    if (json_kind(node) != JSON_KIND_OBJECT)
        return fault_set(fault, ERR_INVALID, at, "not an object");
    enum err err =
        json_get_str(node, at, "content", JSON_REQUIRED, content, len, fault);
    if (err == OK)
        err = json_get_i64(node, at, "id", JSON_REQUIRED, 0,
            (int64_t)PIECES_MAX - 1, &id, fault);
    if (err == OK)
        err = json_get_bool(
            node, at, "normalized", JSON_OPTIONAL, normalized, fault);
    if (err == OK)
        err = json_get_bool(
            node, at, "single_word", JSON_OPTIONAL, &out->single_word, fault);
    if (err == OK)
        err =
            json_get_bool(node, at, "lstrip", JSON_OPTIONAL, &out->left, fault);
    if (err == OK)
        err = json_get_bool(
            node, at, "rstrip", JSON_OPTIONAL, &out->right, fault);
    out->id = (uint32_t)id;
    return err;
}

/* The token's piece: there with this number, or now added. */
static enum err
settle_piece(struct pieces *pieces, uint32_t id, const char *s, size_t len,
    const char *at, struct fault *fault)
{
    uint32_t known;
    size_t known_len;
    if (trie_find(&pieces->trie, s, len, &known)) {
        if (known == id)
            return OK;
        return fault_set(fault, ERR_INVALID, at,
            "the added token \"%.*s\" has the number %lu, the vocabulary's "
            "piece %lu",
            (int)MIN(len, (size_t)64), s, (unsigned long)id,
            (unsigned long)known);
    }
    const char *piece = pieces_get(pieces, id, &known_len);
    if (piece != NULL && known_len == len && memcmp(piece, s, len) == 0)
        return OK;
    return pieces_add(pieces, id, s, len, true, at, fault);
}

struct reading {
    struct added *added;
    struct pattern *raw, *normalized;
    size_t n_raw, n_normalized;
    struct scratch copies;
    size_t *copy_starts;
};

/* The pattern of a token that is looked for in normalised text. */
static enum err
add_normalized(struct reading *r, const char *s, size_t len,
    const struct normalizer *normalizer, struct normalizer_work *work,
    const char *at, struct fault *fault)
{
    struct normalized form;
    enum err err = normalizer_apply(normalizer, s, len, work, &form);
    if (err != OK)
        return err;
    if (form.len == 0)
        return fault_set(fault, ERR_INVALID, at,
            "nothing is left of the added token when it is normalised");
    r->copy_starts[r->n_normalized] = r->copies.len;
    scratch_add(&r->copies, form.s, form.len);
    r->normalized[r->n_normalized++] =
        (struct pattern){NULL, form.len, (uint32_t)r->added->n};
    return r->copies.err;
}

static enum err
read_list(struct reading *r, const struct json *list, struct pieces *pieces,
    const struct normalizer *normalizer, struct normalizer_work *work,
    const char *at, struct fault *fault)
{
    char item_at[FAULT_POINTER_MAX], number[24];
    enum err err = OK;
    for (size_t i = 0; i < json_count(list) && err == OK; i++) {
        bool normalized;
        const char *s;
        size_t len;
        struct added_token *token = &r->added->tokens[r->added->n];
        snprintf(number, sizeof number, "%zu", i);
        json_pointer(item_at, at, number);
        *token = (struct added_token){0};
        err = read_token(
            token, &normalized, &s, &len, json_item(list, i), item_at, fault);
        if (err == OK)
            err = settle_piece(pieces, token->id, s, len, item_at, fault);
        if (err == OK && normalized)
            err = add_normalized(r, s, len, normalizer, work, item_at, fault);
        else if (err == OK)
            r->raw[r->n_raw++] =
                (struct pattern){s, len, (uint32_t)r->added->n};
        r->added->n++;
    }
    return err;
}

enum err
added_from_json(struct added *out, const struct json *list,
    struct pieces *pieces, const struct normalizer *normalizer,
    struct normalizer_work *work, const char *at, struct fault *fault)
{
    struct added made = {0};
    struct reading r = {.added = &made};
    size_t n = list == NULL ? 0 : json_count(list);
    if (list != NULL && json_kind(list) != JSON_KIND_ARRAY)
        return fault_set(fault, ERR_INVALID, at, "not an array");
    if (n > ADDED_MAX)
        return fault_set(fault, ERR_TOO_LARGE, at,
            "%zu added tokens, more than %d", n, ADDED_MAX);
    scratch_init(&r.copies, PIECES_BYTES_MAX);
    made.tokens = mem_calloc(n + 1, sizeof *made.tokens);
    r.raw = mem_alloc(n + 1, sizeof *r.raw);
    r.normalized = mem_alloc(n + 1, sizeof *r.normalized);
    r.copy_starts = mem_alloc(n + 1, sizeof *r.copy_starts);
    enum err err = ERR_NOMEM;
    if (made.tokens != NULL && r.raw != NULL && r.normalized != NULL &&
        r.copy_starts != NULL)
        err = n == 0 ? OK
                     : read_list(&r, list, pieces, normalizer, work, at, fault);
    for (size_t i = 0; i < r.n_normalized && err == OK; i++)
        r.normalized[i].s = r.copies.data + r.copy_starts[i];
    if (err == OK)
        err = make_set(&made.raw, r.raw, r.n_raw, at, fault);
    if (err == OK)
        err =
            make_set(&made.normalized, r.normalized, r.n_normalized, at, fault);
    mem_free(r.raw);
    mem_free(r.normalized);
    mem_free(r.copy_starts);
    scratch_release(&r.copies);
    if (err == OK)
        *out = made;
    else
        added_release(&made);
    return err;
}

enum err
added_from_ids(struct added *out, const uint32_t *ids, size_t n,
    const struct pieces *pieces)
{
    struct added made = {.n = n};
    struct pattern *patterns = mem_alloc(n + 1, sizeof *patterns);
    made.tokens = mem_calloc(n + 1, sizeof *made.tokens);
    enum err err = patterns == NULL || made.tokens == NULL ? ERR_NOMEM : OK;
    for (size_t i = 0; i < n && err == OK; i++) {
        made.tokens[i].id = ids[i];
        patterns[i].s = pieces_get(pieces, ids[i], &patterns[i].len);
        patterns[i].token_i = (uint32_t)i;
        ASSERT(patterns[i].s != NULL);
    }
    if (err == OK)
        err = make_set(&made.raw, patterns, n, "", NULL);
    if (err == OK)
        err = make_set(&made.normalized, patterns, 0, "", NULL);
    mem_free(patterns);
    if (err == OK)
        *out = made;
    else
        added_release(&made);
    return err;
}

void
added_release(struct added *added)
{
    mem_free(added->tokens);
    trie_release(&added->raw.trie);
    trie_release(&added->normalized.trie);
    *added = (struct added){0};
}

/* The next place from i on where a token may begin, or len. */
static size_t
next_begin(const struct added_set *set, const char *s, size_t len, size_t i)
{
    if (set->n == 0 || i >= len)
        return len;
    if (set->only >= 0) {
        const char *at = memchr(s + i, set->only, len - i);
        return at == NULL ? len : (size_t)(at - s);
    }
    while (i < len && !set->begins[(unsigned char)s[i]])
        i++;
    return i;
}

/* The character that ends before i > 0. */
static uint32_t
char_before(const char *s, size_t i, size_t *n)
{
    *n = 1;
    while (((unsigned char)s[i - *n] & 0xC0) == 0x80)
        ++*n;
    size_t same;
    return utf8_get(s + i - *n, &same);
}

static bool
is_apart(const char *s, size_t len, size_t start, size_t end)
{
    size_t n;
    return (start == 0 || !unicode_is_word(char_before(s, start, &n))) &&
           (end == len || !unicode_is_word(utf8_get(s + end, &n)));
}

/* With the white space that the token takes along. */
static void
widen(const struct added_token *token, const char *s, size_t len, size_t done,
    size_t *start, size_t *end)
{
    size_t n;
    while (token->left && *start > done &&
           unicode_is_space(char_before(s, *start, &n)))
        *start -= n;
    while (
        token->right && *end < len && unicode_is_space(utf8_get(s + *end, &n)))
        *end += n;
}

bool
added_next(const struct added *added, const struct added_set *set,
    const char *s, size_t len, size_t *i, struct added_part *text,
    struct added_part *token)
{
    const size_t done = *i;
    uint32_t which = 0;
    if (done >= len)
        return false;
    for (size_t at = done; (at = next_begin(set, s, len, at)) < len;) {
        size_t n = trie_longest(&set->trie, s + at, len - at, &which);
        size_t start = at, end = at + n;
        if (n == 0) {
            at++;
            continue;
        }
        at = end;
        const struct added_token *found = &added->tokens[which];
        if (found->single_word && !is_apart(s, len, start, end))
            continue;
        widen(found, s, len, done, &start, &end);
        *text = (struct added_part){.s = s + done, .len = start - done};
        *token = (struct added_part){
            .s = s + start, .len = end - start, .is_token = true};
        token->id = found->id;
        *i = end;
        return true;
    }
    *text = (struct added_part){.s = s + done, .len = len - done};
    *token = (struct added_part){0};
    *i = len;
    return true;
}
