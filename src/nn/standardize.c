#include "nn/standardize.h"

#include <math.h>

#define EPS 1e-6

/* mu and s of a row. */
static void
row_stats(const float *w, size_t K, double *mu, double *s)
{
    double sum = 0, square = 0;
    for (size_t i = 0; i < K; i++)
        sum += (double)w[i];
    *mu = sum / (double)K;
    for (size_t i = 0; i < K; i++) {
        double v = (double)w[i] - *mu;
        square += v * v;
    }
    *s = 1 / sqrt(square + EPS);
}

void
standardize_forward(float *z, const float *w, size_t rows, size_t K)
{
    for (size_t r = 0; r < rows; r++, z += K, w += K) {
        double mu, s;
        row_stats(w, K, &mu, &s);
        for (size_t i = 0; i < K; i++)
            z[i] = (float)(((double)w[i] - mu) * s);
    }
}

/* forward: z = (w - mu) s */
void
standardize_backward(
    float *dw, const float *dz, const float *w, size_t rows, size_t K)
{
    for (size_t r = 0; r < rows; r++, dw += K, dz += K, w += K) {
        double mu, s, mean = 0, along = 0;
        row_stats(w, K, &mu, &s);
        for (size_t i = 0; i < K; i++) {
            mean += (double)dz[i];
            along += (double)dz[i] * ((double)w[i] - mu) * s;
        }
        mean /= (double)K;
        for (size_t i = 0; i < K; i++)
            dw[i] += (float)(s * ((double)dz[i] - mean -
                                     along * ((double)w[i] - mu) * s));
    }
}
