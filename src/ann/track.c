#include "ann/track.h"

#include <math.h>
#include "base/alloc.h"
#include "base/check.h"

#define TRACK_ROWS_MIN 256
#define TRACK_LOWS_MIN 16

enum err
track_init(struct track *track, const struct ann_query *query)
{
    *track = (struct track){.k = query->k,
        .floor = query->min_cosine,
        .shift = 1.0,
        .top = -INFINITY};
    track->rows = mem_alloc(TRACK_ROWS_MIN, sizeof(*track->rows));
    track->lows = mem_alloc(TRACK_LOWS_MIN, sizeof(*track->lows));
    track->cap_rows = TRACK_ROWS_MIN;
    track->cap_lows = TRACK_LOWS_MIN;
    return track->rows != NULL && track->lows != NULL ? OK : ERR_NOMEM;
}

void
track_release(struct track *track)
{
    mem_free(track->rows);
    mem_free(track->lows);
    track->rows = NULL;
    track->lows = NULL;
}

/* --- the floor ------------------------------------------------------------ */

/* Let the value at `at` sink in a heap whose root is the smallest. */
static void
sink_low(float *lows, size_t n, size_t at)
{
    float low = lows[at];

    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= n)
            break;
        if (child + 1 < n && lows[child + 1] < lows[child])
            child++;
        if (!(lows[child] < low))
            break;
        lows[at] = lows[child];
        at = child;
    }
    lows[at] = low;
}

static enum err
note_low(struct track *track, float low)
{
    if (track->n_lows == track->k) {
        if (low <= track->lows[0])
            return OK;
        track->lows[0] = low;
        sink_low(track->lows, track->k, 0);
    } else {
        if (track->n_lows == track->cap_lows) {
            size_t cap = MIN(2 * track->cap_lows, track->k);
            float *lows = mem_realloc(track->lows, cap, sizeof(*lows));

            if (lows == NULL)
                return ERR_NOMEM;
            track->lows = lows;
            track->cap_lows = cap;
        }
        track->lows[track->n_lows++] = low;
        if (track->n_lows < track->k)
            return OK;
        for (size_t i = track->k / 2; i-- > 0;)
            sink_low(track->lows, track->k, i);
    }
    track->floor = MAX(track->floor, (double)track->lows[0]);
    return OK;
}

/* --- candidates ----------------------------------------------------------- */

static float
upper_end(struct track_candidate c)
{
    return c.a + c.b;
}

void
track_prune(struct track *track)
{
    size_t n = 0;

    for (size_t i = 0; i < track->n_rows; i++) {
        struct track_candidate c = track->rows[i];

        track->rows[n] = c;
        n += (double)upper_end(c) >= track->floor;
    }
    track->n_rows = n;
}

enum err
track_offer(struct track *track, uint32_t row, float a, float b)
{
    if ((double)(a + b) < track->floor)
        return OK;
    if (track->n_rows == track->cap_rows) {
        track_prune(track);
        if (track->n_rows > track->cap_rows / 2) {
            size_t cap = 2 * track->cap_rows;
            struct track_candidate *rows =
                mem_realloc(track->rows, cap, sizeof(*rows));

            if (rows == NULL)
                return ERR_NOMEM;
            track->rows = rows;
            track->cap_rows = cap;
        }
    }
    track->rows[track->n_rows++] =
        (struct track_candidate){.row = row, .a = a, .b = b};
    return note_low(track, a - b);
}

/* Let the candidate at `at` sink in a heap whose root has the largest a + b. */
static void
sink_candidate(struct track *track, size_t at)
{
    struct track_candidate *rows = track->rows;
    struct track_candidate c = rows[at];

    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= track->n_rows)
            break;
        if (child + 1 < track->n_rows &&
            upper_end(rows[child + 1]) > upper_end(rows[child]))
            child++;
        if (!(upper_end(rows[child]) > upper_end(c)))
            break;
        rows[at] = rows[child];
        at = child;
    }
    rows[at] = c;
}

void
track_order(struct track *track)
{
    for (size_t i = track->n_rows / 2; i-- > 0;)
        sink_candidate(track, i);
}

struct track_candidate
track_pop(struct track *track)
{
    struct track_candidate best = track->rows[0];

    ASSERT(track->n_rows > 0);
    track->rows[0] = track->rows[--track->n_rows];
    sink_candidate(track, 0);
    return best;
}

/* --- the sum -------------------------------------------------------------- */

void
track_reshift(struct track *track, double shift, double temperature)
{
    double factor = exp((track->shift - shift) / temperature);

    track->sum *= factor;
    track->sum_bounds *= factor;
    track->shift = shift;
}

enum err
track_merge(struct track *into, const struct track *from, double temperature)
{
    struct track other = *from;

    for (size_t i = 0; i < from->n_rows; i++) {
        struct track_candidate c = from->rows[i];
        enum err err = track_offer(into, c.row, c.a, c.b);

        if (err != OK)
            return err;
    }
    into->floor = MAX(into->floor, from->floor);
    into->top = MAX(into->top, from->top);
    into->bound_max = MAX(into->bound_max, from->bound_max);
    into->n_scanned += from->n_scanned;
    into->n_seen += from->n_seen;
    if (temperature > 0.0) {
        if (other.shift > into->shift)
            track_reshift(into, other.shift, temperature);
        else if (other.shift < into->shift)
            track_reshift(&other, into->shift, temperature);
        into->sum += other.sum;
        into->sum_bounds += other.sum_bounds;
    }
    return OK;
}
