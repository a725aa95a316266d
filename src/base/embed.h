/*
 * embed.h - files that the build puts into the binary.
 *
 * The Makefile makes the C of these tables from the files' bytes. All are
 * constant and live as long as the process. A NUL follows each file's bytes
 * and is not counted, so that text can be used as a string.
 */
#ifndef BASE_EMBED_H
#define BASE_EMBED_H

#include <stddef.h>

struct embedded_file {
    const char *name; /* the file's name without its folder */
    const unsigned char *bytes;
    size_t len;
};

/* schema/NNNN_name.sql in the order of their numbers; a NULL name ends. */
extern const struct embedded_file embedded_schema[];

/* server/openapi.json; len 0 where the build had none. */
extern const struct embedded_file embedded_openapi;

/* src/text/prior_df.bin, document frequencies; len 0 where there was none. */
extern const struct embedded_file embedded_prior_df;

#endif
