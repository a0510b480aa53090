/* state.c: one worker's Lua state: how it is made, what is different in it from a plain one, and how it ends.

   No panic function is set: every call into Lua is protected, so a panic would be our defect, and must not be hidden.
 */
#include "private.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

/* Registry keys: the td_state, and the error object that unwinds a handler. A state of somebody else has neither. */
static const char state_key, end_key;

/* ---- The environment ---- */

static int l_exit(lua_State *L) {
    return luaL_error(L, "os.exit is not allowed here; a handler ends by returning or raising an error");
}

/* l_setlocale answers as if the system had no other locale: the real one is shared by all workers. */
static int l_setlocale(lua_State *L) {
    const char *wanted = luaL_optstring(L, 1, NULL);
    if (wanted && strcmp(wanted, "") != 0 && strcmp(wanted, "C") != 0 && strcmp(wanted, "POSIX") != 0)
        lua_pushnil(L);
    else
        lua_pushliteral(L, "C");
    return 1;
}

static int l_print(lua_State *L) {
    (void)L;
    return 0;
}

static int end_text(lua_State *L) {
    lua_pushliteral(L, "this attempt was ended by ctx:snooze, ctx:cancel or ctx:discard");
    return 1;
}

static void make_end_object(lua_State *L) {
    lua_newuserdatauv(L, 0, 0);
    lua_createtable(L, 0, 2);
    lua_pushliteral(L, "tidemill.end");
    lua_setfield(L, -2, "__name");
    lua_pushcfunction(L, end_text);
    lua_setfield(L, -2, "__tostring");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &end_key);
}

static void open_environment(lua_State *L, td_state *state) {
    static const luaL_Reg os[] = { { "exit", l_exit }, { "setlocale", l_setlocale }, { NULL, NULL } };
    lua_pushlightuserdata(L, state);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
    luaL_openlibs(L);
    lua_getglobal(L, "os");
    luaL_setfuncs(L, os, 0);
    lua_pop(L, 1);
    lua_register(L, "print", l_print);
    make_end_object(L);
    td_guard_open(L, state);
    td_environment_open(L, state);
}

/* ---- Making and ending states ---- */

/* What the protected part of td_state_open works on. */
typedef struct opening {
    td_state *state;
    const td_module *modules;
    size_t modules_count;
    const td_file *file; /* the one being loaded */
} opening;

/* keep_functions refers to a task's functions; its module is on top of the stack [-0, +0]. */
static void keep_functions(lua_State *L, td_state_task *kept, const td_task *task) {
    if (!lua_istable(L, -1)) luaL_error(L, "returned %s this time; a handler returns a table", luaL_typename(L, -1));
    if (lua_getfield(L, -1, "handle") != LUA_TFUNCTION) luaL_error(L, "handle is not a function this time");
    kept->handle = luaL_ref(L, LUA_REGISTRYINDEX);
    if (lua_getfield(L, -1, "unload") == LUA_TFUNCTION)
        kept->unload = luaL_ref(L, LUA_REGISTRYINDEX);
    else
        lua_pop(L, 1);
    if (!task->has_backoff) return;
    if (lua_getfield(L, -1, "backoff") != LUA_TFUNCTION) luaL_error(L, "backoff is not a function this time");
    kept->backoff = luaL_ref(L, LUA_REGISTRYINDEX);
}

static int open_state(lua_State *L) {
    opening *o = lua_touserdata(L, 1);
    td_state *state = o->state;
    open_environment(L, state);
    td_loader_open(L, state, o->modules, o->modules_count);
    for (size_t i = 0; i < state->set->tasks_count; i++) {
        const td_task *task = &state->set->tasks[i];
        o->file = td_files_find(&state->set->files, task->file);
        td_loader_require(L, o->file);
        keep_functions(L, &state->tasks[i], task);
        lua_settop(L, 1);
    }
    td_environment_seal(L);
    return 0;
}

/* place_error is td_fault_place, where the state may not be known in the registry yet. */
static int place_error(lua_State *L) {
    return td_state_of(L) ? td_fault_place(L) : 1;
}

td_state *td_state_make(td_handlers *set, size_t memory_limit, _Atomic size_t *total) {
    td_state *state = calloc(1, sizeof *state);
    td_state_task *tasks = calloc(set->tasks_count + 1, sizeof *tasks);
    if (!state || !tasks) {
        free(state);
        free(tasks);
        return NULL;
    }
    for (size_t i = 0; i < set->tasks_count; i++) tasks[i] = (td_state_task){ LUA_NOREF, LUA_NOREF, LUA_NOREF };
    td_arena_init(&state->arena, memory_limit);
    state->arena.total = total;
    td_list_init(&state->owned);
    state->set = td_handlers_ref(set);
    state->tasks = tasks;
    state->tasks_count = set->tasks_count;
    return state;
}

int td_state_open(td_state *state, const td_module *modules, size_t modules_count, tidemill_error *err) {
    opening o = { state, modules, modules_count, NULL };
    lua_State *L = state->L = lua_newstate(td_arena_alloc, &state->arena);
    if (!L) return td_error_memory(err);
    state->running = L;
    state->opening = !state->loading;
    td_interrupt_open(state);
    lua_pushcfunction(L, place_error);
    lua_pushcfunction(L, open_state);
    lua_pushlightuserdata(L, &o);
    int status = lua_pcall(L, 1, 0, 1);
    int rc = status == LUA_OK ? 0 : td_fault_load(L, status, state->set, o.file, err);
    lua_settop(L, 0);
    state->opening = false;
    return rc;
}

int td_state_new(td_handlers *set, const td_module *modules, size_t modules_count, size_t memory_limit,
                 _Atomic size_t *total, td_state **out, tidemill_error *err) {
    td_state *state = td_state_make(set, memory_limit, total);
    if (!state) return td_error_memory(err);
    int rc = td_state_open(state, modules, modules_count, err);
    if (rc < 0)
        td_state_free(state);
    else
        *out = state;
    return rc;
}

void td_state_drop(td_state *state) {
    if (!state) return;
    for (td_list *link; (link = td_list_shift(&state->owned));) {
        td_own *own = td_container(link, td_own, link);
        own->free_fn(own);
    }
    td_arena_destroy(&state->arena);
    td_handlers_unref(state->set);
    free(state->tasks);
    free(state->reason);
    free(state->error);
    free(state->traceback);
    free(state);
}

/* call_unloads calls unload() of the modules that have one. What they raise is nobody's concern any more. */
static void call_unloads(td_state *state) {
    lua_State *L = state->L;
    for (size_t i = 0; i < state->tasks_count; i++) {
        if (state->tasks[i].unload == LUA_NOREF) continue;
        lua_rawgeti(L, LUA_REGISTRYINDEX, state->tasks[i].unload);
        (void)lua_pcall(L, 0, 0, 0);
        lua_settop(L, 0);
    }
}

void td_state_close(td_state *state) {
    state->user = NULL;
    if (state->L) call_unloads(state);
    state->running = NULL; /* a signal must not arm what is freed here, and finalizers run without hooks anyway */
    if (state->L) lua_close(state->L);
    state->L = NULL;
}

void td_state_free(td_state *state) {
    if (!state) return;
    td_state_close(state);
    td_state_drop(state);
}

size_t td_state_memory(const td_state *state) {
    return state->arena.used;
}

size_t td_state_mapped(const td_state *state) {
    return state->arena.mapped;
}

size_t td_state_peak(const td_state *state) {
    return state->arena.peak;
}

void td_state_set_limit(td_state *state, size_t limit) {
    state->arena.limit = limit;
    state->arena.peak = state->arena.used;
}

void td_state_ready(td_state *state) {
    td_environment_reset(state->L, state);
}

bool td_state_finalizes(td_state *state) {
    bool finalizes = state->finalizes;
    state->finalizes = false;
    return finalizes;
}

void td_state_trim(td_state *state) {
    lua_gc(state->L, LUA_GCCOLLECT);
    td_arena_trim(&state->arena);
}

const td_handlers *td_state_handlers(const td_state *state) {
    return state->set;
}

td_state *td_state_of(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
    td_state *state = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return state;
}

void td_state_own(td_state *state, td_own *own, void (*free_fn)(td_own *own)) {
    own->free_fn = free_fn;
    td_list_unshift(&state->owned, &own->link);
}

void td_own_take(td_own *own) {
    td_list_remove(&own->link);
}

void td_state_set_user(td_state *state, void *user) {
    state->user = user;
}

void *td_state_user(const td_state *state) {
    return state->user;
}

/* ---- Ending an attempt from within ---- */

int td_state_end(lua_State *L, td_outcome outcome, const char *reason, size_t reason_len, double delay_s) {
    td_state *state = td_state_of(L);
    if (!state || !(state->calling || state->opening))
        return luaL_error(L, "no attempt is running here that could be ended");
    if (state->ends == state->base) { /* a <close> variable that asks for another end does not change the first */
        td_buf text = { 0 };
        if (reason) td_text_clean(&text, reason, reason_len, TD_ERROR_MAX);
        state->outcome = outcome;
        free(state->reason);
        state->reason = reason ? td_buf_take(&text) : NULL;
        td_buf_free(&text);
        state->delay_s = delay_s;
    }
    state->ends++;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &end_key);
    return lua_error(L);
}
