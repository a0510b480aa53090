/* value.c: JSON text to Lua values and back, exactly.

   This file is also part of the Lua binding, so it uses only what every Lua host exports, and nothing else of vm.

   Reading: yajl splits the text, and never sees a failed allocation (it does not check for one): its memory is a pool
   on the C stack, which overflows into userdata of the Lua state, so running out raises a Lua error like everywhere,
   and an error raised in a callback leaves nothing behind.
   Writing: nothing here allocates Lua memory or calls back into Lua, so it cannot raise. */
#include "vm.h"

#include <inttypes.h>
#include <lauxlib.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

enum {
    DEPTH_MAX = 100,
    POOL_SIZE = 3584, /* yajl's handle, its state, and one buffer for a string with escapes */
};

/* ---- The mark of an array ---- */

#define ARRAY_NAME "tidemill.array"

/* The array metatable is in the registry under ARRAY_NAME, where other copies of this file find it too, and under this
   address, where it is found without making a string. */
static const char array_key;

/* push_array_mark pushes the array metatable, making it when it is new [-0, +1]. May raise. */
static void push_array_mark(lua_State *L) {
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &array_key) == LUA_TTABLE) return;
    lua_pop(L, 1);
    luaL_newmetatable(L, ARRAY_NAME);
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable"); /* all arrays share it */
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &array_key);
}

bool td_value_is_array(lua_State *L, int idx) {
    if (!lua_istable(L, idx) || !lua_getmetatable(L, idx)) return false;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &array_key);
    bool same = lua_istable(L, -1) && lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same;
}

/* ---- Reading ---- */

/* What the callbacks share. Open containers are on the Lua stack, each object's key above it. counts[i] is the number
   of values in the i-th open container if it is an array, -1 for an object. */
typedef struct reader {
    lua_State *L;
    int overflow; /* stack index of the newest pool block beyond the first, each of which holds the one before */
    int depth;
    lua_Integer counts[DEPTH_MAX];
    size_t used;
    _Alignas(16) char pool[POOL_SIZE];
} reader;

static void *pool_malloc(void *ctx, size_t size) {
    reader *r = ctx;
    size_t whole = (size + 31) & ~(size_t)15; /* the first 16 bytes hold the size, for pool_realloc */
    char *block;
    if (whole <= POOL_SIZE - r->used) {
        block = r->pool + r->used;
        r->used += whole;
    } else {
        luaL_checkstack(r->L, 2, "cannot read JSON");
        block = lua_newuserdatauv(r->L, whole, 1);
        lua_pushvalue(r->L, r->overflow);
        lua_setiuservalue(r->L, -2, 1);
        lua_replace(r->L, r->overflow);
    }
    memcpy(block, &size, sizeof size);
    return block + 16;
}

/* pool_free leaves everything for the end: what yajl gives back early is little. */
static void pool_free(void *ctx, void *block) {
    (void)ctx;
    (void)block;
}

static void *pool_realloc(void *ctx, void *block, size_t size) {
    size_t old = 0;
    if (block) memcpy(&old, (char *)block - 16, sizeof old);
    if (block && size <= old) return block;
    void *copy = pool_malloc(ctx, size);
    if (block) memcpy(copy, block, old);
    return copy;
}

/* store puts the value on top of the stack into the container that it belongs to. */
static int store(reader *r) {
    if (r->depth == 0) return 1;
    lua_Integer *count = &r->counts[r->depth - 1];
    if (*count < 0)
        lua_rawset(r->L, -3);
    else
        lua_rawseti(r->L, -2, ++*count);
    return 1;
}

static int on_null(void *ctx) {
    reader *r = ctx;
    lua_pushlightuserdata(r->L, NULL);
    return store(r);
}

static int on_boolean(void *ctx, int value) {
    reader *r = ctx;
    lua_pushboolean(r->L, value);
    return store(r);
}

/* read_integer reads a literal of digits with an optional minus, if 64 bits hold it. */
static bool read_integer(const char *text, size_t len, lua_Integer *value) {
    bool negative = text[0] == '-';
    uint64_t limit = (uint64_t)INT64_MAX + (negative ? 1 : 0), sum = 0;
    for (size_t i = negative ? 1 : 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        uint64_t digit = (uint64_t)(text[i] - '0');
        if (sum > (limit - digit) / 10) return false;
        sum = sum * 10 + digit;
    }
    *value = (lua_Integer)(negative ? 0 - sum : sum);
    return true;
}

/* read_float reads any JSON number as the nearest double, whatever the locale's decimal point is. */
static double read_float(reader *r, const char *text, size_t len) {
    char small[512];
    const char *point = localeconv()->decimal_point;
    size_t point_len = strlen(point), room = len + point_len + 1;
    char *copy = room <= sizeof small ? small : pool_malloc(r, room);
    const char *dot = memchr(text, '.', len);
    size_t whole = dot ? (size_t)(dot - text) : len;
    memcpy(copy, text, whole);
    size_t end = whole;
    if (dot) {
        memcpy(copy + whole, point, point_len);
        memcpy(copy + whole + point_len, dot + 1, len - whole - 1);
        end = len - 1 + point_len;
    }
    copy[end] = '\0';
    return strtod(copy, NULL);
}

static int on_number(void *ctx, const char *text, size_t len) {
    reader *r = ctx;
    lua_Integer integer;
    if (read_integer(text, len, &integer)) {
        lua_pushinteger(r->L, integer);
        return store(r);
    }
    double value = read_float(r, text, len);
    if (isinf(value)) {
        char shown[48];
        snprintf(shown, sizeof shown, "%.*s%s", len > 40 ? 37 : (int)len, text, len > 40 ? "..." : "");
        luaL_error(r->L, "number %s is beyond the range of a double", shown);
    }
    lua_pushnumber(r->L, value == 0 ? 0.0 : value); /* no -0.0, which the database does not keep either */
    return store(r);
}

static int on_string(void *ctx, const unsigned char *text, size_t len) {
    reader *r = ctx;
    lua_pushlstring(r->L, (const char *)text, len);
    return store(r);
}

static int on_key(void *ctx, const unsigned char *text, size_t len) {
    reader *r = ctx;
    lua_pushlstring(r->L, (const char *)text, len);
    return 1;
}

static int open_container(reader *r, lua_Integer count) {
    if (r->depth == DEPTH_MAX) luaL_error(r->L, "JSON nested deeper than %d levels", DEPTH_MAX);
    luaL_checkstack(r->L, 6, "cannot read JSON");
    lua_newtable(r->L);
    r->counts[r->depth++] = count;
    return 1;
}

static int on_start_map(void *ctx) {
    return open_container(ctx, -1);
}

static int on_start_array(void *ctx) {
    return open_container(ctx, 0);
}

static int on_end_map(void *ctx) {
    reader *r = ctx;
    r->depth--;
    return store(r);
}

static int on_end_array(void *ctx) {
    reader *r = ctx;
    push_array_mark(r->L);
    lua_setmetatable(r->L, -2);
    r->depth--;
    return store(r);
}

/* raise_syntax raises yajl's message, in one line. */
static void raise_syntax(lua_State *L, yajl_handle handle, const char *json, size_t len) {
    const char *message = (const char *)yajl_get_error(handle, 0, (const unsigned char *)json, len);
    luaL_error(L, "not valid JSON: %s", lua_pushlstring(L, message, strcspn(message, "\n")));
}

void td_value_push(lua_State *L, const char *json, size_t len) {
    static const yajl_callbacks callbacks = { on_null,    on_boolean,     NULL,         NULL,
                                              on_number,  on_string,      on_start_map, on_key,
                                              on_end_map, on_start_array, on_end_array };
    reader r;
    r.L = L;
    r.depth = 0;
    r.used = 0;
    luaL_checkstack(L, 8, "cannot read JSON");
    lua_pushnil(L);
    r.overflow = lua_gettop(L);
    yajl_alloc_funcs pool = { pool_malloc, pool_realloc, pool_free, &r };
    yajl_handle handle = yajl_alloc(&callbacks, &pool, &r);
    yajl_status status = yajl_parse(handle, (const unsigned char *)json, len);
    if (status == yajl_status_ok) status = yajl_complete_parse(handle);
    if (status != yajl_status_ok) raise_syntax(L, handle, json, len);
    lua_remove(L, r.overflow);
}

/* ---- Writing ---- */

/* A step of the way from the root to a value, for messages; key is NULL for an index. */
typedef struct step {
    const struct step *up;
    const char *key;
    size_t key_len;
    lua_Integer index;
} step;

typedef struct writer {
    lua_State *L;
    td_buf *b;
    size_t start, max; /* where the text begins in b, and how long it may become */
    int depth;
    const char *root;
    char *message; /* 256 bytes */
} writer;

#define NO_MEMORY "not enough memory to write it as JSON"
enum { MESSAGE_SIZE = 256, PATH_SIZE = 150, KEY_SHOWN = 40 };

static bool plain_name(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++) {
        bool letter = (text[i] >= 'a' && text[i] <= 'z') || (text[i] >= 'A' && text[i] <= 'Z') || text[i] == '_';
        if (!letter && !(i > 0 && text[i] >= '0' && text[i] <= '9')) return false;
    }
    return len > 0 && len <= KEY_SHOWN;
}

/* show_step writes one step as Lua would: ".name", "[\"other name\"]" or "[3]". */
static void show_step(char out[64], const step *s) {
    if (!s->key) {
        snprintf(out, 64, "[%" PRId64 "]", (int64_t)s->index);
    } else if (plain_name(s->key, s->key_len)) {
        snprintf(out, 64, ".%.*s", (int)s->key_len, s->key);
    } else {
        char text[KEY_SHOWN + 1];
        size_t shown = s->key_len < KEY_SHOWN ? s->key_len : KEY_SHOWN;
        for (size_t i = 0; i < shown; i++) {
            char c = s->key[i];
            text[i] = c >= ' ' && c < 127 && c != '"' ? c : '?';
        }
        text[shown] = '\0';
        snprintf(out, 64, "[\"%s%s\"]", text, shown < s->key_len ? "..." : "");
    }
}

/* show_path appends the way to a value, outermost first, cut with "..." where size bytes are full. */
static void show_path(char *out, size_t size, const step *s) {
    if (!s) return;
    show_path(out, size, s->up);
    size_t used = strlen(out);
    if (used >= 3 && strcmp(out + used - 3, "...") == 0) return;
    char part[64];
    show_step(part, s);
    strcpy(out + used, used + strlen(part) + 4 < size ? part : "...");
}

/* refuse writes "path: reason" into the caller's message. Returns false. */
static bool refuse(writer *w, const step *at, const char *format, ...) TD_PRINTF(3, 4);
static bool refuse(writer *w, const step *at, const char *format, ...) {
    snprintf(w->message, PATH_SIZE, "%.60s", w->root);
    show_path(w->message, PATH_SIZE, at);
    size_t used = strlen(w->message);
    snprintf(w->message + used, MESSAGE_SIZE - used, ": ");
    va_list args;
    va_start(args, format);
    vsnprintf(w->message + used + 2, MESSAGE_SIZE - used - 2, format, args);
    va_end(args);
    return false;
}

static bool write_value(writer *w, int idx, const step *at);

static bool write_string(writer *w, int idx, const step *at, const char *what) {
    size_t len;
    const char *text = lua_tolstring(w->L, idx, &len);
    if (memchr(text, '\0', len)) return refuse(w, at, "%s with a NUL byte cannot be stored", what);
    if (!td_utf8_valid(text, len)) return refuse(w, at, "%s that is not valid UTF-8 has no JSON form", what);
    td_buf_json(w->b, text, len);
    return true;
}

static bool write_number(writer *w, int idx, const step *at) {
    if (lua_isinteger(w->L, idx)) {
        char digits[24];
        int n = snprintf(digits, sizeof digits, "%" PRId64, (int64_t)lua_tointeger(w->L, idx));
        td_buf_add(w->b, digits, (size_t)n);
        return true;
    }
    double value = lua_tonumber(w->L, idx);
    if (isnan(value)) return refuse(w, at, "NaN has no JSON form");
    if (isinf(value)) return refuse(w, at, "an infinite number has no JSON form");
    td_buf_double(w->b, value);
    return true;
}

/* refuse_key refuses a table for the key at idx, whose kind is not that of the key found first. */
static bool refuse_key(writer *w, int idx, const step *at) {
    bool field = lua_type(w->L, idx) == LUA_TSTRING;
    bool item = lua_isinteger(w->L, idx) && lua_tointeger(w->L, idx) >= 1;
    return refuse(w, at,
                  field || item ? "has both a list's items and named fields; JSON has no such form"
                                : "has a key that is neither a string nor a place in a list; JSON has no such form");
}

/* list_length counts a table that should be a list. Returns -1 and refuses it when its keys are not 1 to n. */
static lua_Integer list_length(writer *w, int table, const step *at) {
    lua_Integer count = 0, last = 0;
    lua_pushnil(w->L);
    while (lua_next(w->L, table)) {
        lua_pop(w->L, 1);
        if (!lua_isinteger(w->L, -1) || lua_tointeger(w->L, -1) < 1) {
            refuse_key(w, -1, at);
            lua_pop(w->L, 1);
            return -1;
        }
        if (lua_tointeger(w->L, -1) > last) last = lua_tointeger(w->L, -1);
        count++;
    }
    if (last == count) return count;
    lua_Integer hole = 1;
    while (lua_rawgeti(w->L, table, hole) != LUA_TNIL) {
        lua_pop(w->L, 1);
        hole++;
    }
    lua_pop(w->L, 1);
    refuse(w, at, "is a list of %" PRId64 " with nothing at %" PRId64 "; fill its holes with tidemill.null",
           (int64_t)last, (int64_t)hole);
    return -1;
}

static bool write_list(writer *w, int table, const step *at) {
    lua_Integer count = list_length(w, table, at);
    if (count < 0) return false;
    td_buf_putc(w->b, '[');
    for (lua_Integer i = 1; i <= count; i++) {
        step here = { at, NULL, 0, i };
        if (i > 1) td_buf_putc(w->b, ',');
        lua_rawgeti(w->L, table, i);
        bool ok = write_value(w, lua_gettop(w->L), &here);
        lua_pop(w->L, 1);
        if (!ok) return false;
    }
    td_buf_putc(w->b, ']');
    return true;
}

/* write_object writes a table whose first key is a string, already on the stack with its value [-2, +0]. */
static bool write_object(writer *w, int table, const step *at) {
    char before = '{';
    do {
        bool ok = lua_type(w->L, -2) == LUA_TSTRING;
        if (!ok) {
            refuse_key(w, -2, at);
        } else {
            step here = { at, NULL, 0, 0 };
            here.key = lua_tolstring(w->L, -2, &here.key_len);
            td_buf_putc(w->b, before);
            before = ',';
            ok = write_string(w, -2, at, "a key");
            td_buf_putc(w->b, ':');
            ok = ok && write_value(w, lua_gettop(w->L), &here);
        }
        if (!ok) {
            lua_pop(w->L, 2);
            return false;
        }
        lua_pop(w->L, 1);
    } while (lua_next(w->L, table));
    td_buf_putc(w->b, '}');
    return true;
}

static bool write_table(writer *w, int table, const step *at) {
    if (w->depth == DEPTH_MAX) {
        return refuse(w, NULL, "nested deeper than %d levels, or contains itself", DEPTH_MAX);
    }
    if (!lua_checkstack(w->L, 6)) return refuse(w, at, NO_MEMORY);
    bool ok;
    w->depth++;
    if (td_value_is_array(w->L, table)) {
        ok = write_list(w, table, at);
    } else {
        lua_pushnil(w->L);
        if (!lua_next(w->L, table)) {
            td_buf_puts(w->b, "{}");
            ok = true;
        } else if (lua_type(w->L, -2) == LUA_TSTRING) {
            ok = write_object(w, table, at);
        } else {
            lua_pop(w->L, 2);
            ok = write_list(w, table, at);
        }
    }
    w->depth--;
    return ok;
}

/* write_value writes the value at idx, an absolute index. */
static bool write_value(writer *w, int idx, const step *at) {
    if (w->b->failed) return refuse(w, NULL, NO_MEMORY);
    if (w->b->len - w->start > w->max) return refuse(w, NULL, "is larger than %zu bytes as JSON", w->max);
    switch (lua_type(w->L, idx)) {
    case LUA_TBOOLEAN:
        td_buf_puts(w->b, lua_toboolean(w->L, idx) ? "true" : "false");
        return true;
    case LUA_TNUMBER:
        return write_number(w, idx, at);
    case LUA_TSTRING:
        return write_string(w, idx, at, "a string");
    case LUA_TTABLE:
        return write_table(w, idx, at);
    case LUA_TLIGHTUSERDATA:
        if (lua_touserdata(w->L, idx)) break;
        td_buf_puts(w->b, "null");
        return true;
    case LUA_TNIL:
        return refuse(w, at, "nil has no JSON form; use tidemill.null");
    default:
        break;
    }
    return refuse(w, at, "a %s has no JSON form", lua_typename(w->L, lua_type(w->L, idx)));
}

const char *td_value_encode_max(lua_State *L, int idx, td_buf *b, const char *path, size_t max, char message[256]) {
    writer w = { L, b, b->len, max, 0, path, message };
    bool ok = lua_checkstack(L, 6) ? write_value(&w, lua_absindex(L, idx), NULL) : refuse(&w, NULL, NO_MEMORY);
    if (ok && b->failed) ok = refuse(&w, NULL, NO_MEMORY);
    if (ok && b->len - w.start > max) ok = refuse(&w, NULL, "is larger than %zu bytes as JSON", max);
    return ok ? NULL : message;
}

const char *td_value_encode(lua_State *L, int idx, td_buf *b, const char *path, char message[256]) {
    return td_value_encode_max(L, idx, b, path, TD_VALUE_MAX, message);
}

/* ---- require "tidemill" ---- */

/* array(t): marks a table as an array, a new one without t, and returns it. */
static int l_array(lua_State *L) {
    if (lua_isnoneornil(L, 1)) {
        lua_settop(L, 0);
        lua_newtable(L);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    luaL_argcheck(L, !lua_getmetatable(L, 1) || td_value_is_array(L, 1), 1,
                  "a plain table expected; this one has a metatable");
    lua_settop(L, 1);
    push_array_mark(L);
    lua_setmetatable(L, 1);
    return 1;
}

/* is_array(value): whether it is a table that is marked as an array. */
static int l_is_array(lua_State *L) {
    luaL_checkany(L, 1);
    lua_pushboolean(L, td_value_is_array(L, 1));
    return 1;
}

int td_value_open(lua_State *L) {
    push_array_mark(L);
    lua_pop(L, 1);
    static const luaL_Reg functions[] = { { "array", l_array }, { "is_array", l_is_array }, { NULL, NULL } };
    lua_createtable(L, 0, 8);
    luaL_setfuncs(L, functions, 0);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    return 1;
}
