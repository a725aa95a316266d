/*
 * failpoint.h - named places where a test may stop the process.
 *
 * KINDRED_FAILPOINT="name:n" in the environment makes the n-th pass through
 * failpoint("name") raise SIGKILL, as a power cut would. Built in only with
 * -DKINDRED_FAILPOINTS (the crash tests' variant); otherwise it is nothing.
 */
#ifndef BASE_FAILPOINT_H
#define BASE_FAILPOINT_H

#ifdef KINDRED_FAILPOINTS
void failpoint(const char *name);
#else
#define failpoint(name) ((void)0)
#endif

#endif
