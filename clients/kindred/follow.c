/*
 * Watching a job. The events come as Server-Sent Events (WHATWG HTML, 9.2):
 * lines "field: value", an empty line ends an event, a line that starts with
 * a colon keeps the connection alive. A broken stream is taken up again after
 * the last event seen.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "http.h"
#include "send.h"
#include "settings.h"
#include "term.h"

#define EVENT_MAX ((size_t)4 << 20)
#define LOSS_MAX 4096
#define SPARK_COLUMNS 20
#define RETRIES_MAX 5
#define RETRY_MS 500

struct follow {
    struct cli *cli;
    json_int_t id;
    struct line_splitter lines;
    struct buf data; /* of the event being read */
    char type[64];
    char last_id[64];
    struct progress progress;
    double loss[LOSS_MAX];
    size_t n_loss;
    size_t loss_stride; /* every n-th loss is kept, so that all fits */
    size_t loss_seen;
    double last_loss;
    double accuracy; /* < 0: not told */
    char phase[64];
    double share;
    double eta;
    char label[64];
    bool ended;
    bool any; /* an event came on this connection */
};

static void
loss_add(struct follow *follow, double loss)
{
    follow->last_loss = loss;
    if (follow->loss_seen++ % follow->loss_stride != 0)
        return;
    if (follow->n_loss == LOSS_MAX) {
        for (size_t i = 0; i < LOSS_MAX / 2; i++)
            follow->loss[i] = follow->loss[2 * i];
        follow->n_loss = LOSS_MAX / 2;
        follow->loss_stride *= 2;
    }
    follow->loss[follow->n_loss++] = loss;
}

static void
draw(struct follow *follow, bool force)
{
    struct buf tail;
    buf_init(&tail, 1 << 16);
    buf_printf(&tail, "%-10s", follow->phase);
    if (follow->n_loss > 0 && strcmp(follow->phase, "train") == 0) {
        buf_printf(&tail, " loss %.4f ", follow->last_loss);
        term_add_spark(&tail, follow->loss, follow->n_loss, SPARK_COLUMNS);
        if (follow->accuracy >= 0.0)
            buf_printf(&tail, " found %.0f%%", follow->accuracy * 100.0);
    }
    if (follow->eta >= 1.0) {
        char eta[32];
        buf_printf(
            &tail, "  %s left", term_duration(eta, sizeof(eta), follow->eta));
    }
    if (buf_status(&tail) == OK)
        progress_show(&follow->progress, follow->share, tail.data, force);
    buf_release(&tail);
}

static double
number_of(const json_t *object, const char *name, double otherwise)
{
    const json_t *value = json_object_get(object, name);
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

static void
on_event(struct follow *follow)
{
    json_t *data = follow->data.len > 0 ? json_loadb(follow->data.data,
                                              follow->data.len, 0, NULL)
                                        : NULL;
    if (data == NULL)
        return;
    follow->any = true;
    const char *phase = json_string_value(json_object_get(data, "phase"));
    bool turned = false;
    if (phase != NULL && strcmp(phase, follow->phase) != 0) {
        turned = true;
        follow->eta = -1.0;
        term_clean(follow->phase, sizeof(follow->phase), phase);
    }
    follow->share = number_of(data, "progress", follow->share);
    follow->eta = number_of(data, "eta_seconds", turned ? -1.0 : follow->eta);
    double loss = number_of(data, "loss", -1.0);
    if (loss >= 0.0)
        loss_add(follow, loss);
    follow->accuracy = number_of(data, "accuracy", follow->accuracy);
    const char *message = json_string_value(json_object_get(data, "message"));
    if (message != NULL && strcmp(follow->type, "log") == 0)
        say(follow->cli, "%s: %s", follow->label, message);
    const char *state = json_string_value(json_object_get(data, "state"));
    bool over = state != NULL && strcmp(state, "queued") != 0 &&
                strcmp(state, "running") != 0;
    if (strcmp(follow->type, "end") == 0 || over)
        follow->ended = true;
    else
        draw(follow, turned);
    json_decref(data);
}

static bool
on_line(void *arg, char *line, size_t n)
{
    struct follow *follow = arg;
    if (n == 0) {
        if (follow->data.len > 0)
            on_event(follow);
        buf_clear(&follow->data);
        follow->type[0] = '\0';
        return !follow->ended;
    }
    if (line[0] == ':')
        return true;
    char *value = strchr(line, ':');
    if (value == NULL)
        return true;
    *value++ = '\0';
    if (*value == ' ')
        value++;
    if (strcmp(line, "data") == 0) {
        if (follow->data.len > 0)
            buf_add_char(&follow->data, '\n');
        buf_add_str(&follow->data, value);
    } else if (strcmp(line, "event") == 0) {
        term_clean(follow->type, sizeof(follow->type), value);
    } else if (strcmp(line, "id") == 0) {
        term_clean(follow->last_id, sizeof(follow->last_id), value);
    }
    return true;
}

static bool
on_bytes(void *arg, const char *bytes, size_t n)
{
    struct follow *follow = arg;
    return line_splitter_feed(&follow->lines, bytes, n);
}

static void
on_follow_tick(void *arg)
{
    struct follow *follow = arg;
    draw(follow, false);
}

static bool
job_ended(const json_t *job)
{
    const char *state = json_string_value(json_object_get(job, "state"));
    return state != NULL && strcmp(state, "queued") != 0 &&
           strcmp(state, "running") != 0;
}

int
job_follow(struct cli *cli, json_int_t id, json_t **job)
{
    struct follow *follow = must_calloc(1, sizeof(*follow));
    struct answer answer;
    char events[64];
    char path[64];
    int rc = EXIT_DONE;
    snprintf(path, sizeof(path), "/v1/jobs/%lld", (long long)id);
    snprintf(events, sizeof(events), "/v1/jobs/%lld/events", (long long)id);
    follow->cli = cli;
    follow->id = id;
    follow->loss_stride = 1;
    follow->eta = -1.0;
    follow->accuracy = -1.0;
    snprintf(follow->label, sizeof(follow->label), "job %lld", (long long)id);
    buf_init(&follow->lines.rest, EVENT_MAX);
    buf_init(&follow->data, EVENT_MAX);
    follow->lines.line = on_line;
    follow->lines.arg = follow;
    answer_init(&answer);
    progress_start(&follow->progress, follow->label);

    int failures = 0;
    *job = NULL;
    for (;;) {
        rc = http_json(cli->http, "GET", path, NULL, job, NULL);
        if (rc != EXIT_DONE)
            break;
        if (job_ended(*job))
            break;
        json_decref(*job);
        *job = NULL;
        struct http_stream stream = {.method = "GET",
            .path = events,
            .accept = "text/event-stream",
            .last_event_id =
                follow->last_id[0] != '\0' ? follow->last_id : NULL,
            .write = on_bytes,
            .tick = on_follow_tick,
            .arg = follow,
            .quiet = true};
        follow->any = false;
        buf_clear(&follow->lines.rest);
        rc = http_stream(cli->http, &stream, &answer);
        /* Events are a comfort: without them the state is asked for. */
        if (rc != EXIT_DONE || answer.status >= 400 || !follow->any)
            failures++;
        else
            failures = 0;
        if (!follow->ended || failures > 0) {
            if (rc != EXIT_DONE && failures > RETRIES_MAX) {
                complain("job %lld: the connection is lost; it goes on in "
                         "the daemon: kindred jobs --follow %lld",
                    (long long)id, (long long)id);
                break;
            }
            clock_sleep_ms(RETRY_MS);
        }
    }
    progress_clear();
    buf_release(&follow->lines.rest);
    buf_release(&follow->data);
    answer_release(&answer);
    mem_free(follow);
    return rc;
}
