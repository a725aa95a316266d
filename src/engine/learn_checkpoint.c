#include "engine/learn_checkpoint.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/fsio.h"
#include "base/log.h"

#define FOLDER "checkpoints"
#define PREFIX "job-"

static _Atomic int64_t every_ms = LEARN_CHECKPOINT_MS;

struct learn_checkpoint {
    struct job *job;
    char path[PATH_MAX];
    struct train_checkpoint train;
    struct fsio_out *out; /* NULL: not being written */
    FILE *in;
    int64_t saved_ms; /* monotonic, of the last save or try */
};

int64_t
learn_checkpoint_every_ms(int64_t ms)
{
    return atomic_exchange(&every_ms, ms);
}

/* Long enough ago, or the daemon stops and nothing should be lost. */
static bool
is_due(void *arg)
{
    struct learn_checkpoint *c = arg;
    if (clock_mono_ms() - c->saved_ms >= atomic_load(&every_ms))
        return true;
    return job_stopped(c->job) && !job_is_cancelled(c->job);
}

static void
give_up(struct learn_checkpoint *c, const struct fault *fault)
{
    log_warn("learn", "checkpoint_failed job=%" PRId64 " reason=\"%s\"",
        job_id(c->job), fault->detail);
    fsio_out_free(c->out);
    c->out = NULL;
}

static enum err
begin(void *arg)
{
    struct learn_checkpoint *c = arg;
    struct fault fault = {.err = OK};

    c->saved_ms = clock_mono_ms();
    fsio_out_free(c->out);
    c->out = NULL;
    if (fsio_out_open(&c->out, c->path, &fault) != OK)
        give_up(c, &fault);
    return OK;
}

static enum err
save(void *arg, const void *bytes, size_t n)
{
    struct learn_checkpoint *c = arg;
    struct fault fault = {.err = OK};

    if (c->out != NULL && fsio_out_write(c->out, bytes, n, &fault) != OK)
        give_up(c, &fault);
    failpoint("learn_checkpoint_write");
    return OK;
}

static enum err
saved(void *arg)
{
    struct learn_checkpoint *c = arg;
    struct fault fault = {.err = OK};

    if (c->out != NULL && fsio_out_commit(c->out, &fault) != OK)
        give_up(c, &fault);
    fsio_out_free(c->out);
    c->out = NULL;
    (void)!job_save_resume(c->job, NULL); /* its curves up to here */
    c->saved_ms = clock_mono_ms();
    failpoint("learn_checkpoint_saved");
    return OK;
}

static enum err
load(void *arg, void *bytes, size_t n)
{
    struct learn_checkpoint *c = arg;
    return fread(bytes, 1, n, c->in) == n ? OK : ERR_CORRUPT;
}

static void
set_path(char out[PATH_MAX], const char *data_dir, int64_t id)
{
    int len = snprintf(
        out, PATH_MAX, "%s/" FOLDER "/" PREFIX "%" PRId64, data_dir, id);
    ASSERT(len > 0 && len < PATH_MAX);
}

enum err
learn_checkpoint_open(struct learn_checkpoint **out, const char *data_dir,
    const uint8_t origin[SHA256_BYTES], struct job *job)
{
    struct learn_checkpoint *c = mem_calloc(1, sizeof *c);
    struct fault fault = {.err = OK};
    char folder[PATH_MAX];

    if (c == NULL)
        return ERR_NOMEM;
    c->job = job;
    c->saved_ms = clock_mono_ms();
    set_path(c->path, data_dir, job_id(job));
    snprintf(folder, sizeof folder, "%s/" FOLDER, data_dir);
    if (fsio_make_dir(folder, &fault) != OK)
        log_warn("learn", "checkpoint_folder reason=\"%s\"", fault.detail);
#ifdef KINDRED_FAILPOINTS
    const char *ms = getenv("KINDRED_CHECKPOINT_MS");
    if (ms != NULL)
        (void)learn_checkpoint_every_ms(strtoll(ms, NULL, 10));
#endif
    c->in = fopen(c->path, "rb");
    c->train = (struct train_checkpoint){.due = is_due,
        .begin = begin,
        .save = save,
        .saved = saved,
        .load = c->in != NULL ? load : NULL,
        .arg = c};
    memcpy(c->train.origin, origin, SHA256_BYTES);
    *out = c;
    return OK;
}

void
learn_checkpoint_forget(struct learn_checkpoint *c)
{
    if (c->in != NULL)
        (void)fclose(c->in);
    c->in = NULL;
    c->train.load = NULL;
}

void
learn_checkpoint_close(struct learn_checkpoint *c)
{
    if (c == NULL)
        return;
    learn_checkpoint_forget(c);
    fsio_out_free(c->out);
    mem_free(c);
}

const struct train_checkpoint *
learn_checkpoint_train(struct learn_checkpoint *c)
{
    return &c->train;
}

void
learn_checkpoint_remove(const char *data_dir, int64_t id)
{
    char path[PATH_MAX];
    set_path(path, data_dir, id);
    (void)unlink(path);
}

static bool
is_kept(const char *name, const int64_t *jobs, size_t n)
{
    char *end;
    if (strncmp(name, PREFIX, strlen(PREFIX)) != 0)
        return false;
    long long id = strtoll(name + strlen(PREFIX), &end, 10);
    for (size_t i = 0; i < n && *end == '\0'; i++) {
        if (jobs[i] == id)
            return true;
    }
    return false;
}

void
learn_checkpoint_sweep(const char *data_dir, const int64_t *jobs, size_t n)
{
    char folder[PATH_MAX], path[PATH_MAX + 256];
    struct dirent *entry;

    snprintf(folder, sizeof folder, "%s/" FOLDER, data_dir);
    DIR *dir = opendir(folder);
    if (dir == NULL)
        return;
    while ((entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) != 0 ||
            is_kept(entry->d_name, jobs, n))
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        (void)unlink(path);
    }
    (void)closedir(dir);
}
