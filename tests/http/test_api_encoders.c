/*
 * Goal: a published encoder comes in as a tar stream, of any length in little
 *   memory, is there under its name for collections, embeddings and tokens, and
 *   leaves as a folder that comes in again; what is wrong with a stream or a
 *   folder is said, and nothing of it stays on the disk.
 * Method: a tiny BERT that is written here, in daemons with small limits;
 *   streams with one thing wrong; the data folder is looked at after each.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dirent.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/fsio.h"
#include "base/tarball.h"
#include "tests/support/http_kit.h"

#define TAR "application/x-tar"
#define PATH_OF(name) "/v1/admin/encoders/" name

static struct kit_daemon common;
static struct kit_daemon own; /* of a test, with settings of its own */
static struct kit_daemon *daemon = &common;
static char folder[64]; /* of the tiny one */

/* ---- a folder ------------------------------------------------------------ */

enum { HIDDEN = 16, FFN = 32, VOCAB = 12, POSITIONS = 32 };

struct weights {
    struct buf head;
    struct buf data;
    uint32_t state;
};

static void
add_tensor(struct weights *w, const char *name, int rows, int columns)
{
    size_t n = (size_t)rows * (size_t)(columns ? columns : 1);
    buf_printf(&w->head, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%d",
        w->head.len > 1 ? "," : "", name, rows);
    if (columns)
        buf_printf(&w->head, ",%d", columns);
    buf_printf(&w->head, "],\"data_offsets\":[%zu,%zu]}", w->data.len,
        w->data.len + n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        w->state = w->state * 1664525u + 1013904223u;
        float value = (float)(w->state >> 8) / (float)(1 << 24) - 0.5f;
        buf_add(&w->data, &value, sizeof(value));
    }
}

static void
add_linear(struct weights *w, const char *name, int out, int in)
{
    char full[128];
    (void)snprintf(full, sizeof(full), "%s.weight", name);
    add_tensor(w, full, out, in);
    (void)snprintf(full, sizeof(full), "%s.bias", name);
    add_tensor(w, full, out, 0);
}

static void
write_file(const char *dir, const char *name, const void *bytes, size_t n)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(fsio_write_atomic(path, bytes, n, NULL), OK);
}

#define LAYER "encoder.layer.0."

static void
write_weights(const char *dir, uint32_t seed)
{
    struct weights w = {.state = seed};
    buf_init(&w.head, 1 << 16);
    buf_init(&w.data, 1 << 20);
    buf_add_char(&w.head, '{');
    add_tensor(&w, "embeddings.word_embeddings.weight", VOCAB, HIDDEN);
    add_tensor(&w, "embeddings.position_embeddings.weight", POSITIONS, HIDDEN);
    add_tensor(&w, "embeddings.token_type_embeddings.weight", 2, HIDDEN);
    add_linear(&w, "embeddings.LayerNorm", HIDDEN, 0);
    add_linear(&w, LAYER "attention.self.query", HIDDEN, HIDDEN);
    add_linear(&w, LAYER "attention.self.key", HIDDEN, HIDDEN);
    add_linear(&w, LAYER "attention.self.value", HIDDEN, HIDDEN);
    add_linear(&w, LAYER "attention.output.dense", HIDDEN, HIDDEN);
    add_linear(&w, LAYER "attention.output.LayerNorm", HIDDEN, 0);
    add_linear(&w, LAYER "intermediate.dense", FFN, HIDDEN);
    add_linear(&w, LAYER "output.dense", HIDDEN, FFN);
    add_linear(&w, LAYER "output.LayerNorm", HIDDEN, 0);
    buf_add_char(&w.head, '}');
    struct buf file;
    uint64_t n = w.head.len; /* little-endian, as all that we run on */
    buf_init(&file, 1 << 21);
    buf_add(&file, &n, sizeof(n));
    buf_add(&file, w.head.data, w.head.len);
    buf_add(&file, w.data.data, w.data.len);
    assert_int_equal(buf_status(&file), OK);
    write_file(dir, "model.safetensors", file.data, file.len);
    buf_release(&file);
    buf_release(&w.head);
    buf_release(&w.data);
}

static void
write_text(const char *dir, const char *name, const char *text)
{
    write_file(dir, name, text, strlen(text));
}

static void
write_folder(const char *dir)
{
    char config[512];
    (void)snprintf(config, sizeof(config),
        "{\"model_type\":\"bert\",\"hidden_size\":%d,\"num_hidden_layers\":1,"
        "\"num_attention_heads\":1,\"intermediate_size\":%d,\"vocab_size\":%d,"
        "\"max_position_embeddings\":%d,\"type_vocab_size\":2,"
        "\"hidden_act\":\"gelu\",\"layer_norm_eps\":1e-12}",
        HIDDEN, FFN, VOCAB, POSITIONS);
    write_text(dir, "config.json", config);
    write_text(dir, "vocab.txt",
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nweb\nserver\nmail\nfruit\napple\n"
        "##s\na\n");
    write_text(dir, "README.md", "---\nlicense: mit\n---\n# Tiny\n");
    write_weights(dir, 1);
}

static enum err
collect(void *arg, const void *bytes, size_t n)
{
    buf_add(arg, bytes, n);
    return buf_status(arg);
}

/* The folder as it is now, in a buffer that the caller releases. */
static struct buf
pack(void)
{
    struct buf tar;
    buf_init(&tar, 128u << 20);
    assert_int_equal(tarball_pack(folder, collect, &tar, NULL), OK);
    return tar;
}

static struct kit_reply
send_tar(const char *name, const struct buf *tar, bool chunked)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "/v1/admin/encoders/%s", name);
    const struct kit_call call = {.method = "PUT",
        .path = path,
        .type = TAR,
        .body = tar->data,
        .body_len = tar->len,
        .chunked = chunked};
    return kit_do(daemon, &call);
}

static struct kit_reply
send_folder(const char *name)
{
    struct buf tar = pack();
    struct kit_reply reply = send_tar(name, &tar, false);
    buf_release(&tar);
    return reply;
}

/* How many names below a folder of the data folder begin with this. */
static size_t
count_names(const char *below, const char *start)
{
    char path[256];
    size_t n = 0;
    const struct dirent *entry;
    (void)snprintf(path, sizeof(path), "%s/data/%s", daemon->dir, below);
    DIR *dir = opendir(path);
    while (dir && (entry = readdir(dir)) != NULL)
        n += strcmp(entry->d_name, ".") != 0 &&
             strcmp(entry->d_name, "..") != 0 &&
             strncmp(entry->d_name, start, strlen(start)) == 0;
    if (dir)
        (void)closedir(dir);
    return n;
}

static void
assert_nothing_left(void)
{
    assert_int_equal(count_names("incoming", ""), 0);
    assert_int_equal(count_names("", "spool"), 0);
}

static void
assert_refused(struct kit_reply reply, long status, const char *says)
{
    const char *detail = json_string_value(kit_at(reply.json, "/detail"));
    if (reply.status != status || !detail || !strstr(detail, says))
        print_error(
            "not %ld \"%s\": %ld %s\n", status, says, reply.status, reply.body);
    assert_int_equal(reply.status, status);
    assert_non_null(detail);
    assert_non_null(strstr(detail, says));
    kit_reply_free(&reply);
    assert_nothing_left();
}

static void
assert_status(struct kit_reply reply, long status)
{
    if (reply.status != status)
        print_error("not %ld: %ld %s\n", status, reply.status, reply.body);
    assert_int_equal(reply.status, status);
    kit_reply_free(&reply);
}

/* ---- in ------------------------------------------------------------------ */

static void
assert_tiny(json_t *encoder, const char *name)
{
    static const char *const texts[] = {
        "name", "family", "reads", "fingerprint"};
    static const char *const numbers[] = {"dims", "max_tokens", "parameters",
        "weights_bytes", "created_ms", "collections"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_true(json_is_string(json_object_get(encoder, texts[i])));
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        assert_true(json_is_integer(json_object_get(encoder, numbers[i])));
    assert_int_equal(json_object_size(encoder), 12);
    assert_string_equal(json_string_value(kit_at(encoder, "/name")), name);
    assert_string_equal(
        json_string_value(kit_at(encoder, "/family")), "transformer");
    assert_string_equal(json_string_value(kit_at(encoder, "/reads")), "text");
    assert_int_equal(json_integer_value(kit_at(encoder, "/dims")), HIDDEN);
    assert_int_equal(
        json_integer_value(kit_at(encoder, "/config/hidden")), HIDDEN);
    assert_string_equal(
        json_string_value(kit_at(encoder, "/card/license")), "mit");
    assert_true(json_integer_value(kit_at(encoder, "/parameters")) > 2000);
    assert_true(json_integer_value(kit_at(encoder, "/weights_bytes")) > 8000);
}

static void
test_import(void **state)
{
    (void)state;
    struct kit_reply reply = send_folder("tiny");
    if (reply.status != 201)
        print_error("%s\n", reply.body);
    assert_int_equal(reply.status, 201);
    assert_string_equal(kit_header(&reply, "Location"), "/v1/encoders/tiny");
    assert_tiny(reply.json, "tiny");
    kit_reply_free(&reply);
    assert_nothing_left();

    /* The same once more, in one folder and by chunks. */
    struct buf tar = pack();
    reply = send_tar("tiny", &tar, true);
    assert_int_equal(reply.status, 200);
    assert_null(kit_header(&reply, "Location"));
    assert_tiny(reply.json, "tiny");
    kit_reply_free(&reply);
    buf_release(&tar);
    assert_nothing_left();

    write_weights(folder, 2);
    assert_refused(send_folder("tiny"), 409, "tiny");
    assert_status(send_folder("other"), 201);
    write_weights(folder, 1);

    reply = kit_get(daemon, "/v1/encoders");
    assert_int_equal(reply.status, 200);
    assert_int_equal(json_array_size(kit_at(reply.json, "/encoders")), 2);
    bool first =
        strcmp(json_string_value(kit_at(reply.json, "/encoders/0/name")),
            "tiny") == 0;
    assert_tiny(
        kit_at(reply.json, first ? "/encoders/0" : "/encoders/1"), "tiny");
    assert_string_equal(
        json_string_value(kit_at(reply.json, "/families/0/name")), "static");
    kit_reply_free(&reply);
    reply = kit_get(daemon, "/v1/encoders/tiny");
    assert_int_equal(reply.status, 200);
    assert_tiny(reply.json, "tiny");
    kit_reply_free(&reply);
    assert_refused(kit_get(daemon, "/v1/encoders/none"), 404, "none");
    assert_status(kit_send(daemon, "DELETE", PATH_OF("other"), NULL), 204);
    assert_refused(
        kit_send(daemon, "DELETE", PATH_OF("other"), NULL), 404, "other");
}

/* A body of one chunk that is sent to its end, whatever is answered meanwhile;
   then the answer. */
static char *
send_all(const char *path, size_t len)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    char head[256], piece[65536] = "", *text = calloc(1, 65536);
    size_t at = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_port = htons((uint16_t)daemon->port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(
        connect(fd, (const struct sockaddr *)(const void *)&to, sizeof(to)), 0);
    int n = snprintf(head, sizeof(head),
        "PUT %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: "
        "application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n%zx\r\n",
        path, daemon->port, len);
    assert_int_equal(send(fd, head, (size_t)n, MSG_NOSIGNAL), n);
    for (ssize_t sent; at < len; at += (size_t)sent) {
        sent = send(fd, piece, MIN(sizeof(piece), len - at), MSG_NOSIGNAL);
        if (sent <= 0)
            fail_msg("cut off after %zu bytes of %zu", at, len);
    }
    (void)recv(fd, text, 65535, MSG_WAITALL);
    close(fd);
    return text;
}

/* ---- what is refused ------------------------------------------------------
 */

static void
send_text(const char *type, const char *text, long status, const char *says)
{
    const struct kit_call call = {
        .method = "PUT", .path = PATH_OF("bad"), .type = type, .body = text};
    assert_refused(kit_do(daemon, &call), status, says);
}

static void
test_refused_bodies(void **state)
{
    (void)state;
    send_text("application/octet-stream", "x", 415, TAR);
    send_text("application/gzip", "x", 415, TAR);
    send_text("application/json", "{}", 415, TAR);
    send_text(TAR, "not a tar, and longer than nothing", 422, "no whole tar");
    send_text(TAR, "\x1f\x8b\x08", 422, "no whole tar");
    send_text(TAR, "", 422, "the body is empty");
    struct buf tar = pack();
    struct buf cut = tar;
    cut.len = tar.len / 2;
    assert_refused(send_tar("bad", &cut, false), 422, "no whole tar");
    buf_release(&tar);
}

static void
remove_file(const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    assert_int_equal(unlink(path), 0);
}

/* Streams of these files are no encoders. */
static void
test_refused_folders(void **state)
{
    (void)state;
    char path[256];
    assert_refused(send_folder("static"), 422, "static");
    assert_refused(send_folder("no%2Fslash"), 422, "");
    remove_file("model.safetensors");
    assert_refused(send_folder("bad"), 422, "model.safetensors");
    write_text(folder, "pytorch_model.bin", "x");
    assert_refused(send_folder("bad"), 422, "pytorch_model.bin");
    remove_file("pytorch_model.bin");
    write_text(folder, "model.safetensors", "short");
    assert_refused(send_folder("bad"), 422, "model.safetensors");
    write_weights(folder, 1);
    remove_file("config.json");
    assert_refused(send_folder("bad"), 422, "config.json");
    write_folder(folder);
    (void)snprintf(path, sizeof(path), "%s/modules.json", folder);
    write_text(folder, "modules.json",
        "[{\"idx\":0,\"name\":\"0\",\"path\":\"../..\",\"type\":"
        "\"sentence_transformers.models.Transformer\"}]");
    assert_refused(send_folder("bad"), 422, "modules.json");
    assert_int_equal(unlink(path), 0);
    assert_status(kit_get(daemon, "/v1/encoders/bad"), 404);
}

/* ---- limits ---------------------------------------------------------------
 */

static long
peak_kib(void)
{
    char path[64];
    char line[128];
    long kib = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)daemon->pid);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        (void)sscanf(line, "VmHWM: %ld", &kib);
    (void)fclose(f);
    return kib;
}

#define LONG_BYTES (96 << 20)

/* A body of 96 MiB costs little memory, on its way in and when unpacked. */
static void
test_memory(void **state)
{
    (void)state;
    char *zeros = calloc(1, LONG_BYTES);
    assert_non_null(zeros);
    write_file(folder, "training.bin", zeros, LONG_BYTES);
    free(zeros);
    remove_file("config.json");
    long before = peak_kib();
    assert_refused(send_folder("bad"), 422, "config.json");
    long more = peak_kib() - before;
    if (more > 24 << 10)
        print_error("the peak has grown by %ld KiB\n", more);
#ifndef __SANITIZE_ADDRESS__
    assert_true(more <= 24 << 10);
#endif
    remove_file("training.bin");
    write_folder(folder);
}

static void
test_limits(void **state)
{
    (void)state;
    static const char *const small[] = {
        "--encoder-bytes-max", "30000", "--body-deadline-ms", "400", NULL};
    daemon = &own;
    assert_true(kit_start(daemon, small));
    struct buf tar = pack();
    assert_true(tar.len > 10000 && tar.len < 30000);
    assert_status(send_tar("tiny", &tar, true), 201);
    struct buf over;
    buf_init(&over, 4 << 20);
    while (over.len <= 30000)
        buf_add(&over, tar.data, tar.len);
    assert_refused(send_tar("tiny", &over, false), 413, "30000");
    assert_refused(send_tar("tiny", &over, true), 413, "30000");
    over.len = 30000; /* the rest of a tar is thrown away as tar does */
    assert_status(send_tar("tiny", &over, true), 200);
    buf_release(&over);

    /* Who does not read before all is sent sees the answer, not its end. */
    char *text = send_all("/v1/admin/encoders/tiny", 16 << 20);
    assert_int_equal(strncmp(text, "HTTP/1.1 413 ", 13), 0);
    assert_non_null(strstr(text, "30000"));
    free(text);

    /* A body that does not come is given up, with all that came. */
    char head[256];
    int n = snprintf(head, sizeof(head),
        "PUT " PATH_OF("late") " HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                               "Content-Type: " TAR
                               "\r\nContent-Length: %zu\r\n\r\n",
        tar.len);
    struct buf part;
    buf_init(&part, 1 << 20);
    buf_add(&part, head, (size_t)n);
    buf_add(&part, tar.data, tar.len / 2);
    char *answer = kit_raw(daemon, part.data, part.len, NULL);
    assert_non_null(strstr(answer, "408"));
    free(answer);
    buf_release(&part);
    buf_release(&tar);
    assert_nothing_left();
    assert_status(kit_get(daemon, "/v1/encoders/late"), 404);
    assert_int_equal(kit_stop(daemon), 0);
}

/* ---- use ------------------------------------------------------------------
 */

#define C "/v1/collections/words"

static void
test_use(void **state)
{
    (void)state;
    struct kit_reply reply =
        kit_send(daemon, "PUT", C, "{\"encoder\":\"tiny\"}");
    if (reply.status != 201)
        print_error("%s\n", reply.body);
    assert_int_equal(reply.status, 201);
    assert_non_null(strstr(reply.body, "\"encoder\":\"tiny\""));
    assert_string_equal(
        json_string_value(kit_at(reply.json, "/reads")), "text");
    assert_int_equal(json_integer_value(kit_at(reply.json, "/dims")), HIDDEN);
    kit_reply_free(&reply);
    assert_refused(
        kit_send(daemon, "PUT", "/v1/collections/x", "{\"encoder\":\"none\"}"),
        422, "none");
    assert_status(
        kit_send(daemon, "PUT", C "/items/a", "{\"text\":\"web servers\"}"),
        201);
    assert_status(
        kit_send(daemon, "PUT", C "/items/b", "{\"text\":\"a fruit\"}"), 201);
    reply = kit_send(daemon, "POST", C "/search", "{\"text\":\"a fruit\"}");
    assert_int_equal(reply.status, 200);
    assert_string_equal(
        json_string_value(kit_at(reply.json, "/hits/0/id")), "b");
    kit_reply_free(&reply);

    reply = kit_send(daemon, "POST", "/v1/embeddings",
        "{\"model\":\"tiny\",\"input\":[\"web servers\"]}");
    assert_int_equal(reply.status, 200);
    assert_int_equal(
        json_array_size(kit_at(reply.json, "/data/0/embedding")), HIDDEN);
    kit_reply_free(&reply);
    reply = kit_send(daemon, "POST", "/v1/tokenize",
        "{\"model\":\"tiny\",\"inputs\":\"web servers\"}");
    assert_int_equal(reply.status, 200);
    if (!strstr(reply.body, "##s"))
        print_error("%s\n", reply.body);
    assert_non_null(strstr(reply.body, "##s"));
    kit_reply_free(&reply);

    reply = kit_get(daemon, "/v1/encoders/tiny");
    assert_int_equal(json_integer_value(kit_at(reply.json, "/collections")), 1);
    kit_reply_free(&reply);
    assert_refused(
        kit_send(daemon, "DELETE", PATH_OF("tiny"), NULL), 409, "words");
}

/* What is known of the encoder stands at its generations; where there is no
   imported one, nothing is said of it. */
static void
test_card(void **state)
{
    (void)state;
    struct kit_reply reply = kit_get(daemon, "/v1/encoders/tiny");
    json_int_t n = json_integer_value(kit_at(reply.json, "/parameters"));
    kit_reply_free(&reply);
    reply = kit_get(daemon, C "/generations/1");
    assert_int_equal(reply.status, 200);
    assert_string_equal(
        json_string_value(kit_at(reply.json, "/family")), "transformer");
    assert_string_equal(
        json_string_value(kit_at(reply.json, "/encoder")), "tiny");
    assert_string_equal(
        json_string_value(kit_at(reply.json, "/card/license")), "mit");
    assert_true(n > 0);
    assert_int_equal(json_integer_value(kit_at(reply.json, "/parameters")), n);
    assert_int_equal(json_integer_value(kit_at(reply.json, "/dims")),
        json_integer_value(kit_at(reply.json, "/config/dims")));
    kit_reply_free(&reply);
    reply = kit_get(daemon, C "/generations");
    assert_string_equal(
        json_string_value(kit_at(reply.json, "/generations/0/encoder")),
        "tiny");
    kit_reply_free(&reply);

    assert_status(kit_send(daemon, "PUT", "/v1/collections/hashed", "{}"), 201);
    reply = kit_get(daemon, "/v1/collections/hashed/generations/1");
    assert_string_equal(
        json_string_value(kit_at(reply.json, "/family")), "static");
    assert_true(json_is_null(kit_at(reply.json, "/encoder")));
    assert_true(json_is_null(kit_at(reply.json, "/card")));
    assert_true(json_is_null(kit_at(reply.json, "/parameters")));
    kit_reply_free(&reply);
    assert_status(
        kit_send(daemon, "DELETE", "/v1/collections/hashed", NULL), 204);
}

static void
test_folder(void **state)
{
    (void)state;
    struct kit_reply reply = kit_get(daemon, "/v1/encoders/tiny");
    char fingerprint[80];
    (void)snprintf(fingerprint, sizeof(fingerprint), "%s",
        json_string_value(kit_at(reply.json, "/fingerprint")));
    kit_reply_free(&reply);
    reply = kit_get(daemon, C "/generations/1/folder");
    if (reply.status != 200)
        print_error("%s\n", reply.body);
    assert_int_equal(reply.status, 200);
    assert_string_equal(kit_header(&reply, "Content-Type"), TAR);
    assert_string_equal(kit_header(&reply, "Content-Disposition"),
        "attachment; filename=\"generation-1.tar\"");
    struct buf tar = {.data = reply.body, .len = reply.len};
    struct kit_reply again = send_tar("again", &tar, false);
    if (again.status != 201)
        print_error("%s\n", again.body);
    assert_int_equal(again.status, 201);
    assert_string_equal(
        json_string_value(kit_at(again.json, "/fingerprint")), fingerprint);
    kit_reply_free(&again);
    kit_reply_free(&reply);
    assert_nothing_left();

    assert_refused(kit_get(daemon, C "/generations/9/folder"), 404, "9");
    assert_status(kit_send(daemon, "PUT", "/v1/collections/photos",
                      "{\"encoder\":\"vision\"}"),
        201);
    assert_refused(
        kit_get(daemon, "/v1/collections/photos/generations/1/folder"), 409,
        "");

    assert_status(kit_send(daemon, "DELETE", C, NULL), 204);
    assert_status(kit_send(daemon, "DELETE", PATH_OF("tiny"), NULL), 204);
    assert_status(kit_get(daemon, "/v1/encoders/tiny"), 404);
}

/* ---- the start ------------------------------------------------------------
 */

static void
assert_no_start(const char *setting, const char *says)
{
    const char *const args[] = {"--encoder", setting, NULL};
    struct buf log;
    kit_clean(&own);
    assert_false(kit_start(&own, args));
    buf_init(&log, 1 << 16);
    assert_int_equal(fsio_read(own.log, &log, NULL), OK);
    buf_add_char(&log, '\0');
    if (own.exit_code != 2 || !strstr(log.data, says))
        print_error("%s: %d %s\n", setting, own.exit_code, log.data);
    assert_int_equal(own.exit_code, 2);
    assert_non_null(strstr(log.data, says));
    buf_release(&log);
}

static void
test_start(void **state)
{
    (void)state;
    char path[256];
    char setting[200];
    daemon = &own;
    (void)snprintf(
        setting, sizeof(setting), "one=%s, two = %s", folder, folder);
    const char *const args[] = {"--encoder", setting, NULL};
    assert_true(kit_start(daemon, args));
    assert_status(kit_get(daemon, "/v1/encoders/one"), 200);
    assert_status(kit_get(daemon, "/v1/encoders/two"), 200);
    assert_int_equal(kit_stop(daemon), 0);

    /* What a crash has left goes; names that are there need no folder. */
    (void)snprintf(path, sizeof(path), "%s/data/incoming", daemon->dir);
    (void)mkdir(path, 0700);
    (void)snprintf(
        path, sizeof(path), "%s/data/incoming/folder-x", daemon->dir);
    assert_int_equal(mkdir(path, 0700), 0);
    write_text(path, "config.json", "{}");
    const char *const gone[] = {"--encoder", "one=/nowhere/at/all", NULL};
    assert_true(kit_start_again(daemon, gone));
    assert_nothing_left();
    assert_int_equal(kit_stop(daemon), 0);

    assert_no_start("one=/nowhere/at/all", "one=/nowhere/at/all");
    assert_no_start("static=/nowhere", "static");
    assert_no_start("one", "\"one\" is not NAME=FOLDER");
    assert_no_start("=/x", "is not NAME=FOLDER");
    assert_no_start("one=", "is not NAME=FOLDER");
    (void)snprintf(setting, sizeof(setting), "one=%s,,", folder);
    assert_no_start(setting, "\"\" is not NAME=FOLDER");
}

static int
setup(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/kindred-tiny-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    write_folder(folder);
    return kit_start(&common, NULL) ? 0 : -1;
}

/* Also where the test has failed. */
static int
end_own(void **state)
{
    (void)state;
    kit_clean(&own);
    daemon = &common;
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    int code = kit_stop(&common);
    kit_clean(&common);
    tarball_discard(folder);
    return code;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_import),
        cmocka_unit_test(test_refused_bodies),
        cmocka_unit_test(test_refused_folders), cmocka_unit_test(test_memory),
        cmocka_unit_test_teardown(test_limits, end_own),
        cmocka_unit_test(test_use), cmocka_unit_test(test_card),
        cmocka_unit_test(test_folder),
        cmocka_unit_test_teardown(test_start, end_own)};
    return cmocka_run_group_tests_name("encoders", tests, setup, teardown);
}
