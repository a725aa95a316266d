/*
 * http_kit.h - black-box tests: a daemon of one's own, requests to it, and
 * tables of cases.
 *
 * The daemon runs on a free loopback port with a temporary data folder; the
 * program is $KINDRED_BUILD/kindredd. Everything ends with the test: by pid,
 * and the folder is removed. Not for threads.
 */
#ifndef SUPPORT_HTTP_KIT_H
#define SUPPORT_HTTP_KIT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <jansson.h>

struct kit_daemon {
    pid_t pid;
    unsigned port;
    char dir[64];  /* temporary; data is DIR/data */
    char url[64];  /* "http://127.0.0.1:PORT" */
    char log[96];  /* its stderr */
    int exit_code; /* after kit_stop, or when it did not start */
};

/* args: flags beside --listen, --data and --port-file, NULL-terminated, or
   NULL. False when it ended before it was ready; exit_code and log say why. */
bool kit_start(struct kit_daemon *daemon, const char *const *args);
/* The same over the folder that is there already. */
bool kit_start_again(struct kit_daemon *daemon, const char *const *args);
/* SIGTERM and wait; returns the exit code, or -signal. Keeps the folder. */
int kit_stop(struct kit_daemon *daemon);
/* Stop if it runs, remove the folder. */
void kit_clean(struct kit_daemon *daemon);

struct kit_reply {
    long status; /* 0: no answer */
    char *body;  /* with a NUL */
    size_t len;
    char *headers;
    json_t *json; /* NULL when the body is none */
};

struct kit_call {
    const char *method; /* NULL: GET, or POST when there is a body */
    const char *path;
    const char *type; /* of the body; NULL: application/json */
    const char *body;
    size_t body_len;        /* 0: strlen */
    const char *headers[4]; /* "Name: value" */
    bool chunked;
};

/* Free with kit_reply_free. Keeps one connection alive between calls. */
struct kit_reply kit_do(
    const struct kit_daemon *daemon, const struct kit_call *call);
void kit_reply_free(struct kit_reply *reply);

/* A header's value (static buffer), or NULL. */
const char *kit_header(const struct kit_reply *reply, const char *name);

/* Short forms; the caller frees. */
struct kit_reply kit_get(const struct kit_daemon *daemon, const char *path);
struct kit_reply kit_send(const struct kit_daemon *daemon, const char *method,
    const char *path, const char *body);

/* A value in a JSON tree by a JSON pointer without escapes ("/hits/0/id"), or
   NULL. Borrowed. */
json_t *kit_at(json_t *root, const char *pointer);

/* Wait until the job has ended: its state, in a static buffer. */
const char *kit_wait_job(
    const struct kit_daemon *daemon, long long job, int seconds_max);

/* Write bytes to a fresh connection, read all until it closes. malloc'd. */
char *kit_raw(const struct kit_daemon *daemon, const char *bytes, size_t len,
    size_t *out_len);

/* ---- tables -------------------------------------------------------------- */

/* One case: what is asked, what must come. */
struct kit_case {
    const char *name;
    struct kit_call call;
    long status;
    const char *pointer;  /* of errors[0] in the problem; NULL: not looked at */
    const char *contains; /* in the body; NULL: not looked at */
};

/* The daemon that the tables run against. */
extern struct kit_daemon *kit_table_daemon;

/* Run every case as a cmocka test of its own; returns the failures. */
int kit_run_cases(
    const char *group, const struct kit_case *cases, size_t n_cases);

/* Which (method, path, status) the calls of this program have seen. */
bool kit_saw(const char *method, const char *pattern, long status);

#endif
