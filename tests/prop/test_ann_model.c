/*
 * Goal: the exact index answers like a naive model, whatever was put, replaced
 * and removed before, for every kind of query.
 *
 * Method: random operations on an index and on plain arrays. After each
 * round, searches with every option are compared with a brute force in double
 * precision: the hits' cosines, that nothing better was left out, the order,
 * the order of ties (rows that are bit-equal), and that the reported error of
 * the log-sum-exp holds. The vectors stress the coder and its bound: random,
 * clustered until their cosines differ in the sixth digit, duplicates, zeros,
 * one tall coordinate, all coordinates of one size. Every kernel table; dims
 * 1 to 1,100. A second test searches from threads while a writer puts and
 * removes.
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "ann/ann.h"
#include "ann/code.h"
#include "ann/flat.h"
#include "base/pool.h"
#include "base/rng.h"
#include "kern/kern.h"

#define SAME 1e-12 /* two sums in double of one dot */

enum kind { RANDOM, CLUSTERED, DUPLICATE, ZERO, TALL, FLAT, N_KINDS };

struct model {
    size_t n_dims;
    size_t n_ords;
    float *vectors; /* [n_ords, n_dims] */
    bool *present;
    double *cosines; /* of the query that is checked */
    float *centres;  /* [4, n_dims] */
    struct ann *ann;
    struct rng rng;
};

static double
exact_dot(const float *a, const float *b, size_t n)
{
    double s = 0.0;

    for (size_t i = n; i-- > 0;)
        s += (double)a[i] * (double)b[i];
    return s;
}

static void
normalise(float *x, size_t n)
{
    double norm = sqrt(exact_dot(x, x, n));

    for (size_t i = 0; i < n && norm > 0.0; i++)
        x[i] = (float)((double)x[i] / norm);
}

static void
make_vector(struct model *m, float *x, enum kind kind)
{
    size_t n = m->n_dims;
    const float *centre = m->centres + rng_below(&m->rng, 4) * n;
    size_t other = rng_below(&m->rng, m->n_ords);
    float spread = powf(10.0f, -5.0f * rng_float(&m->rng));

    for (size_t i = 0; i < n; i++) {
        float noise = (float)rng_normal(&m->rng);

        switch (kind) {
        case CLUSTERED:
            x[i] = centre[i] + spread * noise / sqrtf((float)n);
            break;
        case ZERO:
            x[i] = 0.0f;
            break;
        case TALL:
            x[i] = 0.02f * noise * noise * noise;
            break;
        case FLAT:
            x[i] = noise > 0.0f ? 1.0f : -1.0f;
            break;
        default:
            x[i] = noise;
        }
    }
    if (kind == TALL)
        x[rng_below(&m->rng, n)] = 1.0f;
    normalise(x, n);
    if (kind == DUPLICATE && m->present[other])
        memcpy(x, m->vectors + other * n, n * sizeof(*x));
}

static enum kind
some_kind(struct model *m, int bias)
{
    return bias < N_KINDS ? (enum kind)bias
                          : (enum kind)rng_below(&m->rng, N_KINDS);
}

static void
model_init(struct model *m, size_t n_dims, size_t n_ords, struct pool *pool,
    uint64_t seed)
{
    *m = (struct model){.n_dims = n_dims, .n_ords = n_ords};
    rng_seed(&m->rng, seed);
    m->vectors = calloc(n_ords * n_dims, sizeof(float));
    m->present = calloc(n_ords, sizeof(bool));
    m->cosines = calloc(n_ords, sizeof(double));
    m->centres = calloc(4 * n_dims, sizeof(float));
    assert_true(m->vectors != NULL && m->present != NULL &&
                m->cosines != NULL && m->centres != NULL);
    for (size_t c = 0; c < 4; c++) {
        for (size_t i = 0; i < n_dims; i++)
            m->centres[c * n_dims + i] = (float)rng_normal(&m->rng);
        normalise(m->centres + c * n_dims, n_dims);
    }
    assert_int_equal(ann_new(&m->ann, n_dims, pool), OK);
}

static void
model_release(struct model *m)
{
    ann_free(m->ann);
    free(m->vectors);
    free(m->present);
    free(m->cosines);
    free(m->centres);
}

static void
change(struct model *m, size_t n_changes, int bias)
{
    enum { BATCH = 40 };
    size_t n = m->n_dims;
    float *batch = calloc(BATCH * n, sizeof(float));
    uint32_t ords[BATCH];

    assert_non_null(batch);
    while (n_changes > 0) {
        size_t n_now = 1 + rng_below(&m->rng, BATCH);

        if (rng_below(&m->rng, 3) == 0) {
            for (size_t i = 0; i < n_now / 2; i++) {
                uint32_t ord = (uint32_t)rng_below(&m->rng, m->n_ords);

                ann_remove(m->ann, ord);
                m->present[ord] = false;
            }
        } else {
            for (size_t i = 0; i < n_now; i++) {
                ords[i] = (uint32_t)rng_below(&m->rng, m->n_ords);
                make_vector(m, batch + i * n, some_kind(m, bias));
            }
            assert_int_equal(ann_put_many(m->ann, ords, batch, n_now), OK);
            for (size_t i = 0; i < n_now; i++) {
                memcpy(
                    m->vectors + ords[i] * n, batch + i * n, n * sizeof(float));
                m->present[ords[i]] = true;
            }
        }
        n_changes -= n_now < n_changes ? n_now : n_changes;
    }
    free(batch);
}

/* --- checking an answer --------------------------------------------------- */

/* Odd ordinals first, then the larger: nothing like the default. */
static int
odd_first(void *arg, uint32_t a, uint32_t b)
{
    (void)arg;
    if ((a & 1) != (b & 1))
        return (a & 1) != 0 ? -1 : 1;
    return (a < b) - (a > b);
}

static bool
tie_before(const struct ann_query *query, uint32_t a, uint32_t b)
{
    return query->tie != NULL ? query->tie(query->tie_arg, a, b) < 0 : a < b;
}

static bool
is_allowed(const struct ann_query *query, size_t ord)
{
    const struct ann_filter *f = query->filter;

    return ord != query->skip &&
           (f == NULL ||
               (ord / 64 < f->n_words && (f->bits[ord / 64] >> ord % 64 & 1)));
}

static void
check_answer(struct model *m, const struct ann_query *query,
    const struct ann_result *result)
{
    size_t n = m->n_dims, n_candidates = 0, n_allowed = 0, n_sure = 0;
    double max = -INFINITY, sum = 0.0;
    bool *hit = calloc(m->n_ords, sizeof(bool));

    assert_non_null(hit);
    for (size_t o = 0; o < m->n_ords; o++) {
        if (!m->present[o] || !is_allowed(query, o))
            continue;
        m->cosines[o] = exact_dot(m->vectors + o * n, query->vector, n);
        n_allowed++;
        n_candidates += m->cosines[o] >= query->min_cosine - SAME;
        n_sure += m->cosines[o] >= query->min_cosine + SAME;
        max = fmax(max, m->cosines[o]);
    }
    assert_true(result->exact);
    assert_true(result->n_hits <= query->k);
    assert_true(result->n_hits <= n_candidates);
    assert_true(result->n_hits == query->k || result->n_hits >= n_sure);
    for (size_t i = 0; i < result->n_hits; i++) {
        struct ann_hit h = result->hits[i];

        assert_true(h.ord < m->n_ords && m->present[h.ord] && !hit[h.ord]);
        assert_true(is_allowed(query, h.ord));
        hit[h.ord] = true;
        assert_true(fabs(h.cosine - m->cosines[h.ord]) <= SAME);
        assert_true(h.cosine >= query->min_cosine);
        if (i == 0)
            continue;

        struct ann_hit g = result->hits[i - 1];

        assert_true(g.cosine >= h.cosine);
        if (memcmp(m->vectors + g.ord * n, m->vectors + h.ord * n,
                n * sizeof(float)) == 0)
            assert_true(tie_before(query, g.ord, h.ord));
    }
    for (size_t o = 0; o < m->n_ords && result->n_hits == query->k; o++) {
        struct ann_hit last = result->hits[query->k - 1];

        if (!m->present[o] || !is_allowed(query, o) || hit[o])
            continue;
        assert_true(m->cosines[o] <= last.cosine + SAME);
        if (memcmp(m->vectors + o * n, m->vectors + last.ord * n,
                n * sizeof(float)) == 0)
            assert_true(tie_before(query, last.ord, (uint32_t)o));
    }
    free(hit);
    if (!(query->temperature > 0.0))
        return;
    if (n_allowed == 0) {
        assert_true(isinf(result->log_sum_exp) && result->log_sum_exp < 0.0);
        return;
    }
    for (size_t o = 0; o < m->n_ords; o++)
        if (m->present[o] && is_allowed(query, o))
            sum += exp((m->cosines[o] - max) / query->temperature);

    double want = max / query->temperature + log(sum);
    double off = fabs(result->log_sum_exp - want);

    assert_true(result->log_sum_exp_error >= 0.0);
    assert_true(off <= result->log_sum_exp_error);
    /* and the bound is not an empty one */
    assert_true(result->log_sum_exp_error <= 1e-3 + 0.1 / query->temperature);
    if (result->n_rescored >= n_allowed)
        assert_true(result->log_sum_exp_error <= 1e-3);
}

static const double temperatures[] = {0.05, 1.0, 0.01, 0.0, 0.0005};

static void
search_and_check(struct model *m, int bias)
{
    enum { MANY = 6 };
    struct ann_query queries[MANY];
    struct ann_result results[MANY];
    uint64_t *bits[MANY];
    struct ann_filter filters[MANY];
    float *vectors = calloc(MANY * m->n_dims, sizeof(float));
    size_t n_words = m->n_ords / 64 + 1;

    assert_non_null(vectors);
    for (size_t i = 0; i < MANY; i++) {
        float *vector = vectors + i * m->n_dims;
        size_t other = rng_below(&m->rng, m->n_ords);
        const size_t ks[] = {1, 3, 10, 100, 2 * m->n_ords};

        make_vector(m, vector, some_kind(m, bias));
        if (rng_below(&m->rng, 3) == 0)
            memcpy(vector, m->vectors + other * m->n_dims,
                m->n_dims * sizeof(float));
        queries[i] = (struct ann_query){.vector = vector,
            .k = ks[rng_below(&m->rng, 5)],
            .min_cosine = rng_below(&m->rng, 3) == 0
                              ? 2.0 * rng_double(&m->rng) - 1.0
                              : -2.0,
            .temperature = temperatures[rng_below(&m->rng, 5)],
            .skip = rng_below(&m->rng, 2) == 0 ? (uint32_t)other : ANN_NONE};
        if (rng_below(&m->rng, 2) == 0)
            queries[i].tie = odd_first;
        bits[i] = calloc(n_words, sizeof(uint64_t));
        assert_non_null(bits[i]);
        if (rng_below(&m->rng, 2) == 0) {
            uint64_t one_in = 1 + rng_below(&m->rng, 60);

            filters[i] = (struct ann_filter){.bits = bits[i],
                .n_words = n_words - rng_below(&m->rng, n_words)};
            for (size_t o = 0; o < filters[i].n_words * 64; o++)
                if (rng_below(&m->rng, one_in) == 0) {
                    bits[i][o / 64] |= (uint64_t)1 << o % 64;
                    filters[i].n_allowed++;
                }
            queries[i].filter = &filters[i];
        }
        results[i] = (struct ann_result){
            .hits = calloc(queries[i].k, sizeof(struct ann_hit))};
        assert_non_null(results[i].hits);
    }
    if (rng_below(&m->rng, 2) == 0) {
        assert_int_equal(ann_search_many(m->ann, queries, results, MANY), OK);
    } else {
        for (size_t i = 0; i < MANY; i++)
            assert_int_equal(ann_search(m->ann, &queries[i], &results[i]), OK);
    }
    for (size_t i = 0; i < MANY; i++) {
        check_answer(m, &queries[i], &results[i]);
        free(results[i].hits);
        free(bits[i]);
    }
    free(vectors);
}

/* Counts and vectors, and what the passes rely on: the map, the codes, the
   largest residual of a span. */
static void
check_rows(struct model *m)
{
    size_t n = 0;
    float *x = calloc(m->n_dims, sizeof(float));
    int8_t *code = calloc(KERN_CODE_DIMS(m->n_dims), 1);

    assert_true(x != NULL && code != NULL);
    for (size_t o = 0; o < m->n_ords; o++) {
        enum err err = ann_get(m->ann, (uint32_t)o, x);

        assert_int_equal(err, m->present[o] ? OK : ERR_NOT_FOUND);
        if (m->present[o])
            assert_memory_equal(
                x, m->vectors + o * m->n_dims, m->n_dims * sizeof(float));
        n += m->present[o];
    }
    assert_int_equal(ann_count(m->ann), n);
    for (uint32_t row = 0; row < n; row++) {
        const struct flat_chunk *chunk = m->ann->chunks[row / FLAT_CHUNK_ROWS];
        size_t at = row % FLAT_CHUNK_ROWS;
        const uint8_t *block = chunk->codes + at / KERN_BLOCK_ROWS *
                                                  KERN_BLOCK_ROWS *
                                                  m->ann->n_code;
        struct code_of of;

        assert_int_equal(flat_row_of(m->ann, flat_ord(m->ann, row)), row);
        code_row(&of, code, flat_vector(m->ann, row), m->n_dims);
        for (size_t d = 0; d < m->ann->n_code; d++)
            assert_int_equal((int)block[d / 4 * 4 * KERN_BLOCK_ROWS +
                                        4 * (at % KERN_BLOCK_ROWS) + d % 4],
                code[d] + 128);
        assert_true(chunk->scale[at] == of.scale);
        assert_true(chunk->residual[at] == of.residual);
        assert_true(of.norm <= m->ann->max_norm);
        assert_true(of.residual <= chunk->span_residual[at / FLAT_SPAN_ROWS]);
    }
    free(x);
    free(code);
}

static void
one_model(size_t n_dims, size_t n_ords, int bias, size_t n_rounds,
    struct pool *pool, uint64_t seed)
{
    struct model m;

    model_init(&m, n_dims, n_ords, pool, seed);
    search_and_check(&m, bias);
    for (size_t round = 0; round < n_rounds; round++) {
        change(&m, round == 0 ? n_ords + n_ords / 2 : n_ords / 8, bias);
        check_rows(&m);
        for (size_t i = 0; i < 3; i++)
            search_and_check(&m, bias);
    }
    model_release(&m);
}

static void
index_equals_model(void **state)
{
    static const size_t dims[] = {1, 2, 3, 7, 15, 16, 17, 31, 63, 64, 65, 100,
        128, 191, 256, 300, 384, 512, 768, 1024, 1100};
    const char *at_start = kern()->name;
    const struct kern *k;

    (void)state;
    for (size_t t = 0; (k = kern_available(t)) != NULL; t++) {
        assert_int_equal(setenv("KINDRED_KERNELS", k->name, 1), 0);
        kern_init();
        for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++) {
            size_t n_ords = dims[i] > 300 || t == 0 ? 500 : 2500;

            for (int bias = 0; bias <= N_KINDS; bias++)
                one_model(dims[i], bias % 2 == 0 ? n_ords : 400, bias,
                    bias == N_KINDS ? 4 : 1, NULL, 31 * i + (size_t)bias);
        }
    }
    assert_int_equal(setenv("KINDRED_KERNELS", at_start, 1), 0);
    kern_init();
}

static void
several_chunks_and_a_pool(void **state)
{
    struct pool *pool;

    (void)state;
    assert_int_equal(pool_new(&pool, 3, false), OK);
    one_model(24, 25000, N_KINDS, 2, pool, 5);
    one_model(700, 7000, CLUSTERED, 1, pool, 6); /* enough to be split */
    pool_free(pool);
}

/* --- threads -------------------------------------------------------------- */

#define FIXED 700  /* ordinals that stay */
#define MOVING 300 /* ordinals that come and go */
#define DIMS 48
#define SEARCHERS 6

struct shared {
    struct ann *ann;
    const float *vectors; /* [FIXED + MOVING, DIMS] */
    _Atomic bool stop;
    _Atomic size_t n_searches;
};

struct searcher {
    struct shared *shared;
    uint64_t seed;
};

/* A query for a fixed row must find it at cosine 1 whatever the writer does,
   and every hit must have the cosine of the vector of its ordinal. */
static void *
search_thread(void *arg)
{
    struct searcher *s = arg;
    struct shared *shared = s->shared;
    struct rng rng;

    rng_seed(&rng, s->seed);
    while (!atomic_load(&shared->stop)) {
        struct ann_hit hits[2][5];
        struct ann_result results[2] = {{.hits = hits[0]}, {.hits = hits[1]}};
        struct ann_query queries[2];
        size_t n = 1 + rng_below(&rng, 2);
        uint32_t ords[2];

        for (size_t i = 0; i < n; i++) {
            ords[i] = (uint32_t)rng_below(&rng, FIXED);
            queries[i] = (struct ann_query){
                .vector = shared->vectors + (size_t)ords[i] * DIMS,
                .k = 5,
                .min_cosine = -2.0,
                .temperature = 0.05,
                .skip = ANN_NONE};
        }
        if (ann_search_many(shared->ann, queries, results, n) != OK)
            abort();
        for (size_t i = 0; i < n; i++) {
            if (results[i].n_hits != 5 || hits[i][0].ord != ords[i])
                abort();
            for (size_t h = 0; h < 5; h++) {
                double c = exact_dot(queries[i].vector,
                    shared->vectors + (size_t)hits[i][h].ord * DIMS, DIMS);

                if (!(fabs(c - hits[i][h].cosine) <= SAME))
                    abort();
            }
        }
        atomic_fetch_add(&shared->n_searches, n);
    }
    return NULL;
}

static void
searches_while_a_writer_writes(void **state)
{
    static float vectors[(FIXED + MOVING) * DIMS];
    pthread_t threads[SEARCHERS];
    struct searcher searchers[SEARCHERS];
    struct shared shared = {.vectors = vectors};
    struct rng rng;
    size_t n_writes = 0;

    (void)state;
    rng_seed(&rng, 8);
    for (size_t i = 0; i < FIXED + MOVING; i++) {
        for (size_t d = 0; d < DIMS; d++)
            vectors[i * DIMS + d] = (float)rng_normal(&rng);
        normalise(vectors + i * DIMS, DIMS);
    }
    assert_int_equal(ann_new(&shared.ann, DIMS, NULL), OK);
    /* those that stay come last: removals move them */
    for (uint32_t i = FIXED + MOVING; i-- > 0;)
        assert_int_equal(
            ann_put(shared.ann, i, vectors + (size_t)i * DIMS), OK);
    for (size_t i = 0; i < SEARCHERS; i++) {
        searchers[i] = (struct searcher){.shared = &shared, .seed = i};
        assert_int_equal(
            pthread_create(&threads[i], NULL, search_thread, &searchers[i]), 0);
    }
    /* the writer must get its turn, and so must the searchers */
    while (n_writes < 4000 || atomic_load(&shared.n_searches) < 1000) {
        uint32_t ord = FIXED + (uint32_t)rng_below(&rng, MOVING);

        if (rng_below(&rng, 2) == 0)
            ann_remove(shared.ann, ord);
        else
            assert_int_equal(
                ann_put(shared.ann, ord, vectors + (size_t)ord * DIMS), OK);
        n_writes++;
    }
    atomic_store(&shared.stop, true);
    for (size_t i = 0; i < SEARCHERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    ann_free(shared.ann);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(index_equals_model),
        cmocka_unit_test(several_chunks_and_a_pool),
        cmocka_unit_test(searches_while_a_writer_writes),
    };

    kern_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
