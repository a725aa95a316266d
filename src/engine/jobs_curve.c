/* jobs_curve.c - the curves of a round: kept thin in memory, stored as JSON. */
#include <math.h>
#include <pthread.h>
#include "base/alloc.h"
#include "base/check.h"
#include "base/json.h"
#include "engine/jobs_table.h"

static const char curve_columns[] =
    "{\"columns\":[\"step\",\"loss\",\"accuracy\",\"positive\",\"negative\","
    "\"temperature\",\"spread\",\"staleness\"],\"rows\":[";

/* Six digits are more than a curve shows. */
static void
write_value(struct buf *out, double v)
{
    if (isfinite(v)) {
        buf_printf(out, ",%.6g", v);
    } else {
        buf_add_str(out, ",null");
    }
}

void
job_write_curve(const struct job *j, struct buf *out)
{
    buf_add_str(out, curve_columns);
    for (size_t i = 0; i < j->n_curve; i++) {
        const struct job_point *p = &j->curve[i];
        buf_printf(out, "%s[%lld", i ? "," : "", (long long)p->step);
        write_value(out, p->loss);
        write_value(out, p->accuracy);
        write_value(out, p->positive);
        write_value(out, p->negative);
        write_value(out, p->temperature);
        write_value(out, p->spread);
        write_value(out, p->staleness);
        buf_add_char(out, ']');
    }
    buf_add_str(out, "]}");
}

void
job_copy_curve(const char *stored, size_t len, struct buf *out)
{
    if (len > 0 && stored[0] == '[') {
        buf_add_str(out, "{\"columns\":[\"step\",\"loss\"],\"rows\":");
        buf_add(out, stored, len);
        buf_add_char(out, '}');
    } else if (len > 0) {
        buf_add(out, stored, len);
    } else {
        buf_add_str(out, curve_columns);
        buf_add_str(out, "]}");
    }
}

void
job_add_point(struct job *j, const struct job_point *point)
{
    pthread_mutex_lock(&j->lock);
    if (!j->curve) {
        j->curve = mem_alloc(CURVE_MAX, sizeof(*j->curve));
    }
    while (j->n_curve && j->curve[j->n_curve - 1].step >= point->step) {
        j->n_curve--;
    }
    if (j->curve && j->curve_seen++ % j->curve_stride == 0) {
        if (j->n_curve == CURVE_MAX) {
            for (size_t i = 0; i < CURVE_MAX / 2; i++) {
                j->curve[i] = j->curve[2 * i];
            }
            j->n_curve = CURVE_MAX / 2;
            j->curve_stride *= 2;
        }
        j->curve[j->n_curve++] = *point;
    }
    pthread_mutex_unlock(&j->lock);
}

void
job_read_curve(struct job *j, const char *stored, size_t len)
{
    struct json *root;
    const struct json *rows = NULL;
    if (json_parse(stored, len, JSON_MAX, &root, NULL) != OK) {
        return;
    }
    (void)!json_get_array(root, "", "rows", JSON_OPTIONAL, &rows, NULL);
    for (size_t i = 0; rows && i < json_count(rows); i++) {
        const struct json *row = json_item(rows, i);
        double v[8];
        if (json_count(row) != ARRAY_LEN(v)) {
            break;
        }
        for (size_t k = 0; k < ARRAY_LEN(v); k++) {
            const struct json *x = json_item(row, k);
            bool number =
                json_kind(x) == JSON_KIND_INT || json_kind(x) == JSON_KIND_REAL;
            v[k] = number ? json_f64(x) : (double)NAN;
        }
        const struct job_point point = {.step = (int64_t)v[0],
            .loss = v[1],
            .accuracy = v[2],
            .positive = v[3],
            .negative = v[4],
            .temperature = v[5],
            .spread = v[6],
            .staleness = v[7]};
        job_add_point(j, &point);
    }
    json_free(root);
}
