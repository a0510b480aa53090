/* show.h: everything about one job, for `jobs show` and `dead show`. */
#ifndef TD_SHOW_H
#define TD_SHOW_H

#include "cli.h"

/* td_show_job prints the job whose id is the command's argument: the row of a statement (id) -> columns of a job, and
   its attempts. absent is what is said when there is none, with %s for the id. Returns an exit code. */
int td_show_job(td_cli *cli, const char *statement, const char *absent);

#endif
