/*
 * send.h - an input streamed to an NDJSON endpoint, with progress, and its
 * refused lines told by file and line.
 */
#ifndef KINDRED_SEND_H
#define KINDRED_SEND_H

#include <stdint.h>

#include "cli.h"
#include "input.h"

struct send_counts {
    uint64_t records; /* sent */
    uint64_t failed;  /* of them, refused by the service */
    uint64_t unread;  /* left out of the input: they cannot be read */
    uint64_t bytes;
    double seconds;
};

/*
 * send_input - POST every record of input to path in one request.
 *
 *   what        "items", "pairs": for messages and the bar
 *   errors_to   a file for the answer lines of refused records, or NULL
 *   show_max    refused records printed on stderr
 *   counts      overwritten, also on failure
 *
 * EXIT_SOME_FAILED when lines were refused, or something was left out.
 */
int send_input(struct cli *cli, struct input *input, const char *path,
    const char *what, const char *errors_to, uint64_t show_max,
    struct send_counts *counts);

/* Splits what comes in pieces into lines; the callback gets a NUL-terminated
   line without its end. false from it stops. */
struct line_splitter {
    struct buf rest;
    bool (*line)(void *arg, char *line, size_t n);
    void *arg;
};
bool line_splitter_feed(
    struct line_splitter *splitter, const char *bytes, size_t n);
bool line_splitter_end(struct line_splitter *splitter);

#endif
