#include "settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

bool
setting_add(json_t *object, const char *word)
{
    const char *equals = strchr(word, '=');
    if (equals == NULL || equals == word) {
        complain("\"%s\" is not of the form key=value", word);
        return false;
    }
    const char *text = equals + 1;
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    if (value == NULL)
        value = json_string(text);
    if (value == NULL) {
        complain("\"%s\": the value is not UTF-8", word);
        return false;
    }
    char *key = must_strdup(word);
    key[equals - word] = '\0';
    char *name = key;
    char *dot;
    while ((dot = strchr(name, '.')) != NULL) {
        *dot = '\0';
        json_t *inner = json_object_get(object, name);
        if (!json_is_object(inner)) {
            inner = json_object();
            json_object_set_new(object, name, inner);
        }
        object = inner;
        name = dot + 1;
    }
    json_object_set_new(object, name, value);
    mem_free(key);
    return true;
}

bool
settings_add(json_t *object, const struct text_list *words)
{
    for (size_t i = 0; i < words->n; i++)
        if (!setting_add(object, words->v[i]))
            return false;
    return true;
}

void
print_json(const json_t *value)
{
    char *text =
        json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY |
                              JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    if (text != NULL)
        puts(text);
    free(text);
}

json_int_t
job_id_of(const char *location, const json_t *body)
{
    static const char *const fields[] = {"job", "job_id", "id"};
    const char *slash = location != NULL ? strrchr(location, '/') : NULL;
    if (slash != NULL && slash[1] >= '0' && slash[1] <= '9')
        return strtoll(slash + 1, NULL, 10);
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        const json_t *value = json_object_get(body, fields[i]);
        if (json_is_object(value))
            value = json_object_get(value, "id");
        if (json_is_integer(value) && json_integer_value(value) > 0)
            return json_integer_value(value);
    }
    return 0;
}
