/* publish.h: what a process tells the database about itself, as JSON. */
#ifndef TD_PUBLISH_H
#define TD_PUBLISH_H

#include "../vm/vm.h"

/* td_publish_tasks appends an array with every task's declaration, as tidemill.publish takes it. */
void td_publish_tasks(td_buf *b, const td_handlers *handlers);

/* td_publish_queue appends one member, "name":workers, to an object that is open in b. */
void td_publish_queue(td_buf *b, const char *name, int workers);

#endif
