/* judge.h - jobs and the judge's report, for people. */
#ifndef KINDRED_JUDGE_H
#define KINDRED_JUDGE_H

#include <jansson.h>

/* One job with its loss curve, its reason and the judge's table. */
void judge_print_job(const json_t *job);

/* An array of jobs as a table. */
void judge_print_jobs(const json_t *jobs);

/* The judge's report alone: live against candidate. */
void judge_print_report(json_t *report);

#endif
