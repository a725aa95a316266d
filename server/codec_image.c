/* Pictures in requests: base64 in JSON, and what stands in the query of the
   routes whose body is the picture itself. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "server/codec.h"
#include "base/base64.h"
#include "base/json.h"
#include "server/scan.h"

/* ---- base64 in JSON ------------------------------------------------------ */

/* Why the text is not strict base64, in the order of what is worth knowing
   first. */
static enum err
not_base64(const char *s, size_t len, const char *pointer, struct fault *fault)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (len >= 5 && memcmp(s, "data:", 5) == 0)
        return fault_set(fault, ERR_INVALID, pointer,
            "this must be base64 alone, without \"data:...;base64,\"");
    for (size_t i = 0; i < len; i++) {
        bool pad =
            s[i] == '=' && (i + 1 == len || (i + 2 == len && s[i + 1] == '='));
        if (pad || (s[i] != '\0' && strchr(alphabet, s[i])))
            continue;
        if (s[i] == '-' || s[i] == '_')
            return fault_set(fault, ERR_INVALID, pointer,
                "character %zu is of the URL alphabet; base64 with + and / is "
                "taken",
                i);
        return fault_set(fault, ERR_INVALID, pointer,
            "character %zu is not base64 (no white space, padding only at the "
            "end)",
            i);
    }
    if (len % 4 != 0)
        return fault_set(fault, ERR_INVALID, pointer,
            "base64 of %zu characters; padded with = it has a multiple of 4",
            len);
    return fault_set(fault, ERR_INVALID, pointer,
        "the last characters of the base64 hold bits that no encoder sets");
}

static enum err
decode_image(const char *s, size_t len, const char *pointer,
    struct arena *arena, struct engine_image *out, struct fault *fault)
{
    if (len == 0)
        return fault_set(fault, ERR_INVALID, pointer, "the image is empty");
    size_t max = len / 4 * 3 + 3;
    uint8_t *bytes = arena_alloc(arena, max, 1);
    size_t n_bytes = 0;
    if (!bytes)
        return fault_set(fault, ERR_NOMEM, "", "out of memory");
    if (base64_decode(s, len, bytes, max, &n_bytes) != OK)
        return not_base64(s, len, pointer, fault);
    out->bytes = bytes;
    out->n = n_bytes;
    return OK;
}

enum err
codec_get_image(const struct json *object, const char *at,
    const struct scan_slice *slices, size_t n_slices, struct arena *arena,
    struct engine_image *out, bool *null, struct fault *fault)
{
    const struct json *value = json_find(object, "image");
    char pointer[FAULT_POINTER_MAX];
    if (!value)
        return OK;
    if (null && json_kind(value) == JSON_KIND_NULL) {
        *null = true;
        return OK;
    }
    json_pointer(pointer, at, "image");
    const char *s = NULL;
    size_t len = 0;
    struct json *spelt = NULL; /* a string with escapes, parsed */
    if (json_kind(value) == JSON_KIND_STRING) {
        s = json_str(value, &len);
    } else if (json_kind(value) == JSON_KIND_ARRAY && json_count(value) == 1 &&
               json_kind(json_item(value, 0)) == JSON_KIND_INT) {
        int64_t i = json_i64(json_item(value, 0));
        if (i >= 0 && (uint64_t)i < n_slices && slices[i].len >= 2 &&
            slices[i].s[0] == '"') {
            s = slices[i].s + 1;
            len = slices[i].len - 2;
        }
    }
    if (!s)
        return fault_set(fault, ERR_INVALID, pointer,
            "this must be a picture's bytes in base64, as a string");
    /* Some writers escape the slash or the plus; nothing else needs it. */
    if (json_kind(value) != JSON_KIND_STRING && memchr(s, '\\', len)) {
        enum err err = json_parse(s - 1, len + 2, len + 2, &spelt, fault);
        if (err != OK)
            return err;
        s = json_str(spelt, &len);
    }
    enum err err = decode_image(s, len, pointer, arena, out, fault);
    json_free(spelt);
    return err;
}
