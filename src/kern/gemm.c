#include "kern/gemm.h"

#include "base/check.h"

#ifdef KINDRED_CBLAS
#include <cblas.h>
#else
#include <stdbool.h>
#include <dnnl.h>
#include "kern/one_thread.h"

/* Of libgomp, which oneDNN brings; clang has no omp.h of its own here. */
extern void omp_set_num_threads(int n);

void
one_thread(void)
{
    static _Thread_local bool done;
    if (!done)
        omp_set_num_threads(1);
    done = true;
}
#endif

/* NEEDSWORK: 2.x and 3.x of oneDNN agree on dnnl_sgemm; the packed-weight
   primitives, which the transformer will want, differ and belong here. */
void
gemm_f32(float *C, size_t ldc, const float *A, size_t lda, bool trans_a,
    const float *B, size_t ldb, bool trans_b, size_t M, size_t N, size_t K,
    float alpha, float beta)
{
    if (M == 0 || N == 0)
        return;
#ifdef KINDRED_CBLAS
    cblas_sgemm(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans,
        trans_b ? CblasTrans : CblasNoTrans, (int)M, (int)N, (int)K, alpha, A,
        (int)lda, B, (int)ldb, beta, C, (int)ldc);
#else
    one_thread();
    dnnl_status_t status = dnnl_sgemm(trans_a ? 'T' : 'N', trans_b ? 'T' : 'N',
        (dnnl_dim_t)M, (dnnl_dim_t)N, (dnnl_dim_t)K, alpha, A, (dnnl_dim_t)lda,
        B, (dnnl_dim_t)ldb, beta, C, (dnnl_dim_t)ldc);
    ASSERT(status == dnnl_success);
#endif
}
