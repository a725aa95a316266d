/*
 * config.h - the daemon's settings: one table, four sources.
 *
 * A setting comes from a flag (--body-bytes-max 1000), else from the
 * environment (KINDRED_BODY_BYTES_MAX), else from the file (body_bytes_max =
 * 1000), else it is built in. The table in config.c is the only list of
 * settings: --help, --print-config, --check-config and the man page are made
 * from it. A name that is not in it is an error in every source.
 *
 * Keys are never settings: a setting names the file that holds them, or they
 * stand in KINDRED_KEY_READ, KINDRED_KEY_WRITE, KINDRED_KEY_ADMIN. They are
 * never printed.
 */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include <stdbool.h>
#include <stdio.h>
#include "base/err.h"
#include "base/log.h"

#define CONFIG_TEXT_MAX 512

struct config {
    char listen[CONFIG_TEXT_MAX];
    char data[CONFIG_TEXT_MAX];
    char port_file[CONFIG_TEXT_MAX];
    char key_read_file[CONFIG_TEXT_MAX];
    char key_write_file[CONFIG_TEXT_MAX];
    char key_admin_file[CONFIG_TEXT_MAX];
    char encoder[CONFIG_TEXT_MAX];
    char log_level[CONFIG_TEXT_MAX];
    char log_format[CONFIG_TEXT_MAX];
    long long log_requests;
    long long http_threads;
    long long read_workers;
    long long write_workers;
    long long engine_threads;
    long long tuner_threads;
    long long queue_max;
    long long connections_max;
    long long connections_per_address;
    long long streams_max;
    long long body_bytes_max;
    long long body_memory_bytes;
    long long line_bytes_max;
    long long text_bytes_max;
    long long image_bytes_max;
    long long image_pixels_max;
    long long encoder_bytes_max;
    long long spool_memory_bytes;
    long long bulk_streams;
    long long impressions_max;
    long long header_deadline_ms;
    long long body_deadline_ms;
    long long work_deadline_ms;
    long long keep_alive_ms;
    long long event_keep_alive_ms;
    long long drain_ms;
    long long auth_failures_per_minute;
};

/* What the command line asked for beside settings. */
enum config_action {
    CONFIG_RUN,
    CONFIG_HELP,
    CONFIG_VERSION,
    CONFIG_PRINT,
    CONFIG_CHECK,
    CONFIG_MAN
};

/*
 * config_load - read all sources into config.
 *
 *   environ_  NAME=value strings, NULL-terminated, or NULL for none
 *   action    what to do
 *
 * ERR_INVALID with one sentence that names the source and the setting.
 * config is complete also then, as far as it was read.
 */
enum err config_load(struct config *config, int argc, char *const *argv,
    char *const *environ_, enum config_action *action,
    struct fault *fault) NODISCARD;

void config_print_help(FILE *out);
/* "name = value", with the source behind a #; a file that can be read back. */
void config_print(const struct config *config, FILE *out);
/* The manual page, in man(7) source. */
void config_print_man(FILE *out);

/* The level that the settings name. */
enum log_level config_log_level(const struct config *config);

/* Read one file's key: value setting again (for SIGHUP): only log_level and
   log_requests are taken over. */
enum err config_reload(struct config *config, int argc, char *const *argv,
    char *const *environ_, struct fault *fault) NODISCARD;

#endif
