#include "pictures.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/base64.h"
#include "base/hash.h"
#include "folder.h"

#define HEAD_BYTES 16
#define KNOWN_TEXT_MAX (SHA256_HEX + 24)

const char *
picture_type(const void *head, size_t n)
{
    static const struct {
        const char *magic;
        size_t n;
        const char *type;
    } types[] = {{"\xff\xd8\xff", 3, "image/jpeg"},
        {"\x89PNG\r\n\x1a\n", 8, "image/png"}};
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (n >= types[i].n && memcmp(head, types[i].magic, types[i].n) == 0)
            return types[i].type;
    if (n >= 12 && memcmp(head, "RIFF", 4) == 0 &&
        memcmp((const char *)head + 8, "WEBP", 4) == 0)
        return "image/webp";
    return NULL;
}

/* ---- finding ------------------------------------------------------------- */

/* What JSON cannot hold as it is would become another name, and two of them
   the same. */
static bool
is_utf8(const char *s)
{
    json_t *made = json_string(s);
    json_decref(made);
    return made != NULL;
}

/* A file that cannot be read is told, and does not stop the walk. */
static void
file_look(void *arg, const char *path, const char *id, uint64_t bytes)
{
    struct pictures *out = arg;
    unsigned char head[HEAD_BYTES];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        complain("%s: %s", path, strerror(errno));
        out->n_unread++;
        return;
    }
    size_t n = fread(head, 1, sizeof(head), file);
    fclose(file);
    if (picture_type(head, n) == NULL) {
        if (ends_with(path, ".txt") || ends_with(path, ".md"))
            out->n_documents++;
        else
            out->n_other++;
        return;
    }
    if (!is_utf8(id)) {
        complain("%s: left alone, its name is not UTF-8", path);
        out->n_other++;
        return;
    }
    /* Room grows by doubling: at the powers of two. */
    if ((out->n & (out->n - 1)) == 0)
        out->v =
            must_realloc(out->v, out->n > 0 ? 2 * out->n : 1, sizeof(*out->v));
    out->v[out->n++] = (struct picture){
        .path = must_strdup(path), .id = must_strdup(id), .bytes = bytes};
    out->bytes += bytes;
}

bool
pictures_find(struct pictures *out, char *const *paths, size_t n)
{
    memset(out, 0, sizeof(*out));
    out->looked = true;
    for (size_t i = 0; i < n; i++) {
        struct stat st;
        if (stat(paths[i], &st) != 0) {
            complain("%s: %s", paths[i], strerror(errno));
            return false;
        }
        if (S_ISREG(st.st_mode)) {
            const char *base = strrchr(paths[i], '/');
            file_look(out, paths[i], base != NULL ? base + 1 : paths[i],
                (uint64_t)st.st_size);
            continue;
        }
        if (S_ISDIR(st.st_mode))
            out->n_unread += folder_walk(paths[i], file_look, out, true);
    }
    return true;
}

void
pictures_release(struct pictures *pictures)
{
    for (size_t i = 0; i < pictures->n; i++) {
        mem_free(pictures->v[i].path);
        mem_free(pictures->v[i].id);
    }
    mem_free(pictures->v);
    json_decref(pictures->known);
    memset(pictures, 0, sizeof(*pictures));
}

/* ---- sending ------------------------------------------------------------- */

bool
file_read(const char *path, size_t bytes_max, struct buf *out)
{
    char block[65536];
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (file == NULL) {
        complain("%s: %s", path, strerror(errno));
        return false;
    }
    bool good = true;
    size_t n;
    while (good && (n = fread(block, 1, sizeof(block), file)) > 0) {
        buf_add(out, block, n);
        good = out->len <= bytes_max;
    }
    if (ferror(file) != 0) {
        complain("%s: %s", path, strerror(errno));
        good = false;
    } else if (!good || buf_status(out) != OK) {
        complain("%s: more than %zu MB", path, bytes_max >> 20);
        good = false;
    }
    if (file != stdin)
        fclose(file);
    return good;
}

/* The service has these bytes under this id. */
static bool
is_known(const struct pictures *pictures, const struct picture *picture,
    const struct buf *bytes)
{
    const char *known =
        json_string_value(json_object_get(pictures->known, picture->id));
    uint8_t hash[SHA256_BYTES];
    char hex[SHA256_HEX];
    char text[KNOWN_TEXT_MAX];
    if (known == NULL)
        return false;
    sha256_of(bytes->data != NULL ? bytes->data : "", bytes->len, hash);
    sha256_hex(hash, hex);
    snprintf(
        text, sizeof(text), "%llu %s", (unsigned long long)bytes->len, hex);
    return strcmp(text, known) == 0;
}

/* ,"metadata":{"FIELD":"the folder that it is in"} */
static void
add_folder(struct buf *out, const char *field, const char *id)
{
    const char *slash = strrchr(id, '/');
    if (field == NULL || slash == NULL)
        return;
    const char *start = slash;
    while (start > id && start[-1] != '/')
        start--;
    buf_add_str(out, ",\"metadata\":{");
    buf_json_cstr(out, field);
    buf_add_char(out, ':');
    buf_json_string(out, start, (size_t)(slash - start));
    buf_add_char(out, '}');
}

enum input_got
pictures_next(struct pictures *pictures, struct buf *out)
{
    enum input_got got = INPUT_END;
    struct buf bytes;
    buf_init(&bytes, INPUT_RECORD_MAX);
    while (got == INPUT_END && pictures->at < pictures->n) {
        struct picture *picture = &pictures->v[pictures->at++];
        pictures->done += picture->bytes;
        size_t line = base64_encoded_len((size_t)picture->bytes) +
                      6 * strlen(picture->id) + 256;
        bool has_item = json_object_get(pictures->known, picture->id) != NULL;
        if (picture->bytes >= INPUT_RECORD_MAX ||
            (line > pictures->line_max && !has_item)) {
            picture->aside = true;
            pictures->n_aside++;
            continue;
        }
        buf_clear(&bytes);
        if (!file_read(picture->path, INPUT_RECORD_MAX - 1, &bytes)) {
            got = INPUT_FAILED;
        } else if (is_known(pictures, picture, &bytes)) {
            pictures->n_unchanged++;
        } else if (has_item) {
            /* Only its picture is new: the rest of the item stays. */
            picture->aside = true;
            pictures->n_aside++;
        } else {
            buf_add_str(out, "{\"id\":");
            buf_json_cstr(out, picture->id);
            add_folder(out, pictures->field, picture->id);
            buf_add_str(out, ",\"image\":\"");
            base64_encode(out, bytes.data != NULL ? bytes.data : "", bytes.len);
            buf_add_str(out, "\"}\n");
            got = INPUT_RECORD;
        }
    }
    buf_release(&bytes);
    return got;
}
