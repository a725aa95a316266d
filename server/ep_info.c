/* Probes, and what the daemon is and does. */
#include "server/ep.h"
#include "base/clock.h"
#include "base/embed.h"
#include "base/version.h"
#include "engine/engine.h"
#include "server/codec.h"
#include "server/http.h"
#include "server/metrics.h"
#include "server/problem.h"

void
ep_root(struct request *req)
{
    reply_text(req, 200,
        "kindred " KINDRED_VERSION "\n\n"
        "Similarity search that learns from confirmed pairs.\n\n"
        "GET /openapi.json   every endpoint\n"
        "GET /v1/info        version, limits, kernels, encoders\n"
        "GET /metrics        figures for Prometheus\n"
        "GET /healthz        probes: /livez, /readyz\n\n"
        "A console for the browser is not in this version.\n");
}

void
ep_healthz(struct request *req)
{
    struct engine_health health;
    engine_health(req->daemon->engine, &health);
    reply_text(req, 200,
        health.read_only   ? "degraded: read-only after a storage error\n"
        : health.disk_full ? "degraded: disk full\n"
                           : "ok\n");
}

void
ep_livez(struct request *req)
{
    reply_text(req, 200, "ok\n");
}

void
ep_readyz(struct request *req)
{
    struct engine_health health;
    engine_health(req->daemon->engine, &health);
    if (atomic_load(&req->daemon->draining))
        reply_text(req, 503, "stopping\n");
    else if (!health.ready)
        reply_text(req, 503, "not ready\n");
    else
        reply_text(req, 200, "ok\n");
}

void
ep_openapi(struct request *req)
{
    struct buf *out = reply_json(req, 200);
    buf_add(out, embedded_openapi.bytes, embedded_openapi.len);
}

void
ep_metrics(struct request *req)
{
    struct fault fault = {0};
    req->reply.status = 200;
    req->reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
    enum err err =
        metrics_write(req->daemon, &req->arena, &req->reply.body, &fault);
    if (err != OK)
        problem_reply(req, &fault);
}

static void
write_limits(struct buf *out, const struct config *config,
    const struct engine_info *info)
{
    buf_printf(out,
        "{\"body_bytes\":%lld,\"line_bytes\":%lld,\"text_bytes\":%zu,"
        "\"image_bytes\":%zu,\"image_pixels\":%llu,\"views\":%d,"
        "\"encoder_bytes\":%lld,"
        "\"id_bytes\":%d,\"name_bytes\":%d,\"metadata_bytes\":%d,"
        "\"group_bytes\":%d,\"k\":%d,\"examples\":%d,\"batch_queries\":%d,"
        "\"batch_items\":%d,\"negatives\":%d,\"embedding_inputs\":%d,"
        "\"vector_dims\":%d,\"page\":%d,\"connections\":%lld,"
        "\"connections_per_address\":%lld,\"streams\":%lld,"
        "\"json_values\":65536,\"json_depth\":32}",
        config->body_bytes_max, config->line_bytes_max, info->text_bytes_max,
        info->image_bytes_max, (unsigned long long)info->image_pixels_max,
        ENGINE_VIEWS_MAX, config->encoder_bytes_max, ENGINE_ID_BYTES_MAX,
        ENGINE_NAME_BYTES_MAX, ENGINE_METADATA_BYTES_MAX,
        ENGINE_GROUP_BYTES_MAX, ENGINE_K_MAX, ENGINE_EXAMPLES_MAX,
        CODEC_BATCH_QUERIES, ENGINE_BATCH_ITEMS_MAX, ENGINE_NEGATIVES_MAX,
        CODEC_EMBED_INPUTS, CODEC_VECTOR_MAX, ENGINE_PAGE_MAX,
        config->connections_max, config->connections_per_address,
        config->streams_max);
}

void
ep_info(struct request *req)
{
    struct fault fault = {0};
    struct engine_info info;
    struct engine_health health;
    enum err err = engine_info(req->daemon->engine, &req->arena, &info, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    engine_health(req->daemon->engine, &health);
    struct buf *out = reply_json(req, 200);
    buf_add_str(out, "{\"name\":\"kindred\",\"version\":\"" KINDRED_VERSION
                     "\",\"kernels\":");
    buf_json_cstr(out, info.kernels);
    buf_printf(out,
        ",\"threads\":%zu,\"uptime_seconds\":%lld,\"schema\":%lld,"
        "\"read_only\":%s,\"disk_full\":%s,\"collections\":%zu,"
        "\"items\":%lld",
        info.n_threads,
        (long long)((clock_wall_ms() - req->daemon->started_ms) / 1000),
        (long long)info.schema_version, health.read_only ? "true" : "false",
        health.disk_full ? "true" : "false", info.n_collections,
        (long long)info.n_items);
    buf_printf(out,
        ",\"memory\":{\"vectors\":%llu,\"encoders\":%llu,\"rosters\":%llu},"
        "\"file_bytes\":%llu,\"limits\":",
        (unsigned long long)info.vector_bytes,
        (unsigned long long)info.encoder_bytes,
        (unsigned long long)info.roster_bytes,
        (unsigned long long)info.file_bytes);
    write_limits(out, &req->daemon->config, &info);
    buf_add_str(out, ",\"image_types\":[");
    for (size_t i = 0; info.image_types && info.image_types[i]; i++)
        buf_printf(out, "%s\"%s\"", i > 0 ? "," : "", info.image_types[i]);
    buf_add_str(out, "],\"encoders\":");
    codec_write_families(out, &info);
    buf_add_char(out, '}');
}
