/* A body into a file that has no name, for a handler that reads it when it is
   whole. */
#include <unistd.h>
#include "server/http_private.h"
#include "base/alloc.h"
#include "server/intake_private.h"
#include "server/media.h"
#include "server/problem.h"
#include "server/spool.h"

struct file_intake {
    struct intake base;

    /* the worker's while busy */
    struct spool spool;
    uint64_t n_bytes;
    uint64_t bytes_max;
    int fd; /* the whole body; -1 until then */
};

/* base is the first member. */
static struct file_intake *
file_of(struct intake *intake)
{
    return (struct file_intake *)(void *)intake;
}

/* A file costs no memory, so there is no gate. */
static bool
file_enter(struct intake *intake)
{
    (void)intake;
    return true;
}

static enum err
file_leave(struct intake *intake, struct fault *fault)
{
    (void)intake;
    (void)fault;
    return OK;
}

static enum err
file_take(struct intake *base, bool last, struct fault *fault)
{
    struct file_intake *intake = file_of(base);
    uint64_t n = 0;
    intake->n_bytes += base->work.len;
    if (intake->n_bytes > intake->bytes_max)
        return fault_set(fault, ERR_TOO_LARGE, "",
            "the body is longer than the limit of %llu bytes",
            (unsigned long long)intake->bytes_max);
    buf_add(spool_text(&intake->spool), base->work.data, base->work.len);
    buf_clear(&base->work);
    spool_commit(&intake->spool);
    if (!last)
        return intake->spool.err;
    enum err err = spool_finish(&intake->spool, &intake->fd, &n);
    if (err == OK && intake->fd >= 0 && lseek(intake->fd, 0, SEEK_SET) != 0)
        err = ERR_IO;
    return err;
}

static void
file_finish(struct intake *intake, enum err err, struct fault *fault)
{
    if (err != OK)
        problem_reply(intake->req, fault);
    else
        request_answer(intake->req);
}

static void
file_drop(struct intake *intake)
{
    (void)intake;
}

static void
file_release(struct intake *base)
{
    struct file_intake *intake = file_of(base);
    spool_release(&intake->spool);
    if (intake->fd >= 0)
        (void)close(intake->fd);
}

static const struct intake_kind file_kind = {
    file_enter, file_leave, file_take, file_finish, file_drop, file_release};

enum err
intake_file_new(struct intake **out, const struct request *req)
{
    const struct config *config = &req->daemon->config;
    struct file_intake *intake = mem_calloc(1, sizeof(*intake));
    if (!intake)
        return ERR_NOMEM;
    /* Nothing is kept in memory. */
    spool_init(&intake->spool, config->data, 0);
    intake->bytes_max = media_body_max(req->route, config);
    intake->fd = -1;
    intake->base.kind = &file_kind;
    *out = &intake->base;
    return OK;
}

int
intake_file(const struct request *req)
{
    return file_of(req->intake)->fd;
}
