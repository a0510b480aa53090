/* version.c: which library this is. */
#include "../tidemill.h"

const char *tidemill_version(void) {
    return TIDEMILL_VERSION;
}
