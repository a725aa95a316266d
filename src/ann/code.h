/*
 * code.h - vectors as small integers, and how far off a dot of codes can be.
 *
 * A vector v is coded as v' = s c: integer codes c within the limits of
 * kern.h, and the scale s = v.c / c.c that makes v - v' orthogonal to v' (so
 * |v'| <= |v|). The residual |v - v'| is computed in double and rounded up.
 *
 * Bound. With a = q'.x', dq = q - q', dx = x - x':
 *
 *   q.x - a = q'.dx + dq.x' + dq.dx
 *
 * dx is orthogonal to x', so only the part of q' that is orthogonal to x'
 * counts in the first term, and likewise in the second; hence
 *
 *   |q.x - a| <= sqrt(|q'|^2 - (a/|x'|)^2) |dx| + sqrt(|x'|^2 - (a/|q'|)^2)
 * |dq|
 *                + |dq| |dx|
 *
 * which is at most (|q'| |dx| + |x'| |dq|) sin(q', x') + |dq| |dx|: rows close
 * to the query have a tighter bound than others. |x'| is bounded by the
 * largest norm of the index. Roundings (the scales are floats, so orthogonality
 * holds to 2^-24; a is computed in float by the kernels) are covered by
 * CODE_SLACK |q| |x|.
 */
#ifndef ANN_CODE_H
#define ANN_CODE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* Some thirty roundings of float, 2^-24 each. */
#define CODE_SLACK 0x1p-19

struct code_of {
    float scale;    /* s, 0 for the zero vector */
    float residual; /* |v - s c|, rounded up */
    double norm;    /* |v|, rounded up */
};

/* Code a row [n] into code [KERN_CODE_DIMS(n)]. Finite values only. */
void code_row(struct code_of *of, int8_t *code, const float *v, size_t n);

/* Code a query within the limits of kern()'s scan, and prepare it: image
   holds KERN_QUERY_BYTES(KERN_CODE_DIMS(n)) bytes. */
void code_query(struct code_of *of, uint8_t *image, const float *v, size_t n);

/* The bound without the sines: of any row with this residual and norm. */
static inline double
code_bound_any(const struct code_of *query, double residual, double norm)
{
    double dq = (double)query->residual;

    return query->norm * residual + norm * dq + dq * residual +
           CODE_SLACK * query->norm * norm;
}

/* The bound of a row whose codes gave a. */
static inline double
code_bound_at(
    const struct code_of *query, double a, double residual, double norm)
{
    double dq = (double)query->residual;
    double q2 = query->norm * query->norm;
    double x2 = norm * norm;
    double a2 = a * a * (1.0 - 1e-6); /* a itself is rounded */
    double q_rest = x2 > 0.0 ? q2 - a2 / x2 : q2;
    double x_rest = q2 > 0.0 ? x2 - a2 / q2 : x2;

    return sqrt(q_rest > 0.0 ? q_rest : 0.0) * residual +
           sqrt(x_rest > 0.0 ? x_rest : 0.0) * dq + dq * residual +
           CODE_SLACK * query->norm * norm;
}

#endif
