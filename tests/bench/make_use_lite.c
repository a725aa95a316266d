/*
 * make_use_lite - the published weights of use-lite as a folder for import.
 *
 *   make_use_lite FROM TO   FROM has model.safetensors and vocab.tsv
 */
#include <stdio.h>

#include "base/fsio.h"
#include "kern/kern.h"
#include "tests/support/use_lite_folder.h"

int
main(int argc, char **argv)
{
    struct fault fault = {0};

    if (argc != 3) {
        (void)fprintf(stderr, "usage: make_use_lite FROM TO\n");
        return 2;
    }
    kern_init();
    enum err err = fsio_make_dir(argv[2], &fault);
    if (err == OK)
        err = use_lite_folder(argv[1], argv[2], &fault);
    if (err != OK)
        (void)fprintf(
            stderr, "make_use_lite: %s: %s\n", err_text(err), fault.detail);
    return err == OK ? 0 : 1;
}
