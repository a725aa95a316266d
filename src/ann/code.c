#include "ann/code.h"

#include <string.h>
#include "base/check.h"
#include "kern/kern.h"

/* Steps are made a little larger than the limits ask for, so that rounding
   to codes seldom needs a second try. */
#define STEP_MARGIN 1.002

static void
code_within(struct code_of *of, int8_t *code, const float *v, size_t n,
    int code_max, int stripe_norm)
{
    const struct kern *k = kern();
    size_t n_code = KERN_CODE_DIMS(n);
    double norm2 = k->dot_f64(v, v, n);
    double top = (double)k->absmax(v, n);

    ASSERT(isfinite(norm2));
    of->norm = sqrt(norm2) * (1.0 + 0x1p-40);
    of->scale = 0.0f;
    of->residual = nextafterf((float)of->norm, INFINITY);

    double inv_step = (double)code_max / top;

    if (!(inv_step <= 1e30)) { /* zero, or too small to matter */
        memset(code, 0, n_code);
        if (norm2 == 0.0)
            of->residual = 0.0f;
        return;
    }
    for (;;) {
        k->quantize(code, v, (float)inv_step, code_max, n, n_code);

        double stripe2 = (double)kern_stripe_norm2(code, n_code);
        double most2 = (double)stripe_norm * (double)stripe_norm;

        if (stripe2 <= most2)
            break;
        inv_step *= sqrt(most2 / stripe2) / STEP_MARGIN;
    }

    int64_t cc = 0;
    double vc = 0.0;

    for (size_t i = 0; i < n; i++) {
        cc += code[i] * code[i];
        vc += (double)v[i] * (double)code[i];
    }
    of->scale = (float)(vc / (double)cc);

    double s = (double)of->scale;
    double rest2 = 0.0;

    for (size_t i = 0; i < n; i++) {
        double d = (double)v[i] - s * (double)code[i];

        rest2 += d * d;
    }
    of->residual = nextafterf((float)(sqrt(rest2) * (1.0 + 0x1p-30)), INFINITY);
}

void
code_row(struct code_of *of, int8_t *code, const float *v, size_t n)
{
    code_within(of, code, v, n, KERN_ROW_MAX, kern()->row_norm);
}

void
code_query(struct code_of *of, uint8_t *image, const float *v, size_t n)
{
    int8_t *code = (int8_t *)image;

    code_within(of, code, v, n, kern()->query_max, kern()->query_norm);
    kern_scan_prepare(image, KERN_CODE_DIMS(n));
}
