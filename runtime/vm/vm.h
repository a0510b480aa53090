/* vm.h: all of the Lua machinery: handler sets, worker states, values across the boundary.

   A handler set (td_handlers) is what was read from a directory at one time: every file's bytes, compiled once, and
   each task's checked declaration. It is immutable and counted, and may be used by any thread.
   A state (td_state) is one worker: a Lua state in an arena of its own, made from a set; used by one fiber at a time.
   Between two states only bytes cross. */
#ifndef TD_VM_H
#define TD_VM_H

#include "../loop/preempt.h"

#include <lua.h>
#include <stdatomic.h>

/* ---- Modules that the layers above add to each state: name as required, and its opener ([-0, +1]), which is called by
   the first require. With name NULL it is called when the state is made (before any handler), for what it changes
   in there, such as the global print (which writes nowhere until somebody replaces it). ---- */
typedef struct td_module {
    const char *name;
    lua_CFunction open;
} td_module;

/* ---- Handler sets ---- */

enum { TD_ARG_STRING, TD_ARG_NUMBER, TD_ARG_INTEGER, TD_ARG_BOOLEAN, TD_ARG_OBJECT, TD_ARG_ARRAY };

typedef struct td_arg {
    char *name;
    int type; /* TD_ARG_... */
    bool optional;
} td_arg;

/* A task as its module declares it; what was not declared is NULL, or TIDEMILL_UNSET(_INT), or a count of 0. */
typedef struct td_task {
    char *name;
    char *file; /* relative to the directory, "send_welcome_email.lua" */
    char *queue;
    int priority, max_attempts;
    int64_t timeout_ms, unique_for_ms;
    int64_t memory_limit_bytes; /* TIDEMILL_UNSET: not declared */
    bool blocking;
    char **tags;
    size_t tags_count;
    bool tags_declared;
    td_arg *args;
    size_t args_count;
    bool args_declared;
    char **secret;
    size_t secret_count;
    bool has_backoff;
} td_task;

typedef struct td_handlers td_handlers;

/* td_handlers_load reads every *.lua file below dir, compiles them, runs the top-level ones in a scratch state that has
   the given modules, and checks contract and declarations. Files directly in dir are handlers; those in folders
   are modules, required by their path ("lib.mailer"). *set is counted once for the caller.
   Errors: HANDLER with "file:line: reason" (field and value named where it is about a declaration), IO, MEMORY. */
int td_handlers_load(const char *dir, const td_module *modules, size_t modules_count, td_handlers **set,
                     tidemill_error *err) TD_MUST_CHECK;
/* A load under way, for who runs it on a fiber, and may have to cut that off. */
typedef struct td_load td_load;

/* td_load_new begins one; NULL without memory. td_load_run does what td_handlers_load does, to its end, with the fiber
   that it runs on preempted as a job's is. td_load_take returns the set that came of it, counted once for the caller.
   td_load_stop has the file that is being loaded fail for a reason (static), where it is: from the loop, while the
   fiber does not run. td_load_file is the path of the file that is being loaded ("" when none is). td_load_free ends a
   load that does not run, whether it was run to its end or its fiber was dropped; NULL is allowed. */
td_load *td_load_new(const char *dir, const td_module *modules, size_t modules_count);
int td_load_run(td_load *load, tidemill_error *err) TD_MUST_CHECK;
td_handlers *td_load_take(td_load *load);
void td_load_stop(td_load *load, const char *reason);
const char *td_load_file(const td_load *load);
void td_load_free(td_load *load);

td_handlers *td_handlers_ref(td_handlers *set);
void td_handlers_unref(td_handlers *set);
size_t td_handlers_count(const td_handlers *set);
const td_task *td_handlers_task(const td_handlers *set, size_t i);
/* td_handlers_find returns the task's number, or -1. */
int td_handlers_find(const td_handlers *set, const char *task);
/* td_handlers_hash: a short hexadecimal hash of all files' names and bytes. */
const char *td_handlers_hash(const td_handlers *set);
/* td_handlers_changes appends which files differ between two sets: "greet.lua, lib/old.lua (gone), lib/new.lua (new)".
 */
void td_handlers_changes(const td_handlers *from, const td_handlers *to, td_buf *b);

/* ---- States ---- */

typedef struct td_state td_state;

/* td_state_new makes a worker's state: libraries, modules, and every handler of the set instantiated.
   memory_limit is the arena's cap in bytes (0: none). What states map from the system is added to *total, if that is
   not NULL: any number of states of any threads may share one. */
int td_state_new(td_handlers *set, const td_module *modules, size_t modules_count, size_t memory_limit,
                 _Atomic size_t *total, td_state **state, tidemill_error *err) TD_MUST_CHECK;
/* The two halves of td_state_new, for who runs the second where it can be interrupted: td_state_make makes a state that
   has no Lua yet (NULL without memory), td_state_open adds that, and runs the handlers' top level. After an error of
   it, the state is to be freed. */
td_state *td_state_make(td_handlers *set, size_t memory_limit, _Atomic size_t *total) TD_MUST_CHECK;
int td_state_open(td_state *state, const td_module *modules, size_t modules_count, tidemill_error *err) TD_MUST_CHECK;
/* td_state_ready takes out what the last job left in the globals and the standard library's tables: to be called before
   each job. */
void td_state_ready(td_state *state);
/* td_state_free closes it (finalizers run); td_state_drop gives the arena back as it is, for a state that was cut off.
 */
void td_state_free(td_state *state);
/* td_state_close is its first part: the finalizers run. What is left is for td_state_drop. */
void td_state_close(td_state *state);
void td_state_drop(td_state *state);
/* td_state_memory: bytes in use by Lua now; td_state_mapped: what the arena has from the system for that;
   td_state_peak: the most that was in use since td_state_set_limit, which sets the cap for the job to come. */
size_t td_state_memory(const td_state *state);
size_t td_state_mapped(const td_state *state);
size_t td_state_peak(const td_state *state);
void td_state_set_limit(td_state *state, size_t limit);
/* td_state_trim collects all garbage and gives what is free back to the system: for an idle state that a job has left
   with much more mapped than a new one has. A call that met the memory limit has done so by itself. */
void td_state_trim(td_state *state);
/* td_state_finalizes says whether a table has got a finalizer (__gc) since it was last asked. One that is still to run
   would run in the time of a later job. */
bool td_state_finalizes(td_state *state);
const td_handlers *td_state_handlers(const td_state *state);
/* td_state_of returns the state that L belongs to; NULL when L is not one of ours (a plain lua5.4). */
td_state *td_state_of(lua_State *L);
/* The object of the layer above that a state serves at the moment (ctx sets the running job here). */
void td_state_set_user(td_state *state, void *user);
void *td_state_user(const td_state *state);

/* What a state owns beyond its Lua memory (an open file). Embedded in a heap structure, which free_fn frees: it runs
   when the state is freed or dropped, on that thread, the last owned first, and may not call Lua. */
typedef struct td_own {
    td_list link;
    void (*free_fn)(struct td_own *own);
} td_own;

/* td_state_own gives a record to a state; td_own_take takes it back (without freeing it). */
void td_state_own(td_state *state, td_own *own, void (*free_fn)(td_own *own));
void td_own_take(td_own *own);

/* How an attempt ended. */
typedef enum td_outcome {
    TD_COMPLETED,
    TD_FAILED,
    TD_TIMEOUT,
    TD_MEMORY,
    TD_CANCELLED,
    TD_DISCARDED,
    TD_SNOOZED,
    TD_LOST,
    TD_RETURNED
} td_outcome;

/* td_outcome_name returns "completed", ... as in the view tidemill.attempts. */
const char *td_outcome_name(td_outcome outcome);

/* What came of one call of a handler. The strings are malloc'd, freed by td_result_free, and NULL where there is
   nothing to say (or no memory to say it in). */
typedef struct td_result {
    td_outcome outcome;
    char *error;     /* message, or the reason given to cancel and discard; clean text, at most 8 KiB */
    char *traceback; /* clean text, at most 16 KiB */
    char *result;    /* JSON, at most 64 KiB */
    char *warning;   /* something to log: a result not kept, a second value ignored */
    double delay_s;  /* of a snooze; or of a retry by the task's backoff(attempt); below 0: not given */
    bool decided;    /* outcome and error are known; what may follow is only the backoff */
    bool permanent;  /* TD_DISCARDED by us: arguments that do not fit the declaration */
} td_result;
void td_result_free(td_result *result);

/* td_state_call runs task's handle(ctx, args) to its end in a protected call, with a traceback. push_ctx returns ctx;
   it is called with push_arg as a light userdata, and may raise (NULL: ctx is nil). args_json is decoded and checked
   against the declaration first. attempt is given to backoff when the attempt failed. Afterwards the Lua stack is as
   before. Always fills *result. */
void td_state_call(td_state *state, int task, const char *args_json, size_t args_len, int attempt,
                   lua_CFunction push_ctx, void *push_arg, td_result *result);

/* ---- Interrupting ---- */

/* td_state_preempt tells how a fiber that runs a state is interrupted: td_fiber_set_preempt(fiber, preempt, state).
   Where no signals come (td_preempt_opened is false when the state is opened, or td_state_tick was called before), a
   state gives way by itself, at a cost. */
void td_state_preempt(td_preempt *preempt);
void td_state_tick(td_state *state);

/* td_state_stop has the running call, or td_state_open, end as outcome says, with reason (static, may be NULL) as its
   error and a traceback of where it was, at the next Lua instruction. As after td_state_end, a pcall does not stop
   that. From the loop, while the state's fiber does not run. A call that ends by itself before is not changed. */
void td_state_stop(td_state *state, td_outcome outcome, const char *reason);

/* td_state_check raises the end of a call that is being stopped, for a C function whose wait was cut short by that:
   then the first thing to run is the handler's own <close> variable. Returns where none is. */
void td_state_check(lua_State *L);

/* td_state_trace appends where the running call, or the loading of the handlers, is. From the loop, while the state's
   fiber does not run; torn (see td_fiber_torn): the innermost function is left out, since it may be half called. */
void td_state_trace(const td_state *state, bool torn, td_buf *b);

/* td_state_end is what ctx:snooze, ctx:cancel and ctx:discard do: it sets how the attempt ends and unwinds the handler.
   The state's own pcall, xpcall, coroutine.resume and wrap do not stop it. Does not return (raises).
   reason may be NULL and is copied first. */
int td_state_end(lua_State *L, td_outcome outcome, const char *reason, size_t reason_len, double delay_s);

/* ---- Values (value.c is also compiled into the Lua binding, which links no liblua) ---- */

/* td_value_push decodes JSON text and pushes it [-0, +1]. Integers that fit 64 bits become integers, all other numbers
   floats; null becomes tidemill.null (== cjson.null); arrays get the array metatable. Raises a Lua error for bad JSON,
   nesting beyond 100, or a number beyond the range of a double. */
void td_value_push(lua_State *L, const char *json, size_t len);

/* td_value_encode appends the value at idx to b as JSON, at most TD_VALUE_MAX bytes of it. It raises nothing, allocates
   no Lua memory and calls no metamethod, so b may be an ordinary local; of a table with a metatable of its own, the raw
   contents are written. Returns NULL, or a message (in message, a caller's buffer of 256 bytes) that names what cannot
   be represented and where (e.g. "args.user.score: NaN has no JSON form"); b then holds part of the text. path is
   the word to begin with ("args", "result"). Without memory b->failed is set besides. */
const char *td_value_encode(lua_State *L, int idx, td_buf *b, const char *path, char message[256]);
/* td_value_encode_max is td_value_encode with a bound of the caller's, exceeding which is refused. */
const char *td_value_encode_max(lua_State *L, int idx, td_buf *b, const char *path, size_t max, char message[256]);
enum { TD_VALUE_MAX = 256 << 20 };

/* td_value_is_array says whether the value at idx is a table marked as an array. Raises nothing; needs two free slots.
 */
bool td_value_is_array(lua_State *L, int idx);

/* td_value_open pushes a table with null, array, is_array (for require "tidemill") [-0, +1]. */
int td_value_open(lua_State *L);

#endif
