/*
 * fuzz_model_weights - encoder_load on any bytes, for a small encoder of each
 * family.
 *
 * The input is a safetensors stream whose tensors' bytes are cut down: a real
 * one has 163,904 of them, which would hide the header from the fuzzer. What
 * the input lacks to its claimed length is read as zeros; the first byte says
 * whether the claimed length is the input's own or the right one for its
 * header (bit 0), and which family it is for (bit 1).
 *
 * Checked beside the absence of crashes (and of blocks over the limits of
 * tests/support/fuzz.sh): nothing is read that was not claimed, nor in pieces
 * larger than the tensors need; the outcome is a documented one, a refusal has
 * its reason, and what loads is finite, encodes, and saves.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "image/image.h"
#include "model/encoder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SIDE = 28 };

/* The vision encoder's: the stem and two convolutions of a block, each with
   gains and biases; the linear layer; mean and deviation of the input. */
static const struct target {
    const char *family, *config;
    size_t dims, tensor_bytes;
} targets[] = {
    {"static", "{\"dims\":32,\"buckets\":1024}", 32,
        4 * (1024 * 32 + 2 * 4096 + 16)},
    {"vision",
        "{\"input\":28,\"channels\":1,\"width\":16,\"blocks\":1,"
        "\"stages\":1,\"stem_stride\":4,\"grid\":1,\"dims\":8}",
        8, 4 * (16 * 49 + 32 + 2 * (16 * 16 * 9 + 32) + 8 * 16 + 8 + 2)},
};

#define MUST(cond)                                                             \
    do {                                                                       \
        if (!(cond)) {                                                         \
            abort();                                                           \
        }                                                                      \
    } while (0)

struct stream {
    const uint8_t *data;
    size_t size;
    uint64_t at, claimed;
};

static enum err
read_stream(void *arg, void *bytes, size_t n)
{
    struct stream *s = arg;
    uint8_t *out = bytes;

    /* nothing may be asked for that was not claimed, nor much at once */
    MUST(n <= s->claimed - s->at && n <= 1 << 20);
    memset(out, 0, n);
    if (s->at < s->size)
        memcpy(out, s->data + s->at, MIN(n, s->size - (size_t)s->at));
    s->at += n;
    return OK;
}

static enum err
count_bytes(void *arg, const void *bytes, size_t n)
{
    uint64_t *total = arg;
    (void)bytes;
    *total += n;
    return OK;
}

static void
use(const struct encoder *encoder, const struct target *target)
{
    static uint8_t pixels[SIDE * SIDE];
    const struct image image = {SIDE, SIDE, 1, pixels};
    const struct encoder_input input = {.text = "a few words, caf\xC3\xA9",
        .len = 18,
        .image = encoder_reads(encoder) == ENCODER_READS_IMAGE ? &image : NULL};
    float out[32];
    uint64_t saved = 0;
    size_t n_params;

    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * 7);
    MUST(encoder_dims(encoder) == target->dims);
    const float *params = encoder_params_const(encoder, &n_params);
    MUST(n_params * sizeof *params == target->tensor_bytes);
    for (size_t i = 0; i < n_params; i++)
        MUST(isfinite(params[i]));
    if (encoder_encode(encoder, &input, 1, out, NULL, NULL) != OK)
        return;
    MUST(encoder_save(encoder, count_bytes, &saved) == OK);
    MUST(saved == encoder_save_bytes(encoder));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct encoder *encoder = NULL;
    struct fault fault = {0};
    struct stream s = {0};

    if (size == 0)
        return 0;
    const struct target *target = &targets[data[0] >> 1 & 1];
    s.data = data + 1;
    s.size = s.claimed = size - 1;
    if ((data[0] & 1) != 0 && s.size >= 8) {
        uint64_t n_header = 0;
        for (size_t i = 0; i < 8; i++)
            n_header |= (uint64_t)s.data[i] << (8 * i);
        s.claimed =
            8 + n_header + target->tensor_bytes; /* may wrap: any number */
    }
    enum err err = encoder_load(&encoder, target->family, target->config,
        read_stream, &s, s.claimed, &fault);
    MUST(err == OK || err == ERR_CORRUPT || err == ERR_NOMEM);
    MUST((encoder != NULL) == (err == OK));
    MUST(err != ERR_CORRUPT ||
         (fault.err == ERR_CORRUPT && fault.detail[0] != '\0'));
    if (err == OK) {
        MUST(s.claimed == 0 || s.at == s.claimed);
        use(encoder, target);
    }
    encoder_free(encoder);
    return 0;
}
