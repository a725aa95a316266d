/*
 * make_image_set.c - a set of pictures (pictures.h) from what packages hold.
 *
 * usage: make_image_set idx IMAGES LABELS OUT
 *        make_image_set list LIST SIDE CHANNELS OUT
 *
 * idx: the unpacked files of the MNIST family (big-endian header, one byte a
 * pixel). list: lines 'FILE<tab>LABEL<tab>THING' of picture files, fitted to
 * SIDE x SIDE; labels and things are numbers. A file that cannot be decoded is
 * left out, with a message.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "image/decode.h"
#include "tests/bench/pictures.h"

#define FILE_MAX ((size_t)8 << 20)
#define PICTURES_MAX ((size_t)200000)

static void
die(const char *what)
{
    fprintf(stderr, "make_image_set: %s\n", what);
    exit(1);
}

static uint32_t
big_endian(FILE *f, const char *path)
{
    unsigned char b[4];
    if (fread(b, 1, 4, f) != 4)
        die(path);
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 |
           b[3];
}

static void
from_idx(const char *images, const char *labels, const char *out)
{
    struct pictures set = {.channels = 1, .n_labels = 10};
    FILE *f = fopen(images, "rb"), *g = fopen(labels, "rb");
    if (f == NULL || g == NULL || big_endian(f, images) != 0x803 ||
        big_endian(g, labels) != 0x801)
        die(images);
    set.n = big_endian(f, images);
    set.side = big_endian(f, images);
    if (set.n != big_endian(g, labels) || big_endian(f, images) != set.side ||
        set.n > PICTURES_MAX || set.side > 512)
        die(images);
    size_t bytes = set.n * pictures_members(&set);
    set.pixels = mem_alloc(bytes, 1);
    set.label = mem_alloc(set.n, sizeof *set.label);
    set.thing = mem_alloc(set.n, sizeof *set.thing);
    if (set.pixels == NULL || set.label == NULL || set.thing == NULL ||
        fread(set.pixels, 1, bytes, f) != bytes)
        die(images);
    for (uint32_t i = 0; i < set.n; i++) {
        int c = fgetc(g);
        if (c < 0 || c >= (int)set.n_labels)
            die(labels);
        set.label[i] = (uint32_t)c;
        set.thing[i] = i;
    }
    fclose(f);
    fclose(g);
    pictures_write(&set, out);
    pictures_release(&set);
}

static enum err
decode_file(
    struct image *out, const char *path, uint32_t side, struct fault *fault)
{
    static unsigned char bytes[FILE_MAX];
    struct image_limits limits = {.side_wanted = side};
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return fault_set(fault, ERR_NOT_FOUND, "", "cannot be opened");
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    return image_decode(out, bytes, n, &limits, fault);
}

static void
from_list(const char *list, uint32_t side, uint32_t channels, const char *out)
{
    struct pictures set = {.side = side, .channels = channels};
    char line[4096];
    FILE *f = fopen(list, "r");
    if (f == NULL || side == 0 || side > 512 ||
        (channels != 1 && channels != 3))
        die(list);
    size_t members = pictures_members(&set), n = 0, cap = 0, bad = 0;
    while (fgets(line, sizeof line, f) != NULL) {
        struct image image = {0};
        struct fault fault = {0};
        char *tab = strchr(line, '\t');
        unsigned label, thing;
        if (tab == NULL || sscanf(tab, "%u %u", &label, &thing) != 2)
            die(line);
        *tab = '\0';
        if (decode_file(&image, line, side, &fault) != OK) {
            if (bad++ < 5)
                fprintf(stderr, "left out: %s: %s\n", line, fault.detail);
            continue;
        }
        if (n == cap) {
            cap = 2 * cap + 1024;
            set.pixels = mem_realloc(set.pixels, cap, members);
            set.label = mem_realloc(set.label, cap, sizeof *set.label);
            set.thing = mem_realloc(set.thing, cap, sizeof *set.thing);
            if (set.pixels == NULL || set.label == NULL || set.thing == NULL)
                die("out of memory");
        }
        image_fit(set.pixels + n * members, side, channels, &image);
        image_release(&image);
        set.label[n] = label;
        set.thing[n++] = thing;
        set.n_labels = MAX(set.n_labels, label + 1);
    }
    fclose(f);
    if (n == 0 || n > PICTURES_MAX)
        die("no picture, or too many");
    set.n = (uint32_t)n;
    pictures_write(&set, out);
    printf("%s: %zu pictures of %ux%u, %u labels, %zu left out\n", out, n, side,
        side, set.n_labels, bad);
    pictures_release(&set);
}

int
main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "idx") == 0)
        from_idx(argv[2], argv[3], argv[4]);
    else if (argc == 6 && strcmp(argv[1], "list") == 0)
        from_list(argv[2], (uint32_t)strtoul(argv[3], NULL, 10),
            (uint32_t)strtoul(argv[4], NULL, 10), argv[5]);
    else
        die("usage: idx IMAGES LABELS OUT | list LIST SIDE CHANNELS OUT");
    return 0;
}
