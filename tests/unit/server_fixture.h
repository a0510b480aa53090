/* server_fixture.h: for tests with a server beside them: a Python program in this folder that is started with a folder
   of its own and a mode, writes its port to the file "port" there, and ends when its standard input does. */
#ifndef SERVER_FIXTURE_H
#define SERVER_FIXTURE_H

#include "lib_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

typedef struct server {
    lib t; /* for its folder only */
    char port[16];
    pid_t pid;
    int input; /* it ends when this is closed */
} server;

/* server_exec becomes the server. */
static inline void server_exec(const char *dir, const char *program, const char *mode, int input) {
    char path[] = __FILE__;
    char *slash = strrchr(path, '/'), script[300], log[100];
    if (slash) *slash = '\0';
    snprintf(script, sizeof script, "%s/%s", slash ? path : ".", program);
    dup2(input, 0);
    snprintf(log, sizeof log, "%s/log", dir);
    dup2(open(log, O_WRONLY | O_CREAT, 0600), 2);
    execl("/usr/bin/python3", "python3", script, dir, mode, (char *)NULL);
    _exit(127);
}

/* server_start starts a server, a program in this folder, and waits until it listens. */
static inline void server_start(server *s, const char *program, const char *mode) {
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    s->pid = fork();
    if (s->pid == 0) server_exec(s->t.dir, program, mode, ends[0]);
    close(ends[0]);
    s->input = ends[1];
    char *port = NULL;
    EVENTUALLY((port = file_text(&s->t, "port")) != NULL);
    snprintf(s->port, sizeof s->port, "%s", port);
    free(port);
}

static inline void server_stop(server *s) {
    close(s->input);
    waitpid(s->pid, NULL, 0);
    nftw(s->t.dir, lib_remove, 8, FTW_DEPTH | FTW_PHYS);
}

/* server_folder makes the folder of a server. */
static inline void server_folder(server *s) {
    const char *tmp = getenv("TMPDIR");
    *s = (server){ 0 };
    snprintf(s->t.dir, sizeof s->t.dir, "%.40s/tmsrvXXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(s->t.dir));
}

/* certify gives a server a certificate that nobody trusts. */
static inline void certify(server *s) {
    char command[400];
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=test -addext subjectAltName=IP:127.0.0.1 -keyout "
             "%s/key.pem -out %s/cert.pem "
             ">/dev/null 2>&1",
             s->t.dir, s->t.dir);
    assert_int_equal(system(command), 0);
}

#endif
