/* options.c: the options of enqueue and enqueue_many:

     schedule_in   number   seconds from now, 0 to 100 years
     schedule_at   number or string   Unix seconds, or an RFC 3339 time with its zone; a past one means now
     queue         string   1 to 100 bytes
     max_attempts  integer  1 to 1000
     unique_for    number   seconds, above 0, to 10 years
     unique_key    string   1 to 200 bytes
     priority      integer  0 to 100, lower runs first
     tags          list of strings   at most 20, of 1 to 100 bytes each

   Whatever is not allowed here is an error value that names the option, never raised. */
#include "request.h"

#include "../store/enqueue.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define YEARS(n)      ((double)(n) * (double)TD_ENQUEUE_YEAR_MS / 1000)
#define IN_WANTED     "seconds as a number, 0 to 3155760000 (100 years)"
#define AT_WANTED     "Unix seconds, or a time such as 2030-01-31T08:00:00Z"
#define UNIQUE_WANTED "seconds as a number, above 0, to 315576000 (10 years)"
#define TAGS_WANTED   "a list of strings"

/* show writes a number as it reads in Lua. */
static void show(lua_State *L, int idx, char out[32]) {
    double value = lua_tonumber(L, idx);
    if (lua_isinteger(L, idx)) {
        snprintf(out, 32, "%" PRId64, (int64_t)lua_tointeger(L, idx));
    } else if (isnan(value)) {
        strcpy(out, "NaN");
    } else if (isinf(value)) {
        strcpy(out, value > 0 ? "infinity" : "-infinity");
    } else {
        snprintf(out, 32, "%.14g", value);
    }
}

static int refuse_number(lua_State *L, int idx, const char *field, const char *wanted, tidemill_error *err) {
    char shown[32];
    show(L, idx, shown);
    return td_error_field(err, field, "%s: %s is not allowed; give %s", field, shown, wanted);
}

/* ---- One reader an option: each takes the value at idx ---- */

static int read_schedule_in(lua_State *L, int idx, td_request *r, tidemill_error *err) {
    if (lua_type(L, idx) != LUA_TNUMBER) return td_request_type(L, idx, "schedule_in", IN_WANTED, err);
    double seconds = lua_tonumber(L, idx);
    if (!(seconds >= 0 && seconds <= YEARS(100))) return refuse_number(L, idx, "schedule_in", IN_WANTED, err);
    r->options.schedule_in_ms = llround(seconds * 1000);
    return 0;
}

static int read_unique_for(lua_State *L, int idx, td_request *r, tidemill_error *err) {
    if (lua_type(L, idx) != LUA_TNUMBER) return td_request_type(L, idx, "unique_for", UNIQUE_WANTED, err);
    double seconds = lua_tonumber(L, idx);
    if (!(seconds > 0 && seconds <= YEARS(10))) return refuse_number(L, idx, "unique_for", UNIQUE_WANTED, err);
    r->options.unique_for_ms = seconds < 0.001 ? 1 : llround(seconds * 1000);
    return 0;
}

/* read_time_text reads schedule_at where it is a string. */
static int read_time_text(lua_State *L, int idx, td_request *r, tidemill_error *err) {
    size_t len;
    const char *text = lua_tolstring(L, idx, &len);
    if (strlen(text) == len && td_time_read(text, &r->options.schedule_at_us)) return 0;
    td_buf shown = { 0 };
    td_text_clean(&shown, text, len, 64);
    int rc = td_error_field(err, "schedule_at", "schedule_at: \"%s\" is not a time; give " AT_WANTED,
                            shown.failed || !shown.data ? "" : shown.data);
    td_buf_free(&shown);
    return rc;
}

static int read_schedule_at(lua_State *L, int idx, td_request *r, tidemill_error *err) {
    if (lua_type(L, idx) == LUA_TSTRING) return read_time_text(L, idx, r, err);
    if (lua_type(L, idx) != LUA_TNUMBER) return td_request_type(L, idx, "schedule_at", AT_WANTED, err);
    double seconds = lua_tonumber(L, idx);
    if (!(seconds >= (double)(TD_ENQUEUE_AT_MIN_US / 1000000) && seconds <= (double)(TD_ENQUEUE_AT_MAX_US / 1000000))) {
        return refuse_number(L, idx, "schedule_at", AT_WANTED ", in the years 1 to 9999", err);
    }
    r->options.schedule_at_us =
        lua_isinteger(L, idx) ? (int64_t)lua_tointeger(L, idx) * 1000000 : llround(seconds * 1e6);
    return 0;
}

/* read_text reads a string into *text. */
static int read_text(lua_State *L, int idx, const char *field, const char *what, size_t max, const char **text,
                     tidemill_error *err) {
    if (lua_type(L, idx) != LUA_TSTRING) return td_request_type(L, idx, field, "a string", err);
    size_t len;
    *text = lua_tolstring(L, idx, &len);
    return td_enqueue_text(field, what, *text, len, max, err);
}

static int read_queue(lua_State *L, int idx, td_request *r, tidemill_error *err) {
    return read_text(L, idx, "queue", "name", TD_ENQUEUE_QUEUE_MAX, &r->options.queue, err);
}

static int read_unique_key(lua_State *L, int idx, td_request *r, tidemill_error *err) {
    return read_text(L, idx, "unique_key", "key", TD_ENQUEUE_KEY_MAX, &r->options.unique_key, err);
}

/* read_whole reads a whole number, also one that is a float (3.0). */
static int read_whole(lua_State *L, int idx, const char *field, int min, int max, int *out, tidemill_error *err) {
    char shown[32], wanted[48];
    int whole;
    if (lua_type(L, idx) != LUA_TNUMBER) {
        snprintf(wanted, sizeof wanted, "a whole number from %d to %d", min, max);
        return td_request_type(L, idx, field, wanted, err);
    }
    lua_Integer value = lua_tointegerx(L, idx, &whole);
    if (!whole || value < min || value > max) {
        show(L, idx, shown);
        return td_enqueue_not_whole(field, shown, min, max, err);
    }
    *out = (int)value;
    return 0;
}

static int read_max_attempts(lua_State *L, int idx, td_request *r, tidemill_error *err) {
    return read_whole(L, idx, "max_attempts", 1, TD_ENQUEUE_ATTEMPTS_MAX, &r->options.max_attempts, err);
}

static int read_priority(lua_State *L, int idx, td_request *r, tidemill_error *err) {
    return read_whole(L, idx, "priority", 0, TD_ENQUEUE_PRIORITY_MAX, &r->options.priority, err);
}

/* count_keys returns how many keys a table has. */
static size_t count_keys(lua_State *L, int idx) {
    size_t count = 0;
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        lua_pop(L, 1);
        count++;
    }
    return count;
}

static int read_tags(lua_State *L, int idx, td_request *r, tidemill_error *err) {
    if (!lua_istable(L, idx)) return td_request_type(L, idx, "tags", TAGS_WANTED, err);
    size_t count = (size_t)lua_rawlen(L, idx);
    if (count > TD_ENQUEUE_TAGS_MAX) {
        return td_error_field(err, "tags", "tags: %zu tags are not allowed; give at most %d", count,
                              TD_ENQUEUE_TAGS_MAX);
    }
    if (count_keys(L, idx) != count) {
        return td_error_field(err, "tags",
                              "tags: a table with other keys than 1, 2, ... is not allowed; give " TAGS_WANTED);
    }
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, idx, (lua_Integer)i + 1);
        int rc = read_text(L, lua_gettop(L), "tags", "tag", TD_ENQUEUE_TAG_MAX, &r->tags[i], err);
        lua_pop(L, 1); /* the table holds it */
        if (rc < 0) return rc;
    }
    r->options.tags = r->tags;
    r->options.tags_count = count;
    return 0;
}

/* ---- The table ---- */

typedef int read_fn(lua_State *L, int idx, td_request *r, tidemill_error *err);

static const char *const names[] = { "schedule_in", "schedule_at", "queue", "max_attempts", "unique_for", "unique_key",
                                     "priority",    "tags",        NULL };
static read_fn *const readers[] = { read_schedule_in, read_schedule_at, read_queue,    read_max_attempts,
                                    read_unique_for,  read_unique_key,  read_priority, read_tags };

/* refuse_key refuses a key, at idx, that is no option's name. */
static int refuse_key(lua_State *L, int idx, tidemill_error *err) {
    if (lua_type(L, idx) != LUA_TSTRING) {
        return td_error_field(err, "options", "options: a %s as a key is not allowed; give names such as queue",
                              lua_typename(L, lua_type(L, idx)));
    }
    td_buf shown = { 0 };
    size_t len;
    const char *key = lua_tolstring(L, idx, &len), *near = strlen(key) == len ? td_nearest(key, names) : NULL;
    td_text_clean(&shown, key, len, 64);
    key = shown.failed || !shown.data ? "" : shown.data;
    int rc;
    if (near) {
        rc = td_error_field(err, key, "%s: there is no such option; did you mean %s?", key, near);
    } else {
        rc = td_error_field(err, key,
                            "%s: there is no such option; there are schedule_in, schedule_at, queue, max_attempts, "
                            "unique_for, unique_key, priority and tags",
                            key);
    }
    td_buf_free(&shown);
    return rc;
}

/* read_option reads the key and the value on top of the stack. */
static int read_option(lua_State *L, td_request *r, tidemill_error *err) {
    int value = lua_gettop(L), key = value - 1;
    for (size_t i = 0; i < TD_COUNT(readers) && lua_type(L, key) == LUA_TSTRING; i++) {
        size_t len;
        const char *name = lua_tolstring(L, key, &len);
        if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0) return readers[i](L, value, r, err);
    }
    return refuse_key(L, key, err);
}

int td_request_options(lua_State *L, int idx, td_request *r, tidemill_error *err) {
    r->options = (tidemill_options)TIDEMILL_OPTIONS;
    if (lua_isnoneornil(L, idx)) return 0;
    if (!lua_istable(L, idx)) return td_request_type(L, idx, "options", "a table", err);
    if (!lua_checkstack(L, 8)) return td_error_memory(err);
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        int rc = read_option(L, r, err);
        lua_pop(L, rc < 0 ? 2 : 1);
        if (rc < 0) return rc;
    }
    return 0;
}
