#include "store/weights.h"

#include <string.h>

#include "base/alloc.h"
#include "base/failpoint.h"
#include "store/db.h"
#include "store/generations.h"
#include "store/weights_internal.h"

const struct weights_table weights_of_generations = {
    .get = "SELECT weights, weights_bytes, weights_sha256 FROM generations"
           " WHERE id = ?1",
    .set_partial =
        "UPDATE generations SET weights = 1, weights_bytes = 0,"
        " weights_sha256 = NULL, weights_purge = 0 WHERE id = ?1 AND state = 0",
    .set_complete =
        "UPDATE generations SET weights = 2, weights_bytes = ?2,"
        " weights_sha256 = ?3 WHERE id = ?1 AND state = 0 AND weights = 1",
    .put_chunk = "INSERT INTO weights (key, bytes) VALUES (?1, ?2)"
                 " ON CONFLICT (key) DO UPDATE SET bytes = excluded.bytes",
    .get_chunk = "SELECT bytes FROM weights WHERE key = ?1",
    .delete_chunks = "DELETE FROM weights WHERE key >= ?1 AND key <= ?2"};

const struct weights_table weights_of_encoders = {
    .get = "SELECT weights, weights_bytes, weights_sha256 FROM encoders"
           " WHERE id = ?1",
    .set_partial = "UPDATE encoders SET weights_bytes = 0,"
                   " weights_sha256 = NULL WHERE id = ?1 AND weights = 1",
    .set_complete = "UPDATE encoders SET weights = 2, weights_bytes = ?2,"
                    " weights_sha256 = ?3 WHERE id = ?1 AND weights = 1",
    .put_chunk = "INSERT INTO encoder_weights (key, bytes) VALUES (?1, ?2)"
                 " ON CONFLICT (key) DO UPDATE SET bytes = excluded.bytes",
    .get_chunk = "SELECT bytes FROM encoder_weights WHERE key = ?1",
    .delete_chunks =
        "DELETE FROM encoder_weights WHERE key >= ?1 AND key <= ?2",
    .checked = true};

struct weights_writer {
    struct store *store;
    const struct weights_table *table;
    int64_t id;    /* of the owner */
    int64_t chunk; /* the next one */
    int64_t n_bytes;
    struct sha256 sha;
    enum err err;
    size_t n_held;
    unsigned char held[WEIGHTS_CHUNK_BYTES];
};

/* ---- writing ------------------------------------------------------------- */

static enum err
begin_op(struct db *db, void *arg)
{
    const struct weights_writer *writer = arg;
    const struct weights_table *table = writer->table;
    int64_t id = writer->id, changes = 0;
    struct query q;
    enum err err;

    query_start(&q, db, table->get);
    query_int(&q, id);
    if (!query_row(&q) && q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    err = query_end(&q);
    if (err != OK) {
        return err;
    }
    query_start(&q, db, table->set_partial);
    query_int(&q, id);
    err = query_run(&q, &changes);
    if (err == OK && changes == 0) {
        return ERR_CONFLICT;
    }
    if (err != OK) {
        return err;
    }
    query_start(&q, db, table->delete_chunks);
    query_int(&q, WEIGHTS_KEY(id, 0));
    query_int(&q, WEIGHTS_KEY(id, WEIGHTS_CHUNKS_MAX));
    return query_run(&q, NULL);
}

static enum err
put_chunk(struct db *db, const struct weights_writer *writer)
{
    struct query q;
    int64_t partial = 0;
    enum err err;

    /* The generation may have been discarded meanwhile. */
    query_start(&q, db, writer->table->get);
    query_int(&q, writer->id);
    if (query_row(&q)) {
        partial = query_get_int(&q, 0);
    }
    err = query_end(&q);
    if (err != OK) {
        return err;
    }
    if (partial != WEIGHTS_PARTIAL) {
        return ERR_CONFLICT;
    }
    query_start(&q, db, writer->table->put_chunk);
    query_int(&q, WEIGHTS_KEY(writer->id, writer->chunk));
    query_blob(&q, writer->held, writer->n_held);
    return query_run(&q, NULL);
}

static enum err
chunk_op(struct db *db, void *arg)
{
    enum err err = put_chunk(db, arg);

    failpoint("store_weights_chunk");
    return err;
}

struct finish {
    struct weights_writer *writer;
    uint8_t sha256[SHA256_BYTES];
};

static enum err
finish_op(struct db *db, void *arg)
{
    const struct finish *finish = arg;
    const struct weights_writer *writer = finish->writer;
    struct query q;
    int64_t changes = 0;
    enum err err = OK;

    if (writer->n_held > 0) {
        err = put_chunk(db, writer);
    }
    if (err != OK) {
        return err;
    }
    query_start(&q, db, writer->table->set_complete);
    query_int(&q, writer->id);
    query_int(&q, writer->n_bytes);
    query_blob(&q, finish->sha256, SHA256_BYTES);
    err = query_run(&q, &changes);
    return err == OK && changes == 0 ? ERR_CONFLICT : err;
}

enum err
weights_create_in(struct weights_writer **out, struct store *store,
    const struct weights_table *table, int64_t id)
{
    struct weights_writer *writer = mem_calloc(1, sizeof(*writer));
    enum err err;

    if (writer == NULL) {
        return ERR_NOMEM;
    }
    writer->store = store;
    writer->table = table;
    writer->id = id;
    sha256_start(&writer->sha);
    err = store_run(store, begin_op, writer);
    if (err != OK) {
        mem_free(writer);
        return err;
    }
    *out = writer;
    return OK;
}

enum err
weights_create(
    struct weights_writer **out, struct store *store, int64_t generation_id)
{
    return weights_create_in(
        out, store, &weights_of_generations, generation_id);
}

static enum err
flush(struct weights_writer *writer)
{
    if (writer->chunk == WEIGHTS_CHUNKS_MAX) {
        return ERR_TOO_LARGE;
    }
    enum err err = store_run(writer->store, chunk_op, writer);
    if (err == OK) {
        writer->chunk++;
        writer->n_held = 0;
    }
    return err;
}

enum err
weights_add(struct weights_writer *writer, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;

    if (writer->err != OK || n == 0) {
        return writer->err;
    }
    sha256_add(&writer->sha, bytes, n);
    writer->n_bytes += (int64_t)n;
    while (n > 0 && writer->err == OK) {
        size_t room = WEIGHTS_CHUNK_BYTES - writer->n_held;
        size_t part = MIN(n, room);
        memcpy(writer->held + writer->n_held, p, part);
        writer->n_held += part;
        p += part;
        n -= part;
        if (writer->n_held == WEIGHTS_CHUNK_BYTES) {
            writer->err = flush(writer);
        }
    }
    return writer->err;
}

enum err
weights_finish(struct weights_writer *writer, uint8_t sha256[SHA256_BYTES])
{
    struct finish finish = {.writer = writer};
    enum err err = writer->err;

    sha256_finish(&writer->sha, finish.sha256);
    if (err == OK) {
        err = store_run(writer->store, finish_op, &finish);
    }
    if (err == OK && sha256 != NULL) {
        memcpy(sha256, finish.sha256, SHA256_BYTES);
    }
    mem_free(writer);
    return err;
}

void
weights_abort(struct weights_writer *writer)
{
    mem_free(writer);
}

enum err
weights_save(
    struct store *store, int64_t generation_id, const void *bytes, size_t n)
{
    struct weights_writer *writer = NULL;
    enum err err = weights_create(&writer, store, generation_id);

    if (err != OK) {
        return err;
    }
    err = weights_add(writer, bytes, n);
    if (err != OK) {
        weights_abort(writer);
        return err;
    }
    return weights_finish(writer, NULL);
}

/* ---- reading ------------------------------------------------------------- */

struct facts {
    int64_t n_bytes;
    uint8_t sha256[SHA256_BYTES];
};

static enum err
get_facts(struct db *db, const struct weights_table *table, int64_t id,
    struct facts *facts)
{
    struct query q;

    query_start(&q, db, table->get);
    query_int(&q, id);
    if (query_row(&q) && query_get_int(&q, 0) == WEIGHTS_COMPLETE) {
        facts->n_bytes = query_get_int(&q, 1);
        query_get_bytes(&q, 2, facts->sha256, SHA256_BYTES);
    } else if (q.err == OK) {
        q.err = ERR_NOT_FOUND;
    }
    return query_end(&q);
}

/* One chunk into out, which has room for a chunk; its size must be n. */
static enum err
read_chunk(struct db *db, const struct weights_table *table, int64_t id,
    int64_t chunk, void *out, size_t n)
{
    struct query q;

    query_start(&q, db, table->get_chunk);
    query_int(&q, WEIGHTS_KEY(id, chunk));
    if (query_row(&q)) {
        query_get_bytes(&q, 0, out, n);
    } else if (q.err == OK) {
        q.err = ERR_CORRUPT;
    }
    return query_end(&q);
}

static size_t
chunk_size(int64_t n_bytes, int64_t chunk)
{
    int64_t left = n_bytes - chunk * (int64_t)WEIGHTS_CHUNK_BYTES;

    return (size_t)MIN(left, (int64_t)WEIGHTS_CHUNK_BYTES);
}

static int64_t
count_chunks(int64_t n_bytes)
{
    int64_t chunk_bytes = (int64_t)WEIGHTS_CHUNK_BYTES;

    return (n_bytes + chunk_bytes - 1) / chunk_bytes;
}

/* A chunk in a snapshot of its own. When it is gone because the generation
   was retired meanwhile, that is ERR_NOT_FOUND and no damage. */
static enum err
fetch_chunk(struct store *store, const struct weights_table *table, int64_t id,
    int64_t chunk, const struct facts *facts, void *out)
{
    struct facts now = *facts;
    struct db *db = NULL;
    enum err err = store_read_begin(store, &db);

    if (err != OK) {
        return err;
    }
    err = get_facts(db, table, id, &now);
    if (err == OK && memcmp(now.sha256, facts->sha256, SHA256_BYTES) != 0) {
        err = ERR_NOT_FOUND;
    }
    if (err == OK) {
        err = read_chunk(
            db, table, id, chunk, out, chunk_size(facts->n_bytes, chunk));
    }
    store_read_end(store, db);
    return err;
}

static enum err
fetch_facts(struct store *store, const struct weights_table *table, int64_t id,
    struct facts *facts)
{
    struct db *db = NULL;
    enum err err = store_read_begin(store, &db);

    if (err == OK) {
        err = get_facts(db, table, id, facts);
        store_read_end(store, db);
    }
    if (err == OK && (facts->n_bytes < 0 ||
                         count_chunks(facts->n_bytes) > WEIGHTS_CHUNKS_MAX)) {
        err = ERR_CORRUPT;
    }
    return err;
}

enum err
weights_read_in(struct store *store, const struct weights_table *table,
    int64_t id, weights_chunk_fn *fn, void *ctx)
{
    uint8_t sha256[SHA256_BYTES];
    struct facts facts;
    struct sha256 sha;
    unsigned char *chunk = NULL;
    enum err err = fetch_facts(store, table, id, &facts);

    if (err != OK) {
        return err;
    }
    chunk = mem_alloc(WEIGHTS_CHUNK_BYTES, 1);
    if (chunk == NULL) {
        return ERR_NOMEM;
    }
    sha256_start(&sha);
    for (int64_t i = 0; i < count_chunks(facts.n_bytes) && err == OK; i++) {
        size_t n = chunk_size(facts.n_bytes, i);
        err = fetch_chunk(store, table, id, i, &facts, chunk);
        if (err == OK) {
            sha256_add(&sha, chunk, n);
            err = fn(ctx, chunk, n);
        }
    }
    if (err == OK) {
        sha256_finish(&sha, sha256);
        if (memcmp(sha256, facts.sha256, SHA256_BYTES) != 0) {
            err = ERR_CORRUPT;
        }
    }
    mem_free(chunk);
    return err;
}

enum err
weights_read(
    struct store *store, int64_t generation_id, weights_chunk_fn *fn, void *ctx)
{
    return weights_read_in(
        store, &weights_of_generations, generation_id, fn, ctx);
}

struct weights_reader {
    struct store *store;
    const struct weights_table *table;
    int64_t id;
    struct facts facts;
    struct sha256 sha; /* of the chunks so far, if they are checked */
    int64_t chunk;     /* the next one to fetch */
    size_t at, len;    /* within bytes */
    unsigned char bytes[WEIGHTS_CHUNK_BYTES];
};

enum err
weights_open_in(struct weights_reader **out, struct store *store,
    const struct weights_table *table, int64_t id, uint64_t *n_bytes)
{
    struct weights_reader *reader = mem_alloc(1, sizeof(*reader));
    enum err err;

    if (reader == NULL) {
        return ERR_NOMEM;
    }
    reader->store = store;
    reader->table = table;
    reader->id = id;
    reader->chunk = 0;
    reader->at = reader->len = 0;
    sha256_start(&reader->sha);
    err = fetch_facts(store, table, id, &reader->facts);
    if (err != OK) {
        mem_free(reader);
        return err;
    }
    *n_bytes = (uint64_t)reader->facts.n_bytes;
    *out = reader;
    return OK;
}

enum err
weights_open(struct weights_reader **out, struct store *store,
    int64_t generation_id, uint64_t *n_bytes)
{
    return weights_open_in(
        out, store, &weights_of_generations, generation_id, n_bytes);
}

/* The next chunk into bytes; damage is told before the last is given. */
static enum err
take_chunk(struct weights_reader *reader)
{
    int64_t n_chunks = count_chunks(reader->facts.n_bytes);
    uint8_t sha256[SHA256_BYTES];
    enum err err;

    if (reader->chunk == n_chunks) {
        return ERR_CORRUPT;
    }
    err = fetch_chunk(reader->store, reader->table, reader->id, reader->chunk,
        &reader->facts, reader->bytes);
    if (err != OK) {
        return err;
    }
    reader->len = chunk_size(reader->facts.n_bytes, reader->chunk);
    reader->at = 0;
    reader->chunk++;
    if (!reader->table->checked) {
        return OK;
    }
    sha256_add(&reader->sha, reader->bytes, reader->len);
    if (reader->chunk < n_chunks) {
        return OK;
    }
    sha256_finish(&reader->sha, sha256);
    if (memcmp(sha256, reader->facts.sha256, SHA256_BYTES) != 0) {
        reader->len = 0;
        return ERR_CORRUPT;
    }
    return OK;
}

enum err
weights_next(struct weights_reader *reader, void *out, size_t n)
{
    unsigned char *to = out;

    while (n > 0) {
        if (reader->at == reader->len) {
            enum err err = take_chunk(reader);
            if (err != OK) {
                return err;
            }
        }
        size_t step = MIN(n, reader->len - reader->at);
        memcpy(to, reader->bytes + reader->at, step);
        reader->at += step;
        to += step;
        n -= step;
    }
    return OK;
}

void
weights_close(struct weights_reader *reader)
{
    mem_free(reader);
}

/* The same on one connection, for the check of the whole file. */
enum err
weights_check(struct db *db, const struct weights_table *table, int64_t id)
{
    uint8_t sha256[SHA256_BYTES];
    struct facts facts;
    struct sha256 sha;
    unsigned char *chunk = NULL;
    enum err err = get_facts(db, table, id, &facts);

    if (err != OK) {
        return err;
    }
    if (facts.n_bytes < 0 || count_chunks(facts.n_bytes) > WEIGHTS_CHUNKS_MAX) {
        return ERR_CORRUPT;
    }
    chunk = mem_alloc(WEIGHTS_CHUNK_BYTES, 1);
    if (chunk == NULL) {
        return ERR_NOMEM;
    }
    sha256_start(&sha);
    for (int64_t i = 0; i < count_chunks(facts.n_bytes) && err == OK; i++) {
        size_t n = chunk_size(facts.n_bytes, i);
        err = read_chunk(db, table, id, i, chunk, n);
        sha256_add(&sha, chunk, n);
    }
    sha256_finish(&sha, sha256);
    if (err == OK && memcmp(sha256, facts.sha256, SHA256_BYTES) != 0) {
        err = ERR_CORRUPT;
    }
    mem_free(chunk);
    return err;
}
