/*
 * main.c - start, signals, stop.
 *
 * The main thread starts everything and then only waits for signals: SIGTERM
 * and SIGINT drain and exit, SIGHUP reads keys and log settings again, and the
 * service manager's watchdog is fed. Every failure to start is one line on
 * stderr and an exit status that tells its kind (see --help).
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fsio.h"
#include "base/log.h"
#include "base/version.h"
#include "engine/engine.h"
#include "server/auth.h"
#include "server/config.h"
#include "server/daemon.h"
#include "server/events.h"
#include "server/http.h"
#include "server/incoming.h"
#include "server/intake.h"
#include "server/metrics.h"
#include "server/notify.h"
#include "server/preload.h"

extern char **environ;

enum exit_code {
    EXIT_FINE = 0,
    EXIT_UNEXPECTED = 1,
    EXIT_CONFIG = 2,
    EXIT_ADDRESS = 3,
    EXIT_LOCKED = 4,
    EXIT_NEWER = 5,
    EXIT_DAMAGED = 6,
    EXIT_STORAGE = 7
};

static struct daemon the_daemon; /* zero; set before threads start */

static int
fail(int code, const struct fault *fault)
{
    (void)fprintf(stderr, "kindredd: %s\n",
        fault->detail[0] ? fault->detail : err_text(fault->err));
    return code;
}

static int
engine_exit_code(enum err err)
{
    switch (err) {
    case ERR_LOCKED:
        return EXIT_LOCKED;
    case ERR_NEWER:
        return EXIT_NEWER;
    case ERR_CORRUPT:
        return EXIT_DAMAGED;
    case ERR_NOMEM:
    case ERR_INTERNAL:
        return EXIT_UNEXPECTED;
    default: /* the folder cannot be made, read or written */
        return EXIT_STORAGE;
    }
}

/* A folder that cannot be imported is a wrong setting. */
static int
preload_exit_code(enum err err)
{
    return err == ERR_IO || err == ERR_FULL || err == ERR_NOMEM ||
                   err == ERR_INTERNAL
               ? engine_exit_code(err)
               : EXIT_CONFIG;
}

static int
http_exit_code(enum err err)
{
    return err == ERR_INVALID                 ? EXIT_CONFIG
           : err == ERR_BUSY || err == ERR_IO ? EXIT_ADDRESS
                                              : EXIT_UNEXPECTED;
}

static enum err
write_port_file(const struct daemon *daemon, struct fault *fault)
{
    char text[16];
    if (daemon->config.port_file[0] == '\0')
        return OK;
    int n = snprintf(text, sizeof(text), "%u\n", http_port(daemon->http));
    return fsio_write_atomic(daemon->config.port_file, text, (size_t)n, fault);
}

static void
reload(struct daemon *daemon, int argc, char *const *argv)
{
    struct fault fault = {0};
    notify_reloading();
    /* The settings that may change live where threads do not look. */
    static struct config fresh;
    fresh = daemon->config;
    enum err err = config_reload(&fresh, argc, argv, environ, &fault);
    if (err == OK) {
        log_set_level(config_log_level(&fresh));
        atomic_store(&daemon->log_requests, fresh.log_requests != 0);
        err = auth_reload(daemon->auth, &daemon->config, &fault);
    }
    if (err == OK)
        log_info("main", "reloaded");
    else
        log_error("main", "reload_failed why=\"%s\"", fault.detail);
    notify_send("READY=1");
}

/* Until a signal to stop. */
static void
wait_for_signals(
    struct daemon *daemon, const sigset_t *signals, int argc, char *const *argv)
{
    int64_t watchdog_ms = notify_watchdog_ms();
    for (;;) {
        int64_t ms = watchdog_ms > 0 ? watchdog_ms : 3600000;
        struct timespec timeout = {
            .tv_sec = (time_t)(ms / 1000), .tv_nsec = ms % 1000 * 1000000};
        int got = sigtimedwait(signals, NULL, &timeout);
        if (got == SIGTERM || got == SIGINT)
            return;
        if (got == SIGHUP)
            reload(daemon, argc, argv);
        else if (watchdog_ms > 0)
            notify_send("WATCHDOG=1");
    }
}

static int
stop(struct daemon *daemon)
{
    int64_t from_ms = clock_mono_ms();
    log_info("main", "stopping");
    notify_send("STOPPING=1");
    atomic_store(&daemon->draining, true);
    engine_stop_jobs(daemon->engine);
    events_stop(daemon->events);
    if (!http_stop(daemon->http)) {
        /* Something still runs in the engine. What was acknowledged is on
           disk, and what was not may be cut off: leave as a crash would. */
        log_warn("main", "stopped whole=0 ms=%lld",
            (long long)(clock_mono_ms() - from_ms));
        _exit(EXIT_FINE);
    }
    engine_close(daemon->engine);
    /* After the engine: a job on its way to its end still tells of events. */
    events_free(daemon->events);
    http_free(daemon->http);
    gate_free(daemon->gate);
    metrics_free(daemon->metrics);
    auth_free(daemon->auth);
    log_info("main", "stopped whole=1 ms=%lld",
        (long long)(clock_mono_ms() - from_ms));
    return EXIT_FINE;
}

static int
start(struct daemon *daemon)
{
    struct fault fault = {0};
    const struct config *config = &daemon->config;
    int64_t from_ms = clock_mono_ms();
    daemon->started_ms = clock_wall_ms();
    atomic_init(&daemon->draining, false);
    atomic_init(&daemon->log_requests, config->log_requests != 0);
    if (metrics_new(&daemon->metrics) != OK ||
        gate_new(&daemon->gate, (size_t)config->bulk_streams) != OK ||
        events_new(&daemon->events, daemon) != OK) {
        (void)fault_set(&fault, ERR_NOMEM, "", "out of memory");
        return fail(EXIT_UNEXPECTED, &fault);
    }
    const struct engine_config engine_config = {.data_dir = config->data,
        .n_threads = (size_t)config->engine_threads,
        .n_tuner_threads = (size_t)config->tuner_threads,
        .text_bytes_max = (size_t)config->text_bytes_max,
        .image_bytes_max = (size_t)config->image_bytes_max,
        .image_pixels_max = (uint64_t)config->image_pixels_max,
        /* The other half of the workers is left to all other searches. */
        .picture_waits_max = (size_t)config->read_workers / 2,
        .impressions_max = (size_t)config->impressions_max,
        .event_hook = events_hook,
        .event_hook_arg = daemon->events};
    enum err err = engine_open(&daemon->engine, &engine_config, &fault);
    if (err != OK)
        return fail(engine_exit_code(err), &fault);
    incoming_clear(config->data);
    err = preload_run(config, daemon->engine, &fault);
    if (err != OK) {
        events_stop(daemon->events);
        engine_close(daemon->engine);
        return fail(preload_exit_code(err), &fault);
    }
    err = http_start(daemon, &fault);
    if (err != OK) {
        events_stop(daemon->events);
        engine_close(daemon->engine);
        return fail(http_exit_code(err), &fault);
    }
    err = write_port_file(daemon, &fault);
    if (err != OK) {
        (void)stop(daemon);
        return fail(EXIT_STORAGE, &fault);
    }
    log_info("main", "ready version=%s port=%u keys=%s data=%s ms=%lld",
        KINDRED_VERSION, http_port(daemon->http),
        auth_enabled(daemon->auth) ? "on" : "off", config->data,
        (long long)(clock_mono_ms() - from_ms));
    notify_send("READY=1");
    return -1;
}

int
main(int argc, char **argv)
{
    struct fault fault = {0};
    struct daemon *daemon = &the_daemon;
    enum config_action action;
    enum err err =
        config_load(&daemon->config, argc, argv, environ, &action, &fault);
    if (err != OK)
        return fail(EXIT_CONFIG, &fault);
    switch (action) {
    case CONFIG_HELP:
        config_print_help(stdout);
        return EXIT_FINE;
    case CONFIG_VERSION:
        (void)printf("kindredd %s\n", KINDRED_VERSION);
        return EXIT_FINE;
    case CONFIG_MAN:
        config_print_man(stdout);
        return EXIT_FINE;
    case CONFIG_PRINT:
        config_print(&daemon->config, stdout);
        return EXIT_FINE;
    case CONFIG_CHECK:
    case CONFIG_RUN:
        break;
    }
    log_setup(
        config_log_level(&daemon->config), daemon->config.log_format[0] == 'j');
    err = auth_new(&daemon->auth, &daemon->config, &fault);
    if (err == OK)
        err = http_check_listen(daemon, &fault);
    if (err == OK)
        err = preload_check(&daemon->config, &fault);
    if (err != OK)
        return fail(EXIT_CONFIG, &fault);
    if (action == CONFIG_CHECK) {
        (void)printf("kindredd: the configuration is fine\n");
        auth_free(daemon->auth);
        return EXIT_FINE;
    }

    /* Blocked before threads start, so that only this one takes them. */
    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    notify_init();
    int code = start(daemon);
    if (code >= 0)
        return code;
    wait_for_signals(daemon, &signals, argc, argv);
    return stop(daemon);
}
