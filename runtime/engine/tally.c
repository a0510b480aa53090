/* tally.c: see tally.h. */
#include "tally.h"

#include <stdlib.h>

struct td_tally {
    atomic_uint refs;
    _Atomic size_t bytes;
};

td_tally *td_tally_new(void) {
    td_tally *tally = calloc(1, sizeof *tally);
    if (tally) atomic_init(&tally->refs, 1);
    return tally;
}

td_tally *td_tally_ref(td_tally *tally) {
    atomic_fetch_add(&tally->refs, 1);
    return tally;
}

void td_tally_unref(td_tally *tally) {
    if (tally && atomic_fetch_sub(&tally->refs, 1) == 1) free(tally);
}

_Atomic size_t *td_tally_bytes(td_tally *tally) {
    return &tally->bytes;
}
