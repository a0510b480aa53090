/* tally.h: how much memory the workers of a process have mapped. Counted, since a thread that is stuck may outlive the
   rest of its process's engine. Any thread. */
#ifndef TD_TALLY_H
#define TD_TALLY_H

#include <stdatomic.h>
#include <stddef.h>

typedef struct td_tally td_tally;

/* td_tally_new returns one that is counted once for the caller, NULL without memory. */
td_tally *td_tally_new(void);
td_tally *td_tally_ref(td_tally *tally);
/* td_tally_unref: NULL is allowed. */
void td_tally_unref(td_tally *tally);

/* td_tally_bytes: the number, for td_state_make. */
_Atomic size_t *td_tally_bytes(td_tally *tally);

#endif
