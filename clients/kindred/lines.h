/* lines.h - the inside of struct lines, for the formats that read bytes. */
#ifndef KINDRED_LINES_H
#define KINDRED_LINES_H

#include "input.h"

#define LINES_BLOCK 65536

struct lines {
    int fd;
    bool own; /* fd is ours to close */
    bool ended;
    char *path; /* owned, for messages */
    uint64_t number;
    uint64_t bytes;
    size_t pos;
    size_t len;
    char block[LINES_BLOCK];
};

/* Make a byte available at block[pos]: 1, or 0 at the end, -1 after a
   message. */
int lines_fill(struct lines *lines);

#endif
