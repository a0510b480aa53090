/* action.c: one change made to each of several jobs. See action.h. */
#include "action.h"

#include "../store/read.h"
#include "json.h"
#include "parse.h"

#include <string.h>

/* check_ids says which argument is no job's id, before anything is done. Returns an exit code. */
static int check_ids(const td_cli *cli) {
    int64_t id;
    for (size_t i = 0; i < cli->args.count; i++)
        if (td_parse_integer(cli->args.items[i], 1, INT64_MAX, &id, NULL))
            return td_cli_usage(cli, "%s is not a job's id; give a whole number above 0", cli->args.items[i]);
    return TD_EXIT_OK;
}

/* tell appends what became of one job. */
static void tell(td_cli *cli, const char *id, const char *state, const td_said *said, size_t count) {
    td_buf *b = &cli->out.text;
    if (cli->out.json) {
        td_json_open(b, '{');
        td_json_key(b, "id");
        td_json_raw(b, id);
        td_json_key(b, "state");
        td_json_text(b, state);
        td_json_close(b, '}');
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(said[i].state, state) != 0) continue;
        const char *place = strstr(said[i].format, "%s");
        td_buf_printf(b, "%.*s%s%s\n", (int)(place - said[i].format), said[i].format, id, place + 2);
        return;
    }
    td_buf_printf(b, "job %s is %s\n", id, state);
}

/* tell_failure tells why one job was not changed. */
static void tell_failure(td_cli *cli, const char *id, const tidemill_error *err) {
    td_buf *b = &cli->out.text;
    td_cli_fail(err);
    if (!cli->out.json) return;
    td_json_open(b, '{');
    td_json_key(b, "id");
    td_json_raw(b, id);
    td_json_key(b, "error");
    td_json_text(b, err->message);
    td_json_key(b, "code");
    td_json_text(b, tidemill_error_name(err->code));
    td_json_close(b, '}');
}

/* each runs the statement for every id. Returns an exit code. */
static int each(td_cli *cli, td_read *read, const char *statement, int parameters, const char *extra,
                const td_said *said, size_t count) {
    int code = TD_EXIT_OK;
    for (size_t i = 0; i < cli->args.count; i++) {
        const char *id = cli->args.items[i];
        const char *const values[] = { id, extra };
        td_rows *rows = NULL;
        tidemill_error err;
        int rc = td_read_rows(read, statement, values, parameters, &rows, &err);
        const char *state = rc == 0 && td_read_count(rows) ? td_read_cell(rows, 0, 0) : NULL;
        if (rc == 0 && !state) rc = td_error_set(&err, TIDEMILL_ENOT_FOUND, "there is no job %s", id);
        if (rc) {
            code = TD_EXIT_FAILED;
            tell_failure(cli, id, &err);
        } else {
            tell(cli, id, state, said, count);
        }
        td_read_free(rows);
        if (rc == TIDEMILL_ECONNECT) break;
    }
    return code;
}

int td_action_each(td_cli *cli, const char *statement, bool with_extra, const char *extra, const td_said *said,
                   size_t count) {
    td_read *read = NULL;
    tidemill_error err;
    int code = check_ids(cli);
    if (code != TD_EXIT_OK) return code;
    if (td_read_open(td_cli_database(cli), &read, &err)) return td_cli_fail(&err);
    if (cli->out.json) td_json_open(&cli->out.text, '[');
    code = each(cli, read, statement, with_extra ? 2 : 1, extra, said, count);
    if (cli->out.json) {
        td_json_close(&cli->out.text, ']');
        td_output_puts(&cli->out, "\n");
    }
    td_read_close(read);
    int end = td_cli_end(cli);
    return code != TD_EXIT_OK ? code : end;
}
