/* private.h: what the files of vm share. */
#ifndef TD_VM_PRIVATE_H
#define TD_VM_PRIVATE_H

#include "arena.h"
#include "files.h"
#include "vm.h"

#include <stdatomic.h>

/* ---- Handler sets ---- */

struct td_handlers {
    atomic_uint refs;
    char *dir; /* as the user gave it */
    td_files files;
    td_task *tasks; /* sorted by name */
    size_t tasks_count;
};

/* td_declare_read checks the module on top of the stack against the contract, and fills *task, which is {0} before
   and to be freed by td_declare_free also after a failure. May raise (in what the module does itself).
   Errors: HANDLER with "dir/file: field: value is not allowed; ...". */
int td_declare_read(lua_State *L, const char *dir, const td_file *file, td_task *task,
                    tidemill_error *err) TD_MUST_CHECK;
void td_declare_free(td_task *task);

/* ---- States ---- */

/* What a state keeps of a task of its set: registry references to its functions (LUA_NOREF: it has no such). */
typedef struct td_state_task {
    int handle, backoff, unload;
} td_state_task;

struct td_state {
    td_arena arena;
    lua_State *L;
    td_handlers *set;     /* counted */
    td_state_task *tasks; /* as many as the set had when the state was made (none, while the set is loaded) */
    size_t tasks_count;
    void *user;
    td_list owned; /* td_own */

    /* The end that a handler asked for (td_state_end). ends counts them for ever; base is its value when the current
       call began. While ends > base the handler is being unwound, and a protected call that was entered before passes
       the error on. */
    intptr_t ends, base;
    bool calling; /* in handle */
    td_outcome outcome;
    char *reason; /* malloc'd clean text, or NULL */
    double delay_s;

    /* Interruption (interrupt.c). */
    lua_State *volatile running; /* the coroutine that runs, for arming its hook */
    bool opening;                /* handlers are being loaded */
    bool ticking;                /* the hook is always on, since no signal will arm it */
    uint64_t ticked_ns;
    bool loading;  /* it is the scratch state of a load */
    bool stopping; /* the call is to end as stop says, at its next instruction */
    td_outcome stop_outcome;
    const char *stop_reason; /* static */

    bool finalizes; /* a table got a finalizer */
    bool seeded;    /* the random numbers' seed was chosen */

    /* What the message handler of the current call captured, or the end by a stop: malloc'd clean text. */
    char *error, *traceback;
    bool capturing; /* in the message handler; still true afterwards when that ran out of memory */
};

/* td_state_ending says whether an end was asked for since a protected call noted `entered` (td_state's ends then). */
static inline bool td_state_ending(const td_state *state, intptr_t entered) {
    return state->ends > state->base && state->ends > entered;
}

/* ---- Pieces of the Lua environment, each of which may raise ---- */

/* td_guard_open replaces pcall, xpcall, and the functions of coroutine that catch errors [-0, +0]. */
void td_guard_open(lua_State *L, td_state *state);

/* td_loader_open makes `require` find the modules given and the set's files, and load, loadfile, dofile and require
   accept source text only [-0, +0]. */
void td_loader_open(lua_State *L, td_state *state, const td_module *modules, size_t modules_count);

/* td_loader_require pushes the module of a file in the set, as `require` does [-0, +1]. */
void td_loader_require(lua_State *L, const td_file *file);

/* td_environment_seal makes what the globals and the standard library's tables hold now what every job begins with
   [-0, +0]. td_environment_reset takes out what a job put there; raises nothing. */
void td_environment_open(lua_State *L, td_state *state);
void td_environment_seal(lua_State *L);
void td_environment_reset(lua_State *L, td_state *state);

/* td_interrupt_open begins to tick where no signal will interrupt the state. td_interrupt_again has a coroutine that
   begins or goes on end the call, too, if it is to be ended. */
void td_interrupt_open(td_state *state);
void td_interrupt_again(td_state *state);

/* ---- What went wrong, as text ---- */

/* td_trace_add appends where the thread L is, from a level on (0: the function that runs): clean text of several lines.
   L may belong to a state that does not run. Raises nothing. */
void td_trace_add(lua_State *L, int first, td_buf *b);

enum { TD_ERROR_MAX = 8 << 10, TD_TRACEBACK_MAX = 16 << 10 };

/* td_fault_text appends the error object at idx as clean text: a string as it is, else what __tostring or a field
   `message` says, else "(error object is a table value)". Calls Lua, but raises nothing. */
void td_fault_text(lua_State *L, int idx, td_buf *b);

/* td_fault_value writes a value as a message shows it ("\"text\"", "12", "a table") into out. Raises nothing. */
enum { TD_FAULT_VALUE = 200 };
void td_fault_value(lua_State *L, int idx, char out[TD_FAULT_VALUE]);

/* td_fault_handler is the message handler of calls into handlers: captures text and traceback in the state. */
int td_fault_handler(lua_State *L);

/* td_fault_place is the message handler while modules load: turns the error object into text that begins with a file
   and line of the set, if one is known. */
int td_fault_place(lua_State *L);

/* td_fault_load sets *err from the error that td_fault_place left on top of the stack: "dir/file:line: reason". */
int td_fault_load(lua_State *L, int status, const td_handlers *set, const td_file *file, tidemill_error *err);

/* td_fault_bytes appends a number of bytes in the unit that fits ("64 MiB"). */
void td_fault_bytes(td_buf *b, size_t bytes);

/* ---- Arguments ---- */

/* td_args_check compares the decoded arguments at idx with the task's declaration. Returns true, or false with
   "args.field: ..." appended to b. May raise for want of memory, before it touches b. */
bool td_args_check(lua_State *L, int idx, const td_task *task, td_buf *b);

#endif
