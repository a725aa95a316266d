/* kern_exp_avx2.h - the exponential of the AVX2 kernels; for kern_*_avx2.c
   only, compiled with their instruction set. */
#ifndef KERN_KERN_EXP_AVX2_H
#define KERN_KERN_EXP_AVX2_H

#include <immintrin.h>

#define EXP_ARG_MAX 87.0f
#define LOG2_E 1.44269504f

/* e^(x - shift), 0 below -EXP_ARG_MAX, for training: as exp2_ps of
   kern_avx2.c, with the
   product by log2(e) in two parts and never rounded, and a polynomial of degree
   5, 7.5e-8 (by Remez' exchange). */
static inline __m256
exp_shift_8(__m256 x, __m256 shift)
{
    const __m256 magic = _mm256_set1_ps(12582912.0f);
    const __m256 high = _mm256_set1_ps(LOG2_E);
    const __m256 low = _mm256_set1_ps(1.92596298e-8f);
    __m256 arg = _mm256_sub_ps(x, shift);
    __m256 keep = _mm256_cmp_ps(arg, _mm256_set1_ps(-EXP_ARG_MAX), _CMP_GE_OQ);
    arg = _mm256_max_ps(arg, _mm256_set1_ps(-EXP_ARG_MAX));
    arg = _mm256_min_ps(arg, _mm256_set1_ps(EXP_ARG_MAX));

    __m256 t = _mm256_fmadd_ps(arg, high, magic);
    __m256 f = _mm256_fmsub_ps(arg, high, _mm256_sub_ps(t, magic));
    __m256 p = _mm256_set1_ps(1.3276472e-3f);

    f = _mm256_fmadd_ps(arg, low, f);
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(9.67554133e-3f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(5.55071327e-2f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(2.40221197e-1f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(6.93146967e-1f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.00000007f));

    __m256i e = _mm256_slli_epi32(_mm256_castps_si256(t), 23);

    return _mm256_and_ps(
        keep, _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), e)));
}

#endif
