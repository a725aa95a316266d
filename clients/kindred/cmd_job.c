/* train, rollback, promote, jobs, backup: work that takes its time. */
#include <jansson.h>
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
    long long seed;
    bool force;
    bool follow;
    struct text_list set;
};
static const struct train_opts train_defaults = {.seed = ARGS_INT_UNSET};

#define TRAIN(field) offsetof(struct train_opts, field)
static const struct opt train_opts[] = {
    {"pretext", 0, OPT_TEXT, TRAIN(pretext), "pairs|instances",
        "learn from the pairs, or from two views of each item (default: "
        "pairs if there are enough)"},
    {"seed", 0, OPT_INT, TRAIN(seed), "N",
        "the same seed and data give the same weights"},
    {"force", 0, OPT_FLAG, TRAIN(force), NULL,
        "promote whatever the judge says; it is recorded"},
    {"set", 's', OPT_LIST, TRAIN(set), "KEY=VALUE",
        "any other option of the round; may be repeated"},
    {"follow", 'f', OPT_FLAG, TRAIN(follow), NULL,
        "watch it and wait for the judge"},
};

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
    if (want->pretext != NULL)
        json_object_set_new(body, "pretext", json_string(want->pretext));
    if (want->seed != ARGS_INT_UNSET)
        json_object_set_new(body, "seed", json_integer(want->seed));
    if (want->force)
        json_object_set_new(body, "force", json_true());
    if (!settings_add(body, &want->set))
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
    .synopsis = "[--follow] [--pretext P] [--set KEY=VALUE ...]",
    .summary = "retrain the encoder, judged before it is switched",
    .detail = "With --follow: a bar, the phases and the loss, then the judge's "
              "table.\nExit code 0: promoted. 3: refused, the live generation "
              "stays.\n\n"
              "Options for --set: epochs batch max_steps lr warmup "
              "temperature\nlearn_temperature symmetric token_dropout "
              "feature_dropout group_share\nweight_decay replay metric "
              "margin mechanism\n",
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
