/*
 * bench_engine.c - the engine without HTTP: indexing, search, start-up,
 * memory, re-embedding, switching.
 *
 * usage: bench_engine FILE.tsv [summaries]
 *
 * FILE: package, source, section, tags, summary, description, with a header
 * (unpacked). Indexes the descriptions (or the summaries) into a new folder
 * under $TMPDIR by a bulk stream, asks every kind of question with one thread
 * and with several, restarts, re-embeds under a changed encoder.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "engine/internal.h"

#define MAX_ROWS 100000
#define QUESTIONS 2000
#define THREADS 8

static struct engine *engine;
static const char *names[MAX_ROWS], *summaries[MAX_ROWS], *texts[MAX_ROWS];
static size_t n_rows;

static void
check(enum err err, const struct fault *fault, const char *what)
{
    if (err) {
        fprintf(stderr, "%s: %s %s\n", what, err_text(err), fault->detail);
        exit(1);
    }
}

static double
since(int64_t start_ns)
{
    return (double)(clock_mono_ns() - start_ns) * 1e-9;
}

/* Processor time of the whole process: what a figure costs even when other
   programs take the machine's time. */
static double
cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void
read_rows(const char *path)
{
    FILE *f = fopen(path, "r");
    static char line[1 << 20];
    bool head = true;
    while (f && n_rows < MAX_ROWS && fgets(line, sizeof(line), f)) {
        char *field[6], *at = line;
        line[strcspn(line, "\n")] = '\0';
        int n = 0;
        while (n < 6) {
            field[n++] = at;
            at = strchr(at, '\t');
            if (!at) {
                break;
            }
            *at++ = '\0';
        }
        if (!head && n == 6 && field[5][0]) {
            names[n_rows] = strdup(field[0]);
            summaries[n_rows] = strdup(field[4]);
            texts[n_rows++] = strdup(field[5]);
        }
        head = false;
    }
    if (f) {
        fclose(f);
    }
}

static void
take(void *arg, const struct engine_outcome *outcome)
{
    *(uint64_t *)arg += outcome->status == ENGINE_REFUSED;
}

static struct engine_text
text(const char *s)
{
    return (struct engine_text){.s = s, .len = strlen(s)};
}

static void
ingest(const char *const *bodies)
{
    struct fault fault = {.err = OK};
    struct engine_bulk *bulk;
    uint64_t bad = 0, lines;
    double cpu = cpu_seconds();
    int64_t start = clock_mono_ns();
    check(engine_bulk_new(
              &bulk, engine, "docs", ENGINE_BULK_ITEMS, take, &bad, &fault),
        &fault, "bulk");
    for (size_t i = 0; i < n_rows; i++) {
        struct engine_item item = {.id = names[i], .text = text(bodies[i])};
        check(engine_bulk_item(bulk, &item, &fault), &fault, "item");
    }
    check(engine_bulk_finish(bulk, &lines, NULL, &fault), &fault, "finish");
    engine_bulk_free(bulk);
    printf(
        "ingest                 %8.0f items/s (%zu, %llu refused; %.1f us of "
        "processor each)\n",
        (double)n_rows / since(start), n_rows, (unsigned long long)bad,
        (cpu_seconds() - cpu) * 1e6 / (double)n_rows);
}

struct asker {
    bool by_text;
    const char *filter;
    bool metadata;
    atomic_size_t next;
    size_t n;
};

static float *vectors;
static size_t dims;

static void *
ask(void *arg)
{
    struct asker *a = arg;
    struct fault fault = {.err = OK};
    for (;;) {
        size_t i = atomic_fetch_add(&a->next, 1);
        if (i >= a->n) {
            return NULL;
        }
        i %= QUESTIONS;
        struct arena arena;
        arena_init(&arena, 1 << 22);
        struct engine_query q = ENGINE_QUERY_DEFAULT;
        struct engine_answer answer;
        if (a->by_text) {
            q.text = text(summaries[i * 7 % n_rows]);
        } else {
            q.vector = vectors + i * dims;
            q.n_vector = dims;
        }
        q.filter_json = a->filter;
        q.with_metadata = a->metadata;
        enum err err =
            engine_search(engine, "docs", &q, &arena, &answer, &fault);
        check(err == ERR_INVALID ? OK : err, &fault, "search");
        arena_release(&arena);
    }
}

static void
questions(const char *what, struct asker asker, size_t n_threads, size_t n)
{
    pthread_t threads[THREADS];
    asker.n = n;
    double cpu = cpu_seconds();
    int64_t start = clock_mono_ns();
    for (size_t i = 0; i < n_threads; i++) {
        if (pthread_create(&threads[i], NULL, ask, &asker)) {
            exit(1);
        }
    }
    for (size_t i = 0; i < n_threads; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("%-22s %8.0f queries/s (%zu threads; %.1f us of processor each)\n",
        what, (double)n / since(start), n_threads,
        (cpu_seconds() - cpu) * 1e6 / (double)n);
}

static void
memory(const char *when)
{
    long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%ld %ld", &pages, &resident) == 2) {
        struct arena arena;
        struct engine_info info;
        struct fault fault = {.err = OK};
        arena_init(&arena, 1 << 20);
        check(engine_info(engine, &arena, &info, &fault), &fault, "info");
        printf("resident %-13s %8.1f MB (vectors %.1f, encoders %.1f, rosters "
               "%.1f; raw f32 %.1f)\n",
            when, (double)resident * (double)sysconf(_SC_PAGESIZE) / 1e6,
            (double)info.vector_bytes / 1e6, (double)info.encoder_bytes / 1e6,
            (double)info.roster_bytes / 1e6,
            (double)n_rows * (double)dims * 4 / 1e6);
        arena_release(&arena);
    }
    if (f) {
        fclose(f);
    }
}

static void
load_vectors(void)
{
    struct collection *c;
    struct fault fault = {.err = OK};
    check(collection_find(engine, "docs", &c, &fault), &fault, "find");
    struct snapshot *live = collection_live(c);
    dims = c->fixed.dims;
    vectors = calloc(QUESTIONS * dims, sizeof(float));
    for (size_t i = 0; i < QUESTIONS; i++) {
        struct encoder_input in = {.text = summaries[i * 7 % n_rows],
            .len = strlen(summaries[i * 7 % n_rows])};
        check(encoder_encode(encoder_ref_get(live->encoder), &in, 1,
                  vectors + i * dims, NULL, NULL),
            &fault, "encode");
        vectors[i * dims] += 1e-3f;
    }
    snapshot_unref(live);
    collection_unref(c);
}

static void
reembed(void)
{
    struct collection *c;
    struct fault fault = {.err = OK};
    check(collection_find(engine, "docs", &c, &fault), &fault, "find");
    struct snapshot *live = collection_live(c), *shadow;
    struct candidate candidate = {.temperature = 0.05};
    check(encoder_clone(&candidate.encoder, encoder_ref_get(live->encoder)),
        &fault, "clone");
    size_t n;
    float *params = encoder_params(candidate.encoder, &n);
    for (size_t i = 0; i < n; i += 2) {
        params[i] *= 1.1f;
    }
    int64_t start = clock_mono_ns();
    check(lineage_register(c, &candidate, 0, &shadow, &fault), &fault,
        "register");
    printf("save the weights       %8.2f s\n", since(start));
    struct reembed_options options = {
        .pool = engine->tuner_pool, .gentle = true};
    check(reembed_run(c, shadow, &options), &fault, "reembed");
    check(lineage_publish(c, shadow, 0.05, NULL, NULL, JOB_DONE, NULL, &fault),
        &fault, "publish");
    printf("re-embed and switch    %8.2f s\n", since(start));
    snapshot_unref(live);
    snapshot_unref(shadow);
    collection_unref(c);
    struct engine_switch done;
    start = clock_mono_ns();
    check(engine_rollback(engine, "docs", &done, &fault), &fault, "rollback");
    printf("roll back              %8.2f s\n", since(start));
}

int
main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: bench_engine FILE.tsv [summaries]\n");
        return 2;
    }
    char dir[256];
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/kindred-bench-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) {
        return 1;
    }
    log_setup(LOG_WARN, false);
    read_rows(argv[1]);
    struct fault fault = {.err = OK};
    struct engine_config config = {.data_dir = dir};
    check(engine_open(&engine, &config, &fault), &fault, "open");
    struct arena arena;
    struct engine_collection_info info;
    bool created;
    arena_init(&arena, 1 << 20);
    const char *settings = getenv("KINDRED_BENCH_SETTINGS");
    check(engine_collection_put(engine, "docs", settings ? settings : "{}",
              &created, &arena, &info, &fault),
        &fault, "collection");
    arena_release(&arena);
    ingest(argc > 2 ? summaries : texts);
    load_vectors();
    memory("after ingest");
    questions("by text", (struct asker){.by_text = true}, 1, 3000);
    questions("by text", (struct asker){.by_text = true}, THREADS, 6000);
    questions("by vector", (struct asker){.by_text = false}, 1, 3000);
    questions("by vector", (struct asker){.by_text = false}, THREADS, 10000);
    questions("by vector, metadata",
        (struct asker){.by_text = false, .metadata = true}, 1, 3000);
    engine_close(engine);
    double cpu = cpu_seconds();
    int64_t start = clock_mono_ns();
    check(engine_open(&engine, &config, &fault), &fault, "open");
    printf("start                  %8.2f s (%.2f s of processor)\n",
        since(start), cpu_seconds() - cpu);
    memory("after start");
    fflush(stdout);
    reembed();
    memory("after a switch");
    engine_close(engine);
    char command[300];
    const char *files[] = {
        "kindred.db", "kindred.db-wal", "kindred.db-shm", "lock"};
    for (size_t i = 0; i < 4; i++) {
        snprintf(command, sizeof(command), "%s/%s", dir, files[i]);
        (void)unlink(command);
    }
    return rmdir(dir) ? 1 : 0;
}
