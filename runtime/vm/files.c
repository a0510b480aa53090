#include "files.h"

#include "arena.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FILE_MAX = 1 << 20,
    FILES_MAX = 10000,
    PATH_LIMIT = 500,
    COMPILER_MAX = 256 << 20, /* memory of the state that compiles */
};

/* The folders that are open on the way down, to find a symbolic link that leads back to one of them. */
typedef struct folder {
    const struct folder *up;
    dev_t dev;
    ino_t ino;
} folder;

typedef struct walk {
    td_files *files;
    const char *dir;
    tidemill_error *err;
} walk;

static int read_folder(walk *w, int fd, const char *prefix, const folder *up);

static int io_error(walk *w, const char *path) {
    return td_error_set(w->err, TIDEMILL_EIO, "%s/%s: cannot be read: %s", w->dir, path, strerror(errno));
}

/* add_file appends an empty file to the list. NULL without memory. */
static td_file *add_file(td_files *files, const char *path) {
    if (files->count == files->cap) {
        size_t cap = files->cap ? files->cap * 2 : 16;
        td_file *list = realloc(files->list, cap * sizeof *list);
        if (!list) return NULL;
        files->list = list;
        files->cap = cap;
    }
    td_file *file = &files->list[files->count];
    *file = (td_file){ 0 };
    size_t len = strlen(path);
    file->chunk = malloc(len + 2);
    if (!file->chunk) return NULL;
    file->chunk[0] = '@';
    memcpy(file->chunk + 1, path, len + 1);
    file->path = file->chunk + 1;
    file->handler = !strchr(path, '/');
    files->count++;
    return file;
}

/* read_all reads fd to its end into the file's text. Returns 0, or -1 with errno set (EFBIG: more than FILE_MAX). */
static int read_all(td_file *file, int fd, size_t expected) {
    size_t room = expected < FILE_MAX ? expected + 1 : FILE_MAX + 1;
    for (;;) {
        char *text = realloc(file->text, room);
        if (!text) {
            errno = ENOMEM;
            return -1;
        }
        file->text = text;
        while (file->text_len < room) {
            ssize_t n = read(fd, text + file->text_len, room - file->text_len);
            if (n == 0) return 0;
            if (n < 0 && errno != EINTR) return -1;
            if (n > 0) file->text_len += (size_t)n;
        }
        if (room > FILE_MAX) {
            errno = EFBIG;
            return -1;
        }
        room = room * 2 < FILE_MAX ? room * 2 : FILE_MAX + 1;
    }
}

static int read_file(walk *w, int folder_fd, const char *name, const char *path) {
    if (!td_utf8_valid(path, strlen(path))) {
        return td_error_set(w->err, TIDEMILL_EHANDLER, "%s: the name of a file in it is not valid UTF-8; rename it",
                            w->dir);
    }
    if (w->files->count == FILES_MAX) {
        return td_error_set(w->err, TIDEMILL_EHANDLER, "%s: holds more than %d Lua files; is it the right directory?",
                            w->dir, FILES_MAX);
    }
    struct stat st;
    int fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;
    if (fd < 0 || fstat(fd, &st) < 0) {
        rc = io_error(w, path);
    } else if (!S_ISREG(st.st_mode)) {
        rc = td_error_set(w->err, TIDEMILL_EHANDLER, "%s/%s: is not an ordinary file", w->dir, path);
    } else {
        td_file *file = add_file(w->files, path);
        if (!file)
            rc = td_error_memory(w->err);
        else if (read_all(file, fd, (size_t)st.st_size) < 0) {
            rc = errno == EFBIG ? td_error_set(w->err, TIDEMILL_EHANDLER, "%s/%s: is larger than 1 MiB", w->dir, path)
                 : errno == ENOMEM ? td_error_memory(w->err)
                                   : io_error(w, path);
        }
    }
    if (fd >= 0) close(fd);
    return rc;
}

/* read_entry reads one entry of a folder: a Lua file, a folder below, or nothing of ours. */
static int read_entry(walk *w, int fd, const char *prefix, const char *name, const folder *here) {
    char path[PATH_LIMIT + 2];
    struct stat st;
    size_t len = strlen(name);
    bool lua = len > 4 && strcmp(name + len - 4, ".lua") == 0;
    if (name[0] == '.') return 0;
    int n = snprintf(path, sizeof path, "%s%s", prefix, name);
    if (n > PATH_LIMIT) {
        return td_error_set(w->err, TIDEMILL_EHANDLER, "%s/%.80s...: the path is longer than %d bytes", w->dir, path,
                            PATH_LIMIT);
    }
    if (fstatat(fd, name, &st, 0) < 0) return lua ? io_error(w, path) : 0;
    if (!S_ISDIR(st.st_mode)) return lua ? read_file(w, fd, name, path) : 0;
    for (const folder *f = here; f; f = f->up) {
        if (f->dev == st.st_dev && f->ino == st.st_ino) {
            return td_error_set(w->err, TIDEMILL_EHANDLER,
                                "%s/%s: is a symbolic link that leads back to a folder it lies in", w->dir, path);
        }
    }
    int below = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (below < 0) return io_error(w, path);
    path[n] = '/';
    path[n + 1] = '\0';
    return read_folder(w, below, path, here);
}

/* read_folder reads all that is in the folder open as fd, which it closes. prefix is its path with a slash, or "". */
static int read_folder(walk *w, int fd, const char *prefix, const folder *up) {
    struct stat st;
    DIR *entries = fstat(fd, &st) == 0 ? fdopendir(fd) : NULL;
    if (!entries) {
        int rc = io_error(w, prefix);
        close(fd);
        return rc;
    }
    folder here = { up, st.st_dev, st.st_ino };
    int rc = 0;
    for (struct dirent *e; rc == 0 && (errno = 0, e = readdir(entries));) {
        rc = read_entry(w, fd, prefix, e->d_name, &here);
        errno = 0;
    }
    if (rc == 0 && errno) rc = io_error(w, prefix);
    closedir(entries);
    return rc;
}

static int by_path(const void *a, const void *b) {
    return strcmp(((const td_file *)a)->path, ((const td_file *)b)->path);
}

static uint64_t hash_bytes(uint64_t hash, const char *data, size_t len) {
    for (size_t i = 0; i < len; i++) hash = (hash ^ (unsigned char)data[i]) * 0x100000001b3u; /* FNV-1a */
    return hash;
}

#define HASH_EMPTY 0xcbf29ce484222325u

static void hash_all(td_files *files) {
    uint64_t hash = HASH_EMPTY;
    for (size_t i = 0; i < files->count; i++) {
        td_file *f = &files->list[i];
        f->hash = hash_bytes(HASH_EMPTY, f->text, f->text_len);
        hash = hash_bytes(hash, f->path, strlen(f->path) + 1);
        hash = hash_bytes(hash, (const char *)&f->text_len, sizeof f->text_len);
        hash = hash_bytes(hash, f->text, f->text_len);
    }
    hash = (hash ^ (hash >> 32)) * 0x9e3779b97f4a7c15u; /* spreads the last bytes over all digits */
    snprintf(files->hash, sizeof files->hash, "%012llx", (unsigned long long)(hash >> 16));
}

int td_files_read(td_files *files, const char *dir, tidemill_error *err) {
    walk w = { files, dir, err };
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        const char *why = errno == ENOENT ? "there is no such directory" : strerror(errno);
        return td_error_set(err, TIDEMILL_EIO, "%s: %s; give the directory that holds the handlers", dir, why);
    }
    int rc = read_folder(&w, fd, "", NULL);
    if (rc < 0) return rc;
    bool any = false;
    for (size_t i = 0; i < files->count; i++) any = any || files->list[i].handler;
    if (!any) {
        return td_error_set(err, TIDEMILL_EHANDLER,
                            "%s: there is no handler in it; a handler is a Lua file with name() and handle(ctx, args)",
                            dir);
    }
    qsort(files->list, files->count, sizeof *files->list, by_path);
    hash_all(files);
    return 0;
}

/* ---- Compiling ---- */

static int append_code(lua_State *L, const void *data, size_t len, void *buf) {
    (void)L;
    td_buf_add(buf, data, len);
    return ((td_buf *)buf)->failed ? 1 : 0;
}

/* compile turns one file's text into code, in a state that is used for nothing else. */
static int compile(lua_State *L, td_file *file, const char *dir, tidemill_error *err) {
    const char *text = file->text;
    size_t len = file->text_len;
    if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) text += 3, len -= 3;
    if (len > 0 && text[0] == '#') { /* a line for the shell; its newline stays, so that lines are counted right */
        const char *line_end = memchr(text, '\n', len);
        size_t skip = line_end ? (size_t)(line_end - text) : len;
        text += skip, len -= skip;
    }
    if (len > 0 && text[0] == LUA_SIGNATURE[0]) {
        return td_error_set(err, TIDEMILL_EHANDLER, "%s/%s: is precompiled Lua; give the source text", dir, file->path);
    }
    int status = luaL_loadbufferx(L, text, len, file->chunk, "t");
    if (status == LUA_ERRMEM) return td_error_memory(err);
    if (status != LUA_OK) {
        td_buf message = { 0 };
        size_t message_len;
        const char *raw = lua_tolstring(L, -1, &message_len);
        td_text_clean(&message, raw, message_len, 700);
        bool placed = strncmp(raw, file->path, strlen(file->path)) == 0;
        int rc = td_error_set(err, TIDEMILL_EHANDLER, placed ? "%s/%s%s" : "%s/%s: %s", dir, placed ? "" : file->path,
                              message.data ? message.data : "");
        td_buf_free(&message);
        return rc;
    }
    td_buf code = { 0 };
    lua_dump(L, append_code, &code, 0);
    lua_settop(L, 0);
    file->code_len = code.len;
    file->code = td_buf_take(&code);
    if (!file->code) return td_error_memory(err);
    free(file->text);
    file->text = NULL;
    return 0;
}

int td_files_compile(td_files *files, const char *dir, tidemill_error *err) {
    td_arena arena;
    td_arena_init(&arena, COMPILER_MAX);
    lua_State *L = lua_newstate(td_arena_alloc, &arena);
    int rc = L ? 0 : td_error_memory(err);
    for (size_t i = 0; rc == 0 && i < files->count; i++) rc = compile(L, &files->list[i], dir, err);
    if (L) lua_close(L);
    td_arena_destroy(&arena);
    return rc;
}

/* ---- Finding ---- */

const td_file *td_files_find(const td_files *files, const char *path) {
    td_file key = { .path = path };
    return files->count ? bsearch(&key, files->list, files->count, sizeof key, by_path) : NULL;
}

const td_file *td_files_named(const td_files *files, const char *name) {
    char path[PATH_LIMIT + 16];
    size_t len = strlen(name);
    if (len > PATH_LIMIT) return NULL;
    for (size_t i = 0; i <= len; i++) path[i] = name[i] == '.' ? '/' : name[i];
    strcpy(path + len, ".lua");
    const td_file *file = td_files_find(files, path);
    if (file) return file;
    strcpy(path + len, "/init.lua");
    return td_files_find(files, path);
}

void td_files_free(td_files *files) {
    for (size_t i = 0; i < files->count; i++) {
        free(files->list[i].chunk);
        free(files->list[i].text);
        free(files->list[i].code);
    }
    free(files->list);
    *files = (td_files){ 0 };
}
