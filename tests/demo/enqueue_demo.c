/* enqueue_demo: the demo's enqueue from C: a job that resizes a stored picture.

       enqueue_demo FILE_KEY USER_ID WIDTH HEIGHT

   The database is DATABASE_URL's. Prints the job's id and whether it was a duplicate ("7 false"). */
#include "tidemill.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* enqueue connects to the database at url and enqueues one job. Returns 0, or a code with *error filled in. */
static int enqueue(const char *url, const char *args_json, tidemill_job *job, tidemill_error *error) {
    tidemill_client *client = NULL;
    tidemill_options options = TIDEMILL_OPTIONS;
    options.priority = 5;
    int rc = tidemill_connect(url, &client, error);
    if (rc == 0) rc = tidemill_enqueue(client, "process_image", args_json, &options, job, error);
    tidemill_close(client);
    return rc;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: enqueue_demo FILE_KEY USER_ID WIDTH HEIGHT\n");
        return 2;
    }
    /* The demo's keys and ids need no escaping; a program that takes them from elsewhere uses a JSON library. */
    char args_json[512];
    int length = snprintf(args_json, sizeof args_json,
                          "{\"file_key\": \"%s\", \"user_id\": \"%s\", \"width\": %d, \"height\": %d}", argv[1],
                          argv[2], atoi(argv[3]), atoi(argv[4]));
    if (length < 0 || (size_t)length >= sizeof args_json) {
        fprintf(stderr, "enqueue_demo: the arguments are too long\n");
        return 2;
    }

    tidemill_job job;
    tidemill_error error;
    if (enqueue(getenv("DATABASE_URL"), args_json, &job, &error) != 0) {
        fprintf(stderr, "enqueue_demo: %s\n", error.message);
        return 1;
    }
    printf("%" PRId64 " %s\n", job.id, job.duplicate ? "true" : "false");
    return 0;
}
