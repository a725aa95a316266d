/*
 * conv_plain.c - convolutions as loops over the blocked layout, and the
 * packing of weights into it. The innermost loop runs over the b channels that
 * stand side by side, which a compiler turns into vectors.
 */
#include "kern/conv.h"

#include <string.h>
#include "base/check.h"

#define KERNEL_MAX 7
#define PADDED_MAX (CONV_SIDE_MAX + KERNEL_MAX)

/* A shape with what follows from it. */
struct plan {
    size_t b;            /* channels of a block of the output */
    size_t ib, n_ib;     /* the same of the weights' input side, and blocks */
    size_t ob;           /* blocks of the output */
    size_t H, P, K, pad; /* sides */
    size_t s, n;
    size_t chan, pix; /* distance of channels and of pixels of the input */
};

static struct plan
plan_of(const struct conv_shape *shape)
{
    size_t b = conv_block();
    size_t H = shape->side;
    bool blocked = shape->ic % b == 0;
    struct plan p = {.b = b,
        .ib = blocked ? b : shape->ic,
        .ob = shape->oc / b,
        .H = H,
        .P = conv_side_out(shape),
        .K = shape->kernel,
        .pad = shape->kernel / 2,
        .s = shape->stride,
        .n = shape->n,
        .chan = blocked ? 1 : H * H,
        .pix = blocked ? b : 1};
    p.n_ib = shape->ic / p.ib;
    return p;
}

uint32_t
conv_side_out(const struct conv_shape *shape)
{
    return (shape->side - 1) / shape->stride + 1;
}

size_t
conv_weights_floats(const struct conv_shape *shape)
{
    return (size_t)shape->oc * shape->ic * shape->kernel * shape->kernel;
}

/* The place of w[o, i, k, l] in the packed form. */
static size_t
place(const struct plan *p, size_t o, size_t i, size_t k, size_t l, bool data)
{
    size_t cell = ((o / p->b * p->n_ib + i / p->ib) * p->K + k) * p->K + l;
    size_t lo = o % p->b, li = i % p->ib;
    return cell * p->ib * p->b + (data ? lo * p->ib + li : li * p->b + lo);
}

void
conv_pack(float *packed, const float *w, const struct conv_shape *shape,
    enum conv_pass pass)
{
    const struct plan p = plan_of(shape);
    for (size_t o = 0; o < shape->oc; o++)
        for (size_t i = 0; i < shape->ic; i++)
            for (size_t k = 0; k < p.K; k++)
                for (size_t l = 0; l < p.K; l++)
                    packed[place(&p, o, i, k, l, pass == CONV_BACKWARD_DATA)] =
                        *w++;
}

void
conv_unpack(float *w, const float *packed, const struct conv_shape *shape)
{
    const struct plan p = plan_of(shape);
    for (size_t o = 0; o < shape->oc; o++)
        for (size_t i = 0; i < shape->ic; i++)
            for (size_t k = 0; k < p.K; k++)
                for (size_t l = 0; l < p.K; l++)
                    *w++ = packed[place(&p, o, i, k, l, false)];
}

/* The rows (or columns) of the kernel that meet the picture at output row
   (column) at: first and one past the last. */
static void
kernel_range(const struct plan *p, size_t at, size_t *first, size_t *end)
{
    size_t start = at * p->s; /* input row of kernel row pad */
    *first = start < p->pad ? p->pad - start : 0;
    *end = MIN(p->K, p->H + p->pad - start);
}

static inline void
forward_pixel(float *acc, const struct plan *p, const float *x, const float *w,
    size_t r, size_t c)
{
    size_t k0, k1, l0, l1;
    kernel_range(p, r, &k0, &k1);
    kernel_range(p, c, &l0, &l1);
    for (size_t I = 0; I < p->n_ib; I++)
        for (size_t k = k0; k < k1; k++)
            for (size_t l = l0; l < l1; l++) {
                size_t row = r * p->s + k - p->pad, col = c * p->s + l - p->pad;
                const float *xp =
                    x + I * p->ib * p->H * p->H + (row * p->H + col) * p->pix;
                const float *wp =
                    w + ((I * p->K + k) * p->K + l) * p->ib * p->b;
                for (size_t i = 0; i < p->ib; i++)
                    for (size_t o = 0; o < p->b; o++)
                        acc[o] += xp[i * p->chan] * wp[i * p->b + o];
            }
}

static void
plain_forward(const struct plan *p, float *y, const float *x, const float *w)
{
    size_t image = p->n_ib * p->ib * p->H * p->H;
    size_t w_block = p->n_ib * p->ib * p->K * p->K * p->b;
    for (size_t n = 0; n < p->n; n++, x += image)
        for (size_t O = 0; O < p->ob; O++)
            for (size_t r = 0; r < p->P; r++)
                for (size_t c = 0; c < p->P; c++, y += p->b) {
                    float acc[CONV_BLOCK_MAX] = {0};
                    forward_pixel(acc, p, x, w + O * w_block, r, c);
                    memcpy(y, acc, p->b * sizeof *y);
                }
}

/* dx[i] += sum_o dy[o] w[o][i] */
static void
plain_backward_data(
    const struct plan *p, float *dx, const float *dy, const float *w)
{
    size_t image = p->n_ib * p->ib * p->H * p->H;
    memset(dx, 0, p->n * image * sizeof *dx);
    for (size_t n = 0; n < p->n; n++, dx += image)
        for (size_t O = 0; O < p->ob; O++)
            for (size_t r = 0; r < p->P; r++)
                for (size_t c = 0; c < p->P; c++, dy += p->b) {
                    size_t k0, k1, l0, l1;
                    kernel_range(p, r, &k0, &k1);
                    kernel_range(p, c, &l0, &l1);
                    for (size_t I = 0; I < p->n_ib; I++)
                        for (size_t k = k0; k < k1; k++)
                            for (size_t l = l0; l < l1; l++) {
                                size_t row = r * p->s + k - p->pad;
                                size_t col = c * p->s + l - p->pad;
                                float *xp = dx + I * p->ib * p->H * p->H +
                                            (row * p->H + col) * p->ib;
                                const float *wp =
                                    w + (((O * p->n_ib + I) * p->K + k) * p->K +
                                            l) *
                                            p->ib * p->b;
                                for (size_t o = 0; o < p->b; o++)
                                    for (size_t i = 0; i < p->ib; i++)
                                        xp[i] += dy[o] * wp[o * p->ib + i];
                            }
                }
}

/* Of one row of outputs and one row of one input channel, padded: acc[l][o] +=
   sum_c x[c s + l] dy[c][o]. K and b are constants where it is called, so that
   the loops over l and o unroll. */
static inline void
weights_row(float *restrict acc, const float *restrict x,
    const float *restrict dy, size_t P, size_t s, size_t K, size_t b)
{
    for (size_t c = 0; c < P; c++, x += s, dy += b)
        for (size_t l = 0; l < K; l++)
            for (size_t o = 0; o < b; o++)
                acc[l * b + o] += x[l] * dy[o];
}

static void
weights_row_of(
    float *acc, const float *x, const float *dy, const struct plan *p)
{
    if (p->K == 3 && p->b == 8)
        weights_row(acc, x, dy, p->P, p->s, 3, 8);
    else if (p->K == 5 && p->b == 8)
        weights_row(acc, x, dy, p->P, p->s, 5, 8);
    else if (p->K == 7 && p->b == 8)
        weights_row(acc, x, dy, p->P, p->s, 7, 8);
    else
        weights_row(acc, x, dy, p->P, p->s, p->K, p->b);
}

/* dw[l][i][o] += of channel i of one image's block I, for kernel row k and the
   output block of dy. */
static void
weights_channel(
    float *dw, const struct plan *p, const float *x, const float *dy, size_t k)
{
    float padded[PADDED_MAX] = {0};
    float acc[KERNEL_MAX * CONV_BLOCK_MAX] = {0};

    for (size_t r = 0; r < p->P; r++) {
        size_t row = r * p->s + k;
        if (row < p->pad || row >= p->H + p->pad)
            continue;
        const float *from = x + (row - p->pad) * p->H * p->pix;
        for (size_t c = 0; c < p->H; c++)
            padded[p->pad + c] = from[c * p->pix];
        weights_row_of(acc, padded, dy + r * p->P * p->b, p);
    }
    for (size_t l = 0; l < p->K; l++)
        for (size_t o = 0; o < p->b; o++)
            dw[l * p->ib * p->b + o] += acc[l * p->b + o];
}

static void
plain_backward_weights(
    const struct plan *p, float *dw, const float *x, const float *dy)
{
    size_t map = p->P * p->P * p->b;
    size_t n_dw = p->ob * p->n_ib * p->K * p->K * p->ib * p->b;
    memset(dw, 0, n_dw * sizeof *dw);
    for (size_t n = 0; n < p->n; n++)
        for (size_t O = 0; O < p->ob; O++, dy += map)
            for (size_t i = 0; i < p->n_ib * p->ib; i++)
                for (size_t k = 0; k < p->K; k++) {
                    size_t I = i / p->ib, li = i % p->ib;
                    weights_channel(dw +
                                        ((O * p->n_ib + I) * p->K + k) * p->K *
                                            p->ib * p->b +
                                        li * p->b,
                        p,
                        x + (n * p->n_ib + I) * p->ib * p->H * p->H +
                            li * p->chan,
                        dy, k);
                }
}

void
conv_plain(const struct conv_shape *shape, enum conv_pass pass, float *out,
    const float *a, const float *b)
{
    const struct plan p = plan_of(shape);
    if (pass == CONV_FORWARD)
        plain_forward(&p, out, a, b);
    else if (pass == CONV_BACKWARD_DATA)
        plain_backward_data(&p, out, a, b);
    else
        plain_backward_weights(&p, out, a, b);
}
