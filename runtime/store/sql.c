/* sql.c: looking things up in the embedded files of sql/. */
#include "sql.h"

#include <stdlib.h>
#include <string.h>

static int compare_name(const void *name, const void *file) {
    return strcmp(name, ((const td_sql_file *)file)->name);
}

const char *td_sql_text(const char *name) {
    const td_sql_file *file = bsearch(name, td_sql_files, td_sql_files_count, sizeof *file, compare_name);
    return file ? file->text : NULL;
}

int td_sql_number(const td_sql_file *file, const char *suffix) {
    static const char folder[] = "migrations/";
    size_t len = strlen(file->name), suffix_len = strlen(suffix);
    if (strncmp(file->name, folder, sizeof folder - 1) != 0) return 0;
    if (len < suffix_len || strcmp(file->name + len - suffix_len, suffix) != 0) return 0;
    return (int)strtol(file->name + sizeof folder - 1, NULL, 10);
}

int td_sql_version(void) {
    int version = 0;
    for (size_t i = 0; i < td_sql_files_count; i++) {
        int number = td_sql_number(&td_sql_files[i], ".up.sql");
        if (number > version) version = number;
    }
    return version;
}
