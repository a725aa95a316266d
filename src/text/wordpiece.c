#include "text/wordpiece.h"

void
wordpiece_init(struct wordpiece *out, const struct pieces *pieces,
    uint32_t unknown_id, const char *prefix, size_t prefix_len,
    size_t chars_max)
{
    *out = (struct wordpiece){.unknown_id = unknown_id,
        .chars_max = chars_max,
        .inside = pieces->trie.root,
        .has_inside = true};
    for (size_t i = 0; i < prefix_len && out->has_inside; i++)
        out->has_inside =
            trie_step(&pieces->trie, &out->inside, (unsigned char)prefix[i]);
}

static size_t
count_chars(const char *s, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)s[i] & 0xC0) != 0x80;
    return n;
}

void
wordpiece_encode(const struct wordpiece *model, const struct pieces *pieces,
    const char *word, size_t len, struct piece_sink *sink)
{
    const struct trie *trie = &pieces->trie;
    const size_t before = sink->n;
    uint32_t from = trie->root;
    size_t start = 0;
    if (len > model->chars_max && count_chars(word, len) > model->chars_max) {
        piece_sink_put(sink, model->unknown_id);
        return;
    }
    while (start < len) {
        uint32_t node = from, last = 0;
        size_t end = start;
        for (size_t i = start; i < len; i++) {
            if (!trie_step(trie, &node, (unsigned char)word[i]))
                break;
            if (trie_ends(node)) {
                end = i + 1;
                last = node;
            }
        }
        if (end == start)
            break;
        piece_sink_put(sink, trie_value(trie, last));
        start = end;
        if (!model->has_inside)
            break;
        from = model->inside;
    }
    if (start < len) {
        sink->n = before;
        piece_sink_put(sink, model->unknown_id);
    }
}
