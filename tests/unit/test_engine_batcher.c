/*
 * Texts of waiting requests: who is encoded with whom, and that everybody gets
 * what is theirs. The encoder is a stand-in whose calls wait at a gate, so that
 * the test says who comes while a lane is taken.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/check.h"
#include "engine/batcher.h"
#include "model/family.h"

#define DIMS 2
#define CALLS 64
#define THREADS 8

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static size_t calls[CALLS]; /* texts of each */
static const struct encoder *callers[CALLS];
static size_t n_calls;
static bool gate_open;
static struct pool *pool_seen;

/* A text's vector is its length and its first byte; '!' is refused. */
static enum err
encode(const struct encoder *encoder, const struct encoder_input *inputs,
    size_t n, float *out, struct encoder_info *info, struct pool *pool)
{
    pthread_mutex_lock(&lock);
    callers[n_calls % CALLS] = encoder;
    calls[n_calls++ % CALLS] = n;
    pool_seen = pool;
    pthread_cond_broadcast(&moved);
    while (!gate_open)
        pthread_cond_wait(&moved, &lock);
    pthread_mutex_unlock(&lock);
    for (size_t i = 0; i < n; i++) {
        if (inputs[i].text[0] == '!')
            return ERR_TOO_LARGE;
        out[i * DIMS] = (float)inputs[i].len;
        out[i * DIMS + 1] = (float)inputs[i].text[0];
        if (info != NULL)
            info[i] =
                (struct encoder_info){.n_tokens = (uint32_t)inputs[i].len};
    }
    return OK;
}

static size_t
one_part(const struct encoder *encoder)
{
    (void)encoder;
    return 1;
}

static const struct encoder_family network = {
    .name = "network", .encode = encode, .n_parts = one_part};
static const struct encoder_family plain = {.name = "plain", .encode = encode};
static const struct encoder first = {.family = &network, .n_dims = DIMS};
static const struct encoder second = {.family = &network, .n_dims = DIMS};
static const struct encoder simple = {.family = &plain, .n_dims = DIMS};

struct request {
    struct batcher *batcher;
    const struct encoder *encoder;
    struct encoder_input inputs[BATCHER_ALONE];
    size_t n;
    float out[BATCHER_ALONE * DIMS];
    struct encoder_info info[BATCHER_ALONE];
    enum err err;
    pthread_t thread;
};

static void *
ask(void *arg)
{
    struct request *r = arg;
    r->err = batcher_encode(
        r->batcher, r->encoder, r->inputs, r->n, r->out, r->info);
    return NULL;
}

static void
pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

/* A request of n times a text, on a thread of its own. */
static void
start(struct request *r, struct batcher *batcher, const struct encoder *encoder,
    const char *text, size_t n)
{
    *r = (struct request){.batcher = batcher, .encoder = encoder, .n = n};
    for (size_t i = 0; i < n; i++)
        r->inputs[i] =
            (struct encoder_input){.text = text, .len = strlen(text)};
    assert_int_equal(pthread_create(&r->thread, NULL, ask, r), 0);
    pause_ms(30); /* it is in the list, or at the gate */
}

static void
join(struct request *r)
{
    pthread_join(r->thread, NULL);
    for (size_t i = 0; i < r->n && r->err == OK; i++) {
        assert_int_equal((int)r->out[i * DIMS], (int)r->inputs[i].len);
        assert_int_equal((int)r->out[i * DIMS + 1], r->inputs[i].text[0]);
        assert_int_equal(r->info[i].n_tokens, r->inputs[i].len);
    }
}

static void
set_gate(bool open)
{
    pthread_mutex_lock(&lock);
    gate_open = open;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
}

static int
reset(void **state)
{
    (void)state;
    n_calls = 0;
    gate_open = false;
    pool_seen = NULL;
    return 0;
}

/* While the first is at work, three of its encoder and one of another come:
   the three are one call. */
static void
test_waiting_ones_go_together(void **state)
{
    struct batcher *batcher;
    struct request r[5];
    (void)state;

    assert_int_equal(batcher_new(&batcher, 1, NULL), OK);
    start(&r[0], batcher, &first, "a", 1);
    start(&r[1], batcher, &first, "bb", 2);
    start(&r[2], batcher, &second, "ccc", 1);
    start(&r[3], batcher, &first, "dddd", 3);
    start(&r[4], batcher, &first, "eeeee", 1);
    assert_int_equal(n_calls, 1);
    set_gate(true);
    for (size_t i = 0; i < ARRAY_LEN(r); i++) {
        join(&r[i]);
        assert_int_equal(r[i].err, OK);
    }
    assert_int_equal(n_calls, 3);
    assert_int_equal(calls[0], 1);
    size_t together = callers[1] == &first ? 1 : 2;
    assert_int_equal(calls[together], 6);
    assert_int_equal(calls[3 - together], 1);
    assert_ptr_equal(callers[3 - together], &second);
    batcher_free(batcher);
}

/* With a lane free nobody waits; as many run at a time as there are lanes. */
static void
test_lanes(void **state)
{
    struct batcher *batcher;
    struct request r[3];
    (void)state;

    assert_int_equal(batcher_new(&batcher, 2, NULL), OK);
    for (size_t i = 0; i < ARRAY_LEN(r); i++)
        start(&r[i], batcher, &first, "x", 1);
    assert_int_equal(n_calls, 2);
    set_gate(true);
    for (size_t i = 0; i < ARRAY_LEN(r); i++)
        join(&r[i]);
    assert_int_equal(n_calls, 3);
    batcher_free(batcher);
}

/* What is taken along has at most BATCHER_BYTES in all. */
static void
test_bytes_are_bounded(void **state)
{
    static char text[BATCHER_BYTES / 2 + 1];
    struct batcher *batcher;
    struct request r[4];
    (void)state;

    memset(text, 't', sizeof text - 1);
    assert_int_equal(batcher_new(&batcher, 1, NULL), OK);
    for (size_t i = 0; i < ARRAY_LEN(r); i++)
        start(&r[i], batcher, &first, text, 1);
    set_gate(true);
    for (size_t i = 0; i < ARRAY_LEN(r); i++)
        join(&r[i]);
    assert_int_equal(n_calls, 3);
    assert_int_equal(calls[0] + calls[1] + calls[2], 4);
    assert_true(calls[1] <= 2 && calls[2] <= 2);
    batcher_free(batcher);
}

/* The refusal of one text reaches its own request alone. */
static void
test_refusals_are_ones_own(void **state)
{
    struct batcher *batcher;
    struct request r[4];
    (void)state;

    assert_int_equal(batcher_new(&batcher, 1, NULL), OK);
    start(&r[0], batcher, &first, "a", 1);
    start(&r[1], batcher, &first, "b", 1);
    start(&r[2], batcher, &first, "!", 1);
    start(&r[3], batcher, &first, "c", 1);
    set_gate(true);
    for (size_t i = 0; i < ARRAY_LEN(r); i++) {
        join(&r[i]);
        assert_int_equal(r[i].err, i == 2 ? ERR_TOO_LARGE : OK);
    }
    batcher_free(batcher);
}

/* Encoders that are no networks, and many texts, wait for no lane; many texts
   get the pool. */
static void
test_who_passes_through(void **state)
{
    struct batcher *batcher;
    struct request r[3];
    char pool;
    (void)state;

    assert_int_equal(
        batcher_new(&batcher, 1, (struct pool *)(void *)&pool), OK);
    start(&r[0], batcher, &first, "a", 1);
    assert_null(pool_seen);
    start(&r[1], batcher, &simple, "b", 1);
    assert_int_equal(n_calls, 2);
    assert_null(pool_seen);
    start(&r[2], batcher, &first, "c", BATCHER_ALONE);
    assert_int_equal(n_calls, 3);
    assert_ptr_equal(pool_seen, &pool);
    set_gate(true);
    for (size_t i = 0; i < ARRAY_LEN(r); i++)
        join(&r[i]);
    batcher_free(batcher);
}

struct crowd {
    struct batcher *batcher;
    size_t who;
};

static void *
ask_often(void *arg)
{
    struct crowd *c = arg;
    for (size_t i = 0; i < 300; i++) {
        char text[40];
        float out[DIMS];
        int len = snprintf(text, sizeof text, "%c%.*s", (char)('a' + c->who),
            (int)(i % 20), "------------------------");
        struct encoder_input input = {.text = text, .len = (size_t)len};
        const struct encoder *e = i % 3 == 0 ? &second : &first;
        if (batcher_encode(c->batcher, e, &input, 1, out, NULL) != OK ||
            (int)out[0] != len || (int)out[1] != text[0])
            return arg;
    }
    return NULL;
}

static void
test_a_crowd(void **state)
{
    struct batcher *batcher;
    struct crowd crowd[THREADS];
    pthread_t threads[THREADS];
    (void)state;

    gate_open = true;
    assert_int_equal(batcher_new(&batcher, 2, NULL), OK);
    for (size_t i = 0; i < THREADS; i++) {
        crowd[i] = (struct crowd){.batcher = batcher, .who = i};
        assert_int_equal(
            pthread_create(&threads[i], NULL, ask_often, &crowd[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    batcher_free(batcher);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_waiting_ones_go_together, reset),
        cmocka_unit_test_setup(test_lanes, reset),
        cmocka_unit_test_setup(test_bytes_are_bounded, reset),
        cmocka_unit_test_setup(test_refusals_are_ones_own, reset),
        cmocka_unit_test_setup(test_who_passes_through, reset),
        cmocka_unit_test_setup(test_a_crowd, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
