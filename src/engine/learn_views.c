/* learn_views.c - how pictures are varied, from JSON and back (learn.h). */
#include <string.h>

#include "base/json.h"
#include "engine/learn.h"

#define VIEWS 14

struct member {
    const char *key;
    double min, max;
    float *value;
};

/* Every member with its range, over the options' fields. */
static void
members_of(struct augment_options *a, struct member out[VIEWS])
{
    const struct member all[VIEWS] = {{"crop_min", 0.01, 1, &a->crop_min},
        {"crop_max", 0.01, 1, &a->crop_max}, {"ratio", 1, 10, &a->ratio},
        {"flip", 0, 1, &a->flip}, {"jitter", 0, 1, &a->jitter},
        {"brightness", 0, 1, &a->brightness}, {"contrast", 0, 1, &a->contrast},
        {"saturation", 0, 1, &a->saturation}, {"hue", 0, 0.5, &a->hue},
        {"grey", 0, 1, &a->grey}, {"blur", 0, 1, &a->blur},
        {"solarise", 0, 1, &a->solarise}, {"rotate", 0, 180, &a->rotate},
        {"erase", 0, 1, &a->erase}};
    memcpy(out, all, sizeof all);
}

enum err
learn_views_read(const struct json *views, const char *at,
    struct augment_options *options, struct fault *fault)
{
    struct augment_options changed = *options;
    struct member members[VIEWS];
    const char *keys[VIEWS];
    char pointer[FAULT_POINTER_MAX];
    enum err err;

    members_of(&changed, members);
    for (size_t i = 0; i < VIEWS; i++)
        keys[i] = members[i].key;
    err = json_only_keys(views, at, keys, VIEWS, fault);
    for (size_t i = 0; i < VIEWS && err == OK; i++) {
        const struct json_range range = {members[i].min, members[i].max, true};
        double v = (double)*members[i].value;
        err = json_get_f64(
            views, at, members[i].key, JSON_OPTIONAL, &range, &v, fault);
        if (err == OK)
            *members[i].value = (float)v;
    }
    if (err != OK)
        return err;
    if (changed.crop_min > changed.crop_max) {
        json_pointer(pointer, at, "crop_min");
        return fault_set(fault, ERR_INVALID, pointer,
            "crop_min %g is above crop_max %g", (double)changed.crop_min,
            (double)changed.crop_max);
    }
    *options = changed;
    return OK;
}

enum err
learn_views_parse(const char *json, const char *at, uint32_t channels,
    struct augment_options *out, struct fault *fault)
{
    struct augment_options options;
    struct json *root;
    enum err err = json_parse(json, strlen(json), 65536, &root, fault);

    if (err != OK)
        return err;
    augment_options_default(&options, channels);
    if (json_kind(root) != JSON_KIND_OBJECT)
        err = fault_set(fault, ERR_INVALID, at, "must be an object");
    if (err == OK)
        err = learn_views_read(root, at, &options, fault);
    json_free(root);
    if (err == OK)
        *out = options;
    return err;
}

void
learn_views_write(const struct augment_options *options, struct buf *out)
{
    struct augment_options copy = *options;
    struct member members[VIEWS];

    members_of(&copy, members);
    for (size_t i = 0; i < VIEWS; i++) {
        buf_printf(out, "%c\"%s\":", i == 0 ? '{' : ',', members[i].key);
        buf_json_float(out, *members[i].value);
    }
    buf_add_char(out, '}');
}
