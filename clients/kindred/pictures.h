/*
 * pictures.h - folders of pictures, made into items.
 *
 * A picture is told by its first bytes, never by its name: JPEG, PNG, WebP.
 * Its id is its path below the folder that was named. The service is asked
 * once what it holds, so that a picture whose bytes are there already is not
 * sent again; what has no room in a line of NDJSON is put aside and sent by
 * itself afterwards.
 */
#ifndef KINDRED_PICTURES_H
#define KINDRED_PICTURES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli.h"
#include "input.h"

struct picture {
    char *path;
    char *id;
    uint64_t bytes;
    bool aside; /* to be sent by itself */
};

struct pictures {
    struct picture *v;
    size_t n;
    uint64_t bytes;     /* of all */
    size_t n_documents; /* .txt and .md files beside them */
    size_t n_other;     /* files that are neither */
    size_t n_unread;    /* files and folders that cannot be read: told */
    bool looked;        /* for pictures, in folders too */
    /* while they are sent */
    size_t at;         /* the next */
    uint64_t done;     /* bytes of those before it */
    size_t line_max;   /* bytes of a line that the service takes */
    const char *field; /* metadata that gets the folder's name, or NULL */
    json_t *known;     /* {id: "BYTES SHA256"}; NULL: nothing is */
    size_t n_unchanged;
    size_t n_aside;
};

/* The media type of a file that starts with these bytes; NULL: no picture. */
const char *picture_type(const void *head, size_t n);

/* The pictures among the paths and below those that are folders, in the order
   of their names. false after a message. */
bool pictures_find(struct pictures *out, char *const *paths, size_t n);
void pictures_release(struct pictures *pictures);

/* The next item as a line of NDJSON, appended to out. */
enum input_got pictures_next(struct pictures *pictures, struct buf *out);

/* A whole file; false after a message. */
bool file_read(const char *path, size_t bytes_max, struct buf *out);

/* What index, views and search do with pictures (cmd_pictures.c). */
struct picture_opts {
    bool only; /* --pictures: documents are left alone */
    bool none; /* --documents: pictures are */
    long long side;
    bool grey;
    const char *field;
    bool create;
    const char *errors_to;
    uint64_t show_max;
};

/* Whether index shall take the paths as pictures; sets *take. */
int pictures_wanted(struct cli *cli, const struct picture_opts *opts,
    char *const *paths, size_t n, struct pictures *pictures, bool *take);
int pictures_index(struct cli *cli, const struct picture_opts *opts,
    struct pictures *pictures);

/* Ask what is like the picture in a file ("-": standard input); args are the
   query's arguments, "?k=10&...". */
int pictures_search(struct cli *cli, const char *collection, const char *file,
    const char *args, json_t **answer);

#endif
