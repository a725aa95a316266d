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
 * counts in the first term, and likewise in the second; with the angle t
 * between q' and x', cos t = a / (|q'| |x'|),
 *
 *   |q.x - a| <= sin t (|q'| |dx| + |x'| |dq|) + |dq| |dx|
 *
 * so rows close to the query have a tighter bound than others. |q'| and |x'|
 * are bounded by |q| and by the largest norm in the index, which can only
 * raise each factor, sin t included. Roundings (the scales are floats, so
 * orthogonality holds to 2^-24; a is computed in float by the kernels) are
 * covered by CODE_SLACK |q| |x|.
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

/* What the bound of a row needs to know of its query and index. */
struct code_bounds {
    double query_norm;
    double query_residual;
    double row_norm;   /* the largest */
    double inv_norms2; /* 1 / (|q|^2 |x|^2), a little less; 0 for no sine */
    double slack;
};

static inline struct code_bounds
code_bounds_of(const struct code_of *query, double row_norm)
{
    double norms2 = query->norm * query->norm * row_norm * row_norm;

    return (struct code_bounds){.query_norm = query->norm,
        .query_residual = (double)query->residual,
        .row_norm = row_norm,
        .inv_norms2 = norms2 > 0x1p-60 ? (1.0 - 0x1p-20) / norms2 : 0.0,
        .slack = CODE_SLACK * query->norm * row_norm};
}

/* For any row with this residual, whatever its a. */
static inline double
code_bound_any(const struct code_bounds *b, double residual)
{
    return b->query_norm * residual + b->row_norm * b->query_residual +
           b->query_residual * residual + b->slack;
}

/* For a row whose codes gave a. */
static inline double
code_bound_at(const struct code_bounds *b, double a, double residual)
{
    double sin2 = 1.0 - a * a * b->inv_norms2;

    return sqrt(sin2 > 0.0 ? sin2 : 0.0) *
               (b->query_norm * residual + b->row_norm * b->query_residual) +
           b->query_residual * residual + b->slack;
}

#endif
