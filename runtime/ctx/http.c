/* http.c: tidemill.http: request(options), get(url, options), post(url, body, options).

   What a call holds is a request, which the fiber owns by way of its transfer. It is filled in by `build`, a protected
   call, because reading Lua's tables may raise. */
#include "libs.h"

#include "response.h"

#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { REDIRECTS_DEFAULT = 10, REDIRECTS_MAX = 100, TIMEOUT_DEFAULT_S = 30, METHOD_MAX = 32 };
#define TIMEOUT_MAX_S 86400.0
#define SIZE_MEMORY   ((size_t)16 << 20)
#define SIZE_FILE     ((size_t)1 << 30)
#define SIZE_MAX_GIVE ((lua_Integer)1 << 50)
#define HTTP          "tidemill.http"

typedef struct request {
    td_transfer transfer;
    td_response response;
    struct curl_slist *headers;
    char method[METHOD_MAX + 1];
    bool typed, expected, agent; /* which headers were given: Content-Type, Expect, User-Agent */
} request;

static void request_free(td_transfer *transfer) {
    request *r = td_container(transfer, request, transfer);
    td_response_fini(&r->response);
    curl_slist_free_all(r->headers);
    free(r);
}

/* ---- Options. What is misspelt or of a wrong type raises; the readers return 0, or -1 with the failure set for what
   may come from the job's data. The options are at stack index OPTIONS, and what they refer to stays alive at HELD.
   ---- */

enum { REQUEST = 1, OPTIONS = 2, HELD = 3 };

static int refuse(request *r, const char *format, const char *what) {
    return td_failure_set(&r->response.failure, "invalid", format, what);
}

static int no_memory(request *r) {
    return td_failure_memory(&r->response.failure);
}

/* set returns 0 if libcurl took an option. */
static int set(request *r, CURLcode result) {
    return result == CURLE_OK ? 0 : no_memory(r);
}

static int wrong_type(lua_State *L, const char *option, const char *wanted) {
    return luaL_error(L, HTTP ": %s: %s is not allowed; give %s", option, luaL_typename(L, -1), wanted);
}

/* push_option pushes an option, metamethods left aside: what it returns the table keeps alive. */
static int push_option(lua_State *L, const char *name) {
    lua_pushstring(L, name);
    return lua_rawget(L, OPTIONS);
}

/* get_text reads an option that is a string; *text is NULL if it is not given, or false. It stays on the stack's table
   HELD. *refused is set for a NUL byte. */
static const char *get_text(lua_State *L, request *r, const char *name, bool *refused) {
    size_t len;
    int type = push_option(L, name);
    if (type == LUA_TNIL || (type == LUA_TBOOLEAN && !lua_toboolean(L, -1))) {
        lua_pop(L, 1);
        return NULL;
    }
    if (type != LUA_TSTRING) wrong_type(L, name, "a string");
    const char *text = lua_tolstring(L, -1, &len);
    if (strlen(text) != len) *refused = refuse(r, "%s: a NUL byte is not allowed", name) < 0;
    lua_setfield(L, HELD, name);
    return text;
}

static void check_names(lua_State *L) {
    static const char *const names[] = { "url",     "method", "headers", "body", "timeout",  "max_size", "follow",
                                         "to_file", "proxy",  "ca_file", "user", "password", "verify",   NULL };
    const char *name = td_failure_unknown(L, OPTIONS, names);
    if (!name) return;
    const char *nearest = td_nearest(name, names);
    luaL_error(L, HTTP ": %s: there is no such option; %s%s", name,
               nearest ? "did you mean " : "give url, method, headers, body, ...", nearest ? nearest : "");
}

static int read_url(lua_State *L, request *r) {
    bool refused = false;
    const char *url = get_text(L, r, "url", &refused);
    if (refused) return -1;
    if (!url) return luaL_error(L, HTTP ": url: this option is missing; give http://... or https://...");
    if (strncasecmp(url, "http://", 7) != 0 && strncasecmp(url, "https://", 8) != 0) {
        return refuse(r, "url: %.200s is not allowed; give http://... or https://...", url);
    }
    for (const char *p = url; *p; p++) {
        if ((unsigned char)*p <= ' ' || *p == 127)
            return refuse(r, "url: %s", "spaces and control characters are not allowed; encode them as %XX");
    }
    return set(r, curl_easy_setopt(r->transfer.easy, CURLOPT_URL, url));
}

/* read_flag returns an option that is a boolean. */
static bool read_flag(lua_State *L, const char *name, bool otherwise) {
    int type = push_option(L, name);
    bool value = type == LUA_TNIL ? otherwise : lua_toboolean(L, -1);
    if (type != LUA_TNIL && type != LUA_TBOOLEAN) wrong_type(L, name, "true or false");
    lua_pop(L, 1);
    return value;
}

/* read_limits reads timeout and max_size. */
static int read_limits(lua_State *L, request *r) {
    double timeout_s = TIMEOUT_DEFAULT_S;
    if (push_option(L, "timeout") != LUA_TNIL) {
        timeout_s = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : NAN;
        if (!(timeout_s > 0 && timeout_s <= TIMEOUT_MAX_S)) {
            return luaL_error(L, HTTP ": timeout: %s is not allowed; give a number of seconds above 0, up to a day",
                              luaL_tolstring(L, -1, NULL));
        }
    }
    r->response.max_memory = SIZE_MEMORY;
    r->response.max_file = SIZE_FILE;
    if (push_option(L, "max_size") != LUA_TNIL) {
        lua_Integer max = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : -1;
        if (max < 0 || max > SIZE_MAX_GIVE) {
            return luaL_error(L, HTTP ": max_size: %s is not allowed; give a whole number of bytes",
                              luaL_tolstring(L, -1, NULL));
        }
        r->response.max_memory = r->response.max_file = (size_t)max;
    }
    lua_pop(L, 2);
    r->transfer.deadline_ns = td_now_ns() + (uint64_t)(timeout_s * 1e9);
    return 0;
}

/* ---- Headers ---- */

static bool is_token(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (text[i] <= ' ' || text[i] >= 127 || strchr("()<>@,;:\\\"/[]?={}", text[i])) return false;
    }
    return len > 0;
}

/* check_header refuses what would make another header, or another body, of it. */
static int check_header(request *r, const char *name, size_t name_len, const char *value, size_t len) {
    static const char *const own[] = { "content-length", "transfer-encoding" };
    if (!is_token(name, name_len) || name_len > 100) {
        return refuse(r, "headers: %s", "the name of a header is up to 100 letters, digits and dashes");
    }
    for (size_t i = 0; i < TD_COUNT(own); i++) {
        if (strcasecmp(name, own[i]) == 0)
            return refuse(r, "headers: %s is not allowed; it is set from the body", name);
    }
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)value[i];
        if ((c < ' ' && c != '\t') || c == 127) {
            return refuse(r, "headers: %s: a line break or another control character is not allowed", name);
        }
    }
    return 0;
}

static int append_header(request *r, const char *line) {
    struct curl_slist *longer = curl_slist_append(r->headers, line);
    if (!longer) return no_memory(r);
    r->headers = longer;
    return 0;
}

/* add_header takes a header's name, at index name, and its value on top of the stack. */
static int add_header(lua_State *L, request *r, int name_at) {
    size_t name_len, len;
    if (lua_type(L, -1) != LUA_TSTRING && lua_type(L, -1) != LUA_TNUMBER)
        return wrong_type(L, "headers", "names with strings, or lists of strings");
    lua_pushvalue(L, -1); /* a number becomes a string, which lua_next would mind */
    const char *value = lua_tolstring(L, -1, &len), *name = lua_tolstring(L, name_at, &name_len);
    int rc = check_header(r, name, name_len, value, len);
    if (rc == 0) {
        /* libcurl takes "Name:" for a header to be left out, and "Name;" for an empty one. */
        bool empty = strspn(value, " \t") == len;
        rc = append_header(r, empty ? lua_pushfstring(L, "%s;", name) : lua_pushfstring(L, "%s: %s", name, value));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    r->typed = r->typed || strcasecmp(name, "content-type") == 0;
    r->expected = r->expected || strcasecmp(name, "expect") == 0;
    r->agent = r->agent || strcasecmp(name, "user-agent") == 0;
    return rc;
}

/* read_headers reads the option `headers`. Those that libcurl would add by itself are left out. */
static int read_headers(lua_State *L, request *r) {
    int type = push_option(L, "headers"), table = lua_gettop(L), rc = 0;
    if (type != LUA_TNIL && type != LUA_TTABLE) wrong_type(L, "headers", "a table of names and values");
    lua_pushnil(L);
    while (type == LUA_TTABLE && lua_next(L, table)) {
        int value = lua_gettop(L);
        if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, HTTP ": headers: give a table of names and values");
        lua_Integer count = lua_istable(L, value) ? (lua_Integer)lua_rawlen(L, value) : 0;
        for (lua_Integer i = 1; rc == 0 && i <= count; i++) {
            lua_rawgeti(L, value, i);
            rc = add_header(L, r, value - 1);
            lua_pop(L, 1);
        }
        if (rc == 0 && !lua_istable(L, value)) rc = add_header(L, r, value - 1);
        if (rc < 0) return rc;
        lua_pop(L, 1);
    }
    lua_settop(L, table - 1);
    if (!r->typed) rc = append_header(r, "Content-Type:");
    if (rc == 0 && !r->expected) rc = append_header(r, "Expect:");
    if (rc == 0 && !r->agent) rc = append_header(r, "User-Agent: tidemill/" TIDEMILL_VERSION);
    return rc < 0 ? rc : set(r, curl_easy_setopt(r->transfer.easy, CURLOPT_HTTPHEADER, r->headers));
}

/* ---- Method, body, redirects ---- */

/* read_method fills in r->method, in capital letters. */
static int read_method(lua_State *L, request *r, bool body) {
    bool refused = false;
    const char *method = get_text(L, r, "method", &refused);
    if (refused) return -1;
    if (!method) method = body ? "POST" : "GET";
    size_t len = strlen(method);
    for (size_t i = 0; i < len && i < METHOD_MAX; i++) {
        r->method[i] = (char)(method[i] >= 'a' && method[i] <= 'z' ? method[i] - 32 : method[i]);
    }
    if (len <= METHOD_MAX && is_token(r->method, len) && strcmp(r->method, "CONNECT") != 0) return 0;
    return refuse(r, "method: %.100s is not allowed; give GET, POST, PUT, ...", method);
}

/* set_body tells libcurl of the body, which Lua keeps. */
static int set_body(request *r, const char *body, size_t len) {
    CURL *easy = r->transfer.easy;
    int rc = set(r, curl_easy_setopt(easy, CURLOPT_POST, 1L));
    if (rc == 0) rc = set(r, curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len));
    return rc < 0 ? rc : set(r, curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body));
}

/* read_call reads method, body and follow. libcurl would repeat any other method than these three after a redirect that
   asks for a GET, so redirects are followed for those only. */
static int read_call(lua_State *L, request *r) {
    size_t len = 0;
    CURL *easy = r->transfer.easy;
    int type = push_option(L, "body");
    if (type != LUA_TNIL && type != LUA_TSTRING) wrong_type(L, "body", "a string");
    const char *body = type == LUA_TSTRING ? lua_tolstring(L, -1, &len) : NULL;
    lua_setfield(L, HELD, "body");
    int rc = read_method(L, r, body != NULL);
    if (rc < 0) return rc;
    bool get = !body && strcmp(r->method, "GET") == 0, head = !body && strcmp(r->method, "HEAD") == 0;
    bool post = strcmp(r->method, "POST") == 0,
         sends = post || strcmp(r->method, "PUT") == 0 || strcmp(r->method, "PATCH") == 0;
    if (body || sends) rc = set_body(r, body ? body : "", len);
    if (rc == 0 && head) rc = set(r, curl_easy_setopt(easy, CURLOPT_NOBODY, 1L));
    if (rc == 0 && !get && !head && !post) rc = set(r, curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, r->method));
    if (rc < 0) return rc;

    lua_Integer follow = get || head || post ? REDIRECTS_DEFAULT : 0;
    type = push_option(L, "follow");
    if (type == LUA_TBOOLEAN && !lua_toboolean(L, -1)) follow = 0;
    if (type == LUA_TNUMBER) follow = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : -1;
    if ((type != LUA_TNIL && type != LUA_TBOOLEAN && type != LUA_TNUMBER) || follow < 0 || follow > REDIRECTS_MAX)
        return luaL_error(L, HTTP ": follow: give the number of redirects to follow, 0 to %d, or false", REDIRECTS_MAX);
    if (follow > 0 && !get && !head && !post)
        return luaL_error(L, HTTP ": follow: redirects of a %s are not followed; look at the response's location",
                          r->method);
    lua_pop(L, 1);
    if (follow > 0) rc = set(r, curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L));
    return rc < 0 ? rc : set(r, curl_easy_setopt(easy, CURLOPT_MAXREDIRS, (long)follow));
}

/* ---- The connection ---- */

/* read_connection reads proxy, ca_file, verify, user and password. */
static int read_connection(lua_State *L, request *r) {
    bool refused = false;
    CURL *easy = r->transfer.easy;
    const char *proxy = get_text(L, r, "proxy", &refused), *ca_file = get_text(L, r, "ca_file", &refused);
    const char *user = get_text(L, r, "user", &refused), *password = get_text(L, r, "password", &refused);
    if (refused) return -1;
    bool direct = push_option(L, "proxy") == LUA_TBOOLEAN;
    lua_pop(L, 1);
    int rc = set(r, curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https"));
    if (rc == 0) rc = set(r, curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https"));
    if (rc == 0 && (proxy || direct)) rc = set(r, curl_easy_setopt(easy, CURLOPT_PROXY, proxy ? proxy : ""));
    if (rc == 0 && ca_file) rc = set(r, curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file));
    if (rc == 0 && user) rc = set(r, curl_easy_setopt(easy, CURLOPT_USERNAME, user));
    if (rc == 0 && password) rc = set(r, curl_easy_setopt(easy, CURLOPT_PASSWORD, password));
    if (rc == 0 && !read_flag(L, "verify", true)) {
        rc = set(r, curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L));
        if (rc == 0) rc = set(r, curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L));
    }
    return rc;
}

static int read_file(lua_State *L, request *r) {
    bool refused = false;
    const char *path = get_text(L, r, "to_file", &refused);
    if (refused) return -1;
    return path ? td_response_file(&r->response, path) : 0;
}

/* build(request, options, held) sets up the transfer. Returns whether it is all right; else the failure says why. */
static int build(lua_State *L) {
    request *r = lua_touserdata(L, REQUEST);
    luaL_checkstack(L, 12, HTTP);
    check_names(L);
    bool ok = read_url(L, r) == 0 && read_limits(L, r) == 0 && read_call(L, r) == 0 && read_headers(L, r) == 0 &&
              read_connection(L, r) == 0 && read_file(L, r) == 0;
    lua_pushboolean(L, ok);
    return 1;
}

/* ---- The module ---- */

/* call_with calls one of the protected functions with the request and n values on top of the stack, for one result.
   Returns Lua's status. */
static int call_with(lua_State *L, lua_CFunction fn, void *arg, int n) {
    lua_pushcfunction(L, fn);
    lua_pushlightuserdata(L, arg);
    lua_rotate(L, -(n + 2), 2);
    return lua_pcall(L, n + 1, 1, 0);
}

/* perform makes the request by the options at index 1, with an empty table at 2. Returns Lua's status, with the
   response or an error on top of the stack; *done is whether there is a response. */
static int perform(lua_State *L, request *r, bool *done) {
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    int status = call_with(L, build, r, 2);
    if (status != LUA_OK || !lua_toboolean(L, -1)) return status;
    status = call_with(L, td_response_receive, &r->response, 0);
    if (status != LUA_OK || !r->response.received) return status;
    status = call_with(L, td_response_push, &r->response, 1);
    if (status == LUA_OK) *done = td_response_finish(&r->response) == 0;
    return status;
}

/* l_request: see the table below. The options are at index 1. */
static int l_request(lua_State *L) {
    td_failure failure;
    bool done = false;
    td_failure_outside(L, HTTP ".request");
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    luaL_checkstack(L, 10, HTTP);
    lua_newtable(L);
    request *r = calloc(1, sizeof *r);
    if (!r) {
        td_failure_memory(&failure);
        return td_failure_push(L, &failure);
    }
    r->response.fd = -1;
    if (td_curl_begin(&r->transfer, request_free, &failure) < 0) return td_failure_push(L, &failure);
    int status = LUA_OK;
    if (td_response_init(&r->response, &r->transfer) == 0) status = perform(L, r, &done);
    failure = r->response.failure;
    td_curl_end(&r->transfer);
    if (status != LUA_OK) return lua_error(L);
    return done ? 1 : td_failure_push(L, &failure);
}

/* shorthand pushes a copy of the options at idx (nil: none) with the url at index 1 and a method. Returns its index. */
static int shorthand(lua_State *L, int idx, const char *method) {
    luaL_checktype(L, 1, LUA_TSTRING);
    if (!lua_isnoneornil(L, idx)) luaL_checktype(L, idx, LUA_TTABLE);
    lua_settop(L, idx);
    lua_newtable(L);
    lua_pushnil(L);
    while (lua_istable(L, idx) && lua_next(L, idx)) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, idx + 1);
    }
    lua_settop(L, idx + 1);
    lua_pushvalue(L, 1);
    lua_setfield(L, -2, "url");
    lua_pushstring(L, method);
    lua_setfield(L, -2, "method");
    return idx + 1;
}

static int l_get(lua_State *L) {
    shorthand(L, 2, "GET");
    lua_replace(L, 1);
    return l_request(L);
}

static int l_post(lua_State *L) {
    int options = shorthand(L, 3, "POST");
    luaL_checktype(L, 2, LUA_TSTRING);
    lua_pushvalue(L, 2);
    lua_setfield(L, options, "body");
    lua_replace(L, 1);
    return l_request(L);
}

/* request(options): {status, headers, body, url}, or nil, message, code. An answer of any status is an answer, not a
   failure. It waits without holding the thread; a job that ends meanwhile ends the request.
     url       http:// or https://, without spaces; what is not ASCII is encoded by the caller
     method    GET, or POST if there is a body, unless given
     headers   a table of names, and strings or lists of strings. Host, Authorization and Cookie are kept from other
               hosts when a redirect leads there; all others are sent there too.
     body      a string. Its Content-Type is in headers, or there is none.
     timeout   seconds for all of it; 30 unless given
     max_size  bytes that the body may have; 16 MiB unless given, 1 GiB in a file
     follow    how many redirects to follow, to http and https only; 10 unless given, false is 0. GET, HEAD and POST
   only (after 301, 302 and 303 a POST becomes a GET); the redirects of other methods are answers. to_file   a path: the
   body of a successful answer (2xx) is written there, and response.file is the path. The file appears when it is whole;
   a failure leaves what was there before. Other answers have a body. proxy     http://host:port, https://, socks5://,
   socks5h://; false: none. Unless given, the environment's (http_proxy, https_proxy, no_proxy). ca_file   certificates
   to trust, in place of the system's; verify = false trusts anybody user, password   for Basic authentication; kept
   from other hosts when a redirect leads there status is a number; headers a table by names in lower case, several of
   one name joined by ", " (set-cookie: by "\n"); body a string; url the last one that was asked. Codes: invalid,
   connect, timeout, tls, limit (max_size, follow), denied, memory, io. What is misspelt or of a wrong type raises.
   get(url, options) and post(url, body, options) are request with these set. */
int td_http_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "request", l_request }, { "get", l_get }, { "post", l_post }, { NULL, NULL }
    };
    luaL_newlib(L, functions);
    return 1;
}
