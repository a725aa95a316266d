#include "tests/support/crash_kit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <curl/curl.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/rng.h"
#include "store/store.h"

#define READY_MS 30000
#define CALL_SECONDS 40L

/* ---- counting ------------------------------------------------------------ */

static struct {
    const char *name;
    int faults;
    int failures;
    int64_t started_ms;
} test;

void
crash_begin(const char *name)
{
    test.name = name;
    test.faults = 0;
    test.started_ms = clock_mono_ms();
}

void
crash_fault(const char *format, ...)
{
    va_list args;

    test.faults++;
    if (test.faults > 20) {
        return;
    }
    printf("    %s: ", test.name != NULL ? test.name : "");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
}

void
crash_end(void)
{
    printf("%s %s (%.1f s)\n", test.faults > 0 ? "FAILED" : "ok    ", test.name,
        (double)(clock_mono_ms() - test.started_ms) / 1000);
    fflush(stdout);
    test.failures += test.faults > 0;
    test.faults = 0;
}

void
crash_skip(const char *name, const char *why)
{
    printf("skipped %s: %s\n", name, why);
    fflush(stdout);
}

bool
crash_failing(void)
{
    return test.faults > 0;
}

int
crash_failures(void)
{
    return test.failures;
}

/* ---- the daemon ---------------------------------------------------------- */

void
crash_daemon_init(struct crash_daemon *daemon, const char *dir, bool failpoints)
{
    const char *build =
        getenv(failpoints ? "KINDRED_CRASH_BUILD" : "KINDRED_BUILD");

    if (build == NULL) {
        build = failpoints ? "build/failpoints" : "build/release";
    }
    *daemon = (struct crash_daemon){.pid = 0};
    snprintf(daemon->dir, sizeof(daemon->dir), "%s", dir);
    snprintf(daemon->program, sizeof(daemon->program), "%s/kindredd", build);
    snprintf(daemon->log, sizeof(daemon->log), "%s.log", dir);
}

static void
become_daemon(const struct crash_daemon *daemon, const char *failpoint)
{
    char port_file[260];
    const char *argv[32];
    size_t n = 0;

    /* Not to outlive a test that was killed. */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(port_file, sizeof(port_file), "%s.port", daemon->log);
    argv[n++] = daemon->program;
    argv[n++] = "--listen";
    argv[n++] = "127.0.0.1:0";
    argv[n++] = "--data";
    argv[n++] = daemon->dir;
    argv[n++] = "--port-file";
    argv[n++] = port_file;
    for (size_t i = 0; i < 8 && daemon->args[i] != NULL; i++) {
        argv[n++] = daemon->args[i];
    }
    argv[n] = NULL;
    if (failpoint != NULL) {
        (void)setenv("KINDRED_FAILPOINT", failpoint, 1);
    } else {
        (void)unsetenv("KINDRED_FAILPOINT");
    }
    int fd = open(daemon->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd >= 0) {
        (void)dup2(fd, 2);
    }
    union {
        const char **in;
        char **out;
    } both = {argv};
    (void)execv(daemon->program, both.out);
    _exit(127);
}

void
crash_launch(struct crash_daemon *daemon, const char *failpoint)
{
    char port_file[260];

    snprintf(port_file, sizeof(port_file), "%s.port", daemon->log);
    (void)unlink(port_file);
    daemon->port = 0;
    daemon->status = 0;
    fflush(NULL);
    daemon->pid = fork();
    if (daemon->pid == 0) {
        become_daemon(daemon, failpoint);
    }
    if (daemon->pid < 0) {
        daemon->pid = 0;
    }
}

bool
crash_await_end(struct crash_daemon *daemon, int64_t ms)
{
    int64_t until = clock_mono_ms() + ms;

    while (daemon->pid > 0) {
        if (waitpid(daemon->pid, &daemon->status, WNOHANG) == daemon->pid) {
            daemon->pid = 0;
        } else if (clock_mono_ms() >= until) {
            return false;
        } else {
            clock_sleep_ms(2);
        }
    }
    return true;
}

bool
crash_await_ready(struct crash_daemon *daemon)
{
    char port_file[260];
    int64_t until = clock_mono_ms() + READY_MS;

    snprintf(port_file, sizeof(port_file), "%s.port", daemon->log);
    while (!crash_await_end(daemon, 3)) {
        FILE *f = fopen(port_file, "r");
        if (f != NULL) {
            int got = fscanf(f, "%u", &daemon->port);
            (void)fclose(f);
            if (got == 1) {
                return true;
            }
            daemon->port = 0;
        }
        if (clock_mono_ms() > until) {
            crash_fault(
                "the daemon was not ready within %d s", READY_MS / 1000);
            crash_kill(daemon);
            return false;
        }
    }
    return false;
}

bool
crash_start(struct crash_daemon *daemon, const char *failpoint)
{
    crash_launch(daemon, failpoint);
    return crash_await_ready(daemon);
}

void
crash_kill(struct crash_daemon *daemon)
{
    if (daemon->pid > 0) {
        (void)kill(daemon->pid, SIGKILL);
        (void)waitpid(daemon->pid, &daemon->status, 0);
        daemon->pid = 0;
    }
}

bool
crash_stop(struct crash_daemon *daemon, int64_t ms)
{
    if (daemon->pid > 0) {
        (void)kill(daemon->pid, SIGTERM);
        if (!crash_await_end(daemon, ms)) {
            crash_kill(daemon);
            return false;
        }
    }
    return crash_exited(daemon, 0);
}

bool
crash_was_killed(const struct crash_daemon *daemon)
{
    return WIFSIGNALED(daemon->status) && WTERMSIG(daemon->status) == SIGKILL;
}

bool
crash_exited(const struct crash_daemon *daemon, int code)
{
    return WIFEXITED(daemon->status) && WEXITSTATUS(daemon->status) == code;
}

/* The file from offset on; malloc'd. */
static char *
read_log(const struct crash_daemon *daemon, long offset)
{
    FILE *f = fopen(daemon->log, "r");
    char *text = NULL;

    if (f == NULL) {
        return NULL;
    }
    (void)fseek(f, 0, SEEK_END);
    long size = ftell(f);
    if (size > offset && (text = malloc((size_t)(size - offset) + 1)) != NULL) {
        (void)fseek(f, offset, SEEK_SET);
        size_t n = fread(text, 1, (size_t)(size - offset), f);
        text[n] = '\0';
    }
    (void)fclose(f);
    return text;
}

void
crash_show_log(const struct crash_daemon *daemon)
{
    long size = crash_log_size(daemon);
    char *text = read_log(daemon, size > 60000 ? size - 60000 : 0);
    size_t len = text != NULL ? strlen(text) : 0;
    char *report = text != NULL ? strstr(text, "Sanitizer") : NULL;

    /* What a sanitizer says begins far above the end. */
    if (report != NULL) {
        report[strlen(report) > 4000 ? 4000 : strlen(report)] = '\0';
    } else if (text != NULL) {
        report = text + (len > 700 ? len - 700 : 0);
    }
    for (char *line = report; line != NULL && *line != '\0';) {
        size_t n = strcspn(line, "\n");
        printf("        | %.*s\n", (int)n, line);
        line += n + (line[n] == '\n');
    }
    free(text);
    fflush(stdout);
}

long
crash_log_size(const struct crash_daemon *daemon)
{
    struct stat st;

    return stat(daemon->log, &st) == 0 ? (long)st.st_size : 0;
}

bool
crash_log_has(const struct crash_daemon *daemon, long offset, const char *text)
{
    char *log = read_log(daemon, offset);
    bool has = log != NULL && strstr(log, text) != NULL;

    free(log);
    return has;
}

/* ---- folders ------------------------------------------------------------- */

void
crash_make_dir(char *dir, size_t n)
{
    const char *tmp = getenv("TMPDIR");

    snprintf(dir, n, "%s/kindred-crash-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL) {
        fprintf(stderr, "cannot make %s: %s\n", dir, strerror(errno));
        exit(1);
    }
}

void
crash_remove_dir(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        char inner[1024];
        if (strcmp(entry->d_name, ".") == 0 ||
            strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
        if (unlink(inner) != 0) {
            crash_remove_dir(inner);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    (void)rmdir(path);
}

bool
crash_copy_file(const char *from, const char *to)
{
    static char bytes[65536];
    FILE *in = fopen(from, "rb");
    FILE *out = in != NULL ? fopen(to, "wb") : NULL;
    size_t n;
    bool ok = in != NULL && out != NULL;

    while (ok && (n = fread(bytes, 1, sizeof(bytes), in)) > 0) {
        ok = fwrite(bytes, 1, n, out) == n;
    }
    if (in != NULL) {
        (void)fclose(in);
    }
    if (out != NULL) {
        ok = fclose(out) == 0 && ok;
    }
    return ok;
}

bool
crash_copy_database(const char *from, const char *to)
{
    static const char *const names[] = {"kindred.db", "kindred.db-wal"};
    bool ok = true;

    (void)mkdir(to, 0700);
    for (size_t i = 0; i < 2; i++) {
        char a[512], b[512];
        struct stat st;
        snprintf(a, sizeof(a), "%s/%s", from, names[i]);
        snprintf(b, sizeof(b), "%s/%s", to, names[i]);
        if (stat(a, &st) == 0) {
            ok = crash_copy_file(a, b) && ok;
        } else {
            ok = ok && i == 1; /* no log: it was closed in order */
        }
    }
    return ok;
}

bool
crash_check_copy(const char *dir)
{
    char copy[240];
    struct store *store = NULL;
    struct fault fault = {0};
    bool ok;

    snprintf(copy, sizeof(copy), "%s.copy", dir);
    crash_remove_dir(copy);
    ok = crash_copy_database(dir, copy) &&
         store_open(&store, copy, NULL, &fault) == OK &&
         store_check(store, &fault) == OK;
    store_close(store);
    if (!ok) {
        crash_fault("the file after the crash: %s", fault.detail);
    }
    crash_remove_dir(copy);
    return ok;
}

/* ---- requests ------------------------------------------------------------ */

void
crash_http_init(struct crash_http *http, unsigned port)
{
    *http = (struct crash_http){.curl = curl_easy_init(), .port = port};
}

void
crash_http_free(struct crash_http *http)
{
    curl_easy_cleanup(http->curl);
    free(http->body);
    *http = (struct crash_http){.curl = NULL};
}

static size_t
take(char *data, size_t size, size_t n, void *arg)
{
    struct crash_http *http = arg;
    size_t more = size * n;

    if (http->len + more + 1 > http->cap) {
        size_t cap = 2 * (http->len + more) + 4096;
        char *body = realloc(http->body, cap);
        if (body == NULL) {
            return 0;
        }
        http->body = body;
        http->cap = cap;
    }
    memcpy(http->body + http->len, data, more);
    http->len += more;
    http->body[http->len] = '\0';
    return more;
}

long
crash_call(struct crash_http *http, const char *method, const char *path,
    const char *body)
{
    char url[512];
    long status = 0;
    struct curl_slist *list = NULL;
    CURL *curl = http->curl;

    http->len = 0;
    if (http->body != NULL) {
        http->body[0] = '\0';
    }
    (void)take("", 1, 0, http);
    curl_easy_reset(curl);
    snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", http->port, path);
    if (body != NULL) {
        list = curl_slist_append(
            list, body[0] == '\n' ? "Content-Type: application/x-ndjson"
                                  : "Content-Type: application/json");
        list = curl_slist_append(list, "Expect:");
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body + (body[0] == '\n'));
    }
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, CALL_SECONDS);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, http);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
    if (curl_easy_perform(curl) == CURLE_OK) {
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    }
    curl_slist_free_all(list);
    return status;
}

json_t *
crash_json(const struct crash_http *http)
{
    return json_loadb(http->body, http->len, 0, NULL);
}

json_t *
crash_at(json_t *root, const char *pointer)
{
    while (root != NULL && *pointer == '/') {
        char key[64];
        size_t n = strcspn(pointer + 1, "/");
        snprintf(key, sizeof(key), "%.*s", (int)n, pointer + 1);
        pointer += n + 1;
        root = json_is_array(root)
                   ? json_array_get(root, strtoul(key, NULL, 10))
                   : json_object_get(root, key);
    }
    return root;
}

int64_t
crash_int(json_t *root, const char *pointer)
{
    json_t *at = crash_at(root, pointer);

    return json_is_integer(at) ? (int64_t)json_integer_value(at) : -1;
}

const char *
crash_str(json_t *root, const char *pointer)
{
    const char *s = json_string_value(crash_at(root, pointer));

    return s != NULL ? s : "";
}

void
crash_add(struct crash_text *text, const char *format, ...)
{
    va_list args;

    if (text->len + 1024 > text->cap) {
        size_t cap = 2 * text->cap + 4096;
        char *s = realloc(text->s, cap);
        if (s == NULL) {
            abort();
        }
        text->s = s;
        text->cap = cap;
    }
    va_start(args, format);
    int n = vsnprintf(text->s + text->len, 1024, format, args);
    va_end(args);
    if (n < 0 || n >= 1024) {
        abort();
    }
    text->len += (size_t)n;
}

/* ---- content ------------------------------------------------------------- */

void
crash_words(char out[CRASH_TEXT_MAX], uint64_t key, uint64_t revision)
{
    static const char consonants[] = "bdfgklmnprstvz";
    static const char vowels[] = "aeiou";
    struct rng rng;
    size_t n = 0;

    rng_seed_stream(&rng, key, revision);
    for (int word = 0; word < 7; word++) {
        for (int i = 0; i < 4; i++) {
            out[n++] = consonants[rng_below(&rng, sizeof(consonants) - 1)];
            out[n++] = vowels[rng_below(&rng, sizeof(vowels) - 1)];
        }
        out[n++] = word < 6 ? ' ' : '\0';
    }
}

bool
crash_fill(struct crash_http *http, int n, int buckets)
{
    struct crash_text text = {0};
    char words[CRASH_TEXT_MAX], anchor[CRASH_TEXT_MAX];
    long status;

    crash_add(&text,
        "{\"dims\":%d,\"encoder_config\":{\"buckets\":%d},"
        "\"train\":{\"min_pairs\":10,\"min_groups\":2}}",
        CRASH_DIMS, buckets);
    status = crash_call(http, "PUT", CRASH_COLLECTION, text.s);
    text.len = 0;
    if (status == 201) {
        crash_add(&text, "\n");
        for (int i = 0; i < n; i++) {
            crash_words(words, CRASH_BASE_KEY + (uint64_t)i, 1);
            crash_add(&text, "{\"id\":\"b%d\",\"text\":\"%s\"}\n", i, words);
        }
        status = crash_call(http, "POST", CRASH_COLLECTION "/items", text.s);
    }
    if (status == 200 && strstr(http->body, "\"errors\":false") != NULL) {
        text.len = 0;
        crash_add(&text, "\n");
        for (int i = 0; i < n; i++) {
            /* The anchor says the same in other words, but for one. */
            crash_words(words, CRASH_BASE_KEY + (uint64_t)i, 1);
            crash_words(anchor, CRASH_BASE_KEY + (uint64_t)i, 2);
            crash_add(&text,
                "{\"anchor\":{\"text\":\"%s %.8s\"},"
                "\"positive\":{\"id\":\"b%d\"},\"group\":\"g%d\"}\n",
                anchor, words, i, i);
        }
        status = crash_call(http, "POST", CRASH_COLLECTION "/pairs", text.s);
    }
    bool ok = status == 200 && strstr(http->body, "\"errors\":false") != NULL;
    if (!ok) {
        crash_fault("filling the collection: %ld %.200s", status, http->body);
    }
    free(text.s);
    return ok;
}

bool
crash_settle(struct crash_http *http, int64_t ms)
{
    int64_t until = clock_mono_ms() + ms;

    for (;;) {
        bool busy = false;
        if (crash_call(http, "GET", "/v1/jobs?limit=20", NULL) != 200) {
            crash_fault("listing jobs: %.200s", http->body);
            return false;
        }
        json_t *root = crash_json(http);
        for (size_t i = 0; i < json_array_size(crash_at(root, "/jobs")); i++) {
            const char *state =
                crash_str(json_array_get(crash_at(root, "/jobs"), i), "/state");
            busy = busy || strcmp(state, "running") == 0 ||
                   strcmp(state, "queued") == 0;
        }
        json_decref(root);
        if (!busy) {
            return true;
        }
        if (clock_mono_ms() > until) {
            crash_fault("a job does not end within %lld ms", (long long)ms);
            return false;
        }
        clock_sleep_ms(15);
    }
}

bool
crash_weights(struct crash_http *http, int64_t generation, char hex[65])
{
    char path[120];
    uint8_t digest[SHA256_BYTES];

    snprintf(path, sizeof(path), CRASH_COLLECTION "/generations/%lld/weights",
        (long long)generation);
    if (crash_call(http, "GET", path, NULL) != 200 || http->len == 0) {
        return false;
    }
    sha256_of(http->body, http->len, digest);
    sha256_hex(digest, hex);
    return true;
}

int64_t
crash_live(struct crash_http *http)
{
    int64_t live = -1;

    if (crash_call(http, "GET", CRASH_COLLECTION, NULL) == 200) {
        json_t *root = crash_json(http);
        live = crash_int(root, "/generation");
        json_decref(root);
    }
    return live;
}

void
crash_check_lineage(struct crash_http *http, bool at_rest)
{
    int n_live = 0, n_previous = 0, n_building = 0;
    int64_t last = 0, live = -1, named, previous, named_previous;

    if (crash_call(http, "GET", CRASH_COLLECTION, NULL) != 200) {
        crash_fault("the collection: %.200s", http->body);
        return;
    }
    json_t *root = crash_json(http);
    named = crash_int(root, "/generation");
    named_previous = crash_int(root, "/previous_generation");
    if (at_rest && (crash_int(root, "/building_generation") > 0 ||
                       crash_int(root, "/running_job") > 0)) {
        crash_fault("without a job the collection says: %.900s", http->body);
    }
    json_decref(root);
    if (crash_call(http, "GET", CRASH_COLLECTION "/generations", NULL) != 200) {
        crash_fault("the generations: %.200s", http->body);
        return;
    }
    root = crash_json(http);
    json_t *all = crash_at(root, "/generations");
    previous = -1;
    for (size_t i = 0; i < json_array_size(all); i++) {
        json_t *one = json_array_get(all, i);
        const char *state = crash_str(one, "/state");
        int64_t number = crash_int(one, "/generation");
        bool whole = json_is_true(crash_at(one, "/whole"));
        if (number <= last) {
            crash_fault(
                "generation %lld is listed out of order", (long long)number);
        }
        last = number;
        if (strcmp(state, "live") == 0) {
            n_live++;
            live = number;
        } else if (strcmp(state, "previous") == 0) {
            n_previous++;
            previous = number;
        } else if (strcmp(state, "building") == 0) {
            n_building++;
        } else if (strcmp(state, "retired") != 0 &&
                   strcmp(state, "refused") != 0 &&
                   strcmp(state, "discarded") != 0) {
            crash_fault("generation %lld is \"%s\"", (long long)number, state);
        }
        if (!whole &&
            (strcmp(state, "live") == 0 || strcmp(state, "previous") == 0)) {
            crash_fault("generation %lld is %s but not whole",
                (long long)number, state);
        }
    }
    json_decref(root);
    if (n_live != 1 || n_previous > 1 || n_building > 1 ||
        (at_rest && n_building > 0)) {
        crash_fault("%d live, %d previous, %d building generations%s", n_live,
            n_previous, n_building, at_rest ? " at rest" : "");
    }
    if (at_rest && (live != named || previous != named_previous)) {
        crash_fault("live %lld (named %lld), previous %lld (named %lld)",
            (long long)live, (long long)named, (long long)previous,
            (long long)named_previous);
    }
}

bool
crash_backup(struct crash_http *http, char *name, size_t n)
{
    char path[64];
    const char *state;
    int64_t until = clock_mono_ms() + 20000;
    bool ok = false, running = true;

    if (crash_call(http, "POST", "/v1/admin/backup", NULL) != 202) {
        crash_fault("backup: %.200s", http->body);
        return false;
    }
    json_t *root = crash_json(http);
    snprintf(
        path, sizeof(path), "/v1/jobs/%lld", (long long)crash_int(root, "/id"));
    json_decref(root);
    while (running && clock_mono_ms() < until) {
        clock_sleep_ms(10);
        if (crash_call(http, "GET", path, NULL) != 200) {
            break;
        }
        root = crash_json(http);
        state = crash_str(root, "/state");
        ok = strcmp(state, "done") == 0;
        running = strcmp(state, "running") == 0 || strcmp(state, "queued") == 0;
        snprintf(name, n, "%s", crash_str(root, "/result/name"));
        json_decref(root);
    }
    if (!ok) {
        crash_fault("the backup did not end well: %.300s", http->body);
    }
    return ok;
}
