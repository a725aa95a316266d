/*
 * make_base_plot.c - a plot as SVG: lines of several series over a logarithmic
 * x axis, each point with its value.
 *
 * usage: make_base_plot TITLE X-AXIS Y-AXIS <TABLE >PLOT.svg
 *
 * TABLE: lines 'SERIES<tab>X<tab>Y[<tab>LOW<tab>HIGH]'; LOW and HIGH are drawn
 * as a bar (several seeds). Series are told apart by colour and marker, so that
 * the plot survives a printer; it follows the reader's light or dark scheme.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/check.h"

#define SERIES_MAX 6
#define POINTS_MAX 64
#define WIDTH 760.0
#define HEIGHT 440.0
#define LEFT 80.0
#define RIGHT 40.0
#define TOP 84.0
#define BOTTOM 62.0

struct point {
    double x, y, low, high;
};
struct series {
    char name[60];
    struct point points[POINTS_MAX];
    size_t n;
};

static struct series series[SERIES_MAX];
static size_t n_series;
static double x_min, x_max, y_min, y_max; /* of the axes */

/* Blue, vermilion, green, purple, yellow, grey: Okabe & Ito 2008, brighter on
   dark ground. */
static const char *const light[SERIES_MAX] = {
    "#0068a8", "#c24e00", "#007a59", "#9a4c80", "#8a6d00", "#555555"};
static const char *const dark[SERIES_MAX] = {
    "#56b4e9", "#f08a3c", "#2fc79a", "#d995bf", "#e6c229", "#aaaaaa"};

static void
die(const char *what)
{
    fprintf(stderr, "make_base_plot: %s\n", what);
    exit(1);
}

static void
put_text(const char *s)
{
    for (; *s != '\0'; s++) {
        if (*s == '&')
            fputs("&amp;", stdout);
        else if (*s == '<')
            fputs("&lt;", stdout);
        else
            putchar(*s);
    }
}

static struct series *
series_of(const char *name)
{
    for (size_t i = 0; i < n_series; i++)
        if (strcmp(series[i].name, name) == 0)
            return &series[i];
    if (n_series == SERIES_MAX)
        die("too many series");
    snprintf(series[n_series].name, sizeof series[0].name, "%.59s", name);
    return &series[n_series++];
}

static void
read_table(void)
{
    char line[400];
    x_min = y_min = HUGE_VAL;
    x_max = y_max = -HUGE_VAL;
    while (fgets(line, sizeof line, stdin) != NULL) {
        char *tab = strchr(line, '\t');
        struct point p;
        if (tab == NULL)
            die(line);
        *tab++ = '\0';
        int found = sscanf(tab, "%lf %lf %lf %lf", &p.x, &p.y, &p.low, &p.high);
        if (found < 2 || p.x <= 0)
            die(tab);
        if (found < 4)
            p.low = p.high = p.y;
        struct series *s = series_of(line);
        if (s->n == POINTS_MAX)
            die("too many points");
        s->points[s->n++] = p;
        x_min = MIN(x_min, p.x);
        x_max = MAX(x_max, p.x);
        y_min = MIN(y_min, p.low);
        y_max = MAX(y_max, p.high);
    }
    if (n_series == 0)
        die("no data");
}

static double
px(double x)
{
    double span = log(x_max) - log(x_min);
    double t = span > 0 ? (log(x) - log(x_min)) / span : 0.5;
    return LEFT + 24 + t * (WIDTH - LEFT - RIGHT - 48);
}

static double
py(double y)
{
    return HEIGHT - BOTTOM -
           (y - y_min) / (y_max - y_min) * (HEIGHT - TOP - BOTTOM);
}

/* Widen the y axis to round numbers; the step between its lines. */
static double
round_axis(void)
{
    double pad = MAX((y_max - y_min) * 0.12, 0.002);
    double span = y_max - y_min + 2 * pad;
    double step = pow(10, floor(log10(span / 5)));
    if (span / step > 25)
        step *= 5;
    else if (span / step > 10)
        step *= 2;
    y_min = floor((y_min - pad) / step) * step;
    y_max = ceil((y_max + pad) / step) * step;
    return step;
}

static void
put_head(const char *title)
{
    printf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f "
           "%.0f\" role=\"img\" font-family=\"system-ui, sans-serif\" "
           "font-size=\"13\">\n<title>",
        WIDTH, HEIGHT);
    put_text(title);
    puts("</title>\n<style>\n"
         ".ground{fill:#ffffff} .ink{fill:#1a1a1a} .quiet{fill:#555555}\n"
         ".grid{stroke:#dddddd} .axis{stroke:#777777} "
         ".value{stroke:#ffffff}");
    for (size_t i = 0; i < n_series; i++)
        printf(".s%zu{fill:%s} .l%zu{stroke:%s}\n", i, light[i], i, light[i]);
    puts("@media (prefers-color-scheme: dark){\n"
         ".ground{fill:#16181c} .ink{fill:#eeeeee} .quiet{fill:#b4b4b4}\n"
         ".grid{stroke:#33373d} .axis{stroke:#8a8a8a} "
         ".value{stroke:#16181c}");
    for (size_t i = 0; i < n_series; i++)
        printf(".s%zu{fill:%s} .l%zu{stroke:%s}\n", i, dark[i], i, dark[i]);
    puts("}\n.line{fill:none;stroke-width:2.2;stroke-linejoin:round}\n"
         ".bar{stroke-width:1.4} .value{font-size:11.5px;stroke-width:3.5;"
         "paint-order:stroke;stroke-linejoin:round}\n"
         "</style>");
    printf("<rect class=\"ground\" width=\"%.0f\" height=\"%.0f\"/>\n", WIDTH,
        HEIGHT);
    printf("<text class=\"ink\" x=\"%.0f\" y=\"28\" font-size=\"16\" "
           "font-weight=\"600\">",
        LEFT - 48);
    put_text(title);
    puts("</text>");
}

static int
by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void
put_axes(const char *x_axis, const char *y_axis, double step)
{
    double xs[SERIES_MAX * POINTS_MAX], last = 0;
    size_t n = 0;
    int digits = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
    for (int i = 0; y_min + i * step <= y_max + step / 2; i++) {
        double y = y_min + i * step;
        printf("<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" "
               "y2=\"%.1f\"/><text class=\"quiet\" x=\"%.1f\" y=\"%.1f\" "
               "text-anchor=\"end\">%.*f</text>\n",
            LEFT, WIDTH - RIGHT, py(y), py(y), LEFT - 8, py(y) + 4.5, digits,
            y);
    }
    for (size_t i = 0; i < n_series; i++)
        for (size_t j = 0; j < series[i].n; j++)
            xs[n++] = series[i].points[j].x;
    qsort(xs, n, sizeof *xs, by_value);
    for (size_t i = 0; i < n; i++) {
        if (xs[i] > last) /* each x once: it is > 0 */
            printf("<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" "
                   "y2=\"%.1f\"/><text class=\"quiet\" x=\"%.1f\" y=\"%.1f\" "
                   "text-anchor=\"middle\">%g</text>\n",
                px(xs[i]), px(xs[i]), HEIGHT - BOTTOM, HEIGHT - BOTTOM + 5,
                px(xs[i]), HEIGHT - BOTTOM + 20, xs[i]);
        last = xs[i];
    }
    printf("<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" "
           "y2=\"%.1f\"/>\n<text class=\"ink\" x=\"%.1f\" y=\"%.1f\" "
           "text-anchor=\"middle\">",
        LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM, HEIGHT - BOTTOM,
        (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16);
    put_text(x_axis);
    printf("</text>\n<text class=\"ink\" transform=\"translate(18 %.1f) "
           "rotate(-90)\" text-anchor=\"middle\">",
        (TOP + HEIGHT - BOTTOM) / 2);
    put_text(y_axis);
    puts("</text>");
}

static void
put_marker(size_t i, double x, double y)
{
    if (i % 3 == 0)
        printf("<circle class=\"s%zu\" cx=\"%.1f\" cy=\"%.1f\" r=\"4.6\"/>\n",
            i, x, y);
    else if (i % 3 == 1)
        printf("<rect class=\"s%zu\" x=\"%.1f\" y=\"%.1f\" width=\"8.4\" "
               "height=\"8.4\"/>\n",
            i, x - 4.2, y - 4.2);
    else
        printf("<path class=\"s%zu\" d=\"M%.1f %.1fl5.4 9.4h-10.8z\"/>\n", i, x,
            y - 6);
}

/* How many series lie above, and below, a point at its x. */
static void
neighbours(size_t own, const struct point *p, size_t *above, size_t *below)
{
    *above = *below = 0;
    for (size_t i = 0; i < n_series; i++)
        for (size_t j = 0; j < series[i].n; j++) {
            const struct point *q = &series[i].points[j];
            if (i == own || fabs(q->x - p->x) > 1e-9 * p->x)
                continue;
            bool higher = q->y > p->y || (!(q->y < p->y) && i < own);
            *(higher ? above : below) += 1;
        }
}

static void
put_line(size_t i)
{
    const struct series *s = &series[i];
    printf("<polyline class=\"line l%zu\" points=\"", i);
    for (size_t j = 0; j < s->n; j++)
        printf("%.1f,%.1f ", px(s->points[j].x), py(s->points[j].y));
    puts("\"/>");
    for (size_t j = 0; j < s->n; j++) {
        const struct point *p = &s->points[j];
        double x = px(p->x);
        if (p->high > p->low)
            printf("<path class=\"bar l%zu\" d=\"M%.1f %.1fV%.1fM%.1f "
                   "%.1fh8M%.1f %.1fh8\"/>\n",
                i, x, py(p->low), py(p->high), x - 4, py(p->low), x - 4,
                py(p->high));
        put_marker(i, x, py(p->y));
    }
}

/* Above the point of the highest series, below that of the lowest, else
   beside it; over all lines. */
static void
put_values(size_t i)
{
    for (size_t j = 0; j < series[i].n; j++) {
        const struct point *p = &series[i].points[j];
        double x = px(p->x), y = py(p->y) + 4;
        size_t above, below;
        const char *anchor = "middle";
        neighbours(i, p, &above, &below);
        if (above == 0)
            y = py(p->high) - 10;
        else if (below == 0)
            y = py(p->low) + 20;
        else {
            anchor = "start";
            x += 9;
        }
        printf("<text class=\"value s%zu\" x=\"%.1f\" y=\"%.1f\" "
               "text-anchor=\"%s\">%.4g</text>\n",
            i, x, y, anchor, p->y);
    }
}

/* In a row below the title; a letter is about 8.2 wide. */
static void
put_legend(void)
{
    double x = LEFT - 44;
    for (size_t i = 0; i < n_series; i++) {
        put_marker(i, x, 52);
        printf("<text class=\"ink\" x=\"%.1f\" y=\"56.5\">", x + 11);
        put_text(series[i].name);
        puts("</text>");
        x += 40 + 8.2 * (double)strlen(series[i].name);
    }
}

int
main(int argc, char **argv)
{
    if (argc != 4)
        die("usage: TITLE X-AXIS Y-AXIS <TABLE >PLOT.svg");
    read_table();
    double step = round_axis();
    put_head(argv[1]);
    put_axes(argv[2], argv[3], step);
    put_legend();
    for (size_t i = 0; i < n_series; i++)
        put_line(i);
    for (size_t i = 0; i < n_series; i++)
        put_values(i);
    puts("</svg>");
    return 0;
}
