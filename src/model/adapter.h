/*
 * adapter.h - a linear map behind an encoder, for queries alone:
 *
 *   y = unit(A x), x the encoder's vector, A [D, D] stored row by row
 *
 * and zero where A x is. encoder.h has what an adapter means to a user; here
 * is its arithmetic, and how it is trained: the encoder before it stays as it
 * is, so that a tape keeps vectors and the gradient has one segment.
 */
#ifndef MODEL_ADAPTER_H
#define MODEL_ADAPTER_H

#include "model/family.h"

#define ADAPTER_TENSOR "adapter.weight"

void adapter_identity(float *A, size_t D);

/* rows [n, D] of the inputs that are queries become unit(A x). ERR_NOMEM. */
enum err adapter_map(const float *A, size_t D,
    const struct encoder_input *inputs, size_t n, float *rows,
    struct pool *pool) NODISCARD;

/* What encoder.h's functions of these names do where there is an adapter. */
enum err adapter_tape_new(struct encoder_tape **out) NODISCARD;
enum err adapter_forward(const struct encoder *encoder,
    struct encoder_tape *tape, const struct encoder_input *inputs, size_t n,
    float *out, struct pool *pool) NODISCARD;
enum err adapter_backward(const struct encoder *encoder,
    struct encoder_tape *tape, const float *d_out, struct encoder_grads *grads,
    struct pool *pool) NODISCARD;

/* The family of encoders that are an adapter and nothing before it; no
   settings name it. */
extern const struct encoder_family adapter_family;

#endif
