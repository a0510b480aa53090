/* trace.c: where a Lua thread is, as text. Unlike luaL_traceback it allocates nothing in Lua and calls nothing there,
   so that it can be taken of a state that does not run, from outside. */
#include "private.h"

#include <string.h>

enum { LEVELS_FIRST = 12, LEVELS_LAST = 10 }; /* of a deep stack, as Lua shows it */

static int depth(lua_State *L) {
    lua_Debug ar;
    int low = 1, high = 1;
    while (lua_getstack(L, high, &ar)) {
        low = high;
        high *= 2;
    }
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (lua_getstack(L, middle, &ar))
            low = middle + 1;
        else
            high = middle;
    }
    return high;
}

static void add_level(lua_State *L, int level, td_buf *b) {
    lua_Debug ar;
    if (!lua_getstack(L, level, &ar) || !lua_getinfo(L, "Sln", &ar)) return;
    td_buf_printf(b, "\n\t%s:", ar.short_src);
    if (ar.currentline > 0) td_buf_printf(b, "%d:", ar.currentline);
    td_buf_puts(b, " in ");
    if (*ar.namewhat && (*ar.what == 'C' || strcmp(ar.namewhat, "global") == 0))
        td_buf_printf(b, "function '%s'", ar.name);
    else if (*ar.namewhat)
        td_buf_printf(b, "%s '%s'", ar.namewhat, ar.name);
    else if (*ar.what == 'm')
        td_buf_puts(b, "main chunk");
    else if (*ar.what != 'C')
        td_buf_printf(b, "function <%s:%d>", ar.short_src, ar.linedefined);
    else
        td_buf_putc(b, '?');
}

void td_trace_add(lua_State *L, int first, td_buf *b) {
    int levels = depth(L);
    td_buf text = { 0 };
    td_buf_puts(&text, "stack traceback:");
    for (int i = first; i < levels; i++) {
        if (i - first == LEVELS_FIRST && levels - i > LEVELS_LAST + 1) {
            td_buf_printf(&text, "\n\t...\t(skipping %d levels)", levels - i - LEVELS_LAST);
            i = levels - LEVELS_LAST;
        }
        add_level(L, i, &text);
    }
    if (text.data) td_text_clean(b, text.data, text.len, TD_TRACEBACK_MAX);
    td_buf_free(&text);
}
