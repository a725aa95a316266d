/*
 * use_lite_folder.h - the published weights of use-lite as a folder that is
 * imported.
 */
#ifndef TESTS_USE_LITE_FOLDER_H
#define TESTS_USE_LITE_FOLDER_H

#include "base/err.h"

/*
 * use_lite_folder - write the folder of an encoder.
 *
 *   from  a folder with use-lite's model.safetensors (matrices [in, out] under
 *         names of their own) and vocab.tsv (number, piece, score)
 *   to    an empty folder
 *
 * ERR_NOT_FOUND where from is not such a folder.
 */
enum err use_lite_folder(
    const char *from, const char *to, struct fault *fault) NODISCARD;

#endif
