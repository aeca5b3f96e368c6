#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trainer/cli/cli.h"

/* One line on stderr: what was written, and how large it is. */
static void report(const char *path, const vl_reading *reading, bool quiet)
{
    vl_reading_info info = vl_reading_get_info(reading);
    struct stat st;
    char bytes[32];
    if (quiet || stat(path, &st) != 0)
        return;
    fprintf(stderr, "%s: %lld positions, %lld states, top-%lld, %s (%s)\n", path, (long long)info.n_positions,
            (long long)info.n_states, (long long)info.k, info.has_lens ? "both lenses" : "logit lens",
            cli_bytes(bytes, (double)st.st_size));
    if (info.warning[0])
        fprintf(stderr, "warning: %s\n", info.warning);
}

/* Whether a file is a page that this command wrote: only those are replaced under the name that nobody gave. */
static bool is_page(const char *path)
{
    char start[1024] = "";
    FILE *file = fopen(path, "r");
    size_t n = file ? fread(start, 1, sizeof start - 1, file) : 0;
    start[n] = 0;
    if (file)
        fclose(file);
    return strstr(start, "<title>vlens</title>") != NULL;
}

int cmd_view(const cli_command *self, int argc, char **argv)
{
    cli_reading q = {.common = CLI_COMMON_INIT, .k = 5, .sample = -1, .generate = 16};
    const char *out = NULL;
    const cli_option options[] = {
        CLI_READING_OPTIONS(q),
        {"compare", 0, CLI_TEXT, &q.compare, "FILE", "another picture for the same prompt, beside the first"},
        {"out", 'o', CLI_TEXT, &out, "FILE", "the page (default page.html)"},
        {"generate", 0, CLI_INT, &q.generate, "N", "tokens that the model adds to the prompt (default 16, 0: none)"},
        CLI_COMMON_OPTIONS(q.common),
        CLI_OPTIONS_END,
    };
    vl_error err = VL_ERROR_INIT;
    vl_reading *reading = NULL;
    int code = cli_parse(self, options, argc, argv, NULL, 0, 0);
    if (code < 0)
        code = cli_check_reading(self, &q);
    if (code >= 0)
        return code;
    if (!out && access("page.html", F_OK) == 0 && !is_page("page.html")) {
        fprintf(stderr, "vlens view: page.html exists and is no page of vlens: --out gives another name\n");
        return EXIT_FAILED;
    }
    out = out ? out : "page.html";
    q.trajectories = !q.compare; /* whole paths of the leading words; two readings are joined without */
    vl_status status = cli_open_reading(&reading, &q, &err);
    if (status == VL_OK)
        status = vl_reading_write_page(out, reading, &err);
    code = status == VL_OK ? EXIT_DONE : cli_fail(status, &err);
    if (code == EXIT_DONE)
        report(out, reading, q.common.quiet);
    if (code == EXIT_DONE && q.common.json)
        code = cli_print_json(reading);
    vl_reading_free(reading);
    return code;
}
