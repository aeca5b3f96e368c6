#include <stdlib.h>
#include <string.h>

#include "trainer/cli/cli.h"

enum { MOST_STATES = 64 };

/* "0,8,-1" into numbers. Returns -1 to go on. */
static int read_states(int64_t states[MOST_STATES], int *n, const char *text)
{
    *n = 0;
    for (const char *at = text; at && *at;) {
        char *end;
        if (*n == MOST_STATES) {
            fprintf(stderr, "vlens figure: --states names more than %d states\n", MOST_STATES);
            return EXIT_USAGE;
        }
        states[(*n)++] = strtoll(at, &end, 10);
        if (end == at || (*end && *end != ',') || (*end == ',' && !end[1])) {
            fprintf(stderr, "vlens figure: --states is \"%s\", expected numbers like 0,8,16,-1\n", text);
            return EXIT_USAGE;
        }
        at = *end ? end + 1 : end;
    }
    return -1;
}

typedef struct request {
    const char *what, *out, *eval;
    vl_figure_options options;
} request;

/* What is asked for fits together: -1 to go on. */
static int check(const cli_command *self, const request *f, const cli_reading *q)
{
    bool kl = !strcmp(f->what, "kl");
    if (!kl && strcmp(f->what, "patches") != 0 && strcmp(f->what, "topk") != 0) {
        fprintf(stderr, "vlens figure: \"%s\" is no figure, expected patches, topk or kl\n", f->what);
        return EXIT_USAGE;
    }
    if (!f->out) {
        fprintf(stderr, "vlens figure: --out is missing: a file that ends with .svg, .pdf or .png\n");
        return EXIT_USAGE;
    }
    if (!kl)
        return cli_check_reading(self, q);
    if (f->eval)
        return -1;
    fprintf(stderr, "vlens figure: kl needs --eval FILE, what `vlens eval --json` wrote\n");
    return EXIT_USAGE;
}

static vl_status draw(request *f, cli_reading *q, vl_error *err)
{
    vl_reading *reading = NULL;
    if (!strcmp(f->what, "kl"))
        return vl_figure_kl(f->out, f->eval, &f->options, err);
    int64_t position = f->options.position;
    bool one = !strcmp(f->what, "topk");
    if (one) { /* the reading is of that position alone */
        q->positions = &position;
        q->n_positions = 1;
    }
    vl_status status = cli_open_reading(&reading, q, err);
    f->options.position = 0;
    f->options.picture = q->images.n ? q->images.items[0] : NULL;
    if (status == VL_OK)
        status = one ? vl_figure_topk(f->out, reading, &f->options, err)
                     : vl_figure_patches(f->out, reading, &f->options, err);
    vl_reading_free(reading);
    return status;
}

int cmd_figure(const cli_command *self, int argc, char **argv)
{
    cli_reading q = {.common = CLI_COMMON_INIT, .k = 5, .sample = -1};
    request f = {.options = {.position = -1}};
    const char *states = NULL;
    int64_t list[MOST_STATES];
    const cli_option options[] = {
        {"out", 'o', CLI_TEXT, &f.out, "FILE", "the figure: .svg, .pdf or .png"},
        {"states", 's', CLI_TEXT, &states, "LIST", "patches: the states in a row, as 0,8,16,-1 (default five)"},
        {"word", 'w', CLI_TEXT, &f.options.word, "WORD", "patches: colour by the probability of this token"},
        {"no-words", 0, CLI_FLAG, &f.options.no_words, NULL, "patches: colours only"},
        {"position", 0, CLI_INT, &f.options.position, "N", "topk: row of the sequence, -1 is the last (default)"},
        {"eval", 0, CLI_TEXT, &f.eval, "FILE", "kl: what `vlens eval --json` wrote"},
        {"class", 0, CLI_TEXT, &f.options.group, "NAME", "kl: the token class (default all-text)"},
        CLI_READING_OPTIONS(q),
        CLI_COMMON_OPTIONS(q.common),
        CLI_OPTIONS_END,
    };
    vl_error err = VL_ERROR_INIT;
    int code = cli_parse(self, options, argc, argv, &f.what, 1, 1);
    if (code < 0)
        code = check(self, &f, &q);
    if (code < 0)
        code = read_states(list, &f.options.n_states, states);
    if (code >= 0)
        return code;
    f.options.states = states && *states ? list : NULL;
    if (f.options.word && q.track.n < CLI_LIST_MAX) /* exact at every patch */
        q.track.items[q.track.n++] = f.options.word;
    vl_status status = draw(&f, &q, &err);
    if (status != VL_OK)
        return cli_fail(status, &err);
    if (q.common.json)
        printf("{\"figure\": \"%s\"}\n", f.what);
    else if (!q.common.quiet)
        fprintf(stderr, "%s\n", f.out);
    return cli_print("");
}
