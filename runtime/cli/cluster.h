/* cluster.h: a private PostgreSQL cluster in a folder, kept between runs, that lives as long as this process.

   The folder holds:  lock          held while anything uses the folder; the process id of the `dev` that does
                      postgres/     the cluster's home, owned by whom it runs as: data/ is the cluster
                      postgres.log  what its programs printed
                      socket        the folder of the socket, so that the URL stays the same
   PostgreSQL does not run as root: then it runs as the owner of home: postgres, or else nobody; where that user cannot
   reach the folder, home is a link to a folder of its own under /var/lib/tidemill.
   The socket is in a folder under /tmp, since a socket's path may not be long, that only that user (and root) may
   enter: whoever gets there is the superuser. */
#ifndef TD_CLUSTER_H
#define TD_CLUSTER_H

#include "../base/base.h"

typedef struct td_cluster td_cluster;

/* td_cluster_start makes the folder and the cluster where they do not exist, and starts it. Blocks until it takes
   connections, or stop_fd is readable. To be ended with td_cluster_stop by the same thread.
   Errors: STATE (another process uses the folder), NOT_FOUND (no PostgreSQL), IO, TIMEOUT, CANCELLED, MEMORY. */
int td_cluster_start(const char *dir, int stop_fd, const td_log *log, td_cluster **cluster,
                     tidemill_error *err) TD_MUST_CHECK;

/* td_cluster_url returns the URL of its database `tidemill`; td_cluster_dir its folder; td_cluster_log its log file.
   They live as long as it does. */
const char *td_cluster_url(const td_cluster *cluster);
const char *td_cluster_dir(const td_cluster *cluster);
const char *td_cluster_log(const td_cluster *cluster);

/* td_cluster_fd returns a descriptor that is readable when PostgreSQL has ended by itself. */
int td_cluster_fd(const td_cluster *cluster);

/* td_cluster_stop ends PostgreSQL in order, and frees. NULL is allowed. */
void td_cluster_stop(td_cluster *cluster);

/* td_cluster_abandon ends PostgreSQL at once, from any thread, just before the process ends; frees nothing. */
void td_cluster_abandon(void *cluster);

#endif
