/* Imported encoders. */
#include <unistd.h>
#include "server/ep.h"
#include "base/tarball.h"
#include "engine/engine.h"
#include "server/codec.h"
#include "server/http.h"
#include "server/incoming.h"
#include "server/intake.h"
#include "server/problem.h"

void
ep_encoders_list(struct request *req)
{
    struct fault fault = {0};
    struct engine_info info;
    struct engine_encoder *list = NULL;
    size_t n = 0;
    enum err err = engine_info(req->daemon->engine, &req->arena, &info, &fault);
    if (err == OK)
        err = engine_encoders_list(
            req->daemon->engine, &req->arena, &list, &n, &fault);
    if (err != OK) {
        problem_reply(req, &fault);
        return;
    }
    struct buf *out = reply_json(req, 200);
    buf_add_str(out, "{\"encoders\":[");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        codec_write_encoder(out, &list[i]);
    }
    buf_add_str(out, "],\"families\":");
    codec_write_families(out, &info);
    buf_add_char(out, '}');
}

/* The body's files in a folder of its own, which the caller removes. */
static enum err
unpack(struct request *req, char dir[INCOMING_PATH_MAX], struct fault *fault)
{
    const struct config *config = &req->daemon->config;
    int fd = intake_file(req);
    if (fd < 0)
        return fault_set(fault, ERR_INVALID, "",
            "the body is empty; send the folder as a tar stream");
    enum err err = incoming_make(config->data, dir, fault);
    if (err == OK)
        err =
            tarball_unpack(fd, dir, (uint64_t)config->encoder_bytes_max, fault);
    /* The disk need not hold it twice while it is imported. */
    if (err == OK && ftruncate(fd, 0) != 0)
        err = fault_set(fault, ERR_IO, "", "the body cannot be dropped");
    return err;
}

/* What is wrong with the folder is wrong with the body, whatever it is where
   the folder is the server's own. */
static void
refuse_import(struct request *req, const struct fault *fault)
{
    switch (fault->err) {
    case ERR_NOT_FOUND:
    case ERR_UNSUPPORTED:
    case ERR_CORRUPT:
    case ERR_SYNTAX:
        problem_reply_as(req, 422, fault);
        break;
    default:
        problem_reply(req, fault);
    }
}

void
ep_encoder_put(struct request *req)
{
    struct fault fault = {0};
    struct engine_encoder encoder;
    char dir[INCOMING_PATH_MAX] = "";
    bool created = false;
    const char *name = request_param(req, "name");
    enum err err = unpack(req, dir, &fault);
    if (err == OK)
        err = engine_encoder_import(req->daemon->engine, name, dir, &created,
            &req->arena, &encoder, &fault);
    if (dir[0] != '\0')
        tarball_discard(dir);
    if (err != OK) {
        refuse_import(req, &fault);
        return;
    }
    codec_write_encoder(reply_json(req, created ? 201 : 200), &encoder);
    if (created)
        reply_header_f(req, "Location", "/v1/encoders/%s", encoder.name);
}

void
ep_encoder_get(struct request *req)
{
    struct fault fault = {0};
    struct engine_encoder encoder;
    enum err err = engine_encoder_get(req->daemon->engine,
        request_param(req, "name"), &req->arena, &encoder, &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        codec_write_encoder(reply_json(req, 200), &encoder);
}

void
ep_encoder_delete(struct request *req)
{
    struct fault fault = {0};
    enum err err = engine_encoder_delete(
        req->daemon->engine, request_param(req, "name"), &fault);
    if (err != OK)
        problem_reply(req, &fault);
    else
        req->reply.status = 204;
}
