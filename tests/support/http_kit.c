#include "http_kit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <curl/curl.h>

struct kit_daemon *kit_table_daemon;

static void
pause_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    (void)nanosleep(&t, NULL);
}

/* ---- the daemon ---------------------------------------------------------- */

static void
run_daemon(const struct kit_daemon *daemon, const char *const *args)
{
    const char *build = getenv("KINDRED_BUILD");
    char program[512];
    char data[128];
    char port_file[128];
    const char *argv[64];
    size_t n = 0;
    (void)snprintf(program, sizeof(program), "%s/kindredd",
        build ? build : "build/release");
    (void)snprintf(data, sizeof(data), "%s/data", daemon->dir);
    (void)snprintf(port_file, sizeof(port_file), "%s/port", daemon->dir);
    argv[n++] = program;
    argv[n++] = "--listen";
    argv[n++] = "127.0.0.1:0";
    argv[n++] = "--data";
    argv[n++] = data;
    argv[n++] = "--port-file";
    argv[n++] = port_file;
    for (size_t i = 0; args && args[i] && n < 62; i++)
        argv[n++] = args[i];
    argv[n] = NULL;
    int fd = open(daemon->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd >= 0)
        (void)dup2(fd, 2);
    union {
        const char **in;
        char **out;
    } both = {argv};
    (void)execv(program, both.out);
    _exit(127);
}

bool
kit_start_again(struct kit_daemon *daemon, const char *const *args)
{
    char port_file[128];
    (void)snprintf(port_file, sizeof(port_file), "%s/port", daemon->dir);
    (void)unlink(port_file);
    (void)snprintf(daemon->log, sizeof(daemon->log), "%s/stderr", daemon->dir);
    daemon->port = 0;
    daemon->exit_code = 0;
    (void)fflush(NULL);
    daemon->pid = fork();
    if (daemon->pid == 0)
        run_daemon(daemon, args);
    for (int i = 0; i < 3000 && daemon->port == 0; i++) {
        int status;
        if (waitpid(daemon->pid, &status, WNOHANG) == daemon->pid) {
            daemon->exit_code =
                WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
            daemon->pid = 0;
            return false;
        }
        FILE *f = fopen(port_file, "re");
        if (f) {
            if (fscanf(f, "%u", &daemon->port) != 1)
                daemon->port = 0;
            (void)fclose(f);
        }
        if (daemon->port == 0)
            pause_ms(10);
    }
    (void)snprintf(
        daemon->url, sizeof(daemon->url), "http://127.0.0.1:%u", daemon->port);
    return daemon->port != 0;
}

bool
kit_start(struct kit_daemon *daemon, const char *const *args)
{
    memset(daemon, 0, sizeof(*daemon));
    (void)snprintf(
        daemon->dir, sizeof(daemon->dir), "/tmp/kindred-http-XXXXXX");
    if (!mkdtemp(daemon->dir))
        return false;
    return kit_start_again(daemon, args);
}

int
kit_stop(struct kit_daemon *daemon)
{
    int status = 0;
    if (daemon->pid <= 0)
        return daemon->exit_code;
    (void)kill(daemon->pid, SIGTERM);
    for (int i = 0; i < 6000; i++) {
        if (waitpid(daemon->pid, &status, WNOHANG) == daemon->pid) {
            daemon->pid = 0;
            break;
        }
        pause_ms(5);
    }
    if (daemon->pid != 0) { /* it does not stop: that is a failure */
        (void)kill(daemon->pid, SIGKILL);
        (void)waitpid(daemon->pid, &status, 0);
        daemon->pid = 0;
    }
    daemon->exit_code =
        WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    return daemon->exit_code;
}

static void
remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL) {
        char inner[1024];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        (void)snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
        if (unlink(inner) != 0)
            remove_tree(inner);
    }
    if (dir)
        (void)closedir(dir);
    (void)rmdir(path);
}

void
kit_clean(struct kit_daemon *daemon)
{
    (void)kit_stop(daemon);
    if (daemon->dir[0] != '\0')
        remove_tree(daemon->dir);
    daemon->dir[0] = '\0';
}

/* ---- calls --------------------------------------------------------------- */

struct seen {
    char method[8];
    char path[200];
    long status;
};
static struct seen *seen;
static size_t n_seen;

static void
remember(const struct kit_call *call, const char *method, long status)
{
    struct seen *more = realloc(seen, (n_seen + 1) * sizeof(*seen));
    if (!more)
        return;
    seen = more;
    (void)snprintf(
        seen[n_seen].method, sizeof(seen[n_seen].method), "%s", method);
    (void)snprintf(seen[n_seen].path, sizeof(seen[n_seen].path), "%.*s",
        (int)strcspn(call->path, "?"), call->path);
    seen[n_seen].status = status;
    n_seen++;
}

static bool
fits(const char *pattern, const char *path)
{
    while (*pattern && *path) {
        if (*pattern == '{') {
            pattern += strcspn(pattern, "/");
            path += strcspn(path, "/");
        } else if (*pattern++ != *path++) {
            return false;
        }
    }
    return *pattern == '\0' && *path == '\0';
}

bool
kit_saw(const char *method, const char *pattern, long status)
{
    for (size_t i = 0; i < n_seen; i++)
        if (seen[i].status == status &&
            strcasecmp(seen[i].method, method) == 0 &&
            fits(pattern, seen[i].path))
            return true;
    return false;
}

struct text {
    char *s;
    size_t len;
};

static size_t
take(char *data, size_t size, size_t n, void *to)
{
    struct text *text = to;
    char *more = realloc(text->s, text->len + size * n + 1);
    if (!more)
        return 0;
    memcpy(more + text->len, data, size * n);
    text->s = more;
    text->len += size * n;
    text->s[text->len] = '\0';
    return size * n;
}

struct source {
    const char *s;
    size_t left;
};

static size_t
give(char *out, size_t size, size_t n, void *from)
{
    struct source *source = from;
    size_t max = size * n < source->left ? size * n : source->left;
    memcpy(out, source->s, max);
    source->s += max;
    source->left -= max;
    return max;
}

struct kit_reply
kit_do(const struct kit_daemon *daemon, const struct kit_call *call)
{
    static CURL *curl;
    struct kit_reply reply = {0};
    struct text body = {0};
    struct text headers = {0};
    char url[4096];
    char type[128];
    if (!curl)
        curl = curl_easy_init();
    curl_easy_reset(curl);
    (void)snprintf(url, sizeof(url), "%s%s", daemon->url, call->path);
    const char *method =
        call->method ? call->method : (call->body ? "POST" : "GET");
    size_t len = call->body_len ? call->body_len
                 : call->body   ? strlen(call->body)
                                : 0;
    struct source source = {call->body, len};
    struct curl_slist *list = NULL;
    if (call->body) {
        (void)snprintf(type, sizeof(type), "Content-Type: %s",
            call->type ? call->type : "application/json");
        list = curl_slist_append(list, type);
        list = curl_slist_append(list, "Expect:");
    }
    for (size_t i = 0; i < 4 && call->headers[i]; i++)
        list = curl_slist_append(list, call->headers[i]);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 120L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &body);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &headers);
    if (call->body && call->chunked) {
        curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(curl, CURLOPT_READFUNCTION, give);
        curl_easy_setopt(curl, CURLOPT_READDATA, &source);
        list = curl_slist_append(list, "Transfer-Encoding: chunked");
    } else if (call->body) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, call->body);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)len);
    }
    if (strcmp(method, "HEAD") == 0)
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    else
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &reply.status);
    if (code != CURLE_OK)
        (void)fprintf(stderr, "%s %s: %s\n", method, call->path,
            curl_easy_strerror(code));
    curl_slist_free_all(list);
    reply.body = body.s ? body.s : calloc(1, 1);
    reply.len = body.len;
    reply.headers = headers.s ? headers.s : calloc(1, 1);
    if (reply.body[0] == '{' || reply.body[0] == '[')
        reply.json = json_loads(reply.body, JSON_DISABLE_EOF_CHECK, NULL);
    remember(call, method, reply.status);
    return reply;
}

void
kit_reply_free(struct kit_reply *reply)
{
    free(reply->body);
    free(reply->headers);
    if (reply->json)
        json_decref(reply->json);
    memset(reply, 0, sizeof(*reply));
}

const char *
kit_header(const struct kit_reply *reply, const char *name)
{
    static char value[512];
    size_t len = strlen(name);
    for (const char *line = reply->headers; line && *line;) {
        if (strncasecmp(line, name, len) == 0 && line[len] == ':') {
            const char *from = line + len + 1;
            while (*from == ' ')
                from++;
            size_t n = strcspn(from, "\r\n");
            (void)snprintf(value, sizeof(value), "%.*s", (int)n, from);
            return value;
        }
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return NULL;
}

struct kit_reply
kit_get(const struct kit_daemon *daemon, const char *path)
{
    const struct kit_call call = {.path = path};
    return kit_do(daemon, &call);
}

struct kit_reply
kit_send(const struct kit_daemon *daemon, const char *method, const char *path,
    const char *body)
{
    const struct kit_call call = {.method = method, .path = path, .body = body};
    return kit_do(daemon, &call);
}

json_t *
kit_at(json_t *root, const char *pointer)
{
    while (root && *pointer == '/') {
        char key[128];
        size_t n = strcspn(pointer + 1, "/");
        (void)snprintf(key, sizeof(key), "%.*s", (int)n, pointer + 1);
        pointer += n + 1;
        root = json_is_array(root)
                   ? json_array_get(root, strtoul(key, NULL, 10))
                   : json_object_get(root, key);
    }
    return root;
}

const char *
kit_wait_job(const struct kit_daemon *daemon, long long job, int seconds_max)
{
    static char state[32];
    char path[64];
    (void)snprintf(path, sizeof(path), "/v1/jobs/%lld", job);
    for (int i = 0; i < seconds_max * 20; i++) {
        struct kit_reply reply = kit_get(daemon, path);
        const char *now = json_string_value(kit_at(reply.json, "/state"));
        (void)snprintf(state, sizeof(state), "%s", now ? now : "?");
        kit_reply_free(&reply);
        if (strcmp(state, "queued") != 0 && strcmp(state, "running") != 0)
            return state;
        pause_ms(50);
    }
    return state;
}

char *
kit_raw(const struct kit_daemon *daemon, const char *bytes, size_t len,
    size_t *out_len)
{
    struct text text = {calloc(1, 1), 0};
    struct sockaddr_in to = {.sin_family = AF_INET};
    struct timeval limit = {.tv_sec = 20};
    to.sin_port = htons((uint16_t)daemon->port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (fd >= 0 && connect(fd, (const struct sockaddr *)(const void *)&to,
                       sizeof(to)) == 0) {
        size_t at = 0;
        ssize_t n = 1;
        while (at < len && n > 0) {
            n = send(fd, bytes + at, len - at, MSG_NOSIGNAL);
            at += n > 0 ? (size_t)n : 0;
        }
        char piece[4096];
        while ((n = recv(fd, piece, sizeof(piece), 0)) > 0)
            (void)take(piece, 1, (size_t)n, &text);
    }
    if (fd >= 0)
        (void)close(fd);
    if (out_len)
        *out_len = text.len;
    return text.s;
}

/* ---- tables -------------------------------------------------------------- */

static void
run_case(void **state)
{
    const struct kit_case *one = *state;
    struct kit_reply reply = kit_do(kit_table_daemon, &one->call);
    const char *pointer =
        json_string_value(kit_at(reply.json, "/errors/0/pointer"));
    bool right = reply.status == one->status;
    if (one->pointer)
        right = right && pointer && strcmp(pointer, one->pointer) == 0;
    if (one->contains)
        right = right && strstr(reply.body, one->contains) != NULL;
    /* Every refusal is a problem document. */
    const char *type = kit_header(&reply, "Content-Type");
    bool problem = type && strncmp(type, "application/problem+json", 24) == 0;
    if (reply.status >= 400 && strcmp(one->call.path, "/v1/embeddings") != 0 &&
        !(one->call.method && strcmp(one->call.method, "HEAD") == 0))
        right =
            right && problem &&
            json_integer_value(kit_at(reply.json, "/status")) == reply.status;
    if (!right)
        print_error("%s: got %ld, pointer %s: %.300s\n", one->name,
            reply.status, pointer ? pointer : "none", reply.body);
    kit_reply_free(&reply);
    assert_true(right);
}

int
kit_run_cases(const char *group, const struct kit_case *cases, size_t n_cases)
{
    struct CMUnitTest *tests = calloc(n_cases, sizeof(*tests));
    if (!tests)
        return 1;
    for (size_t i = 0; i < n_cases; i++) {
        union {
            const struct kit_case *in;
            void *out;
        } both = {&cases[i]};
        tests[i].name = cases[i].name;
        tests[i].test_func = run_case;
        tests[i].initial_state = both.out;
    }
    int failed = _cmocka_run_group_tests(group, tests, n_cases, NULL, NULL);
    free(tests);
    return failed;
}
