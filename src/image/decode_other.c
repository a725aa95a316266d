/*
 * decode_other.c - what a file is, by its first bytes, that is no picture of
 * ours; and the one number that is wanted of EXIF.
 */
#include <string.h>

#include "image/decode_parts.h"

#define LOOK_BYTES 512 /* of what may be text */

static bool
starts(const uint8_t *bytes, size_t n, const char *magic, size_t len)
{
    return n >= len && memcmp(bytes, magic, len) == 0;
}

/* ISO base media files say at 8 what they hold. */
static const char *
name_boxed(const uint8_t *brand)
{
    static const char *const avif[] = {"avif", "avis"};
    static const char *const heif[] = {
        "heic", "heix", "hevc", "heim", "heis", "mif1", "msf1"};

    for (size_t i = 0; i < ARRAY_LEN(avif); i++) {
        if (memcmp(brand, avif[i], 4) == 0) {
            return "an AVIF file";
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(heif); i++) {
        if (memcmp(brand, heif[i], 4) == 0) {
            return "a HEIC file";
        }
    }
    return "a film (ISO media file)";
}

/* No byte of the beginning is a control character other than white space, or
   one that UTF-8 does not have and the older single-byte sets hardly. */
static bool
is_text(const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((bytes[i] < ' ' && (bytes[i] < '\t' || bytes[i] > '\r')) ||
            bytes[i] == 0x7F || bytes[i] >= 0xFE) {
            return false;
        }
    }
    return n > 0;
}

static bool
has(const uint8_t *bytes, size_t n, const char *word)
{
    size_t len = strlen(word);

    for (size_t i = 0; i + len <= n; i++) {
        if (memcmp(bytes + i, word, len) == 0) {
            return true;
        }
    }
    return false;
}

static const char *
name_text(const uint8_t *bytes, size_t n)
{
    if (starts(bytes, n, "/9j/", 4) || starts(bytes, n, "iVBORw0KGgo", 11) ||
        starts(bytes, n, "UklGR", 5) || starts(bytes, n, "data:image/", 11)) {
        return "the base64 text of a picture, not its bytes";
    }
    if (has(bytes, n, "<svg")) {
        return "an SVG drawing";
    }
    if (has(bytes, n, "<html") || has(bytes, n, "<!DOCTYPE html") ||
        has(bytes, n, "<!doctype html")) {
        return "a web page, not a picture";
    }
    while (n > 0 && (*bytes == ' ' || (*bytes >= '\t' && *bytes <= '\r'))) {
        bytes++;
        n--;
    }
    if (n > 0 && (*bytes == '{' || *bytes == '[')) {
        return "JSON, not a picture";
    }
    return "text, not a picture";
}

const char *
decode_name_other(const uint8_t *bytes, size_t n)
{
    static const struct {
        const char *magic;
        size_t len;
        const char *name;
    } known[] = {
        {"GIF87a", 6, "a GIF file"},
        {"GIF89a", 6, "a GIF file"},
        {"II*\0", 4, "a TIFF file"},
        {"MM\0*", 4, "a TIFF file"},
        {"II+\0", 4, "a TIFF file"},
        {"MM\0+", 4, "a TIFF file"},
        {"\xFF\x0A", 2, "a JPEG XL file"},
        {"\0\0\0\x0CJXL ", 8, "a JPEG XL file"},
        {"\0\0\0\x0CjP  ", 8, "a JPEG 2000 file"},
        {"\xFF\x4F\xFF\x51", 4, "a JPEG 2000 file"},
        {"8BPS", 4, "a Photoshop file"},
        {"\0\0\1\0", 4, "an icon file"},
        {"%PDF-", 5, "a PDF document, not a picture"},
        {"PK\3\4", 4, "a ZIP archive, not a picture"},
        {"\x1F\x8B", 2, "a gzip archive, not a picture"},
    };

    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (starts(bytes, n, known[i].magic, known[i].len)) {
            return known[i].name;
        }
    }
    /* "BM" may begin a text; a bitmap has four zero bytes at 6. */
    if (starts(bytes, n, "BM", 2) && n >= 10 &&
        memcmp(bytes + 6, "\0\0\0\0", 4) == 0) {
        return "a BMP file";
    }
    if (n >= 12 && memcmp(bytes + 4, "ftyp", 4) == 0) {
        return name_boxed(bytes + 8);
    }
    n = MIN(n, (size_t)LOOK_BYTES);
    return is_text(bytes, n) ? name_text(bytes, n) : NULL;
}

/* ---- EXIF ------------------------------------------------------------------
 */

static uint32_t
number(const uint8_t *p, size_t n_bytes, bool little)
{
    uint32_t v = 0;

    for (size_t i = 0; i < n_bytes; i++) {
        v = v << 8 | p[little ? n_bytes - 1 - i : i];
    }
    return v;
}

/*
 * TIFF 6.0: byte order "II" or "MM", 42, the offset of the first directory; a
 * directory is its number of entries and 12 bytes for each: tag, type, count,
 * value. Orientation is tag 0x0112, one SHORT (type 3).
 */
uint32_t
decode_exif_orientation(const uint8_t *tiff, size_t n)
{
    if (n < 8 || tiff[0] != tiff[1] || (tiff[0] != 'I' && tiff[0] != 'M')) {
        return 1;
    }
    bool little = tiff[0] == 'I';
    size_t at = number(tiff + 4, 4, little);
    if (number(tiff + 2, 2, little) != 42 || at > n - 2) {
        return 1;
    }
    size_t n_entries = number(tiff + at, 2, little);
    const uint8_t *entry = tiff + at + 2;
    n_entries = MIN(n_entries, (n - at - 2) / 12);
    for (size_t i = 0; i < n_entries; i++, entry += 12) {
        if (number(entry, 2, little) == 0x0112) {
            uint32_t value = number(entry + 8, 2, little);
            bool good =
                number(entry + 2, 2, little) == 3 && value >= 1 && value <= 8;
            return good ? value : 1;
        }
    }
    return 1;
}
