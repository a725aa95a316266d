/*
 * Goal: pictures go in by every way that is documented and come back as they
 *   were; views are pictures; what is no picture, lies, or is over a limit gets
 *   a 4xx that says why, stores nothing and costs no memory; options of
 *   training out of their range get 422 with the range.
 * Method: one daemon with a collection of pictures and one of texts, one with
 *   small limits. Pictures are made by image_kit; its hostile set is sent by
 *   each of the ways.
 */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/base64.h"
#include "base/buf.h"
#include "base/clock.h"
#include "image/decode.h"
#include "tests/support/http_kit.h"
#include "tests/support/image_kit.h"

#define P "/v1/collections/photos"
#define D "/v1/collections/docs"
#define SIDE 48

static struct kit_daemon daemon_;
static struct kit_daemon small; /* limits of 4,000 bytes and 2,000 pixels */

/* ---- helping --------------------------------------------------------------
 */

enum form { JPEG, PNG, WEBP };
static const char *const types[] = {"image/jpeg", "image/png", "image/webp"};

static struct buf
picture(enum form form, uint32_t side, uint64_t seed)
{
    struct image image;
    struct buf out;
    buf_init(&out, 1u << 24);
    image_kit_paint(&image, side, side, 3, seed);
    if (form == JPEG)
        image_kit_jpeg(&out, &image, NULL);
    else if (form == PNG)
        image_kit_png(&out, &image, NULL);
    else
        image_kit_webp(&out, &image, NULL);
    image_release(&image);
    assert_int_equal(buf_status(&out), OK);
    return out;
}

static struct kit_reply
send_bytes(const struct kit_daemon *daemon, const char *method,
    const char *path, const char *type, const struct buf *bytes)
{
    const struct kit_call call = {.method = method,
        .path = path,
        .type = type,
        .body = bytes->len > 0 ? bytes->data : "",
        .body_len = bytes->len};
    return kit_do(daemon, &call);
}

/* Status of a raw PUT or POST; the caller looks at nothing else. */
static long
send_status(const struct kit_daemon *daemon, const char *method,
    const char *path, const char *type, const struct buf *bytes)
{
    struct kit_reply reply = send_bytes(daemon, method, path, type, bytes);
    long status = reply.status;
    kit_reply_free(&reply);
    return status;
}

/* Before the picture, its base64, behind it. */
static struct buf
wrap(const char *before, const struct buf *bytes, const char *after)
{
    struct buf out;
    buf_init(&out, 1u << 26);
    buf_add_str(&out, before);
    base64_encode(&out, bytes->len > 0 ? bytes->data : "", bytes->len);
    buf_add_str(&out, after);
    return out;
}

static struct kit_reply
send_json(const char *method, const char *path, const struct buf *body)
{
    return send_bytes(&daemon_, method, path, "application/json", body);
}

static const char *
text_at(const struct kit_reply *reply, const char *pointer)
{
    const char *s = json_string_value(kit_at(reply->json, pointer));
    return s ? s : "";
}

static long long
number_at(const struct kit_reply *reply, const char *pointer)
{
    return (long long)json_integer_value(kit_at(reply->json, pointer));
}

/* ---- what goes in comes back ----------------------------------------------
 */

static void
test_put_and_get(void **state)
{
    (void)state;
    for (int form = JPEG; form <= WEBP; form++) {
        char path[160];
        char item[128];
        char tag[80];
        struct buf bytes = picture((enum form)form, SIDE, 1 + (uint64_t)form);
        (void)snprintf(item, sizeof(item), P "/items/form%d", form);
        (void)snprintf(path, sizeof(path), "%s/image", item);
        struct kit_reply reply =
            send_bytes(&daemon_, "PUT", path, types[form], &bytes);
        assert_int_equal(reply.status, 201);
        assert_string_equal(text_at(&reply, "/outcome"), "created");
        kit_reply_free(&reply);

        reply = kit_get(&daemon_, path);
        assert_int_equal(reply.status, 200);
        assert_string_equal(kit_header(&reply, "Content-Type"), types[form]);
        assert_int_equal(reply.len, bytes.len);
        assert_memory_equal(reply.body, bytes.data, bytes.len);
        (void)snprintf(
            tag, sizeof(tag), "If-None-Match: %s", kit_header(&reply, "ETag"));
        kit_reply_free(&reply);

        const struct kit_call again = {.path = path, .headers = {tag}};
        reply = kit_do(&daemon_, &again);
        assert_int_equal(reply.status, 304);
        assert_int_equal(reply.len, 0);
        kit_reply_free(&reply);

        reply = kit_get(&daemon_, item);
        assert_int_equal(reply.status, 200);
        assert_string_equal(text_at(&reply, "/image/type"), types[form]);
        assert_int_equal(number_at(&reply, "/image/width"), SIDE);
        assert_int_equal(number_at(&reply, "/image/height"), SIDE);
        assert_int_equal(number_at(&reply, "/image/bytes"), bytes.len);
        assert_int_equal(strlen(text_at(&reply, "/image/sha256")), 64);
        assert_true(json_is_true(kit_at(reply.json, "/image/kept")));
        kit_reply_free(&reply);

        /* the same bytes are no write, by whatever name of their type */
        reply = send_bytes(
            &daemon_, "PUT", path, "application/octet-stream", &bytes);
        assert_int_equal(reply.status, 200);
        assert_string_equal(text_at(&reply, "/outcome"), "unchanged");
        kit_reply_free(&reply);
        reply = send_bytes(&daemon_, "PUT", path, "", &bytes);
        assert_int_equal(reply.status, 200);
        kit_reply_free(&reply);
        buf_release(&bytes);
    }
}

static void
test_replace_and_delete(void **state)
{
    (void)state;
    struct buf one = picture(JPEG, SIDE, 11);
    struct buf two = picture(PNG, SIDE, 12);
    struct kit_reply reply = kit_send(&daemon_, "PUT", P "/items/kept",
        "{\"title\":\"a\",\"metadata\":{\"label\":\"x\"}}");
    assert_int_equal(reply.status, 201); /* an item without its picture */
    kit_reply_free(&reply);
    reply = kit_get(&daemon_, P "/items/kept/image");
    assert_int_equal(reply.status, 404);
    kit_reply_free(&reply);
    assert_int_equal(
        send_status(&daemon_, "PUT", P "/items/kept/image", types[JPEG], &one),
        200);
    assert_int_equal(
        send_status(&daemon_, "PUT", P "/items/kept/image", types[PNG], &two),
        200);
    reply = kit_get(&daemon_, P "/items/kept");
    assert_string_equal(text_at(&reply, "/title"), "a");
    assert_string_equal(text_at(&reply, "/metadata/label"), "x");
    assert_string_equal(text_at(&reply, "/image/type"), types[PNG]);
    kit_reply_free(&reply);

    const struct kit_call stale = {.method = "PUT",
        .path = P "/items/kept/image",
        .type = types[JPEG],
        .body = one.data,
        .body_len = one.len,
        .headers = {"If-Match: \"1\""}};
    reply = kit_do(&daemon_, &stale);
    assert_int_equal(reply.status, 412);
    kit_reply_free(&reply);
    const struct kit_call new_only = {.method = "PUT",
        .path = P "/items/kept/image",
        .type = types[JPEG],
        .body = one.data,
        .body_len = one.len,
        .headers = {"If-None-Match: *"}};
    reply = kit_do(&daemon_, &new_only);
    assert_int_equal(reply.status, 412);
    kit_reply_free(&reply);

    reply = kit_send(&daemon_, "DELETE", P "/items/kept/image", NULL);
    assert_int_equal(reply.status, 200);
    kit_reply_free(&reply);
    reply = kit_send(&daemon_, "DELETE", P "/items/kept/image", NULL);
    assert_int_equal(reply.status, 404);
    kit_reply_free(&reply);
    reply = kit_get(&daemon_, P "/items/kept");
    assert_string_equal(text_at(&reply, "/title"), "a");
    assert_null(kit_at(reply.json, "/image"));
    kit_reply_free(&reply);
    reply = kit_send(&daemon_, "DELETE", P "/items/kept", NULL);
    assert_int_equal(reply.status, 204);
    kit_reply_free(&reply);
    buf_release(&one);
    buf_release(&two);
}

/* In an item, in an array, in lines; and null takes it away. */
static void
test_base64(void **state)
{
    (void)state;
    struct buf bytes = picture(WEBP, SIDE, 21);
    struct buf body = wrap("{\"image\":\"", &bytes, "\"}");
    struct kit_reply reply = send_json("PUT", P "/items/b64", &body);
    assert_int_equal(reply.status, 201);
    kit_reply_free(&reply);
    reply = kit_get(&daemon_, P "/items/b64/image");
    assert_int_equal(reply.len, bytes.len);
    assert_memory_equal(reply.body, bytes.data, bytes.len);
    kit_reply_free(&reply);
    buf_release(&body);

    /* left out: it stays */
    reply = kit_send(&daemon_, "PUT", P "/items/b64", "{\"title\":\"t\"}");
    assert_int_equal(reply.status, 200);
    kit_reply_free(&reply);
    reply = kit_get(&daemon_, P "/items/b64/image");
    assert_int_equal(reply.status, 200);
    kit_reply_free(&reply);
    reply = kit_send(
        &daemon_, "PUT", P "/items/b64", "{\"title\":\"t\",\"image\":null}");
    assert_int_equal(reply.status, 200);
    kit_reply_free(&reply);
    reply = kit_get(&daemon_, P "/items/b64/image");
    assert_int_equal(reply.status, 404);
    kit_reply_free(&reply);

    body = wrap("[{\"id\":\"b64\",\"image\":\"", &bytes, "\"}]");
    reply = send_json("POST", P "/items", &body);
    assert_int_equal(reply.status, 200);
    kit_reply_free(&reply);
    buf_release(&body);

    /* one line of three is none; the others are stored */
    struct buf lines = wrap("{\"id\":\"l1\",\"image\":\"", &bytes, "\"}\n");
    buf_add_str(&lines, "{\"id\":\"l2\",\"image\":\"aGVsbG8=\"}\n");
    body = wrap("{\"id\":\"l3\",\"image\":\"", &bytes, "\"}\n");
    buf_add(&lines, body.data, body.len);
    reply = send_bytes(
        &daemon_, "POST", P "/items", "application/x-ndjson", &lines);
    assert_int_equal(reply.status, 200);
    assert_non_null(
        strstr(reply.body, "\"line\":1,\"id\":\"l1\",\"status\":201"));
    assert_non_null(
        strstr(reply.body, "\"line\":2,\"id\":\"l2\",\"status\":422"));
    assert_non_null(strstr(reply.body, "\"pointer\":\"/image\""));
    assert_non_null(
        strstr(reply.body, "\"line\":3,\"id\":\"l3\",\"status\":201"));
    assert_non_null(strstr(reply.body, "\"refused\":1"));
    kit_reply_free(&reply);
    buf_release(&body);
    buf_release(&lines);
    reply = kit_send(&daemon_, "POST", P "/items/delete",
        "{\"ids\":[\"b64\",\"l1\",\"l3\"]}");
    assert_int_equal(number_at(&reply, "/deleted"), 3);
    kit_reply_free(&reply);
    buf_release(&bytes);
}

/* ---- search ---------------------------------------------------------------
 */

static void
test_search(void **state)
{
    (void)state;
    struct buf bytes = picture(PNG, SIDE, 2); /* form1's */
    struct kit_reply reply = send_bytes(&daemon_, "POST",
        P "/search/image?k=2&with=metadata&min_cosine=-1&explain=true",
        types[PNG], &bytes);
    assert_int_equal(reply.status, 200);
    assert_string_equal(text_at(&reply, "/hits/0/id"), "form1");
    assert_true(
        json_number_value(kit_at(reply.json, "/hits/0/cosine")) > 0.9999);
    assert_non_null(kit_at(reply.json, "/hits/0/metadata"));
    assert_non_null(kit_at(reply.json, "/explain/encode_ms"));
    assert_int_equal(json_array_size(kit_at(reply.json, "/hits")), 2);
    kit_reply_free(&reply);

    struct buf body = wrap("{\"k\":1,\"image\":\"", &bytes, "\"}");
    reply = send_json("POST", P "/search", &body);
    assert_int_equal(reply.status, 200);
    assert_string_equal(text_at(&reply, "/hits/0/id"), "form1");
    kit_reply_free(&reply);
    buf_release(&body);

    body =
        wrap("{\"queries\":[{\"id\":\"form0\",\"k\":1},{\"k\":1,\"image\":\"",
            &bytes, "\"},{\"image\":\"aGVsbG8=\"},{\"image\":\"a\"}]}");
    reply = send_json("POST", P "/search/batch", &body);
    assert_int_equal(reply.status, 200);
    assert_string_equal(text_at(&reply, "/results/1/hits/0/id"), "form1");
    assert_int_equal(number_at(&reply, "/results/2/status"), 422);
    assert_int_equal(number_at(&reply, "/results/3/status"), 422);
    assert_string_equal(
        text_at(&reply, "/results/3/errors/0/pointer"), "/image");
    kit_reply_free(&reply);
    buf_release(&body);

    /* what a query that stands in the path may not say */
    static const char *const wrong[][2] = {{"k=0", "/k"}, {"k=x", "/k"},
        {"min_cosine=2", "/min_cosine"}, {"min_cosine=nan", "/min_cosine"},
        {"min_probability=-1", "/min_probability"}, {"with=all", "/with"},
        {"exact=perhaps", "/exact"}, {"colour=red", ""}};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        char path[128];
        (void)snprintf(path, sizeof(path), P "/search/image?%s", wrong[i][0]);
        reply = send_bytes(&daemon_, "POST", path, types[PNG], &bytes);
        assert_int_equal(reply.status, 422);
        assert_string_equal(text_at(&reply, "/errors/0/pointer"), wrong[i][1]);
        kit_reply_free(&reply);
    }
    assert_int_equal(
        send_status(&daemon_, "POST", P "/search/image?filter=%7B%22x%22",
            types[PNG], &bytes),
        400);

    /* each encoder is asked in its own way */
    reply = kit_send(&daemon_, "POST", P "/search", "{\"text\":\"a tree\"}");
    assert_int_equal(reply.status, 422);
    assert_string_equal(text_at(&reply, "/errors/0/pointer"), "/text");
    kit_reply_free(&reply);
    reply = send_bytes(&daemon_, "POST", D "/search/image", types[PNG], &bytes);
    assert_int_equal(reply.status, 422);
    assert_string_equal(text_at(&reply, "/errors/0/pointer"), "/image");
    kit_reply_free(&reply);
    buf_release(&bytes);
}

/* ---- views ----------------------------------------------------------------
 */

static void
test_views(void **state)
{
    (void)state;
    struct image sheet = {0};
    struct kit_reply first =
        kit_get(&daemon_, P "/items/form0/views?n=8&seed=3");
    assert_int_equal(first.status, 200);
    assert_string_equal(kit_header(&first, "Content-Type"), "image/png");
    assert_int_equal(
        image_decode(&sheet, first.body, first.len, NULL, NULL), OK);
    assert_int_equal(sheet.channels, 3);
    assert_true(sheet.width * sheet.height >= 9 * 32 * 32);
    image_release(&sheet);

    struct kit_reply same = kit_get(&daemon_, P "/items/form0/views?seed=3");
    assert_int_equal(same.len, first.len); /* n is 8 */
    assert_memory_equal(same.body, first.body, first.len);
    kit_reply_free(&same);
    struct kit_reply other = kit_get(&daemon_, P "/items/form0/views?seed=4");
    assert_true(other.len != first.len ||
                memcmp(other.body, first.body, first.len) != 0);
    kit_reply_free(&other);
    other = kit_get(&daemon_,
        P "/items/form0/views?seed=3&flip=0&jitter=0&grey=1&crop_min=0.9");
    assert_int_equal(other.status, 200);
    assert_true(other.len != first.len ||
                memcmp(other.body, first.body, first.len) != 0);
    kit_reply_free(&other);
    kit_reply_free(&first);

    static const char *const wrong[][2] = {{"n=0", "/n"}, {"n=65", "/n"},
        {"n=many", "/n"}, {"seed=-1", "/seed"}, {"crop_min=2", "/crop_min"},
        {"crop_min=x", "/crop_min"}, {"flip=1.5", "/flip"}, {"hue=0.9", "/hue"},
        {"crop_min=0.9&crop_max=0.5", "/crop_min"}, {"item=form0", ""}};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        char path[128];
        (void)snprintf(
            path, sizeof(path), P "/items/form0/views?%s", wrong[i][0]);
        struct kit_reply reply = kit_get(&daemon_, path);
        if (reply.status != 422)
            print_error("%s: %ld\n", wrong[i][0], reply.status);
        assert_int_equal(reply.status, 422);
        assert_string_equal(text_at(&reply, "/errors/0/pointer"), wrong[i][1]);
        kit_reply_free(&reply);
    }
    struct kit_reply reply = kit_get(&daemon_, P "/items/nobody/views");
    assert_int_equal(reply.status, 404);
    kit_reply_free(&reply);
    reply = kit_get(&daemon_, D "/items/a/views");
    assert_int_equal(reply.status, 409);
    kit_reply_free(&reply);
}

/* ---- what is refused -------------------------------------------------------
 */

static void
test_types(void **state)
{
    (void)state;
    struct buf jpeg = picture(JPEG, SIDE, 31);
    struct buf none = {0};
    static const struct {
        const char *type;
        long status;
        const char *says;
    } cases[] = {{"text/plain", 415, "Content-Type"},
        {"application/json", 415, "Content-Type"},
        {"application/x-www-form-urlencoded", 415, "Content-Type"},
        {"image/gif", 415, "Content-Type"},
        {"image/png", 415, "Content-Type says image/png"},
        {"image/webp; q=1", 415, "image/jpeg"}, {"IMAGE/JPEG", 201, "created"},
        {"image/jpg", 200, "unchanged"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct kit_reply reply = send_bytes(
            &daemon_, "PUT", P "/items/typed/image", cases[i].type, &jpeg);
        if (reply.status != cases[i].status)
            print_error("%s: %ld\n", cases[i].type, reply.status);
        assert_int_equal(reply.status, cases[i].status);
        assert_non_null(strstr(reply.body, cases[i].says));
        kit_reply_free(&reply);
    }
    /* a text that says it is a picture */
    struct buf text = {0};
    buf_init(&text, 1000);
    buf_add_str(&text, "Dear Sir or Madam, attached you find a picture.");
    assert_int_equal(
        send_status(&daemon_, "PUT", P "/items/t/image", types[JPEG], &text),
        415);
    assert_int_equal(
        send_status(&daemon_, "PUT", P "/items/t/image", types[JPEG], &none),
        422);
    assert_int_equal(
        send_status(&daemon_, "POST", P "/search/image", types[JPEG], &none),
        422);
    buf_release(&text);
    buf_release(&jpeg);
    struct kit_reply reply = kit_get(&daemon_, P "/items/t");
    assert_int_equal(reply.status, 404);
    kit_reply_free(&reply);
}

static void
test_limits(void **state)
{
    (void)state;
    struct buf wide = picture(PNG, 50, 41); /* 2,500 pixels */
    struct buf fine = picture(JPEG, 24, 42);
    struct kit_reply reply = kit_send(&small, "PUT", P,
        "{\"encoder\":\"vision\",\"encoder_config\":{\"input\":28}}");
    assert_int_equal(reply.status, 201);
    kit_reply_free(&reply);
    assert_int_equal(
        send_status(&small, "PUT", P "/items/a/image", types[JPEG], &fine),
        201);
    while (wide.len <= 4000) /* what follows the end is still the body */
        buf_add(&wide, "................................", 32);
    reply = send_bytes(&small, "PUT", P "/items/b/image", types[PNG], &wide);
    assert_int_equal(reply.status, 413);
    assert_non_null(strstr(reply.body, "4000"));
    kit_reply_free(&reply);
    const struct kit_call chunked = {.method = "PUT",
        .path = P "/items/b/image",
        .type = types[PNG],
        .body = wide.data,
        .body_len = wide.len,
        .chunked = true};
    reply = kit_do(&small, &chunked);
    assert_int_equal(reply.status, 413);
    kit_reply_free(&reply);
    buf_release(&wide);
    buf_init(&wide, 1u << 20);
    image_kit_png_black(&wide, 100, 100, false);
    reply = send_bytes(&small, "PUT", P "/items/b/image", types[PNG], &wide);
    assert_int_equal(reply.status, 413);
    assert_non_null(strstr(reply.body, "10000"));
    assert_non_null(strstr(reply.body, "2000"));
    kit_reply_free(&reply);
    reply = kit_get(&small, "/v1/info");
    assert_int_equal(number_at(&reply, "/limits/image_bytes"), 4000);
    assert_int_equal(number_at(&reply, "/limits/image_pixels"), 2000);
    assert_non_null(strstr(reply.body, "\"vision\""));
    assert_non_null(strstr(reply.body, "image/webp"));
    kit_reply_free(&reply);
    buf_release(&wide);
    buf_release(&fine);
}

static double
resident_mib(void)
{
    struct kit_reply reply = kit_get(&daemon_, "/metrics");
    const char *line = strstr(reply.body, "\nkindred_resident_bytes ");
    double bytes = line ? strtod(line + 24, NULL) : 0;
    kit_reply_free(&reply);
    return bytes / 1048576.0;
}

/* The status that a file must get by the raw way and in JSON. */
static long
wanted(enum err want, bool raw)
{
    return want == ERR_UNSUPPORTED ? (raw ? 415 : 422)
           : want == ERR_TOO_LARGE ? 413
           : want == ERR_INVALID   ? 422
           : raw                   ? 0
                                   : 200;
}

static void
check_hostile(
    const char *name, const struct buf *file, enum err want, const char *word)
{
    struct kit_reply reply = send_bytes(
        &daemon_, "POST", P "/search/image", "application/octet-stream", file);
    long status = want == OK ? 200 : wanted(want, true);
    if (reply.status != status || (want != OK && !strstr(reply.body, word)))
        print_error("%s: search %ld %s\n", name, reply.status, reply.body);
    assert_int_equal(reply.status, status);
    if (want != OK)
        assert_non_null(strstr(reply.body, word));
    kit_reply_free(&reply);
    if (want == OK)
        return;
    assert_int_equal(send_status(&daemon_, "PUT", P "/items/bad/image",
                         "application/octet-stream", file),
        status);

    struct buf body = wrap("{\"image\":\"", file, "\"}");
    reply = send_json("PUT", P "/items/bad", &body);
    if (reply.status != wanted(want, false))
        print_error("%s: JSON %ld %s\n", name, reply.status, reply.body);
    assert_int_equal(reply.status, wanted(want, false));
    assert_string_equal(text_at(&reply, "/errors/0/pointer"), "/image");
    kit_reply_free(&reply);
    buf_release(&body);

    char status_text[32];
    (void)snprintf(status_text, sizeof(status_text), "\"status\":%ld,",
        wanted(want, false));
    body = wrap("{\"id\":\"bad\",\"image\":\"", file, "\"}\n");
    reply =
        send_bytes(&daemon_, "POST", P "/items", "application/x-ndjson", &body);
    assert_int_equal(reply.status, 200);
    assert_non_null(strstr(reply.body, status_text));
    kit_reply_free(&reply);
    buf_release(&body);
}

static void
test_hostile(void **state)
{
    (void)state;
    double before = resident_mib();
    size_t n = 0;
    for (;; n++) {
        struct buf file;
        enum err want = OK;
        const char *word = "";
        buf_init(&file, 1u << 26);
        const char *name = image_kit_hostile(n, &file, &want, &word);
        if (name)
            check_hostile(name, &file, want, word);
        buf_release(&file);
        if (!name)
            break;
    }
    assert_true(n > 50);
    struct kit_reply reply = kit_get(&daemon_, P "/items/bad");
    assert_int_equal(reply.status, 404);
    kit_reply_free(&reply);
    /* Nothing was taken by a header's word: the largest that may be decoded
       is 64 million pixels. */
    assert_true(resident_mib() - before < 400);
}

/* ---- options of training --------------------------------------------------
 */

static void
test_train_options(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        const char *pointer;
        const char *says;
    } cases[] = {
        {"{\"mechanism\":\"momentum_queue\",\"batch\":64,\"queue\":32}",
            "/queue", "64"},
        {"{\"temperature\":0}", "/temperature", "0.005"},
        {"{\"mechanism\":\"momentum_queue\",\"momentum\":1}", "/momentum",
            "below 1"},
        {"{\"mechanism\":\"momentum_queue\",\"momentum\":-0.1}", "/momentum",
            "below 1"},
        {"{\"batch\":1}", "/batch", "2"},
        {"{\"batch\":0}", "/batch", "2"},
        {"{\"micro_batch\":1}", "/micro_batch", "2"},
        {"{\"mechanism\":\"magic\"}", "/mechanism", "momentum_queue"},
        {"{\"loss\":\"hinge\"}", "/loss", "nt_xent"},
        {"{\"loss\":\"supcon\"}", "/label", "label"},
        {"{\"optimizer\":\"adam\"}", "/optimizer", "lars"},
        {"{\"schedule\":\"linear\"}", "/schedule", "cosine"},
        {"{\"head\":{\"layers\":4}}", "/head/layers", "3"},
        {"{\"head\":{\"width\":4}}", "/head/width", ""},
        {"{\"views\":{\"crop_min\":0}}", "/views/crop_min", ""},
        {"{\"views\":{\"sharpen\":1}}", "/views/sharpen", ""},
        {"{\"views\":{\"crop_min\":0.9,\"crop_max\":0.3}}", "/views/crop_min",
            "crop_max"},
        {"{\"colour\":\"red\"}", "/colour", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct kit_reply reply = kit_send(&daemon_, "POST",
            "/v1/admin/collections/photos/train", cases[i].body);
        if (reply.status != 422 || !strstr(reply.body, cases[i].says) ||
            strcmp(text_at(&reply, "/errors/0/pointer"), cases[i].pointer) != 0)
            print_error(
                "%s: %ld %s\n", cases[i].body, reply.status, reply.body);
        assert_int_equal(reply.status, 422);
        assert_string_equal(
            text_at(&reply, "/errors/0/pointer"), cases[i].pointer);
        assert_non_null(strstr(reply.body, cases[i].says));
        kit_reply_free(&reply);
    }
}

/* ---- collections ----------------------------------------------------------
 */

static void
test_collections(void **state)
{
    (void)state;
    struct buf bytes = picture(JPEG, SIDE, 51);
    struct kit_reply reply = kit_get(&daemon_, P);
    assert_string_equal(text_at(&reply, "/reads"), "image");
    assert_true(number_at(&reply, "/images/items") >= 3);
    assert_true(number_at(&reply, "/images/bytes") > 0);
    kit_reply_free(&reply);
    /* what is only looked at is not kept */
    reply = kit_send(&daemon_, "PUT", "/v1/collections/seen",
        "{\"encoder\":\"vision\",\"encoder_config\":{\"input\":28},"
        "\"images\":\"vector\"}");
    assert_int_equal(reply.status, 201);
    kit_reply_free(&reply);
    assert_int_equal(
        send_status(&daemon_, "PUT", "/v1/collections/seen/items/a/image",
            types[JPEG], &bytes),
        201);
    reply = kit_get(&daemon_, "/v1/collections/seen/items/a/image");
    assert_int_equal(reply.status, 404);
    kit_reply_free(&reply);
    reply = kit_get(&daemon_, "/v1/collections/seen/items/a");
    assert_true(json_is_false(kit_at(reply.json, "/image/kept")));
    kit_reply_free(&reply);
    reply =
        kit_send(&daemon_, "POST", "/v1/admin/collections/seen/train", "{}");
    assert_int_equal(reply.status, 409);
    kit_reply_free(&reply);
    /* one with vectors of its own takes an item whole or not at all */
    reply = kit_send(&daemon_, "PUT", "/v1/collections/own",
        "{\"encoder\":\"external\",\"dims\":8}");
    assert_int_equal(reply.status, 201);
    kit_reply_free(&reply);
    assert_int_equal(
        send_status(&daemon_, "PUT", "/v1/collections/own/items/a/image",
            types[JPEG], &bytes),
        409);
    /* a collection of texts keeps a picture beside the text */
    assert_int_equal(
        send_status(&daemon_, "PUT", D "/items/a/image", types[JPEG], &bytes),
        200);
    reply = kit_get(&daemon_, D "/items/a/image");
    assert_int_equal(reply.status, 200);
    kit_reply_free(&reply);
    reply = kit_send(&daemon_, "PUT", "/v1/collections/odd",
        "{\"encoder\":\"vision\",\"encoder_config\":{\"input\":3}}");
    assert_int_equal(reply.status, 422);
    kit_reply_free(&reply);
    reply = kit_send(&daemon_, "PUT", "/v1/collections/odd",
        "{\"encoder\":\"vision\",\"template\":\"{title}\"}");
    assert_int_equal(reply.status, 422);
    kit_reply_free(&reply);
    buf_release(&bytes);
}

/* What is exported comes back by import, pictures too. */
static void
test_export(void **state)
{
    (void)state;
    struct kit_reply whole =
        kit_get(&daemon_, "/v1/admin/collections/photos/export");
    assert_int_equal(whole.status, 200);
    assert_non_null(strstr(whole.body, "\"image\":"));
    struct kit_reply reply =
        kit_get(&daemon_, "/v1/admin/collections/photos/export?images=false");
    assert_int_equal(reply.status, 200);
    assert_true(reply.len < whole.len);
    kit_reply_free(&reply);
    reply = kit_send(&daemon_, "PUT", "/v1/collections/copy",
        "{\"encoder\":\"vision\",\"encoder_config\":{\"input\":32}}");
    assert_int_equal(reply.status, 201);
    kit_reply_free(&reply);
    const struct kit_call call = {.method = "POST",
        .path = "/v1/admin/collections/copy/import",
        .type = "application/x-ndjson",
        .body = whole.body,
        .body_len = whole.len};
    reply = kit_do(&daemon_, &call);
    assert_int_equal(reply.status, 200);
    if (!strstr(reply.body, "\"errors\":false"))
        print_error("%.600s\n", reply.body);
    assert_non_null(strstr(reply.body, "\"errors\":false"));
    kit_reply_free(&reply);
    kit_reply_free(&whole);
    struct kit_reply one = kit_get(&daemon_, P "/items/form1/image");
    struct kit_reply two =
        kit_get(&daemon_, "/v1/collections/copy/items/form1/image");
    assert_int_equal(two.status, 200);
    assert_int_equal(one.len, two.len);
    assert_memory_equal(one.body, two.body, one.len);
    kit_reply_free(&one);
    kit_reply_free(&two);
}

/* A new connection over which these bytes have gone; to be closed. */
static int
connect_and_send(const struct kit_daemon *daemon, const struct buf *text)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    to.sin_port = htons((uint16_t)daemon->port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(
        connect(fd, (const struct sockaddr *)(const void *)&to, sizeof(to)), 0);
    for (size_t at = 0; at < text->len;) {
        ssize_t sent = send(fd, text->data + at, text->len - at, MSG_NOSIGNAL);
        assert_true(sent > 0);
        at += (size_t)sent;
    }
    return fd;
}

/* A body that stays unfinished; the connection, to be closed. */
static int
hold_memory(const struct kit_daemon *daemon, size_t n)
{
    struct buf text;
    buf_init(&text, 1u << 24);
    buf_printf(&text,
        "POST " P "/search HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
        n + 1);
    for (size_t i = 0; i < n; i++)
        buf_add_char(&text, ' ');
    int fd = connect_and_send(daemon, &text);
    buf_release(&text);
    return fd;
}

/* Wait until the metrics say so. */
static void
expect_held(const struct kit_daemon *daemon, const char *line)
{
    bool there = false;
    for (int i = 0; !there && i < 1000; i++) {
        struct kit_reply reply = kit_get(daemon, "/metrics");
        there = strstr(reply.body, line) != NULL;
        kit_reply_free(&reply);
        clock_sleep_ms(10);
    }
    assert_true(there);
}

/* Where the memory for bodies is used up, pictures do not go out and long lines
   do not come in, for now: 503, not 413. */
static void
test_no_room(void **state)
{
    (void)state;
    struct buf fine = picture(JPEG, 40, 61), line;
    while (fine.len < 3900)
        buf_add_char(&fine, 0);
    buf_init(&line, 1u << 24);
    buf_add_str(&line, "{\"id\":\"long\",\"title\":\"");
    for (size_t i = 0; i < 200000; i++)
        buf_add_char(&line, 'a');
    buf_add_str(&line, "\"}\n{\"id\":\"short\",\"title\":\"b\"}\n");
    assert_int_equal(
        send_status(&small, "PUT", P "/items/c/image", types[JPEG], &fine),
        201);
    const struct kit_call call = {.method = "POST",
        .path = P "/items",
        .type = "application/x-ndjson",
        .body = line.data,
        .body_len = line.len};
    expect_held(&small, "kindred_http_body_bytes 0\n");
    /* a body that is refused halfway gives back what it had */
    int fd = hold_memory(&small, 100000);
    expect_held(&small, "kindred_http_body_bytes 100000\n");
    int refused = hold_memory(&small, 262144 - 2000);
    clock_sleep_ms(300);
    expect_held(&small, "kindred_http_body_bytes 100000\n");
    (void)close(refused);
    (void)close(fd);
    expect_held(&small, "kindred_http_body_bytes 0\n");
    fd = hold_memory(&small, 262144 - 2000);
    expect_held(&small, "kindred_http_body_bytes 260144\n");
    struct kit_reply reply = kit_get(&small, P "/items/c/image");
    assert_int_equal(reply.status, 503);
    kit_reply_free(&reply);
    reply = kit_do(&small, &call);
    (void)close(fd);
    assert_int_equal(reply.status, 200);
    if (!strstr(reply.body, "\"status\":503"))
        print_error("%.600s\n", reply.body);
    assert_non_null(strstr(reply.body, "\"status\":503"));
    assert_null(strstr(reply.body, "\"status\":413"));
    assert_non_null(strstr(reply.body, "\"lines\":2,\"refused\":1"));
    kit_reply_free(&reply);
    expect_held(&small, "kindred_http_body_bytes 0\n");
    reply = kit_get(&small, P "/items/c/image");
    assert_int_equal(reply.status, 200);
    kit_reply_free(&reply);
    reply = kit_do(&small, &call);
    assert_non_null(strstr(reply.body, "\"lines\":2,\"refused\":0"));
    kit_reply_free(&reply);
    buf_release(&fine);
    buf_release(&line);
}

/* As many queries at once as there are workers, by pictures that take so much
   memory that each is decoded alone: half of the workers may wait, so the
   last is answered that it should try again, at once. */
static void
test_turns(void **state)
{
    (void)state;
    enum { WORKERS = 4 };
    static const char *const args[] = {"--read-workers", "4", NULL};
    struct kit_daemon few;
    struct image image;
    struct buf file, text;
    int n_fine = 0, n_busy = 0, n_other = 0;
    assert_true(kit_start(&few, args));
    struct kit_reply made = kit_send(&few, "PUT", P,
        "{\"encoder\":\"vision\",\"encoder_config\":{\"input\":32}}");
    assert_int_equal(made.status, 201);
    kit_reply_free(&made);
    buf_init(&file, 1u << 26);
    buf_init(&text, 1u << 26);
    image_kit_paint(&image, 1600, 1600, 3, 62);
    image_kit_webp(&file, &image, &(struct image_kit){.lossless = true});
    image_release(&image);
    buf_printf(&text,
        "POST " P "/search/image HTTP/1.1\r\nHost: localhost\r\n"
        "Connection: close\r\nContent-Length: %zu\r\n\r\n",
        file.len);
    buf_add(&text, file.data, file.len);
    for (int round = 0; round < 20 && (n_fine == 0 || n_busy == 0); round++) {
        int fds[WORKERS];
        for (int i = 0; i < WORKERS; i++)
            fds[i] = connect_and_send(&few, &text);
        for (int i = 0; i < WORKERS; i++) {
            struct buf reply;
            char piece[4096];
            ssize_t n;
            buf_init(&reply, 1u << 20);
            while ((n = recv(fds[i], piece, sizeof(piece), 0)) > 0)
                buf_add(&reply, piece, (size_t)n);
            buf_add_char(&reply, '\0');
            bool busy = strstr(reply.data, " 503 ") != NULL;
            n_busy += busy && strstr(reply.data, "Retry-After: 1") != NULL;
            n_fine += strstr(reply.data, " 200 ") != NULL;
            n_other += !busy && strstr(reply.data, " 200 ") == NULL;
            buf_release(&reply);
            (void)close(fds[i]);
        }
    }
    int exit_code = kit_stop(&few);
    kit_clean(&few);
    assert_int_equal(exit_code, 0);
    assert_true(n_fine > 0);
    assert_true(n_busy > 0);
    assert_int_equal(n_other, 0);
    buf_release(&file);
    buf_release(&text);
}

static bool
start_all(void)
{
    static const char *const limits[] = {"--image-bytes-max", "4000",
        "--image-pixels-max", "2000", "--body-memory-bytes", "262144", NULL};
    if (!kit_start(&daemon_, NULL) || !kit_start(&small, limits))
        return false;
    struct kit_reply reply = kit_send(&daemon_, "PUT", P,
        "{\"encoder\":\"vision\",\"encoder_config\":{\"input\":32}}");
    bool fine = reply.status == 201;
    if (!fine)
        (void)fprintf(stderr, "%ld %s\n", reply.status, reply.body);
    kit_reply_free(&reply);
    reply = kit_send(&daemon_, "PUT", D, "{\"dims\":64}");
    kit_reply_free(&reply);
    reply = kit_send(&daemon_, "PUT", D "/items/a", "{\"text\":\"a tree\"}");
    kit_reply_free(&reply);
    return fine;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_and_get),
        cmocka_unit_test(test_replace_and_delete),
        cmocka_unit_test(test_base64),
        cmocka_unit_test(test_search),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_train_options),
        cmocka_unit_test(test_collections),
        cmocka_unit_test(test_export),
    };
    if (!start_all()) {
        (void)fprintf(stderr, "a daemon did not start: %s\n", daemon_.log);
        kit_clean(&daemon_);
        kit_clean(&small);
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    failed += kit_stop(&daemon_) != 0;
    failed += kit_stop(&small) != 0;
    kit_clean(&daemon_);
    kit_clean(&small);
    return failed != 0;
}
