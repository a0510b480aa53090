/* interrupt.c: a state that runs is made to give way, or to end its call.

   Both happen in a hook that fires at the next Lua instruction, when the interpreter's structures are whole. No hook is
   set while a handler runs undisturbed: armed, it makes Lua up to 2.4 times slower. A signal's handler arms it (see
   loop/preempt.h), or td_state_stop does. Only where there will be no signals, it is always on, and looks at the clock:
   then what no hook reaches cannot be ended, such as a loop in C, in a finalizer, or in xpcall's message handler when
   it is called for the end that a hook raises. */
#include "private.h"

#include <dlfcn.h>
#include <lauxlib.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

enum { TICK = 1000 /* instructions */ };

/* ---- The hook ---- */

static void on_hook(lua_State *L, lua_Debug *ar);

/* end_call ends the call as td_state_stop said. Does not return (raises). */
static void end_call(lua_State *L, td_state *state) {
    td_buf text = { 0 };
    td_nopreempt_enter();
    td_trace_add(L, 0, &text);
    free(state->traceback);
    state->traceback = td_buf_take(&text);
    td_nopreempt_leave();
    size_t len = state->stop_reason ? strlen(state->stop_reason) : 0;
    td_state_end(L, state->stop_outcome, state->stop_reason, len, -1);
}

/* end_load raises why a load is to end, at each instruction from now on: no pcall stops that. */
static void end_load(lua_State *L, td_state *state) {
    lua_sethook(L, on_hook, LUA_MASKCOUNT, 1);
    luaL_error(L, "%s", state->stop_reason);
}

/* its_turn_is_over says whether a state that ticks has run for a quantum. */
static bool its_turn_is_over(td_state *state) {
    uint64_t now_ns = td_now_ns();
    if (now_ns - state->ticked_ns < TD_QUANTUM_MS * UINT64_C(1000000)) return false;
    state->ticked_ns = now_ns;
    return true;
}

static bool to_be_ended(const td_state *state) {
    return state->stopping && (state->calling || state->opening) && state->ends == state->base;
}

void td_state_check(lua_State *L) {
    td_state *state = td_state_of(L);
    if (state && to_be_ended(state)) end_call(L, state);
}

static void on_hook(lua_State *L, lua_Debug *ar) {
    (void)ar;
    td_state *state = td_state_of(L);
    if (!state->ticking) lua_sethook(L, NULL, 0, 0);
    if (to_be_ended(state)) end_call(L, state);
    if (state->stopping && state->loading) end_load(L, state);
    if (td_fiber_self() && (!state->ticking || its_turn_is_over(state))) td_fiber_yield();
}

/* arm has the hook fire at the next instruction. Async-signal-safe, as in Lua's own interpreter. */
static void arm(void *arg) {
    td_state *state = arg;
    lua_State *running = state->running;
    if (running) lua_sethook(running, on_hook, LUA_MASKCOUNT, 1);
}

void td_interrupt_again(td_state *state) {
    if (state->stopping) arm(state);
}

void td_state_tick(td_state *state) {
    state->ticking = true;
}

void td_interrupt_open(td_state *state) {
    if (!td_preempt_opened()) state->ticking = true;
    if (state->ticking) lua_sethook(state->L, on_hook, LUA_MASKCOUNT, TICK);
}

/* ---- From outside ---- */

/* find_text finds the executable segment of the object that has Lua's functions in it. */
static int find_text(struct dl_phdr_info *info, size_t size, void *arg) {
    (void)size;
    td_preempt *preempt = arg;
    /* What dlsym finds is the function itself; &lua_pcallk may be a stub in the program. */
    uintptr_t lua = (uintptr_t)dlsym(RTLD_DEFAULT, "lua_pcallk"), own = (uintptr_t)&find_text;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t low = info->dlpi_addr + segment->p_vaddr, high = low + segment->p_memsz;
        if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X) || lua < low || lua >= high) continue;
        if (own >= low && own < high)
            return 1; /* Lua was linked in with everything else: no code is known to be safe */
        preempt->low = low;
        preempt->high = high;
        return 1;
    }
    return 0;
}

void td_state_preempt(td_preempt *preempt) {
    *preempt = (td_preempt){ .arm = arm };
    dl_iterate_phdr(find_text, preempt);
}

void td_state_stop(td_state *state, td_outcome outcome, const char *reason) {
    if (state->stopping) return;
    state->stop_outcome = outcome;
    state->stop_reason = reason;
    state->stopping = true;
    arm(state);
}

void td_state_trace(const td_state *state, bool torn, td_buf *b) {
    if (state->traceback && state->ends > state->base) { /* where it was when it was stopped */
        td_buf_puts(b, state->traceback);
        return;
    }
    if (!(state->calling || state->opening) || !state->running) return;
    if (torn) td_buf_puts(b, "(the innermost call is left out: the job was stopped in the middle of it)\n");
    td_trace_add(state->running, torn ? 1 : 0, b);
}
