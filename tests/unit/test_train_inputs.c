/*
 * Goal: the rows of a step are what inputs.h says, whatever they are asked for
 * in: views that depend on (seed, step, row) alone, texts with their errors,
 * keys and given negatives in their order.
 *
 * Method: one step's pictures at once, on the calling thread, against pieces of
 * many sizes in any order on pools of one to three; the same step again, the
 * next one, another seed; a pair's rows and keys counted out by hand; every
 * allocation failed once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/pool.h"
#include "base/rng.h"
#include "image/image.h"
#include "kern/kern.h"
#include "tests/support/train_kit.h"
#include "train/inputs.h"
#include "train/views.h"

#define N TRAIN_KIT_N
#define B 11
#define ROWS (2 * B)
#define PIXELS (TRAIN_KIT_SIDE * TRAIN_KIT_SIDE)
#define TEXT_MAX 512

static struct batch_example examples[N];
static uint32_t order[B];
static struct encoder *words, *eyes;

static int
make_encoders(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < B; i++)
        order[i] = (i * 17 + 5) % N;
    if (encoder_new(&words, "static", TRAIN_KIT_TEXT, NULL, NULL) != OK)
        return -1;
    return encoder_new(&eyes, "vision", TRAIN_KIT_PICTURES, NULL, NULL) != OK;
}

static int
drop_encoders(void **state)
{
    (void)state;
    encoder_free(words);
    encoder_free(eyes);
    return 0;
}

static struct train_options
options_of(enum train_pretext pretext, bool pictures)
{
    struct train_options o;
    train_options_default(&o, pretext, TRAIN_IN_BATCH,
        pictures ? ENCODER_READS_IMAGE : ENCODER_READS_TEXT, 1);
    return o;
}

/* For steps of B examples; o outlives it. */
static struct inputs *
make(const struct train_options *o, bool pictures, size_t max_negatives,
    size_t piece)
{
    struct inputs *in = NULL;
    assert_int_equal(
        inputs_new(&in, pictures ? eyes : words, o, B, max_negatives, piece),
        OK);
    return in;
}

static void
fill(struct inputs *in, size_t step)
{
    struct rng rng;
    rng_seed(&rng, 100 + step);
    assert_int_equal(inputs_fill(in, examples, order, B, step, &rng), OK);
}

static const struct encoder_input *
rows_of(struct inputs *in, size_t first, size_t n, struct pool *pool)
{
    const struct encoder_input *rows = NULL;
    assert_int_equal(inputs_rows(in, first, n, &rows, pool), OK);
    return rows;
}

/* ------------------------------------------------------------- pictures */

/* All rows of a step, in one piece. */
static void
whole_step(
    const struct train_options *o, size_t step, uint8_t out[ROWS][PIXELS])
{
    struct inputs *in = make(o, true, 0, ROWS);
    fill(in, step);
    const struct encoder_input *rows = rows_of(in, 0, ROWS, NULL);
    for (size_t i = 0; i < ROWS; i++) {
        assert_int_equal(rows[i].image->width, TRAIN_KIT_SIDE);
        assert_int_equal(rows[i].image->height, TRAIN_KIT_SIDE);
        assert_int_equal(rows[i].image->channels, 1);
        memcpy(out[i], rows[i].image->pixels, PIXELS);
    }
    inputs_free(in);
}

/* Ask for one piece of a filled step and compare. */
static void
check_piece(struct inputs *in, size_t first, size_t piece, struct pool *pool,
    uint8_t want[ROWS][PIXELS])
{
    size_t n = MIN(piece, ROWS - first);
    const struct encoder_input *rows = rows_of(in, first, n, pool);
    for (size_t i = 0; i < n; i++)
        assert_memory_equal(rows[i].image->pixels, want[first + i], PIXELS);
}

static void
test_pieces_do_not_matter(void **state)
{
    static const size_t pieces[] = {1, 2, 7, 8, 9, 16, ROWS};
    static uint8_t want[ROWS][PIXELS];
    struct train_options o = options_of(TRAIN_INSTANCES, true);

    (void)state;
    train_kit_pictures(examples);
    whole_step(&o, 3, want);
    for (size_t threads = 0; threads <= 3; threads++) {
        struct pool *pool = NULL;
        if (threads > 0)
            assert_int_equal(pool_new(&pool, threads, false), OK);
        for (size_t p = 0; p < ARRAY_LEN(pieces); p++) {
            size_t piece = pieces[p], n = (ROWS + piece - 1) / piece;
            struct inputs *in = make(&o, true, 0, piece);
            fill(in, 3);
            for (size_t i = 0; i < n; i++)
                check_piece(in, i * piece, piece, pool, want);
            for (size_t i = n; i-- > 0;) { /* and back, each twice */
                check_piece(in, i * piece, piece, pool, want);
                check_piece(in, i * piece, piece, pool, want);
            }
            for (size_t i = 0; i < ROWS; i += 5) /* and any */
                check_piece(in, ROWS - 1 - i, 1, pool, want);
            inputs_free(in);
        }
        pool_free(pool);
    }
}

/* A piece that is remembered belongs to its step. */
static void
test_steps_follow_each_other(void **state)
{
    static uint8_t third[ROWS][PIXELS], fourth[ROWS][PIXELS];
    struct train_options o = options_of(TRAIN_INSTANCES, true);
    struct inputs *in = make(&o, true, 0, ROWS);

    (void)state;
    train_kit_pictures(examples);
    whole_step(&o, 3, third);
    whole_step(&o, 4, fourth);
    fill(in, 3);
    check_piece(in, 0, ROWS, NULL, third);
    fill(in, 4);
    check_piece(in, 0, ROWS, NULL, fourth);
    fill(in, 3);
    check_piece(in, 0, ROWS, NULL, third);
    inputs_free(in);
}

static void
all_differ(uint8_t a[ROWS][PIXELS], uint8_t b[ROWS][PIXELS])
{
    for (size_t i = 0; i < ROWS; i++)
        assert_memory_not_equal(a[i], b[i], PIXELS);
}

static void
test_views_differ(void **state)
{
    static uint8_t one[ROWS][PIXELS], other[ROWS][PIXELS];
    struct train_options o = options_of(TRAIN_INSTANCES, true);

    (void)state;
    train_kit_pictures(examples);
    for (size_t i = 0; i < N; i++) /* one picture: rows differ by their views */
        examples[i].anchor = examples[i].positive = examples[0].anchor;
    whole_step(&o, 0, one);
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(one[i], one[j], PIXELS);
    }
    whole_step(&o, 0, other);
    assert_memory_equal(one, other, sizeof one);
    whole_step(&o, 1, other);
    all_differ(one, other);
    o.seed++;
    whole_step(&o, 0, other);
    all_differ(one, other);
}

/* Without randomness a view is the picture: whose is where. */
static void
test_whose_picture(void **state)
{
    static uint8_t got[ROWS][PIXELS];
    struct train_options o = options_of(TRAIN_PAIRS, true);

    (void)state;
    train_kit_pictures(examples);
    for (size_t i = 0; i < N; i++)
        examples[i].positive = examples[(i + 1) % N].anchor;
    o.views =
        (struct augment_options){.crop_min = 1, .crop_max = 1, .ratio = 1};
    whole_step(&o, 0, got);
    for (size_t i = 0; i < B; i++) {
        const struct batch_example *e = &examples[order[i]];
        assert_memory_equal(got[i], e->anchor.input.image->pixels, PIXELS);
        assert_memory_equal(
            got[B + i], e->positive.input.image->pixels, PIXELS);
    }
    o.pretext = TRAIN_INSTANCES;
    whole_step(&o, 0, got);
    for (size_t i = 0; i < B; i++)
        assert_memory_equal(got[i], got[B + i], PIXELS);
}

static void
test_none_stays_none(void **state)
{
    static uint8_t want[ROWS][PIXELS];
    struct train_options o = options_of(TRAIN_PAIRS, true);
    const struct image *gone;

    (void)state;
    train_kit_pictures(examples);
    whole_step(&o, 5, want);
    gone = examples[order[2]].positive.input.image;
    examples[order[2]].positive.input.image = NULL;
    for (size_t piece = 4; piece <= ROWS; piece += ROWS - 4) {
        struct inputs *in = make(&o, true, 0, piece);
        fill(in, 5);
        for (size_t first = 0; first < ROWS; first += piece) {
            size_t n = MIN(piece, ROWS - first);
            const struct encoder_input *rows = rows_of(in, first, n, NULL);
            for (size_t i = 0; i < n; i++) {
                if (first + i == B + 2)
                    assert_null(rows[i].image);
                else
                    assert_memory_equal(
                        rows[i].image->pixels, want[first + i], PIXELS);
            }
        }
        inputs_free(in);
    }
    examples[order[2]].positive.input.image = gone;
}

/* ---------------------------------------------------------------- texts */

static size_t
count_spaces(const char *s, size_t n)
{
    size_t spaces = 0;
    for (size_t i = 0; i < n; i++)
        spaces += s[i] == ' ' || s[i] == '\n';
    return spaces;
}

/* Errors change words, not their number; rows stand apart in memory and keep
   the sizes that they say they have. */
static void
test_typing_errors(void **state)
{
    static char first[ROWS][TEXT_MAX];
    struct train_options o = options_of(TRAIN_PAIRS, false);
    size_t lens[ROWS], n_changed = 0;

    (void)state;
    train_kit_pairs(examples);
    o.char_noise = 0.7f;
    struct inputs *in = make(&o, false, 0, ROWS);
    size_t quiet = inputs_bytes(in);
    fill(in, 2);
    assert_true(inputs_bytes(in) > quiet);
    const struct encoder_input *rows = rows_of(in, 0, ROWS, NULL);
    for (size_t i = 0; i < ROWS; i++) {
        const struct batch_example *e = &examples[order[i % B]];
        const struct batch_side *from = i < B ? &e->anchor : &e->positive;
        size_t n = from->input.len;
        assert_true(rows[i].len <= views_noise_bytes(n));
        assert_true(rows[i].len < TEXT_MAX);
        assert_int_equal(count_spaces(rows[i].text, rows[i].len),
            count_spaces(from->input.text, n));
        n_changed +=
            rows[i].len != n || memcmp(rows[i].text, from->input.text, n) != 0;
        for (size_t j = 0; j < i; j++)
            assert_true(rows[j].text + rows[j].len <= rows[i].text ||
                        rows[i].text + rows[i].len <= rows[j].text);
        lens[i] = rows[i].len;
        memcpy(first[i], rows[i].text, rows[i].len);
    }
    assert_true(n_changed > ROWS / 2);
    /* another step makes other errors, the same one the same */
    fill(in, 3);
    rows = rows_of(in, 0, ROWS, NULL);
    n_changed = 0;
    for (size_t i = 0; i < ROWS; i++)
        n_changed += rows[i].len != lens[i] ||
                     memcmp(rows[i].text, first[i], lens[i]) != 0;
    assert_true(n_changed > ROWS / 2);
    fill(in, 2);
    for (size_t i = 0; i < ROWS; i++) { /* row by row, too */
        rows = rows_of(in, i, 1, NULL);
        assert_int_equal(rows->len, lens[i]);
        assert_memory_equal(rows->text, first[i], lens[i]);
    }
    inputs_free(in);
}

/* Without errors: the sides themselves, or two cuts of one text. */
static void
test_texts(void **state)
{
    struct train_options o = options_of(TRAIN_PAIRS, false);
    struct inputs *in;

    (void)state;
    o.char_noise = 0;
    train_kit_pairs(examples);
    in = make(&o, false, 0, ROWS);
    fill(in, 0);
    const struct encoder_input *rows = rows_of(in, 0, ROWS, NULL);
    for (size_t i = 0; i < B; i++) {
        const struct batch_example *e = &examples[order[i]];
        assert_ptr_equal(rows[i].text, e->anchor.input.text);
        assert_int_equal(rows[i].len, e->anchor.input.len);
        assert_ptr_equal(rows[B + i].text, e->positive.input.text);
        assert_int_equal(rows[B + i].len, e->positive.input.len);
    }
    inputs_free(in);

    size_t n_apart = 0;
    o.pretext = TRAIN_INSTANCES;
    train_kit_items(examples);
    in = make(&o, false, 0, ROWS);
    fill(in, 0);
    rows = rows_of(in, 0, ROWS, NULL);
    for (size_t i = 0; i < ROWS; i++) {
        const struct encoder_input *item = &examples[order[i % B]].anchor.input;
        assert_true(rows[i].len > 0);
        assert_true(rows[i].text >= item->text);
        assert_true(rows[i].text + rows[i].len <= item->text + item->len);
        n_apart += i >= B && (rows[i].text != rows[i - B].text ||
                                 rows[i].len != rows[i - B].len);
    }
    assert_true(n_apart > B / 2);
    inputs_free(in);
}

/* ------------------------------------------------------------- negatives */

/* The batch's positives, then what each example brings, up to a limit. */
static void
check_keys(enum train_pretext pretext, size_t max_negatives)
{
    static struct batch_side given[3];
    struct train_options o = options_of(pretext, false);
    size_t M = B;

    train_kit_pairs(examples);
    for (size_t j = 0; j < ARRAY_LEN(given); j++)
        given[j] = examples[N - 1 - j].positive;
    for (size_t i = 0; i < B; i++) {
        examples[order[i]].negatives = given + i % 2;
        examples[order[i]].n_negatives = i % 3;
    }
    o.char_noise = 0;
    struct inputs *in = make(&o, false, max_negatives, ROWS + max_negatives);
    fill(in, 0);
    const uint64_t *keys = inputs_key(in);
    for (size_t i = 0; i < B; i++) {
        const struct batch_example *e = &examples[order[i]];
        assert_true(keys[i] ==
                    (pretext == TRAIN_PAIRS ? e->positive.key : e->anchor.key));
    }
    for (size_t i = 0; i < B && pretext == TRAIN_PAIRS; i++) {
        for (size_t j = 0; j < i % 3 && M - B < max_negatives; j++) {
            const struct batch_side *want = &given[i % 2 + j];
            assert_true(keys[M] == want->key);
            const struct encoder_input *row = rows_of(in, B + M, 1, NULL);
            assert_ptr_equal(row->text, want->input.text);
            assert_int_equal(row->len, want->input.len);
            M++;
        }
    }
    assert_int_equal(inputs_keys(in), M);
    inputs_free(in);
}

static void
test_keys(void **state)
{
    (void)state;
    check_keys(TRAIN_PAIRS, 0);
    check_keys(TRAIN_PAIRS, 4); /* fewer than there are */
    check_keys(TRAIN_PAIRS, 30);
    check_keys(TRAIN_INSTANCES, 30);
}

/* ----------------------------------------------------------------- other */

static void
test_time_is_taken_once(void **state)
{
    struct train_options o = options_of(TRAIN_INSTANCES, true);
    struct inputs *in = make(&o, true, 0, ROWS);

    (void)state;
    train_kit_pictures(examples);
    fill(in, 0);
    (void)inputs_take_ns(in);
    (void)rows_of(in, 0, ROWS, NULL);
    assert_true(inputs_take_ns(in) > 0);
    assert_int_equal(inputs_take_ns(in), 0);
    (void)rows_of(in, 0, ROWS, NULL); /* there already */
    assert_int_equal(inputs_take_ns(in), 0);
    inputs_free(in);
    inputs_free(NULL);
}

static void
test_memory_runs_out(void **state)
{
    (void)state;
    for (int pictures = 0; pictures < 2; pictures++) {
        struct train_options o = options_of(TRAIN_INSTANCES, pictures);
        if (pictures)
            train_kit_pictures(examples);
        else
            train_kit_items(examples);
        o.char_noise = 0.2f;
        for (uint64_t n = 1;; n++) {
            const struct encoder_input *rows;
            struct inputs *in = NULL;
            struct rng rng;
            rng_seed(&rng, 1);
            alloc_fail_at(n);
            enum err err =
                inputs_new(&in, pictures ? eyes : words, &o, B, 0, ROWS);
            if (err == OK)
                err = inputs_fill(in, examples, order, B, 0, &rng);
            if (err == OK)
                err = inputs_rows(in, 0, ROWS, &rows, NULL);
            uint64_t seen = alloc_fail_at(0);
            inputs_free(in);
            assert_int_equal(err, seen >= n ? ERR_NOMEM : OK);
            if (seen < n)
                break;
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_do_not_matter),
        cmocka_unit_test(test_steps_follow_each_other),
        cmocka_unit_test(test_views_differ),
        cmocka_unit_test(test_whose_picture),
        cmocka_unit_test(test_none_stays_none),
        cmocka_unit_test(test_typing_errors),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_time_is_taken_once),
        cmocka_unit_test(test_memory_runs_out),
    };
    kern_init();
    return cmocka_run_group_tests(tests, make_encoders, drop_encoders);
}
