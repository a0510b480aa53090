/* submit.h: storing a job from a fiber, without holding its thread. */
#ifndef TD_SUBMIT_H
#define TD_SUBMIT_H

#include "query.h"

/* td_submit is tidemill_enqueue over the connections of this thread (td_connections_join), or in a session's
   transaction (NULL: in one of its own), and parks the fiber meanwhile. What is given must stay where it is. Errors: as
   tidemill_enqueue, STATE (this thread has no database). */
int td_submit(td_session *session, const char *task, const char *args_json, const tidemill_options *options,
              tidemill_job *job, tidemill_error *err) TD_MUST_CHECK;

#endif
