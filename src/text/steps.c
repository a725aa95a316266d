#include "text/steps.h"

#include <stdio.h>
#include <string.h>

static enum err
read_one(const struct json *node, const char *at, const char *list,
    steps_fn *fn, void *arg, struct fault *fault)
{
    const char *type;
    const struct json *items;
    char list_at[FAULT_POINTER_MAX], item_at[FAULT_POINTER_MAX], number[24];
    if (json_kind(node) != JSON_KIND_OBJECT)
        return fault_set(fault, ERR_INVALID, at, "not an object");
    enum err err =
        json_get_str(node, at, "type", JSON_REQUIRED, &type, NULL, fault);
    if (err == OK && strcmp(type, "Sequence") != 0)
        return fn(arg, type, node, at, fault);
    json_pointer(list_at, at, list);
    if (err == OK)
        err = json_get_array(node, at, list, JSON_REQUIRED, &items, fault);
    for (size_t i = 0; err == OK && i < json_count(items); i++) {
        snprintf(number, sizeof number, "%zu", i);
        json_pointer(item_at, list_at, number);
        err = read_one(json_item(items, i), item_at, list, fn, arg, fault);
    }
    return err;
}

enum err
steps_read(const struct json *node, const char *at, const char *list,
    steps_fn *fn, void *arg, struct fault *fault)
{
    if (node == NULL || json_kind(node) == JSON_KIND_NULL)
        return OK;
    return read_one(node, at, list, fn, arg, fault);
}
