/*
 * kern_codes_avx2.h - what the products of integer codes in AVX2 share; for the
 * files of this folder that are compiled for it.
 */
#ifndef KERN_KERN_CODES_AVX2_H
#define KERN_KERN_CODES_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

/* acc += v in 16 bits, spelt out: from intrinsics gcc 12 gathers all products
   of an unrolled loop before it adds any, and spills them. */
#define ADD_16(acc, v)                                                         \
    __asm__ volatile("vpaddw %1, %0, %0" : "+x"(acc) : "x"(v))

static inline __m256i
load_si(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

static inline __m256i
broadcast_4(const uint8_t *p)
{
    int32_t v;

    memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}

#endif
