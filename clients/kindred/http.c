#include "http.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "cli.h"
#include "term.h"

#define PAGE 1000 /* the most that the service gives at once */
#define CONNECT_TIMEOUT_MS 10000L
#define USER_AGENT "kindred/" KINDRED_VERSION

struct http {
    CURL *curl;
    char *url;
    char *authorization; /* a whole header line, or NULL */
    char error[CURL_ERROR_SIZE];
};

/* What curl's callbacks of one exchange work on. */
struct exchange {
    struct http *http;
    struct answer *answer;
    const struct http_stream *stream; /* NULL for a plain call */
    const char *body;
    size_t body_left;
    bool stopped; /* the reader of the answer wants no more */
    bool aborted; /* the maker of the body gave up */
};

void
answer_init(struct answer *answer)
{
    memset(answer, 0, sizeof(*answer));
    buf_init(&answer->body, HTTP_ANSWER_MAX);
}

void
answer_release(struct answer *answer)
{
    buf_release(&answer->body);
}

int
http_open(struct http **out, const char *url, const char *key)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0) {
        complain("libcurl does not start");
        return EXIT_REFUSED;
    }
    struct http *http = must_calloc(1, sizeof(*http));
    http->url = must_strdup(url);
    for (size_t n = strlen(http->url); n > 0 && http->url[n - 1] == '/'; n--)
        http->url[n - 1] = '\0';
    if (key != NULL && key[0] != '\0') {
        size_t n = strlen(key) + sizeof("Authorization: Bearer ");
        http->authorization = must_alloc(n, 1);
        snprintf(http->authorization, n, "Authorization: Bearer %s", key);
    }
    http->curl = curl_easy_init();
    if (http->curl == NULL) {
        complain("libcurl does not start");
        http_close(http);
        return EXIT_REFUSED;
    }
    *out = http;
    return EXIT_DONE;
}

void
http_close(struct http *http)
{
    if (http == NULL)
        return;
    if (http->curl != NULL)
        curl_easy_cleanup(http->curl);
    mem_free(http->url);
    mem_free(http->authorization);
    mem_free(http);
    curl_global_cleanup();
}

const char *
http_url(const struct http *http)
{
    return http->url;
}

/* Copy a header's value when the line is that header. */
static void
header_take(const char *line, size_t n, const char *name, char *to, size_t max)
{
    size_t len = strlen(name);
    if (n <= len || strncasecmp(line, name, len) != 0 || line[len] != ':')
        return;
    line += len + 1;
    n -= len + 1;
    while (n > 0 && (*line == ' ' || *line == '\t')) {
        line++;
        n--;
    }
    while (n > 0 && (line[n - 1] == '\r' || line[n - 1] == '\n'))
        n--;
    if (n >= max)
        n = max - 1;
    memcpy(to, line, n);
    to[n] = '\0';
}

static size_t
on_header(char *line, size_t size, size_t n, void *arg)
{
    struct exchange *ex = arg;
    struct answer *answer = ex->answer;
    n *= size;
    header_take(
        line, n, "Location", answer->location, sizeof(answer->location));
    header_take(line, n, "X-Request-Id", answer->request_id,
        sizeof(answer->request_id));
    header_take(line, n, "Retry-After", answer->retry_after,
        sizeof(answer->retry_after));
    return n;
}

static size_t
on_write(char *bytes, size_t size, size_t n, void *arg)
{
    struct exchange *ex = arg;
    n *= size;
    long status = 0;
    curl_easy_getinfo(ex->http->curl, CURLINFO_RESPONSE_CODE, &status);
    if (ex->stream != NULL && ex->stream->write != NULL && status < 300) {
        if (!ex->stream->write(ex->stream->arg, bytes, n)) {
            ex->stopped = true;
            return 0;
        }
        return n;
    }
    buf_add(&ex->answer->body, bytes, n);
    return buf_status(&ex->answer->body) == OK ? n : 0;
}

static size_t
on_read(char *out, size_t size, size_t n, void *arg)
{
    struct exchange *ex = arg;
    n *= size;
    if (ex->stream != NULL) {
        size_t got = ex->stream->read(ex->stream->arg, out, n);
        if (got == HTTP_READ_ABORT) {
            ex->aborted = true;
            return CURL_READFUNC_ABORT;
        }
        return got;
    }
    if (n > ex->body_left)
        n = ex->body_left;
    memcpy(out, ex->body, n);
    ex->body += n;
    ex->body_left -= n;
    return n;
}

static int
on_tick(void *arg, curl_off_t dl_total, curl_off_t dl, curl_off_t ul_total,
    curl_off_t ul)
{
    struct exchange *ex = arg;
    (void)dl_total;
    (void)dl;
    (void)ul_total;
    (void)ul;
    if (ex->stream->tick != NULL)
        ex->stream->tick(ex->stream->arg);
    return 0;
}

static struct curl_slist *
header_add(struct curl_slist *list, const char *name, const char *value)
{
    char line[600];
    snprintf(line, sizeof(line), "%s: %s", name, value);
    struct curl_slist *longer = curl_slist_append(list, line);
    if (longer == NULL) {
        complain("out of memory");
        curl_slist_free_all(list);
        return NULL;
    }
    return longer;
}

static int
unreachable(const struct http *http, CURLcode code)
{
    const char *why =
        http->error[0] != '\0' ? http->error : curl_easy_strerror(code);
    if (code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST) {
        complain("no daemon answers at %s (%s)", http->url, why);
        const char *where = strstr(http->url, "://");
        fprintf(stderr,
            "  start one:     kindredd --listen %s --data DIR\n"
            "  name another:  --url URL, or KINDRED_URL in the environment\n",
            where != NULL ? where + 3 : http->url);
    } else {
        complain("%s: %s", http->url, why);
    }
    return EXIT_UNREACHABLE;
}

/* Run what is set up in ex; body_given says whether there is one to send. */
static int
exchange_run(struct exchange *ex, const char *method, const char *path,
    const char *content_type, bool quiet)
{
    struct http *http = ex->http;
    CURL *curl = http->curl;
    struct buf url;
    buf_init(&url, 1 << 20);
    buf_add_str(&url, http->url);
    buf_add_str(&url, path);
    if (buf_status(&url) != OK) {
        buf_release(&url);
        complain("out of memory");
        return EXIT_REFUSED;
    }
    buf_clear(&ex->answer->body);
    ex->answer->status = 0;
    ex->answer->location[0] = '\0';
    ex->answer->request_id[0] = '\0';
    ex->answer->retry_after[0] = '\0';

    curl_easy_reset(curl);
    http->error[0] = '\0';
    struct curl_slist *headers = NULL;
    /* An upload starts at once: the daemon never needs the asking first. */
    headers = header_add(headers, "Expect", "");
    if (content_type != NULL)
        headers = header_add(headers, "Content-Type", content_type);
    if (ex->stream != NULL && ex->stream->accept != NULL)
        headers = header_add(headers, "Accept", ex->stream->accept);
    if (ex->stream != NULL && ex->stream->last_event_id != NULL)
        headers =
            header_add(headers, "Last-Event-ID", ex->stream->last_event_id);
    if (http->authorization != NULL)
        headers = curl_slist_append(headers, http->authorization);

    curl_easy_setopt(curl, CURLOPT_URL, url.data);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, http->error);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, USER_AGENT);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, ex);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_write);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, ex);
    if (content_type != NULL) {
        /* A stream cannot be sent twice, so it is never put on a connection
           that the daemon may be closing. */
        if (ex->stream != NULL)
            curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, 1L);
        curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_read);
        curl_easy_setopt(curl, CURLOPT_READDATA, ex);
        if (ex->stream == NULL)
            curl_easy_setopt(
                curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)ex->body_left);
        else if (ex->stream->length > 0)
            curl_easy_setopt(
                curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)ex->stream->length);
        curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, 262144L);
    }
    if (ex->stream != NULL) {
        curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
        curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_tick);
        curl_easy_setopt(curl, CURLOPT_XFERINFODATA, ex);
    }
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);

    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &ex->answer->status);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    buf_release(&url);
    if (code == CURLE_OK || ex->stopped)
        return EXIT_DONE;
    if (ex->aborted)
        return EXIT_REFUSED;
    /* The daemon may refuse a body before it is sent whole: what it answered
       counts, not the connection that broke under the rest. */
    if (ex->answer->status >= 400)
        return EXIT_DONE;
    if (quiet)
        return EXIT_UNREACHABLE;
    return unreachable(http, code);
}

int
http_send(struct http *http, const char *method, const char *path,
    const char *content_type, const char *body, size_t len,
    struct answer *answer)
{
    struct exchange ex = {.http = http,
        .answer = answer,
        .body = body,
        .body_left = body != NULL ? len : 0};
    return exchange_run(
        &ex, method, path, body != NULL ? content_type : NULL, false);
}

int
http_call(struct http *http, const char *method, const char *path,
    const char *body, size_t len, struct answer *answer)
{
    return http_send(http, method, path, "application/json", body, len, answer);
}

int
http_stream(
    struct http *http, const struct http_stream *stream, struct answer *answer)
{
    struct exchange ex = {.http = http, .answer = answer, .stream = stream};
    return exchange_run(
        &ex, stream->method, stream->path, stream->content_type, stream->quiet);
}

const char *
problem_text(const json_t *problem)
{
    static const char *const fields[] = {"detail", "message", "title"};
    static const char *const nested[] = {"problem", "error"};
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        const char *s = json_string_value(json_object_get(problem, fields[i]));
        if (s != NULL && s[0] != '\0')
            return s;
    }
    for (size_t i = 0; i < ARRAY_LEN(nested); i++) {
        const json_t *inner = json_object_get(problem, nested[i]);
        if (json_is_string(inner))
            return json_string_value(inner);
        if (json_is_object(inner))
            return problem_text(inner);
    }
    return NULL;
}

/* The fields at fault, one a line. */
static void
problem_print_errors(const json_t *problem, const char *said)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(problem, "errors"), i, entry)
    {
        const char *pointer =
            json_string_value(json_object_get(entry, "pointer"));
        const char *detail = problem_text(entry);
        char where[200];
        char what[600];
        term_clean(where, sizeof(where), pointer != NULL ? pointer : "");
        term_clean(what, sizeof(what), detail != NULL ? detail : "");
        if (where[0] == '\0' && said != NULL && strcmp(what, said) == 0)
            continue;
        fprintf(stderr, "  %s%s%s\n", where, where[0] != '\0' ? ": " : "",
            said != NULL && strcmp(what, said) == 0 ? "(this field)" : what);
    }
}

int
http_check(const struct http *http, const struct answer *answer)
{
    if (answer->status < 400)
        return EXIT_DONE;
    json_t *problem = NULL;
    if (answer->body.len > 0)
        problem = json_loadb(answer->body.data, answer->body.len, 0, NULL);
    const char *text = problem != NULL ? problem_text(problem) : NULL;
    const char *title =
        problem != NULL ? json_string_value(json_object_get(problem, "title"))
                        : NULL;
    char what[2000];
    char name[200];
    if (text == NULL)
        text = answer->body.len > 0 ? answer->body.data : "no explanation";
    term_clean(what, sizeof(what), text);
    term_clean(name, sizeof(name), title != NULL ? title : "");
    if (name[0] != '\0' && strcmp(name, what) != 0)
        complain("%s (%ld %s)", what, answer->status, name);
    else
        complain("%s (%ld)", what, answer->status);
    if (problem != NULL)
        problem_print_errors(problem, what);
    if (answer->status == 401 || answer->status == 403)
        fprintf(stderr,
            "  give a key:    --key-file FILE, or KINDRED_KEY in "
            "the environment%s\n",
            http->authorization != NULL ? " (the one given does not suffice)"
                                        : "");
    if (answer->retry_after[0] != '\0')
        fprintf(stderr, "  try again in %s s\n", answer->retry_after);
    if (answer->status >= 500 && answer->request_id[0] != '\0')
        fprintf(
            stderr, "  in the daemon's log: request %s\n", answer->request_id);
    json_decref(problem);
    return EXIT_REFUSED;
}

int
http_json(struct http *http, const char *method, const char *path,
    const json_t *body, json_t **out, long *status)
{
    struct answer answer;
    answer_init(&answer);
    char *text = NULL;
    int rc = EXIT_REFUSED;
    if (body != NULL) {
        text = json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY);
        if (text == NULL) {
            complain("the request cannot be written as JSON (is every text "
                     "UTF-8?)");
            goto out;
        }
    }
    rc = http_call(
        http, method, path, text, text != NULL ? strlen(text) : 0, &answer);
    if (rc == EXIT_DONE)
        rc = http_check(http, &answer);
    if (status != NULL)
        *status = answer.status;
    if (rc != EXIT_DONE || out == NULL)
        goto out;
    json_error_t error;
    json_t *parsed = answer.body.len == 0
                         ? json_null()
                         : json_loadb(answer.body.data, answer.body.len,
                               JSON_DECODE_ANY, &error);
    if (parsed == NULL) {
        complain("%s %s: the answer is no JSON (%s); is this a kindred "
                 "daemon?",
            method, path, error.text);
        rc = EXIT_REFUSED;
        goto out;
    }
    *out = parsed;
out:
    free(text);
    answer_release(&answer);
    return rc;
}

int
http_pages(struct http *http, const char *collection, const char *member,
    const char *label, http_element_fn *fn, void *arg)
{
    struct buf path;
    struct progress progress;
    char *cursor = NULL;
    size_t n = 0;
    int rc = EXIT_DONE;
    buf_init(&path, 1 << 16);
    if (label != NULL)
        progress_start(&progress, label);
    do {
        json_t *page = NULL;
        size_t i;
        json_t *element;
        path_collection(&path, collection, "/");
        buf_printf(&path, "%s?limit=%d", member, PAGE);
        if (cursor != NULL) {
            buf_add_str(&path, "&cursor=");
            path_add_segment(&path, cursor);
        }
        rc = http_json(http, "GET", path.data, NULL, &page, NULL);
        mem_free(cursor);
        cursor = NULL;
        if (rc != EXIT_DONE)
            break;
        json_array_foreach(json_object_get(page, member), i, element)
        {
            fn(arg, element);
            n++;
        }
        const char *next =
            json_string_value(json_object_get(page, "next_cursor"));
        if (next != NULL)
            cursor = must_strdup(next);
        json_decref(page);
        if (label != NULL) {
            char tail[64];
            snprintf(tail, sizeof(tail), "%zu %s", n, member);
            progress_show(&progress, -1.0, tail, false);
        }
    } while (cursor != NULL);
    if (label != NULL)
        progress_clear();
    mem_free(cursor);
    buf_release(&path);
    return rc;
}

void
path_add_segment(struct buf *path, const char *s)
{
    static const char hex[] = "0123456789ABCDEF";
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
            (c >= 'a' && c <= 'z') || strchr("-._~", c) != NULL) {
            buf_add_char(path, (char)c);
        } else {
            buf_add_char(path, '%');
            buf_add_char(path, hex[c >> 4]);
            buf_add_char(path, hex[c & 15]);
        }
    }
}

void
path_collection(struct buf *path, const char *name, const char *suffix)
{
    buf_clear(path);
    buf_add_str(path, "/v1/collections/");
    path_add_segment(path, name);
    buf_add_str(path, suffix);
}

void
path_admin(struct buf *path, const char *name, const char *suffix)
{
    buf_clear(path);
    buf_add_str(path, "/v1/admin/collections/");
    path_add_segment(path, name);
    buf_add_str(path, suffix);
}
