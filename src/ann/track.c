#include "ann/track.h"

#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "base/check.h"

#define TRACK_ROWS_MIN 256
#define TIGHTEN_ROWS_MIN 48

enum err
track_init(struct track *track, const struct ann_query *query)
{
    *track = (struct track){.k = query->k,
        .floor = query->min_cosine,
        .shift = 1.0,
        .top = -INFINITY,
        .tighten_at = 1};
    return track_reserve(track, TRACK_ROWS_MIN);
}

void
track_release(struct track *track)
{
    mem_free(track->rows);
    track->rows = NULL;
    track->cap_rows = 0;
}

enum err
track_reserve(struct track *track, size_t n)
{
    if (n <= track->cap_rows - track->n_rows)
        return OK;

    size_t cap = MAX(track->n_rows + n, 2 * track->cap_rows);
    struct track_candidate *rows = mem_realloc(track->rows, cap, sizeof(*rows));

    if (rows == NULL)
        return ERR_NOMEM;
    track->rows = rows;
    track->cap_rows = cap;
    return OK;
}

static float
low_of(const struct track_candidate *c)
{
    return c->a - c->b;
}

/* Reorder so that the k with the largest lower ends come first (Hoare 1961,
   algorithm 65), and give the smallest of these k ends. 0 < k <= n. */
static float
kth_low(struct track_candidate *rows, size_t n, size_t k)
{
    ptrdiff_t from = 0, to = (ptrdiff_t)n - 1, want = (ptrdiff_t)k - 1;

    while (from < to) {
        float pivot = low_of(&rows[from + (to - from) / 2]);
        ptrdiff_t i = from, j = to;

        while (i <= j) {
            while (low_of(&rows[i]) > pivot)
                i++;
            while (low_of(&rows[j]) < pivot)
                j--;
            if (i <= j) {
                struct track_candidate swap = rows[i];

                rows[i++] = rows[j];
                rows[j--] = swap;
            }
        }
        /* [from, j] >= pivot, [i, to] <= pivot, between them == pivot */
        if (want <= j)
            to = j;
        else if (want >= i)
            from = i;
        else
            break;
    }
    return low_of(&rows[want]);
}

void
track_tighten(struct track *track)
{
    if (track->n_rows >= track->k) {
        double low = (double)kth_low(track->rows, track->n_rows, track->k);
        size_t n = 0;

        track->floor = MAX(track->floor, low);
        for (size_t i = 0; i < track->n_rows; i++) {
            struct track_candidate c = track->rows[i];

            track->rows[n] = c;
            n += (double)c.a + (double)c.b >= track->floor;
        }
        track->n_rows = n;
    }
    track->tighten_at = track->n_rows + MAX(track->k, (size_t)TIGHTEN_ROWS_MIN);
}

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
    enum err err = track_reserve(into, from->n_rows);

    if (err != OK)
        return err;
    if (from->n_rows > 0)
        memcpy(into->rows + into->n_rows, from->rows,
            from->n_rows * sizeof(*from->rows));
    into->n_rows += from->n_rows;
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
