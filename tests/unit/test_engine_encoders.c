/*
 * Goal: an imported encoder is kept once, under its name; collections start
 * from it with settings of use of their own and share it in memory; what a
 * generation has of it is loaded, exported, rolled back to and refused like
 * weights of its own; its name is a model; folders leave nothing behind.
 * Method: a small transformer behind the functions that read and write
 * published folders; refusals case by case; restarts; a second data folder.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/rng.h"
#include "base/tarball.h"
#include "model/published.h"
#include "store/db.h"
#include "engine/internal.h"
#include "tests/support/engine_kit.h"

#define DIMS 16
#define CARD "{\"source\":\"test\",\"license\":null,\"languages\":[\"en\"]}"

/* ---- published folders, in outline ----------------------------------------
 */

static const char tokenizer[] =
    "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"[CLS]\":1,"
    "\"[SEP]\":2,\"a\":3,\"green\":4,\"blue\":5,\"pear\":6,\"plum\":7,"
    "\"query\":8,\":\":9,\"lathe\":10,\"metal\":11}},\"pre_tokenizer\":"
    "{\"type\":\"WhitespaceSplit\"},\"post_processor\":{\"type\":"
    "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"[CLS]\"}},"
    "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"[SEP]\"}}],"
    "\"special_tokens\":{\"[CLS]\":{\"ids\":[1]},\"[SEP]\":{\"ids\":[2]}}}}";

static struct encoder *
make_encoder(uint64_t seed)
{
    struct fault fault = {.err = OK};
    struct encoder *encoder;
    struct rng rng;
    size_t n;
    enum err err = encoder_build(&encoder, "transformer",
        "{\"layers\":1,\"hidden\":16,\"heads\":1,\"ffn\":32,\"vocab\":12,"
        "\"max_positions\":24,\"norm_eps\":1e-7,\"max_tokens\":20}",
        tokenizer, sizeof(tokenizer) - 1, &fault);
    if (err) {
        fail_msg("build: %s %s", fault.pointer, fault.detail);
    }
    float *params = encoder_params(encoder, &n);
    rng_seed(&rng, seed);
    for (size_t i = 0; i < n; i++) {
        params[i] = (float)rng_normal(&rng) * 0.3f;
    }
    encoder_seal(encoder);
    return encoder;
}

/* A folder is named by the seed of its encoder. */
enum err
published_import(struct encoder **out, const char *dir, struct buf *card,
    struct fault *fault)
{
    unsigned seed = 0;
    if (sscanf(dir, "seed %u", &seed) != 1) {
        return fault_set(fault, ERR_NOT_FOUND, "/model.safetensors",
            "there is no model.safetensors");
    }
    *out = make_encoder(seed);
    buf_add_str(card, CARD);
    return buf_status(card);
}

static bool export_fails;

enum err
published_export(const struct encoder *encoder, const char *dir,
    const char *name, const char *card, struct fault *fault)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "%s\n%s\n%s", name, card ? card : "none",
        encoder_config_json(encoder));
    assert_int_equal(fclose(f), 0);
    return export_fails ? fault_set(fault, ERR_UNSUPPORTED, "", "no such form")
                        : OK;
}

/* ---- calls ----------------------------------------------------------------
 */

static struct engine_encoder
import(struct engine_kit *kit, const char *name, const char *dir)
{
    struct fault fault = {.err = OK};
    struct engine_encoder info;
    bool created = false;
    enum err err = engine_encoder_import(
        kit->engine, name, dir, &created, &kit->arena, &info, &fault);
    if (err) {
        fail_msg("import: %s %s", err_text(err), fault.detail);
    }
    assert_true(created);
    return info;
}

static enum err
put(struct engine_kit *kit, const char *name, const char *settings,
    bool *created, struct engine_collection_info *info, struct fault *fault)
{
    *fault = (struct fault){.err = OK};
    return engine_collection_put(
        kit->engine, name, settings, created, &kit->arena, info, fault);
}

static struct engine_collection_info
make(struct engine_kit *kit, const char *name, const char *settings)
{
    struct engine_collection_info info;
    struct fault fault;
    bool created = false;
    enum err err = put(kit, name, settings, &created, &info, &fault);
    if (err) {
        fail_msg("%s: %s %s", settings, fault.pointer, fault.detail);
    }
    assert_true(created);
    return info;
}

static const struct encoder *
live_encoder(struct engine_kit *kit, const char *name)
{
    struct collection *c;
    assert_int_equal(collection_find(kit->engine, name, &c, NULL), OK);
    struct snapshot *live = collection_live(c);
    const struct encoder *encoder = encoder_ref_get(live->encoder);
    snapshot_unref(live); /* the collection has it */
    collection_unref(c);
    return encoder;
}

static struct engine_generation
generation(struct engine_kit *kit, const char *name, int64_t number)
{
    struct engine_generation g;
    assert_int_equal(
        engine_generation_get(kit->engine, name, number, &kit->arena, &g, NULL),
        OK);
    return g;
}

/* All that a stream gives. */
static void
drain(struct engine_stream *stream, struct buf *out)
{
    bool end = false;
    buf_init(out, 64 << 20);
    while (!end) {
        assert_int_equal(engine_stream_next(stream, out, &end, NULL), OK);
    }
    assert_int_equal(engine_stream_bytes(stream), out->len);
    engine_stream_free(stream);
}

static enum err
append(void *arg, const void *bytes, size_t n)
{
    buf_add(arg, bytes, n);
    return OK;
}

static void
expect_pear(struct engine_kit *kit, const char *collection)
{
    struct engine_answer answer =
        engine_kit_search(kit, collection, "a green pear", 1, NULL);
    assert_int_equal(answer.n_hits, 1);
    assert_string_equal(answer.hits[0].id, "pear");
}

static void
fill(struct engine_kit *kit, const char *collection)
{
    engine_kit_put(kit, collection, "pear", "a green pear", NULL);
    engine_kit_put(kit, collection, "plum", "a blue plum", NULL);
    engine_kit_put(kit, collection, "lathe", "lathe metal", NULL);
}

/* A trained successor goes live. */
static void
promote_other(struct engine_kit *kit, const char *name)
{
    struct fault fault = {.err = OK};
    struct candidate candidate = {.temperature = 0.07, .seed = 3};
    struct reembed_options options = {.pool = NULL};
    struct snapshot *shadow;
    struct collection *c;
    size_t n;
    assert_int_equal(collection_find(kit->engine, name, &c, NULL), OK);
    assert_int_equal(
        encoder_clone(&candidate.encoder, live_encoder(kit, name)), OK);
    float *params = encoder_params(candidate.encoder, &n);
    for (size_t i = 0; i < n; i += 2) {
        params[i] *= 1.01f;
    }
    assert_int_equal(lineage_register(c, &candidate, 0, &shadow, &fault), OK);
    assert_int_equal(reembed_run(c, shadow, &options), OK);
    assert_int_equal(lineage_publish(c, shadow, 0.07, NULL, NULL, JOB_PROMOTED,
                         NULL, &fault),
        OK);
    snapshot_unref(shadow);
    collection_unref(c);
}

static size_t
count_encoder_rows(struct engine_kit *kit)
{
    int64_t n = 0;
    struct db *db;
    assert_int_equal(store_read_begin(kit->engine->store, &db), OK);
    assert_int_equal(db_get_int(db, "SELECT count(*) FROM encoders", &n), OK);
    store_read_end(kit->engine->store, db);
    return (size_t)n;
}

static size_t
count_left(const struct engine_kit *kit)
{
    DIR *dir = opendir(kit->dir);
    struct dirent *entry;
    size_t n = 0;
    while ((entry = readdir(dir)) != NULL) {
        n += strncmp(entry->d_name, "folder-", 7) == 0 ||
             strncmp(entry->d_name, "spool-", 6) == 0;
    }
    closedir(dir);
    return n;
}

static void
check_store(struct engine_kit *kit)
{
    struct fault fault = {.err = OK};
    if (store_check(kit->engine->store, &fault)) {
        fail_msg("%s", fault.detail);
    }
}

/* ---- under a name ---------------------------------------------------------
 */

static void
test_import(void **state)
{
    static const struct {
        const char *name, *dir;
        enum err err;
        const char *word;
    } refusals[] = {{"", "seed 1", ERR_INVALID, "name"},
        {"a/b", "seed 1", ERR_INVALID, "name"},
        {"static", "seed 1", ERR_INVALID, "family"},
        {"vision", "seed 1", ERR_INVALID, "family"},
        {"external", "seed 1", ERR_INVALID, "family"},
        {"transformer", "seed 1", ERR_INVALID, "family"},
        {"mini", "seed 2", ERR_CONFLICT, "another encoder"},
        {"new", "nothing", ERR_NOT_FOUND, "no model.safetensors"}};
    struct engine_kit kit;
    struct engine_encoder info, *list;
    struct encoder *encoder = make_encoder(1);
    uint8_t print[SHA256_BYTES];
    char hex[SHA256_HEX];
    bool created;
    size_t n, n_params;
    (void)state;

    engine_kit_open(&kit);
    assert_int_equal(
        engine_encoders_list(kit.engine, &kit.arena, &list, &n, NULL), OK);
    assert_int_equal(n, 0);
    info = import(&kit, "mini", "seed 1");
    encoder_fingerprint(encoder, print);
    sha256_hex(print, hex);
    (void)encoder_params_const(encoder, &n_params);
    for (int round = 0; round < 2; round++) {
        assert_string_equal(info.name, "mini");
        assert_string_equal(info.family, "transformer");
        assert_string_equal(info.reads, "text");
        assert_int_equal(info.dims, DIMS);
        assert_int_equal(info.max_tokens, 20);
        assert_int_equal(info.n_params, n_params);
        assert_int_equal(info.weights_bytes, encoder_save_bytes(encoder));
        assert_string_equal(info.fingerprint, hex);
        assert_string_equal(info.config_json, encoder_config_json(encoder));
        assert_string_equal(info.card_json, CARD);
        assert_true(info.created_ms > 0);
        assert_int_equal(info.n_collections, 0);
        created = true; /* again: confirmed */
        assert_int_equal(engine_encoder_import(kit.engine, "mini", "seed 1",
                             &created, &kit.arena, &info, NULL),
            OK);
        assert_false(created);
        engine_kit_reopen(&kit);
    }
    for (size_t i = 0; i < sizeof(refusals) / sizeof(*refusals); i++) {
        struct fault fault = {.err = OK};
        assert_int_equal(
            engine_encoder_import(kit.engine, refusals[i].name, refusals[i].dir,
                &created, &kit.arena, &info, &fault),
            refusals[i].err);
        if (!strstr(fault.detail, refusals[i].word)) {
            fail_msg("%s: %s", refusals[i].name, fault.detail);
        }
    }
    import(&kit, "again", "seed 1");
    import(&kit, "zoo", "seed 2");
    assert_int_equal(
        engine_encoders_list(kit.engine, &kit.arena, &list, &n, NULL), OK);
    assert_int_equal(n, 3);
    assert_string_equal(list[0].name, "again");
    assert_string_equal(list[1].name, "mini");
    assert_string_equal(list[2].name, "zoo");
    assert_int_equal(engine_encoder_delete(kit.engine, "again", NULL), OK);
    assert_int_equal(
        engine_encoder_delete(kit.engine, "again", NULL), ERR_NOT_FOUND);
    assert_int_equal(
        engine_encoder_get(kit.engine, "again", &kit.arena, &info, NULL),
        ERR_NOT_FOUND);
    check_store(&kit);
    encoder_free(encoder);
    engine_kit_close(&kit);
}

static enum err
op_partial(struct db *db, void *arg)
{
    struct encoder_facts facts = {.name = store_text_of("half"),
        .family = store_text_of("transformer"),
        .config = store_text_of("{}"),
        .dims = DIMS};
    return encoders_create(db, &facts, 1, arg);
}

/* What an import could not take back goes when the next one starts. */
static void
test_after_a_failure(void **state)
{
    struct engine_kit kit;
    int64_t id;
    (void)state;

    engine_kit_open(&kit);
    assert_int_equal(store_run(kit.engine->store, op_partial, &id), OK);
    assert_int_equal(count_encoder_rows(&kit), 1);
    import(&kit, "mini", "seed 1");
    for (int i = 0; i < 500 && count_encoder_rows(&kit) > 1; i++) {
        clock_sleep_ms(10); /* the keeper's purge */
    }
    assert_int_equal(count_encoder_rows(&kit), 1);
    engine_kit_close(&kit);
}

/* What a crash left goes at the next start: half an import, folders. */
static void
test_after_a_crash(void **state)
{
    struct engine_kit kit;
    char path[600];
    int64_t id;
    (void)state;

    engine_kit_open(&kit);
    assert_int_equal(store_run(kit.engine->store, op_partial, &id), OK);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/folder-abc%s", kit.dir,
            i ? "/1_Pooling" : "");
        assert_int_equal(mkdir(path, 0700), 0);
    }
    const char *const files[] = {"folder-abc/x", "spool-abc", "other-abc"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", kit.dir, files[i]);
        assert_int_equal(close(open(path, O_CREAT | O_WRONLY, 0600)), 0);
    }
    engine_kit_reopen(&kit);
    assert_int_equal(access(path, F_OK), 0); /* not ours */
    snprintf(path, sizeof(path), "%s/spool-abc", kit.dir);
    assert_int_equal(access(path, F_OK), -1);
    snprintf(path, sizeof(path), "%s/folder-abc", kit.dir);
    assert_int_equal(access(path, F_OK), -1);
    for (int i = 0; i < 1000 && count_encoder_rows(&kit) > 0; i++) {
        clock_sleep_ms(10); /* the keeper's purge */
    }
    assert_int_equal(count_encoder_rows(&kit), 0);
    engine_kit_close(&kit);
}

/* The same, by a process that dies on its way: see main. */
static void
run_child(const struct engine_kit *kit, const char *failpoint, const char *what)
{
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("KINDRED_FAILPOINT", failpoint, 1);
        execl("/proc/self/exe", "test_engine_encoders", what, kit->dir,
            (char *)NULL);
        _exit(4);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static int
be_child(const char *what, const char *dir)
{
    struct engine_config config = {.data_dir = dir, .n_threads = 2};
    struct engine *engine;
    struct engine_stream *stream;
    struct engine_encoder info;
    struct arena arena;
    bool created;
    arena_init(&arena, 1 << 20);
    if (engine_open(&engine, &config, NULL)) {
        return 2;
    }
    if (strcmp(what, "--import") == 0) {
        return engine_encoder_import(
                   engine, "zoo", "seed 2", &created, &arena, &info, NULL)
                   ? 3
                   : 0;
    }
    return engine_folder_new(&stream, engine, "c", 1, NULL) ? 3 : 0;
}

static void
test_killed(void **state)
{
    (void)state;
#ifdef KINDRED_FAILPOINTS
    struct engine_kit kit;
    struct engine_encoder *list;
    size_t n;
    engine_kit_open(&kit);
    import(&kit, "mini", "seed 1");
    make(&kit, "c", "{\"encoder\":\"mini\"}");
    engine_close(kit.engine);
    kit.engine = NULL;
    run_child(&kit, "encoder_created:1", "--import");
    run_child(&kit, "folder_made:1", "--folder");
    assert_int_equal(count_left(&kit), 1);
    engine_kit_reopen(&kit);
    assert_int_equal(count_left(&kit), 0);
    assert_int_equal(
        engine_encoders_list(kit.engine, &kit.arena, &list, &n, NULL), OK);
    assert_int_equal(n, 1);
    for (int i = 0; i < 1000 && count_encoder_rows(&kit) > 1; i++) {
        clock_sleep_ms(10);
    }
    assert_int_equal(count_encoder_rows(&kit), 1);
    import(&kit, "zoo", "seed 2");
    check_store(&kit);
    engine_kit_close(&kit);
#else
    (void)run_child;
    print_message("SKIPPED: built without -DKINDRED_FAILPOINTS\n");
    skip();
#endif
}

/* ---- collections of it ----------------------------------------------------
 */

static void
test_settings(void **state)
{
    static const struct {
        const char *body;
        const char *pointer; /* NULL: fine */
        const char *word;
    } cases[] = {{"{\"encoder\":\"mini\"}", NULL, NULL},
        {"{\"encoder\":\"mini\",\"dims\":16,\"family\":\"transformer\","
         "\"template\":\"{text}\",\"encoder_config\":{}}",
            NULL, NULL},
        {"{\"encoder\":\"mini\",\"encoder_config\":{\"compute\":\"bf16\","
         "\"max_tokens\":20,\"query_prefix\":\"query : \"}}",
            NULL, NULL},
        {"{\"encoder\":\"mini\",\"encoder_config\":{\"layers\":1,\"dims\":16,"
         "\"norm_eps\":1.0e-07}}",
            NULL, NULL},
        {"{\"encoder\":\"mini\",\"dims\":32}", "/dims", "16"},
        {"{\"encoder\":\"mini\",\"encoder_config\":{\"compute\":\"f64\"}}",
            "/encoder_config/compute", "f64"},
        {"{\"encoder\":\"mini\",\"encoder_config\":{\"compute\":1}}",
            "/encoder_config/compute", ""},
        {"{\"encoder\":\"mini\",\"encoder_config\":{\"max_tokens\":21}}",
            "/encoder_config/max_tokens", "20"},
        {"{\"encoder\":\"mini\",\"encoder_config\":{\"max_tokens\":0}}",
            "/encoder_config/max_tokens", ""},
        {"{\"encoder\":\"mini\",\"encoder_config\":{\"item_prefix\":7}}",
            "/encoder_config/item_prefix", ""},
        {"{\"encoder\":\"mini\",\"encoder_config\":{\"layers\":2}}",
            "/encoder_config/layers", "another value"},
        {"{\"encoder\":\"mini\",\"encoder_config\":{\"dims\":8}}",
            "/encoder_config/dims", "another value"},
        {"{\"encoder\":\"mini\",\"encoder_config\":{\"buckets\":8}}",
            "/encoder_config/buckets", "no such"},
        {"{\"encoder\":\"mini\",\"family\":\"static\"}", "/family",
            "transformer"},
        {"{\"encoder\":\"static\",\"family\":\"transformer\"}", "/family",
            "static"},
        {"{\"encoder\":\"mini\",\"images\":\"vector\"}", "/images", "mini"},
        {"{\"encoder\":\"mimi\"}", "/encoder", "\"mini\", \"zoo\""},
        {"{\"encoder\":\"transformer\"}", "/encoder", "imported first"}};
    struct engine_kit kit;
    (void)state;

    engine_kit_open(&kit);
    struct fault fault;
    struct engine_collection_info info;
    bool created;
    assert_int_equal(
        put(&kit, "c", "{\"encoder\":\"mini\"}", &created, &info, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/encoder");
    assert_non_null(strstr(fault.detail, "there are none"));
    import(&kit, "zoo", "seed 2");
    import(&kit, "mini", "seed 1");
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char name[16];
        snprintf(name, sizeof(name), "c%zu", i);
        enum err err = put(&kit, name, cases[i].body, &created, &info, &fault);
        if (!cases[i].pointer) {
            if (err) {
                fail_msg("%s: %s", cases[i].body, fault.detail);
            }
            assert_int_equal(info.dims, DIMS);
            assert_string_equal(info.reads, "text");
            assert_true(info.trained);
            assert_non_null(strstr(info.settings_json,
                "{\"encoder\":\"mini\",\"family\":\"transformer\","));
        } else if (err != ERR_INVALID ||
                   strcmp(fault.pointer, cases[i].pointer) != 0 ||
                   !strstr(fault.detail, cases[i].word)) {
            fail_msg("%s: %s: %s %s", cases[i].body, err_text(err),
                fault.pointer, fault.detail);
        }
    }
    struct engine_encoder encoder;
    assert_int_equal(
        engine_encoder_get(kit.engine, "mini", &kit.arena, &encoder, NULL), OK);
    assert_int_equal(encoder.n_collections, 4);
    check_store(&kit);
    engine_kit_close(&kit);
}

/* Confirmed with its own complete settings, and refused with others, whether or
   not the encoder is still there; complete settings make another like it. */
static void
test_put_again(void **state)
{
    struct engine_collection_info info, again;
    struct engine_kit kit;
    struct fault fault;
    bool created = true;
    (void)state;

    engine_kit_open(&kit);
    import(&kit, "mini", "seed 1");
    info = make(&kit, "c",
        "{\"encoder\":\"mini\",\"encoder_config\":{\"compute\":\"bf16\","
        "\"max_tokens\":9}}");
    fill(&kit, "c");
    again = make(&kit, "copy", info.settings_json);
    assert_string_equal(again.settings_json, info.settings_json);
    assert_string_equal(again.fingerprint, info.fingerprint);
    assert_int_equal(engine_collection_delete(kit.engine, "copy", NULL), OK);
    for (int gone = 0; gone < 2; gone++) {
        assert_int_equal(
            put(&kit, "c", info.settings_json, &created, &again, &fault), OK);
        assert_false(created);
        assert_int_equal(
            put(&kit, "c", "{\"encoder\":\"mini\"}", &created, &again, &fault),
            OK);
        assert_int_equal(
            put(&kit, "c", "{\"encoder_config\":{\"compute\":\"f32\"}}",
                &created, &again, &fault),
            ERR_CONFLICT);
        assert_string_equal(fault.pointer, "/encoder_config");
        assert_int_equal(
            put(&kit, "c", "{\"encoder_config\":{\"max_tokens\":12}}", &created,
                &again, &fault),
            ERR_CONFLICT);
        assert_int_equal(put(&kit, "c", "{\"encoder\":\"static\"}", &created,
                             &again, &fault),
            ERR_CONFLICT);
        assert_string_equal(fault.pointer, "/encoder");
        promote_other(&kit, "c");
        promote_other(&kit, "c");
        assert_int_equal(engine_encoder_delete(kit.engine, "mini", NULL),
            gone ? ERR_NOT_FOUND : OK);
        engine_kit_reopen(&kit);
    }
    check_store(&kit);
    engine_kit_close(&kit);
}

static void
test_shared(void **state)
{
    struct engine_kit kit;
    (void)state;

    engine_kit_open(&kit);
    import(&kit, "mini", "seed 1");
    import(&kit, "zoo", "seed 2");
    make(&kit, "a", "{\"encoder\":\"mini\"}");
    make(&kit, "b",
        "{\"encoder\":\"mini\",\"encoder_config\":{\"norm_eps\":1.0e-07}}");
    make(&kit, "c",
        "{\"encoder\":\"mini\",\"encoder_config\":{\"max_tokens\":9}}");
    make(&kit, "d", "{\"encoder\":\"zoo\"}");
    fill(&kit, "a");
    for (int round = 0; round < 3; round++) {
        struct engine_info info;
        struct engine_collection_info one;
        const struct encoder *a = live_encoder(&kit, "a");
        assert_ptr_equal(a, live_encoder(&kit, "b"));
        assert_ptr_not_equal(a, live_encoder(&kit, "c"));
        assert_ptr_not_equal(a, live_encoder(&kit, "d"));
        expect_pear(&kit, "a");
        assert_int_equal(
            engine_collection_get(kit.engine, "a", &kit.arena, &one, NULL), OK);
        assert_int_equal(one.encoder_bytes, encoder_bytes(a));
        assert_int_equal(engine_info(kit.engine, &kit.arena, &info, NULL), OK);
        assert_int_equal(info.encoder_bytes,
            encoder_bytes(a) + encoder_bytes(live_encoder(&kit, "c")) +
                encoder_bytes(live_encoder(&kit, "d")));
        if (round == 0) {
            engine_kit_reopen(&kit);
        } else if (round == 1) { /* one that is made later joins them */
            assert_int_equal(
                engine_collection_delete(kit.engine, "b", NULL), OK);
            make(&kit, "b", "{\"encoder\":\"mini\"}");
        }
    }
    engine_kit_close(&kit);
}

struct caller {
    pthread_t thread;
    struct engine_kit *kit;
    enum err err;
    struct fault fault;
};

static void *
delete_mini(void *arg)
{
    struct caller *caller = arg;
    caller->err =
        engine_encoder_delete(caller->kit->engine, "mini", &caller->fault);
    return NULL;
}

static void *
make_of_mini(void *arg)
{
    struct caller *caller = arg;
    struct engine_collection_info info;
    bool created;
    caller->err = put(caller->kit, "c", "{\"encoder\":\"mini\"}", &created,
        &info, &caller->fault);
    return NULL;
}

static enum err
op_start_both(struct db *db, void *arg)
{
    static void *(*const calls[])(void *) = {delete_mini, make_of_mini};
    struct caller *callers = arg;
    (void)db;
    for (size_t i = 0; i < 2; i++) {
        if (pthread_create(&callers[i].thread, NULL, calls[i], &callers[i])) {
            return ERR_NOMEM;
        }
        clock_sleep_ms(200); /* till it waits for the writer, which is here */
    }
    return OK;
}

/* An encoder that is deleted between its loading and the collection's row. */
static void
test_deleted_meanwhile(void **state)
{
    struct engine_kit kit;
    struct caller callers[2] = {{.kit = &kit}, {.kit = &kit}};
    (void)state;

    engine_kit_open(&kit);
    import(&kit, "mini", "seed 1");
    assert_int_equal(store_run(kit.engine->store, op_start_both, callers), OK);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(callers[i].thread, NULL), 0);
    }
    assert_int_equal(callers[0].err, OK);
    assert_int_equal(callers[1].err, ERR_INVALID);
    assert_string_equal(callers[1].fault.pointer, "/encoder");
    assert_non_null(strstr(callers[1].fault.detail, "\"mini\""));
    check_store(&kit);
    engine_kit_close(&kit);
}

/* ---- its lineage ----------------------------------------------------------
 */

static void
expect_weights(
    struct engine_kit *kit, int64_t number, const struct encoder *encoder)
{
    struct engine_stream *stream;
    struct buf got, saved;
    assert_int_equal(
        engine_weights_new(&stream, kit->engine, "c", number, NULL), OK);
    drain(stream, &got);
    buf_init(&saved, 64 << 20);
    assert_int_equal(encoder_save(encoder, append, &saved), OK);
    assert_int_equal(got.len, saved.len);
    assert_memory_equal(got.data, saved.data, got.len);
    assert_int_equal(generation(kit, "c", number).weights_bytes, got.len);
    buf_release(&got);
    buf_release(&saved);
}

static void
test_lineage(void **state)
{
    struct encoder *encoder = make_encoder(1);
    struct engine_generation g;
    struct engine_switch done;
    struct engine_stream *stream;
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    (void)state;

    engine_kit_open(&kit);
    import(&kit, "mini", "seed 1");
    make(&kit, "c",
        "{\"encoder\":\"mini\",\"encoder_config\":{\"compute\":\"bf16\"}}");
    fill(&kit, "c");
    g = generation(&kit, "c", 1);
    assert_true(g.trained);
    assert_true(g.whole);
    assert_string_equal(
        g.config_json, encoder_config_json(live_encoder(&kit, "c")));
    assert_non_null(strstr(g.config_json, "\"bf16\""));
    expect_weights(&kit, 1, encoder);

    promote_other(&kit, "c");
    assert_ptr_not_equal(live_encoder(&kit, "c"), NULL);
    expect_weights(&kit, 1, encoder);
    expect_weights(&kit, 2, live_encoder(&kit, "c"));
    assert_int_equal(
        engine_encoder_delete(kit.engine, "mini", &fault), ERR_CONFLICT);
    assert_non_null(strstr(fault.detail, "\"c\""));
    engine_kit_reopen(&kit);
    assert_int_equal(engine_rollback(kit.engine, "c", &done, &fault), OK);
    assert_int_equal(done.generation, 1);
    assert_int_equal(done.job_id, 0);
    expect_pear(&kit, "c");
    engine_kit_reopen(&kit);
    expect_pear(&kit, "c");
    expect_weights(&kit, 1, encoder); /* as they were imported */

    promote_other(&kit, "c");
    promote_other(&kit, "c"); /* the first one is retired */
    assert_string_equal(generation(&kit, "c", 1).state, "retired");
    assert_int_equal(engine_encoder_delete(kit.engine, "mini", NULL), OK);
    g = generation(&kit, "c", 1);
    assert_true(g.trained);
    assert_false(g.whole);
    assert_int_equal(
        engine_weights_new(&stream, kit.engine, "c", 1, NULL), ERR_NOT_FOUND);
    assert_int_equal(
        engine_folder_new(&stream, kit.engine, "c", 1, NULL), ERR_NOT_FOUND);
    assert_int_equal(
        engine_generation_promote(kit.engine, "c", 1, &done, &fault),
        ERR_CONFLICT);
    engine_kit_reopen(&kit);
    expect_pear(&kit, "c");
    check_store(&kit);
    encoder_free(encoder);
    engine_kit_close(&kit);
}

/* ---- its name is a model --------------------------------------------------
 */

static void
test_model(void **state)
{
    struct engine_text input = engine_kit_text("a green pear");
    struct encoder_input in = {.text = input.s, .len = input.len};
    struct encoder *encoder = make_encoder(1);
    struct engine_embeddings out;
    struct engine_encoder info;
    struct engine_token *tokens;
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    float vector[DIMS];
    size_t n;
    (void)state;

    engine_kit_open(&kit);
    info = import(&kit, "mini", "seed 1");
    import(&kit, "zoo", "seed 2");
    assert_int_equal(encoder_encode(encoder, &in, 1, vector, NULL, NULL), OK);
    for (int i = 0; i < 3; i++) {
        if (engine_embed(kit.engine, "mini", &input, 1, 0, false, &kit.arena,
                &out, &fault)) {
            fail_msg("%s", fault.detail);
        }
        assert_int_equal(out.dims, DIMS);
        assert_string_equal(out.model, "mini");
        assert_string_equal(out.fingerprint, info.fingerprint);
        assert_memory_equal(out.rows[0].vector, vector, sizeof(vector));
        assert_int_equal(engine_tokenize(kit.engine, i ? "mini" : "zoo", &input,
                             &kit.arena, &tokens, &n, NULL),
            OK);
        assert_int_equal(n, 5);
    }
    assert_int_equal(engine_embed(kit.engine, "mimi", &input, 1, 0, false,
                         &kit.arena, &out, &fault),
        ERR_NOT_FOUND);
    assert_string_equal(fault.pointer, "/model");
    assert_int_equal(engine_embed(kit.engine, "transformer", &input, 1, 0,
                         false, &kit.arena, &out, &fault),
        ERR_NOT_FOUND);
    /* The last one that was asked for stays loaded, and is counted. */
    struct engine_info engine;
    assert_int_equal(engine_info(kit.engine, &kit.arena, &engine, NULL), OK);
    assert_in_range(engine.encoder_bytes, encoder_bytes(encoder),
        2 * encoder_bytes(encoder));
    assert_int_equal(engine_encoder_delete(kit.engine, "mini", NULL), OK);
    assert_int_equal(engine_info(kit.engine, &kit.arena, &engine, NULL), OK);
    assert_int_equal(engine.encoder_bytes, 0);
    assert_int_equal(engine_embed(kit.engine, "mini", &input, 1, 0, false,
                         &kit.arena, &out, &fault),
        ERR_NOT_FOUND);
    /* A collection of that name goes before it. */
    make(&kit, "zoo", "{\"dims\":64,\"encoder_config\":{\"buckets\":1024}}");
    assert_int_equal(engine_embed(kit.engine, "zoo", &input, 1, 0, false,
                         &kit.arena, &out, &fault),
        OK);
    assert_int_equal(out.dims, 64);
    encoder_free(encoder);
    engine_kit_close(&kit);
}

/* ---- folders --------------------------------------------------------------
 */

static void
expect_folder(struct engine_kit *kit, const char *collection, int64_t number,
    const char *expected)
{
    struct engine_stream *stream;
    struct fault fault = {.err = OK};
    struct buf tar, file;
    char dir[] = "/tmp/kindred-folder-XXXXXX", path[64];
    if (engine_folder_new(&stream, kit->engine, collection, number, &fault)) {
        fail_msg("folder: %s", fault.detail);
    }
    assert_int_equal(count_left(kit), 0);
    drain(stream, &tar);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s.tar", dir);
    assert_int_equal(fsio_write_atomic(path, tar.data, tar.len, NULL), OK);
    int fd = open(path, O_RDONLY);
    assert_int_equal(tarball_unpack(fd, dir, 1 << 20, &fault), OK);
    close(fd);
    unlink(path);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    buf_init(&file, 65536);
    assert_int_equal(fsio_read(path, &file, &fault), OK);
    assert_int_equal(strncmp(file.data, expected, strlen(expected)), 0);
    buf_release(&file);
    buf_release(&tar);
    tarball_discard(dir);
}

static void
test_folder(void **state)
{
    struct engine_stream *stream;
    struct engine_kit kit;
    struct fault fault = {.err = OK};
    (void)state;

    engine_kit_open(&kit);
    import(&kit, "mini", "seed 1");
    make(&kit, "c",
        "{\"encoder\":\"mini\",\"encoder_config\":{\"compute\":\"bf16\"}}");
    make(&kit, "words", "{\"dims\":64,\"encoder_config\":{\"buckets\":1024}}");
    make(&kit, "ext", "{\"encoder\":\"external\",\"dims\":8}");
    expect_folder(
        &kit, "c", 1, "c\n" CARD "\n{\"act\":\"gelu\",\"compute\":\"bf16\"");
    expect_folder(&kit, "words", 1, "words\nnone\n{\"buckets\":1024");
    promote_other(&kit, "c");
    promote_other(&kit, "c");
    expect_folder(&kit, "c", 2, "c\n" CARD);
    expect_folder(&kit, "c", 3, "c\n" CARD);
    assert_int_equal(engine_encoder_delete(kit.engine, "mini", NULL), OK);
    expect_folder(&kit, "c", 3, "c\nnone\n");
    assert_int_equal(engine_folder_new(&stream, kit.engine, "ext", 1, &fault),
        ERR_UNSUPPORTED);
    assert_int_equal(
        engine_folder_new(&stream, kit.engine, "c", 9, &fault), ERR_NOT_FOUND);
    export_fails = true;
    assert_int_equal(engine_folder_new(&stream, kit.engine, "c", 3, &fault),
        ERR_UNSUPPORTED);
    assert_string_equal(fault.detail, "no such form");
    export_fails = false;
    assert_int_equal(count_left(&kit), 0);
    engine_kit_close(&kit);
}

/* ---- elsewhere ------------------------------------------------------------
 */

/* The settings that an export begins with make its collection elsewhere, once
   the encoder is there; before that the refusal says what is missing. */
static void
test_other_place(void **state)
{
    struct engine_collection_info info, there;
    struct engine_kit kit, other;
    struct fault fault;
    bool created;
    (void)state;

    engine_kit_open(&kit);
    engine_kit_open(&other);
    import(&kit, "mini", "seed 1");
    info = make(&kit, "c",
        "{\"encoder\":\"mini\",\"encoder_config\":{\"max_tokens\":9}}");
    import(&other, "zoo", "seed 1");
    assert_int_equal(
        put(&other, "c", info.settings_json, &created, &there, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/encoder");
    assert_non_null(strstr(fault.detail, "\"mini\""));
    assert_non_null(strstr(fault.detail, "(\"zoo\")"));
    import(&other, "mini", "seed 1");
    there = make(&other, "c", info.settings_json);
    assert_string_equal(there.fingerprint, info.fingerprint);
    engine_kit_close(&kit);
    engine_kit_close(&other);
}

int
main(int argc, char **argv)
{
    if (argc == 3) {
        return be_child(argv[1], argv[2]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_import),
        cmocka_unit_test(test_after_a_failure),
        cmocka_unit_test(test_after_a_crash),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_put_again),
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_deleted_meanwhile),
        cmocka_unit_test(test_lineage),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_other_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
