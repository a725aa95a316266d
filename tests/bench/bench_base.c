/*
 * bench_base - what the base library costs: hashing of short strings, floats
 * to and from JSON beside the C library's and jansson's, base64, and the
 * pool's round trip. Medians of 9 rounds; nothing here is a test.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/pool.h"
#include "base/queue.h"
#include "base/rng.h"

#define ROUNDS 9

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static volatile uint64_t sink;

typedef void bench_fn(void *arg);

/* ns for one of the n things that fn does. */
static void
report(const char *name, bench_fn *fn, void *arg, double n)
{
    double ns[ROUNDS];

    for (size_t i = 0; i < ROUNDS; i++) {
        int64_t start = clock_mono_ns();
        fn(arg);
        ns[i] = (double)(clock_mono_ns() - start) / n;
    }
    qsort(ns, ROUNDS, sizeof(ns[0]), compare);
    printf("%-48s %9.1f ns\n", name, ns[ROUNDS / 2]);
}

enum { N_HASH = 1000000, N_FLOATS = 384, N_REPEAT = 200 };

static char bytes[4096];

static void
hash_of(void *arg)
{
    size_t len = *(size_t *)arg;
    uint64_t sum = 0;

    for (size_t i = 0; i < N_HASH; i++) {
        sum += hash_bytes(bytes + (i & 1023), len, 1);
    }
    sink = sum;
}

static void
hash_mixed(void *arg)
{
    uint64_t sum = 0;

    (void)arg;
    for (size_t i = 0; i < N_HASH; i++) {
        sum += hash_bytes(
            bytes + (i & 1023), 3 + ((unsigned char)bytes[i & 2047] & 15), 1);
    }
    sink = sum;
}

static float floats[N_FLOATS];
static char text_9[N_FLOATS * 20];
static char text_17[N_FLOATS * 30];
static struct buf out;

static void
write_floats(void *arg)
{
    (void)arg;
    for (size_t r = 0; r < N_REPEAT; r++) {
        buf_clear(&out);
        for (size_t i = 0; i < N_FLOATS; i++) {
            buf_json_float(&out, floats[i]);
            buf_add_char(&out, ',');
        }
    }
}

static void
print_floats(void *arg)
{
    (void)arg;
    for (size_t r = 0; r < N_REPEAT; r++) {
        buf_clear(&out);
        for (size_t i = 0; i < N_FLOATS; i++) {
            buf_printf(&out, "%.9g,", (double)floats[i]);
        }
    }
}

static void
read_floats(void *arg)
{
    const char *text = arg;
    size_t len = strlen(text), n;
    float got[N_FLOATS];

    for (size_t r = 0; r < N_REPEAT; r++) {
        if (json_read_floats(text, len, got, N_FLOATS, &n, NULL, NULL) != OK) {
            abort();
        }
    }
    sink = (uint64_t)got[0];
}

static void
read_by_jansson(void *arg)
{
    const char *text = arg;

    for (size_t r = 0; r < N_REPEAT; r++) {
        json_decref(json_loads(text, 0, NULL));
    }
}

static void
nothing(void *arg, size_t shard_i, size_t thread_i)
{
    (void)arg;
    (void)shard_i;
    (void)thread_i;
}

static void
round_trips(void *arg)
{
    for (int i = 0; i < 10000; i++) {
        pool_run(arg, 2, nothing, NULL);
    }
}

static void
encode_base64(void *arg)
{
    (void)arg;
    for (size_t r = 0; r < N_REPEAT; r++) {
        buf_clear(&out);
        base64_encode(&out, bytes, sizeof(bytes));
    }
}

int
main(void)
{
    struct rng rng;
    struct pool *pool = NULL;

    rng_seed(&rng, 1);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (char)rng_u64(&rng);
    }
    char *p9 = text_9, *p17 = text_17;
    for (size_t i = 0; i < N_FLOATS; i++) {
        double v = rng_normal(&rng) * 0.05;
        floats[i] = (float)v;
        p9 += sprintf(p9, "%c%.9g", i == 0 ? '[' : ',', (double)floats[i]);
        p17 += sprintf(p17, "%c%.17g", i == 0 ? '[' : ',', v);
    }
    memcpy(p9, "]", 2);
    memcpy(p17, "]", 2);
    buf_init(&out, 1 << 20);

    static size_t lens[] = {3, 5, 8, 12, 16, 24, 30, 100};
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        char name[64];
        snprintf(name, sizeof(name), "hash_bytes, %zu bytes", lens[i]);
        report(name, hash_of, &lens[i], N_HASH);
    }
    report("hash_bytes, 3 to 18 bytes mixed", hash_mixed, NULL, N_HASH);
    double n = (double)N_REPEAT * N_FLOATS;
    report("buf_json_float, each", write_floats, NULL, n);
    report("printf %.9g, each", print_floats, NULL, n);
    report("json_read_floats, 9 digits, each", read_floats, text_9, n);
    report("json_read_floats, 17 digits, each", read_floats, text_17, n);
    report("jansson, 9 digits, each", read_by_jansson, text_9, n);
    report("jansson, 17 digits, each", read_by_jansson, text_17, n);
    report("base64_encode, byte", encode_base64, NULL,
        (double)N_REPEAT * sizeof(bytes));
    if (pool_new(&pool, 2, false) == OK) {
        report("pool_run, 2 threads, 2 shards", round_trips, pool, 10000);
        pool_free(pool);
    }
    buf_release(&out);
    return 0;
}
