/*
 * fuzz_image_decode - image_decode of any bytes, under small limits.
 *
 * Checked beside the absence of crashes, leaks and time-outs: a result has the
 * size that image_inspect told, shrunk as far as the wanted side allows, within
 * the limit; a refusal comes with words and leaves no picture; the same bytes
 * give the same pixels. The first byte of the input is not the file's: it
 * chooses the wanted side.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image/decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                             \
    do {                                                                       \
        if (!(cond)) {                                                         \
            abort();                                                           \
        }                                                                      \
    } while (0)

#define PIXELS_MAX 65536

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct image_limits limits = {.bytes_max = 65536, .pixels_max = PIXELS_MAX};
    struct image_facts facts = {0};
    struct image image = {0}, again = {0};
    struct fault fault = {0};
    enum err inspected, err;

    if (size == 0)
        return 0;
    limits.side_wanted = data[0] % 64;
    data++;
    size--;
    inspected = image_inspect(&facts, data, size, &limits, NULL);
    err = image_decode(&image, data, size, &limits, &fault);
    if (err != OK) {
        MUST(image.pixels == NULL && fault.err == err);
        MUST(fault.detail[0] != '\0');
        MUST(inspected == OK || inspected == err);
        return 0;
    }
    MUST(inspected == OK);
    MUST((uint64_t)facts.width * facts.height <= PIXELS_MAX);
    MUST(image.channels == facts.channels);
    MUST(image.width >= 1 && image.width <= facts.width);
    MUST(image.height >= 1 && image.height <= facts.height);
    uint32_t side = MIN(image.width, image.height);
    MUST(side >= MIN(limits.side_wanted, MIN(facts.width, facts.height)));
    MUST(limits.side_wanted != 0 || image.width == facts.width);
    MUST(image_decode(&again, data, size, &limits, NULL) == OK);
    MUST(memcmp(image.pixels, again.pixels,
             (size_t)image.width * image.height * image.channels) == 0);
    image_release(&image);
    image_release(&again);
    return 0;
}
