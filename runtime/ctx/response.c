/* response.c: from libcurl's callbacks by way of a chunk into a string or a file; header lines into a table. */
#include "response.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CHUNK = 64 << 10, /* more than libcurl hands over at once (CURL_MAX_WRITE_SIZE) */
    HEAD_MAX = 256 << 10,
};

static int fail_errno(td_response *r, const char *what, const char *path) {
    return td_failure_set(&r->failure, "io", "%s: %s: %s", path, what, strerror(errno));
}

static long status_of(td_response *r) {
    long status = 0;
    curl_easy_getinfo(r->transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

/* for_file says whether the body belongs into the file. */
static bool for_file(td_response *r) {
    return r->path && status_of(r) / 100 == 2;
}

/* ---- On the loop ---- */

static size_t on_body(char *data, size_t one, size_t len, void *arg) {
    td_response *r = arg;
    (void)one;
    if (r->chunk_len + len > CHUNK) {
        r->full = true;
        td_fiber_wake(r->transfer->fiber);
        return CURL_WRITEFUNC_PAUSE;
    }
    size_t max = for_file(r) ? r->max_file : r->max_memory;
    if (len > max - r->total) {
        r->failed = true;
        td_failure_set(&r->failure, "limit", "the response is larger than max_size, %zu bytes", max);
        return CURL_WRITEFUNC_ERROR;
    }
    memcpy(r->chunk + r->chunk_len, data, len);
    r->chunk_len += len;
    r->total += len;
    return len;
}

/* on_head keeps the lines of the last answer: others come before it for redirects, proxies, and 100. */
static size_t on_head(char *data, size_t one, size_t len, void *arg) {
    td_response *r = arg;
    (void)one;
    if (len >= 5 && strncasecmp(data, "HTTP/", 5) == 0) td_buf_clear(&r->head);
    if (len > HEAD_MAX - r->head.len) {
        r->failed = true;
        td_failure_set(&r->failure, "limit", "the response's headers are longer than %d KiB", HEAD_MAX >> 10);
        return 0;
    }
    td_buf_add(&r->head, data, len);
    return r->head.failed ? 0 : len;
}

int td_response_init(td_response *r, td_transfer *transfer) {
    CURL *easy = transfer->easy;
    r->transfer = transfer;
    r->fd = -1;
    r->chunk = malloc(CHUNK);
    if (!r->chunk) return td_failure_memory(&r->failure);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, (void *)r);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_head);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, (void *)r);
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    return 0;
}

/* ---- The file ---- */

static void close_file(td_response *r) {
    if (r->fd >= 0) close(r->fd);
    r->fd = -1;
}

void td_response_fini(td_response *r) {
    close_file(r);
    if (r->part) unlink(r->part);
    free(r->part);
    free(r->path);
    free(r->chunk);
    td_buf_free(&r->head);
}

int td_response_file(td_response *r, const char *path) {
    struct stat st;
    td_buf part = { 0 };
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        return td_failure_set(&r->failure, "invalid", "to_file: %.900s is there, and is no file", path);
    }
    td_buf_printf(&part, "%s.%016" PRIx64 ".part", path, td_random64());
    char *name = td_buf_take(&part);
    r->path = td_strdup(path);
    if (name && r->path) r->fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (r->fd >= 0) {
        r->part = name;
        return 0;
    }
    bool memory = !name || !r->path;
    free(name);
    return memory ? td_failure_memory(&r->failure) : fail_errno(r, "the file cannot be made", path);
}

/* put writes the chunk to the file: into the page cache, which holds the thread no longer than the copying does. */
static int put(td_response *r) {
    size_t done = 0;
    while (done < r->chunk_len) {
        ssize_t n = write(r->fd, r->chunk + done, r->chunk_len - done);
        if (n < 0 && errno != EINTR) return fail_errno(r, "the file cannot be written", r->path);
        if (n > 0) done += (size_t)n;
    }
    return 0;
}

int td_response_finish(td_response *r) {
    if (!for_file(r)) return 0;
    int rc = close(r->fd);
    r->fd = -1;
    if (rc < 0 || rename(r->part, r->path) < 0) return fail_errno(r, "the file cannot be written", r->path);
    free(r->part);
    r->part = NULL;
    return 0;
}

/* ---- On the fiber ---- */

int td_response_receive(lua_State *L) {
    td_response *r = lua_touserdata(L, 1);
    luaL_Buffer body;
    td_curl_start(r->transfer);
    luaL_buffinit(L, &body);
    for (;;) {
        while (!r->transfer->done && !r->full) td_fiber_park();
        bool to_file = for_file(r);
        if (to_file && put(r) < 0) return 0;
        if (!to_file) luaL_addlstring(&body, r->chunk, r->chunk_len);
        r->chunk_len = 0;
        if (r->transfer->done) break;
        r->full = false;
        /* This may hand over the next piece at once. What fails there ends the transfer, but libcurl only says so here.
         */
        CURLcode resumed = curl_easy_pause(r->transfer->easy, CURLPAUSE_CONT);
        if (resumed != CURLE_OK) {
            r->transfer->result = resumed;
            break;
        }
    }
    if (r->failed || td_curl_result(r->transfer, &r->failure) < 0) return 0;
    luaL_pushresult(&body);
    if (for_file(r)) lua_pushnil(L);
    r->received = true;
    return 1;
}

/* ---- The headers ---- */

/* push_name pushes a header's name in lower case. */
static void push_name(lua_State *L, const char *name, size_t len) {
    luaL_Buffer b;
    char *lower = luaL_buffinitsize(L, &b, len);
    for (size_t i = 0; i < len; i++) lower[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i]);
    luaL_pushresultsize(&b, len);
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

/* add_header adds a line, without its end, to the table on top of the stack. Several of one name are joined. */
static void add_header(lua_State *L, const char *line, size_t len) {
    const char *colon = memchr(line, ':', len);
    if (!colon) return;
    const char *value = colon + 1, *end = line + len;
    while (value < end && is_blank(*value)) value++;
    while (end > value && is_blank(end[-1])) end--;
    push_name(L, line, (size_t)(colon - line));
    lua_pushvalue(L, -1);
    if (lua_rawget(L, -3) == LUA_TSTRING) {
        bool cookie = strcmp(lua_tostring(L, -2), "set-cookie") == 0;
        lua_pushstring(L, cookie ? "\n" : ", ");
        lua_pushlstring(L, value, (size_t)(end - value));
        lua_concat(L, 3);
    } else {
        lua_pop(L, 1);
        lua_pushlstring(L, value, (size_t)(end - value));
    }
    lua_rawset(L, -3);
}

static void push_headers(lua_State *L, const td_buf *head) {
    const char *line = head->data, *end = line ? line + head->len : NULL;
    lua_newtable(L);
    while (line && line < end) {
        const char *next = memchr(line, '\n', (size_t)(end - line));
        size_t len = (size_t)((next ? next : end) - line);
        if (len > 0 && line[len - 1] == '\r') len--;
        add_header(L, line, len);
        line = next ? next + 1 : end;
    }
}

int td_response_push(lua_State *L) {
    td_response *r = lua_touserdata(L, 1);
    char *url = NULL;
    curl_easy_getinfo(r->transfer->easy, CURLINFO_EFFECTIVE_URL, &url);
    lua_createtable(L, 0, 5);
    lua_pushinteger(L, status_of(r));
    lua_setfield(L, -2, "status");
    push_headers(L, &r->head);
    lua_setfield(L, -2, "headers");
    lua_pushvalue(L, 2);
    lua_setfield(L, -2, "body");
    lua_pushstring(L, url);
    lua_setfield(L, -2, "url");
    if (for_file(r)) {
        lua_pushstring(L, r->path);
        lua_setfield(L, -2, "file");
    }
    return 1;
}
