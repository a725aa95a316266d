/*
 * conv.h - two-dimensional convolutions of pictures in float, forward and
 * backward: the front of the numeric library (oneDNN; plain loops where it has
 * no fast kernel for a shape, and with -DKINDRED_CBLAS).
 *
 *   y_nopq = sum_ikl w_oikl x_ni,(p s - pad + k),(q s - pad + l)
 *
 * with zeros outside of the picture, pad = K / 2, and P = Q = (H - 1) / s + 1.
 *
 * Layouts, with b = conv_block() channels side by side:
 *   maps     [N, C/b, H, W, b]; with 1 or 3 channels (a picture) [N, C, H, W]
 *   weights  packed by conv_pack from [O, I, K, K]: for forward and for the
 *            gradient [O/b, I/b, K, K, b(i), b(o)], of a picture [O/b, K, K,
 *            I, b(o)]; for backward by data [O/b, I/b, K, K, b(o), b(i)]
 * Packed weights have as many floats as unpacked ones.
 *
 * One thread a call: the callers split the images over their own pool into
 * fixed shards, so results do not depend on the number of threads. All arrays
 * 64-byte aligned; outputs do not overlap inputs. Sums accumulate in float:
 * |error| <= n 2^-23 sum |terms| for a sum of n terms.
 */
#ifndef KERN_CONV_H
#define KERN_CONV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

#define CONV_BLOCK_MAX 16
#define CONV_SIDE_MAX 256 /* of the input */

/* Channels that stand side by side: 8, or 16 with AVX-512. Constant. */
size_t conv_block(void);

struct conv_shape {
    uint32_t n;      /* images of a call */
    uint32_t ic, oc; /* ic 1, 3 or a multiple of 16; oc a multiple of 16 */
    uint32_t side;   /* H = W of the input */
    uint32_t kernel; /* K, odd, at most 7 */
    uint32_t stride; /* s, 1..4 */
};

/* P = Q, the side of the output. */
uint32_t conv_side_out(const struct conv_shape *shape);
size_t conv_weights_floats(const struct conv_shape *shape);

enum conv_pass {
    CONV_FORWARD,
    CONV_BACKWARD_DATA,
    CONV_BACKWARD_WEIGHTS,
    CONV_PASSES
};

/* The operations of one shape; immutable, for any number of threads. */
struct conv;

/*
 * conv_new - prepare the passes whose bit (1 << pass) is set in passes.
 *
 * CONV_BACKWARD_DATA is not for pictures. About a millisecond the first time
 * that a process asks for a shape, some microseconds afterwards. ERR_NOMEM.
 */
enum err conv_new(struct conv **out, const struct conv_shape *shape,
    unsigned passes) NODISCARD;
void conv_free(struct conv *conv);
/* What the passes of it need as scratch, 0 for most. */
size_t conv_workspace_bytes(const struct conv *conv);
/* The kernel that serves a pass, for benchmarks: "jit:avx2", "plain", ... */
const char *conv_kernel(const struct conv *conv, enum conv_pass pass);

/*
 * conv_run - one pass over shape.n images.
 *
 *   CONV_FORWARD           out y overwritten, from a = x, b = w
 *   CONV_BACKWARD_DATA     out dx overwritten, from a = dy, b = w (of the
 *                          layout for this pass)
 *   CONV_BACKWARD_WEIGHTS  out dw overwritten, from a = x, b = dy
 *   workspace              [conv_workspace_bytes], of the calling thread
 *
 * ERR_NOMEM, when the library finds no memory for its own bookkeeping.
 */
enum err conv_run(const struct conv *conv, enum conv_pass pass, float *out,
    const float *a, const float *b, void *workspace) NODISCARD;

/* Weights [O, I, K, K] into the layout of a pass, and back from the layout of
   the gradient (CONV_BACKWARD_WEIGHTS is that of CONV_FORWARD). */
void conv_pack(float *packed, const float *w, const struct conv_shape *shape,
    enum conv_pass pass);
void conv_unpack(float *w, const float *packed, const struct conv_shape *shape);

/* The same passes in plain loops: the reference of the tests, and what runs
   where the library has nothing. Exact order: input channels, then rows, then
   columns of the kernel. */
void conv_plain(const struct conv_shape *shape, enum conv_pass pass, float *out,
    const float *a, const float *b);

#endif
