#include "judge.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "cli.h"
#include "term.h"

#define EXAMPLES_SHOWN 3
#define CURVE_POINTS 2048
#define CURVE_COLUMNS 40

static const char *
text_of(const json_t *object, const char *name)
{
    const char *s = json_string_value(json_object_get(object, name));
    return s != NULL ? s : "";
}

/* A scalar as text, cut at max; "" for what is no scalar. */
static const char *
scalar(char *out, size_t max, const json_t *value)
{
    out[0] = '\0';
    if (json_is_integer(value))
        snprintf(out, max, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(out, max, "%.4f", json_real_value(value));
    else if (json_is_boolean(value))
        snprintf(out, max, "%s", json_is_true(value) ? "yes" : "no");
    else if (json_is_string(value))
        term_clean(out, max, json_string_value(value));
    return out;
}

/* [low, high] as "-0.011..+0.006"; "" when it is none. */
static const char *
interval(char *out, size_t max, const json_t *value)
{
    out[0] = '\0';
    if (json_array_size(value) == 2)
        snprintf(out, max, "%+.4f..%+.4f",
            json_number_value(json_array_get(value, 0)),
            json_number_value(json_array_get(value, 1)));
    return out;
}

static json_t *
first_of(const json_t *object, const char *a, const char *b)
{
    json_t *value = json_object_get(object, a);
    return value != NULL ? value : json_object_get(object, b);
}

/* The rest of the report: its plain members, one a line; members of the
   objects "train", "choose", "frozen" under their name. */
static void
print_facts(json_t *report, const char *prefix)
{
    static const char *const inner[] = {"train", "choose", "frozen"};
    const char *key;
    json_t *value;
    json_object_foreach(report, key, value)
    {
        char text[400];
        char name[100];
        if (strcmp(key, "reason") == 0)
            continue;
        /* Said by the sentence below, or without a question to it. */
        if (strcmp(key, "promoted") == 0 ||
            (strcmp(key, "frozen") == 0 &&
                json_integer_value(json_object_get(value, "questions")) == 0))
            continue;
        for (size_t i = 0; json_is_object(value) && i < ARRAY_LEN(inner); i++)
            if (strcmp(key, inner[i]) == 0)
                print_facts(value, inner[i]);
        if (json_is_array(value) && json_array_size(value) == 2 &&
            json_is_number(json_array_get(value, 0)))
            interval(text, sizeof(text), value);
        else
            scalar(text, sizeof(text), value);
        snprintf(name, sizeof(name), "%s%s%s", prefix,
            prefix[0] != '\0' ? "." : "", key);
        if (text[0] != '\0')
            printf("  %-24s %s\n", name, text);
    }
}

/* The questions whose answer moved most, up or down. */
static void
print_examples(const json_t *examples, const char *title)
{
    size_t i;
    const json_t *example;
    json_array_foreach(examples, i, example)
    {
        struct buf line;
        if (i == EXAMPLES_SHOWN)
            break;
        buf_init(&line, 1 << 16);
        buf_printf(&line, "  %-6s rank %4.0f -> %-4.0f  ", i == 0 ? title : "",
            json_number_value(json_object_get(example, "rank_before")),
            json_number_value(json_object_get(example, "rank_after")));
        term_add_cell(&line, text_of(example, "anchor"),
            term_columns() > 60 ? term_columns() - 32 : 40, false);
        if (buf_status(&line) == OK)
            printf("%s\n", line.data);
        buf_release(&line);
    }
}

/* The probabilities' fit, before and after: what the temperature is for. */
static void
print_calibration(json_t *calibration)
{
    const char *key;
    json_t *value;
    json_object_foreach(calibration, key, value)
        printf("  calibration, %-11s temperature %.4f, nll %.4f, "
               "calibration error %.4f\n",
            key, json_number_value(json_object_get(value, "temperature")),
            json_number_value(json_object_get(value, "nll")),
            json_number_value(json_object_get(value, "calibration_error")));
}

void
judge_print_report(json_t *report)
{
    json_t *live = first_of(report, "before", "live");
    const json_t *candidate = first_of(report, "after", "candidate");
    if (json_is_object(live) && json_is_object(candidate)) {
        struct table table;
        const char *metric;
        json_t *value;
        table_init(&table, "lrrr", "judged", "live", "candidate", "change");
        json_object_foreach(live, metric, value)
        {
            const json_t *other = json_object_get(candidate, metric);
            if (!json_is_number(value) || !json_is_number(other))
                continue;
            char a[32];
            char b[32];
            char d[32];
            double x = json_number_value(value);
            double y = json_number_value(other);
            snprintf(a, sizeof(a), "%.4f", x);
            snprintf(b, sizeof(b), "%.4f", y);
            snprintf(d, sizeof(d), "%+.4f", y - x);
            table_row(&table, metric, a, b, d);
        }
        table_print(&table);
        table_release(&table);
    }
    print_facts(report, "");
    print_calibration(json_object_get(report, "calibration"));
    print_examples(json_object_get(report, "gains"), "gains");
    print_examples(json_object_get(report, "losses"), "losses");
}

/* Which of the columns has this name; their number when none has. */
static size_t
column_of(const json_t *columns, const char *name)
{
    size_t i;
    const json_t *column;
    json_array_foreach(columns, i, column)
    {
        const char *s = json_string_value(column);
        if (s != NULL && strcmp(s, name) == 0)
            return i;
    }
    return json_array_size(columns);
}

/* One column of the rows as a line of bars between its first and last value. */
static void
print_curve(const json_t *rows, size_t column, const char *name)
{
    double v[CURVE_POINTS];
    size_t n = json_array_size(rows);
    size_t stride = (n + ARRAY_LEN(v) - 1) / ARRAY_LEN(v);
    size_t kept = 0;
    bool moves = false;
    for (size_t i = 0; i < n; i += stride) {
        const json_t *value = json_array_get(json_array_get(rows, i), column);
        if (!json_is_number(value))
            continue;
        v[kept] = json_number_value(value);
        moves = moves || v[kept] < v[0] || v[kept] > v[0];
        kept++;
    }
    if (kept == 0 || (!moves && kept > 1 && strcmp(name, "loss") != 0))
        return; /* a constant is no curve: a queue's age in batch */
    struct buf line;
    buf_init(&line, 1 << 16);
    term_add_spark(&line, v, kept, CURVE_COLUMNS);
    if (buf_status(&line) == OK)
        printf("%-12s %8.4f %s %.4f\n", name, v[0], line.data, v[kept - 1]);
    buf_release(&line);
}

/* {"columns": ["step", "loss", ...], "rows": [[...], ...]} */
static void
print_curves(const json_t *curves)
{
    static const char *const names[] = {"loss", "accuracy", "positive",
        "negative", "temperature", "spread", "staleness"};
    const json_t *columns = json_object_get(curves, "columns");
    const json_t *rows = json_object_get(curves, "rows");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        size_t column = column_of(columns, names[i]);
        if (column < json_array_size(columns))
            print_curve(rows, column, names[i]);
    }
}

void
judge_print_job(const json_t *job)
{
    json_t *result = json_object_get(job, "result");
    json_t *judge = json_object_get(result, "judge");
    char reason[1000];
    char text[64];
    term_clean(reason, sizeof(reason), text_of(result, "reason"));
    printf("%sjob %s: %s %s, %s%s", term_bold(),
        scalar(text, sizeof(text), json_object_get(job, "id")),
        text_of(job, "kind"), text_of(job, "collection"), text_of(job, "state"),
        term_plain());
    const json_t *progress = json_object_get(job, "progress");
    if (strcmp(text_of(job, "state"), "running") == 0 &&
        json_is_number(progress))
        printf(", %s %.0f%%", text_of(job, "phase"),
            json_number_value(progress) * 100.0);
    printf("\n");
    print_curves(json_object_get(job, "curves"));
    if (json_is_object(judge))
        judge_print_report(judge);
    if (json_is_object(result)) {
        const char *key;
        json_t *value;
        json_object_foreach(result, key, value)
        {
            char fact[400];
            scalar(fact, sizeof(fact), value);
            if (fact[0] != '\0' && strcmp(key, "reason") != 0)
                printf("  %-24s %s\n", key, fact);
        }
    }
    if (reason[0] != '\0')
        printf("%s\n", reason);
}

void
judge_print_jobs(const json_t *jobs)
{
    struct table table;
    size_t i;
    const json_t *job;
    table_init(&table, "rlllrl", "job", "kind", "collection", "state",
        "progress", "outcome");
    json_array_foreach(jobs, i, job)
    {
        char id[32];
        char share[32] = "";
        const json_t *progress = json_object_get(job, "progress");
        const char *error = text_of(job, "error");
        const char *reason = text_of(json_object_get(job, "result"), "reason");
        scalar(id, sizeof(id), json_object_get(job, "id"));
        if (json_is_number(progress))
            snprintf(share, sizeof(share), "%.0f%%",
                json_number_value(progress) * 100.0);
        table_row(&table, id, text_of(job, "kind"), text_of(job, "collection"),
            text_of(job, "state"), share, error[0] != '\0' ? error : reason);
    }
    table_print(&table);
    table_release(&table);
}
