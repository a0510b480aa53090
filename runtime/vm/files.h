/* files.h: the Lua files of a handlers directory, read once and compiled once. */
#ifndef TD_VM_FILES_H
#define TD_VM_FILES_H

#include "../base/base.h"

typedef struct td_file {
    char *chunk;      /* the name Lua knows it by: "@" and path */
    const char *path; /* relative to the directory: "lib/mailer.lua" */
    bool handler;     /* lies in the directory itself, not in a folder of it */
    uint64_t hash;    /* of the source */
    char *text;       /* which is freed once compiled */
    size_t text_len;
    char *code; /* precompiled by us, with debug information */
    size_t code_len;
} td_file;

typedef struct td_files {
    td_file *list; /* sorted by path */
    size_t count, cap;
    char hash[13]; /* of all paths and texts, hexadecimal */
} td_files;

/* td_files_read reads every *.lua file below dir into files, which is {0} before. Files and folders whose names begin
   with a dot are left out; symbolic links are followed. Errors: IO, HANDLER, MEMORY, each naming the path. */
int td_files_read(td_files *files, const char *dir, tidemill_error *err) TD_MUST_CHECK;

/* td_files_compile compiles what was read. Errors: HANDLER with "dir/file:line: reason", MEMORY. */
int td_files_compile(td_files *files, const char *dir, tidemill_error *err) TD_MUST_CHECK;

/* td_files_find returns the file with this path, or NULL. */
const td_file *td_files_find(const td_files *files, const char *path);

/* td_files_named returns the file that `require name` means: "lib.mailer" is lib/mailer.lua or lib/mailer/init.lua. */
const td_file *td_files_named(const td_files *files, const char *name);

void td_files_free(td_files *files);

#endif
