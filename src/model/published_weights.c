/*
 * published_weights.c - parameters from and into model.safetensors.
 *
 * Names are those of transformer_tensors, which are BERT's; a folder may have
 * all of them behind a prefix ("bert.", "0.auto_model."), gains and biases of
 * norms under their old names gamma and beta, and DistilBERT's own. Tensors of
 * heads that no sentence encoder uses are known and not read.
 */
#include "model/published_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/fsio.h"
#include "model/family.h"
#include "model/safetensors.h"

#define NAME_MAX_BYTES 256
#define LAYER "encoder.layer."
#define WORDS "embeddings.word_embeddings.weight"
#define DENSE "linear."
#define WEIGHTS "model.safetensors"
#define IO_BYTES ((size_t)1 << 20)

/* What makes a model.safetensors of a pytorch_model.bin. */
#define RECIPE                                                                 \
    "python3 -c 'import torch, safetensors.torch as s; s.save_file({k: "       \
    "v.clone().contiguous() for k, v in torch.load(\"pytorch_model.bin\", "    \
    "\"cpu\", weights_only=True).items()}, \"model.safetensors\", "            \
    "{\"format\": \"pt\"})'"

/* ----------------------------------------------------------------- names */

/* DistilBERT's names of a layer's parts. */
static const struct {
    const char *bert, *distilbert;
} renamed[] = {
    {"attention.self.query", "attention.q_lin"},
    {"attention.self.key", "attention.k_lin"},
    {"attention.self.value", "attention.v_lin"},
    {"attention.output.dense", "attention.out_lin"},
    {"attention.output.LayerNorm", "sa_layer_norm"},
    {"intermediate.dense", "ffn.lin1"},
    {"output.dense", "ffn.lin2"},
    {"output.LayerNorm", "output_layer_norm"},
};

/* What a type calls one of our tensors. */
static void
name_of(char out[NAME_MAX_BYTES], const char *prefix, const char *name,
    const struct published_type *type)
{
    const char *part = name + sizeof LAYER - 1;

    (void)snprintf(out, NAME_MAX_BYTES, "%s%s", prefix, name);
    if (!published_is_distilbert(type) ||
        strncmp(name, LAYER, sizeof LAYER - 1) != 0)
        return;
    size_t digits = strcspn(part, ".");
    for (size_t i = 0; i < ARRAY_LEN(renamed); i++) {
        size_t n = strlen(renamed[i].bert);
        const char *rest = part + digits + 1;
        if (strncmp(rest, renamed[i].bert, n) == 0 && rest[n] == '.')
            (void)snprintf(out, NAME_MAX_BYTES, "%stransformer.layer.%.*s.%s%s",
                prefix, (int)digits, part, renamed[i].distilbert, rest + n);
    }
}

/* The older name of a norm's part: gamma and beta. */
static bool
older_name(char name[NAME_MAX_BYTES])
{
    static const char *const ends[][2] = {
        {"LayerNorm.weight", "LayerNorm.gamma"},
        {"LayerNorm.bias", "LayerNorm.beta"}};
    size_t n = strlen(name);

    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        size_t cut = strlen(ends[i][0]);
        if (n >= cut && strcmp(name + n - cut, ends[i][0]) == 0) {
            (void)snprintf(
                name + n - cut, NAME_MAX_BYTES - (n - cut), "%s", ends[i][1]);
            return true;
        }
    }
    return false;
}

/* A tensor that no sentence encoder uses. */
static bool
is_surplus(const char *name, const char *prefix)
{
    static const char *const known[] = {"pooler.", "embeddings.position_ids",
        "embeddings.token_type_ids", "cls.", "lm_head.", "vocab_transform.",
        "vocab_layer_norm.", "vocab_projector."};
    size_t n = strlen(prefix);

    if (strncmp(name, prefix, n) == 0)
        name += n;
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (strncmp(name, known[i], strlen(known[i])) == 0)
            return true;
    }
    return false;
}

/* --------------------------------------------------------------- a file */

/* A safetensors file and which of its tensors are asked for. */
struct weights {
    struct safetensors st;
    char path[PUBLISHED_PATH_MAX]; /* in the folder */
    char prefix[NAME_MAX_BYTES];
    bool *used; /* [st.n] */
};

static bool
is_there(const char *dir, const char *folder, const char *name)
{
    struct stat info;
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/%s/%s", dir, folder, name);

    return n > 0 && (size_t)n < sizeof path && stat(path, &info) == 0;
}

static enum err
explain_missing(const struct weights *w, const char *dir, const char *folder,
    struct fault *fault)
{
    if (is_there(dir, folder, "pytorch_model.bin"))
        return fault_set(fault, ERR_UNSUPPORTED, "",
            "%s: not there, and pytorch_model.bin is not read; it is made "
            "by: " RECIPE,
            w->path);
    if (is_there(dir, folder, WEIGHTS ".index.json"))
        return fault_set(fault, ERR_UNSUPPORTED, "",
            "%s: not there; weights in several files are not read", w->path);
    return fault_set(fault, ERR_NOT_FOUND, "", "%s: not there", w->path);
}

static enum err
weights_open(
    struct weights *w, const char *dir, const char *folder, struct fault *fault)
{
    char path[4096];
    enum err err = published_path(w->path, folder, WEIGHTS, fault);

    if (err != OK)
        return err;
    int n = snprintf(path, sizeof path, "%s/%s", dir, w->path);
    if (n < 0 || (size_t)n >= sizeof path)
        return fault_set(fault, ERR_INVALID, "", "the path is too long");
    err = safetensors_open(&w->st, path, fault);
    if (err == ERR_NOT_FOUND)
        return explain_missing(w, dir, folder, fault);
    if (err != OK)
        return published_blame(err, w->path, fault);
    w->used = mem_calloc(w->st.n, sizeof *w->used);
    return w->used == NULL ? ERR_NOMEM : OK;
}

static void
weights_release(struct weights *w)
{
    safetensors_release(&w->st);
    mem_free(w->used);
    w->used = NULL;
}

/* The prefix is what stands before the name of the words' table. */
static enum err
find_prefix(struct weights *w, struct fault *fault)
{
    size_t n = sizeof WORDS - 1;

    for (size_t i = 0; i < w->st.n; i++) {
        const char *name = w->st.tensors[i].name;
        size_t len = strlen(name);
        if (len < n || len - n > NAME_MAX_BYTES / 2 ||
            strcmp(name + len - n, WORDS) != 0 ||
            (len > n && name[len - n - 1] != '.'))
            continue;
        memcpy(w->prefix, name, len - n);
        w->prefix[len - n] = '\0';
        return OK;
    }
    return fault_set(fault, ERR_INVALID, "",
        "%s: there is no tensor \"" WORDS "\"", w->path);
}

static enum err
refuse_surplus(const struct weights *w, struct fault *fault)
{
    for (size_t i = 0; i < w->st.n; i++) {
        const char *name = w->st.tensors[i].name;
        if (!w->used[i] && !is_surplus(name, w->prefix))
            return fault_set(fault, ERR_UNSUPPORTED, "",
                "%s: tensor \"%.128s\" is not of a network known here", w->path,
                name);
    }
    return OK;
}

/* ------------------------------------------------------------ one tensor */

static enum err
check_shape(const struct weights *w, const struct safetensors_tensor *found,
    const struct encoder_tensor *want, struct fault *fault)
{
    size_t rank = want->dims[1] > 0 ? 2 : 1;

    if (found->rank != rank)
        return fault_set(fault, ERR_INVALID, "",
            "%s: tensor \"%.64s\" has %zu dimensions, not %zu", w->path,
            found->name, found->rank, rank);
    for (size_t i = 0; i < rank; i++) {
        if (found->shape[i] != want->dims[i])
            return fault_set(fault, ERR_INVALID, "",
                "%s: tensor \"%.64s\" has %" PRIu64
                " in dimension %zu; config.json asks for %zu",
                w->path, found->name, found->shape[i], i, want->dims[i]);
    }
    return OK;
}

/* The file's tensor for one of ours. */
static enum err
find_tensor(const struct safetensors_tensor **out, struct weights *w,
    const struct encoder_tensor *want, const struct published_type *type,
    struct fault *fault)
{
    char name[NAME_MAX_BYTES];
    const struct safetensors_tensor *found;

    name_of(name, w->prefix, want->name, type);
    found = safetensors_find(&w->st, name);
    if (found == NULL && older_name(name))
        found = safetensors_find(&w->st, name);
    if (found == NULL) {
        name_of(name, w->prefix, want->name, type);
        return fault_set(fault, ERR_INVALID, "",
            "%s: there is no tensor \"%.128s\"", w->path, name);
    }
    w->used[found - w->st.tensors] = true;
    *out = found;
    return check_shape(w, found, want, fault);
}

/* ---------------------------------------------------------------- import */

/* One of our tensors and where it comes from. */
struct source {
    struct weights *from;
    const struct safetensors_tensor *tensor; /* NULL: zeros */
};

static size_t
floats_of(const struct encoder_tensor *t)
{
    return t->dims[0] * MAX(t->dims[1], (size_t)1);
}

static bool
is_dense(const struct encoder_tensor *t)
{
    return strncmp(t->name, DENSE, sizeof DENSE - 1) == 0;
}

/* Where all tensors come from, before any of them is read. */
static enum err
find_all(struct source *sources, const struct encoder_tensor *tensors, size_t n,
    struct weights files[2], const struct published_plan *plan,
    struct fault *fault)
{
    const struct published_modules *m = &plan->modules;
    enum err err = find_prefix(&files[0], fault);

    for (size_t i = 0; i < n && err == OK; i++) {
        bool dense = m->has_dense && is_dense(&tensors[i]);
        sources[i].from = &files[dense ? 1 : 0];
        if (dense && !m->dense_bias && tensors[i].dims[1] == 0)
            continue;
        err = find_tensor(&sources[i].tensor, sources[i].from, &tensors[i],
            plan->type, fault);
    }
    for (size_t i = 0; i < 2 && err == OK; i++)
        err = refuse_surplus(&files[i], fault);
    return err;
}

static enum err
read_all(struct encoder *encoder, const struct source *sources,
    const struct encoder_tensor *tensors, size_t n, struct fault *fault)
{
    size_t n_params;
    float *params = encoder_params(encoder, &n_params);
    enum err err = OK;

    for (size_t i = 0; i < n && err == OK; i++) {
        float *to = params + tensors[i].start;
        ASSERT(tensors[i].start + floats_of(&tensors[i]) <= n_params);
        if (sources[i].tensor == NULL)
            memset(to, 0, floats_of(&tensors[i]) * sizeof *to);
        else
            err = published_blame(safetensors_read(&sources[i].from->st,
                                      sources[i].tensor, to, fault),
                sources[i].from->path, fault);
    }
    return err;
}

static struct encoder_tensor *
list_tensors(const struct encoder *encoder, size_t *n)
{
    *n = encoder->family->tensors(encoder, NULL, 0);
    struct encoder_tensor *list = mem_alloc(*n, sizeof *list);
    if (list != NULL)
        (void)encoder->family->tensors(encoder, list, *n);
    return list;
}

enum err
published_weights_read(struct encoder *encoder, const char *dir,
    const struct published_plan *plan, struct fault *fault)
{
    const struct published_modules *m = &plan->modules;
    struct weights files[2] = {{.used = NULL}}; /* the dense head's is [1] */
    size_t n;
    struct encoder_tensor *tensors = list_tensors(encoder, &n);
    struct source *sources = mem_calloc(n, sizeof *sources);
    enum err err = tensors == NULL || sources == NULL
                       ? ERR_NOMEM
                       : weights_open(&files[0], dir, m->transformer, fault);

    if (err == OK && m->has_dense)
        err = weights_open(&files[1], dir, m->dense, fault);
    if (err == OK)
        err = find_all(sources, tensors, n, files, plan, fault);
    if (err == OK)
        err = read_all(encoder, sources, tensors, n, fault);
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        weights_release(&files[i]);
    mem_free(tensors);
    mem_free(sources);
    return err;
}

/* ---------------------------------------------------------------- export */

static enum err
put_tensor(struct fsio_out *file, const struct encoder *encoder,
    const struct encoder_tensor *t, struct fault *fault)
{
    size_t n_params;
    const float *params = encoder_params_const(encoder, &n_params);
    const char *p = (const char *)(params + t->start);
    size_t left = floats_of(t) * sizeof *params;
    enum err err = OK;

    while (left > 0 && err == OK) {
        size_t n = MIN(left, IO_BYTES);
        err = fsio_out_write(file, p, n, fault);
        p += n;
        left -= n;
    }
    return err;
}

/* The tensors of the dense head, or all others, as a file. */
static enum err
write_file(const struct encoder *encoder, const char *path,
    const struct published_type *type, const struct encoder_tensor *tensors,
    size_t n, bool dense, struct fault *fault)
{
    struct safetensors_head head;
    struct fsio_out *file = NULL;
    char name[NAME_MAX_BYTES];
    enum err err;

    safetensors_begin(&head);
    safetensors_meta(&head, "format", "pt");
    for (size_t i = 0; i < n; i++) {
        name_of(name, "", tensors[i].name, type);
        if (is_dense(&tensors[i]) == dense)
            safetensors_add(&head, name, SAFETENSORS_F32, tensors[i].dims,
                tensors[i].dims[1] > 0 ? 2 : 1);
    }
    err = safetensors_end(&head);
    if (err == OK)
        err = fsio_out_open(&file, path, fault);
    if (err == OK)
        err = fsio_out_write(file, head.text.data, head.text.len, fault);
    for (size_t i = 0; i < n && err == OK; i++) {
        if (is_dense(&tensors[i]) == dense)
            err = put_tensor(file, encoder, &tensors[i], fault);
    }
    if (err == OK)
        err = fsio_out_commit(file, fault);
    fsio_out_free(file);
    safetensors_head_release(&head);
    return err;
}

enum err
published_weights_write(const struct encoder *encoder, const char *dir,
    const struct published_type *type, const char *dense, struct fault *fault)
{
    const char *const folders[] = {"", dense};
    char path[4096];
    size_t n;
    struct encoder_tensor *tensors = list_tensors(encoder, &n);
    enum err err = tensors == NULL ? ERR_NOMEM : OK;

    for (size_t i = 0; i < ARRAY_LEN(folders) && err == OK; i++) {
        if (folders[i] == NULL)
            continue;
        int len =
            snprintf(path, sizeof path, "%s/%s/" WEIGHTS, dir, folders[i]);
        if (len < 0 || (size_t)len >= sizeof path)
            err = fault_set(
                fault, ERR_INVALID, "", "the path is too long: %.64s", dir);
        else
            err = write_file(encoder, path, type, tensors, n, i == 1, fault);
    }
    mem_free(tensors);
    return err;
}
