#include <stdlib.h>
#include <string.h>

#include "trainer/cli/cli.h"

typedef enum topk_format { TABLE, CSV, JSON, JSON_V2, FORMATS } topk_format;
static const char *const format_names[FORMATS] = {"table", "csv", "json", "json-v2"};

/* --format, or what --csv and --json say. Returns -1 to go on. */
static int read_format(topk_format *out, const char *name, bool csv, bool json)
{
    *out = csv ? CSV : json ? JSON : TABLE;
    for (topk_format f = TABLE; name && f <= FORMATS; f++) {
        if (f == FORMATS) {
            fprintf(stderr, "vlens topk: --format is \"%s\", expected table, csv, json or json-v2\n", name);
            return EXIT_USAGE;
        }
        if (!strcmp(name, format_names[f])) {
            *out = f;
            break;
        }
    }
    return -1;
}

static vl_status text_of(char **out, topk_format format, const vl_reading *reading, int64_t index, vl_error *err)
{
    switch (format) {
    case CSV: return vl_reading_csv(out, reading, err);
    case JSON_V2: return vl_reading_json_v2(out, reading, err);
    case JSON: return vl_reading_json(out, reading, err);
    default: {
        const vl_table_options options = {cli_columns(), cli_has_colour()};
        return vl_reading_table(out, reading, index, &options, err);
    }
    }
}

static int print_reading(topk_format format, const vl_reading *reading)
{
    vl_error err = VL_ERROR_INIT;
    int64_t n = format == TABLE ? vl_reading_get_info(reading).n_positions : 1;
    int code = EXIT_DONE;
    for (int64_t i = 0; code == EXIT_DONE && i < n; i++) {
        char *text = NULL;
        vl_status status = text_of(&text, format, reading, i, &err);
        code = status == VL_OK ? cli_print(text) : cli_fail(status, &err);
        vl_release(text);
    }
    if (code == EXIT_DONE && (format == JSON || format == JSON_V2))
        code = cli_print("\n");
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
    const char *svg = NULL, *name = NULL;
    topk_format format = TABLE;
    const cli_option options[] = {
        CLI_READING_OPTIONS(q),
        {"position", 0, CLI_LIST, &texts, "N", "row of the sequence, -1 is the last (default; repeatable); or all"},
        {"svg", 0, CLI_TEXT, &svg, "FILE", "also write a heat map: a row per state, a column per rank"},
        {"csv", 0, CLI_FLAG, &csv, NULL, "the same as --format csv"},
        {"format", 'f', CLI_TEXT, &name, "NAME", "table (default), csv, json, or json-v2 (for logitlenskit)"},
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
        code = read_format(&format, name, csv, q.common.json);
    if (code < 0)
        code = read_positions(&q, positions, &texts);
    if (code >= 0)
        return code;
    if (svg && q.n_positions != 1) {
        fprintf(stderr, "vlens topk: --svg draws one position\n");
        return EXIT_USAGE;
    }
    q.trajectories = format == JSON_V2;
    vl_status status = cli_open_reading(&reading, &q, &err);
    if (status == VL_OK && svg)
        status = vl_reading_write_svg(svg, reading, 0, &err);
    code = status == VL_OK ? print_reading(format, reading) : cli_fail(status, &err);
    vl_reading_free(reading);
    return code;
}
