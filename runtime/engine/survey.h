/* survey.h: what the jobs of a process do at the moment, asked of each thread: any number of them answer, each when it
   can, and those that are stuck do not. */
#ifndef TD_SURVEY_H
#define TD_SURVEY_H

#include "job.h"

typedef struct td_survey td_survey;

/* td_survey_new begins one, which `left` threads are to answer; counted once for the caller. NULL without memory. */
td_survey *td_survey_new(int left, bool traces);
td_survey *td_survey_ref(td_survey *survey);
void td_survey_unref(td_survey *survey);

/* td_survey_traces: whether tracebacks are wanted. */
bool td_survey_traces(const td_survey *survey);

/* td_survey_answer adds a thread's jobs: JSON objects, separated by commas. From any thread. */
void td_survey_answer(td_survey *survey, const td_buf *jobs);

/* td_survey_done says whether every thread has answered. */
bool td_survey_done(td_survey *survey);

/* td_survey_take appends what was answered so far, a JSON array. */
void td_survey_take(td_survey *survey, td_buf *b);

#endif
