/*
 * published.c - import: a folder's files in turn, and what its readers share.
 */
#include "model/published.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fsio.h"
#include "model/published_parts.h"
#include "text/tokenizer.h"

#define DIGITS_MAX 18

enum err
published_blame(enum err err, const char *file, struct fault *fault)
{
    struct fault why;

    if (err == ERR_SYNTAX)
        err = ERR_INVALID;
    if (fault == NULL || err == OK || err == ERR_NOMEM)
        return err;
    why = *fault;
    return fault_set(fault, err, "", "%s: %s%s%s", file, why.pointer,
        why.pointer[0] == '\0' ? "" : ": ", why.detail);
}

enum err
published_path(char out[PUBLISHED_PATH_MAX], const char *folder,
    const char *name, struct fault *fault)
{
    int n = snprintf(out, PUBLISHED_PATH_MAX, "%s%s%s", folder,
        folder[0] == '\0' ? "" : "/", name);

    if (n < 0 || n >= PUBLISHED_PATH_MAX)
        return fault_set(fault, ERR_INVALID, "",
            "a path of more than %d bytes: %.64s...", PUBLISHED_PATH_MAX - 1,
            folder);
    return OK;
}

/* A file as an object. */
static enum err
parse_object(struct json **out, const struct buf *file, struct fault *fault)
{
    struct json *tree = NULL;
    enum err err = json_parse(file->len == 0 ? "" : file->data, file->len,
        PUBLISHED_FILE_MAX, &tree, fault);

    if (err == OK && json_kind(tree) != JSON_KIND_OBJECT)
        err = fault_set(fault, ERR_INVALID, "", "not a JSON object");
    if (err == OK)
        *out = tree;
    else
        json_free(tree);
    return err;
}

enum err
published_json(struct json **out, const struct published_source *from,
    const char *folder, const char *name, enum json_need need,
    struct fault *fault)
{
    char path[PUBLISHED_PATH_MAX];
    struct buf file;
    enum err err = published_path(path, folder, name, fault);

    *out = NULL;
    if (err != OK)
        return err;
    buf_init(&file, PUBLISHED_FILE_MAX);
    err = from->read(from->arg, path, &file, fault);
    if (err == ERR_NOT_FOUND && need == JSON_OPTIONAL)
        err = OK;
    else if (err == OK)
        err = parse_object(out, &file, fault);
    buf_release(&file);
    return published_blame(err, path, fault);
}

/* Drop the digits of numbers from the nineteenth on. */
static void
shorten_numbers(struct buf *text)
{
    size_t to = 0, digits = 0;
    bool quoted = false;

    for (size_t i = 0; i < text->len; i++) {
        char c = text->data[i];
        if (c == '"')
            quoted = !quoted;
        digits = !quoted && c >= '0' && c <= '9' ? digits + 1 : 0;
        if (digits > DIGITS_MAX)
            continue;
        text->data[to++] = c;
        if (quoted && c == '\\' && i + 1 < text->len)
            text->data[to++] = text->data[++i];
    }
    text->len = to;
}

enum err
published_tokenizer_config(struct json **out,
    const struct published_source *from, const char *folder,
    struct fault *fault)
{
    char path[PUBLISHED_PATH_MAX];
    struct buf file;
    enum err err = published_path(path, folder, "tokenizer_config.json", fault);

    *out = NULL;
    if (err != OK)
        return err;
    buf_init(&file, PUBLISHED_FILE_MAX);
    err = from->read(from->arg, path, &file, fault);
    if (err == OK) {
        shorten_numbers(&file);
        err = parse_object(out, &file, fault);
    } else if (err == ERR_NOT_FOUND) {
        err = OK;
    }
    buf_release(&file);
    return published_blame(err, path, fault);
}

/* ---------------------------------------------------------------- import */

/* A regular file below the folder arg. */
static enum err
read_file(void *arg, const char *path, struct buf *out, struct fault *fault)
{
    struct stat info;
    char full[4096];
    int n = snprintf(full, sizeof full, "%s/%s", (const char *)arg, path);

    if (n < 0 || (size_t)n >= sizeof full)
        return fault_set(fault, ERR_INVALID, "", "the path is too long");
    if (stat(full, &info) != 0)
        return errno == ENOENT || errno == ENOTDIR
                   ? fault_set(fault, ERR_NOT_FOUND, "", "not there")
                   : fault_set(fault, ERR_IO, "", "cannot be looked at");
    if (!S_ISREG(info.st_mode))
        return fault_set(fault, ERR_INVALID, "", "not a regular file");
    if (info.st_size < 0 || (uint64_t)info.st_size > out->max_bytes)
        return fault_set(fault, ERR_TOO_LARGE, "", "%lld bytes, at most %zu",
            (long long)info.st_size, out->max_bytes);
    return fsio_read(full, out, fault);
}

enum err
published_import(struct encoder **out, const char *dir, struct buf *card,
    struct fault *fault)
{
    struct published_plan plan;
    struct encoder *encoder = NULL;
    struct buf asset, said;
    char path[4096];
    int n = snprintf(path, sizeof path, "%s", dir);
    const struct published_source source = {read_file, path};

    if (n < 0 || (size_t)n >= sizeof path)
        return fault_set(fault, ERR_INVALID, "", "the path is too long");
    buf_init(&asset, TOKENIZER_FILE_BYTES_MAX);
    buf_init(&said, PUBLISHED_FILE_MAX);
    enum err err = published_plan_read(&plan, &source, fault);
    if (err == OK)
        err = published_tokenizer_read(&asset, &plan, &source, fault);
    if (err == OK)
        err = published_card_read(&said, &plan, &source, fault);
    if (err == OK)
        err = published_blame(
            encoder_build(&encoder, "transformer", plan.settings.data,
                asset.data, asset.len, fault),
            "config.json", fault);
    if (err == OK)
        err = published_weights_read(encoder, dir, &plan, fault);
    if (err == OK && card != NULL) {
        buf_add(card, said.data, said.len);
        err = buf_status(card);
    }
    if (err == OK) {
        encoder_seal(encoder);
        *out = encoder;
        encoder = NULL;
    }
    encoder_free(encoder);
    published_plan_release(&plan);
    buf_release(&asset);
    buf_release(&said);
    return err;
}
