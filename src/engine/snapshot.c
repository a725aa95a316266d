#include "engine/snapshot.h"

#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/json.h"
#include "engine/settings.h"

struct encoder_ref {
    struct encoder *encoder;
    struct encoder_registry *registry; /* NULL: not shared */
    struct encoder_ref *next;          /* in the registry */
    uint8_t key[SHA256_BYTES];
    atomic_size_t refs;
};

void
encoder_registry_init(struct encoder_registry *registry)
{
    pthread_mutex_init(&registry->lock, NULL);
    pthread_cond_init(&registry->made, NULL);
    registry->first = NULL;
}

void
encoder_registry_release(struct encoder_registry *registry)
{
    ASSERT(!registry->first);
    pthread_cond_destroy(&registry->made);
    pthread_mutex_destroy(&registry->lock);
}

enum err
encoder_ref_new(struct encoder_ref **out, struct encoder *encoder)
{
    struct encoder_ref *ref = mem_calloc(1, sizeof(*ref));
    if (!ref) {
        return ERR_NOMEM;
    }
    encoder_seal(encoder);
    ref->encoder = encoder;
    ref->refs = 1;
    *out = ref;
    return OK;
}

/* The lock is held. */
static struct encoder_ref *
find_shared(struct encoder_registry *registry, const uint8_t *key)
{
    struct encoder_ref *ref = registry->first;
    while (ref && memcmp(ref->key, key, SHA256_BYTES) != 0) {
        ref = ref->next;
    }
    return ref;
}

/* The lock is held. */
static void
take_out(struct encoder_registry *registry, const struct encoder_ref *ref)
{
    struct encoder_ref **link = &registry->first;
    while (*link != ref) {
        link = &(*link)->next;
    }
    *link = ref->next;
}

/* The encoder of a key, or, as mine then says, a place for it that the caller
   fills or gives up (settle). One that another thread makes is waited for. */
static enum err
find_or_reserve(struct encoder_registry *registry,
    const uint8_t key[SHA256_BYTES], struct encoder_ref **out, bool *mine)
{
    struct encoder_ref *ref;
    pthread_mutex_lock(&registry->lock);
    while ((ref = find_shared(registry, key)) != NULL && !ref->encoder) {
        pthread_cond_wait(&registry->made, &registry->lock);
    }
    *mine = !ref;
    if (ref) {
        ref->refs++;
    } else if ((ref = mem_calloc(1, sizeof(*ref))) != NULL) {
        ref->refs = 1;
        ref->registry = registry;
        memcpy(ref->key, key, SHA256_BYTES);
        ref->next = registry->first;
        registry->first = ref;
    }
    pthread_mutex_unlock(&registry->lock);
    *out = ref;
    return ref ? OK : ERR_NOMEM;
}

/* encoder NULL: it could not be made; the place goes. */
static void
settle(struct encoder_ref *place, struct encoder *encoder)
{
    struct encoder_registry *registry = place->registry;
    pthread_mutex_lock(&registry->lock);
    place->encoder = encoder;
    if (!encoder) {
        take_out(registry, place);
    }
    pthread_cond_broadcast(&registry->made);
    pthread_mutex_unlock(&registry->lock);
    if (!encoder) {
        mem_free(place);
    }
}

static enum err
read_piece(void *arg, void *out, size_t n)
{
    return weights_next(arg, out, n);
}

enum err
encoder_read_weights(struct encoder **out, const char *family,
    const char *config_json, struct weights_reader *reader, uint64_t n,
    struct fault *fault)
{
    return encoder_load(out, family, config_json, read_piece, reader, n, fault);
}

static enum err
make_from(struct encoder **out, const struct encoder_source *source,
    struct fault *fault)
{
    struct weights_reader *reader = NULL;
    uint64_t n;
    if (!source->imported) {
        return encoder_new(
            out, source->family, source->config_json, NULL, fault);
    }
    enum err err =
        encoder_weights_open(&reader, source->store, source->imported, &n);
    if (!err) {
        err = encoder_read_weights(
            out, source->family, source->config_json, reader, n, fault);
    }
    weights_close(reader);
    if (err == ERR_CORRUPT && fault && fault->err != err) {
        err = fault_set(fault, err, "",
            "the weights of the imported encoder %lld are damaged",
            (long long)source->imported);
    }
    return err;
}

/* However a number or a string is written, the same settings are one key. */
static enum err
make_key(const struct encoder_source *source, uint8_t key[SHA256_BYTES])
{
    const char *config = source->config_json;
    struct json *tree = NULL;
    struct sha256 sha;
    struct buf text;
    buf_init(&text, SETTINGS_BYTES_MAX);
    enum err err =
        json_parse(config, strlen(config), SETTINGS_BYTES_MAX, &tree, NULL);
    if (!err) {
        json_dump(tree, &text);
        err = buf_status(&text);
    }
    if (!err) {
        sha256_start(&sha);
        sha256_add(&sha, source->family, strlen(source->family) + 1);
        sha256_add(&sha, &source->imported, sizeof(source->imported));
        sha256_add(&sha, text.data, text.len);
        sha256_finish(&sha, key);
    }
    json_free(tree);
    buf_release(&text);
    return err;
}

enum err
encoder_ref_share(struct encoder_ref **out, struct encoder_registry *registry,
    const struct encoder_source *source, struct encoder *encoder,
    struct fault *fault)
{
    uint8_t key[SHA256_BYTES];
    struct encoder_ref *ref = NULL;
    bool mine = false;
    enum err err = make_key(source, key);
    if (!err) {
        err = find_or_reserve(registry, key, &ref, &mine);
    }
    if (err || !mine) {
        encoder_free(encoder);
        if (!err) {
            *out = ref;
        }
        return err;
    }
    /* Outside the lock: it may be hundreds of megabytes to be read. */
    if (!encoder) {
        err = make_from(&encoder, source, fault);
    }
    if (!err) {
        encoder_seal(encoder);
    }
    settle(ref, err ? NULL : encoder);
    if (!err) {
        *out = ref;
    }
    return err;
}

struct encoder_ref *
encoder_ref_more(struct encoder_ref *ref)
{
    if (ref) {
        ref->refs++;
    }
    return ref;
}

void
encoder_ref_less(struct encoder_ref *ref)
{
    if (!ref) {
        return;
    }
    struct encoder_registry *registry = ref->registry;
    if (registry) {
        pthread_mutex_lock(&registry->lock);
    }
    bool last = atomic_fetch_sub(&ref->refs, 1) == 1;
    if (last && registry) {
        take_out(registry, ref);
    }
    if (registry) {
        pthread_mutex_unlock(&registry->lock);
    }
    if (last) {
        encoder_free(ref->encoder);
        mem_free(ref);
    }
}

const struct encoder *
encoder_ref_get(const struct encoder_ref *ref)
{
    return ref ? ref->encoder : NULL;
}

bool
encoder_ref_is_shared(const struct encoder_ref *ref)
{
    return ref && ref->registry;
}

size_t
encoder_registry_bytes(struct encoder_registry *registry)
{
    size_t n = 0;
    pthread_mutex_lock(&registry->lock);
    for (struct encoder_ref *r = registry->first; r; r = r->next) {
        n += r->encoder ? encoder_bytes(r->encoder) : 0;
    }
    pthread_mutex_unlock(&registry->lock);
    return n;
}

enum err
space_index_new(struct space_index **out, int64_t space, size_t dims,
    const uint8_t fingerprint[SHA256_BYTES], struct pool *pool)
{
    struct space_index *index = mem_calloc(1, sizeof(*index));
    if (!index) {
        return ERR_NOMEM;
    }
    enum err err = ann_new(&index->ann, dims, pool);
    if (err) {
        mem_free(index);
        return err;
    }
    index->refs = 1;
    index->space = space;
    index->dims = dims;
    memcpy(index->fingerprint, fingerprint, SHA256_BYTES);
    *out = index;
    return OK;
}

struct space_index *
space_index_ref(struct space_index *index)
{
    index->refs++;
    return index;
}

void
space_index_unref(struct space_index *index)
{
    if (index && atomic_fetch_sub(&index->refs, 1) == 1) {
        ann_free(index->ann);
        mem_free(index);
    }
}

enum err
space_index_reserve(struct space_index *index, size_t n)
{
    size_t have = index->reserved;
    if (n <= have) {
        return OK;
    }
    size_t want = MAX(n, have + have / 8 + 256);
    enum err err = ann_reserve(index->ann, want);
    if (!err) {
        index->reserved = want;
    }
    return err;
}

enum err
snapshot_new(struct snapshot **out, int64_t generation, int64_t generation_id,
    struct encoder_ref *encoder, struct space_index *index, double temperature)
{
    struct snapshot *s = mem_calloc(1, sizeof(*s));
    if (!s) {
        encoder_ref_less(encoder);
        space_index_unref(index);
        return ERR_NOMEM;
    }
    s->refs = 1;
    s->generation = generation;
    s->generation_id = generation_id;
    s->encoder = encoder;
    s->index = index;
    s->temperature = temperature;
    sha256_hex(index->fingerprint, s->fingerprint);
    *out = s;
    return OK;
}

struct snapshot *
snapshot_ref(struct snapshot *s)
{
    if (s) {
        s->refs++;
    }
    return s;
}

void
snapshot_unref(struct snapshot *s)
{
    if (s && atomic_fetch_sub(&s->refs, 1) == 1) {
        encoder_ref_less(s->encoder);
        space_index_unref(s->index);
        mem_free(s);
    }
}

void
space_fingerprint(const struct encoder *encoder, size_t dims,
    const char *template_text, uint8_t out[SHA256_BYTES])
{
    struct sha256 sha;
    sha256_start(&sha);
    if (encoder) {
        uint8_t inner[SHA256_BYTES];
        encoder_fingerprint(encoder, inner);
        sha256_add(&sha, inner, sizeof(inner));
        sha256_add(&sha, template_text, strlen(template_text));
    } else {
        char name[48];
        int n = snprintf(name, sizeof(name), "external %zu", dims);
        sha256_add(&sha, name, (size_t)n);
    }
    sha256_finish(&sha, out);
}
