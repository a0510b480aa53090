/* tidemill.c: the module tidemill of a worker's state: the values that JSON needs (runtime/vm/value.c), and wait. */
#include "libs.h"

#include "failure.h"
#include "ready.h"

#include "../vm/vm.h"

#include <errno.h>
#include <lauxlib.h>
#include <math.h>
#include <string.h>

#define WAIT          "tidemill.wait"
#define TIMEOUT_MAX_S 1e9

/* read_fd returns the descriptor at index 1: a number, or what an object's method getfd says (LuaSocket's). */
static int read_fd(lua_State *L) {
    int whole, type = lua_type(L, 1);
    if (type == LUA_TTABLE || type == LUA_TUSERDATA) {
        if (lua_getfield(L, 1, "getfd") == LUA_TNIL) luaL_argerror(L, 1, "there is no method getfd");
        lua_pushvalue(L, 1);
        lua_call(L, 1, 1);
        lua_replace(L, 1);
    }
    lua_Integer fd = lua_tointegerx(L, 1, &whole);
    if (lua_type(L, 1) != LUA_TNUMBER || !whole)
        luaL_argerror(L, 1, "a descriptor, or an object with getfd, is expected");
    return fd < 0 || fd > INT_MAX ? -1 : (int)fd;
}

/* read_deadline returns when to give up, by the seconds at index 3. */
static uint64_t read_deadline(lua_State *L) {
    if (lua_isnoneornil(L, 3)) return UINT64_MAX;
    double seconds = luaL_checknumber(L, 3);
    if (!(seconds >= 0 && seconds <= TIMEOUT_MAX_S)) luaL_argerror(L, 3, "a number of seconds, 0 or more, is expected");
    return td_now_ns() + (uint64_t)(seconds * 1e9);
}

/* wait(fd, mode, timeout): waits until a descriptor can be read ("r", unless given), written ("w") or either ("rw")
   without blocking, or is at its end or broken, without holding the thread. fd is a number, or an object with a method
   getfd. timeout is in seconds, none unless given; 0 only asks. Returns true and what is possible ("r", "w", "rw"); or
   nil, message, code: timeout, io (it is not open, say), memory. It changes nothing about the descriptor: who reads it
   afterwards may find that somebody else was faster, so it should be non-blocking. */
static int l_wait(lua_State *L) {
    static const char *const modes[] = { "r", "w", "rw", NULL };
    static const int events[] = { UV_READABLE, UV_WRITABLE, UV_READABLE | UV_WRITABLE };
    tidemill_error err;
    td_failure failure;
    td_failure_outside(L, WAIT);
    int mode = luaL_checkoption(L, 2, "r", modes), fd = read_fd(L);
    int ready = td_ready_wait(fd, events[mode], read_deadline(L), &err);
    if (ready < 0) {
        td_failure_error(&failure, &err);
        return td_failure_push(L, &failure);
    }
    lua_pushboolean(L, true);
    lua_pushstring(L, ready == UV_READABLE ? "r" : ready == UV_WRITABLE ? "w" : "rw");
    return 2;
}

int td_tidemill_open(lua_State *L) {
    td_value_open(L);
    lua_pushcfunction(L, l_wait);
    lua_setfield(L, -2, "wait");
    return 1;
}
