/*
 * Goal: every option of a training round has its name, its range and a refusal
 * that names both; what does not go together is refused; the defaults follow
 * from pretext, mechanism and what the encoder reads; what is written into the
 * report reads back as the same options.
 * Method: tables of texts with the pointer and a part of the sentence that
 * must come back; parse, write, parse, write.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine/learn.h"
#include "engine/learn_data.h"

static const struct learn_setting of_text = {
    .pretext = LEARN_PAIRS, .reads = ENCODER_READS_TEXT};
static const struct learn_setting of_pictures = {
    .pretext = LEARN_INSTANCES, .reads = ENCODER_READS_IMAGE, .channels = 3};
static const struct learn_setting of_network = {.pretext = LEARN_PAIRS,
    .reads = ENCODER_READS_TEXT,
    .pretrained = true,
    .n_parts = 3};

struct refusal {
    const char *json, *pointer, *part;
};

static void
check_refusals(
    const struct learn_setting *of, const struct refusal *all, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct learn_options o;
        struct fault fault = {.err = OK};
        enum err err = learn_options_parse(all[i].json, of, &o, &fault);
        if (err != ERR_INVALID || strcmp(fault.pointer, all[i].pointer) != 0 ||
            strstr(fault.detail, all[i].part) == NULL)
            fail_msg("%s: %s at \"%s\": %s", all[i].json, err_text(err),
                fault.pointer, fault.detail);
    }
}

static void
ranges(void **state)
{
    static const struct refusal all[] = {
        {"{\"mechanism\":\"moco\"}", "/mechanism",
            "in_batch, momentum_queue, memory_bank"},
        {"{\"loss\":\"triplet\"}", "/loss",
            "infonce, symmetric, four_way, nt_xent, dcl, supcon"},
        {"{\"pretext\":\"masks\"}", "/pretext", "auto, pairs, instances"},
        {"{\"optimizer\":\"adam\"}", "/optimizer", "adamw, sgd, lars"},
        {"{\"schedule\":\"linear\"}", "/schedule", "cosine, step, constant"},
        {"{\"metric\":\"map\"}", "/metric", "ndcg_10"},
        {"{\"batch\":1}", "/batch", "from 2 to 8192"},
        {"{\"batch\":8193}", "/batch", "from 2 to 8192"},
        {"{\"micro_batch\":1}", "/micro_batch", "from 2 to 8192"},
        {"{\"mechanism\":\"momentum_queue\",\"batch\":256,\"queue\":100}",
            "/queue",
            "a queue of 100 is smaller than the batch of 256: it must be from "
            "256 to 1048576"},
        {"{\"batch\":256,\"queue\":100}", "/queue", "smaller than the batch"},
        {"{\"queue\":1048577}", "/queue", "to 1048576"},
        {"{\"momentum\":1}", "/momentum", "at least 0 and below 1"},
        {"{\"momentum\":-0.1}", "/momentum", "at least 0 and below 1"},
        {"{\"momentum\":0.99999999999}", "/momentum", "below 1"},
        {"{\"temperature\":0}", "/temperature", "from 0.005 to 1"},
        {"{\"temperature\":1.1}", "/temperature", "from 0.005 to 1"},
        {"{\"bank_sample\":0}", "/bank_sample", "from 1 to 65536"},
        {"{\"head\":{\"layers\":4}}", "/head/layers", "from 0 to 3"},
        {"{\"head\":{\"dims\":7}}", "/head/dims", "from 8 to 4096"},
        {"{\"head\":{\"depth\":1}}", "/head/depth", ""},
        {"{\"head\":2}", "/head", "object"},
        {"{\"lr\":0}", "/lr", "from 1e-06 to 10"},
        {"{\"weight_decay\":2}", "/weight_decay", "from 0 to 1"},
        {"{\"warmup\":1}", "/warmup", "from 0 to 0.9"},
        {"{\"char_noise\":1}", "/char_noise", "from 0 to 0.9"},
        {"{\"hard_negatives\":9}", "/hard_negatives", "from 0 to 8"},
        {"{\"label\":\"\"}", "/label", "1 to 128 bytes"},
        {"{\"label\":3}", "/label", "string"},
        {"{\"views\":[]}", "/views", "object"},
        {"{\"views\":{\"crop\":1}}", "/views/crop", ""},
        {"{\"views\":{\"hue\":0.6}}", "/views/hue", "from 0 to 0.5"},
        {"{\"views\":{\"ratio\":0.5}}", "/views/ratio", "from 1 to 10"},
        {"{\"views\":{\"crop_min\":0.9,\"crop_max\":0.3}}", "/views/crop_min",
            "above crop_max"},
        {"{\"views\":{\"rotate\":181}}", "/views/rotate", "from 0 to 180"},
        {"{\"update\":\"half\"}", "/update", "full, last, lora, adapter"},
        {"{\"layers\":0}", "/layers", "from 1 to 64"},
        {"{\"layers\":65}", "/layers", "from 1 to 64"},
        {"{\"lora\":8}", "/lora", "object"},
        {"{\"lora\":{\"rank\":0}}", "/lora/rank", "from 1 to 256"},
        {"{\"lora\":{\"rank\":257}}", "/lora/rank", "from 1 to 256"},
        {"{\"lora\":{\"alpha\":0}}", "/lora/alpha", "from 0.01 to 4096"},
        {"{\"lora\":{\"alpha\":4097}}", "/lora/alpha", "from 0.01 to 4096"},
        {"{\"lora\":{\"dropout\":0}}", "/lora/dropout", ""},
        {"{\"lora\":{\"targets\":\"query\"}}", "/lora/targets", "array"},
        {"{\"lora\":{\"targets\":[]}}", "/lora/targets", "at least"},
        {"{\"lora\":{\"targets\":[\"query\",\"bias\"]}}", "/lora/targets",
            "query, key, value, output, up, down"},
        {"{\"lora\":{\"targets\":[3]}}", "/lora/targets", "query, key"},
        {"{\"colour\":1}", "/colour", ""},
        {"[]", "", "object"},
    };
    (void)state;
    check_refusals(NULL, all, sizeof all / sizeof *all);
}

static void
what_does_not_go_together(void **state)
{
    static const struct refusal all[] = {
        {"{\"loss\":\"nt_xent\",\"mechanism\":\"momentum_queue\"}", "/loss",
            "symmetric, infonce, dcl or supcon"},
        {"{\"loss\":\"four_way\",\"mechanism\":\"memory_bank\"}", "/loss",
            "infonce, dcl"},
        {"{\"loss\":\"symmetric\",\"mechanism\":\"memory_bank\"}", "/loss",
            "infonce, dcl"},
        {"{\"loss\":\"supcon\"}", "/label", "needs \"label\""},
        {"{\"loss\":\"supcon\",\"label\":\"kind\","
         "\"mechanism\":\"memory_bank\"}",
            "/loss", "stored vectors do not have"},
        {"{\"loss\":\"infonce\",\"symmetric\":true}", "/symmetric", "one"},
        {"{\"pretext\":\"instances\",\"hard_negatives\":2}", "/hard_negatives",
            "mined for pairs"},
        {"{\"views\":{\"flip\":0}}", "/views", "reads text"},
        {"{\"update\":\"last\"}", "/update",
            "this collection's encoder has none"},
        {"{\"update\":\"lora\"}", "/update",
            "this collection's encoder has none"},
        {"{\"update\":\"adapter\",\"mechanism\":\"memory_bank\"}", "/mechanism",
            "learns \"in_batch\""},
        {"{\"update\":\"adapter\",\"pretext\":\"instances\"}", "/pretext",
            "learns from \"pairs\""},
        {"{\"loss\":\"nt_xent\",\"batch\":8192}", "/batch", "at most 7680"},
        {"{\"mechanism\":\"momentum_queue\",\"batch\":4096,"
         "\"queue\":65536}",
            "/queue", "at most 60416"},
        {"{\"mechanism\":\"memory_bank\",\"batch\":8192,"
         "\"bank_sample\":32768}",
            "/bank_sample", "at most 23552"},
    };
    static const struct refusal pictures[] = {
        {"{\"token_dropout\":0.1}", "/token_dropout", "reads pictures"},
        {"{\"feature_dropout\":0}", "/feature_dropout", "reads pictures"},
        {"{\"char_noise\":0.1}", "/char_noise", "reads pictures"},
    };
    static const struct refusal network[] = {
        {"{\"update\":\"last\",\"layers\":3}", "/layers", "from 1 to 2"},
        {"{\"update\":\"adapter\",\"mechanism\":\"momentum_queue\"}",
            "/mechanism", "learns \"in_batch\""},
    };
    (void)state;
    check_refusals(&of_network, network, sizeof network / sizeof *network);
    check_refusals(&of_text, all, sizeof all / sizeof *all);
    check_refusals(&of_pictures, pictures, sizeof pictures / sizeof *pictures);
}

static struct learn_options
parse(const char *json, const struct learn_setting *of)
{
    struct learn_options o;
    struct fault fault = {.err = OK};
    enum err err = learn_options_parse(json, of, &o, &fault);
    if (err != OK)
        fail_msg("%s: %s: %s", json, fault.pointer, fault.detail);
    return o;
}

static void
defaults_follow_from_the_names(void **state)
{
    (void)state;
    struct learn_options o = parse("{}", &of_text);
    assert_int_equal(o.train.pretext, TRAIN_PAIRS);
    assert_int_equal(o.train.mechanism, TRAIN_IN_BATCH);
    assert_int_equal(o.train.loss, TRAIN_SYMMETRIC);
    assert_int_equal(o.train.batch, 1024);
    o = parse("{}", &of_pictures);
    assert_int_equal(o.train.pretext, TRAIN_INSTANCES);
    assert_true(o.train.views.crop_max > 0);
    assert_int_equal(o.train.head_layers, 0);
    /* few pictures have more epochs, unless the number is said */
    assert_true(o.train.min_steps > 0);
    assert_int_equal(parse("{\"epochs\":20}", &of_pictures).train.min_steps, 0);
    assert_int_equal(
        parse("{\"epochs\":20,\"min_steps\":7}", &of_pictures).train.min_steps,
        7);
    assert_int_equal(parse("{}", &of_text).train.min_steps, 0);
    o = parse("{\"mechanism\":\"momentum_queue\"}", &of_pictures);
    assert_int_equal(o.train.loss, TRAIN_INFONCE);
    assert_true(o.train.momentum > 0.5f);
    /* less than a batch of texts is enough for one of pictures */
    (void)parse("{\"mechanism\":\"momentum_queue\",\"queue\":512}", NULL);
    o = parse("{\"mechanism\":\"momentum_queue\",\"queue\":512}", &of_pictures);
    assert_int_equal(o.train.queue, 512);
    /* what is not given follows the batch */
    o = parse("{\"mechanism\":\"momentum_queue\",\"batch\":8192}", &of_text);
    assert_true(o.train.queue >= 8192);
    /* the word of versions that had two losses */
    assert_int_equal(
        parse("{\"symmetric\":false}", NULL).train.loss, TRAIN_INFONCE);
    assert_int_equal(
        parse("{\"symmetric\":true}", NULL).train.loss, TRAIN_SYMMETRIC);
    /* another optimiser has its own rate, in proportion to the batch */
    float a = parse("{\"optimizer\":\"sgd\",\"batch\":256}", &of_pictures)
                  .train.schedule.lr;
    float b = parse("{\"optimizer\":\"sgd\",\"batch\":512}", &of_pictures)
                  .train.schedule.lr;
    assert_true(b > 1.99f * a && b < 2.01f * a);
    o = parse("{\"optimizer\":\"sgd\",\"lr\":0.5}", &of_pictures);
    assert_true(o.train.schedule.lr > 0.4999f && o.train.schedule.lr < 0.5001f);
    assert_true(o.lr_given);
    o = parse("{\"head\":{\"layers\":2}}", &of_text);
    assert_int_equal(o.train.head_layers, 2);
    assert_true(o.train.head_dims >= ENCODER_DIMS_MIN);
    /* what is not in use may be said: settings and a request are merged */
    o = parse("{\"layers\":9,\"lora\":{\"rank\":4}}", &of_network);
    assert_int_equal(o.train.update, TRAIN_FULL);
    o = parse("{\"update\":\"last\"}", &of_network);
    assert_in_range(o.train.layers, 1, 2);
    float full = parse("{}", &of_network).train.schedule.lr;
    o = parse("{\"update\":\"lora\"}", &of_network);
    assert_true(o.train.schedule.lr > full);
    assert_int_equal(o.train.lora.rank, 8);
    assert_true(o.train.lora.targets[LORA_QUERY]);
    assert_false(o.train.lora.targets[LORA_KEY]);
    assert_true(o.train.lora.targets[LORA_VALUE]);
    o = parse("{\"update\":\"adapter\",\"char_noise\":0.5}", &of_text);
    assert_true(o.train.char_noise <= 0 && o.train.token_dropout <= 0);
    o = parse("{\"update\":\"lora\",\"lr\":0.25}", &of_network);
    assert_true(o.train.schedule.lr > 0.2499f);
}

static void
write(const char *json, const struct learn_setting *of, struct buf *out)
{
    struct learn_options o = parse(json, of);
    buf_init(out, 1 << 16);
    learn_options_write(&o, of->reads, out);
    assert_int_equal(buf_status(out), OK);
}

static void
written_options_read_back(void **state)
{
    static const struct {
        const char *json;
        const struct learn_setting *of;
    } all[] = {{"{}", &of_text}, {"{}", &of_pictures},
        {"{\"pretext\":\"instances\",\"char_noise\":0.1}", &of_text},
        {"{\"mechanism\":\"momentum_queue\",\"queue\":5000,"
         "\"momentum\":0.995,\"loss\":\"supcon\",\"label\":\"a b\"}",
            &of_pictures},
        {"{\"mechanism\":\"memory_bank\",\"bank_sample\":77,\"loss\":\"dcl\"}",
            &of_text},
        {"{\"optimizer\":\"lars\",\"schedule\":\"step\",\"lr\":0.7,"
         "\"weight_decay\":0.001,\"micro_batch\":64,\"batch\":4096,"
         "\"head\":{\"layers\":3,\"dims\":64},\"seed\":9,\"force\":true,"
         "\"views\":{\"blur\":0.5,\"solarise\":0.2,\"crop_min\":0.2}}",
            &of_pictures},
        {"{\"hard_negatives\":3,\"replay\":0.5,\"metric\":\"recall_10\","
         "\"margin\":0.2,\"learn_temperature\":true,\"group_share\":0.25}",
            &of_text},
        {"{\"update\":\"last\",\"layers\":2}", &of_network},
        {"{\"update\":\"lora\",\"lora\":{\"rank\":3,\"alpha\":1.5,\"targets\":"
         "[\"down\",\"key\"]}}",
            &of_network},
        {"{\"update\":\"adapter\",\"epochs\":2}", &of_text}};
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct buf first, second;
        write(all[i].json, all[i].of, &first);
        write(first.data, all[i].of, &second);
        assert_string_equal(first.data, second.data);
        /* and nothing that was given is lost */
        struct learn_options a = parse(all[i].json, all[i].of);
        struct learn_options b = parse(first.data, all[i].of);
        a.pretext = b.pretext; /* "auto" is settled in what is written */
        a.lr_given = b.lr_given;
        a.train.queue = b.train.queue = 0; /* of one mechanism alone */
        if (a.train.mechanism != TRAIN_MOMENTUM_QUEUE)
            a.train.momentum = b.train.momentum = 0;
        if (a.train.mechanism != TRAIN_MEMORY_BANK)
            a.train.bank_sample = b.train.bank_sample = 0;
        assert_memory_equal(
            &a.train.views, &b.train.views, sizeof a.train.views);
        assert_string_equal(a.label, b.label);
        assert_int_equal(a.train.update, b.train.update);
        assert_int_equal(a.train.layers, b.train.layers);
        assert_int_equal(a.train.lora.rank, b.train.lora.rank);
        assert_memory_equal(&a.train.lora.alpha, &b.train.lora.alpha, 4);
        assert_memory_equal(a.train.lora.targets, b.train.lora.targets,
            sizeof a.train.lora.targets);
        assert_int_equal(a.train.loss, b.train.loss);
        assert_int_equal(a.train.micro_batch, b.train.micro_batch);
        assert_int_equal(a.train.head_layers, b.train.head_layers);
        assert_int_equal(a.train.hard_negatives, b.train.hard_negatives);
        assert_int_equal(a.train.optimizer.kind, b.train.optimizer.kind);
        assert_int_equal(a.train.schedule.kind, b.train.schedule.kind);
        assert_memory_equal(&a.train.schedule.lr, &b.train.schedule.lr, 4);
        assert_memory_equal(&a.train.momentum, &b.train.momentum, 4);
        assert_memory_equal(&a.train.optimizer.weight_decay,
            &b.train.optimizer.weight_decay, 4);
        assert_int_equal(a.train.bank_sample, b.train.bank_sample);
        assert_int_equal(a.train.learn_temperature, b.train.learn_temperature);
        assert_int_equal(a.metric, b.metric);
        assert_int_equal(a.force, b.force);
        buf_release(&first);
        buf_release(&second);
    }
}

static void
the_request_comes_before_the_settings(void **state)
{
    static const struct {
        const char *settings, *request, *merged;
    } all[] = {
        {"{\"batch\":64,\"lr\":0.5}", "{\"batch\":32}",
            "{\"lr\":0.5,\"batch\":32}"},
        {"{\"symmetric\":false}", "{\"loss\":\"dcl\"}", "{\"loss\":\"dcl\"}"},
        {"{\"loss\":\"dcl\"}", "{\"symmetric\":true}", "{\"symmetric\":true}"},
        {"{\"loss\":\"dcl\"}", "{}", "{\"loss\":\"dcl\"}"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct buf out;
        struct fault fault = {.err = OK};
        buf_init(&out, 4096);
        assert_int_equal(
            learn_merge_options(all[i].settings, all[i].request, &out, &fault),
            OK);
        assert_string_equal(out.data, all[i].merged);
        buf_release(&out);
    }
}

static void
views_alone(void **state)
{
    (void)state;
    struct augment_options a = {.flip = 7}, d;
    struct fault fault = {.err = OK};
    augment_options_default(&d, 3);
    assert_int_equal(
        learn_views_parse("{\"hue\":0.9}", "/views", 3, &a, &fault),
        ERR_INVALID);
    assert_string_equal(fault.pointer, "/views/hue");
    assert_true(a.flip > 6.9f); /* untouched */
    assert_int_equal(
        learn_views_parse("[1]", "/views", 3, &a, &fault), ERR_INVALID);
    assert_int_equal(
        learn_views_parse("{\"flip\":0.25}", "/views", 3, &a, &fault), OK);
    assert_true(a.flip > 0.2499f && a.flip < 0.2501f);
    a.flip = d.flip;
    assert_memory_equal(&a, &d, sizeof a);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges),
        cmocka_unit_test(what_does_not_go_together),
        cmocka_unit_test(defaults_follow_from_the_names),
        cmocka_unit_test(written_options_read_back),
        cmocka_unit_test(the_request_comes_before_the_settings),
        cmocka_unit_test(views_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
