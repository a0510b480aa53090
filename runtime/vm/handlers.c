/* handlers.c: a set of handlers: a directory's files and the tasks they declare, as they were at one time.

   Loading keeps nothing outside the set and the scratch state, so several may go on at once. */
#include "private.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

/* Memory of a scratch state: as much as a worker's state has, so that what loads here loads there. */
enum { SCRATCH_MAX = 64 << 20 };

struct td_load {
    td_handlers *set;
    const td_module *modules;
    size_t modules_count;
    td_state *scratch;
    const td_file *file; /* the one being loaded */
    td_preempt preempt;
    tidemill_error *err;
    int rc; /* of the protected part */
};

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

/* run_selftest calls the selftest() of the module on top of the stack, if it has one [-0, +0]. */
static int run_selftest(lua_State *L, const td_load *l) {
    int top = lua_gettop(L);
    if (lua_getfield(L, top, "selftest") != LUA_TFUNCTION) {
        lua_settop(L, top);
        return 0;
    }
    lua_call(L, 0, 2);
    bool failed = !lua_isnil(L, -1) || (lua_isboolean(L, -2) && !lua_toboolean(L, -2));
    td_buf why = { 0 };
    if (failed && !lua_isnil(L, -1)) td_fault_text(L, -1, &why);
    int rc = !failed ? 0
                     : td_error_set(l->err, TIDEMILL_EHANDLER, "%s/%s: selftest failed: %s", l->set->dir, l->file->path,
                                    why.data ? why.data : "it returned false");
    td_buf_free(&why);
    lua_settop(L, top);
    return rc;
}

/* load_tasks(load) runs each handler's module, reads what it declares, and then has those that can test themselves. */
static int load_tasks(lua_State *L) {
    td_load *l = lua_touserdata(L, 1);
    td_handlers *set = l->set;
    l->rc = check_names(L, set, l->err);
    for (size_t i = 0; l->rc == 0 && i < set->files.count; i++) {
        l->file = &set->files.list[i];
        if (!l->file->handler) continue;
        td_loader_require(L, l->file);
        l->rc = td_declare_read(L, set->dir, l->file, &set->tasks[set->tasks_count++], l->err);
        lua_settop(L, 1);
    }
    for (size_t i = 0; l->rc == 0 && i < set->files.count; i++) {
        l->file = &set->files.list[i];
        if (!l->file->handler) continue;
        td_loader_require(L, l->file);
        l->rc = run_selftest(L, l);
        lua_settop(L, 1);
    }
    return 0;
}

/* open_scratch makes a scratch state; from then on the fiber that loads it is preempted. */
static int open_scratch(td_load *l, tidemill_error *err) {
    l->scratch = td_state_make(l->set, SCRATCH_MAX, NULL);
    if (!l->scratch) return td_error_memory(err);
    td_fiber *self = td_fiber_self();
    l->scratch->loading = true;
    td_state_preempt(&l->preempt);
    if (self) td_fiber_set_preempt(self, &l->preempt, l->scratch);
    return td_state_open(l->scratch, l->modules, l->modules_count, err);
}

/* close_scratch ends it. */
static void close_scratch(td_load *l) {
    td_fiber *self = td_fiber_self();
    td_state_close(l->scratch);
    if (self) td_fiber_set_preempt(self, NULL, NULL);
    td_state_drop(l->scratch);
    l->scratch = NULL;
}

/* run_scratch loads the tasks in a scratch state. */
static int run_scratch(td_load *l, tidemill_error *err) {
    td_handlers *set = l->set;
    size_t handlers = 0;
    for (size_t i = 0; i < set->files.count; i++) handlers += set->files.list[i].handler;
    set->tasks = calloc(handlers + 1, sizeof *set->tasks);
    int rc = set->tasks ? open_scratch(l, err) : td_error_memory(err);
    if (rc == 0) {
        lua_State *L = l->scratch->L;
        l->err = err;
        lua_pushcfunction(L, td_fault_place);
        lua_pushcfunction(L, load_tasks);
        lua_pushlightuserdata(L, l);
        int status = lua_pcall(L, 1, 0, 1);
        rc = status == LUA_OK ? l->rc : td_fault_load(L, status, l->set, l->file, err);
    }
    if (l->scratch) close_scratch(l);
    return rc;
}

/* try_state makes and ends one state as a worker's is, with the tasks in their order: what depends on who loads first,
   or works once only, is found here and not by jobs. */
static int try_state(td_load *l, tidemill_error *err) {
    l->file = NULL;
    int rc = open_scratch(l, err);
    if (l->scratch) close_scratch(l);
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

td_load *td_load_new(const char *dir, const td_module *modules, size_t modules_count) {
    td_load *load = calloc(1, sizeof *load);
    if (!load) return NULL;
    load->modules = modules;
    load->modules_count = modules_count;
    load->set = new_set(dir);
    if (load->set) return load;
    free(load);
    return NULL;
}

int td_load_run(td_load *load, tidemill_error *err) {
    td_handlers *set = load->set;
    int rc = td_files_read(&set->files, set->dir, err);
    if (rc == 0) rc = td_files_compile(&set->files, set->dir, err);
    if (rc == 0) rc = run_scratch(load, err);
    if (rc == 0) rc = sort_tasks(set, err);
    if (rc == 0) rc = try_state(load, err);
    return rc;
}

td_handlers *td_load_take(td_load *load) {
    td_handlers *set = load->set;
    load->set = NULL;
    return set;
}

void td_load_stop(td_load *load, const char *reason) {
    if (load->scratch) td_state_stop(load->scratch, TD_TIMEOUT, reason);
}

const char *td_load_file(const td_load *load) {
    return load->file ? load->file->path : "";
}

void td_load_free(td_load *load) {
    if (!load) return;
    td_state_drop(load->scratch);
    td_handlers_unref(load->set);
    free(load);
}

int td_handlers_load(const char *dir, const td_module *modules, size_t modules_count, td_handlers **out,
                     tidemill_error *err) {
    td_load *load = td_load_new(dir, modules, modules_count);
    int rc = load ? td_load_run(load, err) : td_error_memory(err);
    if (rc == 0) *out = td_load_take(load);
    td_load_free(load);
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

/* say_change appends one file to the list of those that differ. */
static void say_change(td_buf *b, const char *path, const char *how) {
    td_buf_printf(b, "%s%s%s", b->len ? ", " : "", path, how);
}

void td_handlers_changes(const td_handlers *from, const td_handlers *to, td_buf *b) {
    const td_files *old = &from->files, *new = &to->files;
    for (size_t i = 0, j = 0; i < old->count || j < new->count;) {
        int order = i == old->count ? 1 : j == new->count ? -1 : strcmp(old->list[i].path, new->list[j].path);
        if (order < 0) say_change(b, old->list[i].path, " (gone)");
        if (order > 0) say_change(b, new->list[j].path, " (new)");
        if (order == 0 && old->list[i].hash != new->list[j].hash) say_change(b, new->list[j].path, "");
        i += order <= 0;
        j += order >= 0;
    }
}

const char *td_handlers_hash(const td_handlers *set) {
    return set->files.hash;
}
