/*
 * attention.h - attention of the tokens of one sequence to each other.
 *
 * For each head h, with q, k, v its d = W / heads columns:
 *
 *   P = softmax(q k^T / sqrt(d)),  o = P v
 *
 * Source: Vaswani et al. 2017 (arXiv:1706.03762), eq. 1. Every token sees every
 * token of its sequence and none of another, so nothing is masked or padded.
 *
 * The scores are made for some rows at a time, so that they stay in the cache,
 * and are made again by the backward pass, which needs nothing but q, k, v: a
 * tape that kept them would grow with the square of the length.
 */
#ifndef NN_ATTENTION_H
#define NN_ATTENTION_H

#include <stddef.h>

struct attention {
    size_t L;     /* tokens, > 0 */
    size_t heads; /* > 0 */
    size_t d;     /* columns of a head, a multiple of KERN_PANEL */
};

/* Floats of scratch for a sequence of at most L tokens. */
size_t attention_workspace_floats(size_t L, size_t d);
size_t attention_grad_workspace_floats(size_t L, size_t d);

/*
 * attention_forward, attention_backward - one sequence, one thread.
 *
 *   o     [L, heads d]     overwritten
 *   qkv   [L, 3 heads d]   rows of all heads' q, then k, then v
 *   dqkv  [L, 3 heads d]   overwritten
 *   d_o   [L, heads d]     d loss / d o
 *   work  [attention_workspace_floats(L, d)], backward:
 *         [attention_grad_workspace_floats(L, d)]; 64-byte aligned
 *
 *   dv = P^T do,  dP = do v^T,  dS = P (dP - rowsum(P dP)) / sqrt(d)
 *   dq = dS k,  dk = dS^T q
 *
 * No overlap. Allocate nothing, cannot fail; 4 L^2 W and 10 L^2 W operations.
 * Sums in float: |error| <= n 2^-23 sum |terms| for n terms.
 */
void attention_forward(
    float *o, const float *qkv, const struct attention *a, float *work);
void attention_backward(float *dqkv, const float *d_o, const float *qkv,
    const struct attention *a, float *work);

#endif
