#include "text/normalizer.h"

#include <string.h>
#include <utf8proc.h>

#include "text/steps.h"
#include "text/unicode.h"

/* One character gives at most this many (U+FDFA in NFKD). */
#define DECOMPOSED_MAX 18
/* Longer runs of marks are sorted by counting. */
#define MARKS_BY_INSERTION 32

/* ---- runs of code points -------------------------------------------------
   The code points of a run lie in work->points as int32. */

static size_t
n_points(const struct normalizer_work *work)
{
    return work->points.len / sizeof(utf8proc_int32_t);
}

static utf8proc_int32_t *
points_of(struct normalizer_work *work)
{
    /* mem_realloc aligns for every type. */
    return (utf8proc_int32_t *)(void *)work->points.data;
}

static void
add_decomposed(struct normalizer_work *work, uint32_t c, bool compatible)
{
    utf8proc_option_t options =
        compatible ? UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT : UTF8PROC_DECOMPOSE;
    int boundary = UTF8PROC_BOUNDCLASS_START;
    if (!scratch_room(&work->points, DECOMPOSED_MAX * sizeof(utf8proc_int32_t)))
        return;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c,
        points_of(work) + n_points(work), DECOMPOSED_MAX, options, &boundary);
    ASSERT(n >= 0 && n <= DECOMPOSED_MAX);
    work->points.len += (size_t)n * sizeof(utf8proc_int32_t);
}

static unsigned
mark_class(utf8proc_int32_t c)
{
    return (unsigned)utf8proc_get_property(c)->combining_class & 0xFF;
}

static void
sort_by_insertion(utf8proc_int32_t *c, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        utf8proc_int32_t moving = c[i];
        unsigned own = mark_class(moving);
        size_t j = i;
        for (; j > 0 && mark_class(c[j - 1]) > own; j--)
            c[j] = c[j - 1];
        c[j] = moving;
    }
}

/* Stable, by counting the classes; the copy lies behind the points. */
static void
sort_by_counting(struct normalizer_work *work, size_t first, size_t n)
{
    size_t starts[256] = {0}, sum = 0;
    if (!scratch_room(&work->points, n * sizeof(utf8proc_int32_t)))
        return;
    utf8proc_int32_t *c = points_of(work) + first;
    utf8proc_int32_t *copy = points_of(work) + n_points(work);
    memcpy(copy, c, n * sizeof *c);
    for (size_t i = 0; i < n; i++)
        starts[mark_class(copy[i])]++;
    for (size_t i = 0; i < 256; i++) {
        size_t count = starts[i];
        starts[i] = sum;
        sum += count;
    }
    for (size_t i = 0; i < n; i++)
        c[starts[mark_class(copy[i])]++] = copy[i];
}

/* The canonical order of the run's marks. */
static void
order_marks(struct normalizer_work *work)
{
    size_t n = n_points(work);
    for (size_t i = 0; i < n; i++) {
        size_t first = i;
        while (i < n && mark_class(points_of(work)[i]) != 0)
            i++;
        if (i - first > MARKS_BY_INSERTION)
            sort_by_counting(work, first, i - first);
        else if (i - first > 1)
            sort_by_insertion(points_of(work) + first, i - first);
    }
}

/* ---- steps --------------------------------------------------------------- */

static void
add_lower(struct scratch *out, uint32_t c)
{
    uint32_t lower[2];
    size_t n = unicode_lower(lower, c);
    for (size_t i = 0; i < n; i++)
        utf8_add(out, lower[i]);
}

/* What cleaning makes of c: itself, a space, or 0 for nothing. */
static uint32_t
cleaned(uint32_t c)
{
    if (c == 0 || c == UNICODE_REPLACEMENT || unicode_is_control(c))
        return 0;
    return unicode_is_space(c) ? ' ' : c;
}

static void
make_bert_table(struct normalizer_step *step)
{
    for (unsigned c = 0; c < 128; c++) {
        uint32_t to = step->clean_text ? cleaned(c) : c;
        uint32_t lower[2] = {to, 0};
        if (step->lowercase)
            (void)unicode_lower(lower, to);
        step->ascii[c] = (char)lower[0];
    }
}

static void
add_bert_point(
    const struct normalizer_step *step, struct scratch *out, uint32_t c)
{
    if (step->strip_accents && unicode_is_nonspacing_mark(c))
        return;
    if (step->lowercase)
        add_lower(out, c);
    else
        utf8_add(out, c);
}

/* One character of a run beyond ASCII, cleaned, into the points. */
static void
take_bert_char(const struct normalizer_step *step, struct normalizer_work *work,
    uint32_t c)
{
    if (step->clean_text)
        c = cleaned(c);
    if (c == 0 && step->clean_text)
        return;
    bool apart = step->ideographs && unicode_is_ideograph(c);
    if (apart)
        add_decomposed(work, ' ', false);
    if (step->strip_accents) {
        add_decomposed(work, c, false);
    } else if (scratch_room(&work->points, sizeof(utf8proc_int32_t))) {
        points_of(work)[n_points(work)] = (utf8proc_int32_t)c;
        work->points.len += sizeof(utf8proc_int32_t);
    }
    if (apart)
        add_decomposed(work, ' ', false);
}

/* From a character beyond ASCII to the next one of ASCII that stays: marks
   of the run may change places, with nothing but dropped ones between. */
static size_t
bert_run(const struct normalizer_step *step, const char *s, size_t len,
    struct scratch *out, struct normalizer_work *work)
{
    size_t i = 0;
    scratch_clear(&work->points);
    while (i < len) {
        size_t n = 1;
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x80)
            take_bert_char(step, work, utf8_get(s + i, &n));
        else if (step->ascii[c] != 0 || !step->clean_text)
            break;
        i += n;
    }
    if (step->strip_accents)
        order_marks(work);
    for (size_t j = 0; j < n_points(work); j++)
        add_bert_point(step, out, (uint32_t)points_of(work)[j]);
    return i;
}

static void
apply_bert(const struct normalizer_step *step, const char *s, size_t len,
    struct scratch *out, struct normalizer_work *work)
{
    size_t i = 0;
    while (i < len) {
        if (!scratch_room(out, len - i))
            return;
        char *to = out->data + out->len;
        if (step->clean_text) {
            for (; i < len && (unsigned char)s[i] < 0x80; i++) {
                char c = step->ascii[(unsigned char)s[i]];
                *to = c;
                to += c != 0;
            }
        } else {
            for (; i < len && (unsigned char)s[i] < 0x80; i++)
                *to++ = step->ascii[(unsigned char)s[i]];
        }
        out->len = (size_t)(to - out->data);
        if (i < len)
            i += bert_run(step, s + i, len - i, out, work);
    }
}

/* A run is a character of ASCII and all behind it that are not: nothing
   composes, or changes places, over the beginning of another one. */
static void
apply_form(const struct normalizer_step *step, const char *s, size_t len,
    struct scratch *out, struct normalizer_work *work)
{
    size_t i = 0;
    while (i < len) {
        size_t plain = utf8_ascii_prefix(s + i, len - i);
        if (plain > 0 && i + plain < len)
            plain--;
        scratch_add(out, s + i, plain);
        i += plain;
        if (i == len)
            break;
        scratch_clear(&work->points);
        size_t n, start = i;
        while (i < len && (i == start || (unsigned char)s[i] >= 0x80)) {
            add_decomposed(work, utf8_get(s + i, &n), step->compatible);
            i += n;
        }
        order_marks(work);
        utf8proc_ssize_t made = (utf8proc_ssize_t)n_points(work);
        if (step->compose)
            made = utf8proc_normalize_utf32(
                points_of(work), made, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
        ASSERT(made >= 0);
        for (size_t j = 0; j < (size_t)made; j++)
            utf8_add(out, (uint32_t)points_of(work)[j]);
    }
}

/* SentencePiece's rules from neural machine translation: what is a space, and
   what is nothing. */
static bool
nmt_is_space(uint32_t c)
{
    return c == '\t' || c == '\n' || c == '\f' || c == '\r' || c == 0x1680 ||
           (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 ||
           c == 0x2581 || c == 0xFEFF || c == UNICODE_REPLACEMENT;
}

static bool
nmt_drops(uint32_t c)
{
    return (c > 0 && c < ' ' && !nmt_is_space(c)) || c == 0x7F || c == 0x8F ||
           c == 0x9F;
}

static void
apply_by_character(const struct normalizer_step *step, const char *s,
    size_t len, struct scratch *out)
{
    size_t n;
    for (size_t i = 0; i < len; i += n) {
        uint32_t c = utf8_get(s + i, &n);
        if (step->kind == NORMALIZER_LOWERCASE) {
            add_lower(out, c);
        } else if (step->kind == NORMALIZER_STRIP_ACCENTS) {
            if (!unicode_is_mark(c))
                scratch_add(out, s + i, n);
        } else if (!nmt_drops(c)) {
            utf8_add(out, nmt_is_space(c) ? ' ' : c);
        }
    }
}

/* The first byte behind the white space at the beginning of s. */
static size_t
leading_space(const char *s, size_t len)
{
    size_t i = 0, n;
    while (i < len && unicode_is_space(utf8_get(s + i, &n)))
        i += n;
    return i;
}

/* The length of s without the white space at its end. */
static size_t
without_trailing_space(const char *s, size_t len)
{
    while (len > 0) {
        size_t n, i = len - 1;
        while (i > 0 && ((unsigned char)s[i] & 0xC0) == 0x80)
            i--;
        if (!unicode_is_space(utf8_get(s + i, &n)))
            break;
        len = i;
    }
    return len;
}

static void
apply_strip(const struct normalizer_step *step, const char *s, size_t len,
    struct scratch *out)
{
    size_t end = step->right ? without_trailing_space(s, len) : len;
    size_t start = step->left ? leading_space(s, end) : 0;
    scratch_add(out, s + start, end - start);
}

/* How many bytes at s the pattern takes, 0 where it does not fit. */
static size_t
match_len(const struct normalizer_step *step, const char *s, size_t len)
{
    if (step->run_min == 0)
        return len >= step->pattern.len &&
                       memcmp(s, step->pattern.bytes, step->pattern.len) == 0
                   ? step->pattern.len
                   : 0;
    size_t n = 0;
    while (n < len && s[n] == step->pattern.bytes[0])
        n++;
    return n >= step->run_min ? n : 0;
}

/* Matches are short and many: the text between them is copied by bytes. */
static void
apply_replace(const struct normalizer_step *step, const char *s, size_t len,
    struct scratch *out)
{
    const char first = step->pattern.bytes[0];
    size_t i = 0;
    while (i < len && scratch_room(out, len - i + step->content.len)) {
        char *to = out->data + out->len;
        while (i < len && s[i] != first)
            *to++ = s[i++];
        out->len = (size_t)(to - out->data);
        if (i == len)
            break;
        size_t n = match_len(step, s + i, len - i);
        if (n > 0)
            scratch_add(out, step->content.bytes, step->content.len);
        else
            scratch_add(out, s + i, n = 1);
        i += n;
    }
}

static void
apply_step(const struct normalizer_step *step, const char *s, size_t len,
    struct scratch *out, struct normalizer_work *work)
{
    switch (step->kind) {
    case NORMALIZER_BERT:
        apply_bert(step, s, len, out, work);
        break;
    case NORMALIZER_FORM:
        apply_form(step, s, len, out, work);
        break;
    case NORMALIZER_NMT:
    case NORMALIZER_LOWERCASE:
    case NORMALIZER_STRIP_ACCENTS:
        apply_by_character(step, s, len, out);
        break;
    case NORMALIZER_STRIP:
        apply_strip(step, s, len, out);
        break;
    case NORMALIZER_PREPEND:
        scratch_add(out, step->content.bytes, len > 0 ? step->content.len : 0);
        scratch_add(out, s, len);
        break;
    case NORMALIZER_REPLACE:
        apply_replace(step, s, len, out);
        break;
    case NORMALIZER_PRECOMPILED:
        charsmap_apply(&step->map, out, s, len);
        break;
    }
}

/* Whether the step takes the first character of s away. */
static bool
drops_lead(const struct normalizer_step *step, const char *s, size_t len)
{
    size_t n;
    if (len == 0)
        return false;
    uint32_t c = utf8_get(s, &n);
    switch (step->kind) {
    case NORMALIZER_BERT:
        return (step->clean_text && cleaned(c) == 0) ||
               (step->strip_accents && unicode_is_nonspacing_mark(c));
    case NORMALIZER_NMT:
        return nmt_drops(c);
    case NORMALIZER_STRIP_ACCENTS:
        return unicode_is_mark(c);
    case NORMALIZER_STRIP:
        return step->left && unicode_is_space(c);
    default:
        return false;
    }
}

void
normalizer_work_init(struct normalizer_work *work, size_t max_bytes)
{
    scratch_init(&work->text[0], max_bytes);
    scratch_init(&work->text[1], max_bytes);
    scratch_init(&work->points, 8 * max_bytes);
}

void
normalizer_work_release(struct normalizer_work *work)
{
    scratch_release(&work->text[0]);
    scratch_release(&work->text[1]);
    scratch_release(&work->points);
}

enum err
normalizer_apply(const struct normalizer *normalizer, const char *s, size_t len,
    struct normalizer_work *work, struct normalized *out)
{
    struct normalized now = {s, len, false};
    for (size_t i = 0; i < normalizer->n_steps; i++) {
        const struct normalizer_step *step = &normalizer->steps[i];
        struct scratch *to = &work->text[i & 1];
        scratch_clear(to);
        scratch_clear(&work->points);
        now.lead_dropped |= drops_lead(step, now.s, now.len);
        apply_step(step, now.s, now.len, to, work);
        if (to->err != OK)
            return to->err;
        if (work->points.err != OK)
            return work->points.err;
        now.s = to->len == 0 ? "" : to->data;
        now.len = to->len;
    }
    *out = now;
    return OK;
}

void
normalizer_release(struct normalizer *normalizer)
{
    for (size_t i = 0; i < normalizer->n_steps; i++)
        charsmap_release(&normalizer->steps[i].map);
    normalizer->n_steps = 0;
}

/* ---- from a file --------------------------------------------------------- */

static struct normalizer_step *
add_step(struct normalizer *normalizer, enum normalizer_kind kind)
{
    ASSERT(normalizer->n_steps < NORMALIZER_STEPS_MAX);
    struct normalizer_step *step = &normalizer->steps[normalizer->n_steps++];
    *step = (struct normalizer_step){.kind = kind};
    return step;
}

static void
set_string(struct normalizer_string *to, const char *from)
{
    to->len = strlen(from);
    ASSERT(to->len <= NORMALIZER_STRING_MAX);
    memcpy(to->bytes, from, to->len);
}

void
normalizer_add_bert(struct normalizer *normalizer, bool lowercase)
{
    struct normalizer_step *step = add_step(normalizer, NORMALIZER_BERT);
    step->clean_text = step->ideographs = true;
    step->strip_accents = step->lowercase = lowercase;
    make_bert_table(step);
}

void
normalizer_add_nfkc(struct normalizer *normalizer)
{
    struct normalizer_step *step = add_step(normalizer, NORMALIZER_FORM);
    step->compatible = step->compose = true;
}

void
normalizer_add_replace(
    struct normalizer *normalizer, const char *pattern, const char *content)
{
    struct normalizer_step *step = add_step(normalizer, NORMALIZER_REPLACE);
    set_string(&step->pattern, pattern);
    set_string(&step->content, content);
}

void
normalizer_add_prepend(struct normalizer *normalizer, const char *content)
{
    set_string(&add_step(normalizer, NORMALIZER_PREPEND)->content, content);
}

static enum err
read_string(struct normalizer_string *to, const struct json *node,
    const char *at, const char *key, struct fault *fault)
{
    const char *s;
    size_t len;
    enum err err = json_get_str(node, at, key, JSON_REQUIRED, &s, &len, fault);
    if (err != OK)
        return err;
    if (len > NORMALIZER_STRING_MAX)
        return fault_set(fault, ERR_TOO_LARGE, at,
            "\"%s\" has %zu bytes, more than %d", key, len,
            NORMALIZER_STRING_MAX);
    memcpy(to->bytes, s, len);
    to->len = len;
    return OK;
}

static enum err
read_bert(struct normalizer_step *step, const struct json *node, const char *at,
    struct fault *fault)
{
    step->clean_text = step->ideographs = step->lowercase = true;
    const struct json *accents = json_find(node, "strip_accents");
    enum err err = json_get_bool(
        node, at, "clean_text", JSON_OPTIONAL, &step->clean_text, fault);
    if (err == OK)
        err = json_get_bool(node, at, "handle_chinese_chars", JSON_OPTIONAL,
            &step->ideographs, fault);
    if (err == OK)
        err = json_get_bool(
            node, at, "lowercase", JSON_OPTIONAL, &step->lowercase, fault);
    step->strip_accents = step->lowercase;
    if (err == OK && accents != NULL && json_kind(accents) != JSON_KIND_NULL)
        err = json_get_bool(node, at, "strip_accents", JSON_REQUIRED,
            &step->strip_accents, fault);
    make_bert_table(step);
    return err;
}

/* A regular expression without an operator is a string, and " {2,}" is what
   published files have beside such. */
static enum err
read_regex(struct normalizer_step *step, const struct json *pattern,
    const char *at, struct fault *fault)
{
    enum err err = read_string(&step->pattern, pattern, at, "Regex", fault);
    if (err != OK)
        return err;
    const char *s = step->pattern.bytes;
    size_t len = step->pattern.len;
    if (len == 5 && memcmp(s, " {2,}", 5) == 0) {
        step->run_min = 2;
        step->pattern.len = 1;
        return OK;
    }
    for (size_t i = 0; i < len; i++) {
        if (strchr("\\^$.|?*+()[]{}", s[i]) != NULL)
            return fault_set(fault, ERR_UNSUPPORTED, at,
                "the regular expression \"%.*s\" of a Replace", (int)len, s);
    }
    return OK;
}

static enum err
read_replace(struct normalizer_step *step, const struct json *node,
    const char *at, struct fault *fault)
{
    const struct json *pattern;
    char pattern_at[FAULT_POINTER_MAX];
    json_pointer(pattern_at, at, "pattern");
    enum err err =
        json_get_object(node, at, "pattern", JSON_REQUIRED, &pattern, fault);
    if (err == OK)
        err = read_string(&step->content, node, at, "content", fault);
    if (err == OK && json_find(pattern, "Regex") != NULL)
        err = read_regex(step, pattern, pattern_at, fault);
    else if (err == OK)
        err = read_string(&step->pattern, pattern, pattern_at, "String", fault);
    if (err == OK && step->pattern.len == 0)
        err = fault_set(fault, ERR_INVALID, pattern_at, "an empty pattern");
    return err;
}

static enum err
read_step(struct normalizer_step *step, const char *type,
    const struct json *node, const char *at, struct fault *fault)
{
    static const struct {
        const char *type;
        enum normalizer_kind kind;
        bool compatible, compose;
    } kinds[] = {
        {"BertNormalizer", NORMALIZER_BERT, false, false},
        {"NFC", NORMALIZER_FORM, false, true},
        {"NFD", NORMALIZER_FORM, false, false},
        {"NFKC", NORMALIZER_FORM, true, true},
        {"NFKD", NORMALIZER_FORM, true, false},
        {"Nmt", NORMALIZER_NMT, false, false},
        {"Lowercase", NORMALIZER_LOWERCASE, false, false},
        {"StripAccents", NORMALIZER_STRIP_ACCENTS, false, false},
        {"Strip", NORMALIZER_STRIP, false, false},
        {"Prepend", NORMALIZER_PREPEND, false, false},
        {"Replace", NORMALIZER_REPLACE, false, false},
        {"Precompiled", NORMALIZER_PRECOMPILED, false, false},
    };
    const char *map;
    size_t i = 0, len;
    while (i < ARRAY_LEN(kinds) && strcmp(kinds[i].type, type) != 0)
        i++;
    if (i == ARRAY_LEN(kinds))
        return fault_set(
            fault, ERR_UNSUPPORTED, at, "the normalizer \"%.64s\"", type);
    *step = (struct normalizer_step){.kind = kinds[i].kind,
        .compatible = kinds[i].compatible,
        .compose = kinds[i].compose,
        .left = true,
        .right = true};
    enum err err = OK;
    switch (step->kind) {
    case NORMALIZER_BERT:
        return read_bert(step, node, at, fault);
    case NORMALIZER_STRIP:
        err = json_get_bool(
            node, at, "strip_left", JSON_OPTIONAL, &step->left, fault);
        return err != OK ? err
                         : json_get_bool(node, at, "strip_right", JSON_OPTIONAL,
                               &step->right, fault);
    case NORMALIZER_PREPEND:
        return read_string(&step->content, node, at, "prepend", fault);
    case NORMALIZER_REPLACE:
        return read_replace(step, node, at, fault);
    case NORMALIZER_PRECOMPILED:
        err = json_get_str(
            node, at, "precompiled_charsmap", JSON_REQUIRED, &map, &len, fault);
        return err != OK ? err : charsmap_init(&step->map, map, len, at, fault);
    default:
        return OK;
    }
}

static enum err
take_step(void *arg, const char *type, const struct json *node, const char *at,
    struct fault *fault)
{
    struct normalizer *out = arg;
    if (out->n_steps == NORMALIZER_STEPS_MAX)
        return fault_set(fault, ERR_TOO_LARGE, at, "more than %d normalizers",
            NORMALIZER_STEPS_MAX);
    enum err err = read_step(&out->steps[out->n_steps], type, node, at, fault);
    out->n_steps += err == OK;
    return err;
}

enum err
normalizer_from_json(struct normalizer *out, const struct json *node,
    const char *at, struct fault *fault)
{
    struct normalizer made = {0};
    enum err err = steps_read(node, at, "normalizers", take_step, &made, fault);
    if (err == OK)
        *out = made;
    else
        normalizer_release(&made);
    return err;
}
