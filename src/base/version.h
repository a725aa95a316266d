/* version.h - the one place of the version; the Makefile reads it too. */
#ifndef BASE_VERSION_H
#define BASE_VERSION_H

#define KINDRED_VERSION "0.1.0"

#endif
