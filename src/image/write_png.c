/*
 * write_png.c - image_write_png, through libpng, whose memory comes from
 * base/alloc.h and whose errors come back by longjmp.
 */
#include <setjmp.h>
#include <stdbool.h>

#include <png.h>

#include "base/alloc.h"
#include "image/image.h"

static png_voidp
png_take(png_structp png, png_alloc_size_t size)
{
    (void)png;
    return mem_alloc(size, 1);
}

static void
png_give(png_structp png, png_voidp p)
{
    (void)png;
    mem_free(p);
}

NORETURN static void
stop(png_structp png, png_const_charp message)
{
    (void)message;
    png_longjmp(png, 1);
}

static void
ignore(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void
append(png_structp png, png_bytep bytes, size_t n)
{
    struct buf *out = png_get_io_ptr(png);

    buf_add(out, bytes, n);
    if (buf_status(out) != OK) {
        png_error(png, "full");
    }
}

static void
flush(png_structp png)
{
    (void)png;
}

/* False when libpng gave up; no variable of this frame lives over the jump. */
static bool
write_all(png_structp png, png_infop info, const struct image *image)
{
    if (setjmp(png_jmpbuf(png)) != 0) {
        return false;
    }
    png_set_IHDR(png, info, image->width, image->height, 8,
        image->channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB,
        PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
        PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (size_t y = 0; y < image->height; y++) {
        png_write_row(png, image->pixels + y * image->width * image->channels);
    }
    png_write_end(png, info);
    return true;
}

enum err
image_write_png(const struct image *image, struct buf *out)
{
    png_structp png = png_create_write_struct_2(
        PNG_LIBPNG_VER_STRING, NULL, stop, ignore, NULL, png_take, png_give);
    png_infop info = NULL;
    enum err err = ERR_NOMEM;

    if (png == NULL) {
        return ERR_NOMEM;
    }
    info = png_create_info_struct(png);
    if (info != NULL) {
        png_set_write_fn(png, out, append, flush);
        if (write_all(png, info, image)) {
            err = OK;
        } else if (buf_status(out) != OK) {
            err = buf_status(out);
        }
    }
    png_destroy_write_struct(&png, &info);
    return err;
}
