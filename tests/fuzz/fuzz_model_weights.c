/*
 * fuzz_model_weights - encoder_load on any bytes, for a small encoder.
 *
 * The input is a safetensors stream whose tensors' bytes are cut down: a real
 * one has 163,904 of them, which would hide the header from the fuzzer. What
 * the input lacks to its claimed length is read as zeros; the first byte says
 * whether the claimed length is the input's own or the right one for its
 * header.
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
#include "model/encoder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CONFIG "{\"dims\":32,\"buckets\":1024}"
#define TENSOR_BYTES (4 * (1024 * 32 + 2 * 4096 + 16))

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
use(const struct encoder *encoder)
{
    const struct encoder_input input = {
        .text = "a few words, caf\xC3\xA9", .len = 18};
    float out[32];
    uint64_t saved = 0;
    size_t n_params;

    MUST(encoder_dims(encoder) == 32);
    const float *params = encoder_params_const(encoder, &n_params);
    MUST(n_params * sizeof *params == TENSOR_BYTES);
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
    s.data = data + 1;
    s.size = s.claimed = size - 1;
    if ((data[0] & 1) != 0 && s.size >= 8) {
        uint64_t n_header = 0;
        for (size_t i = 0; i < 8; i++)
            n_header |= (uint64_t)s.data[i] << (8 * i);
        s.claimed = 8 + n_header + TENSOR_BYTES; /* may wrap: any number */
    }
    enum err err = encoder_load(
        &encoder, "static", CONFIG, read_stream, &s, s.claimed, &fault);
    MUST(err == OK || err == ERR_CORRUPT || err == ERR_NOMEM);
    MUST((encoder != NULL) == (err == OK));
    MUST(err != ERR_CORRUPT ||
         (fault.err == ERR_CORRUPT && fault.detail[0] != '\0'));
    if (err == OK) {
        MUST(s.claimed == 0 || s.at == s.claimed);
        use(encoder);
    }
    encoder_free(encoder);
    return 0;
}
