/*
 * Goal: a daemon that cannot start says why in one line and by its exit code;
 *   settings come from flag, environment, file and built-in values in this
 *   order; what is not known is an error.
 * Method: start it in each of the wrong ways, and with settings in each
 *   source; read its stderr and --print-config.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "tests/support/http_kit.h"

#define KEY "a-key-of-enough-bytes"

/* The first line that starts with "kindredd:"; static. */
static const char *
complaint(const struct kit_daemon *daemon)
{
    static char line[1024];
    line[0] = '\0';
    FILE *f = fopen(daemon->log, "re");
    while (f && fgets(line, sizeof(line), f))
        if (strncmp(line, "kindredd: ", 10) == 0)
            break;
    if (f)
        (void)fclose(f);
    return line;
}

static void
expect_failure(struct kit_daemon *daemon, int code, const char *says)
{
    const char *line = complaint(daemon);
    if (daemon->exit_code != code || !strstr(line, says))
        print_error("exit %d: %s\n", daemon->exit_code, line);
    assert_int_equal(daemon->exit_code, code);
    assert_non_null(strstr(line, says));
}

static void
fails_with(const char *const *args, int code, const char *says)
{
    struct kit_daemon daemon;
    assert_false(kit_start(&daemon, args));
    expect_failure(&daemon, code, says);
    kit_clean(&daemon);
}

static void
write_file(const char *path, const char *text, mode_t mode)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    (void)fputs(text, f);
    (void)fclose(f);
    assert_int_equal(chmod(path, mode), 0);
}

/* ---- settings
 * ---------------------------------------------------------------- */

static void
test_unknown_settings(void **state)
{
    (void)state;
    char file[64];
    struct kit_daemon daemon = {0};
    fails_with((const char *const[]){"--colour", "red", NULL}, 2, "--colour");
    fails_with((const char *const[]){"colour", NULL}, 2, "colour");
    fails_with(
        (const char *const[]){"--log_level", "info", NULL}, 2, "--log_level");
    fails_with((const char *const[]){"--read-workers", "0", NULL}, 2, "1..");
    fails_with((const char *const[]){"--read-workers", "x", NULL}, 2, "whole");
    fails_with((const char *const[]){"--log-level", "loud", NULL}, 2,
        "error|warn|info|debug");
    fails_with((const char *const[]){"--read-workers", NULL}, 2, "value");
    (void)setenv("KINDRED_COLOUR", "red", 1);
    fails_with(NULL, 2, "KINDRED_COLOUR");
    (void)unsetenv("KINDRED_COLOUR");
    (void)snprintf(file, sizeof(file), "/tmp/kindred-conf-%d", (int)getpid());
    const char *const with_file[] = {"--config", file, NULL};
    write_file(file, "colour = red\n", 0600);
    fails_with(with_file, 2, "colour");
    write_file(file, "[other]\nlog_level = info\n", 0600);
    fails_with(with_file, 2, "other");
    write_file(file, "log_level\n", 0600);
    fails_with(with_file, 2, ":1");
    (void)unlink(file);
    fails_with(with_file, 2, "cannot be read");
    (void)daemon;
}

/* What the command prints on standard output, for a shell line. */
static char *
output_of(const char *command)
{
    static char text[32768];
    FILE *f = popen(command, "re");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof(text) - 1, f);
    text[n] = '\0';
    (void)pclose(f);
    return text;
}

static const char *
program(void)
{
    static char path[512];
    const char *build = getenv("KINDRED_BUILD");
    (void)snprintf(
        path, sizeof(path), "%s/kindredd", build ? build : "build/release");
    return path;
}

static void
test_order_of_sources(void **state)
{
    (void)state;
    char file[64];
    char command[2048];
    (void)snprintf(file, sizeof(file), "/tmp/kindred-conf-%d", (int)getpid());
    write_file(
        file, "queue_max = 11\nread_workers = 12\nwrite_workers = 13\n", 0600);
    (void)snprintf(command, sizeof(command),
        "KINDRED_READ_WORKERS=22 KINDRED_WRITE_WORKERS=23 %s --config %s "
        "--write-workers=33 --print-config",
        program(), file);
    const char *text = output_of(command);
    assert_non_null(strstr(text, "queue_max = 11 ; file\n"));
    assert_non_null(strstr(text, "read_workers = 22 ; environment\n"));
    assert_non_null(strstr(text, "write_workers = 33 ; flag\n"));
    assert_non_null(strstr(text, "log_level = info ; built in\n"));
    /* What it prints it also reads. */
    (void)snprintf(command, sizeof(command),
        "%s --queue-max 77 --print-config >%s; %s --config %s --print-config",
        program(), file, program(), file);
    assert_non_null(strstr(output_of(command), "queue_max = 77 ; file\n"));
    (void)snprintf(command, sizeof(command),
        "%s --config %s --check-config && echo FINE", program(), file);
    assert_non_null(strstr(output_of(command), "FINE"));
    (void)unlink(file);
    (void)snprintf(command, sizeof(command), "%s --help", program());
    text = output_of(command);
    assert_non_null(strstr(text, "--body-bytes-max N"));
    assert_non_null(strstr(text, "1024..1073741824, default 8388608"));
    (void)snprintf(command, sizeof(command), "%s --print-man", program());
    assert_non_null(strstr(output_of(command), ".SH EXIT STATUS"));
    /* The page that is installed is the one that the program prints. */
    (void)snprintf(command, sizeof(command),
        "%s --print-man | cmp - server/kindredd.8 && echo SAME", program());
    assert_non_null(strstr(output_of(command), "SAME"));
}

/* ---- addresses and keys
 * -------------------------------------------------------- */

static void
test_addresses(void **state)
{
    (void)state;
    fails_with((const char *const[]){"--listen", "0.0.0.0:0", NULL}, 2,
        "without keys only a loopback");
    fails_with((const char *const[]){"--listen", "[::]:0", NULL}, 2,
        "without keys only a loopback");
    fails_with((const char *const[]){"--listen", "localhost", NULL}, 2,
        "ADDRESS:PORT");
    fails_with((const char *const[]){"--listen", "127.0.0.1:99999", NULL}, 2,
        "0..65535");
    fails_with((const char *const[]){"--listen", "example.org:80", NULL}, 2,
        "numeric");
    /* a port in use */
    struct sockaddr_in in = {.sin_family = AF_INET};
    socklen_t len = sizeof(in);
    char listen_at[64];
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(
        bind(fd, (const struct sockaddr *)(const void *)&in, sizeof(in)), 0);
    assert_int_equal(listen(fd, 1), 0);
    (void)getsockname(fd, (struct sockaddr *)(void *)&in, &len);
    (void)snprintf(
        listen_at, sizeof(listen_at), "127.0.0.1:%u", ntohs(in.sin_port));
    fails_with((const char *const[]){"--listen", listen_at, NULL}, 3, "in use");
    (void)close(fd);
}

static void
test_key_files(void **state)
{
    (void)state;
    char file[64];
    (void)snprintf(file, sizeof(file), "/tmp/kindred-key-%d", (int)getpid());
    const char *const with_key[] = {
        "--key-admin-file", file, "--listen", "0.0.0.0:0", NULL};
    fails_with(with_key, 2, "cannot be read");
    write_file(file, "short\n", 0600);
    fails_with(with_key, 2, "16 to 256");
    write_file(file, "# nothing\n\n", 0600);
    fails_with(with_key, 2, "no key");
    write_file(file, KEY "\n", 0644);
    fails_with(with_key, 2, "every user");
    /* With keys another address than loopback is fine, the key is asked for
       and never shown. */
    write_file(file, "# ours\n" KEY "\n", 0600);
    struct kit_daemon daemon;
    assert_true(kit_start(&daemon, with_key));
    struct kit_reply reply = kit_get(&daemon, "/v1/info");
    assert_int_equal(reply.status, 401);
    assert_non_null(kit_header(&reply, "WWW-Authenticate"));
    kit_reply_free(&reply);
    const struct kit_call call = {
        .path = "/v1/info", .headers = {"Authorization: Bearer " KEY}};
    reply = kit_do(&daemon, &call);
    assert_int_equal(reply.status, 200);
    assert_null(strstr(reply.body, KEY));
    kit_reply_free(&reply);
    assert_int_equal(kit_stop(&daemon), 0);
    char command[256];
    (void)snprintf(
        command, sizeof(command), "grep -c '%s' %s", KEY, daemon.log);
    assert_string_equal(output_of(command), "0\n");
    kit_clean(&daemon);
    (void)unlink(file);
}

/* ---- data folders
 * ---------------------------------------------------------------- */

static void
run_sql(const struct kit_daemon *daemon, const char *sql)
{
    char path[128];
    sqlite3 *db = NULL;
    (void)snprintf(path, sizeof(path), "%s/data/kindred.db", daemon->dir);
    assert_int_equal(access(path, R_OK | W_OK), 0);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    (void)sqlite3_close(db);
}

static void
test_data_folder_in_use(void **state)
{
    (void)state;
    struct kit_daemon first;
    char pid[32];
    assert_true(kit_start(&first, NULL));
    struct kit_daemon second = first;
    char port_file[128];
    (void)snprintf(port_file, sizeof(port_file), "%s/port2", first.dir);
    (void)snprintf(pid, sizeof(pid), "%d", (int)first.pid);
    const char *const other[] = {"--port-file", port_file, NULL};
    assert_false(kit_start_again(&second, other));
    expect_failure(&second, 4, pid);
    assert_int_equal(kit_stop(&first), 0);
    kit_clean(&first);
}

static void
test_newer_schema(void **state)
{
    (void)state;
    struct kit_daemon daemon;
    assert_true(kit_start(&daemon, NULL));
    assert_int_equal(kit_stop(&daemon), 0);
    run_sql(&daemon, "PRAGMA user_version = 9999");
    assert_false(kit_start_again(&daemon, NULL));
    expect_failure(&daemon, 5, "9999");
    kit_clean(&daemon);
}

static void
test_damaged_database(void **state)
{
    (void)state;
    struct kit_daemon daemon;
    char path[128];
    char garbage[8192];
    assert_true(kit_start(&daemon, NULL));
    assert_int_equal(kit_stop(&daemon), 0);
    (void)snprintf(path, sizeof(path), "%s/data/kindred.db", daemon.dir);
    memset(garbage, 'x', sizeof(garbage));
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, garbage, sizeof(garbage)), sizeof(garbage));
    (void)close(fd);
    assert_false(kit_start_again(&daemon, NULL));
    expect_failure(&daemon, 6, "");
    kit_clean(&daemon);
}

static void
test_folder_that_is_a_file(void **state)
{
    (void)state;
    fails_with(
        (const char *const[]){"--data", "/dev/null", NULL}, 7, "/dev/null");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_settings),
        cmocka_unit_test(test_order_of_sources),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_key_files),
        cmocka_unit_test(test_data_folder_in_use),
        cmocka_unit_test(test_newer_schema),
        cmocka_unit_test(test_damaged_database),
        cmocka_unit_test(test_folder_that_is_a_file),
    };
    return cmocka_run_group_tests_name("start", tests, NULL, NULL);
}
