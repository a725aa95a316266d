/*
 * Goal: what surrounds the daemon may fail: a full disk, a second daemon on the
 * folder, a damaged file, one of a newer version, a SIGTERM under load. It
 * refuses clearly, keeps answering what it can, and loses nothing that was
 * acknowledged.
 * Method: the folder is a small tmpfs that a ballast file fills (needs the
 * right to mount; else skipped); the file is damaged by hand where that must
 * be noticed, and at random places, where the daemon must not fall.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <curl/curl.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "tests/support/crash_kit.h"

#define N_BASE 60
#define N_THREADS 4
#define N_IDS 20000

static char root_dir[100];
static char prepared[160]; /* a folder with N_BASE items, stopped in order */
static bool full;

static long
put_item(struct crash_http *http, int worker, int i)
{
    struct crash_text body = {0};
    char path[100], words[CRASH_TEXT_MAX];

    crash_words(words, (uint64_t)(worker + 1) * 1000000 + (uint64_t)i, 1);
    snprintf(path, sizeof(path), CRASH_COLLECTION "/items/w%d-%d", worker, i);
    crash_add(&body, "{\"text\":\"%s\"}", words);
    long status = crash_call(http, "PUT", path, body.s);
    free(body.s);
    return status;
}

/* Is the item there, and found by its text? */
static bool
has_item(struct crash_http *http, int worker, int i)
{
    struct crash_text body = {0};
    char path[100], id[40], words[CRASH_TEXT_MAX];
    bool ok;

    snprintf(id, sizeof(id), "w%d-%d", worker, i);
    snprintf(path, sizeof(path), CRASH_COLLECTION "/items/%s", id);
    crash_words(words, (uint64_t)(worker + 1) * 1000000 + (uint64_t)i, 1);
    ok = crash_call(http, "GET", path, NULL) == 200 &&
         strstr(http->body, words) != NULL;
    crash_add(&body, "{\"text\":\"%s\",\"k\":3}", words);
    ok = ok &&
         crash_call(http, "POST", CRASH_COLLECTION "/search", body.s) == 200;
    free(body.s);
    snprintf(path, sizeof(path), "\"id\":\"%s\",\"cosine\":", id);
    return ok && strstr(http->body, path) != NULL;
}

static void
copy_prepared(struct crash_daemon *daemon, const char *name)
{
    char dir[180];

    snprintf(dir, sizeof(dir), "%s/%s", root_dir, name);
    crash_remove_dir(dir);
    if (!crash_copy_database(prepared, dir)) {
        crash_fault("cannot copy %s", prepared);
    }
    crash_daemon_init(daemon, dir, false);
    (void)unlink(daemon->log);
}

static void
prepare(void)
{
    struct crash_daemon daemon;
    struct crash_http http;

    snprintf(prepared, sizeof(prepared), "%s/prepared", root_dir);
    crash_daemon_init(&daemon, prepared, false);
    crash_begin("a folder is filled and stopped");
    if (crash_start(&daemon, NULL)) {
        crash_http_init(&http, daemon.port);
        (void)crash_fill(&http, N_BASE, 16384);
        crash_http_free(&http);
        if (!crash_stop(&daemon, 10000)) {
            crash_fault("it did not stop well");
        }
    } else {
        crash_fault("it did not start");
        crash_show_log(&daemon);
    }
    crash_end();
}

/* ---- two daemons --------------------------------------------------------- */

static void
test_second_daemon(void)
{
    struct crash_daemon first, second;
    struct crash_http http;
    char pid[40];

    crash_begin("a second daemon on the folder is refused with the pid");
    copy_prepared(&first, "shared");
    second = first;
    snprintf(second.log, sizeof(second.log), "%s/second.log", root_dir);
    if (crash_start(&first, NULL)) {
        pid_t of_first = first.pid;
        if (crash_start(&second, NULL) || !crash_exited(&second, 4)) {
            crash_fault("it was not refused: status %d", second.status);
            crash_kill(&second);
        }
        snprintf(pid, sizeof(pid), "%d", (int)of_first);
        if (!crash_log_has(&second, 0, pid)) {
            crash_fault("it does not name the pid %s", pid);
            crash_show_log(&second);
        }
        crash_http_init(&http, first.port);
        if (put_item(&http, 0, 0) != 201 || !has_item(&http, 0, 0)) {
            crash_fault("the first one suffered: %.200s", http.body);
        }
        crash_http_free(&http);
        /* A daemon that was killed leaves no lock. */
        crash_kill(&first);
        if (!crash_start(&second, NULL)) {
            crash_fault("the lock outlives the daemon");
            crash_show_log(&second);
        }
        (void)crash_stop(&second, 10000);
    }
    crash_end();
}

/* ---- damage -------------------------------------------------------------- */

static char *
read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *bytes = NULL;
    struct stat st;

    *n = 0;
    if (f != NULL && stat(path, &st) == 0 &&
        (bytes = malloc((size_t)st.st_size + 1)) != NULL) {
        *n = fread(bytes, 1, (size_t)st.st_size, f);
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return bytes;
}

static void
write_file(const char *path, const char *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");

    if (f == NULL || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) {
        crash_fault("cannot write %s", path);
    }
}

/* The daemon must end with this status and these words, and leave the file as
   it is. */
static void
expect_refusal(const char *what, const char *bytes, size_t n, int code,
    const char *words, const char *more)
{
    struct crash_daemon daemon;
    char path[300];
    size_t n_after = 0;

    copy_prepared(&daemon, "damaged");
    snprintf(path, sizeof(path), "%s/kindred.db", daemon.dir);
    write_file(path, bytes, n);
    if (crash_start(&daemon, NULL)) {
        crash_fault("%s: it starts", what);
        crash_kill(&daemon);
        return;
    }
    if (!crash_exited(&daemon, code)) {
        crash_fault("%s: status %x, not exit %d", what, daemon.status, code);
        crash_show_log(&daemon);
    } else if (!crash_log_has(&daemon, 0, words) ||
               !crash_log_has(&daemon, 0, more)) {
        crash_fault(
            "%s: \"%s\" and \"%s\" are not in what it says", what, words, more);
        crash_show_log(&daemon);
    }
    char *after = read_file(path, &n_after);
    if (n_after != n || memcmp(after, bytes, n) != 0) {
        crash_fault("%s: the refused file was changed", what);
    }
    free(after);
}

static void
test_damage(void)
{
    char path[300];
    size_t n;

    crash_begin("a damaged file is refused, and left alone");
    snprintf(path, sizeof(path), "%s/kindred.db", prepared);
    char *bytes = read_file(path, &n);
    char *bad = malloc(n + 1);
    if (bytes != NULL && bad != NULL && n > 40000) {
        memcpy(bad, bytes, n);
        bad[3] = (char)(bad[3] ^ 0x55);
        expect_refusal("header", bad, n, 6, "kindredd: ", "damaged");
        memcpy(bad, bytes, n);
        bad[16] = 0x03;
        expect_refusal("page size", bad, n, 6, "kindredd: ", "damaged");
        memcpy(bad, bytes, n);
        memset(bad + 100, 0xA5, 16);
        expect_refusal("schema page", bad, n, 6, "kindredd: ", "damaged");
        memcpy(bad, bytes, n);
        memset(bad, 0, 16384);
        expect_refusal("first page", bad, n, 6, "kindredd: ", "damaged");
        expect_refusal("half of it", bytes, n / 2, 6, "kindredd: ", "damaged");
        expect_refusal("one page", bytes, 16384, 6, "kindredd: ", "damaged");
        expect_refusal("100 bytes", bytes, 100, 6, "kindredd: ", "damaged");
        memset(bad, 'x', n);
        expect_refusal("no database", bad, n, 6, "kindredd: ", "damaged");
    } else {
        crash_fault("no file to damage");
    }
    free(bytes);
    free(bad);
    crash_end();
}

static void
test_newer(void)
{
    char path[300];
    size_t n;

    crash_begin("a file of a newer version is refused, and left alone");
    snprintf(path, sizeof(path), "%s/kindred.db", prepared);
    char *bytes = read_file(path, &n);
    if (bytes != NULL && n > 100) {
        /* "User version": bytes 60 to 63 of SQLite's header. */
        bytes[60] = bytes[61] = 0;
        bytes[62] = 3;
        bytes[63] = (char)0xE7;
        expect_refusal("version 999", bytes, n, 5, "999", "version");
    }
    free(bytes);
    crash_end();
}

/* A flip anywhere: refused or served, never a fall or a hang. */
static void
test_flips(int times)
{
    struct crash_daemon daemon;
    struct crash_http http;
    struct rng rng;
    char path[300], name[80];
    size_t n;
    int served = 0, refused = 0;
    uint64_t seed = (uint64_t)clock_wall_ms();

    snprintf(name, sizeof(name), "%d files with flipped bytes", times);
    crash_begin(name);
    rng_seed(&rng, seed);
    snprintf(path, sizeof(path), "%s/kindred.db", prepared);
    char *bytes = read_file(path, &n);
    for (int i = 0; i < times && bytes != NULL && n > 0; i++) {
        size_t at[8];
        char was[8];
        copy_prepared(&daemon, "flipped");
        for (int k = 0; k < 8; k++) {
            /* Half of them at the start of a page, where it hurts. */
            at[k] = rng_below(&rng, 2) ? rng_below(&rng, n)
                                       : rng_below(&rng, n / 16384) * 16384 +
                                             rng_below(&rng, 120);
            was[k] = bytes[at[k]];
            bytes[at[k]] = (char)rng_below(&rng, 256);
        }
        snprintf(path, sizeof(path), "%s/kindred.db", daemon.dir);
        write_file(path, bytes, n);
        for (int k = 8; k-- > 0;) {
            bytes[at[k]] = was[k];
        }
        if (!crash_start(&daemon, NULL)) {
            refused++;
            if (!crash_exited(&daemon, 6) && !crash_exited(&daemon, 5)) {
                crash_fault("seed %llu, file %d: status %x",
                    (unsigned long long)seed, i, daemon.status);
                crash_show_log(&daemon);
            }
            continue;
        }
        served++;
        crash_http_init(&http, daemon.port);
        (void)crash_call(&http, "GET", CRASH_COLLECTION "/items", NULL);
        (void)crash_call(&http, "GET", CRASH_COLLECTION "/pairs", NULL);
        (void)crash_call(&http, "GET", CRASH_COLLECTION "/generations", NULL);
        (void)has_item(&http, 0, 0);
        (void)put_item(&http, 0, 0);
        (void)crash_call(&http, "DELETE", CRASH_COLLECTION "/items/b3", NULL);
        crash_http_free(&http);
        if (!crash_stop(&daemon, 10000)) {
            crash_fault("seed %llu, file %d, served: status %x",
                (unsigned long long)seed, i, daemon.status);
            crash_show_log(&daemon);
        }
    }
    free(bytes);
    printf("    (%d refused, %d served)\n", refused, served);
    crash_end();
}

/* ---- SIGTERM under load -------------------------------------------------- */

static struct load {
    pthread_t thread;
    int number;
    unsigned port;
    int n_asked;
    bool acknowledged[N_IDS];
} loads[N_THREADS];
static atomic_bool stop;

/* Every third request is NDJSON. */
static bool
put_lines(struct crash_http *http, struct load *load)
{
    struct crash_text body = {0};
    char words[CRASH_TEXT_MAX];
    int from = load->n_asked;

    crash_add(&body, "\n");
    for (int i = from; i < from + 30; i++) {
        crash_words(
            words, (uint64_t)(load->number + 1) * 1000000 + (uint64_t)i, 1);
        crash_add(&body, "{\"id\":\"w%d-%d\",\"text\":\"%s\"}\n", load->number,
            i, words);
    }
    load->n_asked += 30;
    long status = crash_call(http, "POST", CRASH_COLLECTION "/items", body.s);
    free(body.s);
    for (int i = from; i < from + 30; i++) {
        char needle[40];
        snprintf(needle, sizeof(needle), "\"w%d-%d\",\"status\":20",
            load->number, i);
        load->acknowledged[i] =
            http->len > 0 && strstr(http->body, needle) != NULL;
    }
    return status != 0;
}

static void *
run_load(void *arg)
{
    struct load *load = arg;
    struct crash_http http;
    bool up = true;

    crash_http_init(&http, load->port);
    while (up && !stop && load->n_asked < N_IDS - 40) {
        if (load->n_asked % 3 == 2) {
            up = put_lines(&http, load);
        } else {
            int i = load->n_asked++;
            long status = put_item(&http, load->number, i);
            load->acknowledged[i] = status / 100 == 2;
            up = status != 0;
        }
    }
    crash_http_free(&http);
    return NULL;
}

static void
start_loads(unsigned port)
{
    stop = false;
    for (int i = 0; i < N_THREADS; i++) {
        memset(&loads[i], 0, sizeof(loads[i]));
        loads[i].number = i;
        loads[i].port = port;
        if (pthread_create(&loads[i].thread, NULL, run_load, &loads[i]) != 0) {
            abort();
        }
    }
}

static void
end_loads(void)
{
    stop = true;
    for (int i = 0; i < N_THREADS; i++) {
        pthread_join(loads[i].thread, NULL);
    }
}

/* Of each thread the last ones and some of the others. */
static int
check_loads(struct crash_http *http)
{
    int n = 0;

    for (int t = 0; t < N_THREADS; t++) {
        int step = 1 + loads[t].n_asked / 60;
        for (int i = 0; i < loads[t].n_asked; i++) {
            bool late = i + 40 >= loads[t].n_asked;
            if (!loads[t].acknowledged[i]) {
                continue;
            }
            n++;
            if ((late || i % step == 0) && !has_item(http, t, i)) {
                crash_fault("w%d-%d was acknowledged and is lost: %.200s", t, i,
                    http->body);
            }
        }
    }
    return n;
}

static void
test_sigterm(int times)
{
    struct crash_daemon daemon;
    struct crash_http http;
    struct rng rng;
    char name[80];
    int64_t longest = 0;
    int n = 0;

    snprintf(name, sizeof(name), "SIGTERM under load, %d times", times);
    crash_begin(name);
    rng_seed(&rng, (uint64_t)clock_wall_ms());
    for (int i = 0; i < times; i++) {
        copy_prepared(&daemon, "terminated");
        if (!crash_start(&daemon, NULL)) {
            crash_fault("it did not start");
            break;
        }
        start_loads(daemon.port);
        crash_http_init(&http, daemon.port);
        /* A round that is under way, too. */
        if (crash_call(&http, "POST", CRASH_ADMIN "/train",
                "{\"force\":true,\"batch\":16,\"max_steps\":400}") != 202) {
            crash_fault("train: %.200s", http.body);
        }
        crash_http_free(&http);
        clock_sleep_ms(50 + (int64_t)rng_below(&rng, 350));
        int64_t from = clock_mono_ms();
        bool well = crash_stop(&daemon, 15000);
        int64_t took = clock_mono_ms() - from;
        end_loads();
        if (!well || took > 10000) {
            crash_fault(
                "status %x after %lld ms", daemon.status, (long long)took);
            crash_show_log(&daemon);
        }
        longest = took > longest ? took : longest;
        (void)crash_check_copy(daemon.dir);
        if (!crash_start(&daemon, NULL)) {
            crash_fault("it did not start again");
            crash_show_log(&daemon);
            break;
        }
        crash_http_init(&http, daemon.port);
        n += check_loads(&http);
        /* The round goes on, and ends well. */
        if (crash_settle(&http, 30000) &&
            (crash_call(&http, "GET", "/v1/jobs/1", NULL) != 200 ||
                strstr(http.body, "\"state\":\"promoted\"") == NULL)) {
            crash_fault("the round: %.300s", http.body);
        }
        crash_check_lineage(&http, true);
        crash_http_free(&http);
        crash_kill(&daemon);
    }
    printf("    (%d acknowledged writes, the slowest stop %lld ms)\n", n,
        (long long)longest);
    crash_end();
}

/* ---- a full disk --------------------------------------------------------- */

static char mounted[180];

static void
unmount(void)
{
    if (mounted[0] != '\0') {
        (void)umount2(mounted, MNT_DETACH);
        (void)rmdir(mounted);
        mounted[0] = '\0';
    }
}

/* Take all space but keep_bytes. */
static void
fill_disk(long keep_bytes)
{
    char path[220];
    static char bytes[65536];
    FILE *f;

    snprintf(path, sizeof(path), "%s/ballast", mounted);
    (void)unlink(path);
    memset(bytes, 'x', sizeof(bytes));
    f = fopen(path, "wb");
    if (f == NULL) {
        crash_fault("no ballast");
        return;
    }
    setvbuf(f, NULL, _IONBF, 0);
    long n = 0;
    while (fwrite(bytes, 1, sizeof(bytes), f) == sizeof(bytes)) {
        n += (long)sizeof(bytes);
    }
    (void)fflush(f);
    if (ftruncate(fileno(f), n > keep_bytes ? n - keep_bytes : 0) != 0) {
        crash_fault("cannot make room: %s", strerror(errno));
    }
    (void)fclose(f);
}

static void
free_disk(void)
{
    char path[220];

    snprintf(path, sizeof(path), "%s/ballast", mounted);
    (void)unlink(path);
}

/* Nothing half-made: the answer of the last job. */
static void
expect_job(struct crash_http *http, const char *state)
{
    char wanted[40];

    if (!crash_settle(http, 60000) ||
        crash_call(http, "GET", "/v1/jobs?limit=1", NULL) != 200) {
        return;
    }
    snprintf(wanted, sizeof(wanted), "\"state\":\"%s\"", state);
    if (strstr(http->body, wanted) == NULL) {
        crash_fault("the last job is not %s: %.400s", state, http->body);
    }
}

static void
use_full_disk(struct crash_daemon *daemon, struct crash_http *http)
{
    static bool kept[N_IDS];
    int n = 0;
    long status = 201;
    char words[CRASH_TEXT_MAX];
    struct crash_text lines = {0};

    fill_disk(0);
    /* What the log has room for may still come in. */
    for (; n < N_IDS && status != 507; n++) {
        status = put_item(http, 5, n);
        kept[n] = status / 100 == 2;
        if (!kept[n] && status != 507) {
            crash_fault(
                "a write on a full disk: %ld %.200s", status, http->body);
            break;
        }
    }
    if (status != 507) {
        crash_fault("%d writes fit on a full disk", n);
    } else if (strstr(http->body, "\"status\":507") == NULL) {
        crash_fault("no problem document: %.200s", http->body);
    }
    /* Other writes are refused in their own ways. */
    crash_add(&lines, "\n");
    for (int i = 0; i < 200; i++) {
        crash_words(words, 7000000 + (uint64_t)i, 1);
        crash_add(&lines, "{\"id\":\"w6-%d\",\"text\":\"%s\"}\n", i, words);
    }
    status = crash_call(http, "POST", CRASH_COLLECTION "/items", lines.s);
    free(lines.s);
    if (status != 507 && !(status == 200 && strstr(http->body, "507"))) {
        crash_fault("NDJSON on a full disk: %ld %.300s", status, http->body);
    }
    status = crash_call(http, "POST", CRASH_ADMIN "/train", "{\"force\":true}");
    if (status != 507) {
        crash_fault("train on a full disk: %ld %.200s", status, http->body);
    }
    status = crash_call(http, "POST", "/v1/admin/backup", NULL);
    if (status != 507) {
        crash_fault("backup on a full disk: %ld %.200s", status, http->body);
    }
    /* Reads go on. */
    if (crash_call(http, "GET", "/livez", NULL) != 200 ||
        crash_call(http, "GET", CRASH_COLLECTION "/items", NULL) != 200) {
        crash_fault("no reads on a full disk: %.200s", http->body);
    }
    for (int i = 0; i < n; i++) {
        if (kept[i] && (i < 20 || i + 20 > n) && !has_item(http, 5, i)) {
            crash_fault(
                "w5-%d was acknowledged and is lost: %.200s", i, http->body);
        }
    }
    /* Room for the job, none for what it makes: the weights, the copy. */
    fill_disk(700000);
    if (crash_call(http, "POST", CRASH_ADMIN "/train",
            "{\"force\":true,\"batch\":16,\"max_steps\":20}") == 202) {
        expect_job(http, "failed");
    } else {
        crash_fault("no room to queue a round: %.200s", http->body);
    }
    crash_check_lineage(http, true);
    fill_disk(300000);
    if (crash_call(http, "POST", "/v1/admin/backup", NULL) == 202) {
        expect_job(http, "failed");
    } else {
        crash_fault("no room to queue a backup: %.200s", http->body);
    }
    if (crash_call(http, "GET", "/v1/admin/backups", NULL) != 200 ||
        strstr(http->body, "\"name\"") != NULL) {
        crash_fault("a backup that failed is listed: %.200s", http->body);
    }
    /* Space returns, and all is well without a restart. */
    free_disk();
    status = put_item(http, 5, N_IDS);
    if (status != 201) {
        crash_fault("with space again: %ld %.200s", status, http->body);
    }
    kept[n - 1] = put_item(http, 5, n - 1) / 100 == 2;
    if (crash_call(http, "GET", "/readyz", NULL) != 200) {
        crash_fault("not ready with space again: %.200s", http->body);
    }
    if (crash_call(http, "POST", CRASH_ADMIN "/train",
            "{\"force\":true,\"batch\":16,\"max_steps\":20}") == 202) {
        expect_job(http, "promoted");
    } else {
        crash_fault("train with space again: %.200s", http->body);
    }
    /* On a full disk it also dies, and starts. */
    fill_disk(0);
    crash_kill(daemon);
    if (!crash_start(daemon, NULL)) {
        if (!crash_exited(daemon, 7)) {
            crash_fault(
                "on a full disk it ends with status %x", daemon->status);
            crash_show_log(daemon);
        }
        free_disk();
        if (!crash_start(daemon, NULL)) {
            crash_fault("it does not start with space again");
            crash_show_log(daemon);
            return;
        }
    }
    http->port = daemon->port;
    for (int i = 0; i < n; i++) {
        if (kept[i] && (i < 20 || i + 20 > n || i % 50 == 0) &&
            !has_item(http, 5, i)) {
            crash_fault(
                "w5-%d is lost after the restart: %.200s", i, http->body);
        }
    }
    free_disk();
    if (put_item(http, 5, N_IDS + 1) != 201) {
        crash_fault("a write after the restart: %.200s", http->body);
    }
    crash_check_lineage(http, true);
}

static void
test_full_disk(void)
{
    static const char name[] = "a full disk";
    struct crash_daemon daemon;
    struct crash_http http;
    char dir[200];

    snprintf(mounted, sizeof(mounted), "%s/small", root_dir);
    (void)mkdir(mounted, 0700);
    if (mount("none", mounted, "tmpfs", 0, "size=64m,mode=700") != 0) {
        crash_skip(name, strerror(errno));
        (void)rmdir(mounted);
        mounted[0] = '\0';
        return;
    }
    crash_begin(name);
    snprintf(dir, sizeof(dir), "%s/data", mounted);
    if (!crash_copy_database(prepared, dir)) {
        crash_fault("cannot copy");
    }
    crash_daemon_init(&daemon, dir, false);
    /* Its log is not on the small disk, the port file had better fit. */
    snprintf(daemon.log, sizeof(daemon.log), "%s/small.log", root_dir);
    if (crash_start(&daemon, NULL)) {
        crash_http_init(&http, daemon.port);
        use_full_disk(&daemon, &http);
        crash_http_free(&http);
        if (!crash_stop(&daemon, 10000)) {
            crash_fault("it did not stop well: status %x", daemon.status);
        }
        (void)crash_check_copy(daemon.dir);
    } else {
        crash_fault("it did not start");
    }
    if (crash_failing()) {
        crash_show_log(&daemon);
    }
    unmount();
    crash_end();
}

int
main(void)
{
    const char *tier = getenv("KINDRED_TIER");

    full = tier != NULL && strcmp(tier, "full") == 0;
    log_setup(LOG_ERROR, false);
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    crash_make_dir(root_dir, sizeof(root_dir));
    (void)atexit(unmount);
    prepare();
    if (crash_failures() == 0) {
        test_second_daemon();
        test_damage();
        test_newer();
        test_flips(full ? 300 : 10);
        test_full_disk();
        test_sigterm(full ? 20 : 1);
    }
    crash_remove_dir(root_dir);
    return crash_failures() > 0;
}
