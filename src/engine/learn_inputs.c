/*
 * learn_inputs.c - what an encoder is given of items: their documents, or
 * their pictures at the encoder's size.
 *
 * Documents are read in pages of short read transactions; no reader is held
 * while anything is computed.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/json.h"
#include "engine/learn_data.h"
#include "engine/pictures.h"

#define PAGE 1000
#define SEED_CONTENT 0x6c726e
#define SEED_LABEL 0x6c6162

/* ---- documents ----------------------------------------------------------- */

struct page {
    struct collection *c;
    struct buf texts;
    int64_t items[PAGE];
    size_t start[PAGE + 1];
    size_t n;
};

static enum err
render_item(void *ctx, const struct item_row *row)
{
    struct page *page = ctx;
    struct engine_text title = {row->title.s, row->title.len};
    struct engine_text text = {row->text.s, row->text.len};
    struct engine_text metadata = {row->metadata.s, row->metadata.len};
    enum err err =
        document_render(page->c->template, title, text, metadata, &page->texts);
    if (err != OK)
        return err;
    page->items[page->n++] = row->item;
    page->start[page->n] = page->texts.len;
    return OK;
}

static unsigned
wanted(const struct collection *c)
{
    return document_uses_metadata(c->template)
               ? ITEM_WANT_ALL
               : ITEM_WANT_TITLE | ITEM_WANT_TEXT;
}

static void
page_clear(struct page *page)
{
    buf_clear(&page->texts);
    page->n = 0;
    page->start[0] = 0;
}

enum err
learn_walk_documents(struct engine *engine, struct collection *c,
    learn_document_fn *fn, void *arg)
{
    struct page *page = mem_alloc(1, sizeof *page);
    int64_t after = 0;
    bool more = true;
    enum err err = OK;

    if (page == NULL)
        return ERR_NOMEM;
    page->c = c;
    buf_init(&page->texts, LEARN_TEXT_BYTES_MAX);
    while (more) {
        struct db *db;
        page_clear(page);
        err = store_read_begin(engine->store, &db);
        if (err != OK)
            break;
        err = items_walk(db, c->id, after, PAGE, wanted(c), render_item, page);
        store_read_end(engine->store, db);
        if (err != OK || page->n == 0)
            break;
        for (size_t i = 0; i < page->n && more; i++)
            more = fn(arg, page->items[i], page->texts.data + page->start[i],
                page->start[i + 1] - page->start[i]);
        after = page->items[page->n - 1];
    }
    buf_release(&page->texts);
    mem_free(page);
    return err;
}

enum err
learn_documents(struct engine *engine, struct collection *c,
    const int64_t *items, size_t n, struct arena *arena,
    struct encoder_input *out)
{
    struct page *page = mem_alloc(1, sizeof *page);
    enum err err = OK;

    if (page == NULL)
        return ERR_NOMEM;
    page->c = c;
    buf_init(&page->texts, LEARN_TEXT_BYTES_MAX);
    for (size_t first = 0; first < n && err == OK; first += PAGE) {
        size_t count = MIN(n - first, (size_t)PAGE);
        struct db *db;
        page_clear(page);
        err = store_read_begin(engine->store, &db);
        if (err != OK)
            break;
        err = items_get_many(
            db, items + first, count, wanted(c), render_item, page);
        store_read_end(engine->store, db);
        /* rows come in the order asked, without those that are gone */
        size_t got = 0;
        for (size_t i = first; i < first + count && err == OK; i++) {
            out[i] = (struct encoder_input){0};
            if (got == page->n || page->items[got] != items[i])
                continue;
            size_t len = page->start[got + 1] - page->start[got];
            out[i].len = len;
            out[i].text = arena_strndup(
                arena, len > 0 ? page->texts.data + page->start[got] : "", len);
            if (out[i].text == NULL)
                err = ERR_NOMEM;
            got++;
        }
    }
    buf_release(&page->texts);
    mem_free(page);
    return err;
}

/* ---- pictures ------------------------------------------------------------ */

void
learn_form_of(const struct encoder *encoder, struct learn_form *out)
{
    *out = (struct learn_form){.reads = encoder_reads(encoder),
        .side = encoder_image_side(encoder),
        .channels = encoder_image_channels(encoder),
        .dims = encoder_dims(encoder),
        .pretrained = encoder_n_parts(encoder) > 0,
        .n_parts = encoder_n_parts(encoder)};
}

size_t
learn_picture_bytes(const struct learn_form *form)
{
    return (size_t)form->side * form->side * form->channels;
}

enum err
learn_pictures(struct engine *engine, struct collection *c,
    const struct learn_form *form, const int64_t *items, size_t n,
    struct arena *arena, struct encoder_input *out)
{
    uint8_t *pixels = arena_alloc(arena, n, learn_picture_bytes(form));
    struct image *images = arena_calloc(arena, n, sizeof *images);
    enum err err = pixels == NULL || images == NULL
                       ? ERR_NOMEM
                       : pictures_load(c, items, n, form->side, form->channels,
                             engine->tuner_pool, pixels, images);

    for (size_t i = 0; i < n && err == OK; i++)
        out[i] = (struct encoder_input){
            .image = images[i].pixels != NULL ? &images[i] : NULL};
    return err;
}

enum err
learn_inputs(struct engine *engine, struct collection *c,
    const struct learn_form *form, const int64_t *items, size_t n,
    struct arena *arena, struct encoder_input *out)
{
    if (form->reads == ENCODER_READS_IMAGE)
        return learn_pictures(engine, c, form, items, n, arena, out);
    return learn_documents(engine, c, items, n, arena, out);
}

bool
learn_is_absent(const struct encoder_input *input)
{
    return input->image == NULL && (input->text == NULL || input->len == 0);
}

static bool
is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

uint64_t
learn_key(const struct encoder_input *input)
{
    const struct image *image = input->image;
    if (image == NULL) {
        /* a document without a title begins with the template's line break */
        const char *text = input->text;
        size_t len = input->len;
        while (len > 0 && is_space(text[0])) {
            text++;
            len--;
        }
        while (len > 0 && is_space(text[len - 1]))
            len--;
        return hash_bytes(text, len, SEED_CONTENT);
    }
    return hash_bytes(image->pixels,
        (size_t)image->width * image->height * image->channels, SEED_CONTENT);
}

/* ---- labels -------------------------------------------------------------- */

struct labels {
    const char *field;
    const int64_t *items;
    size_t n, next;
    uint64_t *out;
    struct buf value;
};

static enum err
read_label(void *ctx, const struct item_row *row)
{
    struct labels *l = ctx;
    struct json *root;
    const struct json *value;

    while (l->next < l->n && l->items[l->next] != row->item)
        l->next++;
    if (l->next == l->n || row->metadata.s == NULL ||
        json_parse(row->metadata.s, row->metadata.len,
            ENGINE_METADATA_BYTES_MAX, &root, NULL) != OK)
        return OK;
    uint64_t *out = &l->out[l->next++];
    value = json_find(root, l->field);
    if (value != NULL && json_kind(value) != JSON_KIND_NULL) {
        buf_clear(&l->value);
        json_dump(value, &l->value);
        uint64_t hash = hash_bytes(l->value.data, l->value.len, SEED_LABEL);
        *out = MAX(hash, (uint64_t)1); /* 0: none */
    }
    json_free(root);
    return buf_status(&l->value);
}

enum err
learn_labels(struct engine *engine, const char *field, const int64_t *items,
    size_t n, uint64_t *out)
{
    struct labels l = {.field = field, .items = items, .n = n, .out = out};
    enum err err = OK;

    memset(out, 0, n * sizeof *out);
    if (field[0] == '\0')
        return OK;
    buf_init(&l.value, 4 * ENGINE_METADATA_BYTES_MAX);
    for (size_t first = 0; first < n && err == OK; first += PAGE) {
        size_t count = MIN(n - first, (size_t)PAGE);
        struct db *db;
        err = store_read_begin(engine->store, &db);
        if (err != OK)
            break;
        l.next = first;
        err = items_get_many(
            db, items + first, count, ITEM_WANT_METADATA, read_label, &l);
        store_read_end(engine->store, db);
    }
    buf_release(&l.value);
    return err;
}
