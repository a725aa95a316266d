/* tables.h - the tables that kern.c chooses from; for this folder only. */
#ifndef KERN_TABLES_H
#define KERN_TABLES_H

#include "kern/kern.h"

extern const struct kern kern_scalar;
#ifdef __x86_64__
extern const struct kern kern_avx2;
extern const struct kern kern_avx512vnni;
#endif

#endif
