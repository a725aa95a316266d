/*
 * fuzz_model_safetensors - the header of a safetensors file, any bytes.
 *
 * The input is how many bytes of tensors there are (4 bytes, little endian) and
 * the header.
 *
 * Checked beside the absence of crashes: a refusal is ERR_CORRUPT with its
 * reason; tensors that are accepted follow one another to the end and are as
 * large as their shapes; their header written anew says the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                             \
    do {                                                                       \
        if (!(cond)) {                                                         \
            abort();                                                           \
        }                                                                      \
    } while (0)

static void
check_places(const struct safetensors *st, uint64_t n_data)
{
    uint64_t at = 0;

    for (size_t i = 0; i < st->n; i++) {
        const struct safetensors_tensor *t = &st->tensors[i];
        uint64_t n = 1;
        for (size_t j = 0; j < t->rank; j++)
            n *= t->shape[j];
        MUST(t->start == at && t->end >= t->start && t->n == n);
        MUST(t->end - t->start == n * safetensors_type_bytes(t->type));
        MUST(safetensors_find(st, t->name) == t);
        at = t->end;
    }
    MUST(at == n_data);
}

static void
check_again(const struct safetensors *st, uint64_t n_data)
{
    struct safetensors_head head;
    struct safetensors again = {0};
    size_t n_header = 0;

    safetensors_begin(&head);
    for (size_t i = 0; i < st->n; i++) {
        const struct safetensors_tensor *t = &st->tensors[i];
        size_t shape[SAFETENSORS_RANK_MAX];
        for (size_t j = 0; j < t->rank; j++)
            shape[j] = (size_t)t->shape[j];
        safetensors_add(&head, t->name, t->type, shape, t->rank);
    }
    if (safetensors_end(&head) == OK) {
        const uint8_t *bytes = (const uint8_t *)head.text.data;
        MUST(safetensors_header_bytes(
                 bytes, head.text.len + n_data, &n_header, NULL) == OK);
        MUST(n_header == head.text.len - 8);
        MUST(safetensors_parse(
                 &again, head.text.data + 8, n_header, n_data, NULL) == OK);
        MUST(again.n == st->n);
    }
    for (size_t i = 0; i < again.n; i++) {
        const struct safetensors_tensor *t = &again.tensors[i];
        const struct safetensors_tensor *old = safetensors_find(st, t->name);
        MUST(old != NULL && old->type == t->type && old->rank == t->rank);
        MUST(old->n == t->n && old->start == t->start && old->end == t->end);
    }
    safetensors_release(&again);
    safetensors_head_release(&head);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors st = {0};
    struct fault fault = {0};
    uint64_t n_data = 0;
    size_t n_header = 0;

    if (size < 4)
        return 0;
    for (size_t i = 0; i < 4; i++)
        n_data |= (uint64_t)data[i] << (8 * i);
    if (size >= 8 &&
        safetensors_header_bytes(data, size, &n_header, &fault) == OK)
        MUST(n_header <= size - 8 && n_header <= SAFETENSORS_HEADER_MAX);
    fault = (struct fault){0};
    enum err err = safetensors_parse(
        &st, (const char *)data + 4, size - 4, n_data, &fault);
    MUST(err == OK || err == ERR_CORRUPT);
    MUST((err == OK) == (fault.err == OK));
    MUST(err == OK || fault.detail[0] != '\0');
    if (err == OK) {
        check_places(&st, n_data);
        check_again(&st, n_data);
    }
    safetensors_release(&st);
    return 0;
}
