/*
 * alloc.h - the only way to the heap, overflow-checked and injectable.
 *
 * Every function returns NULL when memory is out (the caller answers
 * ERR_NOMEM). Tests make the n-th allocation fail with alloc_fail_at.
 */
#ifndef BASE_ALLOC_H
#define BASE_ALLOC_H

#include <stddef.h>
#include <stdint.h>
#include "base/check.h"

/* n * size bytes, uninitialised; n * size == 0 gives a unique pointer. */
void *mem_alloc(size_t n, size_t size) NODISCARD;

/* n * size zero bytes. */
void *mem_calloc(size_t n, size_t size) NODISCARD;

/* Grow or shrink to n * size bytes; on failure the old block stays valid. */
void *mem_realloc(void *p, size_t n, size_t size) NODISCARD;

/* n * size bytes aligned to 64, for kernels; uninitialised. */
void *mem_alloc_aligned(size_t n, size_t size) NODISCARD;

/* A copy of len bytes with a NUL after them. */
char *mem_strndup(const char *s, size_t len) NODISCARD;
char *mem_strdup(const char *s) NODISCARD;

/* Free any of the above; NULL is fine. */
void mem_free(void *p);

/*
 * Let large blocks go back to the system when they are freed: before threads
 * start. glibc raises the size from which it asks the system for a block of
 * its own whenever such a block is freed; indexes and weights would then lie
 * in the heap, between others, and stay resident after a switch.
 */
void mem_setup(void);

/* Tests only: fail the n-th allocation from now (1 is the next), once; 0 ends
   the experiment. Returns how many allocations were seen since last set. */
uint64_t alloc_fail_at(uint64_t n);

#endif
