/* io.c: Lua's io library on streams: what scripts see is what they see of Lua 5.4's, messages included.

   What is different: nothing holds the thread but a disk; io.stdout writes at the end of each call, since many workers
   share it; a program started by io.popen is in a group of its own, which is killed when the file is closed or
   collected, or its worker ends; and a file that is still open when its worker is cut off is closed, without what was
   not yet written.

   A file in Lua is a userdata with a pointer to its stream, NULL when it is closed. The stream is the state's, so that
   it is released without Lua. Between opening and filling in that pointer, no Lua is called. */
#include "libs.h"

#include "reader.h"

#include "../loop/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define METATABLE  "tidemill.file"
#define IO_INPUT   "_IO_input"
#define IO_OUTPUT  "_IO_output"
#define PREFIX_LEN (sizeof "_IO_" - 1)

enum { LINES_MAX = 250 };

extern char **environ;

typedef struct file {
    td_stream *stream;
} file;

/* ---- Files ---- */

static file *to_file(lua_State *L) {
    file *f = luaL_testudata(L, 1, METATABLE);
    if (!f) luaL_typeerror(L, 1, LUA_FILEHANDLE);
    return f;
}

/* check_open returns the stream of the file at index 1, which is open. */
static td_stream *check_open(lua_State *L) {
    file *f = to_file(L);
    if (!f->stream) luaL_error(L, "attempt to use a closed file");
    return f->stream;
}

/* push_file pushes a closed file. */
static file *push_file(lua_State *L) {
    file *f = lua_newuserdatauv(L, sizeof *f, 0);
    f->stream = NULL;
    luaL_setmetatable(L, METATABLE);
    return f;
}

/* result is luaL_fileresult with an error of our own keeping. */
static int result(lua_State *L, bool ok, int error, const char *name) {
    errno = error;
    return luaL_fileresult(L, ok, name);
}

/* stream_result returns true, or what went wrong with the stream. */
static int stream_result(lua_State *L, const td_stream *s, bool ok) {
    return result(L, ok, s->error, NULL);
}

/* open_file opens a pushed file. Returns 0, or an errno. */
static int open_file(lua_State *L, file *f, const char *path, const char *mode) {
    td_stream *s = td_stream_new(td_state_of(L));
    if (!s) return ENOMEM;
    if (td_stream_open(s, path, mode) == 0) {
        f->stream = s;
        return 0;
    }
    int error = s->error;
    td_stream_free(s);
    return error;
}

static bool good_mode(const char *mode) {
    if (*mode == '\0' || !strchr("rwa", *mode++)) return false;
    if (*mode == '+') mode++;
    return strspn(mode, "b") == strlen(mode);
}

static int l_open(lua_State *L) {
    const char *path = luaL_checkstring(L, 1), *mode = luaL_optstring(L, 2, "r");
    luaL_argcheck(L, good_mode(mode), 2, "invalid mode");
    int error = open_file(L, push_file(L), path, mode);
    return error ? result(L, false, error, path) : 1;
}

/* open_or_raise pushes a file that is open, for the functions that raise. */
static void open_or_raise(lua_State *L, const char *path, const char *mode) {
    int error = open_file(L, push_file(L), path, mode);
    if (error) luaL_error(L, "cannot open file '%s' (%s)", path, strerror(error));
}

static int l_tmpfile(lua_State *L) {
    char path[] = "/tmp/lua_XXXXXX";
    file *f = push_file(L);
    td_stream *s = td_stream_new(td_state_of(L));
    if (!s) return result(L, false, ENOMEM, NULL);
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) {
        int error = errno;
        td_stream_free(s);
        return result(L, false, error, NULL);
    }
    unlink(path);
    td_stream_take(s, fd, true, true, false);
    f->stream = s;
    return 1;
}

static int l_type(lua_State *L) {
    luaL_checkany(L, 1);
    file *f = luaL_testudata(L, 1, METATABLE);
    if (!f)
        luaL_pushfail(L);
    else if (!f->stream)
        lua_pushliteral(L, "closed file");
    else
        lua_pushliteral(L, "file");
    return 1;
}

static int f_tostring(lua_State *L) {
    file *f = to_file(L);
    if (f->stream)
        lua_pushfstring(L, "file (%p)", (void *)f->stream);
    else
        lua_pushliteral(L, "file (closed)");
    return 1;
}

/* ---- Closing ---- */

/* close_child ends the program at the other end of a stream that is closed already, and returns as os.execute does. */
static int close_child(lua_State *L, td_stream *s) {
    int status = 0, signal = 0;
    td_failure failure;
    int rc = td_child_wait(&s->child, UINT64_MAX, &failure);
    if (rc == 0) rc = td_child_reap(&s->child, &status, &signal, &failure);
    td_stream_free(s);
    if (rc < 0) return result(L, false, ECHILD, NULL);
    return td_os_result(L, status, signal);
}

/* close_file closes an open file. */
static int close_file(lua_State *L, file *f) {
    td_stream *s = f->stream;
    if (s->shared) {
        luaL_pushfail(L);
        lua_pushliteral(L, "cannot close standard file");
        return 2;
    }
    if (s->piped) td_failure_outside(L, "close");
    f->stream = NULL;
    int rc = td_stream_close(s), error = s->error;
    if (s->piped) return close_child(L, s);
    td_stream_free(s);
    return result(L, rc == 0, error, NULL);
}

static int f_close(lua_State *L) {
    check_open(L);
    return close_file(L, to_file(L));
}

static int l_close(lua_State *L) {
    if (lua_isnone(L, 1)) lua_getfield(L, LUA_REGISTRYINDEX, IO_OUTPUT);
    return f_close(L);
}

/* f_gc writes what is left if that needs no waiting. A program that still runs is not waited for, but killed. */
static int f_gc(lua_State *L) {
    file *f = to_file(L);
    td_stream *s = f->stream;
    if (!s) return 0;
    f->stream = NULL;
    s->hurry = true;
    (void)!(s->shared ? td_stream_flush(s) : td_stream_close(s));
    td_stream_free(s);
    return 0;
}

/* f_toclose is __close: as f_gc, but it waits as f_close does. */
static int f_toclose(lua_State *L) {
    file *f = to_file(L);
    if (!f->stream) return 0;
    if (!td_fiber_self() && f->stream->piped) return f_gc(L);
    (void)close_file(L, f);
    return 0;
}

/* ---- Programs ---- */

static int l_popen(lua_State *L) {
    const char *command = luaL_checkstring(L, 1), *mode = luaL_optstring(L, 2, "r");
    luaL_argcheck(L, (mode[0] == 'r' || mode[0] == 'w') && mode[1] == '\0', 2, "invalid mode");
    td_failure_outside(L, "io.popen");
    file *f = push_file(L);
    bool reads = mode[0] == 'r';
    char *argv[] = { "/bin/sh", "-c", (char *)command, NULL };
    td_command how = {
        argv, environ, NULL, reads ? TD_CHILD_OURS : TD_CHILD_PIPE, reads ? TD_CHILD_PIPE : TD_CHILD_OURS, TD_CHILD_OURS
    };
    td_failure failure;
    td_stream *s = td_stream_new(td_state_of(L));
    if (!s) return result(L, false, ENOMEM, command);
    if (td_child_start(&s->child, &how, &failure) < 0) {
        td_stream_free(s);
        return result(L, false, strcmp(failure.code, "memory") == 0 ? ENOMEM : EAGAIN, command);
    }
    s->piped = true;
    td_stream_take(s, reads ? s->child.out : s->child.in, reads, !reads, false);
    s->child.in = s->child.out = -1; /* the stream's now */
    f->stream = s;
    return 1;
}

/* ---- The default files ---- */

static td_stream *default_stream(lua_State *L, const char *which) {
    lua_getfield(L, LUA_REGISTRYINDEX, which);
    file *f = lua_touserdata(L, -1);
    if (!f->stream) luaL_error(L, "default %s file is closed", which + PREFIX_LEN);
    return f->stream;
}

static int set_default(lua_State *L, const char *which, const char *mode) {
    if (!lua_isnoneornil(L, 1)) {
        const char *path = lua_tostring(L, 1);
        if (path) {
            open_or_raise(L, path, mode);
        } else {
            check_open(L);
            lua_pushvalue(L, 1);
        }
        lua_setfield(L, LUA_REGISTRYINDEX, which);
    }
    lua_getfield(L, LUA_REGISTRYINDEX, which);
    return 1;
}

static int l_input(lua_State *L) {
    return set_default(L, IO_INPUT, "r");
}

static int l_output(lua_State *L) {
    return set_default(L, IO_OUTPUT, "w");
}

/* ---- Reading ---- */

static int l_read(lua_State *L) {
    return td_reader_read(L, default_stream(L, IO_INPUT), 1);
}

static int f_read(lua_State *L) {
    return td_reader_read(L, check_open(L), 2);
}

/* ---- Lines ---- */

/* next_line is the iterator: upvalues are the file, the number of formats, whether to close it, and the formats. */
static int next_line(lua_State *L) {
    file *f = lua_touserdata(L, lua_upvalueindex(1));
    int n = (int)lua_tointeger(L, lua_upvalueindex(2));
    if (!f->stream) return luaL_error(L, "file is already closed");
    lua_settop(L, 1);
    luaL_checkstack(L, n, "too many arguments");
    for (int i = 1; i <= n; i++) lua_pushvalue(L, lua_upvalueindex(3 + i));
    n = td_reader_read(L, f->stream, 2);
    if (lua_toboolean(L, -n)) return n;
    if (n > 1) return luaL_error(L, "%s", lua_tostring(L, -n + 1));
    if (lua_toboolean(L, lua_upvalueindex(3))) {
        lua_settop(L, 0);
        lua_pushvalue(L, lua_upvalueindex(1));
        close_file(L, f);
    }
    return 0;
}

/* push_iterator makes one of the file at index 1 and the formats above it. */
static void push_iterator(lua_State *L, bool close) {
    int n = lua_gettop(L) - 1;
    luaL_argcheck(L, n <= LINES_MAX, LINES_MAX + 2, "too many arguments");
    lua_pushvalue(L, 1);
    lua_pushinteger(L, n);
    lua_pushboolean(L, close);
    lua_rotate(L, 2, 3);
    lua_pushcclosure(L, next_line, 3 + n);
}

static int f_lines(lua_State *L) {
    check_open(L);
    push_iterator(L, false);
    return 1;
}

static int l_lines(lua_State *L) {
    if (lua_isnone(L, 1)) lua_pushnil(L);
    if (lua_isnil(L, 1)) {
        lua_getfield(L, LUA_REGISTRYINDEX, IO_INPUT);
        lua_replace(L, 1);
        return f_lines(L);
    }
    open_or_raise(L, luaL_checkstring(L, 1), "r");
    lua_replace(L, 1);
    push_iterator(L, true);
    lua_pushnil(L);
    lua_pushnil(L);
    lua_pushvalue(L, 1);
    return 4;
}

/* ---- Writing ---- */

/* write_values writes the values from index arg on, but not the last, which is the file to return. */
static int write_values(lua_State *L, td_stream *s, int arg) {
    int last = lua_gettop(L);
    bool ok = true;
    for (; arg < last; arg++) {
        char number[64];
        size_t len;
        const char *text = number;
        if (lua_type(L, arg) != LUA_TNUMBER)
            text = luaL_checklstring(L, arg, &len);
        else if (lua_isinteger(L, arg))
            len = (size_t)snprintf(number, sizeof number, LUA_INTEGER_FMT, lua_tointeger(L, arg));
        else
            len = (size_t)snprintf(number, sizeof number, LUA_NUMBER_FMT, lua_tonumber(L, arg));
        ok = ok && td_stream_write(s, text, len) == 0;
    }
    ok = ok && td_stream_end_write(s) == 0;
    return ok ? 1 : stream_result(L, s, false);
}

static int l_write(lua_State *L) {
    return write_values(L, default_stream(L, IO_OUTPUT), 1);
}

static int f_write(lua_State *L) {
    td_stream *s = check_open(L);
    lua_pushvalue(L, 1);
    return write_values(L, s, 2);
}

static int l_flush(lua_State *L) {
    td_stream *s = default_stream(L, IO_OUTPUT);
    return stream_result(L, s, td_stream_flush(s) == 0);
}

static int f_flush(lua_State *L) {
    td_stream *s = check_open(L);
    return stream_result(L, s, td_stream_flush(s) == 0);
}

/* ---- Places and buffers ---- */

static int f_seek(lua_State *L) {
    static const int modes[] = { SEEK_SET, SEEK_CUR, SEEK_END };
    static const char *const names[] = { "set", "cur", "end", NULL };
    td_stream *s = check_open(L);
    int mode = luaL_checkoption(L, 2, "cur", names);
    int64_t place;
    if (td_stream_seek(s, luaL_optinteger(L, 3, 0), modes[mode], &place) < 0) return stream_result(L, s, false);
    lua_pushinteger(L, place);
    return 1;
}

static int f_setvbuf(lua_State *L) {
    static const td_buffering modes[] = { TD_BUFFER_NONE, TD_BUFFER_FULL, TD_BUFFER_LINE };
    static const char *const names[] = { "no", "full", "line", NULL };
    td_stream *s = check_open(L);
    int mode = luaL_checkoption(L, 2, NULL, names);
    lua_Integer size = luaL_optinteger(L, 3, LUAL_BUFFERSIZE);
    return stream_result(L, s, td_stream_buffer(s, modes[mode], size > 0 ? (size_t)size : 0) == 0);
}

/* ---- The library ---- */

static void make_metatable(lua_State *L) {
    static const luaL_Reg methods[] = { { "read", f_read },       { "write", f_write }, { "lines", f_lines },
                                        { "flush", f_flush },     { "seek", f_seek },   { "close", f_close },
                                        { "setvbuf", f_setvbuf }, { NULL, NULL } };
    static const luaL_Reg events[] = {
        { "__gc", f_gc }, { "__close", f_toclose }, { "__tostring", f_tostring }, { NULL, NULL }
    };
    luaL_newmetatable(L, METATABLE);
    lua_pushliteral(L, LUA_FILEHANDLE);
    lua_setfield(L, -2, "__name");
    luaL_setfuncs(L, events, 0);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_newtable(L); /* what getmetatable shows: later jobs have files of the real one, too */
    lua_pushliteral(L, LUA_FILEHANDLE);
    lua_setfield(L, -2, "__name");
    luaL_setfuncs(L, events, 0);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

/* add_standard sets a standard file in the library on top of the stack, and as a default. */
static void add_standard(lua_State *L, int fd, const char *name, const char *which) {
    file *f = push_file(L);
    td_stream *s = td_stream_new(td_state_of(L));
    if (!s) luaL_error(L, "not enough memory");
    td_stream_take(s, fd, fd == 0, fd != 0, true);
    s->buffering = TD_BUFFER_NONE;
    f->stream = s;
    if (which) {
        lua_pushvalue(L, -1);
        lua_setfield(L, LUA_REGISTRYINDEX, which);
    }
    lua_setfield(L, -2, name);
}

/* forget_stdio takes Lua's own files out of the state: a C module that knows them must not take ours for one. */
static void forget_stdio(lua_State *L) {
    if (luaL_getmetatable(L, LUA_FILEHANDLE) == LUA_TTABLE) {
        lua_pushnil(L);
        lua_setfield(L, -2, "__gc");
    }
    lua_pop(L, 1);
    lua_pushnil(L);
    lua_setfield(L, LUA_REGISTRYINDEX, LUA_FILEHANDLE);
}

int td_io_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "close", l_close }, { "flush", l_flush }, { "input", l_input },
                                          { "lines", l_lines }, { "open", l_open },   { "output", l_output },
                                          { "popen", l_popen }, { "read", l_read },   { "tmpfile", l_tmpfile },
                                          { "type", l_type },   { "write", l_write }, { NULL, NULL } };
    make_metatable(L);
    lua_getglobal(L, LUA_IOLIBNAME);
    luaL_setfuncs(L, functions, 0);
    add_standard(L, STDIN_FILENO, "stdin", IO_INPUT);
    add_standard(L, STDOUT_FILENO, "stdout", IO_OUTPUT);
    add_standard(L, STDERR_FILENO, "stderr", NULL);
    lua_pop(L, 1);
    forget_stdio(L);
    return 0;
}
