/*
 * learn.c - the states of a training round (learn.h).
 */
#include "engine/learn.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/failpoint.h"
#include "base/json.h"
#include "base/log.h"
#include "engine/learn_checkpoint.h"
#include "engine/learn_round.h"

/* The round ends here: nothing was embedded, nothing is promoted. */
static enum err
refuse(struct learn_round *r, const char *reason)
{
    struct buf result;

    buf_clear(&r->report);
    buf_add_char(&r->report, '{');
    learn_report_training(r);
    buf_add_str(&r->report, ",\"promoted\":false,\"reason\":");
    buf_json_cstr(&r->report, reason);
    buf_add_char(&r->report, '}');
    buf_init(&result, LEARN_REPORT_BYTES_MAX);
    learn_report_result(r, reason, 0, &result);
    enum err err = buf_status(&r->report);
    if (err == OK)
        err = buf_status(&result);
    if (err == OK)
        job_end(r->job, JOB_REFUSED, result.data, NULL);
    buf_release(&result);
    return err;
}

static enum err
refuse_choice(struct learn_round *r)
{
    char reason[256];

    snprintf(reason, sizeof reason,
        "%s %.3f -> %.3f on the %zu tune questions over %zu items: no better "
        "than the live generation, not judged, not promoted",
        judge_measure_names[r->options.metric], r->chosen.before,
        r->chosen.after, r->data.tune.n, r->chosen.n_pool);
    return refuse(r, reason);
}

/* A run that stopped itself. */
static enum err
refuse_collapse(struct learn_round *r)
{
    char reason[FAULT_DETAIL_MAX + 32];

    snprintf(reason, sizeof reason, "%s: not promoted", r->fault.detail);
    return refuse(r, reason);
}

static enum err
save_candidate(struct learn_round *r)
{
    struct candidate candidate = {.encoder = r->candidate,
        .temperature = r->trained.temperature,
        .seed = r->options.train.seed,
        .pairs_upto = r->data.pairs_upto};

    job_set_phase(r->job, "save", LEARN_AT_SAVE);
    failpoint("learn_before_save");
    r->candidate = NULL; /* taken, whatever comes */
    return lineage_register(
        r->c, &candidate, job_id(r->job), &r->shadow, &r->fault);
}

static bool
on_reembed(void *arg, int64_t done, int64_t total)
{
    struct learn_round *r = arg;
    double share = total > 0 ? (double)done / (double)total : 1;
    job_set_progress(r->job,
        LEARN_AT_REEMBED + share * (LEARN_AT_JUDGE - LEARN_AT_REEMBED), -1);
    return !job_stopped(r->job);
}

static enum err
embed_shadow(struct learn_round *r)
{
    struct reembed_options options = {.pool = r->engine->tuner_pool,
        .gentle = true,
        .progress = on_reembed,
        .progress_arg = r};
    return reembed_run(r->c, r->shadow, &options);
}

/* Publish or refuse, with the report as the job's result. */
static enum err
decide(struct learn_round *r)
{
    char reason[512];
    struct buf result;
    bool promote = learn_verdict(r, reason, sizeof reason);
    int64_t generation = r->shadow->generation;
    enum err err;

    learn_report_judgement(r, reason, promote);
    buf_add_char(&r->report, '}');
    buf_init(&result, LEARN_REPORT_BYTES_MAX);
    learn_report_result(r, reason, generation, &result);
    err = buf_status(&r->report);
    if (err == OK)
        err = buf_status(&result);
    failpoint("learn_before_publish");
    for (int tries = 0; err == OK && promote && tries < 5; tries++) {
        err = lineage_publish(r->c, r->shadow, r->calibrated[2].temperature,
            r->report.data, r->job, JOB_PROMOTED, result.data, &r->fault);
        if (err != ERR_CONFLICT || tries == 4)
            break;
        err = embed_shadow(r);
    }
    if (err == OK && !promote) {
        err = lineage_discard(
            r->c, generation, GENERATION_REFUSED, r->report.data, &r->fault);
        if (err == OK)
            job_end(r->job, JOB_REFUSED, result.data, NULL);
    }
    if (err == OK)
        log_info("learn",
            "round_ended collection=%s generation=%" PRId64
            " promoted=%d questions=%zu",
            r->c->name, generation, promote, r->data.judge.n);
    buf_release(&result);
    return err;
}

/* From the shadow on. */
static enum err
finish(struct learn_round *r)
{
    enum err err;

    job_set_phase(r->job, "reembed", LEARN_AT_REEMBED);
    err = embed_shadow(r);
    if (err == OK)
        err = learn_calibrate(r);
    if (err == OK && job_stopped(r->job))
        err = ERR_CANCELLED;
    if (err == OK) {
        buf_clear(&r->report);
        buf_add_char(&r->report, '{');
        learn_report_training(r);
        err = learn_judge(r);
    }
    if (err == OK && job_stopped(r->job))
        err = ERR_CANCELLED;
    return err == OK ? decide(r) : err;
}

/* Up to the saved candidate; *ended when the round was refused before. */
static enum err
begin(struct learn_round *r, bool *ended)
{
    char resume[160];
    enum err err;

    snprintf(resume, sizeof resume,
        "{\"pretext\":%d,\"views\":%s,\"pairs_seen\":%" PRId64
        ",\"pairs_upto\":%" PRId64 ",\"items_upto\":%" PRId64 "}",
        (int)r->resume.pretext, r->resume.views ? "true" : "false",
        r->resume.pairs_seen, r->resume.pairs_upto, r->resume.items_upto);
    err = job_save_resume(r->job, resume);
    if (err == OK)
        err = learn_train_candidate(r);
    if (err == ERR_INVALID && r->trained.collapsed) {
        *ended = true;
        return refuse_collapse(r);
    }
    if (err == OK)
        err = learn_choose(r);
    if (err == OK && r->data.tune.n >= LEARN_TUNE_MIN && !r->options.force &&
        !(r->chosen.after > r->chosen.before)) {
        *ended = true;
        return refuse_choice(r);
    }
    if (err == OK)
        err = save_candidate(r);
    if (err == OK)
        learn_checkpoint_remove(r->engine->data_dir, job_id(r->job));
    return err;
}

/* What an earlier run of the job kept; unknown when there was none. */
static void
read_resume(const char *json, struct learn_resume *out)
{
    struct learn_resume r = {.known = true};
    int64_t pretext = 0;
    struct json *root;
    enum err err;

    if (json == NULL || json_parse(json, strlen(json), 4096, &root, NULL) != OK)
        return;
    err = json_get_i64(root, "", "pretext", JSON_REQUIRED, LEARN_PAIRS,
        LEARN_INSTANCES, &pretext, NULL);
    if (err == OK)
        err = json_get_bool(root, "", "views", JSON_REQUIRED, &r.views, NULL);
    if (err == OK)
        err = json_get_i64(root, "", "pairs_seen", JSON_REQUIRED, 0, INT64_MAX,
            &r.pairs_seen, NULL);
    if (err == OK)
        err = json_get_i64(root, "", "pairs_upto", JSON_REQUIRED, 0, INT64_MAX,
            &r.pairs_upto, NULL);
    if (err == OK)
        err = json_get_i64(root, "", "items_upto", JSON_REQUIRED, 0, INT64_MAX,
            &r.items_upto, NULL);
    r.pretext = (enum learn_pretext)pretext;
    if (err == OK)
        *out = r;
    json_free(root);
}

/* Is the collection's shadow the candidate that an earlier run of this job
   saved? The file says so, not the job: a crash may come between the two. */
static enum err
find_saved(struct learn_round *r)
{
    struct snapshot *shadow = collection_shadow(r->c);
    struct generation_row row;
    struct arena arena;
    struct db *db;
    enum err err;

    if (shadow == NULL)
        return OK;
    arena_init(&arena, SMALL_ARENA_BYTES);
    err = store_read_begin(r->engine->store, &db);
    if (err == OK) {
        err = generations_get(db, r->c->id, shadow->generation, &arena, &row);
        store_read_end(r->engine->store, db);
    }
    r->resumed = err == OK && row.state == GENERATION_BUILDING &&
                 row.job == job_id(r->job);
    if (r->resumed)
        r->shadow = shadow;
    else
        snapshot_unref(shadow);
    arena_release(&arena);
    return err == ERR_NOT_FOUND ? OK : err;
}

/* What a round that did not reach its end leaves: nothing when it was
   cancelled or failed; everything when the daemon stops. */
static enum err
give_up(struct learn_round *r, enum err err)
{
    bool shutdown = err == ERR_CANCELLED && !job_is_cancelled(r->job);
    if (shutdown)
        return ERR_CANCELLED;
    if (r->shadow != NULL) {
        enum err swept = lineage_discard(
            r->c, r->shadow->generation, GENERATION_DISCARDED, NULL, NULL);
        if (swept != OK)
            log_warn("learn", "discard_failed generation=%" PRId64 " err=%s",
                r->shadow->generation, err_text(swept));
    }
    if (err == ERR_CANCELLED)
        job_end(r->job, JOB_CANCELLED, NULL, NULL);
    else
        job_end(r->job, JOB_FAILED, NULL,
            r->fault.detail[0] != '\0' ? r->fault.detail : err_text(err));
    return OK;
}

enum err
learn_run(struct engine *engine, struct collection *c, struct job *job)
{
    struct learn_round *r = mem_calloc(1, sizeof *r);
    bool ended = false;
    enum err err;

    if (r == NULL)
        return ERR_NOMEM;
    r->engine = engine;
    r->c = c;
    r->job = job;
    buf_init(&r->report, LEARN_REPORT_BYTES_MAX);
    read_resume(job_resume(job), &r->resume);
    r->live = collection_live(c);
    job_set_phase(job, "collect", 0);
    err = find_saved(r);
    if (err == OK && encoder_ref_get(r->live->encoder) == NULL)
        err = fault_set(&r->fault, ERR_UNSUPPORTED, "",
            "a collection of external vectors has no encoder to train");
    if (err == OK) {
        learn_form_of(encoder_ref_get(r->live->encoder), &r->form);
        err = learn_plan(engine, c, &r->form, job_options(job), &r->resume,
            &r->options, &r->fault);
    }
    if (err == OK)
        err = learn_collect(
            &r->data, engine, c, &r->form, &r->options, &r->resume, &r->fault);
    if (err == OK && !r->resumed)
        err = begin(r, &ended);
    if (err == OK && !ended)
        err = finish(r);
    if (err != OK)
        err = give_up(r, err);
    if (err == OK) /* ended, one way or another */
        learn_checkpoint_remove(engine->data_dir, job_id(job));
    learn_data_release(&r->data);
    encoder_free(r->candidate);
    snapshot_unref(r->live);
    snapshot_unref(r->shadow);
    buf_release(&r->report);
    mem_free(r);
    return err;
}
