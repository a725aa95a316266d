/* learn_report.c - what a round did and why it was promoted or not. */
#include <inttypes.h>
#include <stdio.h>

#include "engine/learn_round.h"

#define SHOWN_BYTES 160

static void
write_measures(struct buf *out, const char *key,
    const struct judge_difference *d, bool after)
{
    buf_printf(out, ",\"%s\":{", key);
    for (int m = 0; m < JUDGE_MEASURES; m++) {
        buf_printf(out, "%s\"%s\":", m > 0 ? "," : "", judge_measure_names[m]);
        buf_json_double(out, after ? d[m].after : d[m].before);
    }
    buf_add_char(out, '}');
}

static void
write_calibration(
    struct buf *out, const char *key, const struct judge_calibration *c)
{
    buf_printf(out, "\"%s\":{\"temperature\":", key);
    buf_json_double(out, c->temperature);
    buf_add_str(out, ",\"nll\":");
    buf_json_double(out, c->nll);
    buf_add_str(out, ",\"calibration_error\":");
    buf_json_double(out, c->error);
    buf_add_char(out, '}');
}

/* Whether to promote, and why, in words. */
bool
learn_verdict(const struct learn_round *r, char *reason, size_t n)
{
    const struct judge_difference *d = &r->difference[r->options.metric];
    double lost = r->frozen_before - r->frozen_after;
    bool gain = d->low > 0;
    bool forgets = r->n_frozen > 0 && lost > r->options.margin;
    bool promote = (gain && !forgets) || r->options.force;
    int len = snprintf(reason, n,
        "%s %.3f -> %.3f, interval %+.3f..%+.3f over %zu judged groups",
        judge_measure_names[r->options.metric], d->before, d->after, d->low,
        d->high, d->n_groups);

    if (len < 0 || (size_t)len >= n)
        return promote;
    if (forgets)
        len += snprintf(reason + len, n - (size_t)len,
            "; the %zu older judged questions lose %.3f, more than %.3f",
            r->n_frozen, lost, r->options.margin);
    snprintf(reason + len, n - (size_t)len, ": %s",
        promote           ? gain && !forgets ? "promoted" : "promoted by force"
        : forgets && gain ? "not promoted, it forgets"
                          : "not promoted");
    return promote;
}

static void
write_id(struct learn_round *r, uint32_t ord)
{
    struct arena arena;
    const char *id = NULL;
    int64_t item;

    arena_init(&arena, SMALL_ARENA_BYTES);
    if (ord == ANN_NONE ||
        roster_name(r->c->roster, ord, &arena, &id, &item) != OK)
        id = "";
    buf_json_cstr(&r->report, id);
    arena_release(&arena);
}

void
learn_report_text(
    struct learn_round *r, const struct encoder_input *input, uint32_t ord)
{
    if (input->image == NULL) {
        size_t len = MIN(input->len, (size_t)SHOWN_BYTES);
        while (len > 0 && len < input->len &&
               ((unsigned char)input->text[len] & 0xC0) == 0x80)
            len--;
        buf_json_string(&r->report, input->text, len);
        return;
    }
    write_id(r, ord);
}

/* "mined": negatives from the live index, and what the guards kept out. */
static void
write_mined(struct learn_round *r)
{
    const struct learn_mined *m = &r->mined;
    struct buf *b = &r->report;

    buf_printf(b,
        ",\"mined\":{\"negatives\":%zu,\"pairs\":%zu,\"refused\":{"
        "\"near_the_positive\":%zu,\"known_positive\":%zu,\"judged\":%zu},"
        "\"suspects\":[",
        m->n_negatives, m->n_pairs, m->refused.near, m->refused.known,
        m->refused.barred);
    for (size_t i = 0; i < m->n_suspects; i++) {
        const struct learn_suspect *s = &m->suspects[i];
        const struct batch_example *e = &r->data.examples[s->example];
        buf_add_str(b, i > 0 ? ",{\"anchor\":" : "{\"anchor\":");
        learn_report_text(r, &e->anchor.input, r->data.ords[s->example].anchor);
        buf_add_str(b, ",\"item\":");
        write_id(r, s->ord);
        buf_printf(
            b, ",\"positive\":%.4f,\"cosine\":%.4f}", s->positive, s->cosine);
    }
    buf_add_str(b, "]}");
}

/* Pairs one of whose given negatives is elsewhere a positive of the anchor. */
static void
write_contradictory(struct learn_round *r)
{
    const struct learn_data *d = &r->data;
    struct buf *b = &r->report;

    buf_printf(b, ",\"contradictory\":{\"pairs\":%zu,\"examples\":[",
        d->n_contradictory);
    for (size_t i = 0; i < MIN(d->n_contradictory, (size_t)LEARN_SHOWN); i++) {
        const struct learn_contradiction *c = &d->contradictory[i];
        const struct batch_example *e = &d->examples[c->example];
        buf_add_str(b, i > 0 ? ",{\"anchor\":" : "{\"anchor\":");
        learn_report_text(r, &e->anchor.input, d->ords[c->example].anchor);
        buf_add_str(b, ",\"negative\":");
        learn_report_text(r, &c->negative, ANN_NONE);
        buf_add_char(b, '}');
    }
    buf_add_str(b, "]}");
}

/* What the run itself measured. */
static void
write_run(struct learn_round *r)
{
    const struct train_result *t = &r->trained;
    struct buf *b = &r->report;

    buf_printf(b, ",\"steps\":%zu,\"loss\":", t->n_steps);
    buf_json_double(b, t->loss);
    buf_add_str(b, ",\"temperature\":");
    buf_json_double(b, t->temperature);
    buf_printf(b, ",\"pairs_per_second\":%.0f,\"views\":%zu",
        t->pairs_per_second, t->n_views);
    buf_printf(b, ",\"moved\":%zu", r->n_moved);
    if (t->n_factors > 0)
        buf_printf(b, ",\"factors\":%zu", t->n_factors);
    if (r->adapter_dropped)
        buf_add_str(b, ",\"adapter_dropped\":true");
    if (r->train_seconds > 0)
        buf_printf(b, ",\"views_per_second\":%.0f",
            (double)t->n_views / r->train_seconds);
    buf_printf(b,
        ",\"view_share\":%.4f,\"staleness\":%.2f,\"collapsed\":%s,"
        "\"peak_bytes\":%" PRIu64,
        t->view_share, t->staleness, t->collapsed ? "true" : "false",
        t->peak_bytes);
    if (r->options.train.hard_negatives > 0)
        write_mined(r);
    if (r->data.n_contradictory > 0)
        write_contradictory(r);
}

void
learn_report_training(struct learn_round *r)
{
    struct buf *b = &r->report;

    buf_add_str(b, "\"train\":{\"options\":");
    learn_options_write(&r->options, r->form.reads, b);
    buf_printf(b,
        ",\"mechanism\":\"%s\",\"examples\":%zu,\"new_pairs\":%zu,"
        "\"replayed_pairs\":%zu,\"left_out\":%zu,\"absent\":%zu",
        train_mechanism_names[r->options.train.mechanism], r->data.n_examples,
        r->data.n_new, r->data.n_replayed, r->data.n_left_out,
        r->data.n_absent);
    if (!r->resumed)
        write_run(r);
    buf_add_char(b, '}');
    if (r->resumed || r->trained.collapsed)
        return;
    buf_add_str(b, ",\"choose\":{\"blend\":");
    buf_json_double(b, r->chosen.blend);
    buf_printf(b, ",\"pool\":%zu,\"before\":", r->chosen.n_pool);
    buf_json_double(b, r->chosen.before);
    buf_add_str(b, ",\"after\":");
    buf_json_double(b, r->chosen.after);
    buf_add_char(b, '}');
}

/* A measure before and after. */
static void
write_two(struct buf *b, const char *key, const double v[2], size_t n)
{
    buf_printf(b, ",\"%s\":{\"before\":", key);
    buf_json_double(b, v[0]);
    buf_add_str(b, ",\"after\":");
    buf_json_double(b, v[1]);
    buf_printf(b, ",\"of\":%zu}", n);
}

static void
write_space(struct buf *b, const struct learn_measures *m)
{
    if (m->n_aligned > 0)
        write_two(b, "alignment", m->alignment, m->n_aligned);
    if (m->n_uniform > 0)
        write_two(b, "uniformity", m->uniformity, m->n_uniform);
    if (m->n_knn > 0)
        write_two(b, "knn", m->knn, m->n_knn);
}

void
learn_report_judgement(struct learn_round *r, const char *reason, bool promote)
{
    struct buf *b = &r->report;
    const struct judge_difference *d = &r->difference[r->options.metric];

    buf_printf(b,
        ",\"judge\":\"%s\",\"metric\":\"%s\",\"questions\":%zu,"
        "\"groups\":%zu,\"judge_uses\":%" PRId64,
        r->data.views ? "views" : "pairs",
        judge_measure_names[r->options.metric], d->n_questions, d->n_groups,
        r->judge_uses);
    write_measures(b, "before", r->difference, false);
    write_measures(b, "after", r->difference, true);
    buf_add_str(b, ",\"gain\":");
    buf_json_double(b, d->gain);
    buf_add_str(b, ",\"interval\":[");
    buf_json_double(b, d->low);
    buf_add_char(b, ',');
    buf_json_double(b, d->high);
    buf_printf(b, "],\"frozen\":{\"questions\":%zu,\"before\":", r->n_frozen);
    buf_json_double(b, r->frozen_before);
    buf_add_str(b, ",\"after\":");
    buf_json_double(b, r->frozen_after);
    buf_add_str(b, ",\"margin\":");
    buf_json_double(b, r->options.margin);
    buf_printf(
        b, "},\"questions_changed\":%zu,\"neighbour_overlap\":", r->n_changed);
    buf_json_double(b, r->overlap);
    write_space(b, &r->measures);
    buf_add_str(b, ",\"calibration\":{");
    write_calibration(b, "live", &r->calibrated[0]);
    buf_add_char(b, ',');
    write_calibration(b, "trained", &r->calibrated[1]);
    buf_add_char(b, ',');
    write_calibration(b, "calibrated", &r->calibrated[2]);
    buf_printf(b, "},\"promoted\":%s,\"forced\":%s,\"reason\":",
        promote ? "true" : "false", r->options.force ? "true" : "false");
    buf_json_cstr(b, reason);
}

/* {"reason", "generation", "judge": report} */
void
learn_report_result(const struct learn_round *r, const char *reason,
    int64_t generation, struct buf *out)
{
    buf_add_str(out, "{\"reason\":");
    buf_json_cstr(out, reason);
    buf_printf(out, ",\"generation\":%" PRId64 ",\"judge\":", generation);
    buf_add(out, r->report.data, r->report.len);
    buf_add_char(out, '}');
}
