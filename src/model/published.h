/*
 * published.h - the folders that encoders are published in, read and written.
 *
 * What is read is a sentence-transformers folder: modules.json (Transformer,
 * Pooling, and where there are any Dense and Normalize), config.json,
 * sentence_bert_config.json, config_sentence_transformers.json (prompts),
 * tokenizer.json or vocab.txt with tokenizer_config.json, model.safetensors
 * (F32, F16, BF16). Model types: bert, roberta, xlm-roberta, distilbert, and
 * "kindred": a config.json that has the transformer's own settings
 * (transformer_encoder.h; not what the next files say again), for networks that
 * have no other name. A folder without modules.json is a bare model: mean
 * pooling, normalised.
 *
 * Everything is checked before memory is taken by it: paths in modules.json
 * stay inside the folder, files are regular and of bounded size, tensors are
 * neither missing nor surplus, do not overlap, have the types and shapes that
 * the configuration asks for, and hold no NaN and no infinity.
 */
#ifndef MODEL_PUBLISHED_H
#define MODEL_PUBLISHED_H

#include "base/buf.h"
#include "base/err.h"
#include "model/encoder.h"

/*
 * published_import - the encoder of a folder.
 *
 *   dir   path of the folder; it may go afterwards
 *   card  what the publisher says of it is appended, a JSON object: {"source":
 *         name or null, "license": or null, "languages": [...]}, from
 *         config.json and the head of README.md; may be NULL
 *
 * The fault names file, tensor and reason: ERR_NOT_FOUND for a file that is not
 * there, ERR_UNSUPPORTED (a model type, a tokenizer, a pooling that is not
 * known here; pytorch_model.bin without model.safetensors, with the command
 * that converts it), ERR_INVALID, ERR_CORRUPT, ERR_TOO_LARGE, ERR_IO,
 * ERR_FULL, ERR_NOMEM.
 */
enum err published_import(struct encoder **out, const char *dir,
    struct buf *card, struct fault *fault) NODISCARD;

/*
 * published_export - an encoder as a folder that sentence-transformers loads.
 *
 *   dir   an empty folder that is there
 *   name  for the README.md, as is card (JSON object or NULL)
 *
 * transformer: all files above, config.json of its published type where it has
 * one; imported again it has the same fingerprint. ERR_UNSUPPORTED for what has
 * no published form (the other families, adapters), with the reason; ERR_IO,
 * ERR_FULL, ERR_NOMEM.
 */
enum err published_export(const struct encoder *encoder, const char *dir,
    const char *name, const char *card, struct fault *fault) NODISCARD;

#endif
