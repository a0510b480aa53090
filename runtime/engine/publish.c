/* publish.c: declarations as JSON. See publish.h. What was not declared is left out. */
#include "publish.h"

#include <inttypes.h>
#include <string.h>

static void key(td_buf *b, const char *name) {
    char last = b->len ? b->data[b->len - 1] : '{';
    if (last != '{') td_buf_putc(b, ',');
    td_buf_json(b, name, strlen(name));
    td_buf_putc(b, ':');
}

static void text(td_buf *b, const char *name, const char *value) {
    if (!value) return;
    key(b, name);
    td_buf_json(b, value, strlen(value));
}

static void number(td_buf *b, const char *name, int64_t value, int64_t unset) {
    if (value == unset) return;
    key(b, name);
    td_buf_printf(b, "%" PRId64, value);
}

static void texts(td_buf *b, const char *name, char *const *values, size_t count) {
    key(b, name);
    td_buf_putc(b, '[');
    for (size_t i = 0; i < count; i++) {
        if (i > 0) td_buf_putc(b, ',');
        td_buf_json(b, values[i], strlen(values[i]));
    }
    td_buf_putc(b, ']');
}

static void args(td_buf *b, const td_task *task) {
    static const char *const types[] = { "string", "number", "integer", "boolean", "object", "array" };
    key(b, "args");
    td_buf_putc(b, '[');
    for (size_t i = 0; i < task->args_count; i++) {
        td_buf_puts(b, i > 0 ? ",{" : "{");
        text(b, "name", task->args[i].name);
        text(b, "type", types[task->args[i].type]);
        key(b, "optional");
        td_buf_puts(b, task->args[i].optional ? "true}" : "false}");
    }
    td_buf_putc(b, ']');
}

void td_publish_tasks(td_buf *b, const td_handlers *handlers) {
    td_buf_putc(b, '[');
    for (size_t i = 0; i < td_handlers_count(handlers); i++) {
        const td_task *task = td_handlers_task(handlers, i);
        td_buf_puts(b, i > 0 ? ",{" : "{");
        text(b, "name", task->name);
        text(b, "queue", task->queue);
        number(b, "priority", task->priority, TIDEMILL_UNSET_INT);
        number(b, "max_attempts", task->max_attempts, TIDEMILL_UNSET_INT);
        number(b, "timeout_ms", task->timeout_ms, TIDEMILL_UNSET);
        number(b, "unique_for_ms", task->unique_for_ms, TIDEMILL_UNSET);
        if (task->tags_declared) texts(b, "tags", task->tags, task->tags_count);
        if (task->args_declared) args(b, task);
        if (task->secret_count) texts(b, "secret", task->secret, task->secret_count);
        td_buf_putc(b, '}');
    }
    td_buf_putc(b, ']');
}

void td_publish_queue(td_buf *b, const char *name, int workers) {
    number(b, name, workers, -1);
}
