#include "engine/settings.h"

#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "engine/learn.h"
#include "base/json.h"
#include "engine/document.h"

#define DESCRIPTION_BYTES_MAX 4096
#define POLICY_MAX INT64_C(1000000000)

static const char *const all_keys[] = {"encoder", "family", "dims", "template",
    "encoder_config", "images", "description", "train"};
static const char *const train_keys[] = {"every_pairs", "every_seconds",
    "min_pairs", "min_groups", "budget_seconds", "options"};

/* What a collection may set of an imported encoder's settings. */
static const char *const own_keys[] = {
    "compute", "max_tokens", "query_prefix", "item_prefix"};

static const struct family {
    const char *name;
    enum settings_reads reads;
    bool imported; /* no encoder of it but by import */
} families[] = {{"static", SETTINGS_READS_TEXT, false},
    {"vision", SETTINGS_READS_IMAGE, false},
    {SETTINGS_EXTERNAL, SETTINGS_READS_NOTHING, false},
    {"transformer", SETTINGS_READS_TEXT, true}};

const char *const settings_reads_names[3] = {"text", "image", "nothing"};

static const struct family *
find_family(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        if (strcmp(families[i].name, name) == 0) {
            return &families[i];
        }
    }
    return NULL;
}

enum settings_reads
settings_family_reads(const char *family)
{
    const struct family *f = find_family(family);
    return f ? f->reads : SETTINGS_READS_NOTHING;
}

bool
settings_is_family(const char *name)
{
    return find_family(name) != NULL;
}

enum settings_reads
settings_reads(const struct settings_fixed *fixed)
{
    return settings_family_reads(fixed->family);
}

bool
settings_is_imported(const struct settings_fixed *fixed)
{
    return strcmp(fixed->encoder, fixed->family) != 0;
}

/* The family of the encoder of this name, and what is known of it when it is
   imported. */
static enum err
find_encoder(const char *name, const struct settings_fixed *base,
    const struct settings_finder *finder, const char **family,
    struct settings_imported *imported, struct fault *fault)
{
    const struct family *own = find_family(name);
    if (own && own->imported) {
        return fault_set(fault, ERR_INVALID, "/encoder",
            "a %s is imported first, under a name of its own; that name is the "
            "\"encoder\" of a collection",
            name);
    }
    if (own) {
        *family = own->name;
        return OK;
    }
    enum err err = OK;
    if (base) { /* known even after the encoder was deleted */
        *imported = (struct settings_imported){.family = base->family,
            .config_json = base->config_json,
            .dims = base->dims};
    } else {
        err = finder->find(finder->arg, name, imported, fault);
    }
    *family = imported->family;
    return err;
}

void
settings_fixed_release(struct settings_fixed *fixed)
{
    mem_free(fixed->encoder);
    mem_free(fixed->family);
    mem_free(fixed->template_text);
    mem_free(fixed->config_json);
    *fixed = (struct settings_fixed){.dims = 0};
}

static enum err
parse_object(
    const char *text, size_t len, struct json **out, struct fault *fault)
{
    enum err err = json_parse(text, len, SETTINGS_BYTES_MAX, out, fault);
    if (!err && json_kind(*out) != JSON_KIND_OBJECT) {
        json_free(*out);
        *out = NULL;
        err = fault_set(fault, ERR_INVALID, "", "settings are a JSON object");
    }
    return err;
}

enum err
settings_check_keys(const char *body, struct fault *fault)
{
    struct json *root = NULL;
    enum err err = parse_object(body, strlen(body), &root, fault);
    if (!err) {
        err = json_only_keys(root, "", all_keys, ARRAY_LEN(all_keys), fault);
    }
    json_free(root);
    return err;
}

/* The encoder's settings with dims in them: what the body says, over what
   stands already. */
static enum err
merge_config(const struct json *given, const char *base, int64_t dims,
    struct buf *out, struct fault *fault)
{
    struct json *old = NULL;
    enum err err = OK;
    if (base) {
        err = json_parse(base, strlen(base), SETTINGS_BYTES_MAX, &old, fault);
        if (err) {
            return err;
        }
    }
    int64_t inner = dims;
    if (given) {
        err = json_get_i64(given, "/encoder_config", "dims", JSON_OPTIONAL, 1,
            ENCODER_DIMS_MAX, &inner, fault);
    }
    if (!err && dims && inner != dims) {
        err = fault_set(fault, ERR_INVALID, "/encoder_config/dims",
            "\"dims\" says %lld, and here it is %lld", (long long)dims,
            (long long)inner);
    }
    bool first = true;
    buf_add_char(out, '{');
    for (void *it = given ? json_first(given) : NULL; it;
         it = json_next(given, it)) {
        if (strcmp(json_it_key(it), "dims") != 0) {
            buf_add_str(out, first ? "" : ",");
            buf_json_cstr(out, json_it_key(it));
            buf_add_char(out, ':');
            json_dump(json_it_value(it), out);
            first = false;
        }
    }
    for (void *it = old ? json_first(old) : NULL; it; it = json_next(old, it)) {
        const char *key = json_it_key(it);
        bool again = given && json_find(given, key);
        if (!again && (strcmp(key, "dims") != 0 || !inner)) {
            buf_add_str(out, first ? "" : ",");
            buf_json_cstr(out, key);
            buf_add_char(out, ':');
            json_dump(json_it_value(it), out);
            first = false;
        }
    }
    if (inner) {
        buf_printf(out, "%s\"dims\":%lld", first ? "" : ",", (long long)inner);
    }
    buf_add_char(out, '}');
    json_free(old);
    return err ? err : buf_status(out);
}

/* Make the encoder that proves the settings, and take its complete ones. */
static enum err
complete_own(struct settings_fixed *out, const struct json *given,
    const struct settings_fixed *base, int64_t dims, struct encoder **encoder,
    struct fault *fault)
{
    struct buf wanted, complete;
    buf_init(&wanted, SETTINGS_BYTES_MAX);
    buf_init(&complete, SETTINGS_BYTES_MAX);
    enum err err = merge_config(
        given, base ? base->config_json : NULL, dims, &wanted, fault);
    struct fault why = {.err = OK};
    if (!err) {
        err = encoder_new(encoder, out->encoder, wanted.data, &complete, &why);
        if (err && why.err) {
            char at[FAULT_POINTER_MAX];
            const char *key = why.pointer[0] == '/' ? why.pointer + 1 : "";
            json_pointer(at, "/encoder_config", key);
            bool is_dims = strcmp(why.pointer, "/dims") == 0;
            fault_set(fault, err,
                is_dims && dims          ? "/dims"
                : key[0]                 ? at
                : err == ERR_UNSUPPORTED ? "/encoder"
                                         : "",
                "%s", why.detail);
        }
    }
    if (!err && buf_status(&complete)) {
        err = buf_status(&complete);
        encoder_free(*encoder);
        *encoder = NULL;
    }
    if (!err) {
        out->dims = encoder_dims(*encoder);
        out->config_json = mem_strdup(complete.data ? complete.data : "{}");
        if (!out->config_json) {
            encoder_free(*encoder);
            *encoder = NULL;
            err = ERR_NOMEM;
        }
    }
    buf_release(&wanted);
    buf_release(&complete);
    return err;
}

/* May a collection give this member of an imported encoder's settings? */
static enum err
check_own(const char *key, const struct json *given, const struct json *theirs,
    bool first, struct fault *fault)
{
    char at[FAULT_POINTER_MAX];
    json_pointer(at, "/encoder_config", key);
    if (!theirs) {
        return fault_set(fault, ERR_INVALID, at, "no such setting");
    }
    for (size_t i = 0; i < ARRAY_LEN(own_keys); i++) {
        if (strcmp(key, own_keys[i]) != 0) {
            continue;
        }
        if (first && json_kind(given) == JSON_KIND_INT &&
            json_kind(theirs) == JSON_KIND_INT &&
            json_i64(given) > json_i64(theirs)) {
            return fault_set(fault, ERR_INVALID, at,
                "the encoder takes at most %lld", (long long)json_i64(theirs));
        }
        return OK;
    }
    struct buf a, b;
    buf_init(&a, SETTINGS_BYTES_MAX);
    buf_init(&b, SETTINGS_BYTES_MAX);
    json_dump(given, &a);
    json_dump(theirs, &b);
    bool same = a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
    buf_release(&a);
    buf_release(&b);
    return same ? OK
                : fault_set(fault, ERR_INVALID, at,
                      "the imported encoder has another value; a collection "
                      "sets \"compute\", \"max_tokens\", \"query_prefix\" "
                      "and \"item_prefix\"");
}

/* An imported encoder's settings with what is given in their place, in their
   order. */
static enum err
merge_imported(const struct json *given, const char *config, bool first,
    struct buf *out, struct fault *fault)
{
    struct json *theirs = NULL;
    enum err err =
        json_parse(config, strlen(config), SETTINGS_BYTES_MAX, &theirs, NULL);
    for (void *it = given && !err ? json_first(given) : NULL; it && !err;
         it = json_next(given, it)) {
        const char *key = json_it_key(it);
        err = check_own(
            key, json_it_value(it), json_find(theirs, key), first, fault);
    }
    char before = '{';
    for (void *it = err ? NULL : json_first(theirs); it;
         it = json_next(theirs, it)) {
        const char *key = json_it_key(it);
        const struct json *own = given ? json_find(given, key) : NULL;
        buf_add_char(out, before);
        buf_json_cstr(out, key);
        buf_add_char(out, ':');
        json_dump(own ? own : json_it_value(it), out);
        before = ',';
    }
    buf_add_char(out, '}');
    json_free(theirs);
    return err ? err : buf_status(out);
}

static enum err
complete_imported(struct settings_fixed *out, const struct json *given,
    const struct settings_imported *imported, bool first, int64_t dims,
    struct fault *fault)
{
    if (dims && (size_t)dims != imported->dims) {
        return fault_set(fault, ERR_INVALID, "/dims",
            "the encoder \"%.60s\" has %zu dimensions, not %lld", out->encoder,
            imported->dims, (long long)dims);
    }
    struct buf config;
    buf_init(&config, SETTINGS_BYTES_MAX);
    enum err err =
        merge_imported(given, imported->config_json, first, &config, fault);
    if (!err) {
        out->dims = imported->dims;
        out->config_json = mem_strndup(config.data, config.len);
        err = out->config_json ? OK : ERR_NOMEM;
    }
    buf_release(&config);
    return err;
}

static enum err
complete_external(struct settings_fixed *out, const struct json *given,
    const struct settings_fixed *base, int64_t dims, struct fault *fault)
{
    if (given && json_count(given) > 0) {
        return fault_set(fault, ERR_INVALID, "/encoder_config",
            "an external collection has no encoder to configure");
    }
    out->dims = dims ? (size_t)dims
                     : (base ? base->dims : (size_t)SETTINGS_EXTERNAL_DIMS);
    out->config_json = mem_strdup("{}");
    return out->config_json ? OK : ERR_NOMEM;
}

/* "images" and "template" against what the encoder reads. */
static enum err
read_images(const struct json *root, const char *name,
    struct settings_fixed *out, struct fault *fault)
{
    bool pictures = settings_reads(out) == SETTINGS_READS_IMAGE;
    const char *images = out->vector_only ? "vector" : "keep";
    enum err err =
        json_get_str(root, "", "images", JSON_OPTIONAL, &images, NULL, fault);
    if (err) {
        return err;
    }
    if (pictures && json_find(root, "template")) {
        return fault_set(fault, ERR_INVALID, "/template",
            "the encoder \"%s\" reads pictures: there is no text to make by a "
            "template",
            name);
    }
    out->vector_only = strcmp(images, "vector") == 0;
    if (!out->vector_only && strcmp(images, "keep") != 0) {
        return fault_set(
            fault, ERR_INVALID, "/images", "images is \"keep\" or \"vector\"");
    }
    if (out->vector_only && !pictures) {
        return fault_set(fault, ERR_INVALID, "/images",
            "the encoder \"%s\" makes no vector of a picture: its bytes are "
            "kept",
            name);
    }
    return OK;
}

/* "family" may be said, as it stands in complete settings. */
static enum err
check_family(const struct json *root, const char *family, struct fault *fault)
{
    const char *said = family;
    enum err err =
        json_get_str(root, "", "family", JSON_OPTIONAL, &said, NULL, fault);
    if (!err && strcmp(said, family) != 0) {
        err = fault_set(fault, ERR_INVALID, "/family",
            "the encoder is of the family \"%s\"", family);
    }
    return err;
}

enum err
settings_fixed_parse(const char *text, const struct settings_fixed *base,
    const struct settings_finder *finder, struct settings_fixed *out,
    struct encoder **encoder, struct fault *fault)
{
    struct json *root = NULL;
    enum err err = parse_object(text, strlen(text), &root, fault);
    if (err) {
        return err;
    }
    struct settings_fixed made = {.dims = 0};
    struct encoder *enc = NULL;
    struct settings_imported imported = {.dims = 0};
    const char *name = base ? base->encoder : "static", *family = NULL;
    const char *template_text =
        base ? base->template_text : DOCUMENT_TEMPLATE_DEFAULT;
    int64_t dims = 0;
    const struct json *config = NULL;
    err = json_get_str(root, "", "encoder", JSON_OPTIONAL, &name, NULL, fault);
    if (!err) {
        err = json_get_i64(root, "", "dims", JSON_OPTIONAL, ENCODER_DIMS_MIN,
            ENCODER_DIMS_MAX, &dims, fault);
    }
    if (!err) {
        err = json_get_str(
            root, "", "template", JSON_OPTIONAL, &template_text, NULL, fault);
    }
    if (!err) {
        err = json_get_object(
            root, "", "encoder_config", JSON_OPTIONAL, &config, fault);
    }
    if (!err) {
        struct document_template *check;
        err = document_template_new(&check, template_text, fault);
        if (!err) {
            document_template_free(check);
        }
    }
    if (base && strcmp(name, base->encoder) != 0) {
        base = NULL; /* another encoder's settings say nothing */
    }
    if (!err) {
        err = find_encoder(name, base, finder, &family, &imported, fault);
    }
    if (!err) {
        err = check_family(root, family, fault);
    }
    made.vector_only = base && base->vector_only;
    if (!err) {
        made.encoder = mem_strdup(name);
        made.family = mem_strdup(family);
        made.template_text = mem_strdup(template_text);
        err =
            made.encoder && made.family && made.template_text ? OK : ERR_NOMEM;
    }
    if (!err) {
        err = read_images(root, name, &made, fault);
    }
    if (!err && imported.family) {
        err = complete_imported(&made, config, &imported, !base, dims, fault);
    } else if (!err && strcmp(family, SETTINGS_EXTERNAL) == 0) {
        err = complete_external(&made, config, base, dims, fault);
    } else if (!err) {
        err = complete_own(&made, config, base, dims, &enc, fault);
    }
    json_free(root);
    if (err) {
        settings_fixed_release(&made);
        return err;
    }
    *out = made;
    *encoder = enc;
    return OK;
}

void
settings_fixed_write(const struct settings_fixed *fixed, struct buf *out)
{
    buf_add_str(out, "{\"encoder\":");
    buf_json_cstr(out, fixed->encoder);
    if (settings_is_imported(fixed)) {
        buf_add_str(out, ",\"family\":");
        buf_json_cstr(out, fixed->family);
    }
    buf_printf(out, ",\"dims\":%zu", fixed->dims);
    if (settings_reads(fixed) != SETTINGS_READS_IMAGE) {
        buf_add_str(out, ",\"template\":");
        buf_json_cstr(out, fixed->template_text);
    }
    buf_add_str(out, ",\"encoder_config\":");
    buf_add_str(out, fixed->config_json);
    buf_printf(
        out, ",\"images\":\"%s\"}", fixed->vector_only ? "vector" : "keep");
}

enum err
settings_fixed_read(const char *text, size_t len, struct settings_fixed *out)
{
    struct json *root = NULL;
    enum err err = parse_object(text, len, &root, NULL);
    if (err) {
        return ERR_CORRUPT;
    }
    const char *name, *family = NULL;
    const char *template_text = DOCUMENT_TEMPLATE_DEFAULT;
    const char *images = "keep"; /* not there before schema version 2 */
    const struct json *config;
    int64_t dims;
    struct settings_fixed made = {.dims = 0};
    struct buf dump;
    buf_init(&dump, SETTINGS_BYTES_MAX);
    if (json_get_str(root, "", "encoder", JSON_REQUIRED, &name, NULL, NULL) ||
        json_get_str(root, "", "family", JSON_OPTIONAL, &family, NULL, NULL) ||
        json_get_str(
            root, "", "template", JSON_OPTIONAL, &template_text, NULL, NULL) ||
        json_get_str(root, "", "images", JSON_OPTIONAL, &images, NULL, NULL) ||
        json_get_i64(root, "", "dims", JSON_REQUIRED, 1, ENCODER_DIMS_MAX,
            &dims, NULL) ||
        json_get_object(
            root, "", "encoder_config", JSON_REQUIRED, &config, NULL)) {
        err = ERR_CORRUPT;
    } else {
        json_dump(config, &dump);
        made.encoder = mem_strdup(name);
        made.family = mem_strdup(family ? family : name);
        made.template_text = mem_strdup(template_text);
        made.config_json = mem_strdup(dump.data ? dump.data : "{}");
        made.dims = (size_t)dims;
        made.vector_only = strcmp(images, "vector") == 0;
        if (!made.encoder || !made.family || !made.template_text ||
            !made.config_json) {
            settings_fixed_release(&made);
            err = ERR_NOMEM;
        }
    }
    buf_release(&dump);
    json_free(root);
    if (!err) {
        *out = made;
    }
    return err;
}

static bool
same_json(const char *a, const char *b)
{
    struct json *x = NULL, *y = NULL;
    struct buf p, q;
    buf_init(&p, SETTINGS_BYTES_MAX);
    buf_init(&q, SETTINGS_BYTES_MAX);
    bool same = json_parse(a, strlen(a), SETTINGS_BYTES_MAX, &x, NULL) == OK &&
                json_parse(b, strlen(b), SETTINGS_BYTES_MAX, &y, NULL) == OK;
    if (same) {
        json_dump(x, &p);
        json_dump(y, &q);
        same = p.len == q.len && memcmp(p.data, q.data, p.len) == 0;
    }
    json_free(x);
    json_free(y);
    buf_release(&p);
    buf_release(&q);
    return same;
}

bool
settings_fixed_equal(
    const struct settings_fixed *a, const struct settings_fixed *b)
{
    return strcmp(a->encoder, b->encoder) == 0 &&
           strcmp(a->family, b->family) == 0 && a->dims == b->dims &&
           strcmp(a->template_text, b->template_text) == 0 &&
           a->vector_only == b->vector_only &&
           same_json(a->config_json, b->config_json);
}

/* One number of the policy: from the body if it is there. */
static enum err
policy_numbers(
    const struct json *train, struct train_policy *p, struct fault *fault)
{
    static const char at[] = "/train";
    enum err err = json_get_i64(train, at, "every_pairs", JSON_OPTIONAL, 0,
        POLICY_MAX, &p->every_pairs, fault);
    if (!err) {
        err = json_get_i64(train, at, "every_seconds", JSON_OPTIONAL, 0,
            POLICY_MAX, &p->every_seconds, fault);
    }
    if (!err) {
        err = json_get_i64(train, at, "min_pairs", JSON_OPTIONAL, 1, POLICY_MAX,
            &p->min_pairs, fault);
    }
    if (!err) {
        err = json_get_i64(train, at, "min_groups", JSON_OPTIONAL, 1,
            POLICY_MAX, &p->min_groups, fault);
    }
    if (!err) {
        err = json_get_i64(train, at, "budget_seconds", JSON_OPTIONAL, 0,
            POLICY_MAX, &p->budget_seconds, fault);
    }
    return err;
}

/* What a settings text says, over what the arguments hold already. */
static enum err
read_patchable(const struct json *root, const char **description,
    struct train_policy *policy, const struct json **options,
    struct fault *fault)
{
    size_t len = 0;
    enum err err = json_get_str(
        root, "", "description", JSON_OPTIONAL, description, &len, fault);
    if (!err && len > DESCRIPTION_BYTES_MAX) {
        err = fault_set(fault, ERR_TOO_LARGE, "/description",
            "a description has at most %d bytes", DESCRIPTION_BYTES_MAX);
    }
    const struct json *train = NULL;
    if (!err) {
        err = json_get_object(root, "", "train", JSON_OPTIONAL, &train, fault);
    }
    if (!err && train) {
        err = json_only_keys(
            train, "/train", train_keys, ARRAY_LEN(train_keys), fault);
    }
    if (!err && train) {
        err = policy_numbers(train, policy, fault);
    }
    if (!err && train) {
        err = json_get_object(
            train, "/train", "options", JSON_OPTIONAL, options, fault);
    }
    return err;
}

/* The options that every round of the collection starts from. */
static enum err
check_train_options(const struct json *options, struct fault *fault)
{
    struct fault inner = {.err = OK};
    struct buf text;
    buf_init(&text, SETTINGS_BYTES_MAX);
    json_dump(options, &text);
    enum err err = buf_status(&text);
    if (!err) {
        err = learn_check_options(text.data, &inner);
    }
    if (err && inner.err) {
        char pointer[FAULT_POINTER_MAX];
        snprintf(
            pointer, sizeof pointer, "/train/options%.100s", inner.pointer);
        err = fault_set(fault, err, pointer, "%s", inner.detail);
    }
    buf_release(&text);
    return err;
}

static const struct train_policy policy_default = {
    .min_pairs = 200, .min_groups = 50};

enum err
settings_patch(
    const char *present, const char *body, struct buf *out, struct fault *fault)
{
    struct json *old = NULL, *new = NULL;
    const char *description = "";
    struct train_policy p = policy_default;
    const struct json *options = NULL;
    enum err err = parse_object(body, strlen(body), &new, fault);
    if (!err && present) {
        err = parse_object(present, strlen(present), &old, fault);
    }
    if (!err && old) {
        err = read_patchable(old, &description, &p, &options, fault);
    }
    if (!err) {
        err = read_patchable(new, &description, &p, &options, fault);
    }
    if (!err && options) {
        err = check_train_options(options, fault);
    }
    if (!err) {
        buf_add_str(out, "{\"description\":");
        buf_json_cstr(out, description);
        buf_printf(out,
            ",\"train\":{\"every_pairs\":%lld,\"every_seconds\":%lld,"
            "\"min_pairs\":%lld,\"min_groups\":%lld,\"budget_seconds\":%lld,"
            "\"options\":",
            (long long)p.every_pairs, (long long)p.every_seconds,
            (long long)p.min_pairs, (long long)p.min_groups,
            (long long)p.budget_seconds);
        if (options) {
            json_dump(options, out);
        } else {
            buf_add_str(out, "{}");
        }
        buf_add_str(out, "}}");
        err = buf_status(out);
    }
    json_free(old);
    json_free(new);
    return err;
}

enum err
settings_policy(const char *patched, struct train_policy *policy,
    struct buf *options_out, struct fault *fault)
{
    struct json *root = NULL;
    const char *description = "";
    struct train_policy p = policy_default;
    const struct json *options = NULL;
    enum err err = parse_object(patched, strlen(patched), &root, fault);
    if (!err) {
        err = read_patchable(root, &description, &p, &options, fault);
    }
    if (!err && options_out) {
        if (options) {
            json_dump(options, options_out);
        } else {
            buf_add_str(options_out, "{}");
        }
        err = buf_status(options_out);
    }
    if (!err) {
        *policy = p;
    }
    json_free(root);
    return err;
}
