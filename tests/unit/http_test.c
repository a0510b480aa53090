/* http_test.c: tidemill.http, with a real HTTP server (http_server.py). */
#include "server_fixture.h"

#include <dlfcn.h>
#include <netdb.h>
#include <stdatomic.h>

enum { MANY = 100, AT_ONCE = 500 };

/* arg is the port. The script's get and request begin urls that are paths with the server's; show tells what came. */
#define HTTP                                                                                                           \
    "local http = require 'tidemill.http'; local port, number = ...; local base = 'http://127.0.0.1:' .. port "        \
    "local function show(r, message, code) if not r then return code .. ': ' .. message end "                          \
    "return r.status .. ' ' .. tostring(r.body) end "                                                                  \
    "local function request(o) o.url = o.url or base .. o.path; o.path = nil return http.request(o) end "              \
    "local function get(path, o) return http.get(base .. path, o) end "

static server plain;

static int start_plain(void **state) {
    static const char *const names[] = { "http_proxy", "https_proxy", "no_proxy", "all_proxy",
                                         "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY" };
    (void)state;
    for (size_t i = 0; i < TD_COUNT(names); i++) unsetenv(names[i]);
    server_folder(&plain);
    server_start(&plain, "http_server.py", "plain");
    return 0;
}

static int stop_plain(void **state) {
    (void)state;
    server_stop(&plain);
    return 0;
}

/* assert_contains runs a script and looks for a piece of its text. */
static void assert_contains(lib *t, const char *script, const char *arg, const char *piece) {
    char *text = lib_run(t, script, arg);
    if (!strstr(text, piece)) fail_msg("there is no \"%s\" in:\n%s", piece, text);
    free(text);
}

/* ends_so_far returns how many connections the server has seen end, once those of earlier tests are among them. */
static int ends_so_far(void) {
    EVENTUALLY(file_lines(&plain.t, "begun") == file_lines(&plain.t, "ended"));
    return file_lines(&plain.t, "ended");
}

/* ---- Requests ---- */

static void a_get_returns_status_headers_body_and_url(void **state) {
    ASSERT_RUN(*state, HTTP "return show(get('/status/200'))", plain.port, "200 status 200");
    ASSERT_RUN(*state, HTTP "return show(get('/status/404'))", plain.port, "404 status 404");
    ASSERT_RUN(*state, HTTP "return show(get('/size/0'))", plain.port, "200 ");
    ASSERT_RUN(*state,
               HTTP "local r = get('/size/3') return r.url == base .. '/size/3' and r.headers['content-length']",
               plain.port, "3");
    ASSERT_RUN(*state, HTTP "return (get('/echo/a?b=c%20d#e').body:gsub(port, 'PORT'))", plain.port,
               "GET /echo/a?b=c%20d\naccept: */*\nhost: 127.0.0.1:PORT\nuser-agent: tidemill/" TIDEMILL_VERSION "\n\n");
}

static void methods_bodies_and_headers_go_out_as_given(void **state) {
    lib *t = *state;
    assert_contains(t, HTTP "return http.post(base .. '/echo', 'a\\0b').body:gsub('%z', '0')", plain.port,
                    "POST /echo\naccept: */*\ncontent-length: 3\nhost:");
    assert_contains(t, HTTP "return (http.post(base .. '/echo', 'a\\0b').body:gsub('%z', '0'))", plain.port, "\n\na0b");
    assert_contains(t, HTTP "return http.post(base .. '/echo', '').body", plain.port, "content-length: 0\n");
    assert_contains(t, HTTP "return request{ path = '/echo', body = 'x' }.body", plain.port, "POST /echo\n");
    assert_contains(t, HTTP "return request{ path = '/echo', method = 'put', body = 'x' }.body", plain.port,
                    "PUT /echo\n");
    assert_contains(t, HTTP "return request{ path = '/echo', method = 'PATCH' }.body", plain.port,
                    "content-length: 0\n");
    assert_contains(t, HTTP "return request{ path = '/echo', method = 'DELETE' }.body", plain.port, "DELETE /echo\n");
    assert_contains(t, HTTP "return request{ path = '/echo', method = 'GET', body = 'x' }.body", plain.port,
                    "GET /echo\n");
    ASSERT_RUN(t, HTTP "local r = request{ path = '/echo', method = 'HEAD' } return r.headers['x-method'] .. #r.body",
               plain.port, "HEAD0");
    assert_contains(t,
                    HTTP "return (request{ path = '/echo', headers = { ['X-A'] = 'b c', ['x-list'] = { '1', '2' }, "
                         "['X-Number'] = 7, ['X-Empty'] = '', ['User-Agent'] = 'me', Accept = 'text/plain', "
                         "['Content-Type'] = 'a/b' }, body = 'x' }.body:gsub(port, 'PORT'))",
                    plain.port,
                    "accept: text/plain\ncontent-length: 1\ncontent-type: a/b\nhost: 127.0.0.1:PORT\nuser-agent: "
                    "me\nx-a: b c\nx-empty: \nx-list: 2\nx-number: 7\n\nx");
    assert_contains(t, HTTP "return get('/echo', { user = 'ann', password = 's:c' }).body", plain.port,
                    "authorization: Basic YW5uOnM6Yw==\n");
}

static void headers_of_the_answer_come_by_their_names_in_lower_case(void **state) {
    ASSERT_RUN(*state,
               HTTP
               "local h = get('/cookies').headers return h['set-cookie'] .. '|' .. h['x-two'] .. '|' .. h['x-empty'] "
               ".. '|' .. tostring(h['Set-Cookie'])",
               plain.port, "a=1, b\nc=2|one, two||nil");
}

static void a_body_of_any_size_arrives_whole(void **state) {
    lib *t = *state;
    ASSERT_RUN(t, HTTP "return #get('/size/10000000').body", plain.port, "10000000");
    ASSERT_RUN(t, HTTP "local r = get('/chunked/5000001') return #r.body .. tostring(r.body:find('[^x]'))", plain.port,
               "5000001nil");
    ASSERT_RUN(t,
               HTTP "return http.post(base .. '/echo', ('y'):rep(3000000)).body:match('\\n\\n(y+)$') == "
                    "('y'):rep(3000000)",
               plain.port, "true");
}

/* ---- Redirects ---- */

static void redirects_are_followed_within_bounds(void **state) {
    lib *t = *state;
    ASSERT_RUN(t, HTTP "local r = get('/to/302/' .. '/status/201') return r.status .. r.url:sub(#base + 1)", plain.port,
               "201/status/201");
    ASSERT_RUN(t, HTTP "return show(get('/to/302/' .. '/status/201', { follow = false }))", plain.port,
               "302 elsewhere");
    ASSERT_RUN(t, HTTP "return show(get('/to/302/' .. '/to/302/' .. '/status/201', { follow = 1 }))", plain.port,
               "limit: Maximum (1) redirects followed");
    ASSERT_RUN(t, HTTP "return show(get('/loop'))", plain.port, "limit: Maximum (10) redirects followed");
    assert_contains(t, HTTP "return http.post(base .. '/to/303/' .. '/echo', 'x').body", plain.port, "GET /echo\n");
    assert_contains(t, HTTP "return http.post(base .. '/to/307/' .. '/echo', 'x').body", plain.port, "POST /echo\n");
    ASSERT_RUN(t, HTTP "return show(request{ path = '/to/302/' .. '/echo', method = 'PUT', body = 'x' })", plain.port,
               "302 elsewhere");
    assert_contains(t, HTTP "return select(2, pcall(request, { path = '/', method = 'PUT', follow = 1 }))", plain.port,
                    "follow: redirects of a PUT are not followed");
    ASSERT_RUN(t, HTTP "return show(get('/to/302/' .. 'file:///etc/passwd'))", plain.port,
               "invalid: Protocol \"file\" not supported or disabled in libcurl");
    ASSERT_RUN(t, HTTP "return show(get('/to/302/' .. 'ftp://127.0.0.1/'))", plain.port,
               "invalid: Protocol \"ftp\" not supported or disabled in libcurl");
}

static void credentials_stay_with_their_host(void **state) {
    lib *t = *state;
    server other;
    char script[2000], arg[40];
    server_folder(&other);
    server_start(&other, "http_server.py", "plain");
    snprintf(script, sizeof script,
             HTTP "return get('/to/302/http://127.0.0.1:%s/echo', { user = 'ann', password = 'secret', headers = { "
                  "Cookie = 'a=1' } }).body",
             other.port);
    char *text = lib_run(t, script, plain.port);
    assert_non_null(strstr(text, "GET /echo\n"));
    assert_null(strstr(text, "authorization"));
    assert_null(strstr(text, "cookie"));
    free(text);
    snprintf(script, sizeof script,
             HTTP "return get('/to/302/http://127.0.0.1:%s/echo', { headers = { Authorization = 'Bearer x' } }).body",
             other.port);
    text = lib_run(t, script, plain.port);
    assert_non_null(strstr(text, "GET /echo\n"));
    assert_null(strstr(text, "authorization"));
    free(text);
    snprintf(arg, sizeof arg, "%s", plain.port);
    assert_contains(t, HTTP "return get('/to/302//echo', { user = 'ann', password = 'secret' }).body", arg,
                    "authorization: Basic");
    server_stop(&other);
}

/* ---- What is refused ---- */

static void what_would_change_the_request_is_refused(void **state) {
    static const char *const cases[][2] = {
        { "headers = { A = 'b\\r\\nX: y' }",
          "invalid: headers: A: a line break or another control character is not allowed" },
        { "headers = { A = 'b\\n' }", "invalid: headers: A: a line break or another control character is not allowed" },
        { "headers = { A = 'b\\0' }", "invalid: headers: A: a line break or another control character is not allowed" },
        { "headers = { A = { 'x', 'b\\rc' } }",
          "invalid: headers: A: a line break or another control character is not allowed" },
        { "headers = { ['A: b\\r\\nX'] = 'y' }",
          "invalid: headers: the name of a header is up to 100 letters, digits and dashes" },
        { "headers = { ['A\\0'] = 'y' }",
          "invalid: headers: the name of a header is up to 100 letters, digits and dashes" },
        { "headers = { [''] = 'y' }",
          "invalid: headers: the name of a header is up to 100 letters, digits and dashes" },
        { "headers = { ['Content-length'] = '5' }",
          "invalid: headers: Content-length is not allowed; it is set from the body" },
        { "headers = { ['Transfer-Encoding'] = 'chunked' }",
          "invalid: headers: Transfer-Encoding is not allowed; it is set from the body" },
        { "method = 'GET / HTTP/1.1\\r\\nX: y'",
          "invalid: method: GET / HTTP/1.1\r\nX: y is not allowed; give GET, POST, PUT, ..." },
        { "method = 'CONNECT'", "invalid: method: CONNECT is not allowed; give GET, POST, PUT, ..." },
        { "url = 'http://127.0.0.1/a b'",
          "invalid: url: spaces and control characters are not allowed; encode them as %XX" },
        { "url = 'http://127.0.0.1/\\r\\nX: y'",
          "invalid: url: spaces and control characters are not allowed; encode them as %XX" },
        { "url = 'http://a\\0b'", "invalid: url: a NUL byte is not allowed" },
        { "url = 'file:///etc/passwd'",
          "invalid: url: file:///etc/passwd is not allowed; give http://... or https://..." },
        { "url = 'http://'", "invalid: URL using bad/illegal format or missing URL" },
        { "user = 'a\\0'", "invalid: user: a NUL byte is not allowed" },
        { "to_file = '/dev/null'", "invalid: to_file: /dev/null is there, and is no file" },
        { "hedaers = {}", "tidemill.http: hedaers: there is no such option; did you mean headers" },
        { "url = 1", "tidemill.http: url: number is not allowed; give a string" },
        { "url = false", "tidemill.http: url: this option is missing; give http://... or https://..." },
        { "body = {}", "tidemill.http: body: table is not allowed; give a string" },
        { "timeout = 0", "tidemill.http: timeout: 0 is not allowed; give a number of seconds above 0, up to a day" },
        { "max_size = -1", "tidemill.http: max_size: -1 is not allowed; give a whole number of bytes" },
        { "follow = 'x'", "tidemill.http: follow: give the number of redirects to follow, 0 to 100, or false" },
        { "verify = 1", "tidemill.http: verify: number is not allowed; give true or false" },
        { "headers = { 'A: b' }", "tidemill.http: headers: give a table of names and values" },
        { "headers = { A = print }",
          "tidemill.http: headers: function is not allowed; give names with strings, or lists of strings" },
    };
    char script[1500];
    int before = file_lines(&plain.t, "requests");
    for (size_t i = 0; i < TD_COUNT(cases); i++) {
        snprintf(script, sizeof script,
                 HTTP "local o = { url = base .. '/echo' } for k, v in pairs{ %s } do o[k] = v end "
                      "local ok, r, m, c = pcall(http.request, o) return ok and show(r, m, c) or r",
                 cases[i][0]);
        ASSERT_RUN(*state, script, plain.port, cases[i][1]);
    }
    assert_int_equal(file_lines(&plain.t, "requests"), before);
}

static void outside_a_job_it_raises(void **state) {
    (void)state;
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    luaL_requiref(L, "tidemill.http", td_http_open, 1);
    lua_getfield(L, -1, "request");
    lua_newtable(L);
    assert_int_equal(lua_pcall(L, 1, 1, 0), LUA_ERRRUN);
    assert_string_equal(lua_tostring(L, -1), "tidemill.http.request: can only be called while a job runs");
    lua_close(L);
}

/* ---- Failures ---- */

static void failures_are_told_apart(void **state) {
    lib *t = *state;
    assert_contains(t, HTTP "return show(get('/hang', { timeout = 0.2 }))", plain.port, "timeout: ");
    assert_contains(t, HTTP "return show(get('/stall', { timeout = 0.2 }))", plain.port, "timeout: ");
    assert_contains(t, HTTP "return show(http.get('http://127.0.0.1:1/'))", plain.port, "connect: Failed to connect");
    assert_contains(t, HTTP "return show(http.get('http://no-such-host.invalid/'))", plain.port,
                    "connect: Could not resolve host");
    assert_contains(t, HTTP "return show(get('/half'))", plain.port, "io: transfer closed with 990 bytes remaining");
    assert_contains(t, HTTP "return show(get('/reject'))", plain.port, "invalid: Received HTTP/0.9 when not allowed");
}

static void size_is_limited(void **state) {
    lib *t = *state;
    ASSERT_RUN(t, HTTP "return #get('/size/1000', { max_size = 1000 }).body", plain.port, "1000");
    ASSERT_RUN(t, HTTP "return show(get('/size/1001', { max_size = 1000 }))", plain.port,
               "limit: the response is larger than max_size, 1000 bytes");
    ASSERT_RUN(t, HTTP "return show(get('/chunked/1001', { max_size = 1000 }))", plain.port,
               "limit: the response is larger than max_size, 1000 bytes");
    ASSERT_RUN(t, HTTP "return show(get('/size/16777217'))", plain.port,
               "limit: the response is larger than max_size, 16777216 bytes");
    /* also where the limit is met while a paused transfer goes on */
    ASSERT_RUN(t,
               HTTP "for i = 1, 100 do local max = 65536 * (i % 7 + 1) local r, _, code = get('/size/' .. max + 1, "
                    "{ max_size = max }) if code ~= 'limit' then return i .. show(r, _, code) end end return 'ok'",
               plain.port, "ok");
    ASSERT_RUN(t, HTTP "return show(get('/status/200', { max_size = 0 }))", plain.port,
               "limit: the response is larger than max_size, 0 bytes");
}

/* ---- Files ---- */

static void a_body_goes_to_a_file(void **state) {
    lib *t = *state;
    char script[1000], path[100];
    snprintf(path, sizeof path, "%s/out", t->dir);
    snprintf(script, sizeof script,
             HTTP
             "local r = get('/chunked/20000000', { to_file = '%s' }) return r.status .. tostring(r.body) .. r.file",
             path);
    char expected[200];
    snprintf(expected, sizeof expected, "200nil%s", path);
    ASSERT_RUN(t, script, plain.port, expected);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 20000000);
    snprintf(script, sizeof script, HTTP "local r = get('/size/0', { to_file = '%s' }) return r.status", path);
    ASSERT_RUN(t, script, plain.port, "200");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 0);
}

/* files counts what is in the test's folder, its handlers left aside. */
static int files(lib *t) {
    int n = 0;
    DIR *d = opendir(t->dir);
    while (readdir(d)) n++;
    closedir(d);
    return n - 3;
}

static void a_failure_leaves_no_part_of_a_file(void **state) {
    static const char *const cases[][2] = {
        { "/half", "io: " },
        { "/stall", "timeout: " },
        { "/size/2000", "limit: the response is larger than max_size, 1000 bytes" },
        { "/status/404", "404 status 404" },
        { "/status/500", "500 status 500" },
    };
    lib *t = *state;
    char script[1000], path[100];
    snprintf(path, sizeof path, "%s/out", t->dir);
    FILE *f = fopen(path, "w");
    fputs("before", f);
    fclose(f);
    for (size_t i = 0; i < TD_COUNT(cases); i++) {
        snprintf(script, sizeof script, HTTP "return show(get('%s', { to_file = '%s', timeout = %s, max_size = %s }))",
                 cases[i][0], path, i == 1 ? "0.3" : "20", i == 2 ? "1000" : "1000000");
        assert_contains(t, script, plain.port, cases[i][1]);
        assert_int_equal(files(t), 1);
        char *text = file_text(t, "out");
        assert_string_equal(text, "before");
        free(text);
    }
    assert_contains(t, HTTP "return show(get('/status/200', { to_file = '/no/such/folder/x' }))", plain.port,
                    "io: /no/such/folder/x: the file cannot be made: No such file or directory");
    int hanging = file_lines(&plain.t, "hanging");
    snprintf(script, sizeof script, HTTP "get('/stall', { to_file = '%s' })", path);
    job *j = job_start(t, script, plain.port, 0);
    EVENTUALLY(file_lines(&plain.t, "hanging") == hanging + 1);
    assert_int_equal(files(t), 2);
    job_drop(j);
    assert_int_equal(files(t), 1);
}

/* ---- Encryption and proxies ---- */

static void certificates_are_checked(void **state) {
    lib *t = *state;
    char script[1000];
    server s;
    server_folder(&s);
    certify(&s);
    server_start(&s, "http_server.py", "tls");
    assert_contains(t, HTTP "return show(http.get('https://127.0.0.1:' .. port .. '/status/200'))", s.port,
                    "tls: SSL certificate problem: self-signed certificate");
    ASSERT_RUN(t, HTTP "return show(http.get('https://127.0.0.1:' .. port .. '/status/200', { verify = false }))",
               s.port, "200 status 200");
    snprintf(script, sizeof script,
             HTTP "return #http.get('https://127.0.0.1:' .. port .. '/size/3000000', { ca_file = '%s/cert.pem' }).body",
             s.t.dir);
    ASSERT_RUN(t, script, s.port, "3000000");
    snprintf(script, sizeof script,
             HTTP "return show(http.get('https://localhost:' .. port .. '/status/200', { ca_file = '%s/cert.pem' }))",
             s.t.dir);
    assert_contains(t, script, s.port, "tls: SSL: no alternative certificate subject name matches");
    server_stop(&s);
}

static void a_proxy_is_used(void **state) {
    lib *t = *state;
    ASSERT_RUN(t, HTTP "return show(http.get('http://example.invalid/x', { proxy = base }))", plain.port,
               "200 proxied: GET http://example.invalid/x -");
    ASSERT_RUN(t, HTTP "return show(http.get('http://example.invalid/x', { proxy = 'http://u:p@127.0.0.1:' .. port }))",
               plain.port, "200 proxied: GET http://example.invalid/x Basic dTpw");
    char proxy[100];
    snprintf(proxy, sizeof proxy, "http://127.0.0.1:%s", plain.port);
    setenv("http_proxy", proxy, 1);
    ASSERT_RUN(t, HTTP "return show(http.get('http://example.invalid/x'))", plain.port,
               "200 proxied: GET http://example.invalid/x -");
    assert_contains(t, HTTP "return show(http.get('http://example.invalid/x', { proxy = false }))", plain.port,
                    "connect: Could not resolve host");
    unsetenv("http_proxy");
    assert_contains(t, HTTP "return show(get('/', { proxy = 'http://127.0.0.1:1' }))", plain.port, "connect: ");
}

/* ---- Memory ---- */

static void a_body_counts_against_the_jobs_memory(void **state) {
    lib *t = *state;
    int ended = ends_so_far();
    job *j = job_start_limited(t, HTTP "get('/size/16000000')", plain.port, 0, 4 << 20);
    job_wait(j);
    assert_true(j->raised);
    assert_string_equal(j->text, "not enough memory");
    job_free(j);
    EVENTUALLY(file_lines(&plain.t, "ended") == ended + 1);
}

static void each_lua_allocation_may_fail(void **state) {
    char script[700];
    snprintf(script, sizeof script,
             "local http = require 'tidemill.http' fail_after((...)) local r, message, code = http.request{ "
             "url = 'http://127.0.0.1:%s/size/200000', headers = { A = { 'b', 'c' } }, user = 'u', body = 'x' } "
             "fail_after(-1) return r and #r.body or code",
             plain.port);
    lib_fail_each_allocation(*state, script, "200000", 10);
}

/* ---- Jobs that are stopped, and many ---- */

static void a_dropped_job_closes_its_connection(void **state) {
    lib *t = *state;
    int before = open_files(), ended = ends_so_far(), hanging = file_lines(&plain.t, "hanging");
    job *a = job_start(t, HTTP "get('/hang')", plain.port, 0);
    job *b = job_start(t, HTTP "get('/stall')", plain.port, 0);
    job *c = job_start(t, HTTP "http.get('http://no-such-host.invalid/')", plain.port, 0);
    EVENTUALLY(file_lines(&plain.t, "hanging") == hanging + 2);
    job_drop(a);
    job_drop(b);
    job_wait(c);
    job_free(c);
    EVENTUALLY(file_lines(&plain.t, "ended") == ended + 2);
    EVENTUALLY(open_files() <= before + 4); /* libcurl's own, for the thread */
}

static void a_thread_that_stops_closes_its_connections(void **state) {
    lib *t = *state;
    int ended = ends_so_far(), hanging = file_lines(&plain.t, "hanging");
    job *j = job_start(t, HTTP "get('/hang')", plain.port, 0);
    EVENTUALLY(file_lines(&plain.t, "hanging") == hanging + 1);
    td_thread_stop(t->thread);
    t->thread = NULL;
    EVENTUALLY(file_lines(&plain.t, "ended") == ended + 1);
    job_free(j);
}

static void nothing(void *arg) {
    (void)arg;
}

static void jobs_are_dropped_at_every_moment(void **state) {
    lib *t = *state;
    ASSERT_RUN(t, HTTP "return show(get('/status/200'))", plain.port, "200 status 200");
    int before = open_files();
    for (int i = 0; i < MANY; i++) {
        job *j =
            job_start(t, HTTP "while true do get('/chunked/300000') get('/to/302//size/100000') end", plain.port, 0);
        for (int k = 0; k < i; k++) lib_on_thread(t, nothing, NULL);
        if (i % 4 == 0) usleep((unsigned)i * 100);
        job_drop(j);
    }
    ASSERT_RUN(t, HTTP "return show(get('/status/200'))", plain.port, "200 status 200");
    EVENTUALLY(open_files() <= before + 2);
}

static void connections_are_used_again(void **state) {
    lib *t = *state;
    int ended = ends_so_far();
    ASSERT_RUN(t, HTTP "for i = 1, 50 do if get('/status/200').status ~= 200 then return i end end return 'ok'",
               plain.port, "ok");
    assert_true(file_lines(&plain.t, "ended") <= ended + 1);
}

/* A name server that does not answer: names that end in ".slow" are resolved when `answers` says so. */
static atomic_int asking;
static atomic_bool answers;

/* Stands before libc's own, for libcurl. */
__attribute__((visibility("default"))) int getaddrinfo(const char *node, const char *service,
                                                       const struct addrinfo *hints, struct addrinfo **result) {
    size_t len = node ? strlen(node) : 0;
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT,
                                                                                                "getaddrinfo");
    if (len < 5 || strcmp(node + len - 5, ".slow") != 0) return real(node, service, hints, result);
    atomic_fetch_add(&asking, 1);
    while (!atomic_load(&answers)) usleep(1000);
    atomic_fetch_sub(&asking, 1);
    return EAI_NONAME;
}

static void names_are_resolved_by_few_threads(void **state) {
    lib *t = *state;
    job *jobs[MANY];
    for (int i = 0; i < MANY; i++)
        jobs[i] = job_start(t, HTTP "return show(http.get('http://host' .. number .. '.slow/'))", "", i);
    EVENTUALLY(atomic_load(&asking) == 32);
    for (int i = 0; i < 20; i++) lib_on_thread(t, nothing, NULL);
    assert_int_equal(atomic_load(&asking), 32);
    ASSERT_RUN(t, HTTP "return show(http.get('http://late.slow/', { timeout = 0.05 }))", "",
               "timeout: Timeout was reached");
    for (int i = 0; i < MANY / 4; i++) job_drop(jobs[i + MANY / 2]); /* in the queue */
    atomic_store(&answers, true);
    for (int i = 0; i < MANY; i++) {
        if (i >= MANY / 2 && i < MANY / 2 + MANY / 4) continue;
        job_wait(jobs[i]);
        assert_non_null(strstr(jobs[i]->text, "connect: Could not resolve host"));
        job_free(jobs[i]);
    }
    EVENTUALLY(atomic_load(&asking) == 0);
    ASSERT_RUN(t, HTTP "return show(get('/status/200'))", plain.port, "200 status 200");
}

/* The server says how many of these it had before it at one time. */
static void many_wait_at_the_same_time_on_one_thread(void **state) {
    lib *t = *state;
    job **jobs = calloc(AT_ONCE, sizeof *jobs);
    uint64_t begun = td_now_ns();
    for (int i = 0; i < AT_ONCE; i++) jobs[i] = job_start(t, HTTP "return show(get('/slow/200'))", plain.port, i);
    for (int i = 0; i < AT_ONCE; i++) {
        job_wait(jobs[i]);
        assert_string_equal(jobs[i]->text, "200 ok");
    }
    printf("# %d requests of 200 ms each: %.3f s\n", AT_ONCE, (double)(td_now_ns() - begun) / 1e9);
    for (int i = 0; i < AT_ONCE; i++) job_free(jobs[i]);
    free(jobs);
    char path[200];
    snprintf(path, sizeof path, "%s/open", plain.t.dir);
    jobs = calloc(AT_ONCE, sizeof *jobs);
    for (int i = 0; i < AT_ONCE; i++) jobs[i] = job_start(t, HTTP "return show(get('/gate'))", plain.port, i);
    EVENTUALLY(file_lines(&plain.t, "here") == AT_ONCE); /* none is answered before all are there */
    fclose(fopen(path, "w"));
    for (int i = 0; i < AT_ONCE; i++) {
        job_wait(jobs[i]);
        assert_string_equal(jobs[i]->text, "200 ok");
        job_free(jobs[i]);
    }
    free(jobs);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LIB_TEST(a_get_returns_status_headers_body_and_url),
        LIB_TEST(methods_bodies_and_headers_go_out_as_given),
        LIB_TEST(headers_of_the_answer_come_by_their_names_in_lower_case),
        LIB_TEST(a_body_of_any_size_arrives_whole),
        LIB_TEST(redirects_are_followed_within_bounds),
        LIB_TEST(credentials_stay_with_their_host),
        LIB_TEST(what_would_change_the_request_is_refused),
        LIB_TEST(outside_a_job_it_raises),
        LIB_TEST(failures_are_told_apart),
        LIB_TEST(size_is_limited),
        LIB_TEST(a_body_goes_to_a_file),
        LIB_TEST(a_failure_leaves_no_part_of_a_file),
        LIB_TEST(certificates_are_checked),
        LIB_TEST(a_proxy_is_used),
        LIB_TEST(a_body_counts_against_the_jobs_memory),
        LIB_TEST(each_lua_allocation_may_fail),
        LIB_TEST(a_dropped_job_closes_its_connection),
        LIB_TEST(a_thread_that_stops_closes_its_connections),
        LIB_TEST(jobs_are_dropped_at_every_moment),
        LIB_TEST(connections_are_used_again),
        LIB_TEST(names_are_resolved_by_few_threads),
        LIB_TEST(many_wait_at_the_same_time_on_one_thread),
    };
    return cmocka_run_group_tests(tests, start_plain, stop_plain);
}
