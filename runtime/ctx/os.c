/* os.c: the functions of Lua's os library that reach the system: execute, remove, rename, tmpname.

   os.execute waits without holding the thread. The shell is in a group of its own, which is killed when the shell has
   ended, or the job. */
#include "libs.h"

#include "child.h"

#include "../loop/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

/* One os.execute, owned by its fiber. */
typedef struct shell {
    td_hold hold;
    td_child child;
    int status, signal;
    td_failure failure;
} shell;

static void shell_free(shell *s) {
    td_child_end(&s->child);
    free(s);
}

static void release(td_hold *hold) {
    shell_free(td_container(hold, shell, hold));
}

static int run(shell *s, const char *text) {
    char *argv[] = { "/bin/sh", "-c", (char *)text, NULL };
    td_command command = { argv, environ, NULL, TD_CHILD_OURS, TD_CHILD_OURS, TD_CHILD_OURS };
    int rc = td_child_start(&s->child, &command, &s->failure);
    if (rc == 0) rc = td_child_wait(&s->child, UINT64_MAX, &s->failure);
    return rc < 0 ? rc : td_child_reap(&s->child, &s->status, &s->signal, &s->failure);
}

int td_os_result(lua_State *L, int status, int signal) {
    if (!signal && status == 0)
        lua_pushboolean(L, 1);
    else
        luaL_pushfail(L);
    lua_pushstring(L, signal ? "signal" : "exit");
    lua_pushinteger(L, signal ? signal : status);
    return 3;
}

static int l_execute(lua_State *L) {
    const char *text = luaL_optstring(L, 1, NULL);
    if (!text) {
        lua_pushboolean(L, 1); /* there is a shell */
        return 1;
    }
    td_failure_outside(L, "os.execute");
    shell *s = calloc(1, sizeof *s);
    if (!s) {
        errno = ENOMEM;
        return luaL_fileresult(L, 0, NULL);
    }
    td_hold_push(td_fiber_self(), &s->hold, release);
    int rc = run(s, text), status = s->status, signal = s->signal;
    td_failure failure = s->failure;
    td_hold_take(&s->hold);
    shell_free(s);
    if (rc == 0) return td_os_result(L, status, signal);
    luaL_pushfail(L);
    lua_pushstring(L, failure.message);
    lua_pushinteger(L, EIO);
    return 3;
}

static int l_remove(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    return luaL_fileresult(L, remove(path) == 0, path);
}

static int l_rename(lua_State *L) {
    const char *from = luaL_checkstring(L, 1), *to = luaL_checkstring(L, 2);
    return luaL_fileresult(L, rename(from, to) == 0, NULL);
}

static int l_tmpname(lua_State *L) {
    char path[] = "/tmp/lua_XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) return luaL_error(L, "unable to generate a unique filename");
    close(fd);
    lua_pushstring(L, path);
    return 1;
}

int td_os_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "execute", l_execute },
                                          { "remove", l_remove },
                                          { "rename", l_rename },
                                          { "tmpname", l_tmpname },
                                          { NULL, NULL } };
    lua_getglobal(L, LUA_OSLIBNAME);
    luaL_setfuncs(L, functions, 0);
    lua_pop(L, 1);
    return 0;
}
