#include <stdlib.h>
#include <string.h>

#include "trainer/cli/cli.h"

static int print_reading(const cli_reading *q, bool csv, const vl_reading *reading)
{
    vl_error err = VL_ERROR_INIT;
    char *text = NULL;
    int code = EXIT_DONE;
    if (q->common.json)
        return cli_print_json(reading);
    for (int64_t i = 0; code == EXIT_DONE && i < (csv ? 1 : vl_reading_get_info(reading).n_positions); i++) {
        vl_status status = csv ? vl_reading_csv(&text, reading, &err) : vl_reading_table(&text, reading, i, &err);
        code = status == VL_OK ? cli_print(text) : cli_fail(status, &err);
        vl_release(text);
    }
    return code;
}

/* "-1", "17", or "all" alone. Returns -1 to go on. */
static int read_positions(cli_reading *q, int64_t positions[CLI_LIST_MAX], const cli_list *texts)
{
    q->positions = positions;
    q->n_positions = texts->n ? texts->n : 1;
    positions[0] = -1;
    if (texts->n == 1 && !strcmp(texts->items[0], "all")) {
        q->positions = NULL;
        q->n_positions = 0;
        return -1;
    }
    for (int i = 0; i < texts->n; i++) {
        char *end;
        positions[i] = strtoll(texts->items[i], &end, 10);
        if (*end || end == texts->items[i]) {
            fprintf(stderr, "vlens topk: --position is \"%s\", expected an integer, or all\n", texts->items[i]);
            return EXIT_USAGE;
        }
    }
    return -1;
}

int cmd_topk(const cli_command *self, int argc, char **argv)
{
    cli_reading q = {.common = CLI_COMMON_INIT, .k = 5, .sample = -1};
    cli_list texts = {{NULL}, 0};
    bool csv = false;
    const char *svg = NULL;
    const cli_option options[] = {
        CLI_READING_OPTIONS(q),
        {"position", 0, CLI_LIST, &texts, "N", "row of the sequence, -1 is the last (default; repeatable); or all"},
        {"svg", 0, CLI_TEXT, &svg, "FILE", "also write a heat map: a row per state, a column per rank"},
        {"csv", 0, CLI_FLAG, &csv, NULL, "print CSV"},
        CLI_COMMON_OPTIONS(q.common),
        CLI_OPTIONS_END,
    };
    int64_t positions[CLI_LIST_MAX];
    vl_error err = VL_ERROR_INIT;
    vl_reading *reading = NULL;
    int code = cli_parse(self, options, argc, argv, NULL, 0, 0);
    if (code < 0)
        code = cli_check_reading(self, &q);
    if (code < 0)
        code = read_positions(&q, positions, &texts);
    if (code >= 0)
        return code;
    if (svg && q.n_positions != 1) {
        fprintf(stderr, "vlens topk: --svg draws one position\n");
        return EXIT_USAGE;
    }
    vl_status status = cli_open_reading(&reading, &q, &err);
    if (status == VL_OK && svg)
        status = vl_reading_write_svg(svg, reading, 0, &err);
    code = status == VL_OK ? print_reading(&q, csv, reading) : cli_fail(status, &err);
    vl_reading_free(reading);
    return code;
}
