#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trainer/cli/cli.h"

/* What an evaluation opens, and keeps open until its page is written. */
typedef struct eval_run {
    vl_config *config;
    vl_device *device;
    vl_cache *cache;
    vl_lens *lens;
    vl_eval_result *result;
} eval_run;

static void close_all(eval_run *run)
{
    vl_eval_free(run->result);
    vl_lens_close(run->lens);
    vl_cache_close(run->cache);
    vl_device_close(run->device);
    vl_config_free(run->config);
}

static vl_status evaluate(eval_run *run, const char *lens, const vl_eval_options *options, const vl_observer *observer,
                          vl_error *err)
{
    vl_status status = cli_open_own_cache(&run->cache, run->config, VL_AFFECTS_EVAL, err);
    if (status == VL_OK)
        status = cli_open_own_lens(&run->lens, lens, run->config, VL_AFFECTS_EVAL, err);
    if (status == VL_OK)
        status = vl_eval_run(&run->result, &(vl_eval_inputs){run->config, run->cache, run->lens, run->device}, options,
                             observer, err);
    return status;
}

/* ---- where results go -------------------------------------------------------------------------------------- */

typedef struct outputs {
    const char *json, *page; /* as the user named them, or NULL */
} outputs;

/* A file that cannot be written is found before the work, not after it. */
static vl_status try_output(const char *option, const char *path, vl_error *err)
{
    char temporary[4200];
    if (!path)
        return VL_OK;
    if (!strcmp(path, "-")) {
        snprintf(err->message, sizeof err->message, "%s -: a file is expected; --json prints the result on stdout",
                 option);
        return err->status = VL_EINVAL;
    }
    snprintf(temporary, sizeof temporary, "%s.tmp-%ld", path, (long)getpid());
    FILE *file = fopen(temporary, "w");
    if (!file) {
        snprintf(err->message, sizeof err->message, "%s: %.400s cannot be written: %s", option, path, strerror(errno));
        return err->status = VL_EIO;
    }
    fclose(file);
    unlink(temporary);
    return VL_OK;
}

/* <output>/eval-<digest>.json: every result is kept, none replaces another. Where that cannot be it is said; the result
 * is printed all the same. */
static void keep_result(const eval_run *run, const vl_observer *observer)
{
    char path[4200], line[4800];
    vl_error err = VL_ERROR_INIT;
    snprintf(path, sizeof path, "%s/eval-%s.json", run->config->output, vl_eval_digest(run->result));
    if (access(run->config->output, F_OK) != 0 || vl_eval_write(run->result, path, &err) == VL_OK)
        return;
    snprintf(line, sizeof line, "the result is not kept: %s", err.message);
    observer->message(observer->user, 1, line);
}

static vl_status write_outputs(const eval_run *run, const outputs *to, vl_error *err)
{
    vl_status status = VL_OK;
    if (to->json)
        status = vl_eval_write(run->result, to->json, err);
    if (status == VL_OK && to->page)
        status =
            vl_eval_write_page(to->page, run->result, &(vl_eval_page_options){run->config, run->cache, run->lens}, err);
    return status;
}

static int print_result(const eval_run *run, bool json)
{
    char *text = NULL;
    vl_error err = VL_ERROR_INIT;
    vl_status status = json ? vl_eval_json(&text, run->result, &err) : vl_eval_table(&text, run->result, &err);
    int code = status == VL_OK ? cli_print(text) : cli_fail(status, &err);
    if (status == VL_OK && json && code == EXIT_DONE)
        code = cli_print("\n");
    vl_release(text);
    return code;
}

int cmd_eval(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    vl_eval_options eval = {.team = cli_team()};
    const char *path = NULL, *lens = NULL;
    outputs to = {NULL, NULL};
    const cli_option options[] = {
        {"lens", 'l', CLI_TEXT, &lens, "DIR", "the lens (default: the configuration's output)"},
        {"out", 'o', CLI_TEXT, &to.json, "FILE", "also write the result there, as JSON"},
        {"report", 0, CLI_TEXT, &to.page, "FILE", "also write a page: charts, the fit, what was run"},
        {"allow-other-model", 0, CLI_FLAG, &eval.allow_other_model, NULL,
         "a lens of another model is only a warning, recorded in the result"},
        {"allow-seen", 0, CLI_FLAG, &eval.allow_seen, NULL,
         "held-out rows that the lens was fitted on are evaluated, and the result says so"},
        CLI_COMMON_OPTIONS(common),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, &path, 1, 1);
    if (code >= 0)
        return code;
    vl_error err = VL_ERROR_INIT;
    eval_run run = {NULL, NULL, NULL, NULL, NULL};
    const vl_observer *observer = cli_observer(&common);
    bool writes = !cli_team_is_silent(); /* the others have the same result */
    vl_status status = writes ? try_output("--out", to.json, &err) : VL_OK;
    if (status == VL_OK && writes)
        status = try_output("--report", to.page, &err);
    if (status == VL_OK)
        status = cli_open(&run.config, &run.device, path, &common, &err);
    if (status == VL_OK)
        cli_announce_device(run.device, observer);
    if (status == VL_OK)
        status = evaluate(&run, lens, &eval, observer, &err);
    if (status == VL_OK && writes)
        keep_result(&run, observer);
    if (status == VL_OK && writes)
        status = write_outputs(&run, &to, &err);
    /* A result that could not be written is printed all the same. */
    code = run.result ? print_result(&run, common.json) : EXIT_DONE;
    if (status != VL_OK)
        code = cli_fail(status, &err);
    close_all(&run);
    return code;
}
