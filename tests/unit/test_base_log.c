/*
 * Goal: a log line is one line with its time, level and module, also as JSON;
 * levels filter; log_limited drops and says how many, from many threads.
 * Method: stderr is a file for the time of a test, which is then read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"

static int saved_stderr = -1;
static char path[] = "/tmp/kindred-log-XXXXXX";
static char text[1 << 20];

static void
capture_start(void)
{
    strcpy(path + strlen(path) - 6, "XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    saved_stderr = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    close(fd);
}

/* What was written, in text; how many lines. */
static size_t
capture_stop(void)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof(text) - 1, f), lines = 0;
    fclose(f);
    unlink(path);
    text[n] = '\0';
    for (size_t i = 0; i < n; i++) {
        lines += text[i] == '\n';
    }
    return lines;
}

static void
test_plain_lines(void **state)
{
    (void)state;
    capture_start();
    log_setup(LOG_INFO, false);
    log_info("store", "opened path=%s", "x.db");
    log_debug("store", "not shown");
    log_set_level(LOG_ERROR);
    log_warn("store", "not shown");
    log_error("store", "two\nlines\tone");
    log_set_level(LOG_DEBUG);
    log_debug("a", "b");
    size_t lines = capture_stop();
    log_setup(LOG_INFO, false);
    assert_int_equal(lines, 3);
    assert_non_null(strstr(text, "Z info  store: opened path=x.db\n"));
    assert_non_null(strstr(text, "Z error store: two lines one\n"));
    assert_non_null(strstr(text, "Z debug a: b\n"));
    assert_int_equal(text[4], '-');
    assert_int_equal(text[10], 'T');
    assert_int_equal(text[19], '.');
}

static void
test_json_lines(void **state)
{
    (void)state;
    char long_text[3000];

    memset(long_text, '"', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    capture_start();
    log_setup(LOG_INFO, true);
    log_info("store", "opened path=\"a\\b\" n=%d", 3);
    log_warn("x", "%s", long_text);
    log_warn("x", "alone");
    size_t lines = capture_stop();
    log_setup(LOG_INFO, false);
    assert_int_equal(lines, 3);
    char *line = text;
    for (int i = 0; i < 3; i++) {
        char *end = strchr(line, '\n');
        struct json *root = NULL;
        const char *s = NULL;
        assert_int_equal(
            json_parse(line, (size_t)(end - line), 100000, &root, NULL), OK);
        assert_int_equal(json_get_str(root, "", i == 0 ? "detail" : "module",
                             JSON_REQUIRED, &s, NULL, NULL),
            OK);
        assert_string_equal(s, i == 0 ? "path=\"a\\b\" n=3" : "x");
        assert_int_equal(
            json_get_str(root, "", "event", JSON_REQUIRED, &s, NULL, NULL), OK);
        if (i != 1) {
            assert_string_equal(s, i == 0 ? "opened" : "alone");
        }
        json_free(root);
        line = end + 1;
    }
}

static struct log_limit limit;

static void *
shout(void *arg)
{
    (void)arg;
    for (int i = 0; i < 1000; i++) {
        log_limited(&limit, LOG_WARN, "http", "refused n=%d", i);
    }
    return NULL;
}

static void
test_limited_lines(void **state)
{
    (void)state;
    pthread_t threads[4];
    unsigned dropped = 0;

    capture_start();
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, shout, NULL), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    clock_sleep_ms(1100);
    log_limited(&limit, LOG_WARN, "http", "refused again");
    size_t lines = capture_stop();
    /* 5 a window, and a window or two if the machine was slow. */
    assert_true(lines >= 7 && lines <= 20);
    const char *at = strstr(text, "lines_dropped n=");
    assert_non_null(at);
    while (at != NULL) {
        dropped += (unsigned)strtoul(at + strlen("lines_dropped n="), NULL, 10);
        at = strstr(at + 1, "lines_dropped n=");
    }
    assert_true(dropped > 3900 && dropped <= 3995);
    assert_non_null(strstr(text, "refused again"));
}

static void *
write_long(void *arg)
{
    for (int i = 0; i < 200; i++) {
        log_info("m", "%s", (const char *)arg);
    }
    return NULL;
}

static void
test_lines_of_threads_do_not_mix(void **state)
{
    (void)state;
    static char words[4][300];
    pthread_t threads[4];

    capture_start();
    for (size_t i = 0; i < 4; i++) {
        memset(words[i], (int)('a' + i), sizeof(words[i]) - 1);
        pthread_create(&threads[i], NULL, write_long, words[i]);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(capture_stop(), 800);
    for (char *line = strtok(text, "\n"); line != NULL;
         line = strtok(NULL, "\n")) {
        const char *at = strstr(line, "m: ");
        assert_non_null(at);
        assert_int_equal(strlen(at + 3), 299);
        assert_int_equal(strspn(at + 3, (char[]){at[3], '\0'}), 299);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_lines),
        cmocka_unit_test(test_json_lines),
        cmocka_unit_test(test_limited_lines),
        cmocka_unit_test(test_lines_of_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
