/*
 * Goal: what the data layer costs: items with vectors written durably, a space
 * loaded, bodies of hits fetched, small writes from many threads.
 * Method: a store in a temporary folder below the current one (or in $TMPDIR
 * with BENCH_STORE_TMP set), 61,440 items of 512 dimensions in operations of
 * 512; one figure a line. Disk speed is part of the figures.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "store/collections.h"
#include "store/generations.h"
#include "store/items.h"
#include "store/store.h"
#include "store/vectors.h"

#define DIMS 512
#define BATCH 512
#define BATCHES 120
#define ITEMS (BATCH * BATCHES)
#define THREADS 8
#define SMALL_WRITES 250

static struct store *store;
static int64_t collection, space;
static float vectors[BATCH * DIMS];

static void
must(enum err err, const char *what)
{
    if (err != OK) {
        fprintf(stderr, "bench_store: %s: %s\n", what, err_text(err));
        exit(1);
    }
}

static double
seconds_since(int64_t start_ns)
{
    return (double)(clock_mono_ns() - start_ns) / 1e9;
}

static enum err
make_collection(struct db *db, void *arg)
{
    struct generation_new first = {.dims = DIMS,
        .temperature = 0.05,
        .family = store_text_of("static"),
        .config = store_text_of("{}")};
    struct generation_publish publish = {.generation = 1};
    int64_t id, number;
    enum err err = collections_create(db, store_text_of("bench"),
        store_text_of("{}"), store_text_of("{}"), 0, &collection);

    (void)arg;
    publish.collection = collection;
    if (err == OK) {
        err =
            generations_create(db, collection, &first, 0, &id, &number, &space);
    }
    return err == OK ? generations_publish(db, &publish) : err;
}

struct batch {
    size_t first;
    size_t n;
    char ids[BATCH][24];
    char text[BATCH][160];
    struct item_put puts[BATCH];
    struct item_result results[BATCH];
    int64_t items[BATCH];
};

static void
fill_batch(struct batch *batch, size_t first, size_t n)
{
    memset(batch->puts, 0, sizeof(batch->puts));
    batch->first = first;
    batch->n = n;
    for (size_t i = 0; i < n; i++) {
        snprintf(batch->ids[i], sizeof(batch->ids[i]), "item-%zu",
            (first + i) * 2654435761u % 1000000007u);
        snprintf(batch->text[i], sizeof(batch->text[i]),
            "A short text about the number %zu, of about the length that a"
            " package's one-line summary has.",
            first + i);
        batch->puts[i].ext_id = store_text_of(batch->ids[i]);
        batch->puts[i].text = store_text_of(batch->text[i]);
        batch->puts[i].metadata = store_text_of("{\"lang\":\"en\"}");
        memcpy(batch->puts[i].content_hash, &first, sizeof(first));
    }
}

static enum err
put_batch(struct db *db, void *arg)
{
    struct batch *batch = arg;
    enum err err =
        items_put(db, collection, batch->puts, batch->n, 1, batch->results);

    for (size_t i = 0; i < batch->n && err == OK; i++) {
        batch->items[i] = batch->results[i].item;
    }
    if (err == OK) {
        err = vectors_put(db, space, batch->items, batch->n, vectors, DIMS);
    }
    return err;
}

static void
free_batch(void *arg, enum err err)
{
    must(err, "batch");
    mem_free(arg);
}

/* As ingest does: the next batch is prepared while the one before commits. */
static void
bench_ingest(void)
{
    int64_t start = clock_mono_ns();

    for (size_t b = 0; b < BATCHES; b++) {
        struct batch *batch = mem_alloc(1, sizeof(*batch));
        must(batch == NULL ? ERR_NOMEM : OK, "memory");
        fill_batch(batch, b * BATCH, BATCH);
        must(store_write_async(
                 store, &(struct store_op){put_batch, free_batch, batch}),
            "queue");
        struct store_stats stats;
        store_get_stats(store, &stats);
        while (stats.queue_ops > 16) {
            clock_sleep_ms(1);
            store_get_stats(store, &stats);
        }
    }
    must(store_drain(store), "drain");
    double s = seconds_since(start);
    struct store_stats stats;
    store_get_stats(store, &stats);
    printf("store_ingest_rows_per_s %.0f  (%d rows of %d dims, %.2f s, %llu"
           " commits, %llu checkpoints)\n",
        ITEMS / s, ITEMS, DIMS, s, (unsigned long long)stats.commits,
        (unsigned long long)stats.checkpoints);
}

static void
bench_load(void)
{
    float *block = mem_alloc((size_t)4096 * DIMS, sizeof(float));
    int64_t *items = mem_alloc(4096, sizeof(int64_t));
    int64_t after = 0, start = clock_mono_ns();
    size_t n = 4096, total = 0;

    must(block == NULL || items == NULL ? ERR_NOMEM : OK, "memory");
    while (n == 4096) {
        struct db *db = NULL;
        must(store_read_begin(store, &db), "reader");
        must(vectors_read_block(db, space, after, 4096, DIMS, items, block, &n),
            "read");
        store_read_end(store, db);
        total += n;
        after = n > 0 ? items[n - 1] : after;
    }
    printf("store_load_space_s %.3f  (%zu vectors)\n", seconds_since(start),
        total);
    mem_free(items);
    mem_free(block);
}

static enum err
count_row(void *ctx, const struct item_row *row)
{
    *(size_t *)ctx += row->text.len;
    return OK;
}

static void
bench_hits(void)
{
    enum { ROUNDS = 20000 };
    struct rng rng;
    size_t bytes = 0;

    rng_seed(&rng, 1);
    int64_t start = clock_mono_ns();
    for (int r = 0; r < ROUNDS; r++) {
        struct db *db = NULL;
        int64_t items[10];
        for (int i = 0; i < 10; i++) {
            items[i] = 1 + (int64_t)rng_below(&rng, ITEMS);
        }
        must(store_read_begin(store, &db), "reader");
        must(items_get_many(db, items, 10, ITEM_WANT_ALL, count_row, &bytes),
            "hits");
        store_read_end(store, db);
    }
    printf(
        "store_fetch_10_hits_us %.1f\n", seconds_since(start) / ROUNDS * 1e6);
}

static void *
write_small(void *arg)
{
    struct batch *batch = mem_alloc(1, sizeof(*batch));

    must(batch == NULL ? ERR_NOMEM : OK, "memory");
    for (size_t i = 0; i < SMALL_WRITES; i++) {
        fill_batch(batch, 10000000 + *(size_t *)arg * SMALL_WRITES + i, 1);
        must(store_run(store, put_batch, batch), "small");
    }
    mem_free(batch);
    return NULL;
}

static void
bench_small(void)
{
    pthread_t threads[THREADS];
    size_t numbers[THREADS];
    struct store_stats before, after;
    int64_t start = clock_mono_ns();

    store_get_stats(store, &before);
    for (size_t i = 0; i < THREADS; i++) {
        numbers[i] = i;
        pthread_create(&threads[i], NULL, write_small, &numbers[i]);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    store_get_stats(store, &after);
    printf("store_small_writes_per_s %.0f  (%d threads, %.1f in a commit)\n",
        THREADS * SMALL_WRITES / seconds_since(start), THREADS,
        (double)(after.ops - before.ops) /
            (double)(after.commits - before.commits));
}

int
main(void)
{
    char dir[] = "bench_store.XXXXXX", command[128];
    struct fault fault = {0};
    struct rng rng;
    int64_t start;

    rng_seed(&rng, 1);
    for (size_t i = 0; i < BATCH * DIMS; i++) {
        vectors[i] = rng_float(&rng) - 0.5F;
    }
    if (getenv("BENCH_STORE_TMP") != NULL &&
        chdir(getenv("BENCH_STORE_TMP")) != 0) {
        return 1;
    }
    if (mkdtemp(dir) == NULL) {
        return 1;
    }
    must(store_open(&store, dir, NULL, &fault), fault.detail);
    must(store_run(store, make_collection, NULL), "collection");
    bench_ingest();
    bench_load();
    bench_hits();
    bench_small();
    store_close(store);

    start = clock_mono_ns();
    must(store_open(&store, dir, NULL, &fault), fault.detail);
    printf("store_open_s %.4f\n", seconds_since(start));
    start = clock_mono_ns();
    must(store_check(store, &fault), fault.detail);
    printf("store_check_s %.3f\n", seconds_since(start));
    store_close(store);

    snprintf(command, sizeof(command), "%s/kindred.db", dir);
    (void)unlink(command);
    snprintf(command, sizeof(command), "%s/lock", dir);
    (void)unlink(command);
    (void)rmdir(dir);
    return 0;
}
