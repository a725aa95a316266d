/*
 * daemon.h - what all parts of the running daemon share.
 *
 * Made by main before any thread starts and released after all have ended;
 * the pointers never change between. Each part carries its own lock.
 */
#ifndef SERVER_DAEMON_H
#define SERVER_DAEMON_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "server/config.h"

struct auth;
struct engine;
struct events;
struct gate;
struct http;
struct metrics;

struct daemon {
    struct config config; /* constant while threads run */
    struct engine *engine;
    struct auth *auth;
    struct metrics *metrics;
    struct http *http;
    struct gate *gate;     /* who may have a bulk open */
    struct events *events; /* event streams */
    int64_t started_ms;    /* wall clock */
    atomic_bool draining;  /* a signal to stop has come */
    atomic_bool log_requests;
};

#endif
