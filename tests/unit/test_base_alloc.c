/*
 * Goal: alloc.h checks sizes, aligns, and fails when a test asks for it;
 * arena.h keeps its cap and hands out separate, aligned memory.
 * Method: sizes at the overflow, a write over every byte handed out (the
 * sanitizer builds watch), and the n-th-failure loop over an arena's life.
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

#include "base/alloc.h"
#include "base/arena.h"
#include "base/rng.h"

static void
test_sizes_are_checked(void **state)
{
    (void)state;
    void *p = mem_alloc(1, 1);

    assert_null(mem_alloc(SIZE_MAX, 2));
    assert_null(mem_alloc(SIZE_MAX / 2, 3));
    assert_null(mem_calloc(SIZE_MAX / 4, 8));
    assert_null(mem_alloc_aligned(SIZE_MAX / 2, 1));
    assert_null(mem_alloc_aligned(SIZE_MAX, 1));
    assert_null(mem_realloc(p, SIZE_MAX / 2, 4));
    assert_null(mem_strndup("", SIZE_MAX));
    mem_free(p); /* a failed realloc left it alive */
    mem_free(NULL);
}

static void
test_nothing_is_something(void **state)
{
    (void)state;
    void *a = mem_alloc(0, 8), *b = mem_calloc(3, 0);
    void *c = mem_alloc_aligned(0, 0), *d = mem_realloc(NULL, 0, 1);

    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(c);
    assert_non_null(d);
    assert_ptr_not_equal(a, b);
    mem_free(a);
    mem_free(b);
    mem_free(c);
    mem_free(d);
}

static void
test_contents(void **state)
{
    (void)state;
    char *z = mem_calloc(100, 3);
    char *s = mem_strndup("hello world", 5);
    char *t = mem_strdup("x");

    for (size_t i = 0; i < 300; i++) {
        assert_int_equal(z[i], 0);
    }
    for (size_t n = 1; n < 200; n++) {
        char *a = mem_alloc_aligned(n, 1);
        assert_non_null(a);
        assert_int_equal((uintptr_t)a % 64, 0);
        memset(a, 1, n);
        mem_free(a);
    }
    assert_string_equal(s, "hello");
    assert_string_equal(t, "x");
    mem_free(z);
    mem_free(s);
    mem_free(t);
}

static void
test_the_nth_allocation_fails_once(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 5; n++) {
        alloc_fail_at(n);
        for (uint64_t i = 1; i <= 5; i++) {
            void *p = i % 2 == 0 ? mem_alloc(1, 1) : mem_calloc(1, 1);
            assert_int_equal(p == NULL, i == n);
            mem_free(p);
        }
        assert_int_equal(alloc_fail_at(0), 5);
    }
    void *p = mem_alloc(1, 1); /* not counted once it is over */
    assert_non_null(p);
    mem_free(p);
    assert_int_equal(alloc_fail_at(0), 0);
}

static void
test_arena_memory_is_apart(void **state)
{
    (void)state;
    struct arena arena;
    struct rng rng;
    enum { N = 2000 };
    static unsigned char *at[N];
    static size_t len[N];

    rng_seed(&rng, 7);
    arena_init(&arena, 16 * 1024 * 1024);
    for (size_t i = 0; i < N; i++) {
        len[i] = (size_t)rng_below(&rng, i % 100 == 0 ? 50000 : 200);
        at[i] = arena_alloc(&arena, len[i], 1);
        assert_non_null(at[i]);
        assert_int_equal((uintptr_t)at[i] % 16, 0);
        memset(at[i], (int)(i & 0xff), len[i]);
    }
    for (size_t i = 0; i < N; i++) {
        for (size_t k = 0; k < len[i]; k++) {
            assert_int_equal(at[i][k], i & 0xff);
        }
    }
    arena_release(&arena);
    arena_release(&arena);
    assert_int_equal(arena.used_bytes, 0);
}

static void
test_arena_keeps_its_cap(void **state)
{
    (void)state;
    struct arena arena;
    size_t got = 0;

    arena_init(&arena, 10000);
    assert_null(arena_alloc(&arena, 10001, 1));
    assert_null(arena_alloc(&arena, SIZE_MAX, 2));
    assert_null(arena_alloc(&arena, SIZE_MAX / 2 + 9, 1));
    assert_null(arena_strndup(&arena, "", SIZE_MAX));
    while (arena_alloc(&arena, 100, 1) != NULL) {
        got += 100;
        assert_true(arena.used_bytes <= arena.max_bytes);
    }
    /* Headers and rounding take a little. */
    assert_true(got >= 8000 && got < 10000);
    arena_release(&arena);

    /* All-zero can be released, and has no room. */
    struct arena zero = {0};
    assert_null(arena_alloc(&zero, 1, 1));
    arena_release(&zero);
    arena_release(NULL);
}

static void
test_arena_contents(void **state)
{
    (void)state;
    struct arena arena;

    arena_init(&arena, 1 << 20);
    unsigned char *dirt = arena_alloc(&arena, 64, 1);
    assert_non_null(dirt);
    memset(dirt, 255, 64);
    uint32_t *zeros = arena_calloc(&arena, 1000, sizeof(*zeros));
    assert_non_null(zeros);
    for (size_t i = 0; i < 1000; i++) {
        assert_int_equal(zeros[i], 0);
    }
    assert_string_equal(arena_strndup(&arena, "abcdef", 3), "abc");
    assert_string_equal(arena_strndup(&arena, NULL, 0), "");
    assert_non_null(arena_alloc(&arena, 0, 0));
    arena_release(&arena);
}

static void
test_arena_without_memory(void **state)
{
    (void)state;
    uint64_t n = 0;
    bool failed;

    do {
        struct arena arena;
        failed = false;
        n++;
        alloc_fail_at(n);
        arena_init(&arena, 1 << 20);
        for (size_t i = 0; i < 100; i++) {
            failed |= arena_alloc(&arena, 1000, 1) == NULL;
        }
        alloc_fail_at(0);
        assert_true(arena.used_bytes <= arena.max_bytes);
        arena_release(&arena);
    } while (failed);
    assert_true(n > 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_are_checked),
        cmocka_unit_test(test_nothing_is_something),
        cmocka_unit_test(test_contents),
        cmocka_unit_test(test_the_nth_allocation_fails_once),
        cmocka_unit_test(test_arena_memory_is_apart),
        cmocka_unit_test(test_arena_keeps_its_cap),
        cmocka_unit_test(test_arena_contents),
        cmocka_unit_test(test_arena_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
