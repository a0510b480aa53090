/* survey.c: see survey.h. */
#include "survey.h"

#include <pthread.h>
#include <stdlib.h>

struct td_survey {
    atomic_uint refs;
    bool traces;
    pthread_mutex_t mutex; /* of the rest */
    int left;
    td_buf jobs;
};

td_survey *td_survey_new(int left, bool traces) {
    td_survey *survey = calloc(1, sizeof *survey);
    if (!survey) return NULL;
    atomic_init(&survey->refs, 1);
    survey->traces = traces;
    survey->left = left;
    pthread_mutex_init(&survey->mutex, NULL);
    return survey;
}

td_survey *td_survey_ref(td_survey *survey) {
    atomic_fetch_add(&survey->refs, 1);
    return survey;
}

void td_survey_unref(td_survey *survey) {
    if (!survey || atomic_fetch_sub(&survey->refs, 1) > 1) return;
    td_buf_free(&survey->jobs);
    pthread_mutex_destroy(&survey->mutex);
    free(survey);
}

bool td_survey_traces(const td_survey *survey) {
    return survey->traces;
}

void td_survey_answer(td_survey *survey, const td_buf *jobs) {
    pthread_mutex_lock(&survey->mutex);
    if (jobs->len > 0) {
        if (survey->jobs.len > 0) td_buf_putc(&survey->jobs, ',');
        td_buf_add(&survey->jobs, jobs->data, jobs->len);
    }
    survey->left--;
    pthread_mutex_unlock(&survey->mutex);
}

bool td_survey_done(td_survey *survey) {
    pthread_mutex_lock(&survey->mutex);
    bool done = survey->left <= 0;
    pthread_mutex_unlock(&survey->mutex);
    return done;
}

void td_survey_take(td_survey *survey, td_buf *b) {
    pthread_mutex_lock(&survey->mutex);
    td_buf_putc(b, '[');
    if (survey->jobs.len > 0) td_buf_add(b, survey->jobs.data, survey->jobs.len);
    td_buf_putc(b, ']');
    if (survey->jobs.failed) b->failed = true;
    pthread_mutex_unlock(&survey->mutex);
}
