#include "send.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "http.h"
#include "term.h"

/* The service counts the records that it was sent; the user counts lines of
   files. One entry wherever the distance between both changes. */
struct line_map {
    uint64_t record; /* from this record on */
    uint64_t line;   /* it is this line */
    size_t file_i;
};

struct sending {
    struct cli *cli;
    struct input *input;
    const char *what;
    struct buf pending; /* made, not yet handed to the connection */
    size_t pending_pos;
    bool body_ended;
    bool failed; /* the input, after a message */
    struct line_map *map;
    size_t n_map;
    size_t map_cap;
    struct progress progress;
    struct line_splitter answers;
    FILE *errors;
    uint64_t show_max;
    uint64_t shown;
    uint64_t answered; /* from the last line of the answer */
    bool complete;     /* that line was seen */
    struct send_counts *counts;
};

bool
line_splitter_feed(struct line_splitter *splitter, const char *bytes, size_t n)
{
    while (n > 0) {
        const char *end = memchr(bytes, '\n', n);
        size_t take = end != NULL ? (size_t)(end - bytes) : n;
        buf_add(&splitter->rest, bytes, take);
        bytes += take;
        n -= take;
        if (end == NULL)
            break;
        bytes++;
        n--;
        if (!line_splitter_end(splitter))
            return false;
    }
    return true;
}

bool
line_splitter_end(struct line_splitter *splitter)
{
    struct buf *rest = &splitter->rest;
    if (buf_status(rest) != OK)
        return false;
    if (rest->len > 0 && rest->data[rest->len - 1] == '\r')
        rest->data[--rest->len] = '\0';
    static char empty[1];
    bool on = splitter->line(
        splitter->arg, rest->len > 0 ? rest->data : empty, rest->len);
    buf_clear(rest);
    return on;
}

static void
map_note(struct sending *sending)
{
    uint64_t record = sending->counts->records;
    uint64_t line = input_line(sending->input);
    size_t file_i = input_file_i(sending->input);
    if (sending->n_map > 0) {
        const struct line_map *last = &sending->map[sending->n_map - 1];
        if (last->file_i == file_i &&
            line - last->line == record - last->record)
            return;
    }
    if (sending->n_map == sending->map_cap) {
        sending->map_cap = sending->map_cap * 2 + 16;
        sending->map =
            must_realloc(sending->map, sending->map_cap, sizeof(*sending->map));
    }
    sending->map[sending->n_map++] =
        (struct line_map){.record = record, .line = line, .file_i = file_i};
}

static const struct line_map *
map_find(const struct sending *sending, uint64_t record)
{
    size_t low = 0;
    size_t high = sending->n_map;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (sending->map[mid].record <= record)
            low = mid + 1;
        else
            high = mid;
    }
    return low > 0 ? &sending->map[low - 1] : NULL;
}

static size_t
on_body(void *arg, char *out, size_t max)
{
    struct sending *sending = arg;
    size_t given = 0;
    while (given < max) {
        size_t left = sending->pending.len - sending->pending_pos;
        if (left > 0) {
            size_t n = left < max - given ? left : max - given;
            memcpy(
                out + given, sending->pending.data + sending->pending_pos, n);
            sending->pending_pos += n;
            given += n;
            sending->counts->bytes += n;
            continue;
        }
        if (sending->body_ended)
            break;
        buf_clear(&sending->pending);
        sending->pending_pos = 0;
        enum input_got got = input_next(sending->input, &sending->pending);
        if (got == INPUT_FAILED) {
            sending->failed = true;
            return HTTP_READ_ABORT;
        }
        if (got == INPUT_END) {
            sending->body_ended = true;
            break;
        }
        sending->counts->records++;
        map_note(sending);
    }
    return given;
}

static void
on_tick(void *arg)
{
    struct sending *sending = arg;
    double seconds = progress_seconds(&sending->progress);
    double total = (double)input_bytes_total(sending->input);
    double read = (double)input_bytes_read(sending->input);
    double share = total > 0.0 ? read / total : -1.0;
    double rate =
        seconds > 0.0 ? (double)sending->counts->records / seconds : 0.0;
    char items[32];
    char per_s[32];
    char mb[32];
    char eta[32];
    char tail[200];
    term_count(items, sizeof(items), (double)sending->counts->records);
    term_count(per_s, sizeof(per_s), rate);
    term_bytes(mb, sizeof(mb), (double)sending->counts->bytes);
    if (sending->body_ended)
        snprintf(tail, sizeof(tail), "%s %s  %s/s  %s  waiting for the answer",
            items, sending->what, per_s, mb);
    else if (share > 0.0 && share < 1.0)
        snprintf(tail, sizeof(tail), "%s %s  %s/s  %s  %s left", items,
            sending->what, per_s, mb,
            term_duration(eta, sizeof(eta), seconds / share * (1.0 - share)));
    else
        snprintf(tail, sizeof(tail), "%s %s  %s/s  %s", items, sending->what,
            per_s, mb);
    progress_show(&sending->progress, share, tail, false);
}

/* One refused record, told by file and line. */
static void
show_refused(struct sending *sending, const json_t *outcome)
{
    if (sending->shown == sending->show_max)
        return;
    sending->shown++;
    uint64_t record =
        (uint64_t)json_integer_value(json_object_get(outcome, "line"));
    const struct line_map *at = map_find(sending, record);
    const char *id = json_string_value(json_object_get(outcome, "id"));
    const char *why = problem_text(outcome);
    json_int_t status = json_integer_value(json_object_get(outcome, "status"));
    char clean_id[300];
    char clean_why[1000];
    term_clean(clean_id, sizeof(clean_id), id != NULL ? id : "");
    term_clean(
        clean_why, sizeof(clean_why), why != NULL ? why : "no explanation");
    progress_clear();
    if (at != NULL && at->line == 0) { /* the id is the file's name */
        fprintf(stderr, "%s: ", input_file_name(sending->input, at->file_i));
        clean_id[0] = '\0';
    } else if (at != NULL)
        fprintf(stderr,
            "%s:%llu: ", input_file_name(sending->input, at->file_i),
            (unsigned long long)(at->line + (record - at->record)));
    else
        fprintf(stderr, "record %llu: ", (unsigned long long)record);
    fprintf(stderr, "%s%s%s (%lld)\n", clean_id, clean_id[0] ? ": " : "",
        clean_why, (long long)status);
}

static bool
on_outcome(void *arg, char *line, size_t n)
{
    struct sending *sending = arg;
    if (n == 0)
        return true;
    json_t *outcome = json_loadb(line, n, 0, NULL);
    if (outcome == NULL)
        return true;
    const json_t *lines = json_object_get(outcome, "lines");
    if (json_is_integer(lines)) {
        sending->answered = (uint64_t)json_integer_value(lines);
        sending->complete = true;
    } else if (json_integer_value(json_object_get(outcome, "status")) >= 400) {
        sending->counts->failed++;
        if (sending->errors != NULL)
            fprintf(sending->errors, "%s\n", line);
        show_refused(sending, outcome);
    }
    json_decref(outcome);
    return true;
}

static bool
on_answer(void *arg, const char *bytes, size_t n)
{
    struct sending *sending = arg;
    return line_splitter_feed(&sending->answers, bytes, n);
}

int
send_input(struct cli *cli, struct input *input, const char *path,
    const char *what, const char *errors_to, uint64_t show_max,
    struct send_counts *counts)
{
    *counts = (struct send_counts){.unread = input_n_unread(input)};
    struct sending sending = {.cli = cli,
        .input = input,
        .what = what,
        .show_max = show_max,
        .counts = counts};
    struct answer answer;
    int rc = EXIT_REFUSED;
    answer_init(&answer);
    buf_init(&sending.pending, INPUT_RECORD_MAX * 2);
    buf_init(&sending.answers.rest, INPUT_RECORD_MAX);
    sending.answers.line = on_outcome;
    sending.answers.arg = &sending;
    if (errors_to != NULL) {
        sending.errors = fopen(errors_to, "w");
        if (sending.errors == NULL) {
            complain("%s: %s", errors_to, strerror(errno));
            goto out;
        }
    }
    progress_start(&sending.progress, what);
    struct http_stream stream = {.method = "POST",
        .path = path,
        .content_type = "application/x-ndjson",
        .read = on_body,
        .write = on_answer,
        .tick = on_tick,
        .arg = &sending};
    rc = http_stream(cli->http, &stream, &answer);
    counts->seconds = progress_seconds(&sending.progress);
    progress_clear();
    if (sending.failed) {
        complain("stopped after %llu %s; what was sent before is stored, and "
                 "sending it again does no harm",
            (unsigned long long)counts->records, what);
        rc = EXIT_REFUSED;
        goto out;
    }
    if (rc == EXIT_DONE)
        rc = http_check(cli->http, &answer);
    if (rc != EXIT_DONE)
        goto out;
    if (sending.answers.rest.len > 0)
        line_splitter_end(&sending.answers);
    if (!sending.complete) {
        complain("the answer broke off: it is unknown which %s are stored; "
                 "sending them again does no harm",
            what);
        rc = EXIT_REFUSED;
        goto out;
    }
    if (sending.answered != counts->records)
        complain("sent %llu %s, the service counted %llu",
            (unsigned long long)counts->records, what,
            (unsigned long long)sending.answered);
    if (counts->failed > sending.shown)
        fprintf(stderr, "... and %llu more\n",
            (unsigned long long)(counts->failed - sending.shown));
    rc = counts->failed + counts->unread > 0 ? EXIT_SOME_FAILED : EXIT_DONE;
out:
    if (sending.errors != NULL && fclose(sending.errors) != 0) {
        complain("%s: %s", errors_to, strerror(errno));
        rc = EXIT_REFUSED;
    }
    mem_free(sending.map);
    buf_release(&sending.pending);
    buf_release(&sending.answers.rest);
    answer_release(&answer);
    return rc;
}
