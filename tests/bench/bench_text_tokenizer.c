/*
 * bench_text_tokenizer - how fast texts become tokens on one core.
 *
 *   bench_text_tokenizer [TOKENIZER.json ...]
 *
 * The descriptions of Debian's packages ($KINDRED_DATA/debian_packages, read
 * through zstd), one call a description, 512 tokens at most: with the
 * WordPiece vocabulary of all-MiniLM-L6-v2, with the Unigram pieces of
 * use-lite, both from $KINDRED_DATA/models, and with the files of the command
 * line. Medians of 9 rounds; nothing here is a test.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "text/tokenizer.h"

#define ROUNDS 9
#define N_TEXTS_MAX 20000
#define TOKENS_MAX 512
#define PIECES_OF_USE_LITE 8000

struct corpus {
    char *bytes;
    const char *texts[N_TEXTS_MAX];
    size_t lens[N_TEXTS_MAX];
    size_t n, n_bytes;
};

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void
measure(const char *name, const struct tokenizer *t, const struct corpus *c)
{
    struct tokenizer_workspace *workspace = tokenizer_workspace_new();
    uint32_t ids[TOKENS_MAX];
    double seconds[ROUNDS];
    size_t n, n_full, n_tokens = 0;

    for (size_t round = 0; round < ROUNDS && workspace != NULL; round++) {
        int64_t start = clock_mono_ns();
        n_tokens = 0;
        for (size_t i = 0; i < c->n; i++) {
            if (tokenizer_encode(t, c->texts[i], c->lens[i], TOKENS_MAX,
                    workspace, ids, &n, &n_full) != OK)
                abort();
            n_tokens += n_full;
        }
        seconds[round] = (double)(clock_mono_ns() - start) * 1e-9;
    }
    qsort(seconds, ROUNDS, sizeof seconds[0], compare);
    printf("%-32.32s %7.2f Mtoken/s %7.1f MB/s (%zu tokens)\n", name,
        (double)n_tokens / seconds[ROUNDS / 2] * 1e-6,
        (double)c->n_bytes / seconds[ROUNDS / 2] * 1e-6, n_tokens);
    tokenizer_workspace_free(workspace);
}

/* The last column of every line. */
static int
read_corpus(struct corpus *c, const char *data)
{
    char command[4096];
    struct buf all;
    size_t n;
    static char piece[1 << 16];

    buf_init(&all, (size_t)256 << 20);
    snprintf(command, sizeof command,
        "zstd -qdc '%s/debian_packages/packages.tsv.zst'", data);
    FILE *pipe = popen(command, "r");
    while (pipe != NULL && (n = fread(piece, 1, sizeof piece, pipe)) > 0)
        buf_add(&all, piece, n);
    if (pipe == NULL || pclose(pipe) != 0 || buf_status(&all) != OK)
        return -1;
    c->bytes = buf_take(&all, &n);
    for (char *line = c->bytes; line < c->bytes + n && c->n < N_TEXTS_MAX;) {
        char *end = strchr(line, '\n');
        if (end == NULL)
            break;
        *end = '\0';
        c->texts[c->n] = strrchr(line, '\t') + 1;
        c->lens[c->n] = (size_t)(end - c->texts[c->n]);
        c->n_bytes += c->lens[c->n++];
        line = end + 1;
    }
    return 0;
}

static void
measure_file(const char *path, const struct corpus *c)
{
    struct fault fault = {0};
    struct tokenizer *t = NULL;
    struct buf file;

    buf_init(&file, TOKENIZER_FILE_BYTES_MAX);
    if (fsio_read(path, &file, &fault) != OK ||
        tokenizer_from_json(file.data, file.len, &t, &fault) != OK)
        printf("SKIPPED: %s: %s %s\n", path, fault.pointer, fault.detail);
    else
        measure(strlen(path) > 32 ? path + strlen(path) - 32 : path, t, c);
    tokenizer_free(t);
    buf_release(&file);
}

/* The lines of use-lite's vocabulary: id, piece, score. */
static void
measure_use_lite(const char *data, const struct corpus *c)
{
    static struct tokenizer_piece pieces[PIECES_OF_USE_LITE];
    struct fault fault = {0};
    struct tokenizer *t = NULL;
    struct buf file;
    char path[4096];
    size_t n = 0;

    snprintf(path, sizeof path, "%s/models/use-lite/vocab.tsv", data);
    buf_init(&file, 1 << 22);
    if (fsio_read(path, &file, &fault) == OK) {
        for (char *s = file.data; *s != '\0' && n < PIECES_OF_USE_LITE; n++) {
            pieces[n].id = (uint32_t)strtoul(s, &s, 10);
            pieces[n].s = ++s;
            s = strchr(s, '\t');
            pieces[n].len = (size_t)(s - pieces[n].s);
            pieces[n].score = strtod(s, &s);
            pieces[n].hidden = pieces[n].id < 6;
            s += *s == '\n';
        }
    }
    if (tokenizer_from_pieces(pieces, n, 0, &t, &fault) != OK)
        printf("SKIPPED: %s: %s\n", path, fault.detail);
    else
        measure("Unigram, use-lite", t, c);
    tokenizer_free(t);
    buf_release(&file);
}

int
main(int argc, char **argv)
{
    static struct corpus corpus;
    const char *data = getenv("KINDRED_DATA");
    char path[4096];

    if (data == NULL || read_corpus(&corpus, data) != 0) {
        printf("SKIPPED: no Debian descriptions (KINDRED_DATA names the "
               "folder of data)\n");
        return 0;
    }
    printf("%zu descriptions, %zu bytes, one thread\n", corpus.n,
        corpus.n_bytes);
    snprintf(path, sizeof path,
        "%s/models/all-MiniLM-L6-v2-noweights/tokenizer.json", data);
    measure_file(path, &corpus);
    measure_use_lite(data, &corpus);
    for (int i = 1; i < argc; i++)
        measure_file(argv[i], &corpus);
    free(corpus.bytes);
    return 0;
}
