/*
 * check.h - assertions and compiler attributes, the only GNU extensions that
 * the rest of the code may use by name.
 *
 * ASSERT is for our own mistakes and stays on in release builds. Input is
 * never asserted: it is refused with an error.
 */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

#include <stddef.h>

#define NODISCARD __attribute__((warn_unused_result))
#define NORETURN __attribute__((noreturn))
#define PRINTF_LIKE(fmt_i, args_i)                                             \
    __attribute__((format(printf, fmt_i, args_i)))
#define UNUSED __attribute__((unused))

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Bits of a uint64_t that are set, its lowest set bit (v != 0), and the place
   of a uint32_t's highest (v != 0). */
#define BIT_COUNT64(v) ((unsigned)__builtin_popcountll(v))
#define BIT_LOWEST64(v) ((unsigned)__builtin_ctzll(v))
#define BIT_HIGHEST32(v) (31U - (unsigned)__builtin_clz(v))

/* Print where and what, then abort. */
NORETURN void check_failed(const char *file, int line, const char *what);

#define ASSERT(cond)                                                           \
    ((cond) ? (void)0 : check_failed(__FILE__, __LINE__, #cond))

#endif
