#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ERR_TEXT(name, text) text,
static const char *const texts[] = {ERR_LIST(ERR_TEXT)};
#undef ERR_TEXT

const char *
err_text(enum err err)
{
    if ((unsigned)err >= ARRAY_LEN(texts)) {
        return "unknown error";
    }
    return texts[err];
}

enum err
fault_set(struct fault *fault, enum err err, const char *pointer,
    const char *fmt, ...)
{
    struct fault made;
    va_list ap;

    ASSERT(err != OK);
    if (fault == NULL) {
        return err;
    }
    /* Built apart, because pointer and the arguments may be parts of *fault
       when a caller adds to what a lower layer said. */
    memset(&made, 0, sizeof(made));
    made.err = err;
    snprintf(made.pointer, sizeof(made.pointer), "%s",
        pointer == NULL ? "" : pointer);
    va_start(ap, fmt);
    vsnprintf(made.detail, sizeof(made.detail), fmt, ap);
    va_end(ap);
    *fault = made;
    return err;
}
