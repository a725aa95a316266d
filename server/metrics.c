#include "server/metrics.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "base/version.h"
#include "engine/engine.h"
#include "server/http.h"

/* Upper bounds of the latency histogram, in microseconds. */
static const int64_t bounds_us[] = {100, 250, 500, 1000, 2500, 5000, 10000,
    25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 10000000};
#define N_BOUNDS (sizeof(bounds_us) / sizeof(bounds_us[0]))

static const int statuses[] = {200, 201, 202, 204, 304, 400, 401, 403, 404, 405,
    408, 409, 412, 413, 415, 422, 429, 500, 501, 503, 507, 0};
#define N_STATUSES (sizeof(statuses) / sizeof(statuses[0]))

struct route_count {
    _Atomic uint64_t by_status[N_STATUSES]; /* the last: broken and others */
    _Atomic uint64_t bucket[N_BOUNDS + 1];
    _Atomic uint64_t sum_us;
};

struct metrics {
    struct route_count *counts; /* [n_routes + 1], the last: no route */
};

enum err
metrics_new(struct metrics **out)
{
    struct metrics *metrics = mem_calloc(1, sizeof(*metrics));
    if (!metrics)
        return ERR_NOMEM;
    metrics->counts = mem_calloc(n_routes + 1, sizeof(*metrics->counts));
    if (!metrics->counts) {
        mem_free(metrics);
        return ERR_NOMEM;
    }
    *out = metrics;
    return OK;
}

void
metrics_free(struct metrics *metrics)
{
    if (!metrics)
        return;
    mem_free(metrics->counts);
    mem_free(metrics);
}

static void
add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static uint64_t
get(_Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void
metrics_count(struct metrics *metrics, const struct route *route, int status,
    int64_t duration_ns)
{
    size_t route_i = route ? (size_t)(route - routes) : n_routes;
    struct route_count *count = &metrics->counts[route_i];
    size_t s = 0;
    while (s < N_STATUSES - 1 && statuses[s] != status)
        s++;
    int64_t us = duration_ns / 1000;
    size_t b = 0;
    while (b < N_BOUNDS && us > bounds_us[b])
        b++;
    add(&count->by_status[s], 1);
    add(&count->bucket[b], 1);
    add(&count->sum_us, (uint64_t)(us > 0 ? us : 0));
}

/* ---- the page ------------------------------------------------------------ */

static void
head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP kindred_%s %s\n# TYPE kindred_%s %s\n", name, help,
        name, type);
}

static void
one(struct buf *out, const char *name, const char *type, const char *help,
    double value)
{
    head(out, name, type, help);
    buf_printf(out, "kindred_%s ", name);
    buf_json_double(out, value);
    buf_add_char(out, '\n');
}

static const char *
route_name(size_t i)
{
    return i < n_routes ? routes[i].name : "none";
}

static void
write_requests(struct metrics *metrics, struct buf *out)
{
    head(out, "http_requests_total", "counter",
        "Requests by route and status; 0: broken off.");
    for (size_t r = 0; r <= n_routes; r++)
        for (size_t s = 0; s < N_STATUSES; s++) {
            uint64_t n = get(&metrics->counts[r].by_status[s]);
            if (n > 0)
                buf_printf(out,
                    "kindred_http_requests_total{route=\"%s\","
                    "status=\"%d\"} %llu\n",
                    route_name(r), statuses[s], (unsigned long long)n);
        }
    head(out, "http_request_seconds", "histogram",
        "From the request line to the last byte of the answer.");
    for (size_t r = 0; r <= n_routes; r++) {
        struct route_count *count = &metrics->counts[r];
        uint64_t below = 0;
        uint64_t total = 0;
        for (size_t b = 0; b <= N_BOUNDS; b++)
            total += get(&count->bucket[b]);
        if (total == 0)
            continue;
        for (size_t b = 0; b < N_BOUNDS; b++) {
            below += get(&count->bucket[b]);
            buf_printf(out,
                "kindred_http_request_seconds_bucket{route=\"%s\",le=\"%g\"} "
                "%llu\n",
                route_name(r), (double)bounds_us[b] * 1e-6,
                (unsigned long long)below);
        }
        buf_printf(out,
            "kindred_http_request_seconds_bucket{route=\"%s\",le=\"+Inf\"} "
            "%llu\nkindred_http_request_seconds_sum{route=\"%s\"} %.6f\n"
            "kindred_http_request_seconds_count{route=\"%s\"} %llu\n",
            route_name(r), (unsigned long long)total, route_name(r),
            (double)get(&count->sum_us) * 1e-6, route_name(r),
            (unsigned long long)total);
    }
}

static void
write_counters(struct engine *engine, struct buf *out)
{
    struct engine_counters c;
    engine_counters(engine, &c);
    const struct {
        const char *name;
        const char *type;
        const char *help;
        double value;
    } rows[] = {
        {"searches_total", "counter", "Queries answered.", (double)c.searches},
        {"searches_failed_total", "counter", "Queries refused.",
            (double)c.searches_failed},
        {"search_seconds_total", "counter", "Time in queries, summed.",
            (double)c.search_ns * 1e-9},
        {"rows_scanned_total", "counter", "Codes compared.",
            (double)c.rows_scanned},
        {"rows_rescored_total", "counter", "Vectors rescored exactly.",
            (double)c.rows_rescored},
        {"items_written_total", "counter", "Items written.",
            (double)c.items_written},
        {"items_unchanged_total", "counter", "Items that were as before.",
            (double)c.items_unchanged},
        {"items_deleted_total", "counter", "Items deleted.",
            (double)c.items_deleted},
        {"texts_encoded_total", "counter", "Texts encoded.",
            (double)c.texts_encoded},
        {"encode_seconds_total", "counter", "Time in the encoder, summed.",
            (double)c.encode_ns * 1e-9},
        {"images_decoded_total", "counter", "Pictures decoded.",
            (double)c.images_decoded},
        {"decode_seconds_total", "counter",
            "Time in the decoders, summed over threads.",
            (double)c.decode_ns * 1e-9},
        {"pairs_written_total", "counter", "Pairs taken in.",
            (double)c.pairs_written},
        {"feedback_total", "counter", "Picks taken in.", (double)c.feedback},
        {"commits_total", "counter", "Transactions.", (double)c.commits},
        {"commit_operations_total", "counter", "Operations in them.",
            (double)c.commit_ops},
        {"commit_conflicts_total", "counter",
            "Operations encoded again after a switch.",
            (double)c.commit_conflicts},
        {"write_queue", "gauge", "Operations that wait for the writer.",
            (double)c.write_queue},
        {"searches_running", "gauge", "Queries under way.",
            (double)c.searches_running},
        {"jobs_started_total", "counter", "Jobs started.",
            (double)c.jobs_started},
        {"jobs_promoted_total", "counter", "Rounds that were promoted.",
            (double)c.jobs_promoted},
        {"jobs_refused_total", "counter", "Rounds that were refused.",
            (double)c.jobs_refused},
        {"jobs_failed_total", "counter", "Jobs that failed.",
            (double)c.jobs_failed},
        {"reembedded_total", "counter", "Items embedded by jobs.",
            (double)c.reembedded},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        one(out, rows[i].name, rows[i].type, rows[i].help, rows[i].value);
}

static void
write_process(struct daemon *daemon, struct buf *out)
{
    struct http_numbers n;
    struct engine_health health;
    http_numbers(daemon->http, &n);
    engine_health(daemon->engine, &health);
    one(out, "http_connections", "gauge", "Open connections.",
        (double)n.connections);
    one(out, "http_requests_running", "gauge", "Requests under way.",
        (double)n.requests);
    one(out, "http_queue_read", "gauge", "Reads that wait for a worker.",
        (double)n.queue_read);
    one(out, "http_queue_write", "gauge", "Writes that wait for a worker.",
        (double)n.queue_write);
    one(out, "http_body_bytes", "gauge", "Memory of unfinished bodies.",
        (double)n.body_bytes);
    one(out, "http_deadlines_total", "counter", "Connections cut off as slow.",
        (double)n.deadlines);
    one(out, "http_overload_total", "counter", "Requests refused for load.",
        (double)n.refused);
    one(out, "read_only", "gauge", "1 after a storage error.",
        health.read_only ? 1 : 0);
    one(out, "disk_full", "gauge", "1 while the last commit met a full disk.",
        health.disk_full ? 1 : 0);
    one(out, "uptime_seconds", "gauge", "Since the start.",
        (double)(clock_wall_ms() - daemon->started_ms) * 1e-3);
    long long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "re");
    if (statm) {
        if (fscanf(statm, "%*d %lld", &pages) != 1)
            pages = 0;
        (void)fclose(statm);
    }
    head(out, "resident_bytes", "gauge", "Resident memory.");
    buf_printf(out, "kindred_resident_bytes %lld\n",
        pages * (long long)sysconf(_SC_PAGESIZE));
}

enum column_kind { COLUMN_INT, COLUMN_TEMPERATURE };

static void
write_collections(
    const struct engine_collection_info *list, size_t n, struct buf *out)
{
    static const struct {
        const char *name;
        const char *help;
    } columns[] = {{"collection_items", "Items."},
        {"collection_pairs", "Pairs in use."},
        {"collection_pairs_new", "Pairs since the last promotion."},
        {"collection_generation", "The live generation."},
        {"collection_training", "1 while a job of it runs."},
        {"collection_vector_bytes", "Memory of the index."},
        {"collection_encoder_bytes", "Memory of the weights."},
        {"collection_temperature", "The serving temperature."}};
    for (size_t c = 0; c < ARRAY_LEN(columns); c++) {
        head(out, columns[c].name, "gauge", columns[c].help);
        for (size_t i = 0; i < n; i++) {
            const struct engine_collection_info *info = &list[i];
            const double values[] = {(double)info->n_items,
                (double)info->n_pairs, (double)info->n_pairs_new,
                (double)info->generation, info->job_running != 0 ? 1 : 0,
                (double)info->vector_bytes, (double)info->encoder_bytes,
                info->temperature};
            /* Names are of [a-z0-9_.-]: nothing to escape. */
            buf_printf(out, "kindred_%s{collection=\"%s\"} ", columns[c].name,
                info->name);
            buf_json_double(out, values[c]);
            buf_add_char(out, '\n');
        }
    }
}

enum err
metrics_write(struct daemon *daemon, struct arena *arena, struct buf *out,
    struct fault *fault)
{
    struct engine_collection_info *list = NULL;
    size_t n = 0;
    enum err err =
        engine_collections_list(daemon->engine, arena, &list, &n, fault);
    if (err != OK)
        return err;
    head(out, "build_info", "gauge", "The version.");
    buf_add_str(out, "kindred_build_info{version=\"" KINDRED_VERSION "\"} 1\n");
    write_requests(daemon->metrics, out);
    write_counters(daemon->engine, out);
    write_process(daemon, out);
    write_collections(list, n, out);
    return OK;
}
