/* reader.c: lines, counts, numbers and all the rest, as Lua's own io library reads them. */
#include "reader.h"

#include <errno.h>
#include <lauxlib.h>
#include <string.h>

enum { NUMBER_MAX = 200 };

static bool read_line(lua_State *L, td_stream *s, bool chop) {
    luaL_Buffer b;
    bool ended = false;
    luaL_buffinit(L, &b);
    while (!ended && td_stream_peek(s) >= 0) {
        const char *from = s->data + s->at, *end = memchr(from, '\n', s->len - s->at);
        size_t len = end ? (size_t)(end - from) : s->len - s->at;
        ended = end != NULL;
        luaL_addlstring(&b, from, len + (ended && !chop));
        s->at += len + ended;
    }
    luaL_pushresult(&b);
    return ended || lua_rawlen(L, -1) > 0;
}

/* read_bytes reads so many bytes, or all there are (SIZE_MAX). */
static bool read_bytes(lua_State *L, td_stream *s, size_t wanted) {
    luaL_Buffer b;
    size_t had = wanted;
    luaL_buffinit(L, &b);
    while (wanted > 0 && td_stream_peek(s) >= 0) {
        size_t len = s->len - s->at < wanted ? s->len - s->at : wanted;
        luaL_addlstring(&b, s->data + s->at, len);
        s->at += len;
        wanted -= len;
    }
    luaL_pushresult(&b);
    return wanted < had;
}

static bool test_end(lua_State *L, td_stream *s) {
    lua_pushliteral(L, "");
    return td_stream_peek(s) >= 0;
}

/* A number being read: as in Lua's own, the longest text that may be the beginning of a numeral. */
typedef struct numeral {
    td_stream *stream;
    int c; /* the byte to come; not taken */
    int len;
    char text[NUMBER_MAX + 1];
} numeral;

/* next_byte takes the byte to come. Returns false when the numeral is too long, which spoils it. */
static bool next_byte(numeral *n) {
    if (n->len >= NUMBER_MAX) {
        n->text[0] = '\0';
        return false;
    }
    n->text[n->len++] = (char)n->c;
    (void)td_stream_getc(n->stream);
    n->c = td_stream_peek(n->stream);
    return true;
}

static bool next_if(numeral *n, const char *either) {
    if (n->c < 0 || (n->c != either[0] && n->c != either[1])) return false;
    return next_byte(n);
}

static int next_digits(numeral *n, bool hex) {
    int count = 0;
    for (;; count++) {
        bool digit = n->c >= '0' && n->c <= '9';
        bool letter = hex && ((n->c >= 'a' && n->c <= 'f') || (n->c >= 'A' && n->c <= 'F'));
        if (!(digit || letter) || !next_byte(n)) return count;
    }
}

static bool is_space(int c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool read_number(lua_State *L, td_stream *s) {
    numeral n = { .stream = s };
    int count = 0;
    bool hex = false;
    while (is_space(n.c = td_stream_peek(s))) (void)td_stream_getc(s);
    next_if(&n, "-+");
    if (next_if(&n, "00")) {
        if (next_if(&n, "xX"))
            hex = true;
        else
            count = 1;
    }
    count += next_digits(&n, hex);
    if (next_if(&n, "..")) count += next_digits(&n, hex);
    if (count > 0 && next_if(&n, hex ? "pP" : "eE")) {
        next_if(&n, "-+");
        next_digits(&n, false);
    }
    n.text[n.len] = '\0';
    if (lua_stringtonumber(L, n.text)) return true;
    lua_pushnil(L);
    return false;
}

/* read_format reads what the argument at index n asks for, and pushes it. Returns whether there was something. */
static bool read_format(lua_State *L, td_stream *s, int n) {
    if (lua_type(L, n) == LUA_TNUMBER) {
        size_t count = (size_t)luaL_checkinteger(L, n);
        return count == 0 ? test_end(L, s) : read_bytes(L, s, count);
    }
    const char *format = luaL_checkstring(L, n);
    if (*format == '*') format++;
    switch (*format) {
    case 'n':
        return read_number(L, s);
    case 'l':
        return read_line(L, s, true);
    case 'L':
        return read_line(L, s, false);
    case 'a':
        read_bytes(L, s, SIZE_MAX);
        return true;
    default:
        return luaL_argerror(L, n, "invalid format");
    }
}

int td_reader_read(lua_State *L, td_stream *s, int first) {
    int count = lua_gettop(L) - 1, n = first;
    bool success = true;
    s->error = 0;
    if (count == 0) {
        success = read_line(L, s, true);
        n = first + 1;
    } else {
        luaL_checkstack(L, count + LUA_MINSTACK, "too many arguments");
        for (; count > 0 && success; n++, count--) success = read_format(L, s, n);
    }
    if (s->error) {
        errno = s->error;
        return luaL_fileresult(L, 0, NULL);
    }
    if (!success) {
        lua_pop(L, 1);
        luaL_pushfail(L);
    }
    return n - first;
}
