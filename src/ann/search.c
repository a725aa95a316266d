/*
 * search.c - answers from the exact index.
 *
 * A pass scans the codes of all rows for up to FLAT_PASS_QUERIES queries at
 * once, span by span: the dots of a span, still in the cache, go through one
 * kernel that sums exponentials and lists the few rows above a threshold.
 * What is left at the end of the pass is rescored from the f32 vectors in
 * double, best possible first, until the next one's upper end is below the
 * k-th cosine found. By the bound of code.h no other row can belong to the
 * answer, so it is the true top k of the cosines as computed in double.
 *
 * Sharing. A search puts its queries into the index's queue. If nobody leads,
 * it leads: it takes what waits, from the front, runs one pass for it, wakes
 * the owners of finished queries and hands the lead to the owner of the
 * query that is now first. So a query waits for at most the pass that runs and
 * those before it in the queue, nobody runs passes for others longer than one
 * pass beyond its own need, and there is no thread but the callers'. A follower
 * sleeps on its own semaphore. A leader that finds fewer queries than the last
 * pass had lets other threads run first (once): those just woken often bring
 * their next query, and on a busy core they would otherwise come right after
 * the pass began.
 *
 * The logarithm of the sum. Let A = sum exp(a_r / t) over the rows that were
 * not rescored, R the exact sum over those that were, and b_r >= |c_r - a_r|.
 * With weights p_r = exp(a_r / t) / A, m = sum p_r b_r and B = max b_r,
 *
 *   A exp(-m / t) <= sum exp(c_r / t) <= A (1 + m (exp(B / t) - 1) / B)
 *
 * on the left by Jensen's inequality, on the right because exp(b / t) lies
 * under its chord over [0, B]. b_r is taken by span. So the reported error
 * shrinks with the part of the mass that was rescored.
 */
#include "ann/flat.h"

#include <math.h>
#include <sched.h>
#include <semaphore.h>
#include <string.h>
#include "ann/code.h"
#include "ann/track.h"
#include "base/alloc.h"
#include "base/check.h"

/* Dots of one query to those of the next. Not a power of two: a block's dots of
   all queries would share one set of the first-level cache. */
#define DOTS_STRIDE (FLAT_SPAN_ROWS + KERN_BLOCK_ROWS)

/* Below this many rows everything is compared in double: no error at all in
   the sum, and the cost is small. */
#define DIRECT_ROWS 256

/* A comparison in double costs about as much as this many of codes. */
#define DIRECT_COST 16

/* Bytes of codes times queries from which a pass is worth the pool. */
#define POOL_WORK ((size_t)4 << 20)

/* From this temperature on, exp((a - 1) / temperature) stays in the range of
   float for every a in [-1.03, 1.03]; below it, or with longer vectors, the
   shift follows the largest a. */
#define FIXED_SHIFT_TEMPERATURE 0.025
#define FIXED_SHIFT_TOP 1.03

/* Vectors asked for before the first of them is rescored. */
#define FETCH_ROWS 64

/* Relative error of the kernels' sums: 1e-5 of the exponential, as much for
   the argument's roundings, 64 float additions to a lane. */
#define SUM_EPS 3e-5

struct waiter {
    sem_t wake;    /* posted once: the lead is yours, or all is done */
    size_t n_left; /* this and the next under the queue's lock */
    bool lead;
};

struct search_job {
    const struct ann_query *query;
    struct ann_result *result; /* written when err is OK */
    struct waiter *waiter;
    struct search_job *next;
    struct code_of code;
    struct code_bounds bounds; /* set by the pass, as the next */
    uint32_t skip_row;
    uint8_t *image;       /* the prepared query */
    struct track *tracks; /* one for each shard of a pass */
    enum err err;
};

/* Of one thread of a pass. */
struct scratch {
    int32_t *dots;      /* [FLAT_PASS_QUERIES, DOTS_STRIDE] */
    uint32_t *listed;   /* [FLAT_SPAN_ROWS] */
    int32_t *some_dots; /* rows that a filter allows, the next two as well */
    float *some_scale;
    uint32_t *some_rows;
};

struct search_pass {
    size_t n_threads;
    size_t n_bytes;
    uint8_t *images; /* packed, as scan wants them */
    struct scratch *scratch;
    void *memory;
    /* the pass that runs */
    struct ann *ann;
    struct search_job *jobs[FLAT_PASS_QUERIES];
    size_t n_jobs;
    size_t n_shards;
};

/* --- the scratch memory --------------------------------------------------- */

enum err
search_pass_new(struct search_pass **out, size_t n_code, size_t n_threads)
{
    const size_t span = FLAT_SPAN_ROWS * sizeof(int32_t);
    const size_t dots = FLAT_PASS_QUERIES * DOTS_STRIDE * sizeof(int32_t);
    const size_t per_thread = dots + 4 * span;
    size_t images =
        (FLAT_PASS_QUERIES * KERN_QUERY_BYTES(n_code) + 63) / 64 * 64;
    struct search_pass *pass = mem_calloc(1, sizeof(*pass));
    struct scratch *scratch = mem_calloc(n_threads, sizeof(*scratch));
    char *memory = mem_alloc_aligned(images + n_threads * per_thread, 1);

    if (pass == NULL || scratch == NULL || memory == NULL) {
        mem_free(pass);
        mem_free(scratch);
        mem_free(memory);
        return ERR_NOMEM;
    }
    pass->n_threads = n_threads;
    pass->n_bytes = sizeof(*pass) + n_threads * sizeof(*scratch) + images +
                    n_threads * per_thread;
    pass->memory = memory;
    pass->images = (uint8_t *)memory;
    pass->scratch = scratch;
    memory += images;
    for (size_t i = 0; i < n_threads; i++) {
        scratch[i].dots = (int32_t *)(void *)memory;
        memory += dots;
        scratch[i].listed = (uint32_t *)(void *)memory;
        memory += span;
        scratch[i].some_dots = (int32_t *)(void *)memory;
        memory += span;
        scratch[i].some_scale = (float *)(void *)memory;
        memory += span;
        scratch[i].some_rows = (uint32_t *)(void *)memory;
        memory += span;
    }
    *out = pass;
    return OK;
}

void
search_pass_free(struct search_pass *pass)
{
    if (pass == NULL)
        return;
    mem_free(pass->memory);
    mem_free(pass->scratch);
    mem_free(pass);
}

size_t
search_pass_bytes(const struct search_pass *pass)
{
    return pass->n_bytes;
}

/* --- the best k ----------------------------------------------------------- */

static bool
allowed(const struct ann_query *query, uint32_t ord)
{
    const struct ann_filter *filter = query->filter;

    if (ord == query->skip)
        return false;
    return filter == NULL ||
           (ord / 64 < filter->n_words &&
               (filter->bits[ord / 64] >> (ord % 64) & 1) != 0);
}

/* The order of the answer. */
static bool
before(const struct ann_query *query, struct ann_hit a, struct ann_hit b)
{
    if (a.cosine > b.cosine || a.cosine < b.cosine)
        return a.cosine > b.cosine;
    if (query->tie != NULL) {
        int order = query->tie(query->tie_arg, a.ord, b.ord);

        if (order != 0)
            return order < 0;
    }
    return a.ord < b.ord;
}

/* Let the hit at `at` sink in a heap whose root is the last in order. */
static void
sink(const struct ann_query *query, struct ann_hit *hits, size_t n, size_t at)
{
    struct ann_hit hit = hits[at];

    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= n)
            break;
        if (child + 1 < n && before(query, hits[child], hits[child + 1]))
            child++;
        if (!before(query, hit, hits[child]))
            break;
        hits[at] = hits[child];
        at = child;
    }
    hits[at] = hit;
}

static void
offer(const struct ann_query *query, struct ann_hit *hits, size_t *n_hits,
    struct ann_hit hit)
{
    if (hit.cosine < query->min_cosine)
        return;
    if (*n_hits < query->k) {
        hits[(*n_hits)++] = hit;
        if (*n_hits == query->k)
            for (size_t i = *n_hits / 2; i-- > 0;)
                sink(query, hits, *n_hits, i);
    } else if (before(query, hit, hits[0])) {
        hits[0] = hit;
        sink(query, hits, *n_hits, 0);
    }
}

/* Best first, from a heap or (less than k) any order. */
static void
sort_hits(const struct ann_query *query, struct ann_hit *hits, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sink(query, hits, n, i);
    for (size_t end = n; end-- > 1;) {
        struct ann_hit last = hits[0];

        hits[0] = hits[end];
        hits[end] = last;
        sink(query, hits, end, 0);
    }
}

/* --- everything in double ------------------------------------------------- */

struct direct {
    const struct ann *ann;
    const struct ann_query *query;
    struct ann_result *result;
    size_t n_hits;
    size_t n_rows;
    double top; /* of the cosines so far */
    double sum; /* of exp((cosine - top) / temperature) */
};

static void
direct_row(struct direct *d, uint32_t ord, uint32_t row)
{
    double t = d->query->temperature;
    double cosine = kern()->dot_f64(
        flat_vector(d->ann, row), d->query->vector, d->ann->n_dims);

    d->n_rows++;
    offer(d->query, d->result->hits, &d->n_hits,
        (struct ann_hit){.ord = ord, .cosine = cosine});
    if (!(t > 0.0))
        return;
    if (cosine <= d->top) {
        d->sum += exp((cosine - d->top) / t);
    } else {
        d->sum = d->sum * exp((d->top - cosine) / t) + 1.0;
        d->top = cosine;
    }
}

/* Under the read lock. */
static bool
direct_suits(const struct ann *ann, const struct ann_query *query)
{
    return ann->n_rows <= DIRECT_ROWS ||
           (query->filter != NULL &&
               query->filter->n_allowed < ann->n_rows / DIRECT_COST);
}

static void
direct_search(const struct ann *ann, const struct ann_query *query,
    struct ann_result *result)
{
    struct direct d = {
        .ann = ann, .query = query, .result = result, .top = -INFINITY};
    const struct ann_filter *filter = query->filter;

    if (filter != NULL && filter->n_allowed < ann->n_rows) {
        for (size_t w = 0; w < filter->n_words; w++) {
            uint32_t ord = (uint32_t)(w * 64);

            for (uint64_t bits = filter->bits[w]; bits != 0;
                 bits >>= 1, ord++) {
                uint32_t row;

                if ((bits & 1) == 0 || ord == query->skip)
                    continue;
                row = flat_row_of(ann, ord);
                if (row != FLAT_NO_ROW)
                    direct_row(&d, ord, row);
            }
        }
    } else {
        for (uint32_t row = 0; row < ann->n_rows; row++) {
            uint32_t ord = flat_ord(ann, row);

            if (allowed(query, ord))
                direct_row(&d, ord, row);
        }
    }
    sort_hits(query, result->hits, d.n_hits);
    result->n_hits = d.n_hits;
    result->exact = true;
    result->n_scanned = 0;
    result->n_rescored = d.n_rows;
    result->log_sum_exp = 0.0;
    result->log_sum_exp_error = 0.0;
    if (query->temperature > 0.0) {
        result->log_sum_exp =
            d.n_rows == 0 ? -INFINITY : d.top / query->temperature + log(d.sum);
        result->log_sum_exp_error =
            d.n_rows == 0 ? 0.0
                          : (double)(d.n_rows + 8) * 0x1p-52 +
                                (double)(ann->n_dims + 8) * 0x1p-52 *
                                    (1.0 + ann->max_norm) / query->temperature;
    }
}

/* --- one span of a pass --------------------------------------------------- */

struct span {
    const struct flat_chunk *chunk;
    uint32_t row; /* the first, in the index */
    size_t at;    /* the first, in the chunk */
    size_t n;
};

/* Copy what a query may see of a span. Gives how many rows that is. */
static size_t
pick_allowed(const struct scratch *s, const struct ann_query *query,
    const struct span *span, const int32_t *dots)
{
    const uint32_t *ords = span->chunk->ords + span->at;
    const float *scale = span->chunk->scale + span->at;
    size_t n = 0;

    for (size_t r = 0; r < span->n; r++) {
        s->some_dots[n] = dots[r];
        s->some_scale[n] = scale[r];
        s->some_rows[n] = (uint32_t)r;
        n += allowed(query, ords[r]);
    }
    return n;
}

/* Rows of a span as a kernel sees them. */
struct view {
    const int32_t *dots;
    const float *scale;
    const uint32_t *rows; /* NULL: 0, 1, 2, ... */
    size_t n;
};

/* The a below which no row of a span can reach the floor. a + (its bound)
   rises with a while a is below .99 of the norms (the bound falls by less than
   a rises), so from a safe threshold the bound that holds there gives a
   better one. */
static float
threshold_of(const struct track *track, const struct code_bounds *bounds,
    double bound, double residual)
{
    double safe = track->floor - bound;
    double norms = bounds->query_norm * bounds->row_norm;

    if (safe > 0.0 && track->floor < 0.99 * norms && bound < 0.1 * norms)
        safe = track->floor - code_bound_at(bounds, safe, residual);
    return (float)safe;
}

/* List the rows [from, from + n) of a view that may belong to the best k, and
   (where opt wants it) add up their exponentials. */
static enum err
take_rows(const struct scratch *s, const struct search_job *job,
    struct track *track, const struct span *span, const struct view *view,
    size_t from, size_t n, double bound, struct kern_select *opt)
{
    bool follow =
        opt->inv_temperature > 0.0f &&
        (job->query->temperature < FIXED_SHIFT_TEMPERATURE ||
            job->bounds.query_norm * job->bounds.row_norm > FIXED_SHIFT_TOP);
    double residual =
        (double)span->chunk->span_residual[span->at / FLAT_SPAN_ROWS];
    float threshold = threshold_of(track, &job->bounds, bound, residual);
    double sum = 0.0;
    struct kern_select now = *opt;

    now.threshold = nextafterf(threshold, -INFINITY);
    if (follow) {
        now.threshold = fminf(now.threshold, (float)track->top);
        now.inv_temperature = 0.0f;
    }

    size_t n_listed = kern()->select(
        s->listed, &sum, view->dots + from, view->scale + from, n, &now);
    enum err err = OK;

    for (size_t i = 0; i < n_listed && err == OK; i++) {
        size_t at = from + s->listed[i];
        size_t r = view->rows != NULL ? view->rows[at] : at;
        float a = (float)view->dots[at] * view->scale[at] * opt->q_scale;

        track->top = MAX(track->top, (double)a);
        if (a >= threshold)
            err = track_offer(track, span->row + (uint32_t)r, a,
                (float)code_bound_at(&job->bounds, (double)a,
                    (double)span->chunk->residual[span->at + r]));
    }
    if (err != OK)
        return err;
    if (follow) {
        double t = job->query->temperature;

        if (track->sum > 0.0 && track->top > track->shift)
            track_reshift(track, track->top, t);
        else if (!(track->sum > 0.0))
            track->shift = track->top;
        now = *opt;
        now.threshold = INFINITY;
        now.shift = (float)track->shift;
        track->shift = (double)now.shift;
        (void)kern()->select(
            s->listed, &sum, view->dots + from, view->scale + from, n, &now);
    }
    track->sum += sum;
    track->sum_bounds += sum * bound;
    return OK;
}

static enum err
take_span(const struct scratch *s, const struct search_job *job,
    struct track *track, const struct span *span, const int32_t *dots)
{
    const struct ann_query *query = job->query;
    size_t span_i = span->at / FLAT_SPAN_ROWS;
    double bound = code_bound_any(
        &job->bounds, (double)span->chunk->span_residual[span_i]);
    struct kern_select opt = {.q_scale = job->code.scale,
        .shift = 1.0f,
        .inv_temperature =
            query->temperature > 0.0 ? (float)(1.0 / query->temperature) : 0};
    struct view view = {
        .dots = dots, .scale = span->chunk->scale + span->at, .n = span->n};
    enum err err = OK;

    if (query->filter != NULL || job->skip_row - span->row < span->n) {
        view = (struct view){.dots = s->some_dots,
            .scale = s->some_scale,
            .rows = s->some_rows,
            .n = pick_allowed(s, query, span, dots)};
    }
    track->bound_max = fmax(track->bound_max, bound);
    /* until the floor stands somewhere, every row is a candidate: raise it
       early */
    for (size_t from = 0; from < view.n && err == OK;) {
        size_t n = view.n - from;

        if (track->n_scanned == 0 && from < 256)
            n = MIN(n, (size_t)(from == 0 ? 64 : 192));
        err = take_rows(s, job, track, span, &view, from, n, bound, &opt);
        from += n;
    }
    track->n_scanned += span->n;
    track->n_seen += view.n;
    return err;
}

/* --- the end of a pass ---------------------------------------------------- */

static double
span_bound(const struct ann *ann, const struct search_job *job, uint32_t row)
{
    const struct flat_chunk *chunk = ann->chunks[row / FLAT_CHUNK_ROWS];
    size_t span_i = row % FLAT_CHUNK_ROWS / FLAT_SPAN_ROWS;

    return code_bound_any(&job->bounds, (double)chunk->span_residual[span_i]);
}

/* What the rescoring of a query left for its sum. */
struct rest {
    size_t n_rows;     /* not rescored */
    double sum;        /* of the exponentials of these */
    double sum_bounds; /* the same with the span's bound as a factor */
    double exact;      /* the exact exponentials of the others */
    double cosine_max; /* none of these rows is above */
};

/* The logarithm of the sum and its error: the head of this file. */
static void
conclude_sum(const struct track *track, const struct ann_query *query,
    struct ann_result *result, const struct rest *rest)
{
    double t = query->temperature;
    double slip = rest->n_rows > 0 ? SUM_EPS * track->sum : 0.0;
    double cap =
        rest->n_rows == 0
            ? 0.0
            : (double)rest->n_rows * exp((rest->cosine_max - track->shift) / t);
    double sum = fmin(fmax(rest->sum, 0.0), cap);
    double low = fmax(sum - slip, 0.0), high = sum + slip;
    double bound = track->bound_max, mean = bound;
    double total = rest->exact + sum;

    result->log_sum_exp = 0.0;
    result->log_sum_exp_error = 0.0;
    if (!(t > 0.0))
        return;
    if (!(total > 0.0)) {
        result->log_sum_exp = -INFINITY;
        return;
    }
    if (low > 0.0)
        mean = fmin(bound, (rest->sum_bounds + slip * bound) / low);
    low *= exp(-mean / t);
    if (bound > 0.0)
        high *= 1.0 + mean / bound * expm1(bound / t);
    high = fmax(fmin(high, cap), sum);
    result->log_sum_exp = track->shift / t + log(total);

    /* the second of each pair holds for any weights, and in the range of
       double where the first leaves it */
    double over = fmin(log((rest->exact + high) / total),
        bound / t + log((total + slip) / total));
    double under = fmin(log(total / (rest->exact + fmin(low, sum))),
        bound / t + log(total / fmax(total - slip, 0.0)));

    result->log_sum_exp_error = 1e-12 * (1.0 + 1.0 / t) + fmax(over, under);
}

/* Rescore and answer. Under the read lock. */
static enum err
finish_job(const struct ann *ann, struct search_job *job, size_t n_shards)
{
    const struct ann_query *query = job->query;
    struct ann_result *result = job->result;
    struct track *track = &job->tracks[0];
    double t = query->temperature;
    size_t n_hits = 0, n_rescored = 0;

    for (size_t s = 1; s < n_shards; s++) {
        enum err err = track_merge(track, &job->tracks[s], t);

        if (err != OK)
            return err;
    }
    track_prune(track);
    track_order(track);
    for (size_t i = 0; i < MIN(track->n_rows, (size_t)FETCH_ROWS); i++)
        kern()->fetch(
            flat_vector(ann, track->rows[i].row), ann->n_dims * sizeof(float));

    struct rest rest = {.sum = track->sum,
        .sum_bounds = track->sum_bounds,
        .cosine_max = track->floor};

    while (track->n_rows > 0) {
        struct track_candidate c = track_pop(track);
        double upper = (double)c.a + (double)c.b;
        struct ann_hit hit = {.ord = flat_ord(ann, c.row)};

        if (upper < query->min_cosine ||
            (n_hits == query->k && upper < result->hits[0].cosine)) {
            rest.cosine_max = fmax(rest.cosine_max, upper);
            break;
        }
        n_rescored++;
        hit.cosine = kern()->dot_f64(
            flat_vector(ann, c.row), query->vector, ann->n_dims);
        offer(query, result->hits, &n_hits, hit);
        if (t > 0.0) {
            double approximate = exp(((double)c.a - track->shift) / t);

            rest.sum -= approximate;
            rest.sum_bounds -= approximate * span_bound(ann, job, c.row);
            rest.exact += exp((hit.cosine - track->shift) / t);
        }
    }
    rest.n_rows = track->n_seen - n_rescored;
    sort_hits(query, result->hits, n_hits);
    conclude_sum(track, query, result, &rest);
    result->n_hits = n_hits;
    result->exact = true;
    result->n_scanned = track->n_scanned;
    result->n_rescored = n_rescored;
    return OK;
}

/* --- a pass --------------------------------------------------------------- */

static void
pass_scan_shard(void *arg, size_t shard_i, size_t thread_i)
{
    struct search_pass *pass = arg;
    const struct ann *ann = pass->ann;
    const struct scratch *s = &pass->scratch[thread_i];
    size_t n_spans = (ann->n_rows + FLAT_SPAN_ROWS - 1) / FLAT_SPAN_ROWS;
    size_t from = n_spans * shard_i / pass->n_shards;
    size_t to = n_spans * (shard_i + 1) / pass->n_shards;

    for (size_t i = from; i < to; i++) {
        size_t row = i * FLAT_SPAN_ROWS;
        struct span span = {.chunk = ann->chunks[row / FLAT_CHUNK_ROWS],
            .row = (uint32_t)row,
            .at = row % FLAT_CHUNK_ROWS,
            .n = MIN(ann->n_rows - row, (size_t)FLAT_SPAN_ROWS)};

        kern()->scan(s->dots, DOTS_STRIDE,
            span.chunk->codes + span.at * ann->n_code,
            (span.n + KERN_BLOCK_ROWS - 1) / KERN_BLOCK_ROWS, pass->images,
            pass->n_jobs, ann->n_code);
        for (size_t q = 0; q < pass->n_jobs; q++) {
            struct search_job *job = pass->jobs[q];
            struct track *track = &job->tracks[shard_i];

            if (track->err == OK)
                track->err =
                    take_span(s, job, track, &span, s->dots + q * DOTS_STRIDE);
        }
    }
}

static void
pass_finish_shard(void *arg, size_t shard_i, size_t thread_i)
{
    struct search_pass *pass = arg;
    struct search_job *job = pass->jobs[shard_i];

    (void)thread_i;
    job->err = OK;
    for (size_t s = 0; s < pass->n_shards && job->err == OK; s++)
        job->err = job->tracks[s].err;
    if (job->err == OK)
        job->err = finish_job(pass->ann, job, pass->n_shards);
}

/* One pass for pass->jobs. By the leader only. */
static void
run_pass(struct search_pass *pass)
{
    struct ann *ann = pass->ann;
    size_t image_bytes = KERN_QUERY_BYTES(ann->n_code);

    for (size_t q = 0; q < pass->n_jobs; q++)
        memcpy(
            pass->images + q * image_bytes, pass->jobs[q]->image, image_bytes);
    fairlock_read(ann->lock);

    size_t n_spans = (ann->n_rows + FLAT_SPAN_ROWS - 1) / FLAT_SPAN_ROWS;
    bool big = ann->n_rows * ann->n_code * pass->n_jobs >= POOL_WORK;

    pass->n_shards = big ? MAX(MIN(pass->n_threads, n_spans), (size_t)1) : 1;
    for (size_t q = 0; q < pass->n_jobs; q++) {
        struct search_job *job = pass->jobs[q];

        job->bounds = code_bounds_of(&job->code, ann->max_norm);
        job->skip_row = job->query->skip == ANN_NONE
                            ? FLAT_NO_ROW
                            : flat_row_of(ann, job->query->skip);
    }
    if (pass->n_shards > 1) {
        pool_run(ann->pool, pass->n_shards, pass_scan_shard, pass);
        pool_run(ann->pool, pass->n_jobs, pass_finish_shard, pass);
    } else {
        pass_scan_shard(pass, 0, 0);
        for (size_t q = 0; q < pass->n_jobs; q++)
            pass_finish_shard(pass, q, 0);
    }
    fairlock_read_done(ann->lock);
}

/* --- sharing passes ------------------------------------------------------- */

/* Take the first queries of the queue. Under the queue's lock. */
static void
take_jobs(struct ann *ann, struct search_pass *pass)
{
    pass->ann = ann;
    pass->n_jobs = 0;
    while (ann->first != NULL && pass->n_jobs < FLAT_PASS_QUERIES) {
        pass->jobs[pass->n_jobs++] = ann->first;
        ann->first = ann->first->next;
    }
    if (ann->first == NULL)
        ann->last = NULL;
    ann->n_waiting -= pass->n_jobs;
    ann->n_last_pass = pass->n_jobs;
}

/* Note what is done and find the next leader. Under the queue's lock. Gives
   how many waiters, besides me, are to be woken. */
static size_t
pass_done(struct ann *ann, struct search_pass *pass, struct waiter *me,
    struct waiter **wake)
{
    size_t n_wake = 0;

    for (size_t q = 0; q < pass->n_jobs; q++) {
        struct waiter *waiter = pass->jobs[q]->waiter;

        if (--waiter->n_left == 0 && waiter != me)
            wake[n_wake++] = waiter;
    }
    me->lead = false;
    ann->leading = ann->first != NULL;
    if (ann->leading) {
        ann->first->waiter->lead = true;
        if (ann->first->waiter != me)
            wake[n_wake++] = ann->first->waiter;
    }
    return n_wake;
}

/* Queue the jobs and return when all are done. */
static void
share_passes(struct ann *ann, struct search_job *jobs, size_t n)
{
    struct waiter me = {.n_left = n};
    struct waiter *wake[FLAT_PASS_QUERIES + 1];

    ASSERT(sem_init(&me.wake, 0, 0) == 0);
    for (size_t i = 0; i < n; i++) {
        jobs[i].waiter = &me;
        jobs[i].next = i + 1 < n ? &jobs[i + 1] : NULL;
    }
    pthread_mutex_lock(&ann->queue_lock);
    if (ann->last != NULL)
        ann->last->next = jobs;
    else
        ann->first = jobs;
    ann->last = &jobs[n - 1];
    ann->n_waiting += n;
    me.lead = !ann->leading;
    ann->leading = true;
    while (me.n_left > 0) {
        if (!me.lead) {
            pthread_mutex_unlock(&ann->queue_lock);
            while (sem_wait(&me.wake) != 0)
                continue; /* a signal */
            pthread_mutex_lock(&ann->queue_lock);
            continue;
        }
        if (ann->n_waiting < ann->n_last_pass) {
            pthread_mutex_unlock(&ann->queue_lock);
            sched_yield();
            pthread_mutex_lock(&ann->queue_lock);
        }
        take_jobs(ann, ann->pass);
        pthread_mutex_unlock(&ann->queue_lock);
        run_pass(ann->pass);
        pthread_mutex_lock(&ann->queue_lock);

        size_t n_wake = pass_done(ann, ann->pass, &me, wake);

        pthread_mutex_unlock(&ann->queue_lock);
        for (size_t i = 0; i < n_wake; i++)
            sem_post(&wake[i]->wake);
        pthread_mutex_lock(&ann->queue_lock);
    }
    pthread_mutex_unlock(&ann->queue_lock);
    sem_destroy(&me.wake);
}

/* --- the entry points ----------------------------------------------------- */

static void
job_release(struct search_job *job, size_t n_tracks)
{
    for (size_t s = 0; job->tracks != NULL && s < n_tracks; s++)
        track_release(&job->tracks[s]);
    mem_free(job->tracks);
    mem_free(job->image);
}

static enum err
job_init(struct search_job *job, const struct ann *ann,
    const struct ann_query *query, struct ann_result *result, size_t n_tracks)
{
    enum err err = OK;

    *job = (struct search_job){.query = query, .result = result};
    job->image = mem_alloc(KERN_QUERY_BYTES(ann->n_code), 1);
    job->tracks = mem_calloc(n_tracks, sizeof(*job->tracks));
    if (job->image == NULL || job->tracks == NULL)
        err = ERR_NOMEM;
    for (size_t s = 0; s < n_tracks && err == OK; s++)
        err = track_init(&job->tracks[s], query);
    if (err == OK)
        code_query(&job->code, job->image, query->vector, ann->n_dims);
    else
        job_release(job, n_tracks);
    return err;
}

enum err
ann_search(
    struct ann *ann, const struct ann_query *query, struct ann_result *result)
{
    return ann_search_many(ann, query, result, 1);
}

enum err
ann_search_many(struct ann *ann, const struct ann_query *queries,
    struct ann_result *results, size_t n)
{
    size_t n_tracks = pool_threads(ann->pool);
    struct search_job one;
    struct search_job *jobs = &one;
    size_t n_jobs = 0;
    enum err err = OK;

    if (n > 1) {
        jobs = mem_alloc(n, sizeof(*jobs));
        if (jobs == NULL)
            return ERR_NOMEM;
    }
    for (size_t i = 0; i < n && err == OK; i++) {
        ASSERT(queries[i].k > 0);
        fairlock_read(ann->lock);

        bool direct = direct_suits(ann, &queries[i]);

        if (direct)
            direct_search(ann, &queries[i], &results[i]);
        fairlock_read_done(ann->lock);
        if (!direct) {
            err = job_init(
                &jobs[n_jobs], ann, &queries[i], &results[i], n_tracks);
            n_jobs += err == OK;
        }
    }
    if (err == OK && n_jobs > 0)
        share_passes(ann, jobs, n_jobs);
    for (size_t i = 0; i < n_jobs; i++) {
        err = err == OK ? jobs[i].err : err;
        job_release(&jobs[i], n_tracks);
    }
    if (n > 1)
        mem_free(jobs);
    return err;
}
