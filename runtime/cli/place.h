/* place.h: the folder of a private cluster: who uses it, whose it is, and where its socket goes. See cluster.h. */
#ifndef TD_PLACE_H
#define TD_PLACE_H

#include "launch.h"

typedef struct td_place {
    char *dir;          /* the folder, absolute */
    char *home;         /* the cluster's home, absolute, links resolved */
    char *socket_dir;   /* made by td_place_open, removed by td_place_close */
    td_account account; /* home's owner, who runs PostgreSQL */
    int lock_fd;        /* holds the lock on the folder; whoever inherits it goes on holding it */
} td_place;

/* td_place_open makes what does not exist yet, and locks the folder. Errors: STATE (somebody else holds the lock), IO,
   CANCELLED, MEMORY. *place is to be closed with td_place_close in any case. */
int td_place_open(const char *dir, int stop_fd, const td_log *log, td_place *place, tidemill_error *err) TD_MUST_CHECK;

/* td_place_unlink removes the socket's folder; td_place_close does too, and lets go of the lock. */
void td_place_unlink(const td_place *place);
void td_place_close(td_place *place);

/* td_place_path returns "folder/name", malloc'd; NULL without memory. */
char *td_place_path(const char *dir, const char *name);

#endif
