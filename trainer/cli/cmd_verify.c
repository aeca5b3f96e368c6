#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trainer/cli/cli.h"

/* Above this, a file does not say what is computed from it: float32 arithmetic stays far below, in every model. */
static const double MOST_ITSELF = 1e-5;
/* Above this, a lens is not the one that it should be: rounding of matrices to 16 bits stays below. */
static const double MOST_OTHER = 1e-2;

/* Opens everything that opening checks: shards, shapes, tokenizer, preprocessing. */
static vl_status verify_model(const char *path, vl_error *err)
{
    cli_head head;
    vl_status status = cli_head_open(&head, path, NULL, err);
    cli_head_close(&head);
    return status;
}

/* A lens in any format that import reads, by way of a temporary folder. Opened, the folder is gone. */
static vl_status open_any(vl_lens **out, const char *path, const cli_head *head, vl_error *err)
{
    char folder[] = "/tmp/vlens-verify-XXXXXX", file[64];
    if (!mkdtemp(folder)) {
        snprintf(err->message, sizeof err->message, "%s: cannot make a folder", folder);
        return err->status = VL_EIO;
    }
    vl_status status = vl_lens_import(&(vl_import_options){path, folder, head->head, NULL, false}, NULL, err);
    if (status == VL_OK)
        status = vl_lens_open(out, folder, err);
    snprintf(file, sizeof file, "%s/lens.safetensors", folder);
    unlink(file);
    rmdir(folder);
    return status;
}

static vl_status judge(const vl_agreement *a, const char *path, const char *original, vl_error *err)
{
    if (!(a->worst <= MOST_ITSELF)) {
        snprintf(err->message, sizeof err->message,
                 "%s: logits of layer %lld are not those of its numbers: KL %.3g, at most %.0e is expected", path,
                 (long long)a->worst_layer, a->worst, MOST_ITSELF);
        return err->status = VL_EMISMATCH;
    }
    if (original && !(a->other_worst <= MOST_OTHER)) {
        snprintf(err->message, sizeof err->message,
                 "%s: logits of layer %lld are not those of %s: KL %.3g, at most %.0e is expected", path,
                 (long long)a->other_layer, original, a->other_worst, MOST_OTHER);
        return err->status = VL_EMISMATCH;
    }
    return VL_OK;
}

/* The body below the head, where both sides know theirs. */
static vl_status check_body(const vl_lens *lens, const cli_head *head, vl_error *err)
{
    char digest[33] = "";
    const char *lens_digest = vl_lens_get_info(lens)->model_digest;
    if (head->cache) {
        const vl_cache_info *info = vl_cache_get_info(head->cache);
        return vl_lens_check_model(lens, info->model_digest, info->model_manifest, false, NULL, err);
    }
    vl_status status = lens_digest[0] ? vl_model_digest(digest, head->model, err) : VL_OK;
    return status == VL_OK ? vl_lens_check_model(lens, digest, vl_model_manifest(head->model), false, NULL, err)
                           : status;
}

/* Does it belong to the model, and are the logits those of its numbers (and of the lens that it was made from)? */
static vl_status verify_against(vl_agreement *out, const char *path, const char *against, const char *original,
                                vl_error *err)
{
    cli_head head = {0};
    vl_lens *lens = NULL, *other = NULL;
    bool cached = cli_kind_of(against) == CLI_CACHE;
    vl_status status = cli_head_open(&head, cached ? NULL : against, cached ? against : NULL, err);
    if (status == VL_OK)
        status = open_any(&lens, path, &head, err);
    if (status == VL_OK)
        status = check_body(lens, &head, err);
    if (status == VL_OK && original)
        status = open_any(&other, original, &head, err);
    if (status == VL_OK)
        status = vl_lens_agree(out, &(vl_agree_args){lens, other, head.head, head.device, head.cache, head.model}, err);
    if (status == VL_OK)
        status = judge(out, path, original, err);
    vl_lens_close(lens);
    vl_lens_close(other);
    cli_head_close(&head);
    return status;
}

static vl_status verify_lens(const char *path, vl_error *err)
{
    vl_lens *lens = NULL;
    vl_status status = vl_lens_open(&lens, path, err);
    vl_lens_close(lens);
    return status;
}

static void print_agreement(const vl_agreement *a, const char *path, const char *against, const char *original)
{
    printf("%s: whole, and belongs to %s\n", path, against);
    printf("logits    as its numbers say: largest KL %.1e (layer %lld; %lld rows of every layer, float64)\n", a->worst,
           (long long)a->worst_layer, (long long)a->rows);
    if (original)
        printf("%s: largest KL %.1e (layer %lld), mean %.1e\n", original, a->other_worst, (long long)a->other_layer,
               a->other_mean);
}

static void print_json(const vl_agreement *a, const char *path, const char *against, const char *original)
{
    printf("{\"path\": ");
    cli_put_json(path);
    printf(", \"whole\": true");
    if (against) {
        printf(", \"belongs_to\": ");
        cli_put_json(against);
        printf(", \"rows\": %lld, \"largest_kl\": %.6g, \"largest_kl_layer\": %lld", (long long)a->rows, a->worst,
               (long long)a->worst_layer);
    }
    if (original) {
        printf(", \"lens\": ");
        cli_put_json(original);
        printf(", \"lens_largest_kl\": %.6g, \"lens_largest_kl_layer\": %lld, \"lens_mean_kl\": %.6g", a->other_worst,
               (long long)a->other_layer, a->other_mean);
    }
    printf("}\n");
}

int cmd_verify(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    const char *path = NULL, *against = NULL, *original = NULL;
    const cli_option options[] = {
        {"against", 0, CLI_TEXT, &against, "PATH",
         "a model or cache that a lens (in any format that import reads) must belong to; logits are recomputed"},
        {"lens", 0, CLI_TEXT, &original, "LENS", "with --against: the lens whose logits they must be"},
        {"json", 0, CLI_FLAG, &common.json, NULL, "print the result as JSON on stdout"},
        {"quiet", 'q', CLI_FLAG, &common.quiet, NULL, "no progress and no information on stderr"},
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, &path, 1, 1);
    if (code >= 0)
        return code;
    if (original && !against) {
        fprintf(stderr, "vlens verify: --lens needs --against, whose rows both are read at\n");
        return EXIT_USAGE;
    }
    vl_error err = VL_ERROR_INIT;
    vl_agreement agreement;
    cli_kind kind = cli_kind_of(path);
    size_t length = strlen(path);
    bool exported = length > 3 && !strcmp(path + length - 3, ".h5"); /* it may be a lens; import looks into it */
    if (against && kind == CLI_CACHE && !exported) {
        fprintf(stderr, "vlens verify: --against goes with a lens, and %s is none\n", path);
        return EXIT_USAGE;
    }
    if (exported || kind == CLI_CACHE)
        if (cli_goes_to_child(&code, path, !against))
            return code;
    vl_status status = against             ? verify_against(&agreement, path, against, original, &err)
                       : kind == CLI_CACHE ? vl_cache_verify(path, cli_observer(&common), &err)
                       : kind == CLI_LENS  ? verify_lens(path, &err)
                                           : verify_model(path, &err);
    if (status != VL_OK)
        return cli_fail(status, &err);
    if (common.json)
        print_json(&agreement, path, against, original);
    else if (against)
        print_agreement(&agreement, path, against, original);
    else
        printf("%s: whole\n", path);
    return cli_print("");
}
