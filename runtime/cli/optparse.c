/* optparse.c: the table-driven option parser. See optparse.h. */
#include "optparse.h"

#include "parse.h"

#include <stdlib.h>
#include <string.h>

#define NAMES_MAX 64 /* options of one command, with the common ones: for the suggestion's list */

const td_option td_optparse_common[] = {
    TD_OPT(TEXT, "database", "URL", td_common, database,
           "the database, as a libpq URL or connection string; else DATABASE_URL, else libpq's PG... variables"),
    TD_OPT_FLAG("json", td_common, json, "print JSON"),
    TD_OPT_FLAG("help", td_common, help, "show this (also -h)"),
};
const size_t td_optparse_common_count = TD_COUNT(td_optparse_common);

/* One run of the parser. */
typedef struct parser {
    const td_option *table;
    size_t count;
    char **arguments;
    size_t at; /* the argument that is read next */
    void *values;
    td_texts *rest;
    tidemill_error *err;
} parser;

/* slot returns where an option's value goes. */
static void *slot(const td_option *option, void *values) {
    return (char *)values + option->offset;
}

void td_optparse_init(const td_option *table, size_t count, void *values) {
    for (size_t i = 0; i < count; i++) {
        td_option_kind kind = table[i].kind;
        if (kind == TD_OPTION_INT || kind == TD_OPTION_DURATION || kind == TD_OPTION_TIME)
            *(int64_t *)slot(&table[i], values) = TIDEMILL_UNSET;
    }
}

/* add_text appends to a list. */
static int add_text(td_texts *list, const char *text, tidemill_error *err) {
    const char **items = realloc(list->items, (list->count + 1) * sizeof *items);
    if (!items) return td_error_memory(err);
    items[list->count++] = text;
    list->items = items;
    return 0;
}

/* search finds a name of len bytes in one table. */
static const td_option *search(const td_option *table, size_t count, const char *name, size_t len) {
    for (size_t i = 0; i < count; i++)
        if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0) return &table[i];
    return NULL;
}

/* unknown says that an option does not exist, and which one may have been meant. */
static int unknown(const parser *p, const char *name) {
    const char *names[NAMES_MAX + 1];
    size_t n = 0;
    for (size_t i = 0; i < p->count && n < NAMES_MAX; i++) names[n++] = p->table[i].name;
    for (size_t i = 0; i < td_optparse_common_count && n < NAMES_MAX; i++) names[n++] = td_optparse_common[i].name;
    names[n] = NULL;
    const char *nearest = td_nearest(name, names);
    if (nearest)
        return td_error_set(p->err, TIDEMILL_EINVALID, "there is no option --%s; did you mean --%s?", name, nearest);
    return td_error_set(p->err, TIDEMILL_EINVALID, "there is no option --%s", name);
}

/* store_choice stores a value that must be one of the option's choices. */
static int store_choice(const td_option *option, const char *text, const char **value, tidemill_error *err) {
    for (const char *const *choice = option->choices; *choice; choice++) {
        if (strcmp(*choice, text) != 0) continue;
        *value = *choice;
        return 0;
    }
    const char *nearest = td_nearest(text, option->choices);
    if (nearest) return td_error_set(err, TIDEMILL_EINVALID, "%s is not allowed; did you mean %s?", text, nearest);
    td_buf list = { 0 };
    for (const char *const *choice = option->choices; *choice; choice++)
        td_buf_printf(&list, "%s%s", choice == option->choices ? "" : choice[1] ? ", " : " or ", *choice);
    td_error_set(err, TIDEMILL_EINVALID, "%s is not allowed; give %s", *text ? text : "an empty value",
                 list.failed ? "another" : list.data);
    td_buf_free(&list);
    return TIDEMILL_EINVALID;
}

/* store puts one option's value, as typed, into values. */
static int store(const parser *p, const td_option *option, const char *text) {
    void *value = slot(option, p->values);
    int rc = 0;
    switch (option->kind) {
    case TD_OPTION_FLAG:
        *(bool *)value = true;
        return 0;
    case TD_OPTION_TEXT:
        *(const char **)value = text;
        return 0;
    case TD_OPTION_LIST:
        return add_text(value, text, p->err);
    case TD_OPTION_CHOICE:
        rc = store_choice(option, text, value, p->err);
        break;
    case TD_OPTION_INT:
        rc = td_parse_integer(text, option->min, option->max, value, p->err);
        break;
    case TD_OPTION_DURATION:
        rc = td_parse_duration(text, value, p->err);
        break;
    case TD_OPTION_TIME:
        rc = td_parse_time(text, value, p->err);
        break;
    }
    return rc ? td_error_prefix(p->err, "--%s", option->name) : 0;
}

/* read_option reads the option at p->at, which begins with two dashes, and its value. */
static int read_option(parser *p) {
    const char *name = p->arguments[p->at++] + 2;
    size_t len = strcspn(name, "=");
    const char *text = name[len] ? name + len + 1 : NULL;
    const td_option *option = search(p->table, p->count, name, len);
    if (!option) option = search(td_optparse_common, td_optparse_common_count, name, len);
    if (!option) {
        char *word = td_memdup(name, len);
        int rc = word ? unknown(p, word) : td_error_memory(p->err);
        free(word);
        return rc;
    }
    if (option->kind == TD_OPTION_FLAG) {
        if (text) return td_error_set(p->err, TIDEMILL_EINVALID, "--%s takes no value", option->name);
        return store(p, option, NULL);
    }
    if (!text) {
        text = p->arguments[p->at];
        /* Another option in the value's place is far more often a forgotten value than a value. */
        if (!text || strncmp(text, "--", 2) == 0)
            return td_error_set(p->err, TIDEMILL_EINVALID, "--%s needs a value: --%s %s", option->name, option->name,
                                option->argument);
        p->at++;
    }
    return store(p, option, text);
}

/* read_argument reads what is at p->at. *end is set when nothing more is to be read. */
static int read_argument(parser *p, bool first_only, bool *end) {
    const char *text = p->arguments[p->at];
    if (strcmp(text, "--") == 0) {
        p->at++;
        *end = first_only;
        for (; !first_only && p->arguments[p->at]; p->at++)
            if (add_text(p->rest, p->arguments[p->at], p->err)) return TIDEMILL_EMEMORY;
        return 0;
    }
    if (strcmp(text, "-h") == 0) {
        ((td_common *)p->values)->help = true;
        p->at++;
        return 0;
    }
    if (strncmp(text, "--", 2) == 0) return read_option(p);
    if (text[0] == '-' && text[1] != '\0')
        return td_error_set(
            p->err, TIDEMILL_EINVALID,
            "there is no option %s; options have two dashes, and -- comes before an argument that begins "
            "with one",
            text);
    if (first_only) {
        *end = true;
        return 0;
    }
    p->at++;
    return add_text(p->rest, text, p->err);
}

int td_optparse_parse(const td_option *table, size_t count, char **arguments, bool first_only, void *values,
                      td_texts *rest, size_t *used, tidemill_error *err) {
    parser p = { table, count, arguments, 0, values, rest, err };
    bool end = false;
    int rc = 0;
    while (rc == 0 && !end && arguments[p.at] && !((td_common *)values)->help) rc = read_argument(&p, first_only, &end);
    *used = p.at;
    return rc;
}

void td_optparse_texts_free(td_texts *texts) {
    free(texts->items);
    *texts = (td_texts){ 0 };
}

void td_optparse_free(const td_option *table, size_t count, void *values) {
    if (!values) return;
    for (size_t i = 0; i < count; i++)
        if (table[i].kind == TD_OPTION_LIST) td_optparse_texts_free(slot(&table[i], values));
}
