/* handlers.c: a set of handlers: a directory's files and the tasks they declare, as they were at one time.

   Loading keeps nothing outside the set and the scratch state, so several may go on at once. */
#include "private.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

/* Memory of the scratch state in which the modules are run to read their declarations. */
enum { SCRATCH_MAX = 256 << 20 };

/* What the protected part of loading works on. */
typedef struct loading {
    td_handlers *set;
    const td_file *file; /* the one being loaded */
    tidemill_error *err;
    int rc;
} loading;

static td_handlers *new_set(const char *dir) {
    td_handlers *set = calloc(1, sizeof *set);
    if (!set) return NULL;
    atomic_init(&set->refs, 1);
    set->dir = td_strdup(dir);
    if (!set->dir) {
        free(set);
        return NULL;
    }
    for (size_t len = strlen(set->dir); len > 1 && set->dir[len - 1] == '/'; len--) set->dir[len - 1] = '\0';
    return set;
}

/* check_names refuses files that `require` could not tell from Lua's and our own modules, or from a folder. */
static int check_names(lua_State *L, const td_handlers *set, tidemill_error *err) {
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    for (size_t i = 0; i < set->files.count; i++) {
        const td_file *file = &set->files.list[i];
        size_t len = strlen(file->path) - strlen(".lua");
        if (file->handler && memchr(file->path, '.', len)) {
            return td_error_set(err, TIDEMILL_EHANDLER,
                                "%s/%s: has a dot in its name, which means a folder to require; rename the file",
                                set->dir, file->path);
        }
        const char *name = luaL_gsub(L, lua_pushlstring(L, file->path, len), "/", ".");
        bool taken = lua_getfield(L, 2, name) != LUA_TNIL || lua_getfield(L, 3, name) != LUA_TNIL;
        if (taken) {
            return td_error_set(err, TIDEMILL_EHANDLER,
                                "%s/%s: require \"%s\" already means a module of Lua or Tidemill; rename the file",
                                set->dir, file->path, name);
        }
        lua_settop(L, 3);
    }
    lua_settop(L, 1);
    return 0;
}

/* load_tasks(loading) runs each handler's module and reads what it declares. */
static int load_tasks(lua_State *L) {
    loading *l = lua_touserdata(L, 1);
    td_handlers *set = l->set;
    l->rc = check_names(L, set, l->err);
    for (size_t i = 0; l->rc == 0 && i < set->files.count; i++) {
        l->file = &set->files.list[i];
        if (!l->file->handler) continue;
        td_loader_require(L, l->file);
        l->rc = td_declare_read(L, set->dir, l->file, &set->tasks[set->tasks_count++], l->err);
        lua_settop(L, 1);
    }
    return 0;
}

/* run_scratch makes the scratch state and loads the tasks in it. */
static int run_scratch(td_handlers *set, const td_module *modules, size_t modules_count, tidemill_error *err) {
    td_state *scratch = NULL;
    loading l = { set, NULL, err, 0 };
    size_t handlers = 0;
    for (size_t i = 0; i < set->files.count; i++) handlers += set->files.list[i].handler;
    set->tasks = calloc(handlers, sizeof *set->tasks);
    if (!set->tasks) return td_error_memory(err);
    int rc = td_state_new(set, modules, modules_count, SCRATCH_MAX, NULL, &scratch, err);
    if (rc < 0) return rc;
    lua_State *L = scratch->L;
    lua_pushcfunction(L, td_fault_place);
    lua_pushcfunction(L, load_tasks);
    lua_pushlightuserdata(L, &l);
    int status = lua_pcall(L, 1, 0, 1);
    rc = status == LUA_OK ? l.rc : td_fault_load(L, status, set, l.file, err);
    td_state_free(scratch);
    return rc;
}

static int by_name(const void *a, const void *b) {
    const td_task *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : strcmp(x->file, y->file);
}

static int sort_tasks(td_handlers *set, tidemill_error *err) {
    qsort(set->tasks, set->tasks_count, sizeof *set->tasks, by_name);
    for (size_t i = 1; i < set->tasks_count; i++) {
        const td_task *a = &set->tasks[i - 1], *b = &set->tasks[i];
        if (strcmp(a->name, b->name) != 0) continue;
        return td_error_set(err, TIDEMILL_EHANDLER,
                            "%s/%s: name(): \"%s\" is also the name of the task in %s/%s; give each its own", set->dir,
                            b->file, b->name, set->dir, a->file);
    }
    return 0;
}

int td_handlers_load(const char *dir, const td_module *modules, size_t modules_count, td_handlers **out,
                     tidemill_error *err) {
    td_handlers *set = new_set(dir);
    if (!set) return td_error_memory(err);
    int rc = td_files_read(&set->files, set->dir, err);
    if (rc == 0) rc = td_files_compile(&set->files, set->dir, err);
    if (rc == 0) rc = run_scratch(set, modules, modules_count, err);
    if (rc == 0) rc = sort_tasks(set, err);
    if (rc < 0)
        td_handlers_unref(set);
    else
        *out = set;
    return rc;
}

td_handlers *td_handlers_ref(td_handlers *set) {
    atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
    return set;
}

void td_handlers_unref(td_handlers *set) {
    if (!set || atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) > 1) return;
    for (size_t i = 0; i < set->tasks_count; i++) td_declare_free(&set->tasks[i]);
    free(set->tasks);
    td_files_free(&set->files);
    free(set->dir);
    free(set);
}

size_t td_handlers_count(const td_handlers *set) {
    return set->tasks_count;
}

const td_task *td_handlers_task(const td_handlers *set, size_t i) {
    return &set->tasks[i];
}

int td_handlers_find(const td_handlers *set, const char *task) {
    size_t low = 0, high = set->tasks_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(set->tasks[middle].name, task);
        if (order == 0) return (int)middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

const char *td_handlers_hash(const td_handlers *set) {
    return set->files.hash;
}
