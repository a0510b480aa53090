/* optparse.h: a command's options as a table, which drives parsing and help.

   Each command has a structure of values that begins with a td_common; a table's row says where in it the value goes.
   Every command also has the common options. Accepted: --name value, --name=value, -h, and -- before arguments that
   begin with a dash. Values point into argv; lists are malloc'd and freed by td_optparse_free. */
#ifndef TD_OPTPARSE_H
#define TD_OPTPARSE_H

#include "../base/base.h"

typedef enum td_option_kind {
    TD_OPTION_FLAG,     /* bool */
    TD_OPTION_TEXT,     /* const char * */
    TD_OPTION_CHOICE,   /* const char *, one of choices */
    TD_OPTION_INT,      /* int64_t from min to max; TIDEMILL_UNSET when not given */
    TD_OPTION_DURATION, /* int64_t in milliseconds; TIDEMILL_UNSET */
    TD_OPTION_TIME,     /* int64_t in microseconds since 1970; TIDEMILL_UNSET */
    TD_OPTION_LIST      /* td_texts, may be given several times */
} td_option_kind;

typedef struct td_option {
    const char *name;     /* without the dashes */
    const char *argument; /* what help calls its value; NULL for a flag */
    td_option_kind kind;
    size_t offset; /* of the value in the command's structure */
    const char *help;
    int64_t min, max;           /* of an INT */
    const char *const *choices; /* of a CHOICE, NULL-terminated */
} td_option;

/* Rows of a table: T is the command's structure of values, m the member that takes the value. */
#define TD_OPT(kind, name, argument, T, m, help)                                                                       \
    { name, argument, TD_OPTION_##kind, offsetof(T, m), help, 0, 0, NULL }
#define TD_OPT_FLAG(name, T, m, help)                                                                                  \
    { name, NULL, TD_OPTION_FLAG, offsetof(T, m), help, 0, 0, NULL }
#define TD_OPT_INT(name, argument, T, m, min, max, help)                                                               \
    { name, argument, TD_OPTION_INT, offsetof(T, m), help, min, max, NULL }
#define TD_OPT_CHOICE(name, argument, T, m, choices, help)                                                             \
    { name, argument, TD_OPTION_CHOICE, offsetof(T, m), help, 0, 0, choices }

typedef struct td_texts {
    const char **items;
    size_t count;
} td_texts;

/* The values of the common options: the first member of each command's structure. */
typedef struct td_common {
    const char *database;
    bool json, help;
} td_common;

/* The table of the common options, and its length. */
extern const td_option td_optparse_common[];
extern const size_t td_optparse_common_count;

/* td_optparse_init sets every value of a table to "not given". values is zeroed memory of the command's structure. */
void td_optparse_init(const td_option *table, size_t count, void *values);

/* td_optparse_parse reads arguments (NULL-terminated) by a table and the common one into values; what is no option goes
   to *rest, which the caller frees with td_optparse_texts_free. With first_only it stops before the first argument that
   is no option, a subcommand's name; *used is how many arguments were read. When --help is met it stops, with
   common.help set. Errors: INVALID with a sentence, which names the nearest option for a mistyped one; MEMORY. */
int td_optparse_parse(const td_option *table, size_t count, char **arguments, bool first_only, void *values,
                      td_texts *rest, size_t *used, tidemill_error *err) TD_MUST_CHECK;

/* td_optparse_free frees the lists within values, td_optparse_texts_free one list's items (they point into argv). */
void td_optparse_free(const td_option *table, size_t count, void *values);
void td_optparse_texts_free(td_texts *texts);

#endif
