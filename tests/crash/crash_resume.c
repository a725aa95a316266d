/*
 * Goal: a round, a switch or a backup that is killed at any edge of its states
 * goes on or is given up, and never half of it is served: a round that goes on
 * makes, bit for bit, the weights of one that was never interrupted.
 * Method: one folder is filled once and copied for every failpoint. The daemon
 * dies there; the file is checked as the crash left it; the daemon starts
 * again without a failpoint. New pairs arrive at once, so that a round that
 * went on with other data would be seen. What the end must be stands in the
 * table of each test.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>

#include "base/clock.h"
#include "base/log.h"
#include "tests/support/crash_kit.h"

#define N_ITEMS 80
#define N_BEHIND 2100 /* more than a rollback embeds at once */
#define ROUND                                                                  \
    "{\"force\":true,\"seed\":7,\"batch\":16,\"epochs\":4,\"token_dropout\":"  \
    "0.2}"

/* Has a queue, a momentum encoder, a head and a temperature of its own. */
#define QUEUE_ROUND                                                            \
    "{\"force\":true,\"seed\":7,\"batch\":16,\"epochs\":6,"                    \
    "\"mechanism\":\"momentum_queue\",\"queue\":32,\"momentum\":0.9,"          \
    "\"head\":{\"layers\":1,\"dims\":16},\"learn_temperature\":true}"

static char root_dir[100];
static bool full;

/* A copy of a prepared folder, and a daemon over it. */
static void
over_copy(struct crash_daemon *daemon, const char *prepared, bool failpoints)
{
    char from[160], to[160];

    snprintf(from, sizeof(from), "%s/%s", root_dir, prepared);
    snprintf(to, sizeof(to), "%s/work", root_dir);
    crash_remove_dir(to);
    if (!crash_copy_database(from, to)) {
        crash_fault("cannot copy %s", from);
    }
    crash_daemon_init(daemon, to, failpoints);
}

/* Start a round, wait for its end; false with a fault. */
static bool
run_round(struct crash_http *http, const char *options)
{
    if (crash_call(http, "POST", CRASH_ADMIN "/train", options) != 202) {
        crash_fault("train: %.300s", http->body);
        return false;
    }
    return crash_settle(http, 60000);
}

/* Items that the previous generation has no vectors of. */
static bool
add_items(struct crash_http *http, int n)
{
    struct crash_text text = {0};
    char words[CRASH_TEXT_MAX];

    crash_add(&text, "\n");
    for (int i = 0; i < n; i++) {
        crash_words(words, 500000 + (uint64_t)i, 1);
        crash_add(&text, "{\"id\":\"n%d\",\"text\":\"%s\"}\n", i, words);
    }
    bool ok =
        crash_call(http, "POST", CRASH_COLLECTION "/items", text.s) == 200 &&
        strstr(http->body, "\"errors\":false") != NULL;
    free(text.s);
    if (!ok) {
        crash_fault("adding items: %.200s", http->body);
    }
    return ok;
}

/* Pairs that came after the round was asked for. */
static void
add_pairs(struct crash_http *http)
{
    struct crash_text text = {0};
    char words[CRASH_TEXT_MAX];

    crash_add(&text, "[");
    for (int i = 0; i < 20; i++) {
        crash_words(words, 900 + (uint64_t)i, 1);
        crash_add(&text,
            "%s{\"anchor\":{\"text\":\"%s\"},\"positive\":{\"id\":\"b%d\"}}",
            i ? "," : "", words, i);
    }
    crash_add(&text, "]");
    if (crash_call(http, "POST", CRASH_COLLECTION "/pairs", text.s) != 200) {
        crash_fault("adding pairs: %.200s", http->body);
    }
    free(text.s);
}

/* Every item, by its own text, in the live space. */
static void
check_items(struct crash_http *http)
{
    char words[CRASH_TEXT_MAX], id[16];

    for (int i = 0; i < N_ITEMS; i++) {
        struct crash_text query = {0};
        snprintf(id, sizeof(id), "b%d", i);
        crash_words(words, CRASH_BASE_KEY + (uint64_t)i, 1);
        crash_add(&query, "{\"text\":\"%s\",\"k\":1}", words);
        long status =
            crash_call(http, "POST", CRASH_COLLECTION "/search", query.s);
        json_t *root = crash_json(http);
        if (status != 200 || strcmp(crash_str(root, "/hits/0/id"), id) != 0 ||
            json_number_value(crash_at(root, "/hits/0/cosine")) < 0.9999) {
            crash_fault("%s is not found by its text: %.300s", id, http->body);
        }
        json_decref(root);
        free(query.s);
    }
}

/* ---- the folders --------------------------------------------------------- */

static char expected[65]; /* the round's weights, uninterrupted */
static char expected_queue[65];

/* The weights of a round that nobody interrupts; false with a fault. */
static bool
run_whole(const char *options, bool failpoints, char hex[65])
{
    struct crash_daemon daemon;
    struct crash_http http;

    over_copy(&daemon, "filled", failpoints);
    if (!crash_start(&daemon, NULL)) {
        crash_fault("it did not start");
        return false;
    }
    crash_http_init(&http, daemon.port);
    bool ok = run_round(&http, options) && crash_weights(&http, 2, hex);
    if (!ok) {
        crash_fault("there are no weights: %.300s", http.body);
    }
    crash_http_free(&http);
    (void)crash_stop(&daemon, 15000);
    return ok;
}

/* "filled": generation 1. "trained": generation 2 live, 1 previous. "behind":
   the same, and items that generation 1 does not know. */
static void
test_prepare(void)
{
    struct crash_daemon daemon;
    struct crash_http http;
    char dir[160], hex[65] = "";

    crash_begin("the same round twice gives the same weights");
    snprintf(dir, sizeof(dir), "%s/filled", root_dir);
    crash_daemon_init(&daemon, dir, true);
    if (crash_start(&daemon, NULL)) {
        crash_http_init(&http, daemon.port);
        (void)crash_fill(&http, N_ITEMS, 16384);
        crash_http_free(&http);
    }
    if (!crash_stop(&daemon, 15000)) {
        crash_fault("the daemon did not stop well");
        crash_show_log(&daemon);
    }
    for (int i = 0; i < 2 && !crash_failing(); i++) {
        /* The released build and the one with failpoints, too. */
        over_copy(&daemon, "filled", i == 0);
        if (crash_start(&daemon, NULL)) {
            crash_http_init(&http, daemon.port);
            if (run_round(&http, ROUND) &&
                !crash_weights(&http, 2, i == 0 ? expected : hex)) {
                crash_fault("there are no weights: %.300s", http.body);
            }
            crash_http_free(&http);
        }
        (void)crash_stop(&daemon, 15000);
        if (i == 0) {
            snprintf(dir, sizeof(dir), "%s/trained", root_dir);
            (void)crash_copy_database(daemon.dir, dir);
        }
    }
    if (strcmp(expected, hex) != 0) {
        crash_fault("weights %.16s and %.16s", expected, hex);
    }
    if (!crash_failing()) {
        (void)run_whole(QUEUE_ROUND, false, expected_queue);
    }
    over_copy(&daemon, "trained", true);
    if (!crash_failing() && crash_start(&daemon, NULL)) {
        crash_http_init(&http, daemon.port);
        (void)add_items(&http, N_BEHIND);
        crash_http_free(&http);
        (void)crash_stop(&daemon, 15000);
        snprintf(dir, sizeof(dir), "%s/behind", root_dir);
        (void)crash_copy_database(daemon.dir, dir);
    }
    crash_end();
}

/* ---- one death ----------------------------------------------------------- */

struct death {
    const char *name;
    int pass;
    int64_t live; /* after the restart and the end of all jobs; 0: either */
    bool quick;   /* also in the share of "make check" */
};

/* Ask for something in a daemon that will die of it. False when it did not. */
static bool
die(struct crash_daemon *daemon, struct crash_http *http,
    const struct death *death, const char *method, const char *path,
    const char *body)
{
    char failpoint[80];

    snprintf(failpoint, sizeof(failpoint), "%s:%d", death->name, death->pass);
    if (!crash_start(daemon, failpoint)) {
        crash_fault("it did not start");
        crash_show_log(daemon);
        return false;
    }
    crash_http_init(http, daemon->port);
    (void)crash_call(http, method, path, body);
    crash_http_free(http);
    if (!crash_await_end(daemon, 20000) || !crash_was_killed(daemon)) {
        crash_fault("it did not come to %s", failpoint);
        crash_kill(daemon);
        return false;
    }
    (void)crash_check_copy(daemon->dir);
    return true;
}

/* Start again. False when there is nothing to look at. */
static bool
come_back(struct crash_daemon *daemon, struct crash_http *http)
{
    if (!crash_start(daemon, NULL)) {
        crash_fault("it did not start again");
        crash_show_log(daemon);
        return false;
    }
    crash_http_init(http, daemon->port);
    return true;
}

static bool
die_and_return(struct crash_daemon *daemon, struct crash_http *http,
    const struct death *death, const char *method, const char *path,
    const char *body)
{
    return die(daemon, http, death, method, path, body) &&
           come_back(daemon, http);
}

static void
leave(struct crash_daemon *daemon, struct crash_http *http)
{
    if (!crash_stop(daemon, 15000)) {
        crash_fault("it did not stop well");
    }
    if (http->curl != NULL) {
        crash_http_free(http);
    }
    (void)crash_check_copy(daemon->dir);
    if (crash_failing()) {
        crash_show_log(daemon);
    }
    (void)unlink(daemon->log);
}

static const struct death round_deaths[] = {
    {"learn_step", 1, 2, false},
    {"learn_step", 9, 2, true},
    {"learn_before_save", 1, 2, false},
    {"learn_created", 1, 2, false},
    {"store_weights_chunk", 1, 2, true},
    {"learn_saved", 1, 2, true},
    {"learn_registered", 1, 2, true},
    {"reembed_batch", 1, 2, false},
    {"store_reembed_commit", 1, 2, false},
    {"reembed_committed", 1, 2, false},
    {"learn_before_publish", 1, 2, false},
    {"learn_publish", 1, 2, false},
    {"store_publish", 1, 2, true},
    {"publish", 1, 2, false},
};

/* With a checkpoint after every step the round may not begin again. */
static const struct death queue_deaths[] = {
    {"learn_step", 11, 2, true},
    {"learn_checkpoint_write", 60, 2, false},
    {"learn_checkpoint_saved", 9, 2, true},
    {"fsio-before-rename", 12, 2, false},
    {"fsio-after-rename", 12, 2, false},
    {"learn_before_save", 1, 2, false},
};

static void
test_round(const struct death *death, bool queue)
{
    struct crash_daemon daemon;
    struct crash_http http = {0};
    const char *round = queue ? QUEUE_ROUND : ROUND;
    const char *whole = queue ? expected_queue : expected;
    char name[100], hex[65] = "";

    snprintf(name, sizeof(name),
        "a round%s killed at %s:%d goes on to its bits",
        queue ? " with a queue" : "", death->name, death->pass);
    crash_begin(name);
    over_copy(&daemon, "filled", true);
    if (queue) {
        (void)setenv("KINDRED_CHECKPOINT_MS", "0", 1);
    }
    if (die_and_return(
            &daemon, &http, death, "POST", CRASH_ADMIN "/train", round)) {
        crash_check_lineage(&http, false);
        add_pairs(&http);
        (void)crash_settle(&http, 60000);
        crash_check_lineage(&http, true);
        if (crash_call(&http, "GET", "/v1/jobs/1", NULL) != 200 ||
            strstr(http.body, "\"state\":\"promoted\"") == NULL) {
            crash_fault("the job: %.400s", http.body);
        }
        int64_t live = crash_live(&http);
        if (live < death->live) {
            crash_fault("generation %lld is live", (long long)live);
        }
        if (!crash_weights(&http, live, hex) || strcmp(hex, whole) != 0) {
            crash_fault("weights %.16s, uninterrupted %.16s", hex, whole);
        }
        if (queue && !crash_log_has(&daemon, 0, "checkpoint_resumed")) {
            crash_fault("it began again");
        }
        check_items(&http);
    }
    (void)unsetenv("KINDRED_CHECKPOINT_MS");
    leave(&daemon, &http);
    crash_end();
}

/* What other kernels have begun they would end with bits that no table makes
   alone: the round begins again. */
static void
test_other_kernels(void)
{
    static const struct death death = {"learn_step", 11, 2, true};
    struct crash_daemon daemon;
    struct crash_http http = {0};
    char scalar[65] = "", hex[65] = "";

    crash_begin("a round killed under other kernels begins again, to its bits");
    (void)setenv("KINDRED_KERNELS", "scalar", 1);
    bool ok = run_whole(QUEUE_ROUND, true, scalar);
    (void)unsetenv("KINDRED_KERNELS");
    if (ok && strcmp(scalar, expected_queue) == 0) {
        crash_skip("a round killed under other kernels",
            "this machine has the scalar ones only");
        return;
    }
    over_copy(&daemon, "filled", true);
    (void)setenv("KINDRED_CHECKPOINT_MS", "0", 1);
    ok = ok &&
         die(&daemon, &http, &death, "POST", CRASH_ADMIN "/train", QUEUE_ROUND);
    (void)setenv("KINDRED_KERNELS", "scalar", 1);
    if (ok && come_back(&daemon, &http)) {
        (void)crash_settle(&http, 60000);
        if (!crash_log_has(&daemon, 0, "checkpoint_unused") ||
            !crash_log_has(&daemon, 0, "made by other kernels")) {
            crash_fault("it went on with other kernels");
        }
        if (!crash_weights(&http, 2, hex) || strcmp(hex, scalar) != 0) {
            crash_fault("weights %.16s, uninterrupted %.16s", hex, scalar);
        }
    }
    (void)unsetenv("KINDRED_KERNELS");
    (void)unsetenv("KINDRED_CHECKPOINT_MS");
    leave(&daemon, &http);
    crash_end();
}

/* A state in the place of one that began from another generation, as when an
   older data file is put back beside it. */
static void
test_other_parent(void)
{
    static const struct death death = {"learn_step", 11, 2, true};
    struct crash_daemon daemon;
    struct crash_http http = {0};
    char state[200], kept[160];

    crash_begin("a state that began from another generation is not used");
    (void)setenv("KINDRED_CHECKPOINT_MS", "0", 1);
    snprintf(kept, sizeof(kept), "%s/state", root_dir);
    over_copy(&daemon, "filled", true);
    snprintf(state, sizeof(state), "%s/work/checkpoints/job-1", root_dir);
    bool ok = die(&daemon, &http, &death, "POST", CRASH_ADMIN "/train",
                  QUEUE_ROUND) &&
              crash_copy_file(state, kept);
    over_copy(&daemon, "trained", true);
    snprintf(state, sizeof(state), "%s/work/checkpoints/job-2", root_dir);
    ok = ok &&
         die(&daemon, &http, &death, "POST", CRASH_ADMIN "/train", QUEUE_ROUND);
    if (ok && !crash_copy_file(kept, state)) {
        crash_fault("there is no state of job 2");
    }
    if (ok && come_back(&daemon, &http)) {
        (void)crash_settle(&http, 60000);
        crash_check_lineage(&http, true);
        if (!crash_log_has(&daemon, 0, "checkpoint_unused job=2") ||
            !crash_log_has(&daemon, 0, "began from another encoder")) {
            crash_fault("the state was used, or refused for another reason");
        }
        if (crash_live(&http) != 3) {
            crash_fault(
                "generation %lld is live", (long long)crash_live(&http));
        }
    }
    (void)unsetenv("KINDRED_CHECKPOINT_MS");
    leave(&daemon, &http);
    crash_end();
}

/* A rollback to a whole generation is one transaction; to one that lacks items
   it is a job. */
static const struct death rollback_deaths[] = {
    {"store_publish", 1, 2, true},
    {"publish", 1, 1, true},
};
static const struct death job_deaths[] = {
    {"reembed_batch", 1, 1, false},
    {"store_reembed_commit", 1, 1, true},
    {"reembed_committed", 1, 1, false},
    {"store_publish", 1, 1, false},
    {"publish", 1, 1, false},
};

static void
test_rollback(const char *prepared, const struct death *death)
{
    struct crash_daemon daemon;
    struct crash_http http = {0};
    char name[100];

    snprintf(name, sizeof(name), "a rollback (%s) killed at %s:%d", prepared,
        death->name, death->pass);
    crash_begin(name);
    over_copy(&daemon, prepared, true);
    if (die_and_return(
            &daemon, &http, death, "POST", CRASH_ADMIN "/rollback", NULL)) {
        crash_check_lineage(&http, false);
        (void)crash_settle(&http, 60000);
        crash_check_lineage(&http, true);
        if (crash_live(&http) != death->live) {
            crash_fault("generation %lld is live, not %lld",
                (long long)crash_live(&http), (long long)death->live);
        }
        check_items(&http);
        /* And back: nothing of the interrupted one stands in the way. */
        if (crash_call(&http, "POST", CRASH_ADMIN "/rollback", NULL) / 100 !=
                2 ||
            !crash_settle(&http, 60000) ||
            crash_live(&http) != 3 - death->live) {
            crash_fault("the rollback after it: %.300s", http.body);
        }
    }
    leave(&daemon, &http);
    crash_end();
}

/* ---- backup -------------------------------------------------------------- */

static const struct death backup_deaths[] = {
    {"store_backup_step", 1, 0, true},
    {"store_backup_renamed", 1, 0, false},
};

/* The backup as a folder of its own, through a daemon of its own. */
static void
check_restored(const struct crash_daemon *daemon, const char *name)
{
    char from[400], dir[240], to[300];
    struct crash_daemon other;
    struct crash_http http;

    snprintf(from, sizeof(from), "%s/backups/%s.db", daemon->dir, name);
    snprintf(dir, sizeof(dir), "%s/restored", root_dir);
    snprintf(to, sizeof(to), "%s/kindred.db", dir);
    crash_remove_dir(dir);
    crash_daemon_init(&other, dir, true);
    crash_launch(&other, NULL); /* makes the folder, and is gone */
    if (crash_await_ready(&other) && crash_stop(&other, 15000) &&
        crash_copy_file(from, to) && crash_start(&other, NULL)) {
        crash_http_init(&http, other.port);
        crash_check_lineage(&http, false);
        check_items(&http);
        crash_http_free(&http);
        (void)crash_stop(&other, 15000);
        (void)crash_check_copy(dir);
    } else {
        crash_fault("the backup %s does not start", from);
        crash_show_log(&other);
        crash_kill(&other);
    }
}

static void
check_no_leftovers(const struct crash_daemon *daemon)
{
    char path[240];
    snprintf(path, sizeof(path), "%s/backups", daemon->dir);
    DIR *dir = opendir(path);
    const struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (strstr(entry->d_name, ".part") != NULL) {
            crash_fault("%s was left behind", entry->d_name);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
}

static void
test_backup(const struct death *death)
{
    struct crash_daemon daemon;
    struct crash_http http = {0};
    char name[128];

    snprintf(name, sizeof(name), "a backup killed at %s:%d", death->name,
        death->pass);
    crash_begin(name);
    over_copy(&daemon, "trained", true);
    if (die_and_return(
            &daemon, &http, death, "POST", "/v1/admin/backup", NULL)) {
        char done[128];
        (void)crash_settle(&http, 60000);
        crash_check_lineage(&http, true);
        if (crash_backup(&http, done, sizeof(done))) {
            check_restored(&daemon, done);
        }
        /* Nothing of the unfinished one is left, and what is listed is whole.
         */
        check_no_leftovers(&daemon);
        if (crash_call(&http, "GET", "/v1/admin/backups", NULL) == 200) {
            json_t *list = crash_json(&http);
            json_t *all = crash_at(list, "/backups");
            for (size_t i = 0; i < json_array_size(all); i++) {
                check_restored(
                    &daemon, crash_str(json_array_get(all, i), "/name"));
            }
            json_decref(list);
        }
    }
    leave(&daemon, &http);
    crash_end();
}

int
main(void)
{
    const char *tier = getenv("KINDRED_TIER");
    int64_t started = clock_mono_ms();

    full = tier != NULL && strcmp(tier, "full") == 0;
    log_setup(LOG_ERROR, false);
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    crash_make_dir(root_dir, sizeof(root_dir));
    test_prepare();
    if (crash_failures() == 0) {
        for (size_t i = 0; i < sizeof(round_deaths) / sizeof(*round_deaths);
             i++) {
            if (full || round_deaths[i].quick) {
                test_round(&round_deaths[i], false);
            }
        }
        for (size_t i = 0; i < sizeof(queue_deaths) / sizeof(*queue_deaths);
             i++) {
            if (full || queue_deaths[i].quick) {
                test_round(&queue_deaths[i], true);
            }
        }
        test_other_kernels();
        test_other_parent();
        for (size_t i = 0;
             i < sizeof(rollback_deaths) / sizeof(*rollback_deaths); i++) {
            if (full || rollback_deaths[i].quick) {
                test_rollback("trained", &rollback_deaths[i]);
            }
        }
        for (size_t i = 0; i < sizeof(job_deaths) / sizeof(*job_deaths); i++) {
            if (full || job_deaths[i].quick) {
                test_rollback("behind", &job_deaths[i]);
            }
        }
        for (size_t i = 0; i < sizeof(backup_deaths) / sizeof(*backup_deaths);
             i++) {
            if (full || backup_deaths[i].quick) {
                test_backup(&backup_deaths[i]);
            }
        }
    }
    crash_remove_dir(root_dir);
    printf("(%.1f s)\n", (double)(clock_mono_ms() - started) / 1000);
    return crash_failures() > 0;
}
