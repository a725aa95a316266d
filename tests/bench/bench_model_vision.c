/*
 * bench_model_vision.c - how fast the vision encoder trains and encodes.
 *
 * usage: bench_model_vision [KEY=VALUE ...]
 *
 * A step is what peer_vision.py does with the same network: forward, backward
 * from a fixed gradient of the output, AdamW. The pictures are noise. Keys:
 * those of the encoder's settings that are numbers (input channels width
 * blocks stages stem_stride dims), pool, linear, and
 *
 *   batch    views a step (256)       threads  (2)
 *   rounds   of which the median and the best are told (5)
 *   steps    a round (4)
 *   profile  1: also every convolution by itself, one thread (0)
 *
 * For a ratio that the machine's moods do not spoil, run the two in turn:
 *   for i in 1 2 3; do build/release/tests/bench/bench_model_vision; \
 *       python3 tests/bench/peer_vision.py; done
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "image/image.h"
#include "kern/kern.h"
#include "model/vision_encoder.h"

#define ROUNDS_MAX 64

static struct {
    size_t batch, threads, rounds, steps, profile;
} opt = {256, 2, 5, 4, 0};

static char config[512] = "{";

static void
die(const char *what)
{
    fprintf(stderr, "bench_model_vision: %s\n", what);
    exit(1);
}

/* Processor time of all threads: on a busy machine the better clock. */
static int64_t
cpu_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static double
seconds_since(int64_t start_ns)
{
    return (double)(clock_mono_ns() - start_ns) * 1e-9;
}

static void
read_option(const char *arg)
{
    const char *value = strchr(arg, '=');
    struct {
        const char *key;
        size_t *to;
    } numbers[] = {{"batch", &opt.batch}, {"threads", &opt.threads},
        {"rounds", &opt.rounds}, {"steps", &opt.steps},
        {"profile", &opt.profile}};

    if (value == NULL)
        die("arguments are KEY=VALUE");
    size_t n = (size_t)(value - arg);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        if (strlen(numbers[i].key) == n &&
            strncmp(arg, numbers[i].key, n) == 0) {
            *numbers[i].to = strtoul(value + 1, NULL, 10);
            return;
        }
    }
    bool word = strncmp(arg, "pool", n) == 0;
    size_t len = strlen(config);
    (void)snprintf(config + len, sizeof config - len, "%s\"%.*s\":%s%s%s",
        len > 1 ? "," : "", (int)n, arg, word ? "\"" : "", value + 1,
        word ? "\"" : "");
}

static int
by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct bench {
    struct encoder *encoder;
    struct encoder_tape *tape;
    struct encoder_grads *grads;
    struct encoder_input *inputs;
    struct image *images;
    float *out, *d_out, *m, *v, *params;
    size_t n_params;
    struct pool *pool;
    double t_forward, t_backward, t_optimizer;
};

static void
step(struct bench *b)
{
    struct kern_adamw adamw = {.lr = 1e-4f,
        .beta1 = 0.9f,
        .beta2 = 0.999f,
        .eps = 1e-8f,
        .weight_decay = 1e-4f,
        .correct1 = 1,
        .correct2 = 1};
    int64_t start = clock_mono_ns();
    if (encoder_forward(b->encoder, b->tape, b->inputs, opt.batch, NULL, b->out,
            b->pool) != OK)
        die("out of memory");
    b->t_forward += seconds_since(start);
    start = clock_mono_ns();
    if (encoder_backward(b->encoder, b->tape, b->d_out, b->grads, b->pool) !=
        OK)
        die("out of memory");
    b->t_backward += seconds_since(start);
    start = clock_mono_ns();
    for (size_t s = 0; s < b->grads->n_segments; s++) {
        size_t at = b->grads->segments[s].start;
        kern()->adamw(b->params + at, b->grads->d_params + at, b->m + at,
            b->v + at, b->grads->segments[s].n, &adamw);
    }
    encoder_grads_clear(b->grads);
    b->t_optimizer += seconds_since(start);
}

static void
bench_train(struct bench *b)
{
    double rate[ROUNDS_MAX], cpu[ROUNDS_MAX];
    step(b);
    b->t_forward = b->t_backward = b->t_optimizer = 0;
    for (size_t r = 0; r < opt.rounds; r++) {
        int64_t start = clock_mono_ns(), cpu_start = cpu_ns();
        for (size_t i = 0; i < opt.steps; i++)
            step(b);
        cpu[r] = (double)(opt.batch * opt.steps) /
                 ((double)(cpu_ns() - cpu_start) * 1e-9);
        rate[r] = (double)(opt.batch * opt.steps) / seconds_since(start);
    }
    qsort(rate, opt.rounds, sizeof *rate, by_size);
    qsort(cpu, opt.rounds, sizeof *cpu, by_size);
    double all = b->t_forward + b->t_backward + b->t_optimizer;
    printf("train   %8.0f views/s median, %.0f best (forward %.0f%%, backward "
           "%.0f%%, AdamW %.1f%%)\n",
        rate[opt.rounds / 2], rate[opt.rounds - 1], 100 * b->t_forward / all,
        100 * b->t_backward / all, 100 * b->t_optimizer / all);
    printf("        %8.0f views per processor second median, %.0f best\n",
        cpu[opt.rounds / 2], cpu[opt.rounds - 1]);
}

static void
bench_encode(struct bench *b, size_t n, struct pool *pool, const char *name)
{
    double t[ROUNDS_MAX];
    size_t repeats = MAX((size_t)1, 512 / n);
    for (size_t r = 0; r <= opt.rounds; r++) {
        int64_t start = clock_mono_ns();
        for (size_t i = 0; i < repeats; i++) {
            if (encoder_encode(b->encoder, b->inputs, n, b->out, NULL, pool) !=
                OK)
                die("out of memory");
        }
        t[r == 0 ? 0 : r - 1] = seconds_since(start) / (double)repeats;
    }
    qsort(t, opt.rounds, sizeof *t, by_size);
    printf("%s %8.0f pictures/s median, %.3f ms a call\n", name,
        (double)n / t[opt.rounds / 2], t[opt.rounds / 2] * 1e3);
}

static void
bench_convs(const struct vision_encoder *e)
{
    static const char *const names[] = {"forward", "by data", "by weights"};
    double total = 0;
    for (size_t i = 0; i < e->n_convs; i++) {
        const struct vision_conv *c = &e->convs[i];
        struct conv_shape shape = {.n = (uint32_t)e->run,
            .ic = c->ic,
            .oc = c->oc,
            .side = c->side,
            .kernel = c->kernel,
            .stride = c->stride};
        double macs =
            (double)c->n_w * c->side_out * c->side_out * (double)e->run;
        struct conv *conv;
        if (conv_new(&conv, &shape, i == 0 ? 5 : 7) != OK)
            die("no convolution");
        size_t in = (size_t)c->ic * c->side * c->side * e->run;
        size_t size[3] = {in, c->map * e->run, c->n_w};
        float *p[3];
        for (size_t j = 0; j < 3; j++) {
            p[j] = mem_alloc_aligned(size[j], sizeof(float));
            for (size_t k = 0; k < size[j]; k++)
                p[j][k] = (float)(k % 13) * 0.1f - 0.6f;
        }
        void *work = mem_alloc_aligned(conv_workspace_bytes(conv) + 64, 1);
        printf("  %3u->%3u %ux%u/%u at %3u:", c->ic, c->oc, c->kernel,
            c->kernel, c->stride, c->side);
        for (unsigned pass = 0; pass < CONV_PASSES; pass++) {
            float *out = pass == 0 ? p[1] : pass == 1 ? p[0] : p[2];
            float *a = pass == 1 ? p[1] : p[0];
            float *w = pass == 2 ? p[1] : p[2];
            double best = 1e9;
            if (pass == 1 && i == 0)
                continue;
            for (size_t r = 0; r < 5; r++) {
                size_t repeats = 1 + (size_t)(2e7 / macs);
                int64_t start = clock_mono_ns();
                for (size_t k = 0; k < repeats; k++) {
                    if (conv_run(conv, (enum conv_pass)pass, out, a, w, work) !=
                        OK)
                        die("convolution failed");
                }
                double t = seconds_since(start) / (double)repeats;
                best = MIN(best, t);
            }
            total += best / (double)e->run;
            printf(" %s %.1f G/s (%s),", names[pass], macs / best * 1e-9,
                conv_kernel(conv, (enum conv_pass)pass));
        }
        printf("\n");
        for (size_t j = 0; j < 3; j++)
            mem_free(p[j]);
        mem_free(work);
        conv_free(conv);
    }
    printf("  all: %.1f us a view on one thread\n", total * 1e6);
}

static void
open_bench(struct bench *b)
{
    struct rng rng;
    struct fault fault = {0};
    double macs = 0;

    if (encoder_new(&b->encoder, "vision", config, NULL, &fault) != OK)
        die(fault.detail);
    const struct vision_encoder *e = vision_of(b->encoder);
    size_t D = encoder_dims(b->encoder);
    uint32_t side = encoder_image_side(b->encoder);
    uint32_t channels = encoder_image_channels(b->encoder);
    for (size_t i = 0; i < e->n_convs; i++)
        macs += (double)e->convs[i].n_w * e->convs[i].side_out *
                e->convs[i].side_out;
    b->inputs = mem_calloc(opt.batch, sizeof *b->inputs);
    b->images = mem_calloc(opt.batch, sizeof *b->images);
    b->out = mem_alloc(opt.batch * D, sizeof *b->out);
    b->d_out = mem_alloc(opt.batch * D, sizeof *b->d_out);
    (void)encoder_params_const(b->encoder, &b->n_params);
    b->m = mem_calloc(b->n_params, sizeof *b->m);
    b->v = mem_calloc(b->n_params, sizeof *b->v);
    if (b->m == NULL || b->v == NULL ||
        encoder_tape_new(&b->tape, b->encoder) != OK ||
        encoder_grads_new(&b->grads, b->encoder) != OK ||
        pool_new(&b->pool, opt.threads, false) != OK)
        die("out of memory");
    rng_seed(&rng, 1);
    for (size_t i = 0; i < opt.batch; i++) {
        if (image_new(&b->images[i], side, side, channels) != OK)
            die("out of memory");
        for (size_t j = 0; j < (size_t)side * side * channels; j++)
            b->images[i].pixels[j] = (uint8_t)rng_below(&rng, 256);
        b->inputs[i].image = &b->images[i];
    }
    for (size_t i = 0; i < opt.batch * D; i++)
        b->d_out[i] = 0.01f * (float)rng_normal(&rng);
    printf("%s\n%zu parameters, %.1f M multiply-adds, runs of %zu, batch %zu, "
           "%zu threads, %s\n",
        encoder_config_json(b->encoder), b->n_params, macs * 1e-6, e->run,
        opt.batch, opt.threads, kern()->name);
}

int
main(int argc, char **argv)
{
    struct bench b = {0};

    for (int i = 1; i < argc; i++)
        read_option(argv[i]);
    (void)strcat(config, "}");
    if (opt.rounds == 0 || opt.rounds >= ROUNDS_MAX || opt.batch == 0 ||
        opt.threads == 0)
        die("rounds, batch or threads out of range");
    mem_setup();
    kern_init();
    open_bench(&b);
    bench_encode(&b, opt.batch, b.pool, "encode ");
    bench_encode(&b, 1, NULL, "latency");
    b.params = encoder_params(b.encoder, &b.n_params);
    bench_train(&b);
    if (opt.profile)
        bench_convs(vision_of(b.encoder));
    return 0;
}
