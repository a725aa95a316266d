#include "text/charsmap.h"

#include <string.h>
#include <utf8proc.h>

#include "base/alloc.h"
#include "base/base64.h"
#include "text/unicode.h"

#define CHARSMAP_BYTES_MAX ((size_t)8 << 20)
#define BLOCK 256
#define VALUE_BIT 0x80000000U
#define ENDS_BIT 0x100U
/* A cluster as long as this, or longer, is mapped by its characters. */
#define CLUSTER_BYTES 6

static uint32_t
offset_of(uint32_t unit)
{
    return (unit >> 10 & 0x1FFFFF) << (unit >> 9 & 1) * 8;
}

/* The replacement of the shortest key at the beginning of s, or NULL. */
static const char *
lookup(const struct charsmap *map, const char *s, size_t len)
{
    uint32_t node = offset_of(map->units[0]);
    for (size_t i = 0; i < len && s[i] != '\0'; i++) {
        unsigned char c = (unsigned char)s[i];
        uint32_t unit = map->units[node ^ c];
        if ((unit & (VALUE_BIT | 0xFF)) != c)
            return NULL;
        node ^= c ^ offset_of(unit);
        if ((unit & ENDS_BIT) != 0)
            return map->strings + (map->units[node] & ~VALUE_BIT);
    }
    return NULL;
}

/* Whether no walk can leave the array or the replacements. */
static enum err
check_units(const struct charsmap *map, const char *at, struct fault *fault)
{
    if ((map->units[0] & VALUE_BIT) != 0)
        return fault_set(fault, ERR_INVALID, at,
            "the map's double array begins with a value");
    for (size_t i = 0; i < map->n_units; i++) {
        uint32_t unit = map->units[i];
        if ((unit & VALUE_BIT) != 0)
            continue;
        size_t base = i ^ offset_of(unit);
        if (base >= map->n_units)
            return fault_set(fault, ERR_INVALID, at,
                "unit %zu of the map's double array points to unit %zu of %zu",
                i, base, map->n_units);
        if ((unit & ENDS_BIT) == 0)
            continue;
        uint32_t value = map->units[base], string = value & ~VALUE_BIT;
        if ((value & VALUE_BIT) == 0 || string >= map->n_strings ||
            ((unsigned char)map->strings[string] & 0xC0) == 0x80)
            return fault_set(fault, ERR_INVALID, at,
                "unit %zu of the map's double array has no replacement: unit "
                "%zu is %lu",
                i, base, (unsigned long)value);
    }
    return OK;
}

/* n bytes of a map into units and replacements. */
static enum err
unpack(struct charsmap *map, const unsigned char *bytes, size_t n,
    const char *at, struct fault *fault)
{
    size_t n_array = n < 4
                         ? 0
                         : (size_t)bytes[0] | (size_t)bytes[1] << 8 |
                               (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24;
    if (n < 4 || n_array == 0 || n_array % (4 * BLOCK) != 0 || n_array > n - 4)
        return fault_set(fault, ERR_INVALID, at,
            "a map of %zu bytes has no double array of %zu bytes", n, n_array);
    map->n_units = n_array / 4;
    map->n_strings = n - 4 - n_array + 1;
    map->units = mem_alloc(map->n_units, sizeof *map->units);
    map->strings = mem_alloc(map->n_strings, 1);
    if (map->units == NULL || map->strings == NULL)
        return ERR_NOMEM;
    for (size_t i = 0; i < map->n_units; i++) {
        const unsigned char *u = bytes + 4 + 4 * i;
        map->units[i] = (uint32_t)u[0] | (uint32_t)u[1] << 8 |
                        (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
    }
    memcpy(map->strings, bytes + 4 + n_array, map->n_strings - 1);
    map->strings[map->n_strings - 1] = '\0';
    size_t valid = utf8_valid_prefix(map->strings, map->n_strings);
    if (valid < map->n_strings)
        return fault_set(fault, ERR_INVALID, at,
            "byte %zu of the map's replacements is not UTF-8", valid);
    return check_units(map, at, fault);
}

enum err
charsmap_init(struct charsmap *out, const char *base64, size_t len,
    const char *at, struct fault *fault)
{
    struct charsmap map = {0};
    size_t n = 0;
    if (len / 4 * 3 > CHARSMAP_BYTES_MAX)
        return fault_set(fault, ERR_TOO_LARGE, at,
            "a map of more than %zu bytes", CHARSMAP_BYTES_MAX);
    unsigned char *bytes = mem_alloc(len / 4 * 3 + 3, 1);
    enum err err = bytes == NULL
                       ? ERR_NOMEM
                       : base64_decode(base64, len, bytes, len / 4 * 3 + 3, &n);
    if (err == ERR_SYNTAX)
        err = fault_set(fault, ERR_INVALID, at, "the map is not base64");
    if (err == OK)
        err = unpack(&map, bytes, n, at, fault);
    mem_free(bytes);
    if (err != OK) {
        charsmap_release(&map);
        return err;
    }
    for (unsigned c = 0; c < 128; c++) {
        char one = (char)c;
        /* A carriage return makes a cluster with a line feed. */
        map.plain[c] = c != '\r' && lookup(&map, &one, 1) == NULL;
    }
    *out = map;
    return OK;
}

void
charsmap_release(struct charsmap *map)
{
    mem_free(map->units);
    mem_free(map->strings);
    *map = (struct charsmap){0};
}

/* The bytes of the grapheme cluster at s. */
static size_t
cluster_len(const char *s, size_t len)
{
    size_t n, end;
    utf8proc_int32_t state = 0;
    uint32_t before = utf8_get(s, &end);
    while (end < len) {
        uint32_t next = utf8_get(s + end, &n);
        if (utf8proc_grapheme_break_stateful(
                (utf8proc_int32_t)before, (utf8proc_int32_t)next, &state))
            break;
        before = next;
        end += n;
    }
    return end;
}

static void
map_cluster(
    const struct charsmap *map, struct scratch *out, const char *s, size_t len)
{
    const char *whole = len < CLUSTER_BYTES ? lookup(map, s, len) : NULL;
    if (whole != NULL) {
        scratch_add(out, whole, strlen(whole));
        return;
    }
    for (size_t i = 0; i < len;) {
        size_t n = utf8_len((unsigned char)s[i]);
        const char *one = lookup(map, s + i, n);
        if (one != NULL)
            scratch_add(out, one, strlen(one));
        else
            scratch_add(out, s + i, n);
        i += n;
    }
}

void
charsmap_apply(
    const struct charsmap *map, struct scratch *out, const char *s, size_t len)
{
    size_t i = 0;
    while (i < len) {
        size_t start = i;
        /* Plain characters; the last one before others may be the base of
           a cluster. */
        while (i < len && (unsigned char)s[i] < 0x80 &&
               map->plain[(unsigned char)s[i]])
            i++;
        if (i < len && i > start && (unsigned char)s[i] >= 0x80)
            i--;
        scratch_add(out, s + start, i - start);
        if (i < len) {
            size_t n = cluster_len(s + i, len - i);
            map_cluster(map, out, s + i, n);
            i += n;
        }
    }
}
