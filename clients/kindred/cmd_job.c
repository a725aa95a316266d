/* train, rollback, promote, jobs, backup: work that takes its time. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cli.h"
#include "http.h"
#include "judge.h"
#include "settings.h"
#include "term.h"

int
job_finish(struct cli *cli, const json_t *job)
{
    const char *state = json_string_value(json_object_get(job, "state"));
    const char *kind = json_string_value(json_object_get(job, "kind"));
    const char *error = json_string_value(json_object_get(job, "error"));
    const json_t *result = json_object_get(job, "result");
    const char *reason = json_string_value(json_object_get(result, "reason"));
    if (error == NULL)
        error = problem_text(json_object_get(job, "error"));
    state = state != NULL ? state : "unknown";
    if (cli->global.json)
        print_json(job);
    else
        judge_print_job(job);
    if (strcmp(state, "promoted") == 0 || strcmp(state, "done") == 0)
        return EXIT_DONE;
    if (strcmp(state, "refused") == 0)
        return EXIT_NOT_PROMOTED;
    complain("%s %s: %s", kind != NULL ? kind : "job", state,
        error != NULL    ? error
        : reason != NULL ? reason
                         : "no reason given");
    return EXIT_JOB_FAILED;
}

/* Start what answers 202 with a job, or 200 when it is done at once. */
static int
start(struct cli *cli, const char *path, const json_t *body, json_int_t *id,
    json_t **done)
{
    struct answer answer;
    answer_init(&answer);
    char *text = json_dumps(body, JSON_COMPACT);
    *id = 0;
    *done = NULL;
    int rc = EXIT_REFUSED;
    if (text == NULL) {
        complain("the request cannot be written as JSON");
        goto out;
    }
    rc = http_call(cli->http, "POST", path, text, strlen(text), &answer);
    if (rc == EXIT_DONE)
        rc = http_check(cli->http, &answer);
    if (rc != EXIT_DONE)
        goto out;
    *done = json_loadb(answer.body.len > 0 ? answer.body.data : "{}",
        answer.body.len > 0 ? answer.body.len : 2, 0, NULL);
    if (answer.status == 202)
        *id = job_id_of(answer.location, *done);
    if (answer.status == 202 && *id == 0) {
        complain("the answer names no job");
        rc = EXIT_REFUSED;
    }
out:
    free(text);
    answer_release(&answer);
    return rc;
}

/* Follow, or only say which job it is. */
static int
watch(struct cli *cli, json_int_t id, bool follow)
{
    if (!follow) {
        if (cli->global.json)
            printf("{\"job\":%lld}\n", (long long)id);
        else
            printf("job %lld started; kindred jobs --follow %lld\n",
                (long long)id, (long long)id);
        return EXIT_DONE;
    }
    json_t *job = NULL;
    int rc = job_follow(cli, id, &job);
    if (rc == EXIT_DONE)
        rc = job_finish(cli, job);
    json_decref(job);
    return rc;
}

struct train_opts {
    const char *pretext;
    const char *mechanism;
    const char *loss;
    const char *label;
    const char *optimizer;
    const char *schedule;
    const char *update;
    long long layers;
    long long seed;
    long long batch;
    long long micro_batch;
    long long queue;
    long long bank_sample;
    long long hard_negatives;
    long long head_layers;
    long long head_dims;
    double epochs;
    double lr;
    double temperature;
    double momentum;
    bool force;
    bool follow;
    struct text_list views;
    struct text_list set;
};
static const struct train_opts train_defaults = {.layers = ARGS_INT_UNSET,
    .seed = ARGS_INT_UNSET,
    .batch = ARGS_INT_UNSET,
    .micro_batch = ARGS_INT_UNSET,
    .queue = ARGS_INT_UNSET,
    .bank_sample = ARGS_INT_UNSET,
    .hard_negatives = ARGS_INT_UNSET,
    .head_layers = ARGS_INT_UNSET,
    .head_dims = ARGS_INT_UNSET,
    .epochs = NAN,
    .lr = NAN,
    .temperature = NAN,
    .momentum = NAN};

#define TRAIN(field) offsetof(struct train_opts, field)
static const struct opt train_opts[] = {
    {"pretext", 0, OPT_TEXT, TRAIN(pretext), "pairs|instances",
        "learn from the pairs, or from two views of each item (default: "
        "pairs if there are enough)"},
    {"mechanism", 0, OPT_TEXT, TRAIN(mechanism), "NAME",
        "where negatives come from: in_batch, momentum_queue (earlier keys of "
        "a slowly following encoder), memory_bank (the stored vectors)"},
    {"loss", 0, OPT_TEXT, TRAIN(loss), "NAME",
        "infonce, symmetric, four_way, nt_xent, dcl, supcon"},
    {"label", 0, OPT_TEXT, TRAIN(label), "FIELD",
        "supcon: items of equal metadata FIELD are positives"},
    {"update", 0, OPT_TEXT, TRAIN(update), "NAME",
        "what learns: full, last (layers of an imported encoder), lora "
        "(low-rank differences), adapter (a map of queries alone: seconds)"},
    {"layers", 0, OPT_INT, TRAIN(layers), "N", "update last: how many"},
    {"batch", 0, OPT_INT, TRAIN(batch), "N", "examples in a step"},
    {"micro-batch", 0, OPT_INT, TRAIN(micro_batch), "N",
        "encoded at once: bounds memory, changes no result"},
    {"epochs", 0, OPT_NUMBER, TRAIN(epochs), "X", "times over the examples"},
    {"optimizer", 0, OPT_TEXT, TRAIN(optimizer), "NAME", "adamw, sgd, lars"},
    {"lr", 0, OPT_NUMBER, TRAIN(lr), "X", "the greatest learning rate"},
    {"schedule", 0, OPT_TEXT, TRAIN(schedule), "NAME",
        "cosine, step, constant"},
    {"temperature", 0, OPT_NUMBER, TRAIN(temperature), "T",
        "of the loss, at the start"},
    {"queue", 0, OPT_INT, TRAIN(queue), "N",
        "momentum_queue: keys that are kept, at least a batch"},
    {"momentum", 0, OPT_NUMBER, TRAIN(momentum), "M",
        "momentum_queue: of the encoder of keys, below 1"},
    {"bank-sample", 0, OPT_INT, TRAIN(bank_sample), "N",
        "memory_bank: vectors drawn for a step"},
    {"hard-negatives", 0, OPT_INT, TRAIN(hard_negatives), "N",
        "pairs: near items that are no positives, for each pair"},
    {"head-layers", 0, OPT_INT, TRAIN(head_layers), "N",
        "0 to 3 layers above the encoder, dropped after training"},
    {"head-dims", 0, OPT_INT, TRAIN(head_dims), "N", "their width"},
    {"view", 0, OPT_LIST, TRAIN(views), "KEY=VALUE",
        "pictures: how views are made (crop_min=0.2, blur=0; the names are "
        "those of kindred help views); may be repeated"},
    {"seed", 0, OPT_INT, TRAIN(seed), "N",
        "the same seed and data give the same weights"},
    {"force", 0, OPT_FLAG, TRAIN(force), NULL,
        "promote whatever the judge says; it is recorded"},
    {"set", 's', OPT_LIST, TRAIN(set), "KEY=VALUE",
        "any other option of the round; may be repeated"},
    {"follow", 'f', OPT_FLAG, TRAIN(follow), NULL,
        "watch it and wait for the judge"},
};

/* The options that are members of the body as they are. */
static const struct {
    const char *key;
    enum opt_kind kind;
    size_t offset;
} train_members[] = {{"pretext", OPT_TEXT, TRAIN(pretext)},
    {"mechanism", OPT_TEXT, TRAIN(mechanism)}, {"loss", OPT_TEXT, TRAIN(loss)},
    {"label", OPT_TEXT, TRAIN(label)},
    {"optimizer", OPT_TEXT, TRAIN(optimizer)},
    {"schedule", OPT_TEXT, TRAIN(schedule)},
    {"update", OPT_TEXT, TRAIN(update)}, {"layers", OPT_INT, TRAIN(layers)},
    {"seed", OPT_INT, TRAIN(seed)}, {"batch", OPT_INT, TRAIN(batch)},
    {"micro_batch", OPT_INT, TRAIN(micro_batch)},
    {"queue", OPT_INT, TRAIN(queue)},
    {"bank_sample", OPT_INT, TRAIN(bank_sample)},
    {"hard_negatives", OPT_INT, TRAIN(hard_negatives)},
    {"epochs", OPT_NUMBER, TRAIN(epochs)}, {"lr", OPT_NUMBER, TRAIN(lr)},
    {"temperature", OPT_NUMBER, TRAIN(temperature)},
    {"momentum", OPT_NUMBER, TRAIN(momentum)}};

static json_t *
member_value(const struct train_opts *want, size_t i)
{
    const char *field = (const char *)want + train_members[i].offset;
    if (train_members[i].kind == OPT_TEXT) {
        const char *s;
        memcpy(&s, field, sizeof(s));
        return s != NULL ? json_string(s) : NULL;
    }
    if (train_members[i].kind == OPT_INT) {
        long long v;
        memcpy(&v, field, sizeof(v));
        return v != ARGS_INT_UNSET ? json_integer(v) : NULL;
    }
    double v;
    memcpy(&v, field, sizeof(v));
    return isnan(v) ? NULL : json_real(v);
}

/* What --set says lies over the rest. */
static bool
train_body(const struct train_opts *want, json_t *body)
{
    for (size_t i = 0; i < ARRAY_LEN(train_members); i++) {
        json_t *value = member_value(want, i);
        if (value != NULL)
            json_object_set_new(body, train_members[i].key, value);
    }
    if (want->force)
        json_object_set_new(body, "force", json_true());
    if (want->head_layers != ARGS_INT_UNSET ||
        want->head_dims != ARGS_INT_UNSET) {
        json_t *head = json_object();
        if (want->head_layers != ARGS_INT_UNSET)
            json_object_set_new(
                head, "layers", json_integer(want->head_layers));
        if (want->head_dims != ARGS_INT_UNSET)
            json_object_set_new(head, "dims", json_integer(want->head_dims));
        json_object_set_new(body, "head", head);
    }
    if (want->views.n > 0) {
        json_t *views = json_object();
        json_object_set_new(body, "views", views);
        if (!settings_add(views, &want->views))
            return false;
    }
    return settings_add(body, &want->set);
}

static int
train_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    const struct train_opts *want = opts;
    (void)n_args;
    (void)args;
    json_t *body = json_object();
    json_t *done = NULL;
    json_int_t id = 0;
    struct buf path;
    int rc = EXIT_USAGE;
    buf_init(&path, 1 << 16);
    if (!train_body(want, body))
        goto out;
    path_admin(&path, cli->global.collection, "/train");
    rc = start(cli, path.data, body, &id, &done);
    if (rc == EXIT_DONE)
        rc = watch(cli, id, want->follow);
out:
    json_decref(done);
    json_decref(body);
    buf_release(&path);
    return rc;
}

const struct command command_train = {.name = "train",
    .synopsis = "[--follow] [--mechanism M] [--loss L] [--set KEY=VALUE ...]",
    .summary = "retrain the encoder, judged before it is switched",
    .detail = "With --follow: a bar, the phases and the loss, then the judge's "
              "table.\nExit code 0: promoted. 3: refused, the live generation "
              "stays. What is not said is\nas measurement found best for the "
              "encoder.\n\n"
              "More options for --set: min_steps max_steps warmup weight_decay "
              "learn_temperature\ntoken_dropout feature_dropout char_noise "
              "group_share replay metric margin lora.rank lora.alpha "
              "lora.targets\n",
    .opts = train_opts,
    .n_opts = ARRAY_LEN(train_opts),
    .defaults = &train_defaults,
    .opts_bytes = sizeof(struct train_opts),
    .run = train_run};

struct switch_opts {
    bool no_wait;
};
#define SWITCH(field) offsetof(struct switch_opts, field)
static const struct opt switch_opts[] = {
    {"no-wait", 0, OPT_FLAG, SWITCH(no_wait), NULL,
        "do not wait for a switch that needs a job"},
};

static int
switch_run(struct cli *cli, const struct switch_opts *want, const char *suffix)
{
    struct buf path;
    json_t *done = NULL;
    json_t *body = json_object();
    json_int_t id = 0;
    buf_init(&path, 1 << 16);
    path_admin(&path, cli->global.collection, suffix);
    int rc = start(cli, path.data, body, &id, &done);
    if (rc == EXIT_DONE && id != 0) {
        rc = watch(cli, id, !want->no_wait);
    } else if (rc == EXIT_DONE && cli->global.json) {
        print_json(done);
    } else if (rc == EXIT_DONE) {
        const json_t *generation = json_object_get(done, "generation");
        if (json_is_object(generation))
            generation = json_object_get(generation, "generation");
        printf("%s: generation %lld is live\n", cli->global.collection,
            (long long)json_integer_value(generation));
    }
    json_decref(done);
    json_decref(body);
    buf_release(&path);
    return rc;
}

static int
rollback_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    (void)n_args;
    (void)args;
    return switch_run(cli, opts, "/rollback");
}

const struct command command_rollback = {.name = "rollback",
    .synopsis = "",
    .summary = "make the previous generation live again",
    .opts = switch_opts,
    .n_opts = ARRAY_LEN(switch_opts),
    .opts_bytes = sizeof(struct switch_opts),
    .run = rollback_run};

static int
promote_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    (void)n_args;
    char *end = NULL;
    long long generation = strtoll(args[0], &end, 10);
    if (end == args[0] || *end != '\0' || generation < 1) {
        complain("promote: \"%s\" is no generation's number", args[0]);
        return EXIT_USAGE;
    }
    char suffix[64];
    snprintf(suffix, sizeof(suffix), "/generations/%lld/promote", generation);
    return switch_run(cli, opts, suffix);
}

const struct command command_promote = {.name = "promote",
    .synopsis = "GENERATION",
    .summary = "make a kept generation live",
    .opts = switch_opts,
    .n_opts = ARRAY_LEN(switch_opts),
    .opts_bytes = sizeof(struct switch_opts),
    .args_min = 1,
    .args_max = 1,
    .run = promote_run};

struct jobs_opts {
    bool follow;
    bool cancel;
};
#define JOBS(field) offsetof(struct jobs_opts, field)
static const struct opt jobs_opts[] = {
    {"follow", 'f', OPT_FLAG, JOBS(follow), NULL,
        "watch the job until it has ended"},
    {"cancel", 0, OPT_FLAG, JOBS(cancel), NULL, "ask the job to stop"},
};

static int
jobs_list(struct cli *cli)
{
    json_t *answer = NULL;
    int rc = http_json(cli->http, "GET", "/v1/jobs", NULL, &answer, NULL);
    if (rc != EXIT_DONE)
        return rc;
    if (cli->global.json) {
        print_json(answer);
    } else {
        const json_t *jobs =
            json_is_array(answer) ? answer : json_object_get(answer, "jobs");
        if (json_array_size(jobs) == 0)
            puts("no jobs");
        else
            judge_print_jobs(jobs);
    }
    json_decref(answer);
    return EXIT_DONE;
}

static int
jobs_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    const struct jobs_opts *want = opts;
    if (n_args == 0) {
        if (want->follow || want->cancel) {
            complain("jobs: which job? kindred jobs lists them");
            return EXIT_USAGE;
        }
        return jobs_list(cli);
    }
    char *end = NULL;
    long long id = strtoll(args[0], &end, 10);
    if (end == args[0] || *end != '\0' || id < 1) {
        complain("jobs: \"%s\" is no job's number", args[0]);
        return EXIT_USAGE;
    }
    char path[64];
    snprintf(path, sizeof(path), "/v1/jobs/%lld", id);
    if (want->cancel) {
        int rc = http_json(cli->http, "DELETE", path, NULL, NULL, NULL);
        if (rc == EXIT_DONE)
            say(cli, "job %lld is asked to stop", id);
        return rc;
    }
    if (want->follow)
        return watch(cli, id, true);
    json_t *job = NULL;
    int rc = http_json(cli->http, "GET", path, NULL, &job, NULL);
    if (rc == EXIT_DONE && cli->global.json)
        print_json(job);
    else if (rc == EXIT_DONE)
        judge_print_job(job);
    json_decref(job);
    return rc;
}

const struct command command_jobs = {.name = "jobs",
    .synopsis = "[--follow|--cancel] [JOB]",
    .summary = "list jobs; show, watch or cancel one",
    .opts = jobs_opts,
    .n_opts = ARRAY_LEN(jobs_opts),
    .opts_bytes = sizeof(struct jobs_opts),
    .args_max = 1,
    .run = jobs_run};

struct backup_opts {
    bool list;
    const char *output;
};
#define BACKUP(field) offsetof(struct backup_opts, field)
static const struct opt backup_opts[] = {
    {"output", 'o', OPT_TEXT, BACKUP(output), "FILE",
        "download the backup here as well"},
    {"list", 'l', OPT_FLAG, BACKUP(list), NULL, "list the backups there are"},
};

static int
backup_list(struct cli *cli)
{
    json_t *answer = NULL;
    int rc =
        http_json(cli->http, "GET", "/v1/admin/backups", NULL, &answer, NULL);
    if (rc != EXIT_DONE)
        return rc;
    if (cli->global.json) {
        print_json(answer);
    } else {
        struct table table;
        size_t i;
        const json_t *backup;
        table_init(&table, "lr", "backup", "size");
        json_array_foreach(json_object_get(answer, "backups"), i, backup)
        {
            char size[32];
            term_bytes(size, sizeof(size),
                json_number_value(json_object_get(backup, "bytes")));
            table_row(&table,
                json_string_value(json_object_get(backup, "name")), size);
        }
        table_print(&table);
        table_release(&table);
    }
    json_decref(answer);
    return EXIT_DONE;
}

static int
backup_run(struct cli *cli, void *opts, size_t n_args, char **args)
{
    const struct backup_opts *want = opts;
    (void)n_args;
    (void)args;
    if (want->list)
        return backup_list(cli);
    json_t *done = NULL;
    json_t *job = NULL;
    json_t *body = json_object();
    json_int_t id = 0;
    struct buf path;
    buf_init(&path, 1 << 16);
    int rc = start(cli, "/v1/admin/backup", body, &id, &done);
    if (rc != EXIT_DONE)
        goto out;
    if (id != 0) {
        rc = job_follow(cli, id, &job);
        if (rc != EXIT_DONE)
            goto out;
        const char *state = json_string_value(json_object_get(job, "state"));
        if (state == NULL || strcmp(state, "done") != 0) {
            rc = job_finish(cli, job);
            goto out;
        }
    }
    const json_t *result = job != NULL ? json_object_get(job, "result") : done;
    const char *name = json_string_value(json_object_get(result, "name"));
    if (name == NULL)
        name = json_string_value(json_object_get(result, "backup"));
    if (cli->global.json)
        print_json(result);
    else
        printf("backup %s\n", name != NULL ? name : "done");
    if (want->output != NULL && name != NULL) {
        uint64_t bytes = 0;
        char size[32];
        buf_add_str(&path, "/v1/admin/backups/");
        path_add_segment(&path, name);
        rc = download_to(cli, path.data, want->output, "backup", &bytes);
        if (rc == EXIT_DONE)
            say(cli, "%s: %s", want->output,
                term_bytes(size, sizeof(size), (double)bytes));
    }
out:
    json_decref(job);
    json_decref(done);
    json_decref(body);
    buf_release(&path);
    return rc;
}

const struct command command_backup = {.name = "backup",
    .synopsis = "[-o FILE | --list]",
    .summary = "make a consistent copy of everything while serving",
    .detail = "The copy is one file under the daemon's data folder, which it "
              "names itself.\n",
    .opts = backup_opts,
    .n_opts = ARRAY_LEN(backup_opts),
    .opts_bytes = sizeof(struct backup_opts),
    .run = backup_run};
