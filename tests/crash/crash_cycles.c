/*
 * Goal: after kill -9 at any moment under a mixed load every acknowledged
 * write is there, whole, and found; none that was not acknowledged is there in
 * part; exactly one generation is live, and it is the acknowledged one.
 * Method: client threads write items one by one, in arrays and as NDJSON,
 * patch, delete, add and remove pairs, train, roll back, back up and search,
 * each keeping a journal of what was acknowledged and of the one request that
 * is under way. The daemon is killed at a random moment, or dies at a
 * failpoint, or while it starts; it starts again and is compared with the
 * journals, which then go on from what was found. Every some cycles a fresh
 * folder. KINDRED_CRASH_CYCLES, _SECONDS and _SEED change the run.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "tests/support/crash_kit.h"

#define N_BASE 40   /* items and pairs that are only read */
#define N_WRITERS 3 /* threads that write items */
#define N_DOCS 60   /* ids of each writer */
#define N_PAIRS 400 /* anchors of the pair thread, each used once */
#define FOLDER_CYCLES 25
#define BATCH_MAX 20
#define BUCKETS 1024
#define SIDE_ITEMS 120

/* ---- the journal --------------------------------------------------------- */

struct version {
    int rev;  /* of the text; 0: absent */
    int mark; /* in the metadata */
};

struct doc {
    struct version now;
    struct version next; /* asked for, not acknowledged */
    bool open;           /* there is a next */
    int array;           /* the all-or-nothing request it was part of, or 0 */
    int last_rev;
    bool touched; /* in this cycle */
};

enum pair_state { PAIR_UNUSED, PAIR_OPEN, PAIR_THERE, PAIR_LEAVING, PAIR_GONE };

struct worker {
    int number;
    struct crash_http http;
    struct rng rng;
    unsigned port;
    struct doc docs[N_DOCS];
    int n_arrays;
    uint64_t acknowledged;
    /* of the pair thread */
    enum pair_state pairs[N_PAIRS];
    int64_t pair_ids[N_PAIRS];
    int n_pairs;
    /* of the admin thread */
    int64_t live;   /* acknowledged */
    bool live_open; /* a switch or a round may have come after it */
    uint64_t n_rounds, n_switches, n_backups, n_searches;
    /* a collection beside: made, filled, named, deleted, the next one */
    struct {
        int number;
        bool there, maybe;         /* acknowledged; the other may be as well */
        bool filled, maybe_filled; /* with SIDE_ITEMS, in one array */
        bool named, maybe_named;   /* by the alias "current" */
    } side;
};

static struct worker workers[N_WRITERS];
static struct worker pairer, admin, searcher;
static atomic_bool stop;
static uint64_t seed;

static uint64_t
doc_key(int worker, int i)
{
    return 10000 + (uint64_t)worker * 1000 + (uint64_t)i;
}

static void
add_item(struct crash_text *out, int worker, int i, struct version v)
{
    char words[CRASH_TEXT_MAX];

    crash_words(words, doc_key(worker, i), (uint64_t)v.rev);
    crash_add(out,
        "{\"id\":\"w%d-%d\",\"text\":\"%s\",\"metadata\":{\"mark\":%d}}",
        worker, i, words, v.mark);
}

/* The request was acknowledged, or refused as a whole. */
static void
close_doc(struct worker *w, struct doc *doc, bool done)
{
    if (done) {
        doc->now = doc->next;
        w->acknowledged++;
    }
    doc->open = false;
    doc->array = 0;
}

static void
open_doc(struct doc *doc, struct version next)
{
    doc->next = next;
    doc->open = true;
    doc->touched = true;
}

/* ---- what the writers do ------------------------------------------------- */

/* An acknowledged write is found by a search that starts after it. */
static bool
search_finds(struct crash_http *http, int worker, int i, int rev, long *status)
{
    struct crash_text query = {0};
    char words[CRASH_TEXT_MAX], id[24];
    bool found = false;

    snprintf(id, sizeof(id), "w%d-%d", worker, i);
    crash_words(words, doc_key(worker, i), (uint64_t)rev);
    crash_add(&query, "{\"text\":\"%s\",\"k\":3}", words);
    *status = crash_call(http, "POST", CRASH_COLLECTION "/search", query.s);
    json_t *root = crash_json(http);
    json_t *hits = crash_at(root, "/hits");
    for (size_t h = 0; h < json_array_size(hits); h++) {
        json_t *hit = json_array_get(hits, h);
        found =
            found || (strcmp(crash_str(hit, "/id"), id) == 0 &&
                         json_number_value(crash_at(hit, "/cosine")) > 0.999);
    }
    json_decref(root);
    free(query.s);
    return found;
}

static pthread_mutex_t fault_lock = PTHREAD_MUTEX_INITIALIZER;

static void
fault_of_call(const char *what, long status, const struct crash_http *http)
{
    pthread_mutex_lock(&fault_lock);
    crash_fault("%s: %ld %.200s", what, status, http->body);
    pthread_mutex_unlock(&fault_lock);
}

/* One item: put, patch or delete. False when the daemon is gone. */
static bool
write_one(struct worker *w)
{
    int i = (int)rng_below(&w->rng, N_DOCS);
    struct doc *doc = &w->docs[i];
    struct crash_text body = {0};
    char path[100];
    uint64_t what = rng_below(&w->rng, 10);
    const char *method = "PUT";
    struct version next = {doc->last_rev + 1, 0};
    long status;

    if (doc->now.rev > 0 && what < 3) {
        method = "PATCH";
        next = (struct version){doc->now.rev, doc->now.mark + 1};
        crash_add(&body, "{\"metadata\":{\"mark\":%d}}", next.mark);
    } else if (doc->now.rev > 0 && what < 5) {
        method = "DELETE";
        next = (struct version){0, 0};
    } else {
        doc->last_rev++;
        add_item(&body, w->number, i, next);
    }
    open_doc(doc, next);
    snprintf(
        path, sizeof(path), CRASH_COLLECTION "/items/w%d-%d", w->number, i);
    status = crash_call(&w->http, method, path, body.s);
    free(body.s);
    if (status == 0) {
        return false;
    }
    close_doc(w, doc, status / 100 == 2);
    if (status / 100 != 2 && status != 503) {
        fault_of_call(method, status, &w->http);
    }
    if (status / 100 == 2 && rng_below(&w->rng, 4) == 0) {
        int rev = next.rev > 0 ? next.rev : doc->last_rev;
        bool found = search_finds(&w->http, w->number, i, rev, &status);
        if (status == 200 && found != (next.rev > 0)) {
            fault_of_call(next.rev > 0 ? "acknowledged, but not found at once"
                                       : "deleted, but found afterwards",
                status, &w->http);
        }
        return status != 0;
    }
    return true;
}

/* Distinct documents; returns how many. */
static int
choose_docs(struct worker *w, int out[BATCH_MAX])
{
    int n = 1 + (int)rng_below(&w->rng, BATCH_MAX);
    int from = (int)rng_below(&w->rng, N_DOCS);

    for (int i = 0; i < n; i++) {
        out[i] = (from + i * 7) % N_DOCS; /* 7 and N_DOCS share no factor */
    }
    return n;
}

/* All or nothing. */
static bool
write_array(struct worker *w)
{
    struct crash_text body = {0};
    int chosen[BATCH_MAX];
    int n = choose_docs(w, chosen);
    long status;

    w->n_arrays++;
    for (int i = 0; i < n; i++) {
        struct doc *doc = &w->docs[chosen[i]];
        struct version next = {++doc->last_rev, 7};
        open_doc(doc, next);
        doc->array = w->n_arrays;
        crash_add(&body, "%s", i ? "," : "[");
        add_item(&body, w->number, chosen[i], next);
    }
    crash_add(&body, "]");
    status = crash_call(&w->http, "POST", CRASH_COLLECTION "/items", body.s);
    free(body.s);
    if (status == 0) {
        return false;
    }
    for (int i = 0; i < n; i++) {
        close_doc(w, &w->docs[chosen[i]], status / 100 == 2);
    }
    if (status / 100 != 2 && status != 503) {
        fault_of_call("an array", status, &w->http);
    }
    return true;
}

/* Line by line: what has its line is acknowledged. */
static bool
write_lines(struct worker *w)
{
    struct crash_text body = {0};
    int chosen[BATCH_MAX];
    int n = choose_docs(w, chosen);
    long status;

    crash_add(&body, "\n");
    for (int i = 0; i < n; i++) {
        struct doc *doc = &w->docs[chosen[i]];
        struct version next = {++doc->last_rev, 9};
        open_doc(doc, next);
        add_item(&body, w->number, chosen[i], next);
        crash_add(&body, "\n");
    }
    status = crash_call(&w->http, "POST", CRASH_COLLECTION "/items", body.s);
    free(body.s);
    /* Lines may have come before the daemon went. */
    int i = 0;
    for (char *line = w->http.body; line != NULL && i < n; i++) {
        char *end = strchr(line, '\n');
        if (end == NULL || strstr(line, "\"line\"") == NULL) {
            break;
        }
        *end = '\0';
        bool good = strstr(line, "\"status\":20") != NULL;
        if (good) {
            close_doc(w, &w->docs[chosen[i]], true);
        } else if (status != 0) {
            fault_of_call(line, status, &w->http);
        }
        line = end + 1;
    }
    if (status != 0 && (status != 200 || i < n)) {
        if (status != 503) {
            fault_of_call("NDJSON", status, &w->http);
        }
        for (; i < n && status == 503; i++) {
            close_doc(w, &w->docs[chosen[i]], false);
        }
    }
    return status != 0;
}

static void *
run_writer(void *arg)
{
    struct worker *w = arg;
    bool up = true;

    crash_http_init(&w->http, w->port);
    while (up && !stop) {
        uint64_t what = rng_below(&w->rng, 10);
        up = what < 7   ? write_one(w)
             : what < 8 ? write_array(w)
                        : write_lines(w);
    }
    crash_http_free(&w->http);
    return NULL;
}

/* ---- pairs --------------------------------------------------------------- */

static void
add_pair(struct crash_text *out, int i)
{
    char words[CRASH_TEXT_MAX];

    crash_words(words, 50000 + (uint64_t)i, 1);
    crash_add(out,
        "{\"anchor\":{\"text\":\"pair%d %s\"},\"positive\":{\"id\":\"b%d\"}}",
        i, words, i % N_BASE);
}

static bool
pairs_one(struct worker *w)
{
    struct crash_text body = {0};
    long status;

    if (w->n_pairs > 0 && rng_below(&w->rng, 5) == 0) {
        int i = (int)rng_below(&w->rng, (uint64_t)w->n_pairs);
        char path[100];
        if (w->pairs[i] != PAIR_THERE || w->pair_ids[i] <= 0) {
            return true;
        }
        w->pairs[i] = PAIR_LEAVING;
        snprintf(path, sizeof(path), CRASH_COLLECTION "/pairs/%lld",
            (long long)w->pair_ids[i]);
        status = crash_call(&w->http, "DELETE", path, NULL);
        if (status != 0) {
            w->pairs[i] = status == 204 ? PAIR_GONE : PAIR_THERE;
            if (status != 204 && status != 503) {
                fault_of_call("deleting a pair", status, &w->http);
            }
        }
        return status != 0;
    }
    int from = w->n_pairs;
    int n = 1 + (int)rng_below(&w->rng, 4);
    bool lines = rng_below(&w->rng, 2) == 0;
    if (from + n > N_PAIRS) {
        clock_sleep_ms(5);
        return true;
    }
    crash_add(&body, lines ? "\n" : "[");
    for (int i = 0; i < n; i++) {
        w->pairs[from + i] = PAIR_OPEN;
        crash_add(&body, "%s", !lines && i > 0 ? "," : "");
        add_pair(&body, from + i);
        crash_add(&body, "%s", lines ? "\n" : "");
    }
    crash_add(&body, lines ? "" : "]");
    w->n_pairs += n;
    status = crash_call(&w->http, "POST", CRASH_COLLECTION "/pairs", body.s);
    free(body.s);
    if (status == 0) {
        return false;
    }
    const char *at = w->http.body;
    for (int i = 0; i < n; i++) {
        at = at != NULL ? strstr(at, "\"pair\":") : NULL;
        if (status == 200 && at != NULL) {
            w->pairs[from + i] = PAIR_THERE;
            w->pair_ids[from + i] = strtoll(at + 7, NULL, 10);
            w->acknowledged++;
            at += 7;
        } else {
            w->pairs[from + i] = PAIR_GONE;
            if (status != 503) {
                fault_of_call("pairs", status, &w->http);
            }
        }
    }
    return true;
}

static void *
run_pairer(void *arg)
{
    struct worker *w = arg;

    crash_http_init(&w->http, w->port);
    while (!stop && pairs_one(w)) {
        clock_sleep_ms(10);
    }
    crash_http_free(&w->http);
    return NULL;
}

/* ---- administration ------------------------------------------------------ */

/* Wait for a round; false when the daemon is gone. */
static bool
follow_jobs(struct worker *w)
{
    for (int i = 0; i < 2000 && !stop; i++) {
        if (crash_call(&w->http, "GET", CRASH_COLLECTION, NULL) != 200) {
            return false;
        }
        json_t *root = crash_json(&w->http);
        bool running = crash_int(root, "/running_job") > 0;
        int64_t live = crash_int(root, "/generation");
        json_decref(root);
        if (!running) {
            w->live = live;
            w->live_open = false;
            return true;
        }
        clock_sleep_ms(5);
    }
    return true;
}

/* The next step in the life of the collection beside. */
static bool
tend_side(struct worker *w)
{
    struct crash_text body = {0};
    char path[80], words[CRASH_TEXT_MAX];
    long status;
    int wanted = 201;

    snprintf(path, sizeof(path), "/v1/collections/side%d",
        w->side.there ? w->side.number : w->side.number + 1);
    if (!w->side.there) {
        w->side.number++;
        w->side.filled = w->side.named = false;
        w->side.maybe = true;
        status = crash_call(&w->http, "PUT", path,
            "{\"dims\":32,\"encoder_config\":{\"buckets\":1024}}");
        w->side.there = status == 201;
        w->side.maybe = status == 0;
    } else if (!w->side.filled) {
        snprintf(
            path, sizeof(path), "/v1/collections/side%d/items", w->side.number);
        for (int i = 0; i < SIDE_ITEMS; i++) {
            crash_words(words, 90000 + (uint64_t)i, 1);
            crash_add(&body, "%s{\"id\":\"s%d\",\"text\":\"%s\"}",
                i ? "," : "[", i, words);
        }
        crash_add(&body, "]");
        wanted = 200;
        w->side.maybe_filled = true;
        status = crash_call(&w->http, "POST", path, body.s);
        w->side.filled = status == 200;
        w->side.maybe_filled = status == 0;
    } else if (!w->side.named) {
        crash_add(&body, "{\"collection\":\"side%d\"}", w->side.number);
        w->side.maybe_named = true;
        status = crash_call(&w->http, "PUT", "/v1/aliases/current", body.s);
        w->side.named = status == 201;
        w->side.maybe_named = status == 0;
    } else {
        wanted = 204;
        w->side.maybe = true;
        status = crash_call(&w->http, "DELETE", path, NULL);
        w->side.there = status != 204;
        w->side.maybe = status == 0;
    }
    free(body.s);
    if (status != 0 && status != wanted && status != 503) {
        fault_of_call(path, status, &w->http);
    }
    return status != 0;
}

static bool
administer(struct worker *w)
{
    uint64_t what = rng_below(&w->rng, 12);
    struct crash_text body = {0};
    long status;

    if (what < 4) {
        crash_add(&body,
            "{\"force\":%s,\"seed\":%d,\"batch\":16,\"lr\":0.002,"
            "\"max_steps\":%d}",
            rng_below(&w->rng, 3) ? "true" : "false",
            (int)rng_below(&w->rng, 1000), 5 + (int)rng_below(&w->rng, 30));
        w->live_open = true;
        status = crash_call(&w->http, "POST", CRASH_ADMIN "/train", body.s);
        free(body.s);
        if (status == 202) {
            w->n_rounds++;
            if (rng_below(&w->rng, 4) == 0) { /* cancelled on its way */
                json_t *root = crash_json(&w->http);
                char path[64];
                snprintf(path, sizeof(path), "/v1/jobs/%lld",
                    (long long)crash_int(root, "/id"));
                json_decref(root);
                clock_sleep_ms((int64_t)rng_below(&w->rng, 60));
                status = crash_call(&w->http, "DELETE", path, NULL);
            }
        } else if (status != 0 && status != 409 && status != 503) {
            fault_of_call("train", status, &w->http);
        }
        return status != 0 && follow_jobs(w);
    }
    if (what < 6) {
        w->live_open = true;
        status = crash_call(&w->http, "POST", CRASH_ADMIN "/rollback", NULL);
        w->n_switches += status == 200;
        if (status != 0 && status != 200 && status != 202 && status != 409 &&
            status != 503) {
            fault_of_call("rollback", status, &w->http);
        }
        return status != 0 && follow_jobs(w);
    }
    if (what == 6) {
        status = crash_call(&w->http, "POST", "/v1/admin/backup", NULL);
        w->n_backups += status == 202;
        return status != 0;
    }
    if (what > 7) {
        return tend_side(w);
    }
    status = crash_call(&w->http, "GET", CRASH_COLLECTION "/generations", NULL);
    if (status == 200) {
        json_t *root = crash_json(&w->http);
        json_t *all = crash_at(root, "/generations");
        int n_live = 0;
        for (size_t i = 0; i < json_array_size(all); i++) {
            n_live += strcmp(crash_str(json_array_get(all, i), "/state"),
                          "live") == 0;
        }
        json_decref(root);
        if (n_live != 1) {
            fault_of_call("not one live generation", n_live, &w->http);
        }
    }
    return status != 0;
}

static void *
run_admin(void *arg)
{
    struct worker *w = arg;

    crash_http_init(&w->http, w->port);
    while (!stop && administer(w)) {
        clock_sleep_ms((int64_t)rng_below(&w->rng, 40));
    }
    crash_http_free(&w->http);
    return NULL;
}

/* ---- searches ------------------------------------------------------------ */

/* A batch of known texts, all of one generation: the cosine of an item with
   its own text is one, unless query and item are of two generations. */
static bool
search_base(struct worker *w)
{
    struct crash_text body = {0};
    char words[CRASH_TEXT_MAX], id[16];
    int from = (int)rng_below(&w->rng, N_BASE);
    int n = 1 + (int)rng_below(&w->rng, 8);

    crash_add(&body, "{\"queries\":[");
    for (int i = 0; i < n; i++) {
        crash_words(words, CRASH_BASE_KEY + (uint64_t)((from + i) % N_BASE), 1);
        crash_add(&body, "%s{\"text\":\"%s\",\"k\":2}", i ? "," : "", words);
    }
    crash_add(&body, "]}");
    long status =
        crash_call(&w->http, "POST", CRASH_COLLECTION "/search/batch", body.s);
    free(body.s);
    if (status != 200) {
        if (status != 0 && status != 503) {
            fault_of_call("search", status, &w->http);
        }
        return status != 0;
    }
    json_t *root = crash_json(&w->http);
    int64_t generation = crash_int(root, "/results/0/generation");
    bool right = generation > 0;
    for (int i = 0; i < n; i++) {
        json_t *one = json_array_get(crash_at(root, "/results"), (size_t)i);
        snprintf(id, sizeof(id), "b%d", (from + i) % N_BASE);
        right = right && crash_int(one, "/generation") == generation &&
                strcmp(crash_str(one, "/hits/0/id"), id) == 0 &&
                json_number_value(crash_at(one, "/hits/0/cosine")) > 0.9999;
    }
    json_decref(root);
    w->n_searches++;
    if (!right) {
        fault_of_call("a wrong answer", status, &w->http);
    }
    return true;
}

static void *
run_searcher(void *arg)
{
    struct worker *w = arg;

    crash_http_init(&w->http, w->port);
    while (!stop && search_base(w)) {
        clock_sleep_ms(5);
    }
    crash_http_free(&w->http);
    return NULL;
}

/* ---- the comparison ------------------------------------------------------ */

static bool
same_version(struct version a, struct version b)
{
    return a.rev == b.rev && (a.rev == 0 || a.mark == b.mark);
}

/* What the daemon has of the writers' documents; -1 in rev: something else. */
static struct version found[N_WRITERS][N_DOCS];

static void
take_item(json_t *item)
{
    const char *id = crash_str(item, "/id");
    const char *text = crash_str(item, "/text");
    char words[CRASH_TEXT_MAX];
    int worker, i;

    if (id[0] == 'b') {
        i = atoi(id + 1);
        crash_words(words, CRASH_BASE_KEY + (uint64_t)i, 1);
        if (strcmp(text, words) != 0) {
            crash_fault("item %s has the text \"%s\"", id, text);
        }
        return;
    }
    if (sscanf(id, "w%d-%d", &worker, &i) != 2 || worker < 0 ||
        worker >= N_WRITERS || i < 0 || i >= N_DOCS) {
        crash_fault("there is an item \"%s\"", id);
        return;
    }
    const struct doc *doc = &workers[worker].docs[i];
    struct version *v = &found[worker][i];
    if (v->rev != 0) {
        crash_fault("item %s is listed twice", id);
    }
    v->rev = -1;
    v->mark = (int)crash_int(item, "/metadata/mark");
    const int revs[] = {doc->now.rev, doc->next.rev};
    for (int k = 0; k < 2; k++) {
        crash_words(words, doc_key(worker, i), (uint64_t)revs[k]);
        if (revs[k] > 0 && strcmp(text, words) == 0) {
            v->rev = revs[k];
        }
    }
}

static bool
list_items(struct crash_http *http)
{
    char path[200], cursor[80] = "";
    int64_t n = 0, n_said = -1;

    memset(found, 0, sizeof(found));
    do {
        snprintf(path, sizeof(path), CRASH_COLLECTION "/items?limit=70%s%s",
            cursor[0] ? "&cursor=" : "", cursor);
        if (crash_call(http, "GET", path, NULL) != 200) {
            crash_fault("listing items: %.200s", http->body);
            return false;
        }
        json_t *root = crash_json(http);
        json_t *items = crash_at(root, "/items");
        for (size_t i = 0; i < json_array_size(items); i++) {
            take_item(json_array_get(items, i));
            n++;
        }
        snprintf(cursor, sizeof(cursor), "%s", crash_str(root, "/next_cursor"));
        json_decref(root);
    } while (cursor[0]);
    if (crash_call(http, "GET", CRASH_COLLECTION, NULL) == 200) {
        json_t *root = crash_json(http);
        n_said = crash_int(root, "/items");
        json_decref(root);
    }
    if (n != n_said) {
        crash_fault("%lld items are listed, the collection says %lld",
            (long long)n, (long long)n_said);
    }
    return true;
}

/* Arrays that were under way: all of one, or none. */
static void
check_arrays(struct worker *w)
{
    for (int i = 0; i < N_DOCS; i++) {
        const struct doc *first = &w->docs[i];
        if (!first->open || first->array == 0) {
            continue;
        }
        bool done = same_version(found[w->number][i], first->next);
        for (int k = i + 1; k < N_DOCS; k++) {
            const struct doc *doc = &w->docs[k];
            if (doc->open && doc->array == first->array &&
                same_version(found[w->number][k], doc->next) != done) {
                crash_fault("half of an array is there: w%d-%d and w%d-%d",
                    w->number, i, w->number, k);
            }
        }
        return; /* one at a time is under way */
    }
}

static void
check_docs(struct worker *w)
{
    check_arrays(w);
    for (int i = 0; i < N_DOCS; i++) {
        struct doc *doc = &w->docs[i];
        struct version v = found[w->number][i];
        bool now = same_version(v, doc->now);
        bool next = doc->open && same_version(v, doc->next);
        if (!now && !next) {
            crash_fault("w%d-%d is revision %d mark %d; acknowledged %d/%d%s "
                        "%d/%d",
                w->number, i, v.rev, v.mark, doc->now.rev, doc->now.mark,
                doc->open ? ", under way" : ", not under way", doc->next.rev,
                doc->next.mark);
        }
        doc->now = v;
        doc->open = false;
        doc->array = 0;
    }
}

/* Each by its own text: that it is found, or that it is not. */
static void
check_searches(struct crash_http *http, struct worker *w)
{
    struct crash_text body = {0};
    char words[CRASH_TEXT_MAX], id[24];
    int asked[N_DOCS], n = 0;

    crash_add(&body, "{\"queries\":[");
    for (int i = 0; i < N_DOCS; i++) {
        const struct doc *doc = &w->docs[i];
        int rev = doc->now.rev > 0 ? doc->now.rev : doc->last_rev;
        if (rev > 0) {
            crash_words(words, doc_key(w->number, i), (uint64_t)rev);
            crash_add(
                &body, "%s{\"text\":\"%s\",\"k\":3}", n ? "," : "", words);
            asked[n++] = i;
        }
    }
    crash_add(&body, "]}");
    long status = n == 0 ? 0
                         : crash_call(http, "POST",
                               CRASH_COLLECTION "/search/batch", body.s);
    json_t *root = status == 200 ? crash_json(http) : NULL;
    if (n > 0 && root == NULL) {
        crash_fault("searching: %ld %.200s", status, http->body);
    }
    for (int q = 0; q < n && root != NULL; q++) {
        int i = asked[q];
        json_t *hits = crash_at(
            json_array_get(crash_at(root, "/results"), (size_t)q), "/hits");
        bool is_found = false;
        snprintf(id, sizeof(id), "w%d-%d", w->number, i);
        for (size_t h = 0; h < json_array_size(hits); h++) {
            json_t *hit = json_array_get(hits, h);
            double cosine = json_number_value(crash_at(hit, "/cosine"));
            is_found =
                is_found || (strcmp(crash_str(hit, "/id"), id) == 0 &&
                                (cosine > 0.999 || w->docs[i].now.rev == 0));
        }
        if (is_found != (w->docs[i].now.rev > 0)) {
            crash_fault("%s (revision %d) is%s found by its text; first is %s "
                        "with %.6f",
                id, w->docs[i].now.rev, is_found ? "" : " not",
                crash_str(hits, "/0/id"),
                json_number_value(crash_at(hits, "/0/cosine")));
        }
    }
    json_decref(root);
    free(body.s);
}

static void
check_pairs(struct crash_http *http, struct worker *w)
{
    static int n_seen[N_PAIRS];
    char path[200], cursor[80] = "";

    memset(n_seen, 0, sizeof(n_seen));
    do {
        snprintf(path, sizeof(path), CRASH_COLLECTION "/pairs?limit=200%s%s",
            cursor[0] ? "&cursor=" : "", cursor);
        if (crash_call(http, "GET", path, NULL) != 200) {
            crash_fault("listing pairs: %.200s", http->body);
            return;
        }
        json_t *root = crash_json(http);
        json_t *pairs = crash_at(root, "/pairs");
        for (size_t k = 0; k < json_array_size(pairs); k++) {
            json_t *pair = json_array_get(pairs, k);
            int i;
            if (sscanf(crash_str(pair, "/anchor/text"), "pair%d ", &i) == 1 &&
                i >= 0 && i < N_PAIRS) {
                n_seen[i]++;
                w->pair_ids[i] = crash_int(pair, "/pair");
                if (json_number_value(crash_at(pair, "/weight")) > 1.5) {
                    crash_fault("pair %d counts twice", i);
                }
            }
        }
        snprintf(cursor, sizeof(cursor), "%s", crash_str(root, "/next_cursor"));
        json_decref(root);
    } while (cursor[0]);
    for (int i = 0; i < N_PAIRS; i++) {
        bool may = w->pairs[i] == PAIR_OPEN || w->pairs[i] == PAIR_LEAVING;
        bool must = w->pairs[i] == PAIR_THERE;
        if (n_seen[i] > 1 || (n_seen[i] == 0 && must) ||
            (n_seen[i] == 1 && !must && !may)) {
            crash_fault("pair %d (state %d) is there %d times", i, w->pairs[i],
                n_seen[i]);
        }
        if (w->pairs[i] != PAIR_UNUSED) {
            w->pairs[i] = n_seen[i] > 0 ? PAIR_THERE : PAIR_GONE;
        }
    }
}

/* The collection beside is as it was acknowledged, and no other is there. */
static void
check_side(struct crash_http *http, struct worker *w)
{
    char path[80], name[24];

    snprintf(name, sizeof(name), "side%d", w->side.number);
    snprintf(path, sizeof(path), "/v1/collections/%s", name);
    long status = crash_call(http, "GET", path, NULL);
    bool there = status == 200;
    if (there != w->side.there && !w->side.maybe) {
        crash_fault("%s: %ld", name, status);
    }
    if (there) {
        json_t *root = crash_json(http);
        int64_t n = crash_int(root, "/items");
        json_decref(root);
        if (n != (w->side.filled ? SIDE_ITEMS : 0) &&
            !(w->side.maybe_filled && n == SIDE_ITEMS)) {
            crash_fault("%s has %lld items", name, (long long)n);
        }
        w->side.filled = n == SIDE_ITEMS;
    }
    status = crash_call(http, "GET", "/v1/collections/current", NULL);
    json_t *root = crash_json(http);
    bool named = status == 200 && strcmp(crash_str(root, "/name"), name) == 0;
    json_decref(root);
    if ((status == 200 && !named) ||
        (named != (there && w->side.named) && !w->side.maybe_named)) {
        crash_fault("the alias of %s: %ld %.100s", name, status, http->body);
    }
    w->side.there = there;
    w->side.named = named;
    w->side.maybe = w->side.maybe_filled = w->side.maybe_named = false;
    if (crash_call(http, "GET", "/v1/collections", NULL) == 200) {
        root = crash_json(http);
        size_t n = json_array_size(crash_at(root, "/collections"));
        if (n != 1 + (size_t)there) {
            crash_fault("%zu collections: %.300s", n, http->body);
        }
        json_decref(root);
    }
}

/* No job may have failed: what a crash interrupts goes on. */
static void
check_jobs(struct crash_http *http)
{
    static int64_t told;
    if (crash_call(http, "GET", "/v1/jobs?limit=20", NULL) != 200) {
        return;
    }
    json_t *root = crash_json(http);
    json_t *jobs = crash_at(root, "/jobs");
    for (size_t i = 0; i < json_array_size(jobs); i++) {
        json_t *job = json_array_get(jobs, i);
        if (strcmp(crash_str(job, "/state"), "failed") == 0 &&
            crash_int(job, "/created_ms") > told) {
            told = crash_int(job, "/created_ms");
            crash_fault("job %lld (%s) failed: %s",
                (long long)crash_int(job, "/id"), crash_str(job, "/kind"),
                crash_str(job, "/error"));
        }
    }
    json_decref(root);
}

static void
compare(struct crash_daemon *daemon, bool with_backup)
{
    struct crash_http http;
    char name[128];

    crash_http_init(&http, daemon->port);
    if (crash_call(&http, "GET", "/readyz", NULL) != 200) {
        crash_fault("not ready: %.200s", http.body);
    }
    crash_check_lineage(&http, false);
    if (list_items(&http)) {
        for (int i = 0; i < N_WRITERS; i++) {
            check_docs(&workers[i]);
            check_searches(&http, &workers[i]);
        }
    }
    check_pairs(&http, &pairer);
    check_side(&http, &admin);
    if (crash_settle(&http, 60000)) {
        check_jobs(&http);
        crash_check_lineage(&http, true);
        int64_t live = crash_live(&http);
        if (!admin.live_open && admin.live != live) {
            crash_fault("generation %lld is live, acknowledged was %lld",
                (long long)live, (long long)admin.live);
        }
        admin.live = live;
        admin.live_open = false;
        /* The generation that is live now, too. */
        for (int i = 0; i < N_WRITERS; i++) {
            check_searches(&http, &workers[i]);
        }
        if (with_backup) {
            (void)crash_backup(&http, name, sizeof(name));
        }
    }
    crash_http_free(&http);
}

/* ---- cycles -------------------------------------------------------------- */

static const struct {
    const char *name;
    int passes;
} points[] = {
    {"store_before_commit", 150},
    {"store_after_commit", 150},
    {"learn_step", 60},
    {"learn_before_save", 2},
    {"learn_created", 2},
    {"learn_saved", 2},
    {"learn_registered", 2},
    {"reembed_batch", 3},
    {"store_reembed_commit", 3},
    {"reembed_committed", 3},
    {"learn_before_publish", 2},
    {"learn_publish", 2},
    {"store_publish", 4},
    {"publish", 4},
    {"learn_discard", 2},
    {"store_backup_step", 3},
    {"store_backup_renamed", 2},
};
#define N_POINTS (sizeof(points) / sizeof(*points))

static int n_died_at[N_POINTS];

static void
launch(pthread_t threads[], size_t *n, void *(*body)(void *), struct worker *w,
    unsigned port)
{
    w->port = port;
    if (pthread_create(&threads[*n], NULL, body, w) == 0) {
        ++*n;
    }
}

/* Load until the daemon dies of a failpoint, or is killed after ms. */
static bool
load_and_die(struct crash_daemon *daemon, int64_t ms, bool failpoint)
{
    pthread_t threads[N_WRITERS + 3];
    size_t n = 0;
    bool died = false;

    stop = false;
    for (int i = 0; i < N_WRITERS; i++) {
        launch(threads, &n, run_writer, &workers[i], daemon->port);
    }
    launch(threads, &n, run_pairer, &pairer, daemon->port);
    launch(threads, &n, run_admin, &admin, daemon->port);
    launch(threads, &n, run_searcher, &searcher, daemon->port);
    died = crash_await_end(daemon, ms);
    if (!died) {
        crash_kill(daemon);
    } else if (!failpoint || !crash_was_killed(daemon)) {
        crash_fault("the daemon ended by itself: status %d", daemon->status);
        crash_show_log(daemon);
    }
    stop = true;
    for (size_t i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
    }
    return died;
}

static bool
fresh_folder(struct crash_daemon *daemon, const char *root, int number)
{
    struct crash_http http;
    char dir[160];
    bool ok = false;

    snprintf(dir, sizeof(dir), "%s/%d", root, number);
    crash_daemon_init(daemon, dir, true);
    for (int i = 0; i < N_WRITERS; i++) {
        workers[i] = (struct worker){.number = i};
        rng_seed_stream(&workers[i].rng, seed, (uint64_t)(number * 10 + i));
    }
    pairer = (struct worker){.number = 100};
    admin = (struct worker){.number = 101, .live = 1};
    searcher = (struct worker){.number = 102};
    rng_seed_stream(&pairer.rng, seed, (uint64_t)(number * 10 + 7));
    rng_seed_stream(&admin.rng, seed, (uint64_t)(number * 10 + 8));
    rng_seed_stream(&searcher.rng, seed, (uint64_t)(number * 10 + 9));
    if (crash_start(daemon, NULL)) {
        crash_http_init(&http, daemon->port);
        ok = crash_fill(&http, N_BASE, BUCKETS);
        crash_http_free(&http);
        crash_kill(daemon);
    }
    return ok;
}

static int64_t
number_from(const char *name, int64_t otherwise)
{
    const char *text = getenv(name);

    return text != NULL && text[0] != '\0' ? strtoll(text, NULL, 10)
                                           : otherwise;
}

static struct {
    int64_t killed, failpoints, early, checked;
    uint64_t acknowledged, searches, rounds, switches, backups, sides;
} sums;

static void
add_sums(void)
{
    for (int i = 0; i < N_WRITERS; i++) {
        sums.acknowledged += workers[i].acknowledged;
    }
    sums.acknowledged += pairer.acknowledged;
    sums.searches += searcher.n_searches;
    sums.rounds += admin.n_rounds;
    sums.switches += admin.n_switches;
    sums.backups += admin.n_backups;
    sums.sides += (uint64_t)admin.side.number;
}

/* One death and what comes after it. */
static bool
cycle(struct crash_daemon *daemon, struct rng *rng, int64_t number)
{
    char failpoint[80] = "";
    size_t point = N_POINTS;
    bool ready;

    /* Every second cycle dies at a failpoint, each in its turn. */
    if (number % 2 == 1) {
        point = (size_t)(number / 2) % N_POINTS;
        snprintf(failpoint, sizeof(failpoint), "%s:%d", points[point].name,
            1 + (int)rng_below(rng, (uint64_t)points[point].passes));
    }
    crash_launch(daemon, failpoint[0] ? failpoint : NULL);
    if (number % 10 == 4) { /* in the middle of its own recovery */
        (void)crash_await_end(daemon, (int64_t)rng_below(rng, 50));
        crash_kill(daemon);
        sums.early++;
        ready = false;
    } else {
        ready = crash_await_ready(daemon);
    }
    if (ready) {
        bool died = load_and_die(daemon,
            failpoint[0] ? 3000 : 20 + (int64_t)rng_below(rng, 500),
            failpoint[0] != '\0');
        sums.failpoints += died;
        sums.killed += !died;
        if (died && point < N_POINTS) {
            n_died_at[point]++;
        }
    } else if (number % 10 != 4) {
        if (failpoint[0] == '\0' || !crash_was_killed(daemon)) {
            crash_fault("it does not start: status %d", daemon->status);
            crash_show_log(daemon);
            return false;
        }
        sums.failpoints++;
        n_died_at[point]++;
    }
    if (number % 4 == 0) {
        (void)crash_check_copy(daemon->dir);
        sums.checked++;
    }
    if (!crash_start(daemon, NULL)) {
        crash_fault("it does not start again (after %s): status %d",
            failpoint[0] ? failpoint : "a kill", daemon->status);
        crash_show_log(daemon);
        return false;
    }
    bool failing = crash_failing();
    compare(daemon, number % 7 == 0);
    if (!failing && crash_log_has(daemon, 0, "Sanitizer")) {
        crash_fault("a sanitizer speaks");
    }
    if (crash_failing() && !failing) {
        printf("    (cycle %lld, %s)\n", (long long)number,
            failpoint[0] ? failpoint : "a kill");
        crash_show_log(daemon);
    }
    crash_kill(daemon);
    return true;
}

int
main(void)
{
    const char *tier = getenv("KINDRED_TIER");
    bool full = tier != NULL && strcmp(tier, "full") == 0;
    int64_t n_cycles = number_from("KINDRED_CRASH_CYCLES", full ? 1000 : 6);
    int64_t seconds = number_from("KINDRED_CRASH_SECONDS", full ? 600 : 30);
    int64_t started = clock_mono_ms(), n = 0;
    struct crash_daemon daemon = {.pid = 0};
    struct rng rng;
    char root[100], name[160];
    bool up = false;

    log_setup(LOG_ERROR, false);
    seed = (uint64_t)number_from("KINDRED_CRASH_SEED", clock_wall_ms());
    rng_seed(&rng, seed);
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    crash_make_dir(root, sizeof(root));
    printf("seed %llu\n", (unsigned long long)seed);
    for (; n < n_cycles && (clock_mono_ms() - started) / 1000 < seconds; n++) {
        if (n % FOLDER_CYCLES == 0) {
            if (n > 0) {
                add_sums();
                crash_end();
                crash_remove_dir(daemon.dir);
            }
            snprintf(name, sizeof(name), "cycles from %lld of kill -9",
                (long long)n);
            crash_begin(strdup(name));
            up = fresh_folder(&daemon, root, (int)(n / FOLDER_CYCLES));
        }
        int64_t at = full ? n : 1 + n * 5; /* a little of everything */
        if (!up || !cycle(&daemon, &rng, at)) {
            crash_fault("cycle %lld (number %lld) was the last", (long long)n,
                (long long)at);
            n++;
            break;
        }
    }
    add_sums();
    crash_kill(&daemon);
    bool bad = crash_failing();
    crash_end();
    printf("%lld deaths in cycles: %lld killed, %lld at failpoints, %lld while "
           "starting; %llu writes acknowledged, %llu searches, %llu rounds, "
           "%llu switches, %llu backups, %llu other collections; %lld files "
           "checked (%.0f s)\n",
        (long long)(sums.killed + sums.failpoints + sums.early),
        (long long)sums.killed, (long long)sums.failpoints,
        (long long)sums.early, (unsigned long long)sums.acknowledged,
        (unsigned long long)sums.searches, (unsigned long long)sums.rounds,
        (unsigned long long)sums.switches, (unsigned long long)sums.backups,
        (unsigned long long)sums.sides, (long long)sums.checked,
        (double)(clock_mono_ms() - started) / 1000);
    for (size_t i = 0; i < N_POINTS && full; i++) {
        printf("    %3d at %s\n", n_died_at[i], points[i].name);
    }
    if (n < n_cycles) {
        printf("only %lld of %lld cycles within %lld s\n", (long long)n,
            (long long)n_cycles, (long long)seconds);
    }
    if (bad) {
        printf("(the folder is kept: %s)\n", root);
    } else {
        crash_remove_dir(root);
    }
    return crash_failures() > 0;
}
