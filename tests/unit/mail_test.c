/* mail_test.c: tidemill.mail, with a real SMTP server (mail_server.py). */
#include "server_fixture.h"

enum { MANY = 100, AT_ONCE = 300 };

/* arg is the port. The script calls send with defaults for what it leaves out; show tells what came of it. */
#define SEND                                                                                                           \
    "local mail = require 'tidemill.mail'; local port, number = ...; local function send(o) "                          \
    "o.url = o.url or 'smtp://127.0.0.1:' .. port; o.from = o.from or 'tester@example.com'; "                          \
    "if not (o.text or o.html) then o.text = 'body' end; local ok, message, code = mail.send(o) "                      \
    "return ok and tostring(ok) or code .. ': ' .. message end "

/* ---- The server ---- */

static server plain;

static int start_plain(void **state) {
    (void)state;
    server_folder(&plain);
    server_start(&plain, "mail_server.py", "plain");
    return 0;
}

static int stop_plain(void **state) {
    (void)state;
    server_stop(&plain);
    return 0;
}

/* assert_mail compares a line of a mail that arrived ("ann.txt"). */
static void assert_mail(const char *name, const char *line) {
    char *text = file_text(&plain.t, name), whole[2000];
    if (!text) fail_msg("%s did not arrive", name);
    snprintf(whole, sizeof whole, "%s\n", line);
    const char *at = strstr(text, whole);
    if (!at || (at != text && at[-1] != '\n')) fail_msg("there is no line \"%s\" in:\n%s", line, text);
    free(text);
}

/* ---- Messages ---- */

static void a_mail_arrives(void **state) {
    ASSERT_RUN(*state, SEND "return send{ to = 'ann@example.com', subject = 'Hello', text = 'One\\nTwo\\n' }",
               plain.port, "true");
    assert_mail("ann.txt", "envelope: tester@example.com -> ann@example.com");
    assert_mail("ann.txt", "From: tester@example.com");
    assert_mail("ann.txt", "To: ann@example.com");
    assert_mail("ann.txt", "Subject: Hello");
    assert_mail("ann.txt", "MIME-Version: 1.0");
    assert_mail("ann.txt", "defects: []");
    assert_mail("ann.txt", "text/plain: 'One\\nTwo\\n'");
    char *text = file_text(&plain.t, "ann.eml");
    int day, year, hour, minute, second;
    char weekday[8], month[8], *date = strstr(text, "Date: ");
    assert_int_equal(
        sscanf(date, "Date: %3s, %d %3s %d %d:%d:%d +0000", weekday, &day, month, &year, &hour, &minute, &second), 7);
    struct tm now;
    time_t seconds = time(NULL);
    gmtime_r(&seconds, &now);
    assert_int_equal(year, now.tm_year + 1900);
    char *id = strstr(text, "Message-ID: <");
    assert_non_null(id);
    assert_true(strncmp(id + 13 + 32, "@example.com>\r\n", 15) == 0);
    free(text);
}

static void text_and_html_are_alternatives(void **state) {
    ASSERT_RUN(*state, SEND "return send{ to = 'both@example.com', text = 'T', html = '<p>H</p>' }", plain.port,
               "true");
    assert_mail("both.txt", "text/plain: 'T\\n'");
    assert_mail("both.txt", "text/html: '<p>H</p>\\n'");
    ASSERT_RUN(*state, SEND "return send{ to = 'html@example.com', html = '<p>H</p>' }", plain.port, "true");
    assert_mail("html.txt", "text/html: '<p>H</p>\\n'");
}

static void any_text_arrives_unchanged(void **state) {
    ASSERT_RUN(*state,
               SEND
               "return send{ to = 'odd@example.com', subject = 'x', text = '.\\n..dots\\n.\\r\\nz\xc3\xbc \\t\\n=3D "
               "trailing \\nFrom me\\n\\n' .. ('long '):rep(300) .. ('\xe2\x82\xac'):rep(400) .. '\\nend' }",
               plain.port, "true");
    char *text = file_text(&plain.t, "odd.txt");
    assert_non_null(
        strstr(text, "text/plain: '.\\n..dots\\n.\\nz\xc3\xbc \\t\\n=3D trailing \\nFrom me\\n\\nlong long "));
    assert_non_null(strstr(text, "\xe2\x82\xac\xe2\x82\xac\\nend\\n'\n"));
    assert_non_null(strstr(text, "defects: []\nlongest line: 76\n"));
    free(text);
}

static void headers_of_any_text_arrive_unchanged(void **state) {
    static const char *const subjects[] = {
        "plain",
        "Gr\xc3\xbc\xc3\x9f"
        "e aus K\xc3\xb6ln",
        "\xf0\x9f\x9a\x80 \xf0\x9f\x9a\x80",
        "=?UTF-8?B?YQ==?=",
        "  spaces at both ends  ",
        "two  spaces",
        "tab\there",
        "",
        "a very long subject that needs more than one line to be written down, because it never ends, and goes on, and "
        "on",
        "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac"
        "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac"
        "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac",
    };
    char script[1500], line[300];
    for (size_t i = 0; i < TD_COUNT(subjects); i++) {
        snprintf(script, sizeof script, SEND "return send{ to = 'subject%zu@example.com', subject = [[%s]] }", i,
                 subjects[i]);
        ASSERT_RUN(*state, script, plain.port, "true");
        snprintf(script, sizeof script, "subject%zu.txt", i);
        snprintf(line, sizeof line, "Subject: %s", subjects[i]);
        assert_mail(script, line);
        assert_mail(script, "defects: []");
    }
    ASSERT_RUN(*state,
               SEND
               "return send{ to = 'token@example.com', subject = ('x'):rep(2000), headers = "
               "{ ['X-Job'] = '42', ['Message-ID'] = '<own@id>', ['Reply-To'] = 'M\xc3\xbcller <m@example.com>' } }",
               plain.port, "true");
    assert_mail("token.txt", "X-Job: 42");
    assert_mail("token.txt", "Message-ID: <own@id>");
    assert_mail("token.txt", "Reply-To: M\xc3\xbcller <m@example.com>");
    assert_mail("token.txt", "longest line: 73");
    char *text = file_text(&plain.t, "token.eml");
    assert_null(strstr(strstr(text, "Message-ID") + 1, "Message-ID"));
    free(text);
}

static void names_of_any_text_arrive_unchanged(void **state) {
    ASSERT_RUN(*state,
               SEND "return send{ from = '\"Quote \\\\\" and, comma\" <q@example.com>', to = { 'names@example.com', "
                    "'Ann Example <ann@example.com>', 'J\xc3\xbcrgen M\xc3\xbcller-L\xc3\xbc"
                    "denscheidt der Zweite von und zu "
                    "Irgendwo <j@example.com>', '<bare@example.com>' } }",
               plain.port, "true");
    assert_mail("names.txt",
                "envelope: q@example.com -> names@example.com, ann@example.com, j@example.com, bare@example.com");
    assert_mail("names.txt", "From: \"Quote \\\" and, comma\" <q@example.com>");
    assert_mail(
        "names.txt",
        "long names: names@example.com, \"Ann Example\" <ann@example.com>, J\xc3\xbcrgen M\xc3\xbcller-L\xc3\xbc"
        "denscheidt der Zweite von und zu Irgendwo <j@example.com>, bare@example.com");
    assert_mail("names.txt", "defects: []");
}

static void copies_go_out_and_blind_ones_stay_hidden(void **state) {
    ASSERT_RUN(*state,
               SEND "return send{ to = 'copies@example.com', cc = { 'Bob <bob@example.com>', 'cy@example.com' }, bcc = "
                    "'secret@example.com', reply_to = { 'a@example.com', 'B <b@example.com>' } }",
               plain.port, "true");
    assert_mail(
        "copies.txt",
        "envelope: tester@example.com -> copies@example.com, bob@example.com, cy@example.com, secret@example.com");
    assert_mail("copies.txt", "Cc: Bob <bob@example.com>, cy@example.com");
    assert_mail("copies.txt", "Reply-To: a@example.com, B <b@example.com>");
    char *text = file_text(&plain.t, "copies.eml");
    assert_null(strstr(text, "secret"));
    assert_null(strcasestr(text, "bcc"));
    free(text);
    ASSERT_RUN(*state, SEND "return send{ bcc = 'onlybcc@example.com' }", plain.port, "true");
    text = file_text(&plain.t, "onlybcc.eml");
    assert_null(strstr(text, "onlybcc"));
    free(text);
}

static void attachments_arrive_unchanged(void **state) {
    ASSERT_RUN(*state,
               SEND
               "local all = {} for i = 0, 255 do all[#all + 1] = string.char(i) end return send{ to = "
               "'attached@example.com', text = 'T', html = '<p>H</p>', attachments = { { filename = 'all bytes.bin', "
               "content = table.concat(all) }, { filename = 'z\xc3\xbc\"rich.csv', content = 'a,b\\r\\n', "
               "content_type = 'text/csv; charset=utf-8' }, { filename = 'empty', content = '' } } }",
               plain.port, "true");
    assert_mail("attached.txt", "text/plain: 'T\\n'");
    assert_mail("attached.txt", "text/html: '<p>H</p>\\n'");
    assert_mail("attached.txt", "application/octet-stream all bytes.bin: 256 e2c865db4162bed963bfaa9ef6ac18f0");
    assert_mail("attached.txt", "text/csv; charset=\"utf-8\" z\xc3\xbc\"rich.csv: 5 8f457ad9d573db377e681164b7f5af35");
    assert_mail("attached.txt", "application/octet-stream empty: 0 d41d8cd98f00b204e9800998ecf8427e");
    assert_mail("attached.txt", "defects: []");
    assert_mail("attached.txt", "longest line: 76");
    ASSERT_RUN(*state,
               SEND "return send{ to = 'heavy@example.com', text = 'T', attachments = { { filename = 'x', content = "
                    "('0123456789'):rep(500000) } } }",
               plain.port, "true");
    assert_mail("heavy.txt", "application/octet-stream x: 5000000 130cde57239bd21743ef43742ea3259c");
}

/* ---- What is refused ---- */

static void what_is_not_allowed_is_refused_by_name(void **state) {
    static const char *const cases[][2] = {
        { "subject = 'a\\r\\nBcc: x@y'", "invalid: subject: a line break or NUL byte is not allowed in a header" },
        { "subject = 'a\\nb'", "invalid: subject: a line break or NUL byte is not allowed in a header" },
        { "subject = 'a\\0b'", "invalid: subject: a NUL byte is not allowed" },
        { "subject = '\\xff'", "invalid: subject: this is not valid UTF-8" },
        { "from = 'A\\r\\nTo: b@c <a@b>'", "invalid: from: a line break or NUL byte is not allowed in a header" },
        { "from = 'a@b\\r\\n'", "invalid: from: a line break or NUL byte is not allowed in a header" },
        { "to = 'a@b\\n>'", "invalid: to: a line break or NUL byte is not allowed in a header" },
        { "to = { 'a@b', 'c@d\\r\\nDATA' }", "invalid: to: a line break or NUL byte is not allowed in a header" },
        { "to = 'a@b\\0'", "invalid: to: a line break or NUL byte is not allowed in a header" },
        { "to = 'a@b, c@d'", "invalid: to: \"a@b, c@d\" is not allowed; give one address, as in ann@example.com or Ann "
                             "<ann@example.com>" },
        { "to = 'ann'", NULL },
        { "to = 'a@'", NULL },
        { "to = '@b'", NULL },
        { "to = 'a@b@c'", NULL },
        { "to = 'a b@c'", NULL },
        { "to = 'a@b> SIZE=1'", NULL },
        { "to = '<a@b> SIZE=1'", NULL },
        { "to = 'j\xc3\xbcrgen@b'", NULL },
        { "to = ('x'):rep(300) .. '@b'", NULL },
        { "to = {}", "invalid: to: give an address, or a list of 1 to 1000" },
        { "to = { 1 }", "invalid: to: number is not allowed; give addresses as strings" },
        { "headers = { ['X-A'] = 'a\\r\\nBcc: x' }",
          "invalid: headers.X-A: a line break or NUL byte is not allowed in a header" },
        { "headers = { ['X-A:\\r\\nB'] = 'a' }",
          "invalid: headers: the name of a header is up to 70 letters, digits and dashes" },
        { "headers = { [''] = 'a' }", "invalid: headers: the name of a header is up to 70 letters, digits and dashes" },
        { "headers = { ['Reply-To'] = 'a@b\\nX: y' }",
          "invalid: headers.Reply-To: a line break or NUL byte is not allowed in "
          "a header" },
        { "headers = { BCC = 'a@b' }", "invalid: headers: BCC is not allowed; it is set from the other options" },
        { "headers = { ['Content-Type'] = 'x' }",
          "invalid: headers: Content-Type is not allowed; it is set from the other "
          "options" },
        { "headers = { A = 1 }", "invalid: A: number is not allowed; give a string" },
        { "headers = 'A: 1'", "invalid: headers: string is not allowed; give a table of names and values" },
        { "text = 'a\\0b'", "invalid: text: a NUL byte is not allowed" },
        { "html = '\\xff'", "invalid: html: this is not valid UTF-8" },
        { "subjct = 'x'", "invalid: subjct: there is no such option; did you mean subject" },
        { "timeout = 0", "invalid: timeout: 0 is not allowed; give a number of seconds from 0 to a day" },
        { "timeout = '1'", "invalid: timeout: 1 is not allowed; give a number of seconds from 0 to a day" },
        { "url = 'http://localhost'",
          "invalid: url: this is not a mail server's; give smtp://host:port, or smtps://host:port" },
        { "url = 'smtp://a\\0b'", "invalid: url: a NUL byte is not allowed" },
        { "cc = 'a@b\\nX: y'", "invalid: cc: a line break or NUL byte is not allowed in a header" },
        { "bcc = { 'a@b', 'c' }", NULL },
        { "reply_to = 'a@b\\r\\n'", "invalid: reply_to: a line break or NUL byte is not allowed in a header" },
        { "headers = { CC = 'a@b' }", "invalid: headers: CC is not allowed; it is set from the other options" },
        { "reply_to = 'a@b', headers = { ['reply-to'] = 'a@b' }",
          "invalid: headers: reply-to is not allowed; it is set from the other options" },
        { "tls = 'maybe'", "invalid: tls: maybe is not allowed; give required, allowed or never" },
        { "verify = 1", "invalid: verify: give true or false" },
        { "url = 'smtp://x\\r\\ny'", "invalid: url: spaces and line breaks are not allowed" },
        { "attachments = 'x'", "invalid: attachments: string is not allowed; give a list of tables" },
        { "attachments = { 'x' }", "invalid: attachments: string is not allowed; give a list of tables" },
        { "attachments = { {} }", "invalid: attachments: give each a filename and content" },
        { "attachments = { { filename = 'x', content = 1 } }",
          "invalid: attachments: content: number is not allowed; give a string" },
        { "attachments = { { filename = 'x\\r\\nA: b', content = '' } }",
          "invalid: attachments: filename: a line break or NUL byte is not allowed in a header" },
        { "attachments = { { filename = '', content = '' } }", "invalid: attachments: filename: give 1 to 200 bytes" },
        { "attachments = { { filename = 'x', content = '', content_type = 'a/b\\r\\nX: y' } }",
          "invalid: attachments: content_type: this is not allowed; give a type such as image/png" },
        { "attachments = { { filename = 'x', content = '', content_type = 'message/rfc822' } }",
          "invalid: attachments: content_type: this is not allowed; give a type such as image/png" },
        { "attachments = { { filename = 'x', content = '', content_type = 'png' } }",
          "invalid: attachments: content_type: this is not allowed; give a type such as image/png" },
        { "attachments = { { filename = 'x', content = ('x'):rep(25 * 1048576 + 1) } }",
          "limit: attachments: they are larger than 25 MiB in all" },
        { "username = 1", "invalid: username: number is not allowed; give a string" },
    };
    char script[1000];
    for (size_t i = 0; i < TD_COUNT(cases); i++) {
        snprintf(script, sizeof script,
                 SEND "local o = { to = 'never@example.com' } for k, v in pairs{ %s } do o[k] = v end "
                      "return send(o)",
                 cases[i][0]);
        char *text = lib_run(*state, script, plain.port);
        if (cases[i][1])
            assert_string_equal(text, cases[i][1]);
        else if (!strstr(text, "is not allowed; give one address"))
            fail_msg("%s: %s", cases[i][0], text);
        free(text);
    }
    ASSERT_RUN(*state, "local _, m, c = require 'tidemill.mail'.send{} return c .. ': ' .. m", "",
               "invalid: url: this option is missing; give smtp://host:port, or smtps://host:port");
    ASSERT_RUN(*state,
               "local _, m, c = require 'tidemill.mail'.send{ url = 'smtp://x', from = 'a@b', to = 'c@d' } "
               "return c .. ': ' .. m",
               "", "invalid: text: there is no body; give text, html or both");
    assert_null(file_text(&plain.t, "never.txt"));
}

static void outside_a_job_it_raises(void **state) {
    (void)state;
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    luaL_requiref(L, "tidemill.mail", td_mail_open, 1);
    lua_getfield(L, -1, "send");
    lua_newtable(L);
    assert_int_equal(lua_pcall(L, 1, 1, 0), LUA_ERRRUN);
    assert_string_equal(lua_tostring(L, -1), "tidemill.mail.send: can only be called while a job runs");
    lua_close(L);
}

static void the_servers_refusal_comes_back(void **state) {
    ASSERT_RUN(*state, SEND "return send{ to = 'refused@example.com' }", plain.port,
               "refused: the mail server refused the recipient refused@example.com: 550 5.1.1 no such mailbox");
    ASSERT_RUN(*state, SEND "return send{ to = { 'first@example.com', 'busy@example.com' } }", plain.port,
               "refused: the mail server refused the recipient busy@example.com: 451 4.3.0 come back later");
    assert_null(file_text(&plain.t, "first.txt"));
    ASSERT_RUN(*state, SEND "return send{ to = 'reject@example.com' }", plain.port,
               "refused: the mail server refused the message: 554 5.7.1 not wanted here");
}

static void a_server_that_fails_is_told_from_one_that_may_have_sent(void **state) {
    ASSERT_RUN(*state, SEND "return send{ to = 'hang@example.com', timeout = 0.2 }", plain.port,
               "timeout: the mail server did not answer in time");
    ASSERT_RUN(*state, SEND "return send{ to = 'drop@example.com' }", plain.port,
               "io: the connection to the mail server was lost");
    ASSERT_RUN(
        *state, SEND "return send{ to = 'late@example.com', timeout = 0.2 }", plain.port,
        "outcome: the mail server did not answer after the whole message was sent, so it may have been delivered");
    ASSERT_RUN(
        *state, SEND "return send{ to = 'lost@example.com' }", plain.port,
        "outcome: the mail server did not answer after the whole message was sent, so it may have been delivered");
}

static void a_server_that_is_not_there_is_said_so(void **state) {
    char *text = lib_run(*state, SEND "return send{ to = 'a@b', url = 'smtp://127.0.0.1:1' }", "");
    assert_non_null(strstr(text, "connect: the mail server cannot be used: Failed to connect to 127.0.0.1 port 1"));
    free(text);
    ASSERT_RUN(*state, SEND "return send{ to = 'a@b', url = 'smtp://no-such-host.invalid' }", "",
               "connect: the mail server cannot be used: Could not resolve host: no-such-host.invalid");
}

/* ---- Authentication and encryption ---- */

static void a_password_is_used(void **state) {
    server s;
    server_folder(&s);
    server_start(&s, "mail_server.py", "auth");
    ASSERT_RUN(*state,
               SEND "return send{ to = 'ann@example.com', username = 'ann', tls = 'allowed', password = 's\xc3\xa9"
                    "cret' }",
               s.port, "true");
    ASSERT_RUN(*state,
               SEND "return send{ to = 'ann@example.com', username = 'ann', password = 'wrong', tls = 'never' }",
               s.port, "denied: the mail server cannot be used: Login denied (535)");
    ASSERT_RUN(*state, SEND "return send{ to = 'ann@example.com' }", s.port,
               "refused: the mail server refused the sender tester@example.com: 530 5.7.0 Authentication required");
    /* not without encryption, unless that is said */
    char *text =
        lib_run(*state, SEND "return send{ to = 'ann@example.com', username = 'ann', password = 'x' }", s.port);
    assert_non_null(strstr(text, "tls: the mail server cannot be used: STARTTLS not supported"));
    free(text);
    server_stop(&s);
}

static void a_password_is_used_after_starttls(void **state) {
    server s;
    char script[1000];
    server_folder(&s);
    certify(&s);
    server_start(&s, "mail_server.py", "starttls-auth");
    snprintf(script, sizeof script,
             SEND
             "return send{ to = 'ann@example.com', username = 'ann', ca_file = '%s/cert.pem', password = 's\xc3\xa9"
             "cret' }",
             s.t.dir);
    ASSERT_RUN(*state, script, s.port, "true");
    ASSERT_RUN(*state,
               SEND "return send{ to = 'ann@example.com', username = 'ann', verify = false, password = 's\xc3\xa9"
                    "cret' }",
               s.port, "true");
    server_stop(&s);
}

/* try_encrypted sends a mail of several megabytes to a server with a certificate: once not trusting it, once trusting
 * it. */
static void try_encrypted(lib *t, const char *mode, const char *scheme) {
    char script[1000];
    server s;
    server_folder(&s);
    certify(&s);
    server_start(&s, "mail_server.py", mode);
    snprintf(script, sizeof script,
             SEND "return send{ to = 'ann@example.com', url = '%s://127.0.0.1:' .. port, text = (('x'):rep(70) .. "
                  "'\\n'):rep(25000) }",
             scheme);
    char *text = lib_run(t, script, s.port);
    assert_non_null(
        strstr(text, "tls: the mail server cannot be used: SSL certificate problem: self-signed certificate"));
    free(text);
    snprintf(script, sizeof script,
             SEND
             "return send{ to = 'ann@example.com', url = '%s://127.0.0.1:' .. port, ca_file = '%s/cert.pem', tls = "
             "'required', text = (('x'):rep(70) .. '\\n'):rep(25000) }",
             scheme, s.t.dir);
    text = lib_run(t, script, s.port);
    assert_string_equal(text, "true");
    free(text);
    server_stop(&s);
}

static void starttls_is_used_and_certificates_are_checked(void **state) {
    try_encrypted(*state, "starttls", "smtp"); /* a server that refuses mail without STARTTLS */
}

static void smtps_is_encrypted_and_certificates_are_checked(void **state) {
    try_encrypted(*state, "tls", "smtps");
}

static void a_mail_of_many_megabytes_arrives(void **state) {
    ASSERT_RUN(*state, SEND "return send{ to = 'large@example.com', text = (('x'):rep(70) .. '\\n'):rep(60000) }",
               plain.port, "true");
    char *text = file_text(&plain.t, "large.eml");
    assert_true(strlen(text) > 60000 * 72);
    free(text);
}

/* ---- Jobs that are stopped, and many ---- */

static void a_dropped_job_closes_its_connection(void **state) {
    lib *t = *state;
    int before = open_files(), ended = file_lines(&plain.t, "ended"), hanging = file_lines(&plain.t, "hanging");
    job *a = job_start(t, SEND "send{ to = 'hang@example.com' }", plain.port, 0);
    job *b = job_start(t, SEND "send{ to = 'late@example.com' }", plain.port, 0);
    EVENTUALLY(file_lines(&plain.t, "hanging") == hanging + 2);
    job_drop(a);
    job_drop(b);
    EVENTUALLY(file_lines(&plain.t, "ended") == ended + 2);
    EVENTUALLY(open_files() <= before + 4); /* libcurl's own, for the thread */
}

static void a_thread_that_stops_closes_its_connections(void **state) {
    lib *t = *state;
    int ended = file_lines(&plain.t, "ended"), hanging = file_lines(&plain.t, "hanging");
    job *j = job_start(t, SEND "send{ to = 'hang@example.com' }", plain.port, 0);
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
    ASSERT_RUN(t, SEND "return send{ to = 'warm@example.com' }", plain.port, "true");
    int before = open_files();
    for (int i = 0; i < MANY; i++) {
        job *j = job_start(t, SEND "while true do send{ to = 'x@example.com' } end", plain.port, 0);
        for (int k = 0; k < i; k++) lib_on_thread(t, nothing, NULL);
        if (i % 4 == 0) usleep((unsigned)i * 100);
        job_drop(j);
    }
    ASSERT_RUN(t, SEND "return send{ to = 'after@example.com' }", plain.port, "true");
    EVENTUALLY(open_files() <= before);
}

static void each_lua_allocation_may_fail(void **state) {
    char script[500];
    snprintf(script, sizeof script,
             "local mail = require 'tidemill.mail' fail_after((...)) local ok, message, code = mail.send{ "
             "url = 'smtp://127.0.0.1:%s', from = 'a@b', to = { 'c@d' }, headers = { A = 'b' }, text = 'x' } "
             "fail_after(-1) return ok or code",
             plain.port);
    lib_fail_each_allocation(*state, script, "true", 5);
}

/* The server answers none of these before it has them all: so all are on their way at the same time, also after the end
   of the message, where libcurl's own SMTP would hold the thread. */
static void many_are_sent_at_the_same_time_on_one_thread(void **state) {
    lib *t = *state;
    job *jobs[AT_ONCE];
    char path[200];
    uint64_t begun = td_now_ns();
    for (int i = 0; i < AT_ONCE; i++)
        jobs[i] = job_start(t, SEND "return send{ to = 'slow@example.com' }", plain.port, i);
    for (int i = 0; i < AT_ONCE; i++) {
        job_wait(jobs[i]);
        assert_string_equal(jobs[i]->text, "true");
        job_free(jobs[i]);
    }
    printf("# %d mails of 200 ms each: %.3f s\n", AT_ONCE, (double)(td_now_ns() - begun) / 1e9);
    EVENTUALLY(open_files() < AT_ONCE);
    int ended = file_lines(&plain.t, "ended");
    snprintf(path, sizeof path, "%s/open", plain.t.dir);
    for (int i = 0; i < AT_ONCE; i++) {
        jobs[i] = job_start(t, SEND "return send{ to = 'gate' .. number .. '@example.com', subject = number .. '' }",
                            plain.port, i);
    }
    EVENTUALLY(file_lines(&plain.t, "here") == AT_ONCE);
    fclose(fopen(path, "w"));
    for (int i = 0; i < AT_ONCE; i++) {
        job_wait(jobs[i]);
        assert_string_equal(jobs[i]->text, "true");
        job_free(jobs[i]);
        char name[40], line[40];
        snprintf(name, sizeof name, "gate%d.txt", i);
        snprintf(line, sizeof line, "Subject: %d", i);
        assert_mail(name, line);
    }
    EVENTUALLY(file_lines(&plain.t, "ended") == ended + AT_ONCE);
    char *ends = file_text(&plain.t, "ended");
    assert_null(strstr(ends + strlen(ends) - AT_ONCE * 5, "lost")); /* each said QUIT */
    free(ends);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LIB_TEST(a_mail_arrives),
        LIB_TEST(text_and_html_are_alternatives),
        LIB_TEST(any_text_arrives_unchanged),
        LIB_TEST(headers_of_any_text_arrive_unchanged),
        LIB_TEST(names_of_any_text_arrive_unchanged),
        LIB_TEST(copies_go_out_and_blind_ones_stay_hidden),
        LIB_TEST(attachments_arrive_unchanged),
        LIB_TEST(what_is_not_allowed_is_refused_by_name),
        LIB_TEST(outside_a_job_it_raises),
        LIB_TEST(the_servers_refusal_comes_back),
        LIB_TEST(a_server_that_fails_is_told_from_one_that_may_have_sent),
        LIB_TEST(a_server_that_is_not_there_is_said_so),
        LIB_TEST(a_password_is_used),
        LIB_TEST(a_password_is_used_after_starttls),
        LIB_TEST(starttls_is_used_and_certificates_are_checked),
        LIB_TEST(smtps_is_encrypted_and_certificates_are_checked),
        LIB_TEST(a_mail_of_many_megabytes_arrives),
        LIB_TEST(a_dropped_job_closes_its_connection),
        LIB_TEST(a_thread_that_stops_closes_its_connections),
        LIB_TEST(jobs_are_dropped_at_every_moment),
        LIB_TEST(each_lua_allocation_may_fail),
        LIB_TEST(many_are_sent_at_the_same_time_on_one_thread),
    };
    return cmocka_run_group_tests(tests, start_plain, stop_plain);
}
