/*
 * Goal: the smallest modules do what their headers say: err, check, clock,
 * embed, version.
 * Method: each promise by an example at its edge.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/embed.h"
#include "base/err.h"

static void
test_every_code_has_its_text(void **state)
{
    (void)state;
    for (int i = 0; i < ERR_COUNT; i++) {
        assert_non_null(err_text((enum err)i));
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(
                err_text((enum err)i), err_text((enum err)j));
        }
    }
    assert_string_equal(err_text(OK), "ok");
    assert_string_equal(err_text((enum err)999), "unknown error");
}

static void
test_fault_is_filled_and_cut(void **state)
{
    (void)state;
    struct fault fault = {0};
    char long_text[2 * FAULT_DETAIL_MAX];

    assert_int_equal(fault_set(&fault, ERR_INVALID, "/k", "must be over %d", 0),
        ERR_INVALID);
    assert_int_equal(fault.err, ERR_INVALID);
    assert_string_equal(fault.pointer, "/k");
    assert_string_equal(fault.detail, "must be over 0");

    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    fault_set(&fault, ERR_IO, long_text, "%s", long_text);
    assert_int_equal(strlen(fault.pointer), FAULT_POINTER_MAX - 1);
    assert_int_equal(strlen(fault.detail), FAULT_DETAIL_MAX - 1);

    assert_int_equal(fault_set(NULL, ERR_BUSY, "", "x"), ERR_BUSY);
}

static void
test_fault_may_quote_itself(void **state)
{
    (void)state;
    struct fault fault = {0};

    fault_set(&fault, ERR_IO, "/a", "inner");
    fault_set(&fault, ERR_CORRUPT, fault.pointer, "outer: %s", fault.detail);
    assert_string_equal(fault.pointer, "/a");
    assert_string_equal(fault.detail, "outer: inner");
}

static void
test_a_failed_assertion_aborts(void **state)
{
    (void)state;
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL) {
            _exit(1);
        }
        signal(SIGABRT, SIG_DFL);
        ASSERT(pid != 0);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void
test_clocks_go_on(void **state)
{
    (void)state;
    int64_t before = clock_mono_ns();
    int64_t before_ms = clock_mono_ms();

    clock_sleep_ms(20);
    assert_true(clock_mono_ns() - before >= 20 * 1000000);
    assert_true(clock_mono_ms() - before_ms >= 19);
    clock_sleep_ms(0);
    clock_sleep_ms(-5);
    /* After 2020 and before 2200, so the unit is milliseconds. */
    assert_true(clock_wall_ms() > INT64_C(1577836800000));
    assert_true(clock_wall_ms() < INT64_C(7258118400000));
}

static void
test_embedded_files_end_with_a_nul(void **state)
{
    (void)state;
    for (size_t i = 0; embedded_schema[i].name != NULL; i++) {
        const struct embedded_file *file = &embedded_schema[i];
        assert_true(file->len > 0);
        assert_int_equal(file->bytes[file->len], 0);
        assert_int_equal(strlen((const char *)file->bytes), file->len);
        if (i > 0) {
            assert_true(strcmp(embedded_schema[i - 1].name, file->name) < 0);
        }
    }
    assert_int_equal(embedded_openapi.bytes[embedded_openapi.len], 0);
    assert_int_equal(embedded_prior_df.bytes[embedded_prior_df.len], 0);
    assert_string_equal(embedded_openapi.name, "openapi.json");
    assert_string_equal(embedded_prior_df.name, "prior_df.bin");
}

/* The embedded bytes are those of the file in the tree. */
static void
test_embedded_bytes_are_the_files(void **state)
{
    (void)state;
    for (size_t i = 0; embedded_schema[i].name != NULL; i++) {
        const struct embedded_file *file = &embedded_schema[i];
        char path[512];
        snprintf(path, sizeof(path), "schema/%s", file->name);
        FILE *f = fopen(path, "rb");
        if (f == NULL) {
            print_message("skipped: not run from the root of the tree\n");
            skip();
        }
        unsigned char *bytes = malloc(file->len + 1);
        assert_non_null(bytes);
        assert_int_equal(fread(bytes, 1, file->len + 1, f), file->len);
        fclose(f);
        assert_memory_equal(bytes, file->bytes, file->len);
        free(bytes);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_has_its_text),
        cmocka_unit_test(test_fault_is_filled_and_cut),
        cmocka_unit_test(test_fault_may_quote_itself),
        cmocka_unit_test(test_a_failed_assertion_aborts),
        cmocka_unit_test(test_clocks_go_on),
        cmocka_unit_test(test_embedded_files_end_with_a_nul),
        cmocka_unit_test(test_embedded_bytes_are_the_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
