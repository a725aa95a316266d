/*
 * crash_kit.h - what the crash tests share: a daemon that dies and comes
 * again, a client that a thread may own, a collection that trains in a second.
 *
 * A daemon is a child process on a free loopback port over a folder of the
 * test's own. It dies with the test (a parent-death signal), and is ended by
 * pid. Everything waits with a limit.
 */
#ifndef SUPPORT_CRASH_KIT_H
#define SUPPORT_CRASH_KIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <jansson.h>

#define CRASH_COLLECTION "/v1/collections/docs"
#define CRASH_ADMIN "/v1/admin/collections/docs"
#define CRASH_DIMS 32
#define CRASH_TEXT_MAX 160

/* ---- counting ------------------------------------------------------------ */

/* Print "ok NAME", "FAILED NAME" (after the reasons given by crash_fault) or
   "skipped NAME: why"; run.sh counts these lines. */
void crash_begin(const char *name);
void crash_fault(const char *format, ...)
    __attribute__((format(printf, 1, 2))); /* the running test has failed */
void crash_end(void);
void crash_skip(const char *name, const char *why);
bool crash_failing(void); /* has the running test failed? */
int crash_failures(void); /* tests that failed so far */

/* ---- the daemon ---------------------------------------------------------- */

struct crash_daemon {
    pid_t pid; /* 0: does not run */
    unsigned port;
    int status;        /* of waitpid, once it has ended */
    char dir[200];     /* data folder */
    char program[300]; /* the daemon to run */
    char log[240];     /* its stderr, appended to */
    const char *args[8];
};

/* $KINDRED_CRASH_BUILD/kindredd, or with failpoints == false
   $KINDRED_BUILD/kindredd, over the folder. */
void crash_daemon_init(
    struct crash_daemon *daemon, const char *dir, bool failpoints);

/* Start; failpoint "name:n" or NULL. True when it listens within 30 s; false
   when it ended before (status says how), or was killed for being late. */
bool crash_start(struct crash_daemon *daemon, const char *failpoint);
/* Start and return at once; crash_await_ready waits as crash_start does. */
void crash_launch(struct crash_daemon *daemon, const char *failpoint);
bool crash_await_ready(struct crash_daemon *daemon);
/* Has it ended within ms? */
bool crash_await_end(struct crash_daemon *daemon, int64_t ms);
void crash_kill(struct crash_daemon *daemon); /* SIGKILL, wait */
/* SIGTERM, wait up to ms (then SIGKILL and false); true for exit status 0. */
bool crash_stop(struct crash_daemon *daemon, int64_t ms);
/* Did it end by SIGKILL? By itself, with this status? */
bool crash_was_killed(const struct crash_daemon *daemon);
bool crash_exited(const struct crash_daemon *daemon, int code);
/* The log's last lines, indented, to stdout. */
void crash_show_log(const struct crash_daemon *daemon);
/* Is this in the log after offset? */
bool crash_log_has(
    const struct crash_daemon *daemon, long offset, const char *text);
long crash_log_size(const struct crash_daemon *daemon);

/* ---- folders ------------------------------------------------------------- */

void crash_make_dir(char *dir, size_t n); /* below $TMPDIR */
void crash_remove_dir(const char *dir);
/* The database with its log and the backups; the side files stay away. */
bool crash_copy_database(const char *from, const char *to);
bool crash_copy_file(const char *from, const char *to);
/* store_check on a copy of the folder's database: a test program's view of
   what the crash left. Prints what is wrong. */
bool crash_check_copy(const char *dir);

/* ---- requests ------------------------------------------------------------ */

struct crash_http {
    void *curl;
    unsigned port;
    char *body; /* with a NUL; valid until the next call */
    size_t len;
    size_t cap;
};

void crash_http_init(struct crash_http *http, unsigned port);
void crash_http_free(struct crash_http *http);
/* The status, 0 when there was no whole answer (body: what came of it).
   A body that starts with a newline is NDJSON, else JSON; NULL: none. */
long crash_call(struct crash_http *http, const char *method, const char *path,
    const char *body);
/* The answer as JSON, or NULL; json_decref. */
json_t *crash_json(const struct crash_http *http);
/* A member by its path "/a/0/b", or NULL; borrowed. */
json_t *crash_at(json_t *root, const char *pointer);
int64_t crash_int(json_t *root, const char *pointer);     /* -1: none */
const char *crash_str(json_t *root, const char *pointer); /* "": none */

/* Text that grows. */
struct crash_text {
    char *s;
    size_t len, cap;
};
void crash_add(struct crash_text *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- content ------------------------------------------------------------- */

/* Seven invented words, made from (key, revision) alone. */
void crash_words(char out[CRASH_TEXT_MAX], uint64_t key, uint64_t revision);

/* The collection, n items "b0".. and n pairs to them, so that a round can
   start; a table of 16,384 buckets is saved in more than one piece. False with
   a fault. */
bool crash_fill(struct crash_http *http, int n, int buckets);
#define CRASH_BASE_KEY                                                         \
    UINT64_C(1000000) /* crash_words(.., BASE_KEY + i, 1)                      \
                       */

/* Wait until no job runs; false with a fault after ms. */
bool crash_settle(struct crash_http *http, int64_t ms);
/* SHA-256 (hex) of a generation's weights; false when there are none. */
bool crash_weights(struct crash_http *http, int64_t generation, char hex[65]);
/* Live generation of the collection, -1 on failure. */
int64_t crash_live(struct crash_http *http);
/* What must hold of the lineage at any time, and with at_rest when no job
   runs: one live, at most one previous, nothing half-made served. */
void crash_check_lineage(struct crash_http *http, bool at_rest);
/* Backup through the API, until done; false with a fault. name: of the file. */
bool crash_backup(struct crash_http *http, char *name, size_t n);

#endif
