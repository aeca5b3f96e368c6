/* Caches a model's states, fits a lens on them and measures it on samples that were held out.
 *
 *     cc fit_lens.c $(pkg-config --cflags --libs vlens) -o fit_lens
 *     ./fit_lens MODEL SAMPLES.jsonl OUTPUT [KEY=VALUE ...] */
#include <stdio.h>

#include <vlens/vlens.h>

typedef struct run {
    vl_config *config;
    vl_device *device;
    vl_model *model;
    vl_cache *cache;
    vl_lens *lens;
    vl_eval_result *result;
} run;

static vl_status set(vl_config *config, const char *key, const char *value, vl_error *err)
{
    char text[1024];
    snprintf(text, sizeof text, "%s=%s", key, value);
    return vl_config_set(config, text, err);
}

static vl_status configure(run *r, int argc, char **argv, vl_error *err)
{
    vl_status status = vl_config_new(&r->config, err);
    if (status == VL_OK)
        status = set(r->config, "model", argv[1], err);
    if (status == VL_OK)
        status = set(r->config, "data.samples", argv[2], err);
    if (status == VL_OK)
        status = set(r->config, "output", argv[3], err);
    for (int i = 4; i < argc && status == VL_OK; i++)
        status = vl_config_set(r->config, argv[i], err);
    return status == VL_OK ? vl_config_check(r->config, err) : status;
}

/* What `vlens train` and `vlens eval` do. */
static vl_status fit(run *r, vl_error *err)
{
    char *directory = NULL;
    vl_fit_result fitted = {0};
    vl_status status = vl_device_open(&r->device, r->config->device, (int)r->config->threads, err);
    if (status == VL_OK)
        status = vl_model_open(&r->model, &(vl_model_options){.path = r->config->model, .device = r->device}, err);
    if (status == VL_OK)
        status = vl_cache_build(NULL, r->config, r->model, NULL, NULL, err);
    if (status == VL_OK)
        status = vl_cache_directory(&directory, r->config, err);
    if (status == VL_OK)
        status = vl_cache_open(&r->cache, directory, err);
    if (status == VL_OK)
        status = vl_fit_run(&fitted, &(vl_fit_inputs){r->config, r->cache, r->device}, NULL, NULL, err);
    if (status == VL_OK)
        status = vl_lens_open(&r->lens, r->config->output, err);
    if (status == VL_OK)
        status = vl_eval_run(&r->result, &(vl_eval_inputs){r->config, r->cache, r->lens, r->device}, NULL, NULL, err);
    vl_fit_result_clear(&fitted);
    vl_release(directory);
    return status;
}

static void print_result(const vl_eval_result *result)
{
    int group = vl_eval_n_groups(result) - 1;
    printf("held-out KL in nats, class %s\nstate     logit     tuned\n", vl_eval_get_group(result, group).name);
    for (int64_t i = 0; i < vl_eval_n_layers(result); i++)
        printf("%5d %9.4f %9.4f\n", (int)i, vl_eval_get_cell(result, group, i, VL_EVAL_LOGIT).kl.mean,
               vl_eval_get_cell(result, group, i, VL_EVAL_TUNED).kl.mean);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s MODEL SAMPLES.jsonl OUTPUT [KEY=VALUE ...]\n", argv[0]);
        return 2;
    }
    run r = {0};
    vl_error err = VL_ERROR_INIT;
    vl_status status = configure(&r, argc, argv, &err);
    if (status == VL_OK)
        status = fit(&r, &err);
    if (status == VL_OK)
        print_result(r.result);
    else
        fprintf(stderr, "%s\n", err.message);
    vl_eval_free(r.result);
    vl_lens_close(r.lens);
    vl_cache_close(r.cache);
    vl_model_close(r.model);
    vl_device_close(r.device);
    vl_config_free(r.config);
    return status != VL_OK;
}
