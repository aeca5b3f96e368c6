#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trainer/cli/cli.h"

/* A model's facts. */
static vl_status info_model(const char *path, const cli_common *common, vl_error *err)
{
    vl_config *config = NULL;
    vl_device *device = NULL;
    vl_model *model = NULL;
    char text[4200];
    vl_status status = cli_config(&config, NULL, common, err);
    snprintf(text, sizeof text, "model=%s", path);
    if (status == VL_OK)
        status = vl_config_set(config, text, err);
    if (status == VL_OK)
        status = cli_open_device(&device, config, err);
    if (status == VL_OK)
        status = cli_open_model(&model, config, device, err);
    if (status == VL_OK) {
        const vl_model_info *m = vl_model_get_info(model);
        printf("model       %s\ntype        %s, weights in %s, %.1f M parameters\n", m->path, m->model_type,
               m->weight_dtype, (double)m->n_parameters / 1e6);
        printf("text        %lld blocks, width %lld, %lld heads (%lld key/value) of %lld, MLP %lld, vocabulary %lld\n",
               (long long)m->n_layers, (long long)m->d_model, (long long)m->n_heads, (long long)m->n_kv_heads,
               (long long)m->head_dim, (long long)m->d_ff, (long long)m->vocab_size);
        if (m->sees_images)
            printf("pictures    %d px, %d x %d patches, %s\n", m->image_size, m->patch_rows, m->patch_columns,
                   m->patches_in_stream ? "rows of the residual stream" : "seen through cross-attention");
        vl_head *head = NULL;
        status = vl_head_from_model(&head, model, err);
        if (status == VL_OK)
            printf("fingerprint %s\n", vl_head_get_info(head)->fingerprint);
        vl_head_close(head);
        char digest[33];
        if (status == VL_OK)
            status = vl_model_digest(digest, model, err);
        if (status == VL_OK)
            printf("digest      %s\nrules       %s\n", digest, vl_model_rules());
    }
    vl_model_close(model);
    vl_device_close(device);
    vl_config_free(config);
    return status;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Distinct pictures: samples may share them. */
static int64_t count_pictures(const vl_cache_samples *samples, int64_t n)
{
    int64_t distinct = 0;
    const char **hashes = malloc(((size_t)n + 1) * sizeof *hashes);
    for (int64_t i = 0; hashes && i < n; i++)
        hashes[i] = samples->image_sha256[i];
    if (hashes)
        qsort(hashes, (size_t)n, sizeof *hashes, by_text);
    for (int64_t i = 0; hashes && i < n; i++)
        distinct += i == 0 || strcmp(hashes[i], hashes[i - 1]) != 0;
    free(hashes);
    return distinct;
}

static vl_status info_cache(const char *path, const cli_common *common, vl_error *err)
{
    (void)common;
    vl_cache *cache = NULL;
    vl_status status = vl_cache_open(&cache, path, err);
    if (status != VL_OK)
        return status;
    const vl_cache_info *c = vl_cache_get_info(cache);
    const vl_cache_tokens *tokens = vl_cache_get_tokens(cache);
    const vl_cache_samples *samples = vl_cache_get_samples(cache);
    int64_t count[VL_CLASS_COUNT] = {0}, heldout = 0;
    char bytes[32];
    for (int64_t i = 0; i < c->n_tokens; i++)
        count[tokens->token_class[i]]++;
    for (int64_t i = 0; i < c->n_samples; i++)
        heldout += samples->heldout[i];
    printf("cache       %s\nmodel       %s %s\n", c->path, c->model_type, c->model_id);
    printf("states      %lld of %lld rows, width %lld, %s, %s in %lld shards\n", (long long)c->n_states,
           (long long)c->n_tokens, (long long)c->d_model, vl_dtype_name(c->dtype),
           cli_bytes(bytes,
                     (double)c->n_states * (double)c->n_tokens * (double)c->d_model * (double)vl_dtype_size(c->dtype)),
           (long long)c->n_shards);
    printf("samples     %lld", (long long)c->n_samples);
    if (heldout > 0) /* a split of its own */
        printf(", held out %lld", (long long)heldout);
    if (c->n_skipped > 0)
        printf(", %lld left out", (long long)c->n_skipped);
    printf("; pictures %lld\n", (long long)count_pictures(samples, c->n_images));
    printf("rows       ");
    for (int i = 0; i < VL_CLASS_COUNT; i++)
        if (count[i])
            printf(" %s %lld", vl_token_class_name((vl_token_class)i), (long long)count[i]);
    printf("\nfingerprint %s\ndigest      %s\n", c->fingerprint, c->model_digest[0] ? c->model_digest : "unknown");
    if (c->rules[0])
        printf("rules       %s\n", c->rules);
    printf("written     %s by vlens %s\n", c->created, c->vlens_version);
    vl_cache_close(cache);
    return VL_OK;
}

bool cli_holds(const char *folder, const char *name)
{
    char file[4200];
    snprintf(file, sizeof file, "%s/%s", folder, name);
    return access(file, F_OK) == 0;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

cli_kind cli_kind_of(const char *path)
{
    if (cli_holds(path, "index.h5") || ends_with(path, ".h5"))
        return CLI_CACHE;
    if (cli_holds(path, "lens.safetensors") || ends_with(path, ".safetensors"))
        return CLI_LENS;
    return CLI_MODEL;
}

int cmd_info(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    const char *path = NULL;
    bool spectrum = false;
    const cli_option options[] = {
        {"spectrum", 0, CLI_FLAG, &spectrum, NULL, "of a lens: singular values too (minutes a layer at width 4096)"},
        {"json", 0, CLI_FLAG, &common.json, NULL, "of a lens: print the result as JSON"},
        {"device", 0, CLI_TEXT, &common.device, "NAME", "auto | cpu | cuda | cuda:N"},
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, &path, 1, 1);
    if (code >= 0)
        return code;
    vl_error err = VL_ERROR_INIT;
    cli_kind kind = cli_kind_of(path);
    if (kind == CLI_CACHE && cli_goes_to_child(&code, path, true))
        return code;
    vl_status status = kind == CLI_CACHE  ? info_cache(path, &common, &err)
                       : kind == CLI_LENS ? cli_info_lens(path, spectrum, common.json, &err)
                                          : info_model(path, &common, &err);
    return status == VL_OK ? cli_print("") : cli_fail(status, &err);
}
