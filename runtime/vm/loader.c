/* loader.c: where a state's code comes from: `require` with the set's files, and source text only.

   package.searchers becomes: preload (the layers' modules), the set's files, package.path (source text only), and the
   two for C modules. So a file of the set is found before a rock of the same name. */
#include "private.h"

#include <lauxlib.h>
#include <string.h>

/* ---- require ---- */

/* search_set(name), upvalue the state: finds a file of the set. Returns its chunk and path, or why not. */
static int search_set(lua_State *L) {
    const td_state *state = lua_touserdata(L, lua_upvalueindex(1));
    const char *name = luaL_checkstring(L, 1);
    const td_file *file = td_files_named(&state->set->files, name);
    if (!file) {
        lua_pushfstring(L, "no file for '%s' among the handlers", name);
        return 1;
    }
    if (luaL_loadbufferx(L, file->code, file->code_len, file->chunk, "b") != LUA_OK) return lua_error(L);
    lua_pushstring(L, file->path);
    return 2;
}

/* search_path(name), upvalues package and its searchpath: Lua's own search of package.path, but source text only. */
static int search_path(lua_State *L) {
    const char *name = luaL_checkstring(L, 1);
    lua_pushvalue(L, lua_upvalueindex(2));
    lua_pushvalue(L, 1);
    if (lua_getfield(L, lua_upvalueindex(1), "path") != LUA_TSTRING) {
        return luaL_error(L, "'package.path' must be a string");
    }
    lua_call(L, 2, 2);
    if (lua_isnil(L, -2)) return 1; /* where it was looked for */
    const char *file = lua_tostring(L, -2);
    if (luaL_loadfilex(L, file, "t") != LUA_OK) {
        return luaL_error(L, "error loading module '%s' from file '%s':\n\t%s", name, file, lua_tostring(L, -1));
    }
    lua_pushvalue(L, -3);
    return 2;
}

/* set_searchers replaces the second searcher by our two, moving the later ones up. package is on top [-0, +0]. */
static void set_searchers(lua_State *L, td_state *state) {
    lua_getfield(L, -1, "searchers");
    for (lua_Integer i = (lua_Integer)lua_rawlen(L, -1); i > 2; i--) {
        lua_rawgeti(L, -1, i);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushlightuserdata(L, state);
    lua_pushcclosure(L, search_set, 1);
    lua_rawseti(L, -2, 2);
    lua_pushvalue(L, -2);
    lua_getfield(L, -1, "searchpath");
    lua_pushcclosure(L, search_path, 2);
    lua_rawseti(L, -2, 3);
    lua_pop(L, 1);
}

/* ---- load, loadfile, dofile ---- */

/* text_mode returns the mode in place of the one given at idx: text, or nothing where text was excluded. */
static const char *text_mode(lua_State *L, int idx) {
    return strchr(luaL_optstring(L, idx, "bt"), 't') ? "t" : "";
}

/* finish_load returns what load does: the chunk on top with the environment at env (0: none), or nil and a message. */
static int finish_load(lua_State *L, int status, int env) {
    if (status != LUA_OK) {
        lua_pushnil(L);
        lua_insert(L, -2);
        return 2;
    }
    if (env) {
        lua_pushvalue(L, env);
        if (!lua_setupvalue(L, -2, 1)) lua_pop(L, 1);
    }
    return 1;
}

enum { PIECE_SLOT = 5 }; /* keeps the piece of text that is being read */

/* read_piece is a lua_Reader that calls the function at index 1. */
static const char *read_piece(lua_State *L, void *unused, size_t *len) {
    (void)unused;
    luaL_checkstack(L, 2, "too many nested functions");
    lua_pushvalue(L, 1);
    lua_call(L, 0, 1);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        *len = 0;
        return NULL;
    }
    if (!lua_isstring(L, -1)) luaL_error(L, "reader function must return a string");
    lua_replace(L, PIECE_SLOT);
    return lua_tolstring(L, PIECE_SLOT, len);
}

static int l_load(lua_State *L) {
    td_state *state = lua_touserdata(L, lua_upvalueindex(1));
    intptr_t entered = state->ends;
    int env = lua_isnone(L, 4) ? 0 : 4, status;
    size_t len;
    const char *text = lua_tolstring(L, 1, &len), *mode = text_mode(L, 3);
    if (text) {
        status = luaL_loadbufferx(L, text, len, luaL_optstring(L, 2, text), mode);
    } else {
        const char *name = luaL_optstring(L, 2, "=(load)");
        luaL_checktype(L, 1, LUA_TFUNCTION);
        lua_settop(L, PIECE_SLOT);
        status = lua_load(L, read_piece, NULL, name, mode);
    }
    if (status != LUA_OK && td_state_ending(state, entered))
        return lua_error(L); /* by the function that it read from */
    return finish_load(L, status, env);
}

static int l_loadfile(lua_State *L) {
    const char *file = luaL_optstring(L, 1, NULL), *mode = text_mode(L, 2);
    int env = lua_isnone(L, 3) ? 0 : 3;
    return finish_load(L, luaL_loadfilex(L, file, mode), env);
}

static int finish_dofile(lua_State *L, int status, lua_KContext extra) {
    (void)status;
    (void)extra;
    return lua_gettop(L) - 1;
}

static int l_dofile(lua_State *L) {
    const char *file = luaL_optstring(L, 1, NULL);
    lua_settop(L, 1);
    if (luaL_loadfilex(L, file, "t") != LUA_OK) return lua_error(L);
    lua_callk(L, 0, LUA_MULTRET, 0, finish_dofile);
    return finish_dofile(L, 0, 0);
}

/* The registry's key of the original `require`, which handlers cannot replace. */
static const char require_key;

void td_loader_open(lua_State *L, td_state *state, const td_module *modules, size_t modules_count) {
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    for (size_t i = 0; i < modules_count; i++) {
        if (!modules[i].name) continue;
        lua_pushcfunction(L, modules[i].open);
        lua_setfield(L, -2, modules[i].name);
    }
    lua_pop(L, 1);
    lua_getglobal(L, "package");
    set_searchers(L, state);
    lua_pop(L, 1);
    lua_pushlightuserdata(L, state);
    lua_pushcclosure(L, l_load, 1);
    lua_setglobal(L, "load");
    lua_register(L, "loadfile", l_loadfile);
    lua_register(L, "dofile", l_dofile);
    lua_getglobal(L, "require");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &require_key);
    for (size_t i = 0; i < modules_count; i++) {
        if (modules[i].name) continue;
        lua_pushcfunction(L, modules[i].open);
        lua_call(L, 0, 0);
    }
}

void td_loader_require(lua_State *L, const td_file *file) {
    size_t len = strlen(file->path) - strlen(".lua");
    lua_rawgetp(L, LUA_REGISTRYINDEX, &require_key);
    lua_pushlstring(L, file->path, len);
    lua_call(L, 1, 1);
}
