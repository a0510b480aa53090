/* declare.c: what a handler's module exposes: name(), handle(ctx, args), and the options it declares. */
#include "private.h"

#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 100, TAGS_MAX = 20, NAMES_MAX = 1000, MEMORY_MAX_MIB = 65536 };
static const double TIMEOUT_MAX_S = 7 * 86400.0, UNIQUE_MAX_S = 10 * 365.25 * 86400;

/* What every reader below works on: the module is at index `module`. */
typedef struct declaration {
    lua_State *L;
    int module;
    const char *dir;
    const td_file *file;
    td_task *task;
    tidemill_error *err;
} declaration;

/* ---- Refusing ---- */

static int refuse(declaration *d, const char *field, const char *format, ...) TD_PRINTF(3, 4);
static int refuse(declaration *d, const char *field, const char *format, ...) {
    char why[600];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    td_error_set(d->err, TIDEMILL_EHANDLER, "%s/%s: %s: %s", d->dir, d->file->path, field, why);
    if (d->err) snprintf(d->err->field, sizeof d->err->field, "%s", field);
    return TIDEMILL_EHANDLER;
}

/* refuse_value refuses the value on top of the stack. */
static int refuse_value(declaration *d, const char *field, const char *allowed) {
    char shown[TD_FAULT_VALUE];
    td_fault_value(d->L, -1, shown);
    return refuse(d, field, "%s is not allowed; %s", shown, allowed);
}

/* ---- Texts ---- */

/* is_text says whether the value on top is a string of 1 to TEXT_MAX bytes, valid UTF-8, without control characters. */
static bool is_text(lua_State *L) {
    if (lua_type(L, -1) != LUA_TSTRING) return false;
    size_t len;
    const char *text = lua_tolstring(L, -1, &len);
    if (len < 1 || len > TEXT_MAX || !td_utf8_valid(text, len)) return false;
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) return false;
    }
    return true;
}

/* copy_text copies the string on top to *out. */
static int copy_text(declaration *d, char **out) {
    *out = td_strdup(lua_tostring(d->L, -1));
    return *out ? 0 : td_error_memory(d->err);
}

/* read_list reads a list of at most max texts into *out. The value is on top of the stack. */
static int read_list(declaration *d, const char *field, size_t max, const char *allowed, char ***out, size_t *count) {
    lua_State *L = d->L;
    if (!lua_istable(L, -1)) return refuse_value(d, field, allowed);
    size_t n = lua_rawlen(L, -1), keys = 0;
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        keys++;
        lua_pop(L, 1);
    }
    if (keys != n) return refuse(d, field, "a table with keys other than 1 to %zu is not allowed; %s", n, allowed);
    if (n > max) return refuse(d, field, "%zu of them are not allowed; %s", n, allowed);
    *out = calloc(n + 1, sizeof **out);
    if (!*out) return td_error_memory(d->err);
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        int rc = is_text(L) ? copy_text(d, &(*out)[i]) : refuse_value(d, field, allowed);
        if (rc < 0) return rc;
        *count = i + 1;
        lua_pop(L, 1);
    }
    return 0;
}

/* ---- Numbers ---- */

static int read_whole(declaration *d, const char *field, int min, int max, int *out) {
    char allowed[80];
    int exact = 0;
    lua_Integer n = lua_type(d->L, -1) == LUA_TNUMBER ? lua_tointegerx(d->L, -1, &exact) : 0;
    if (exact && n >= min && n <= max) {
        *out = (int)n;
        return 0;
    }
    snprintf(allowed, sizeof allowed, "declare a whole number from %d to %d", min, max);
    return refuse_value(d, field, allowed);
}

static int read_seconds(declaration *d, const char *field, double max, const char *allowed, int64_t *out_ms) {
    double s = lua_type(d->L, -1) == LUA_TNUMBER ? lua_tonumber(d->L, -1) : NAN;
    if (!(s > 0 && s <= max)) return refuse_value(d, field, allowed);
    int64_t ms = llround(s * 1000);
    *out_ms = ms > 0 ? ms : 1;
    return 0;
}

/* ---- One reader a field; the field's value is on top of the stack ---- */

static int read_queue(declaration *d) {
    return is_text(d->L) ? copy_text(d, &d->task->queue) : refuse_value(d, "queue", "declare a name of 1 to 100 bytes");
}

static int read_priority(declaration *d) {
    return read_whole(d, "priority", 0, 100, &d->task->priority);
}

static int read_max_attempts(declaration *d) {
    return read_whole(d, "max_attempts", 1, 1000, &d->task->max_attempts);
}

static int read_timeout(declaration *d) {
    return read_seconds(d, "timeout", TIMEOUT_MAX_S, "declare a number of seconds above 0, up to 604800 (a week)",
                        &d->task->timeout_ms);
}

static int read_memory_limit(declaration *d) {
    int mib = 0;
    int rc = read_whole(d, "memory_limit", 1, MEMORY_MAX_MIB, &mib);
    if (rc == 0) d->task->memory_limit_bytes = (int64_t)mib << 20;
    return rc;
}

static int read_blocking(declaration *d) {
    if (!lua_isboolean(d->L, -1)) return refuse_value(d, "blocking", "declare true or false");
    d->task->blocking = lua_toboolean(d->L, -1);
    return 0;
}

static int read_unique_for(declaration *d) {
    return read_seconds(d, "unique_for", UNIQUE_MAX_S,
                        "declare a number of seconds above 0, up to 315576000 (10 years)", &d->task->unique_for_ms);
}

static int read_tags(declaration *d) {
    d->task->tags_declared = true;
    return read_list(d, "tags", TAGS_MAX, "declare a list of up to 20 strings of 1 to 100 bytes", &d->task->tags,
                     &d->task->tags_count);
}

static int read_backoff(declaration *d) {
    if (!lua_isfunction(d->L, -1)) {
        return refuse_value(d, "backoff", "declare a function that gets the attempt's number and returns seconds");
    }
    d->task->has_backoff = true;
    return 0;
}

static int read_selftest(declaration *d) {
    return lua_isfunction(d->L, -1) ? 0 : refuse_value(d, "selftest", "declare a function that raises when it fails");
}

static int read_unload(declaration *d) {
    return lua_isfunction(d->L, -1) ? 0 : refuse_value(d, "unload", "declare a function");
}

static int read_secret(declaration *d) {
    return read_list(d, "secret", NAMES_MAX, "declare a list of names of arguments", &d->task->secret,
                     &d->task->secret_count);
}

/* read_type reads a declared type such as "integer?" into *arg. The string is on top of the stack. */
static bool read_type(lua_State *L, td_arg *arg) {
    static const char *const types[] = { "string", "number", "integer", "boolean", "object", "array" };
    if (lua_type(L, -1) != LUA_TSTRING) return false;
    size_t len;
    const char *text = lua_tolstring(L, -1, &len);
    arg->optional = len > 0 && text[len - 1] == '?';
    if (arg->optional) len--;
    for (size_t i = 0; i < TD_COUNT(types); i++) {
        if (strlen(types[i]) != len || memcmp(types[i], text, len) != 0) continue;
        arg->type = (int)i;
        return true;
    }
    return false;
}

/* read_arg reads one field of `args`: its name and type are the two values on top of the stack. */
static int read_arg(declaration *d, td_arg *arg) {
    static const char types[] = "declare one of string, number, integer, boolean, object, array, with a ? for optional";
    char field[2 * TEXT_MAX];
    lua_pushvalue(d->L, -2);
    if (!is_text(d->L)) return refuse_value(d, "args", "declare fields by name, such as { user_id = \"string\" }");
    int rc = copy_text(d, &arg->name);
    lua_pop(d->L, 1);
    if (rc < 0) return rc;
    snprintf(field, sizeof field, "args.%s", arg->name);
    return read_type(d->L, arg) ? 0 : refuse_value(d, field, types);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const td_arg *)a)->name, ((const td_arg *)b)->name);
}

static int read_args(declaration *d) {
    lua_State *L = d->L;
    td_task *task = d->task;
    size_t cap = 0;
    if (!lua_istable(L, -1)) return refuse_value(d, "args", "declare a table of names and types");
    task->args_declared = true;
    lua_pushnil(L);
    for (; lua_next(L, -2); lua_pop(L, 1)) {
        if (task->args_count == NAMES_MAX) return refuse(d, "args", "more than %d fields are not allowed", NAMES_MAX);
        if (task->args_count == cap) {
            cap = cap ? cap * 2 : 8;
            td_arg *args = realloc(task->args, cap * sizeof *args);
            if (!args) return td_error_memory(d->err);
            task->args = args;
        }
        td_arg *arg = &task->args[task->args_count++];
        *arg = (td_arg){ 0 };
        int rc = read_arg(d, arg);
        if (rc < 0) return rc;
    }
    if (task->args_count) qsort(task->args, task->args_count, sizeof *task->args, by_name);
    return 0;
}

/* The options, in the order in which they are checked. */
static const struct option {
    const char *name;
    int (*read)(declaration *d);
} options[] = {
    { "queue", read_queue },
    { "priority", read_priority },
    { "max_attempts", read_max_attempts },
    { "timeout", read_timeout },
    { "backoff", read_backoff },
    { "tags", read_tags },
    { "unique_for", read_unique_for },
    { "args", read_args },
    { "secret", read_secret },
    { "selftest", read_selftest },
    { "unload", read_unload },
    { "blocking", read_blocking },
    { "memory_limit", read_memory_limit },
};

/* ---- The contract ---- */

static bool listed(const char *const *words, const char *word) {
    while (*words && strcmp(*words, word) != 0) words++;
    return *words != NULL;
}

/* check_slips refuses a field whose name is nearly, but not quite, one that we would read: most likely a slip that
   would go unnoticed. Functions are compared with what must be a function, so that helpers are left alone. */
static int check_slips(declaration *d) {
    static const char *const functions[] = { "name", "handle", "backoff", "selftest", "unload", NULL };
    static const char *const values[] = { "queue",      "priority", "max_attempts", "timeout",  "tags", "args",
                                          "unique_for", "secret",   "memory_limit", "blocking", NULL };
    lua_State *L = d->L;
    lua_pushnil(L);
    for (; lua_next(L, d->module); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING) continue;
        const char *name = lua_tostring(L, -2);
        if (strlen(name) < 3 || strcmp(name, "new") == 0 || listed(functions, name) || listed(values, name)) continue;
        const char *meant = td_nearest(name, lua_isfunction(L, -1) ? functions : values);
        if (meant) return refuse(d, name, "is nothing that a handler declares; did you mean %s?", meant);
    }
    return 0;
}

/* read_functions checks handle, and calls name(). */
static int read_functions(declaration *d) {
    lua_State *L = d->L;
    if (lua_getfield(L, d->module, "handle") != LUA_TFUNCTION) {
        return refuse_value(d, "handle", "a handler's module has a function handle(ctx, args)");
    }
    if (lua_getfield(L, d->module, "name") != LUA_TFUNCTION) {
        return refuse_value(d, "name", "a handler's module has a function name() that returns the task's name");
    }
    lua_call(L, 0, 1);
    if (!is_text(L)) {
        return refuse_value(d, "name()", "return a name of 1 to 100 bytes of UTF-8 without control characters");
    }
    return copy_text(d, &d->task->name);
}

/* check_secrets wants every secret to be a declared argument. */
static int check_secrets(declaration *d) {
    const td_task *task = d->task;
    for (size_t i = 0; task->args_declared && i < task->secret_count; i++) {
        bool known = false;
        for (size_t k = 0; k < task->args_count; k++) known = known || strcmp(task->args[k].name, task->secret[i]) == 0;
        if (!known) {
            return refuse(d, "secret", "\"%s\" is not allowed; name an argument that args declares", task->secret[i]);
        }
    }
    return 0;
}

int td_declare_read(lua_State *L, const char *dir, const td_file *file, td_task *task, tidemill_error *err) {
    declaration d = { L, lua_gettop(L), dir, file, task, err };
    *task = (td_task){ .priority = TIDEMILL_UNSET_INT,
                       .max_attempts = TIDEMILL_UNSET_INT,
                       .timeout_ms = TIDEMILL_UNSET,
                       .memory_limit_bytes = TIDEMILL_UNSET,
                       .unique_for_ms = TIDEMILL_UNSET };
    luaL_checkstack(L, 10, NULL);
    task->file = td_strdup(file->path);
    if (!task->file) return td_error_memory(err);
    if (!lua_istable(L, -1)) {
        return td_error_set(err, TIDEMILL_EHANDLER,
                            "%s/%s: does not return a table; end it with `return { name = ..., handle = ... }`", dir,
                            file->path);
    }
    int rc = check_slips(&d);
    if (rc == 0) rc = read_functions(&d);
    for (size_t i = 0; rc == 0 && i < TD_COUNT(options); i++) {
        lua_settop(L, d.module);
        if (lua_getfield(L, d.module, options[i].name) != LUA_TNIL) rc = options[i].read(&d);
    }
    if (rc == 0) rc = check_secrets(&d);
    lua_settop(L, d.module);
    return rc;
}

static void free_texts(char **texts, size_t count) {
    for (size_t i = 0; texts && i < count; i++) free(texts[i]);
    free(texts);
}

void td_declare_free(td_task *task) {
    free(task->name);
    free(task->file);
    free(task->queue);
    free_texts(task->tags, task->tags_count);
    free_texts(task->secret, task->secret_count);
    for (size_t i = 0; i < task->args_count; i++) free(task->args[i].name);
    free(task->args);
    *task = (td_task){ 0 };
}
