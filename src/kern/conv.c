#include "kern/conv.h"

#include <string.h>
#include "base/alloc.h"
#include "base/check.h"

#ifndef KINDRED_CBLAS
#include <dnnl.h>
#if DNNL_VERSION_MAJOR == 2
#define USE_DNNL
#include "kern/one_thread.h"
#endif
#endif

/* NEEDSWORK: descriptors of oneDNN 3.x are made in another way; until somebody
   needs it the plain loops serve there. */

struct conv {
    struct conv_shape shape;
    size_t workspace;
#ifdef USE_DNNL
    dnnl_engine_t engine;
    /* NULL: the plain loops */
    dnnl_primitive_t primitive[CONV_PASSES];
    const char *kernel[CONV_PASSES];
#endif
};

size_t
conv_block(void)
{
#if defined(__x86_64__) && defined(USE_DNNL)
    return __builtin_cpu_supports("avx512f") ? 16 : 8;
#else
    return 8;
#endif
}

size_t
conv_workspace_bytes(const struct conv *conv)
{
    return conv->workspace;
}

#ifdef USE_DNNL

/* Which memories a pass takes, in the order of conv_run: out, a, b. */
static const int args[CONV_PASSES][3] = {
    {DNNL_ARG_DST, DNNL_ARG_SRC, DNNL_ARG_WEIGHTS},
    {DNNL_ARG_DIFF_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS},
    {DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_SRC, DNNL_ARG_DIFF_DST}};
static const dnnl_query_t queries[CONV_PASSES][3] = {
    {dnnl_query_dst_md, dnnl_query_src_md, dnnl_query_weights_md},
    {dnnl_query_diff_src_md, dnnl_query_diff_dst_md, dnnl_query_weights_md},
    {dnnl_query_diff_weights_md, dnnl_query_src_md, dnnl_query_diff_dst_md}};

struct descriptors {
    dnnl_memory_desc_t x, y, w;
    dnnl_dims_t strides, pad_before, pad_after;
};

static enum err
describe(
    struct descriptors *d, const struct conv_shape *shape, enum conv_pass pass)
{
    bool wide = conv_block() == 16;
    bool picture = shape->ic % conv_block() != 0;
    dnnl_dim_t P = conv_side_out(shape), H = shape->side, K = shape->kernel;
    dnnl_dims_t x = {shape->n, shape->ic, H, H};
    dnnl_dims_t y = {shape->n, shape->oc, P, P};
    dnnl_dims_t w = {shape->oc, shape->ic, K, K};
    dnnl_format_tag_t blocked = wide ? dnnl_nChw16c : dnnl_nChw8c;
    dnnl_format_tag_t w_tag;

    if (picture)
        w_tag = wide ? dnnl_Ohwi16o : dnnl_Ohwi8o;
    else if (pass == CONV_BACKWARD_DATA)
        w_tag = wide ? dnnl_OIhw16o16i : dnnl_OIhw8o8i;
    else
        w_tag = wide ? dnnl_OIhw16i16o : dnnl_OIhw8i8o;
    /* what the kernel reads past the picture, at most */
    dnnl_dim_t after = (P - 1) * shape->stride + K - H - K / 2;
    for (size_t i = 0; i < 2; i++) {
        d->strides[i] = shape->stride;
        d->pad_before[i] = K / 2;
        d->pad_after[i] = after;
    }
    if (dnnl_memory_desc_init_by_tag(&d->x, 4, x, dnnl_f32,
            picture ? dnnl_nchw : blocked) != dnnl_success ||
        dnnl_memory_desc_init_by_tag(&d->y, 4, y, dnnl_f32, blocked) !=
            dnnl_success ||
        dnnl_memory_desc_init_by_tag(&d->w, 4, w, dnnl_f32, w_tag) !=
            dnnl_success)
        return ERR_INTERNAL;
    return OK;
}

/* The primitive's descriptor, or NULL where the library has none. */
static dnnl_primitive_desc_t
find_kernel(const struct descriptors *d, enum conv_pass pass,
    const_dnnl_primitive_attr_t attr, dnnl_engine_t engine,
    const_dnnl_primitive_desc_t forward)
{
    dnnl_convolution_desc_t desc;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t status;

    if (pass == CONV_FORWARD)
        status = dnnl_convolution_forward_desc_init(&desc,
            dnnl_forward_training, dnnl_convolution_direct, &d->x, &d->w, NULL,
            &d->y, d->strides, d->pad_before, d->pad_after);
    else if (pass == CONV_BACKWARD_DATA)
        status = dnnl_convolution_backward_data_desc_init(&desc,
            dnnl_convolution_direct, &d->x, &d->w, &d->y, d->strides,
            d->pad_before, d->pad_after);
    else
        status = dnnl_convolution_backward_weights_desc_init(&desc,
            dnnl_convolution_direct, &d->x, &d->w, NULL, &d->y, d->strides,
            d->pad_before, d->pad_after);
    if (status != dnnl_success || dnnl_primitive_desc_create(&pd, &desc, attr,
                                      engine, forward) != dnnl_success)
        return NULL;
    return pd;
}

static bool
is_fast(const_dnnl_primitive_desc_t pd, const char **name)
{
    return dnnl_primitive_desc_query(
               pd, dnnl_query_impl_info_str, 0, (void *)name) == dnnl_success &&
           strncmp(*name, "jit", 3) == 0;
}

static enum err
make_pass(
    struct conv *conv, enum conv_pass pass, const_dnnl_primitive_attr_t attr)
{
    struct descriptors d;
    dnnl_primitive_desc_t pd, forward = NULL;
    enum err err = describe(&d, &conv->shape, pass);

    if (err != OK)
        return err;
    if (pass != CONV_FORWARD)
        forward = find_kernel(&d, CONV_FORWARD, attr, conv->engine, NULL);
    pd = find_kernel(&d, pass, attr, conv->engine, forward);
    if (pd != NULL && is_fast(pd, &conv->kernel[pass])) {
        const dnnl_memory_desc_t *scratch =
            dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        size_t bytes = scratch == NULL ? 0 : dnnl_memory_desc_get_size(scratch);
        conv->workspace = MAX(conv->workspace, bytes);
        if (dnnl_primitive_create(&conv->primitive[pass], pd) != dnnl_success)
            err = ERR_NOMEM;
    } else {
        conv->kernel[pass] = "plain";
    }
    if (pd != NULL)
        dnnl_primitive_desc_destroy(pd);
    if (forward != NULL)
        dnnl_primitive_desc_destroy(forward);
    return err;
}

static enum err
make_passes(struct conv *conv, unsigned passes)
{
    dnnl_primitive_attr_t attr = NULL;
    enum err err = OK;

    one_thread();
    if (dnnl_engine_create(&conv->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_primitive_attr_create(&attr) != dnnl_success)
        err = ERR_NOMEM;
    if (err == OK && dnnl_primitive_attr_set_scratchpad_mode(
                         attr, dnnl_scratchpad_mode_user) != dnnl_success)
        err = ERR_INTERNAL;
    for (unsigned pass = 0; pass < CONV_PASSES && err == OK; pass++) {
        if (passes & (1u << pass))
            err = make_pass(conv, (enum conv_pass)pass, attr);
    }
    if (attr != NULL)
        dnnl_primitive_attr_destroy(attr);
    return err;
}

void
conv_free(struct conv *conv)
{
    if (conv == NULL)
        return;
    for (size_t i = 0; i < CONV_PASSES; i++) {
        if (conv->primitive[i] != NULL)
            dnnl_primitive_destroy(conv->primitive[i]);
    }
    if (conv->engine != NULL)
        dnnl_engine_destroy(conv->engine);
    mem_free(conv);
}

const char *
conv_kernel(const struct conv *conv, enum conv_pass pass)
{
    return conv->kernel[pass];
}

/* Memory objects and the stream are made for the call: they hold state, and a
   conv is shared between threads. */
static enum err
execute(const struct conv *conv, enum conv_pass pass, float *const p[3],
    void *workspace)
{
    const_dnnl_primitive_desc_t pd;
    dnnl_exec_arg_t list[4] = {0};
    dnnl_stream_t stream = NULL;
    enum err err = ERR_NOMEM;

    one_thread();
    if (dnnl_primitive_get_primitive_desc(conv->primitive[pass], &pd) !=
        dnnl_success)
        return ERR_INTERNAL;
    for (int i = 0; i < 4; i++) {
        list[i].arg = i == 3 ? DNNL_ARG_SCRATCHPAD : args[pass][i];
        if (dnnl_memory_create(&list[i].memory,
                dnnl_primitive_desc_query_md(pd,
                    i == 3 ? dnnl_query_scratchpad_md : queries[pass][i], 0),
                conv->engine,
                i == 3 ? workspace : (void *)p[i]) != dnnl_success)
            goto out;
    }
    if (dnnl_stream_create(&stream, conv->engine, dnnl_stream_default_flags) ==
            dnnl_success &&
        dnnl_primitive_execute(conv->primitive[pass], stream, 4, list) ==
            dnnl_success)
        err = OK;
out:
    for (int i = 0; i < 4; i++) {
        if (list[i].memory != NULL)
            dnnl_memory_destroy(list[i].memory);
    }
    if (stream != NULL)
        dnnl_stream_destroy(stream);
    return err;
}

enum err
conv_run(const struct conv *conv, enum conv_pass pass, float *out,
    const float *a, const float *b, void *workspace)
{
    if (conv->primitive[pass] == NULL) {
        conv_plain(&conv->shape, pass, out, a, b);
        return OK;
    }
    /* the library's interface has no const; inputs are not written */
    float *const p[3] = {out, (float *)(uintptr_t)a, (float *)(uintptr_t)b};
    return execute(conv, pass, p, workspace);
}

#else

static enum err
make_passes(struct conv *conv, unsigned passes)
{
    (void)conv;
    (void)passes;
    return OK;
}

void
conv_free(struct conv *conv)
{
    mem_free(conv);
}

const char *
conv_kernel(const struct conv *conv, enum conv_pass pass)
{
    (void)conv;
    (void)pass;
    return "plain";
}

enum err
conv_run(const struct conv *conv, enum conv_pass pass, float *out,
    const float *a, const float *b, void *workspace)
{
    (void)workspace;
    conv_plain(&conv->shape, pass, out, a, b);
    return OK;
}

#endif

enum err
conv_new(struct conv **out, const struct conv_shape *shape, unsigned passes)
{
    ASSERT(shape->oc % CONV_BLOCK_MAX == 0 && shape->n > 0);
    ASSERT(shape->side <= CONV_SIDE_MAX && shape->kernel <= 7);
    ASSERT(shape->ic < 4 || shape->ic % CONV_BLOCK_MAX == 0);
    ASSERT(shape->ic >= 4 || !(passes & (1u << CONV_BACKWARD_DATA)));
    struct conv *conv = mem_calloc(1, sizeof *conv);
    if (conv == NULL)
        return ERR_NOMEM;
    conv->shape = *shape;
    enum err err = make_passes(conv, passes);
    if (err != OK)
        conv_free(conv);
    else
        *out = conv;
    return err;
}
