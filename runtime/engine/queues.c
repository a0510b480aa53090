/* queues.c: see queues.h. */
#include "queues.h"

#include <stdlib.h>
#include <string.h>

enum { DECLARED_WORKERS = 10 };

td_queue_state *td_queues_find(const td_queues *queues, const char *name) {
    for (size_t i = 0; i < queues->count; i++)
        if (strcmp(queues->list[i]->name, name) == 0) return queues->list[i];
    return NULL;
}

int td_queues_add(td_queues *queues, const char *name, int workers, tidemill_error *err) {
    td_queue_state **list = realloc(queues->list, (queues->count + 1) * sizeof(td_queue_state *));
    if (!list) return td_error_memory(err);
    queues->list = list;
    td_queue_state *queue = calloc(1, sizeof *queue);
    if (!queue) return td_error_memory(err);
    *queue = (td_queue_state){ .name = td_strdup(name), .workers = workers, .due = true };
    td_list_init(&queue->ahead);
    if (!queue->name) {
        free(queue);
        return td_error_memory(err);
    }
    list[queues->count++] = queue;
    return 0;
}

int td_queues_declare(td_queues *queues, const td_handlers *handlers, tidemill_error *err) {
    int rc = 0;
    for (size_t i = 0; queues->declared && rc == 0 && i < td_handlers_count(handlers); i++) {
        const char *name = td_handlers_task(handlers, i)->queue;
        if (name && !td_queues_find(queues, name)) rc = td_queues_add(queues, name, DECLARED_WORKERS, err);
    }
    return rc;
}

void td_queues_free(td_queues *queues) {
    for (size_t i = 0; i < queues->count; i++) {
        free(queues->list[i]->name);
        free(queues->list[i]);
    }
    free(queues->list);
    *queues = (td_queues){ 0 };
}
