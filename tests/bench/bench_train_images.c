/*
 * bench_train_images.c - what training on pictures without labels is worth,
 * and how fast it is, beside what the bare pixels give.
 *
 * usage: bench_train_images TRAIN.pictures TEST.pictures [KEY=VALUE ...]
 *
 * The sets: tests/bench/data_images.sh. Every option of a training run has its
 * key (`keys` lists them), e.KEY=VALUE is a setting of the encoder, and
 *
 *   seconds=S    as many steps as fit (the speed of the first steps counts)
 *   images=N     as many steps as encode N images, keys included
 *   evals=N      judge N times on the way as well, on 2,000 test pictures
 *   train_max=N test_max=N   the first N of each set only
 *   baselines=0  leave them out; baselines=only: nothing else
 *   labels=1     give the labels to the loss (supcon)
 *   threads=N    default 2
 *   probe=0      no linear probes
 *   progress=0   no curves; save=FILE the encoder's weights
 *
 * Figures: weighted kNN (k = 200, t = 0.1) and a linear probe on the frozen
 * vectors, alignment and uniformity, and same thing: how often the nearest
 * other test picture shows the same thing, where the set has several of one.
 * The last line starts with RESULT and is for scripts.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "base/hash.h"
#include "kern/kern.h"
#include "tests/bench/pictures.h"
#include "train/loop.h"
#include "train/measure.h"

#define KNN_K 200
#define KNN_T 0.1F
#define EVAL_MAX 2000

static struct pool *pool;

struct bench {
    struct train_options train;
    double seconds, images;
    size_t evals, train_max, test_max, threads;
    bool baselines, only_baselines, progress, labels, probe;
    const char *save;
    char config[2000]; /* of the encoder, JSON */
};

struct set {
    struct pictures p;
    struct image *images;         /* [n] */
    struct encoder_input *inputs; /* [n] */
};

static void
die(const char *what)
{
    fprintf(stderr, "bench_train_images: %s\n", what);
    exit(1);
}

static void *
need(void *p)
{
    if (p == NULL)
        die("out of memory");
    return p;
}

static double
seconds_since(int64_t start_ns)
{
    return (double)(clock_mono_ns() - start_ns) * 1e-9;
}

/* ---------------------------------------------------------------- options */

enum kind { SIZE, REAL, FLAG, SEED };
struct key {
    const char *name;
    enum kind kind;
    void *at;
};

static int
find_name(const char *const *names, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    die(name);
    return 0;
}

static bool
set_key(const struct key *keys, size_t n, const char *name, const char *value)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(keys[i].name, name) != 0)
            continue;
        double v = strtod(value, NULL);
        switch (keys[i].kind) {
        case SIZE:
            *(size_t *)keys[i].at = (size_t)v;
            break;
        case REAL:
            *(float *)keys[i].at = (float)v;
            break;
        case FLAG:
            *(bool *)keys[i].at = v > 0;
            break;
        case SEED:
            *(uint64_t *)keys[i].at = (uint64_t)v;
            break;
        }
        return true;
    }
    return false;
}

static bool
set_train(struct train_options *o, const char *name, const char *value)
{
    struct augment_options *w = &o->views;
    const struct key keys[] = {
        {"batch", SIZE, &o->batch},
        {"micro", SIZE, &o->micro_batch},
        {"max_steps", SIZE, &o->max_steps},
        {"lr", REAL, &o->schedule.lr},
        {"warmup", REAL, &o->schedule.warmup},
        {"wd", REAL, &o->optimizer.weight_decay},
        {"beta1", REAL, &o->optimizer.beta1},
        {"beta2", REAL, &o->optimizer.beta2},
        {"eps", REAL, &o->optimizer.eps},
        {"sgd_momentum", REAL, &o->optimizer.momentum},
        {"trust", REAL, &o->optimizer.trust},
        {"tau", REAL, &o->temperature},
        {"learn_tau", FLAG, &o->learn_temperature},
        {"momentum", REAL, &o->momentum},
        {"queue", SIZE, &o->queue},
        {"bank_sample", SIZE, &o->bank_sample},
        {"head", SIZE, &o->head_layers},
        {"head_dims", SIZE, &o->head_dims},
        {"hard", SIZE, &o->hard_negatives},
        {"group", REAL, &o->group_share},
        {"seed", SEED, &o->seed},
        {"crop_min", REAL, &w->crop_min},
        {"crop_max", REAL, &w->crop_max},
        {"ratio", REAL, &w->ratio},
        {"flip", REAL, &w->flip},
        {"jitter", REAL, &w->jitter},
        {"brightness", REAL, &w->brightness},
        {"contrast", REAL, &w->contrast},
        {"saturation", REAL, &w->saturation},
        {"hue", REAL, &w->hue},
        {"grey", REAL, &w->grey},
        {"blur", REAL, &w->blur},
        {"solarise", REAL, &w->solarise},
        {"rotate", REAL, &w->rotate},
        {"erase", REAL, &w->erase},
    };
    if (name == NULL) {
        for (size_t i = 0; i < ARRAY_LEN(keys); i++)
            printf("%s ", keys[i].name);
        return true;
    }
    if (strcmp(name, "epochs") == 0) {
        o->epochs = strtod(value, NULL);
        o->min_steps = 0;
    } else if (strcmp(name, "loss") == 0)
        o->loss =
            (enum train_loss)find_name(train_loss_names, TRAIN_LOSSES, value);
    else if (strcmp(name, "schedule") == 0)
        o->schedule.kind = (enum schedule_kind)find_name(
            schedule_names, SCHEDULE_KINDS, value);
    else if (strcmp(name, "optimizer") == 0) {
        /* the kind's usual settings; those named after it stand */
        o->optimizer.kind = (enum optimizer_kind)find_name(
            optimizer_names, OPTIMIZER_KINDS, value);
        optimizer_options_default(&o->optimizer, o->optimizer.kind);
    } else
        return set_key(keys, ARRAY_LEN(keys), name, value);
    return true;
}

static bool
set_bench(struct bench *b, const char *name, const char *value)
{
    const struct key keys[] = {
        {"evals", SIZE, &b->evals},
        {"train_max", SIZE, &b->train_max},
        {"test_max", SIZE, &b->test_max},
        {"threads", SIZE, &b->threads},
        {"baselines", FLAG, &b->baselines},
        {"progress", FLAG, &b->progress},
        {"labels", FLAG, &b->labels},
        {"probe", FLAG, &b->probe},
    };
    if (name == NULL) {
        for (size_t i = 0; i < ARRAY_LEN(keys); i++)
            printf("%s ", keys[i].name);
        return true;
    }
    if (strcmp(name, "seconds") == 0)
        b->seconds = strtod(value, NULL);
    else if (strcmp(name, "images") == 0)
        b->images = strtod(value, NULL);
    else if (strcmp(name, "save") == 0)
        b->save = value;
    else if (strcmp(name, "baselines") == 0 && strcmp(value, "only") == 0)
        b->only_baselines = true;
    else
        return set_key(keys, ARRAY_LEN(keys), name, value);
    return true;
}

/* e.KEY=VALUE into the encoder's JSON; what is no number is a string. */
static void
set_config(struct bench *b, const char *name, const char *value)
{
    char *end;
    size_t len = strlen(b->config);
    bool bare = strtod(value, &end) == 0 || *end == '\0';
    bare = (bare && *end == '\0' && *value != '\0') || *value == '[' ||
           strcmp(value, "true") == 0 || strcmp(value, "false") == 0;
    snprintf(b->config + len, sizeof b->config - len,
        bare ? "%s\"%s\":%s" : "%s\"%s\":\"%s\"", len > 1 ? "," : "", name,
        value);
}

static void
parse(struct bench *b, const struct pictures *set, int argc, char **argv)
{
    enum train_mechanism mechanism = TRAIN_IN_BATCH;
    *b = (struct bench){.threads = 2,
        .baselines = true,
        .progress = true,
        .probe = true,
        .config = "{"};
    char side[12], channels[12];
    bool has_side = false, has_channels = false;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "mechanism=", 10) == 0)
            mechanism = (enum train_mechanism)find_name(
                train_mechanism_names, TRAIN_MECHANISMS, argv[i] + 10);
        has_side |= strncmp(argv[i], "e.input=", 8) == 0;
        has_channels |= strncmp(argv[i], "e.channels=", 11) == 0;
    }
    train_options_default(&b->train, TRAIN_INSTANCES, mechanism,
        ENCODER_READS_IMAGE, set->channels);
    snprintf(side, sizeof side, "%u", set->side);
    snprintf(channels, sizeof channels, "%u", set->channels);
    if (!has_side)
        set_config(b, "input", side);
    if (!has_channels)
        set_config(b, "channels", channels);
    for (int i = 0; i < argc; i++) {
        char name[40];
        const char *value = strchr(argv[i], '=');
        if (value == NULL || value - argv[i] >= (long)sizeof name)
            die(argv[i]);
        snprintf(name, sizeof name, "%.*s", (int)(value - argv[i]), argv[i]);
        value++;
        if (strcmp(name, "mechanism") == 0)
            continue;
        if (strncmp(name, "e.", 2) == 0)
            set_config(b, name + 2, value);
        else if (!set_train(&b->train, name, value) &&
                 !set_bench(b, name, value))
            die(argv[i]);
    }
    snprintf(b->config + strlen(b->config), 2, "}");
}

/* ------------------------------------------------------------------- sets */

static void
set_read(struct set *out, const char *path, size_t max)
{
    *out = (struct set){0};
    pictures_read(&out->p, path);
    if (max > 0 && max < out->p.n)
        out->p.n = (uint32_t)max;
    size_t members = pictures_members(&out->p);
    out->images = need(mem_calloc(out->p.n, sizeof *out->images));
    out->inputs = need(mem_calloc(out->p.n, sizeof *out->inputs));
    for (size_t i = 0; i < out->p.n; i++) {
        out->images[i] = (struct image){.width = out->p.side,
            .height = out->p.side,
            .channels = out->p.channels,
            .pixels = out->p.pixels + i * members};
        out->inputs[i].image = &out->images[i];
    }
}

static void
set_release(struct set *set)
{
    pictures_release(&set->p);
    mem_free(set->images);
    mem_free(set->inputs);
}

struct walk {
    const struct set *set;
    size_t i;
};

static bool
next_image(void *arg, struct encoder_input *out)
{
    struct walk *w = arg;
    if (w->i == w->set->p.n)
        return false;
    *out = w->set->inputs[w->i++];
    return true;
}

static struct batch_example *
make_examples(const struct set *set, bool labels)
{
    struct batch_example *out = need(mem_calloc(set->p.n, sizeof *out));
    size_t members = pictures_members(&set->p);
    for (size_t i = 0; i < set->p.n; i++) {
        struct batch_side side = {.input = set->inputs[i],
            .key = hash_bytes(set->images[i].pixels, members, 1)};
        out[i] = (struct batch_example){.anchor = side,
            .positive = side,
            .weight = 1,
            .label = labels ? set->p.label[i] + 1 : 0};
    }
    return out;
}

/* --------------------------------------------------------------- measures */

struct figures {
    double knn, probe, same;
};

static double
knn(const float *train, const struct set *a, const float *test,
    const struct set *b, size_t n_test, size_t dims)
{
    const struct measure_knn_options options = {
        .k = KNN_K, .temperature = KNN_T, .n_classes = a->p.n_labels};
    const struct measure_set x = {train, a->p.label, a->p.n};
    const struct measure_set y = {test, b->p.label, n_test};
    double accuracy;
    if (measure_knn(&accuracy, NULL, &x, &y, dims, &options, pool) != OK)
        die("out of memory");
    return accuracy;
}

static double
probe(const float *train, const struct set *a, const float *test,
    const struct set *b, size_t dims)
{
    const struct measure_set x = {train, a->p.label, a->p.n};
    const struct measure_set y = {test, b->p.label, b->p.n};
    struct measure_probe p;
    if (measure_probe(&p, &x, &y, dims, a->p.n_labels, pool) != OK)
        die("out of memory");
    return p.accuracy;
}

static struct figures
judge(const struct bench *bench, const char *what, const float *train,
    const struct set *a, const float *test, const struct set *b, size_t dims)
{
    struct figures f = {0};
    int64_t start = clock_mono_ns();
    f.knn = knn(train, a, test, b, b->p.n, dims);
    f.same = pictures_same_thing(test, &b->p, dims, pool);
    printf("%-16s %5zu dims  kNN %.4f", what, dims, f.knn);
    if (f.same > 0)
        printf("  same thing %.4f", f.same);
    fflush(stdout);
    if (bench->probe) {
        f.probe = probe(train, a, test, b, dims);
        printf("  linear probe %.4f", f.probe);
    }
    printf("  (%.0f s)\n", seconds_since(start));
    fflush(stdout);
    return f;
}

static float *
encode(const struct encoder *e, const struct set *set, size_t n)
{
    float *out = need(mem_alloc_aligned(n * encoder_dims(e), sizeof *out));
    if (encoder_encode(e, set->inputs, n, out, NULL, pool) != OK)
        die("out of memory");
    return out;
}

/* Both less the mean of the first, unit rows again: what a mean in common
   hides from the cosine. */
static void
centre(float *x, size_t n, float *y, size_t n_y, size_t D)
{
    double *mean = mem_calloc(D, sizeof *mean);
    if (mean == NULL)
        die("out of memory");
    for (size_t i = 0; i < n * D; i++)
        mean[i % D] += (double)x[i] / (double)n;
    for (size_t r = 0; r < n + n_y; r++) {
        float *row = r < n ? x + r * D : y + (r - n) * D;
        double norm = 0;
        for (size_t d = 0; d < D; d++) {
            row[d] -= (float)mean[d];
            norm += (double)row[d] * (double)row[d];
        }
        for (size_t d = 0; d < D && norm > 0; d++)
            row[d] /= (float)sqrt(norm);
    }
    mem_free(mean);
}

static struct figures
judge_encoder(const struct bench *bench, const char *what,
    const struct encoder *e, const struct set *a, const struct set *b)
{
    int64_t start = clock_mono_ns();
    float *x = encode(e, a, a->p.n);
    double s = seconds_since(start);
    float *y = encode(e, b, b->p.n);
    struct figures f = judge(bench, what, x, a, y, b, encoder_dims(e));
    printf("%-16s encoded %.0f images/s\n", "", a->p.n / s);
    centre(x, a->p.n, y, b->p.n, encoder_dims(e));
    (void)judge(bench, "  centred", x, a, y, b, encoder_dims(e));
    mem_free(x);
    mem_free(y);
    return f;
}

static void
judge_baselines(
    const struct bench *bench, const struct set *a, const struct set *b)
{
    for (int i = 0; i < PICTURES_BASELINES; i++) {
        struct pictures_rows rows;
        pictures_baseline(&rows, (enum pictures_baseline)i, &a->p, &b->p, pool);
        judge(bench, pictures_baseline_names[i], rows.train, a, rows.test, b,
            rows.dims);
        mem_free(rows.train);
        mem_free(rows.test);
    }
}

/* Alignment of two views of each of the first test pictures, and uniformity
   of the pictures themselves. */
static void
judge_sphere(const struct encoder *e, const struct set *set,
    const struct train_options *o)
{
    size_t n = MIN((size_t)EVAL_MAX, (size_t)set->p.n);
    size_t members = pictures_members(&set->p), D = encoder_dims(e);
    uint8_t *pixels = need(mem_alloc(2 * n * members, 1));
    struct image *images = need(mem_calloc(2 * n, sizeof *images));
    struct encoder_input *inputs = need(mem_calloc(2 * n, sizeof *inputs));
    float *x = need(mem_alloc_aligned(2 * n * D, sizeof *x));
    float *work = need(mem_alloc_aligned(
        augment_workspace_floats(set->p.side, set->p.channels), sizeof *work));
    struct rng rng;
    rng_seed(&rng, 77);
    for (size_t i = 0; i < 2 * n; i++) {
        images[i] = set->images[i % n];
        images[i].pixels = pixels + i * members;
        augment(images[i].pixels, set->p.side, set->p.channels,
            &set->images[i % n], &o->views, &rng, work);
        inputs[i].image = &images[i];
    }
    if (encoder_encode(e, inputs, 2 * n, x, NULL, pool) != OK)
        die("out of memory");
    double align = measure_alignment(x, x + n * D, n, D);
    float *y = encode(e, set, n);
    double uniform;
    if (measure_uniformity(&uniform, y, n, D, pool) != OK)
        die("out of memory");
    printf("alignment %.4f (two views), uniformity %.4f\n", align, uniform);
    mem_free(y);
    mem_free(pixels);
    mem_free(images);
    mem_free(inputs);
    mem_free(x);
    mem_free(work);
}

/* --------------------------------------------------------------- training */

struct run {
    const struct bench *b;
    const struct encoder *e;
    const struct set *train, *test;
    int64_t start;
    size_t points, evals_done;
    double eval_s; /* spent on judging, not on training */
};

static bool
on_step(void *arg, const struct train_point *p)
{
    struct run *r = arg;
    if (p == NULL)
        return true;
    size_t every = r->b->evals == 0
                       ? SIZE_MAX
                       : (p->n_steps + r->b->evals) / (r->b->evals + 1);
    bool last = p->step == p->n_steps;
    if (r->b->progress && (last || r->points++ % 10 == 0)) {
        double s = seconds_since(r->start) - r->eval_s;
        printf("%6zu/%zu  %5.0f s  loss %.4f  first %.3f  pos %.3f  neg %.3f  "
               "spread %.3f  tau %.3f  lr %.5f  %.0f/s",
            p->step, p->n_steps, s, p->loss, p->accuracy, p->positive,
            p->negative, p->spread, p->temperature, p->lr, p->pairs_per_second);
        if (p->staleness > 0)
            printf("  age %.0f", p->staleness);
        putchar('\n');
    }
    if (!last && p->step / every > r->evals_done) {
        int64_t start = clock_mono_ns();
        size_t n = MIN((size_t)EVAL_MAX, (size_t)r->test->p.n);
        float *x = encode(r->e, r->train, r->train->p.n);
        float *y = encode(r->e, r->test, n);
        printf("%6zu/%zu  kNN %.4f on %zu\n", p->step, p->n_steps,
            knn(x, r->train, y, r->test, n, encoder_dims(r->e)), n);
        mem_free(x);
        mem_free(y);
        r->evals_done = p->step / every;
        r->eval_s += seconds_since(start);
    }
    fflush(stdout);
    return true;
}

/* Steps a second of trials on a copy, each twice as long as the one before,
   until one takes a second. */
static double
speed(const struct encoder *e, const struct batch_example *examples, size_t n,
    const struct train_options *options, struct train_bank *bank)
{
    struct train_options o = *options;
    double s = 0;
    for (o.max_steps = 2; s < 1; o.max_steps *= 2) {
        struct encoder *copy;
        struct train_result result;
        struct fault fault = {0};
        if (encoder_clone(&copy, e) != OK)
            die("out of memory");
        int64_t start = clock_mono_ns();
        if (train_run(copy, examples, n, &o, bank, NULL, pool, NULL, NULL,
                &result, &fault) != OK)
            die(fault.detail);
        s = seconds_since(start);
        encoder_free(copy);
    }
    return (double)o.max_steps / 2 / s;
}

/* Inputs encoded for one image, with or without a gradient: two views; both
   by both encoders where a queue's loss goes in both directions. */
static double
views_of(const struct train_options *o)
{
    return o->mechanism == TRAIN_MOMENTUM_QUEUE && o->loss == TRAIN_SYMMETRIC
               ? 4
               : 2;
}

static void
fix_steps(struct bench *b, const struct encoder *e,
    const struct batch_example *examples, size_t n, struct train_bank *bank)
{
    struct train_options *o = &b->train;
    if (b->images > 0)
        o->max_steps = (size_t)(b->images / (views_of(o) * (double)o->batch));
    if (b->seconds > 0) {
        double rate = speed(e, examples, n, o, bank);
        o->max_steps = (size_t)(rate * b->seconds);
        printf("%.1f steps/s: %zu steps for %.0f s\n", rate, o->max_steps,
            b->seconds);
    }
    if (o->max_steps > 0)
        o->epochs = MAX(
            o->epochs, 1 + (double)o->max_steps * (double)o->batch / (double)n);
}

static enum err
write_file(void *arg, const void *bytes, size_t n)
{
    return fwrite(bytes, 1, n, arg) == n ? OK : ERR_IO;
}

static double
peak_resident_mb(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[200];
    double kb = 0;
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, "VmHWM:", 6) == 0)
            kb = strtod(line + 6, NULL);
    if (f != NULL)
        fclose(f);
    return kb / 1024;
}

static void
bench_run(struct bench *b, const struct set *train, const struct set *test)
{
    struct encoder *e;
    struct train_bank bank = {0};
    struct train_result result;
    struct fault fault = {0};
    struct train_options *o = &b->train;
    size_t n_params, n = train->p.n;
    if (encoder_new(&e, "vision", b->config, NULL, &fault) != OK)
        die(fault.detail);
    struct walk walk = {.set = train};
    if (encoder_refit(e, next_image, &walk) != OK)
        die("out of memory");
    encoder_params(e, &n_params);
    printf("encoder %s\n%zu parameters\n", encoder_config_json(e), n_params);
    judge_encoder(b, "untrained", e, train, test);

    struct batch_example *examples = make_examples(train, b->labels);
    uint64_t *keys = need(mem_alloc(n, sizeof *keys));
    bool has_bank = o->mechanism == TRAIN_MEMORY_BANK;
    for (size_t i = 0; i < n; i++)
        keys[i] = examples[i].positive.key;
    if (has_bank)
        bank = (struct train_bank){
            .vectors = encode(e, train, n), .keys = keys, .n = n};
    fix_steps(b, e, examples, n, has_bank ? &bank : NULL);
    if (has_bank && b->seconds > 0) { /* the trial has changed the rows */
        mem_free(bank.vectors);
        bank.vectors = encode(e, train, n);
    }
    printf("%s, %s, batch %zu, lr %g, tau %g, head %zu x %zu, queue %zu, "
           "momentum %g, seed %llu\n",
        train_mechanism_names[o->mechanism], train_loss_names[o->loss],
        o->batch, (double)o->schedule.lr, (double)o->temperature,
        o->head_layers, o->head_dims, o->queue, (double)o->momentum,
        (unsigned long long)o->seed);
    struct run run = {
        .b = b, .e = e, .train = train, .test = test, .start = clock_mono_ns()};
    enum err err = train_run(e, examples, n, o, has_bank ? &bank : NULL, NULL,
        pool, on_step, &run, &result, &fault);
    if (err != OK)
        die(fault.detail);
    double s = seconds_since(run.start) - run.eval_s;
    double images =
        views_of(o) * (double)result.n_steps * (double)MIN(o->batch, n);
    printf("trained: %zu steps, %.0f images encoded, %.1f s, %.0f images/s, "
           "views %.1f%% of the time, heap %.0f MB, resident %.0f MB\n",
        result.n_steps, images, s, images / s, 100 * result.view_share,
        (double)result.peak_bytes / 1e6, peak_resident_mb());
    struct figures f = judge_encoder(b, "trained", e, train, test);
    judge_sphere(e, test, o);
    printf("RESULT mechanism=%s loss=%s batch=%zu seed=%llu steps=%zu "
           "images=%.0f seconds=%.1f rate=%.0f views=%.3f knn=%.4f "
           "probe=%.4f same=%.4f\n",
        train_mechanism_names[o->mechanism], train_loss_names[o->loss],
        o->batch, (unsigned long long)o->seed, result.n_steps, images, s,
        images / s, result.view_share, f.knn, f.probe, f.same);
    if (b->save != NULL) {
        FILE *out = fopen(b->save, "wb");
        if (out == NULL || encoder_save(e, write_file, out) != OK ||
            fclose(out) != 0)
            die(b->save);
    }
    mem_free(examples);
    mem_free(keys);
    mem_free(bank.vectors);
    encoder_free(e);
}

int
main(int argc, char **argv)
{
    struct set train, test;
    struct bench b;
    struct pictures head;
    if (argc == 2 && strcmp(argv[1], "keys") == 0) {
        struct train_options o = {0};
        printf("mechanism epochs loss schedule optimizer ");
        set_train(&o, NULL, NULL);
        set_bench(&(struct bench){0}, NULL, NULL);
        puts("seconds images save e.KEY");
        return 0;
    }
    if (argc < 3)
        die("usage: TRAIN.pictures TEST.pictures [KEY=VALUE ...], or keys");
    kern_init();
    pictures_read(&head, argv[2]); /* its side and channels */
    parse(&b, &head, argc - 3, argv + 3);
    pictures_release(&head);
    if (pool_new(&pool, MAX((size_t)1, b.threads), false) != OK)
        die("no threads");
    set_read(&train, argv[1], b.train_max);
    set_read(&test, argv[2], b.test_max);
    printf("%u training and %u test pictures, %ux%ux%u, %u labels; kernels "
           "%s, %zu threads\n",
        train.p.n, test.p.n, train.p.side, train.p.side, train.p.channels,
        train.p.n_labels, kern()->name, b.threads);
    if (b.baselines || b.only_baselines)
        judge_baselines(&b, &train, &test);
    if (!b.only_baselines)
        bench_run(&b, &train, &test);
    set_release(&train);
    set_release(&test);
    pool_free(pool);
    return 0;
}
