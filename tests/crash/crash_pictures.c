/*
 * Goal: after kill -9 in the middle of uploads every acknowledged picture is
 * there, byte for byte, and found by itself, and none is there in part; a round
 * on pictures that is killed goes on from its checkpoint to the weights of one
 * that was never interrupted, and the pictures are still what they were.
 * Method: threads put pictures of three formats and many sizes over each other,
 * each keeping a journal of what was acknowledged and of what is under way. The
 * daemon is killed at a random moment, or dies at a failpoint of the commit;
 * it starts again, and every picture is fetched and compared. The folder is
 * then copied: one copy trains at once, the others die in the round.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "tests/support/crash_kit.h"
#include "tests/support/image_kit.h"

#define N_WRITERS 3
#define N_EACH 24 /* ids of each writer */
#define FILE_MAX (1u << 20)
#define ENCODER                                                                \
    "{\"encoder\":\"vision\",\"encoder_config\":{\"input\":28,"                \
    "\"channels\":3,\"width\":16,\"blocks\":1,\"stages\":1,\"dims\":32},"      \
    "\"train\":{\"min_pairs\":10,\"min_groups\":2}}"
#define ROUND                                                                  \
    "{\"pretext\":\"instances\",\"force\":true,\"seed\":7,\"batch\":16,"       \
    "\"max_steps\":12,\"mechanism\":\"momentum_queue\",\"queue\":32}"

/* ---- the journal --------------------------------------------------------- */

struct picture {
    int now;  /* revision that was acknowledged; 0: absent */
    int next; /* asked for, not acknowledged; 0: nothing is */
};

struct worker {
    int number;
    struct crash_http http;
    struct rng rng;
    unsigned port;
    struct picture pictures[N_EACH];
};

static struct worker workers[N_WRITERS];
static atomic_bool stop;
static atomic_int n_acknowledged;
static char root_dir[100];

/* The file of a revision: always the same bytes. */
static void
make_file(struct buf *out, int worker, int i, int revision)
{
    uint64_t seed = (uint64_t)(worker * 1000 + i) * 1000 + (uint64_t)revision;
    uint32_t side = 20 + (uint32_t)(seed * 7 % 60);
    struct image image;

    buf_init(out, FILE_MAX);
    image_kit_paint(&image, side + (uint32_t)(seed % 9), side, 3, seed);
    switch (seed % 3) {
    case 0:
        image_kit_jpeg(out, &image, NULL);
        break;
    case 1:
        image_kit_png(out, &image, NULL);
        break;
    default:
        image_kit_webp(out, &image, NULL);
    }
    image_release(&image);
}

/* A JSON object with the file as its "image" and what more is wanted. */
static void
make_body(struct buf *out, int worker, int i, int revision, const char *members)
{
    struct buf file;

    make_file(&file, worker, i, revision);
    buf_init(out, 2 * FILE_MAX);
    buf_add_str(out, "{\"image\":\"");
    base64_encode(out, file.data, file.len);
    buf_printf(out, "\"%s}", members);
    buf_add_char(out, '\0');
    buf_release(&file);
}

/* ---- uploads ------------------------------------------------------------- */

static bool
put_one(struct worker *w)
{
    int i = (int)rng_below(&w->rng, N_EACH);
    struct picture *p = &w->pictures[i];
    struct buf body;
    char path[100];

    p->next = p->now + 1;
    make_body(&body, w->number, i, p->next, "");
    snprintf(
        path, sizeof(path), CRASH_COLLECTION "/items/w%d-%d", w->number, i);
    long status = crash_call(&w->http, "PUT", path, body.data);
    buf_release(&body);
    if (status / 100 == 2) {
        p->now = p->next;
        n_acknowledged++;
    }
    if (status != 0) {
        p->next = 0;
    }
    return status != 0;
}

static void *
run_writer(void *arg)
{
    struct worker *w = arg;

    crash_http_init(&w->http, w->port);
    while (!stop && put_one(w)) {
    }
    crash_http_free(&w->http);
    return NULL;
}

/* Put until the daemon dies, by SIGKILL once n more were acknowledged. */
static void
upload_and_die(struct crash_daemon *daemon, int n)
{
    pthread_t threads[N_WRITERS];
    int64_t until = clock_mono_ms() + 20000;

    stop = false;
    n += n_acknowledged;
    for (int i = 0; i < N_WRITERS; i++) {
        workers[i].port = daemon->port;
        if (pthread_create(&threads[i], NULL, run_writer, &workers[i]) != 0) {
            abort();
        }
    }
    while (n_acknowledged < n && clock_mono_ms() < until &&
           !crash_await_end(daemon, 1)) {
    }
    if (daemon->pid != 0) {
        crash_kill(daemon);
    }
    if (!crash_was_killed(daemon)) {
        crash_fault("it ended by itself: status %d", daemon->status);
    }
    stop = true;
    for (int i = 0; i < N_WRITERS; i++) {
        (void)pthread_join(threads[i], NULL);
    }
}

/* ---- comparing ----------------------------------------------------------- */

static bool
is_revision(const struct crash_http *http, int worker, int i, int revision)
{
    struct buf file;

    make_file(&file, worker, i, revision);
    bool same =
        file.len == http->len && memcmp(file.data, http->body, file.len) == 0;
    buf_release(&file);
    return same;
}

/* What is there is what was acknowledged, or what was under way, as a whole. */
static void
check_picture(struct crash_http *http, struct worker *w, int i)
{
    struct picture *p = &w->pictures[i];
    char path[100];

    snprintf(path, sizeof(path), CRASH_COLLECTION "/items/w%d-%d/image",
        w->number, i);
    long status = crash_call(http, "GET", path, NULL);
    if (status == 200 && p->next > 0 &&
        is_revision(http, w->number, i, p->next)) {
        p->now = p->next;
    } else if (p->now > 0
                   ? status != 200 || !is_revision(http, w->number, i, p->now)
                   : status != 404) {
        crash_fault("w%d-%d: %ld with %zu bytes; acknowledged %d, under way %d",
            w->number, i, status, http->len, p->now, p->next);
    }
    p->next = 0;
}

/* A picture finds itself. */
static void
check_search(struct crash_http *http, const struct worker *w, int i)
{
    struct buf body;
    char id[32];

    make_body(&body, w->number, i, w->pictures[i].now, ",\"k\":1");
    snprintf(id, sizeof(id), "w%d-%d", w->number, i);
    long status =
        crash_call(http, "POST", CRASH_COLLECTION "/search", body.data);
    json_t *root = crash_json(http);
    if (status != 200 || strcmp(crash_str(root, "/hits/0/id"), id) != 0 ||
        json_number_value(crash_at(root, "/hits/0/cosine")) < 0.999) {
        crash_fault("%s is not found by its picture: %.200s", id, http->body);
    }
    json_decref(root);
    buf_release(&body);
}

static void
check_all(struct crash_http *http)
{
    int64_t n = 0;

    for (int k = 0; k < N_WRITERS; k++) {
        for (int i = 0; i < N_EACH; i++) {
            check_picture(http, &workers[k], i);
            if (workers[k].pictures[i].now > 0) {
                check_search(http, &workers[k], i);
                n++;
            }
        }
    }
    if (crash_call(http, "GET", CRASH_COLLECTION, NULL) == 200) {
        json_t *root = crash_json(http);
        if (crash_int(root, "/items") != n) {
            crash_fault("%lld items, %lld were put",
                (long long)crash_int(root, "/items"), (long long)n);
        }
        json_decref(root);
    }
}

/* ---- tests --------------------------------------------------------------- */

static bool
start(
    struct crash_daemon *daemon, struct crash_http *http, const char *failpoint)
{
    if (!crash_start(daemon, failpoint)) {
        crash_fault("it did not start");
        crash_show_log(daemon);
        return false;
    }
    crash_http_init(http, daemon->port);
    return true;
}

static void
leave(struct crash_daemon *daemon, struct crash_http *http)
{
    crash_http_free(http);
    if (!crash_stop(daemon, 15000)) {
        crash_fault("it did not stop well");
    }
    (void)crash_check_copy(daemon->dir);
    if (crash_failing()) {
        crash_show_log(daemon);
    }
}

/* Without a failpoint: killed after n; with one it should not come to n. */
static void
test_uploads(const char *failpoint, int n)
{
    struct crash_daemon daemon;
    struct crash_http http = {0};
    char name[100], dir[160];
    int before = n_acknowledged;

    snprintf(name, sizeof(name), "pictures, killed %s%s",
        failpoint != NULL ? "at " : "",
        failpoint != NULL ? failpoint : "while they come");
    crash_begin(name);
    snprintf(dir, sizeof(dir), "%s/filled", root_dir);
    crash_daemon_init(&daemon, dir, true);
    if (start(&daemon, &http, failpoint)) {
        long status = crash_call(&http, "PUT", CRASH_COLLECTION, ENCODER);
        crash_http_free(&http);
        if (status / 100 != 2) {
            crash_fault("the collection: %ld", status);
        }
        upload_and_die(&daemon, n);
        (void)crash_check_copy(dir);
        int got = n_acknowledged - before;
        if (got < 5 || (got < n) != (failpoint != NULL)) {
            crash_fault("%d pictures were acknowledged before it died", got);
        }
    }
    if (!crash_failing() && start(&daemon, &http, NULL)) {
        check_all(&http);
        leave(&daemon, &http);
    }
    crash_end();
}

/* What the tests of rounds need: a picture of every id. */
static void
test_rest(void)
{
    struct crash_daemon daemon;
    struct crash_http http = {0};
    char dir[160];

    crash_begin("the pictures that are left, after the crashes");
    snprintf(dir, sizeof(dir), "%s/filled", root_dir);
    crash_daemon_init(&daemon, dir, true);
    if (start(&daemon, &http, NULL)) {
        for (int k = 0; k < N_WRITERS; k++) {
            for (int i = 0; i < N_EACH; i++) {
                struct buf body;
                char path[100];
                make_body(&body, k, i, 1, "");
                snprintf(
                    path, sizeof(path), CRASH_COLLECTION "/items/w%d-%d", k, i);
                if (workers[k].pictures[i].now == 0 &&
                    crash_call(&http, "PUT", path, body.data) == 201) {
                    workers[k].pictures[i].now = 1;
                }
                buf_release(&body);
            }
        }
        check_all(&http);
        leave(&daemon, &http);
    }
    crash_end();
}

/* A round in a copy of the folder; it dies at the failpoint unless that is
   NULL, and is then left alone until it has ended. Its weights. */
static void
run_round(const char *failpoint, char hex[65])
{
    struct crash_daemon daemon;
    struct crash_http http = {0};
    char from[160], to[160];

    snprintf(from, sizeof(from), "%s/filled", root_dir);
    snprintf(to, sizeof(to), "%s/work", root_dir);
    crash_remove_dir(to);
    if (!crash_copy_database(from, to)) {
        crash_fault("cannot copy %s", from);
    }
    crash_daemon_init(&daemon, to, true);
    if (!start(&daemon, &http, failpoint)) {
        return;
    }
    long status = crash_call(&http, "POST", CRASH_ADMIN "/train", ROUND);
    if (status != 202 && status != 0) {
        crash_fault("train: %.300s", http.body);
    }
    if (failpoint != NULL) {
        crash_http_free(&http);
        if (!crash_await_end(&daemon, 20000) || !crash_was_killed(&daemon)) {
            crash_fault("it did not come to %s (%ld)", failpoint, status);
            crash_kill(&daemon);
        }
        (void)crash_check_copy(to);
        if (!start(&daemon, &http, NULL)) {
            return;
        }
        crash_check_lineage(&http, false);
    }
    (void)crash_settle(&http, 60000);
    crash_check_lineage(&http, true);
    if (crash_live(&http) != 2 || !crash_weights(&http, 2, hex)) {
        (void)crash_call(&http, "GET", "/v1/jobs/1", NULL);
        crash_fault("the round did not end well: %.400s", http.body);
    }
    bool resumed = crash_log_has(&daemon, 0, "checkpoint_resumed");
    if (resumed != (failpoint != NULL)) {
        crash_fault(resumed ? "it went on from a state" : "it began again");
    }
    check_all(&http);
    leave(&daemon, &http);
    (void)unlink(daemon.log);
}

static char expected[65];

static void
test_round(const char *failpoint)
{
    char name[100], hex[65] = "";

    if (failpoint == NULL) {
        crash_begin("a round on pictures");
        run_round(NULL, expected);
        crash_end();
        return;
    }
    snprintf(name, sizeof(name),
        "a round on pictures killed at %s goes on to its bits", failpoint);
    crash_begin(name);
    run_round(failpoint, hex);
    if (strcmp(hex, expected) != 0) {
        crash_fault("weights %.16s, uninterrupted %.16s", hex, expected);
    }
    crash_end();
}

int
main(void)
{
    const char *tier = getenv("KINDRED_TIER");
    bool full = tier != NULL && strcmp(tier, "full") == 0;
    int64_t started = clock_mono_ms();

    log_setup(LOG_ERROR, false);
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    crash_make_dir(root_dir, sizeof(root_dir));
    (void)setenv("KINDRED_CHECKPOINT_MS", "0", 1);
    for (int i = 0; i < N_WRITERS; i++) {
        workers[i].number = i;
        rng_seed(&workers[i].rng, (uint64_t)i + 1);
    }
    test_uploads(NULL, 60);
    test_uploads("store_before_commit:20", 1000);
    test_uploads("store_after_commit:20", 1000);
    for (int i = 0; i < (full ? 10 : 1); i++) {
        test_uploads(NULL, 40 + 17 * i);
    }
    if (crash_failures() == 0) {
        test_rest();
        test_round(NULL);
    }
    if (crash_failures() == 0) {
        test_round("learn_step:7");
        if (full) {
            test_round("learn_checkpoint_write:60");
            test_round("learn_checkpoint_saved:5");
            test_round("learn_before_save:1");
        }
    }
    crash_remove_dir(root_dir);
    printf("(%.1f s)\n", (double)(clock_mono_ms() - started) / 1000);
    return crash_failures() > 0;
}
