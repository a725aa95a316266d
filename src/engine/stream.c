/* Long answers in pieces: the frame, and files (weights, folders, backups). */
#include "engine/stream.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/failpoint.h"
#include "base/tarball.h"
#include "model/published.h"
#include "store/weights.h"
#include "engine/internal.h"

enum err
stream_new(struct engine_stream **out, stream_next_fn *next,
    stream_free_fn *free_fn, void *state, int64_t bytes)
{
    struct engine_stream *s = mem_alloc(1, sizeof(*s));
    if (!s) {
        free_fn(state);
        return ERR_NOMEM;
    }
    *s = (struct engine_stream){
        .next = next, .free = free_fn, .state = state, .bytes = bytes};
    *out = s;
    return OK;
}

enum err
engine_stream_next(struct engine_stream *stream, struct buf *chunk, bool *end,
    struct fault *fault)
{
    enum err err = stream->next(stream->state, chunk, end, fault);
    return fault_of(fault, err ? err : buf_status(chunk), "reading on");
}

int64_t
engine_stream_bytes(const struct engine_stream *stream)
{
    return stream->bytes;
}

void
engine_stream_free(struct engine_stream *stream)
{
    if (stream) {
        stream->free(stream->state);
        mem_free(stream);
    }
}

/* ---- a file -------------------------------------------------------------- */

struct file {
    int fd;
    int64_t at;
    char piece[STREAM_PIECE_BYTES];
};

static enum err
next_of_file(void *state, struct buf *chunk, bool *end, struct fault *fault)
{
    (void)fault;
    struct file *f = state;
    ssize_t n;
    do {
        n = pread(f->fd, f->piece, sizeof(f->piece), (off_t)f->at);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return ERR_IO;
    }
    buf_add(chunk, f->piece, (size_t)n);
    f->at += n;
    *end = n == 0;
    return OK;
}

static void
free_file(void *state)
{
    struct file *f = state;
    if (f->fd >= 0) {
        close(f->fd);
    }
    mem_free(f);
}

/* Takes the descriptor. */
static enum err
stream_file(struct engine_stream **out, int fd)
{
    struct stat st;
    struct file *f = mem_calloc(1, sizeof(*f));
    if (!f) {
        close(fd);
        return ERR_NOMEM;
    }
    f->fd = fd;
    if (fstat(fd, &st)) {
        free_file(f);
        return ERR_IO;
    }
    return stream_new(out, next_of_file, free_file, f, (int64_t)st.st_size);
}

/* ---- weights ------------------------------------------------------------- */

static enum err
write_file(void *arg, const void *bytes, size_t n)
{
    const int *fd = arg;
    const char *p = bytes;
    while (n > 0) {
        ssize_t w = write(*fd, p, n);
        if (w < 0 && errno == EINTR) {
            continue;
        }
        if (w <= 0) {
            return errno == ENOSPC ? ERR_FULL : ERR_IO;
        }
        p += w;
        n -= (size_t)w;
    }
    return OK;
}

/* A file without a name in the data folder. */
static enum err
open_spool(struct engine *engine, int *fd)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s/spool-XXXXXX", engine->data_dir);
    if (n < 0 || (size_t)n >= sizeof(path)) {
        return ERR_IO;
    }
    *fd = mkstemp(path);
    if (*fd < 0) {
        return errno == ENOSPC ? ERR_FULL : ERR_IO;
    }
    (void)unlink(path);
    return OK;
}

static enum err
spool_weights(struct engine *engine, const struct generation_row *row, int fd,
    struct fault *fault)
{
    if (row->weights == WEIGHTS_COMPLETE) {
        return weights_read(engine->store, row->id, write_file, &fd);
    }
    if (row->encoder) {
        return encoder_weights_read(
            engine->store, row->encoder, write_file, &fd);
    }
    struct encoder_ref *ref;
    enum err err = load_encoder(engine, row, &ref, fault);
    if (!err) {
        err = encoder_save(encoder_ref_get(ref), write_file, &fd);
        encoder_ref_less(ref);
    }
    return err;
}

/* A generation whose encoder is there. */
static enum err
find_encoder(struct collection *c, int64_t generation, struct arena *arena,
    struct generation_row *row, struct fault *fault)
{
    struct db *db;
    enum err err = store_read_begin(c->engine->store, &db);
    if (!err) {
        err = generations_get(db, c->id, generation, arena, row);
        store_read_end(c->engine->store, db);
        if (err == ERR_NOT_FOUND) {
            return fault_set(fault, err, "", "there is no generation %lld",
                (long long)generation);
        }
    }
    if (!err &&
        (row->weights == WEIGHTS_DROPPED || row->weights == WEIGHTS_PARTIAL ||
            strcmp(row->family.s, SETTINGS_EXTERNAL) == 0)) {
        return fault_set(fault, ERR_NOT_FOUND, "",
            "no weights are kept of generation %lld", (long long)generation);
    }
    return err;
}

/* Spooled to a file first, so that a slow reader holds no snapshot, memory
   stays small, and the checksum is known before the first byte goes out. */
enum err
engine_weights_new(struct engine_stream **out, struct engine *engine,
    const char *collection, int64_t generation, struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    struct arena arena;
    struct generation_row row;
    int fd = -1;
    arena_init(&arena, SMALL_ARENA_BYTES);
    err = find_encoder(c, generation, &arena, &row, fault);
    if (!err) {
        err = open_spool(engine, &fd);
    }
    if (!err) {
        err = spool_weights(engine, &row, fd, fault);
    }
    if (!err) {
        err = stream_file(out, fd);
        fd = -1;
    }
    if (fd >= 0) {
        close(fd);
    }
    arena_release(&arena);
    collection_unref(c);
    return fault_of(fault, err, "reading the weights");
}

/* ---- folders ------------------------------------------------------------- */

/* The encoder of a generation: the live one's is loaded already. */
static enum err
take_encoder(struct collection *c, const struct generation_row *row,
    struct encoder_ref **out, struct fault *fault)
{
    struct snapshot *live = collection_live(c);
    enum err err = OK;
    if (live->generation == row->generation) {
        *out = encoder_ref_more(live->encoder);
    } else {
        err = load_encoder(c->engine, row, out, fault);
    }
    snapshot_unref(live);
    return err;
}

/* What is known of the encoder that the lineage began with; NULL: nothing. */
static enum err
find_card(struct collection *c, struct arena *arena, const char **card)
{
    struct generation_row first;
    struct encoder_row encoder;
    struct db *db;
    *card = NULL;
    enum err err = store_read_begin(c->engine->store, &db);
    if (err) {
        return err;
    }
    err = generations_get(db, c->id, 1, arena, &first);
    if (!err) {
        err = encoders_get_by_id(db, first.encoder, arena, &encoder);
    }
    store_read_end(c->engine->store, db);
    if (!err) {
        *card = encoder.facts.card.s;
    }
    return err == ERR_NOT_FOUND ? OK : err;
}

/* The folder is made, packed into the spool, and goes again. */
static enum err
spool_folder(struct engine *engine, const struct encoder *encoder,
    const char *name, const char *card, int fd, struct fault *fault)
{
    char dir[PATH_MAX];
    int n = snprintf(dir, sizeof(dir), "%s/folder-XXXXXX", engine->data_dir);
    if (n < 0 || (size_t)n >= sizeof(dir)) {
        return ERR_IO;
    }
    if (!mkdtemp(dir)) {
        return errno == ENOSPC ? ERR_FULL : ERR_IO;
    }
    enum err err = published_export(encoder, dir, name, card, fault);
    failpoint("folder_made");
    if (!err) {
        err = tarball_pack(dir, write_file, &fd, fault);
    }
    tarball_discard(dir);
    return err;
}

enum err
engine_folder_new(struct engine_stream **out, struct engine *engine,
    const char *collection, int64_t generation, struct fault *fault)
{
    struct collection *c;
    enum err err = collection_find(engine, collection, &c, fault);
    if (err) {
        return err;
    }
    struct encoder_ref *ref = NULL;
    struct generation_row row;
    struct arena arena;
    const char *card;
    int fd = -1;
    arena_init(&arena, SMALL_ARENA_BYTES);
    if (settings_reads(&c->fixed) == SETTINGS_READS_NOTHING) {
        err = fault_set(fault, ERR_UNSUPPORTED, "",
            "the collection brings its own vectors: it has no encoder");
    }
    if (!err) {
        err = find_encoder(c, generation, &arena, &row, fault);
    }
    if (!err) {
        err = take_encoder(c, &row, &ref, fault);
    }
    if (!err) {
        err = find_card(c, &arena, &card);
    }
    if (!err) {
        err = open_spool(engine, &fd);
    }
    if (!err) {
        err = spool_folder(
            engine, encoder_ref_get(ref), c->name, card, fd, fault);
    }
    if (!err) {
        err = stream_file(out, fd);
        fd = -1;
    }
    if (fd >= 0) {
        close(fd);
    }
    encoder_ref_less(ref);
    arena_release(&arena);
    collection_unref(c);
    return fault_of(fault, err, "writing the folder");
}

void
stream_sweep(const char *data_dir)
{
    DIR *dir = opendir(data_dir);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL) {
        char path[PATH_MAX];
        bool spool = strncmp(entry->d_name, "spool-", 6) == 0;
        bool folder = strncmp(entry->d_name, "folder-", 7) == 0;
        int n = snprintf(path, sizeof(path), "%s/%s", data_dir, entry->d_name);
        if (n < 0 || (size_t)n >= sizeof(path)) {
            continue;
        }
        if (spool) {
            (void)unlink(path);
        } else if (folder) {
            tarball_discard(path);
        }
    }
    if (dir) {
        (void)closedir(dir);
    }
}

/* ---- backups ------------------------------------------------------------- */

enum err
engine_backup_start(struct engine *engine, int64_t *id, struct fault *fault)
{
    return jobs_queue(engine->jobs, NULL, JOB_KIND_BACKUP, "{}", id, fault);
}

enum err
engine_backups_list(struct engine *engine, struct arena *arena,
    struct engine_backup **out, size_t *n, struct fault *fault)
{
    struct store_backup_info *infos = NULL;
    size_t count = 0;
    enum err err = store_list_backups(engine->store, &infos, &count);
    struct engine_backup *list = NULL;
    if (!err) {
        list = arena_calloc(arena, count + 1, sizeof(*list));
        err = list ? OK : ERR_NOMEM;
    }
    for (size_t i = 0; i < count && !err; i++) {
        list[i] = (struct engine_backup){.bytes = (uint64_t)infos[i].bytes,
            .created_ms = infos[i].created_ms};
        list[i].name =
            arena_strndup(arena, infos[i].name, strlen(infos[i].name));
        err = list[i].name ? OK : ERR_NOMEM;
    }
    mem_free(infos);
    if (!err) {
        *out = list;
        *n = count;
    }
    return fault_of(fault, err, "listing the backups");
}

enum err
engine_backup_open(struct engine_stream **out, struct engine *engine,
    const char *name, struct fault *fault)
{
    char path[PATH_MAX];
    enum err err = store_backup_path(engine->store, name, path, sizeof(path));
    if (err == ERR_NOT_FOUND || err == ERR_INVALID) {
        return fault_set(
            fault, ERR_NOT_FOUND, "", "there is no backup of this name");
    }
    int fd = err ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (!err) {
        err = fd < 0 ? ERR_IO : stream_file(out, fd);
    }
    return fault_of(fault, err, "reading the backup");
}
