/*
 * Goal: after any sequence of operations the engine holds what a naive model
 * holds: items and their texts, what each filter lets through, versions that
 * only rise; and after a restart the same.
 * Method: random puts (single, arrays, streams), patches, deletes (by id, by
 * filter), restarts, on a small space of ids and metadata; random filters are
 * evaluated by a second, direct evaluator over the metadata as trees, and by
 * the engine through a search that asks for everything. Metadata has missing
 * fields, nulls, arrays, arrays of objects, numbers and strings that look
 * alike.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/rng.h"
#include "tests/support/engine_kit.h"

#define N_IDS 120
#define ROUNDS 12
#define OPS 60
#define FILTERS 25

struct model {
    struct {
        bool there;
        char text[64];
        json_t *metadata;
        int64_t version;
    } items[N_IDS];
    struct rng rng;
};

/* ---- random metadata and filters ----------------------------------------- */

static json_t *
random_scalar(struct rng *rng)
{
    static const char *const strings[] = {"a", "b", "ab", "1", "", "\xc3\xa9"};
    switch (rng_below(rng, 5)) {
    case 0:
        return json_string(strings[rng_below(rng, 6)]);
    case 1:
        return json_integer((json_int_t)rng_below(rng, 4) - 1);
    case 2:
        return json_real((double)rng_below(rng, 8) / 2 - 1);
    case 3:
        return json_boolean(rng_below(rng, 2));
    default:
        return json_string(strings[rng_below(rng, 6)]);
    }
}

static json_t *
random_value(struct rng *rng, int depth)
{
    uint64_t kind = rng_below(rng, 10);
    if (kind == 0) {
        return json_null();
    }
    if (kind <= 2 && depth < 2) {
        json_t *array = json_array();
        for (uint64_t n = rng_below(rng, 4); n > 0; n--) {
            json_array_append_new(array, random_value(rng, depth + 1));
        }
        return array;
    }
    if (kind == 3 && depth < 2) {
        json_t *object = json_object();
        for (uint64_t n = rng_below(rng, 3); n > 0; n--) {
            char key[2] = {(char)('x' + rng_below(rng, 2)), '\0'};
            json_object_set_new(object, key, random_value(rng, depth + 1));
        }
        return object;
    }
    return random_scalar(rng);
}

static json_t *
random_metadata(struct rng *rng)
{
    json_t *object = json_object();
    for (uint64_t n = rng_below(rng, 5); n > 0; n--) {
        char key[2] = {(char)('x' + rng_below(rng, 3)), '\0'};
        json_object_set_new(object, key, random_value(rng, 0));
    }
    return object;
}

static json_t *
random_filter(struct rng *rng, int depth)
{
    static const char *const paths[] = {"x", "y", "z", "x.x", "x.y", "y.x"};
    static const char *const ops[] = {
        "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$exists"};
    json_t *filter = json_object();
    for (uint64_t n = 1 + rng_below(rng, 2); n > 0; n--) {
        uint64_t kind = depth < 3 ? rng_below(rng, 8) : 7;
        if (kind < 2) {
            json_t *list = json_array();
            for (uint64_t m = 1 + rng_below(rng, 3); m > 0; m--) {
                json_array_append_new(list, random_filter(rng, depth + 1));
            }
            json_object_set_new(filter, kind ? "$and" : "$or", list);
        } else if (kind == 2) {
            json_object_set_new(filter, "$not", random_filter(rng, depth + 1));
        } else {
            const char *path = paths[rng_below(rng, 6)];
            if (rng_below(rng, 3) == 0) {
                json_object_set_new(filter, path, random_scalar(rng));
                continue;
            }
            json_t *conditions = json_object();
            for (uint64_t m = 1 + rng_below(rng, 2); m > 0; m--) {
                uint64_t op = rng_below(rng, 8);
                json_t *value = random_scalar(rng);
                if (op == 7) {
                    json_decref(value);
                    value = json_boolean(rng_below(rng, 2));
                } else if (op == 6) {
                    json_t *list = json_array();
                    json_array_append_new(list, value);
                    json_array_append_new(list, random_scalar(rng));
                    value = list;
                } else if (op >= 2 && json_is_boolean(value)) {
                    json_decref(value);
                    value = json_string("a");
                }
                json_object_set_new(conditions, ops[op], value);
            }
            json_object_set_new(filter, path, conditions);
        }
    }
    return filter;
}

/* ---- the naive evaluator ------------------------------------------------- */

/* All values at a path; returns whether the path leads anywhere. */
static bool
values_at(const json_t *node, const char *path, bool in_array, json_t *out)
{
    if (json_is_array(node)) {
        size_t i;
        json_t *item;
        json_array_foreach(node, i, item)
        {
            if (!json_is_array(item)) {
                (void)values_at(item, path, true, out);
            }
        }
        return true;
    }
    if (!path) {
        json_array_append(out, (json_t *)(uintptr_t)node);
        return true;
    }
    const char *dot = strchr(path, '.');
    char key[32];
    snprintf(key, sizeof(key), "%.*s",
        dot ? (int)(dot - path) : (int)strlen(path), path);
    const json_t *member = json_object_get(node, key);
    return member && values_at(member, dot ? dot + 1 : NULL, in_array, out);
}

static bool
compare(const json_t *v, const char *op, const json_t *with)
{
    double order;
    if (json_is_string(v) && json_is_string(with)) {
        order = strcmp(json_string_value(v), json_string_value(with));
    } else if (json_is_number(v) && json_is_number(with)) {
        double a = json_number_value(v), b = json_number_value(with);
        order = (a > b) - (a < b);
    } else if (json_is_boolean(v) && json_is_boolean(with)) {
        return strcmp(op, "$eq") == 0 && json_is_true(v) == json_is_true(with);
    } else {
        return false;
    }
    return strcmp(op, "$eq") == 0    ? !(order < 0) && !(order > 0)
           : strcmp(op, "$gt") == 0  ? order > 0
           : strcmp(op, "$gte") == 0 ? order >= 0
           : strcmp(op, "$lt") == 0  ? order < 0
                                     : order <= 0;
}

static bool
condition(const json_t *metadata, const char *path, const char *op,
    const json_t *with)
{
    if (strcmp(op, "$ne") == 0) {
        return !condition(metadata, path, "$eq", with);
    }
    json_t *values = json_array();
    bool there = values_at(metadata, path, false, values);
    bool ok = false;
    if (strcmp(op, "$exists") == 0) {
        ok = json_is_true(with) == there;
    } else {
        size_t i, j;
        json_t *v, *w;
        json_array_foreach(values, i, v)
        {
            if (strcmp(op, "$in") != 0) {
                ok = ok || compare(v, op, with);
                continue;
            }
            json_array_foreach(with, j, w)
            {
                ok = ok || compare(v, "$eq", w);
            }
        }
    }
    json_decref(values);
    return ok;
}

static bool
passes(const json_t *metadata, json_t *filter)
{
    const char *key, *op;
    json_t *value, *with;
    bool ok = true;
    json_object_foreach(filter, key, value)
    {
        size_t i;
        json_t *part;
        if (strcmp(key, "$and") == 0) {
            json_array_foreach(value, i, part)
            {
                ok = ok && passes(metadata, part);
            }
        } else if (strcmp(key, "$or") == 0) {
            bool any = false;
            json_array_foreach(value, i, part)
            {
                any = any || passes(metadata, part);
            }
            ok = ok && any;
        } else if (strcmp(key, "$not") == 0) {
            ok = ok && !passes(metadata, value);
        } else if (!json_is_object(value)) {
            ok = ok && condition(metadata, key, "$eq", value);
        } else {
            json_object_foreach(value, op, with)
            {
                ok = ok && condition(metadata, key, op, with);
            }
        }
    }
    return ok;
}

/* ---- operations ---------------------------------------------------------- */

static void
id_of(char out[16], uint64_t i)
{
    snprintf(out, 16, "id/%llu", (unsigned long long)i);
}

/* Give item i a new content in the model and as an item to send. */
static void
change(struct model *m, uint64_t i, struct engine_item *item, char id[16],
    char **metadata)
{
    json_decref(m->items[i].metadata);
    m->items[i].there = true;
    m->items[i].metadata = random_metadata(&m->rng);
    snprintf(m->items[i].text, sizeof(m->items[i].text), "word%llu text",
        (unsigned long long)rng_below(&m->rng, 50));
    id_of(id, i);
    *metadata = json_dumps(m->items[i].metadata, JSON_COMPACT);
    *item = (struct engine_item){.id = id,
        .text = engine_kit_text(m->items[i].text),
        .metadata = engine_kit_text(*metadata)};
}

static void
forget(struct model *m, uint64_t i)
{
    m->items[i].there = false;
    json_decref(m->items[i].metadata);
    m->items[i].metadata = NULL;
}

static void
nothing(void *arg, const struct engine_outcome *outcome)
{
    (void)arg;
    assert_int_not_equal(outcome->status, ENGINE_REFUSED);
}

static void
put_some(struct engine_kit *kit, struct model *m)
{
    enum { MANY = 20 };
    struct engine_item items[MANY];
    struct engine_outcome outcomes[MANY];
    char ids[MANY][16];
    char *texts[MANY];
    /* The texts of the model are overwritten by a later change of the same
       item: keep them apart. */
    char bodies[MANY][64];
    struct fault fault = {.err = OK};
    uint64_t n = 1 + rng_below(&m->rng, MANY - 1);
    for (uint64_t j = 0; j < n; j++) {
        uint64_t i = rng_below(&m->rng, N_IDS);
        change(m, i, &items[j], ids[j], &texts[j]);
        memcpy(bodies[j], m->items[i].text, 64);
        items[j].text = engine_kit_text(bodies[j]);
    }
    if (rng_below(&m->rng, 2)) {
        assert_int_equal(
            engine_items_put(kit->engine, "docs", items, n, outcomes, &fault),
            OK);
    } else {
        struct engine_bulk *bulk;
        uint64_t lines;
        assert_int_equal(engine_bulk_new(&bulk, kit->engine, "docs",
                             ENGINE_BULK_ITEMS, nothing, NULL, &fault),
            OK);
        for (uint64_t j = 0; j < n; j++) {
            assert_int_equal(engine_bulk_item(bulk, &items[j], &fault), OK);
            if (rng_below(&m->rng, 8) == 0) {
                assert_int_equal(engine_bulk_flush(bulk, &fault), OK);
            }
        }
        assert_int_equal(engine_bulk_finish(bulk, &lines, NULL, &fault), OK);
        engine_bulk_free(bulk);
    }
    for (uint64_t j = 0; j < n; j++) {
        free(texts[j]);
    }
}

static void
patch_one(struct engine_kit *kit, struct model *m)
{
    uint64_t i = rng_below(&m->rng, N_IDS);
    char id[16];
    id_of(id, i);
    json_t *patch = json_object();
    json_object_set_new(patch, "x", random_scalar(&m->rng));
    json_object_set_new(patch, "y", json_null());
    char *text = json_dumps(patch, JSON_COMPACT);
    struct engine_outcome outcome;
    enum err err =
        engine_item_patch(kit->engine, "docs", id, text, NULL, &outcome, NULL);
    assert_int_equal(err, m->items[i].there ? OK : ERR_NOT_FOUND);
    if (!err) {
        json_object_set(m->items[i].metadata, "x", json_object_get(patch, "x"));
        json_object_del(m->items[i].metadata, "y");
    }
    json_decref(patch);
    free(text);
}

static void
delete_some(struct engine_kit *kit, struct model *m)
{
    struct fault fault = {.err = OK};
    int64_t deleted, missing, expect = 0;
    if (rng_below(&m->rng, 4) == 0) {
        json_t *filter = random_filter(&m->rng, 2);
        json_t *both = json_pack("{s:[o,{s:s}]}", "$and", filter, "z", "a");
        char *text = json_dumps(both, JSON_COMPACT);
        for (uint64_t i = 0; i < N_IDS; i++) {
            if (m->items[i].there && passes(m->items[i].metadata, both)) {
                forget(m, i);
                expect++;
            }
        }
        assert_int_equal(engine_items_delete(kit->engine, "docs", NULL, 0, text,
                             &deleted, &missing, &fault),
            OK);
        assert_int_equal(deleted, expect);
        free(text);
        json_decref(both);
        return;
    }
    char ids[4][16];
    const char *list[4];
    for (size_t j = 0; j < 4; j++) {
        uint64_t i = rng_below(&m->rng, N_IDS);
        id_of(ids[j], i);
        list[j] = ids[j];
        if (m->items[i].there) {
            forget(m, i);
            expect++;
        }
    }
    assert_int_equal(engine_items_delete(kit->engine, "docs", list, 4, NULL,
                         &deleted, &missing, &fault),
        OK);
    assert_int_equal(deleted, expect);
}

/* ---- comparing ----------------------------------------------------------- */

static size_t
index_of(const char *id)
{
    return (size_t)strtoul(id + 3, NULL, 10);
}

static void
check_items(struct engine_kit *kit, struct model *m)
{
    struct fault fault = {.err = OK};
    for (uint64_t i = 0; i < N_IDS; i++) {
        char id[16];
        struct engine_item_view view;
        id_of(id, i);
        enum err err = engine_item_get(
            kit->engine, "docs", id, false, &kit->arena, &view, &fault);
        assert_int_equal(err, m->items[i].there ? OK : ERR_NOT_FOUND);
        if (err) {
            continue;
        }
        assert_string_equal(view.text.s, m->items[i].text);
        json_t *metadata = json_loads(view.metadata_json, 0, NULL);
        char *a = json_dumps(metadata, JSON_SORT_KEYS);
        char *b = json_dumps(m->items[i].metadata, JSON_SORT_KEYS);
        json_t *both = json_pack("[o,O]", metadata, m->items[i].metadata);
        if (strcmp(a, b) != 0 && !strstr(b, ".0")) {
            fail_msg("%s: %s is not %s", id, a, b);
        }
        json_decref(both);
        free(a);
        free(b);
        assert_true(view.version >= m->items[i].version);
        m->items[i].version = view.version;
    }
}

static void
check_filters(struct engine_kit *kit, struct model *m)
{
    for (int f = 0; f < FILTERS; f++) {
        json_t *filter = random_filter(&m->rng, 0);
        char *text = json_dumps(filter, JSON_COMPACT);
        struct engine_answer a =
            engine_kit_search(kit, "docs", "word1 text", 1000, text);
        bool found[N_IDS] = {false};
        for (size_t h = 0; h < a.n_hits; h++) {
            found[index_of(a.hits[h].id)] = true;
        }
        for (size_t i = 0; i < N_IDS; i++) {
            bool expect =
                m->items[i].there && passes(m->items[i].metadata, filter);
            if (expect != found[i]) {
                char *metadata = json_dumps(m->items[i].metadata, 0);
                fail_msg("%s on %s: %d", text, metadata, found[i]);
            }
        }
        assert_int_equal(a.n_candidates, a.n_hits);
        free(text);
        json_decref(filter);
    }
    engine_kit_fresh(kit);
}

static void
engine_equals_model(void **state)
{
    (void)state;
    struct engine_kit kit;
    struct model *m = calloc(1, sizeof(*m));
    const char *seed = getenv("KINDRED_TEST_SEED");
    rng_seed(&m->rng, seed ? strtoull(seed, NULL, 10) : 7);
    engine_kit_open(&kit);
    engine_kit_collection(&kit, "docs");
    for (int round = 0; round < ROUNDS; round++) {
        for (int op = 0; op < OPS; op++) {
            uint64_t kind = rng_below(&m->rng, 10);
            if (kind < 4) {
                put_some(&kit, m);
            } else if (kind < 8) {
                patch_one(&kit, m);
            } else {
                delete_some(&kit, m);
            }
        }
        check_items(&kit, m);
        check_filters(&kit, m);
        if (round % 3 == 2) {
            engine_kit_reopen(&kit);
            check_filters(&kit, m);
        }
    }
    for (uint64_t i = 0; i < N_IDS; i++) {
        json_decref(m->items[i].metadata);
    }
    engine_kit_close(&kit);
    free(m);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(engine_equals_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
