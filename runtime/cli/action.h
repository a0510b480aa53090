/* action.h: one change made to each of several jobs, told one by one. */
#ifndef TD_ACTION_H
#define TD_ACTION_H

#include "cli.h"

/* What is said about a job by the state that it came to: "cancelled job 42". %s is the job's id. */
typedef struct td_said {
    const char *state;
    const char *format;
} td_said;

/* td_action_each runs a statement, (id, extra) -> state, for each id among the command's arguments, with extra as its
   second parameter if with_extra. A job for which it fails is told on stderr (within the list with --json) and does not
   keep the others from it. Returns an exit code: failed if any did. */
int td_action_each(td_cli *cli, const char *statement, bool with_extra, const char *extra, const td_said *said,
                   size_t count);

#endif
