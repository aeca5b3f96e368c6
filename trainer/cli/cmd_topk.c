#include <stdlib.h>
#include <string.h>

#include "trainer/cli/cli.h"

typedef struct request {
    cli_common common;
    const char *model, *prompt, *lens, *cache;
    cli_list images, positions;
    int64_t k, sample;
    bool raw, no_exif, csv, allow_other_model;
} request;

static vl_status from_model(vl_reading **out, const request *q, const vl_config *config, vl_device *device,
                            const vl_reading_options *options, vl_error *err)
{
    vl_model *model = NULL;
    vl_sequence *sequence = NULL;
    vl_prompt prompt = {.text = q->prompt,
                        .image_paths = q->images.items,
                        .n_images = q->images.n,
                        .raw = q->raw,
                        .ignore_exif = q->no_exif};
    vl_status status = cli_open_model(&model, config, device, err);
    if (status == VL_OK)
        status = vl_model_encode(&sequence, model, &prompt, err);
    if (status == VL_OK)
        status = vl_reading_from_model(out, model, sequence, options, err);
    vl_sequence_free(sequence);
    vl_model_close(model);
    return status;
}

static vl_status from_cache(vl_reading **out, const request *q, vl_device *device, const vl_reading_options *options,
                            vl_error *err)
{
    vl_cache *cache = NULL;
    vl_status status = vl_cache_open(&cache, q->cache, err);
    if (status == VL_OK)
        status = vl_reading_from_cache(out, cache, device, q->sample, options, err);
    vl_cache_close(cache);
    return status;
}

static int print_reading(const request *q, const vl_reading *reading)
{
    vl_error err = VL_ERROR_INIT;
    char *text = NULL;
    int code = EXIT_DONE;
    if (q->common.json || q->csv) {
        vl_status status = q->csv ? vl_reading_csv(&text, reading, &err) : vl_reading_json(&text, reading, &err);
        code = status == VL_OK ? cli_print(text) : cli_fail(status, &err);
        if (status == VL_OK && !q->csv)
            code = code ? code : cli_print("\n");
        vl_release(text);
        return code;
    }
    for (int64_t i = 0; code == EXIT_DONE && i < vl_reading_get_info(reading).n_positions; i++) {
        vl_status status = vl_reading_table(&text, reading, i, &err);
        code = status == VL_OK ? cli_print(text) : cli_fail(status, &err);
        vl_release(text);
    }
    return code;
}

static int run(const request *q, const int64_t *positions, int64_t n_positions)
{
    vl_error err = VL_ERROR_INIT;
    vl_config *config = NULL;
    vl_device *device = NULL;
    vl_lens *lens = NULL;
    vl_reading *reading = NULL;
    vl_status status = cli_config(&config, NULL, &q->common, &err);
    if (status == VL_OK && q->model) {
        char text[4200];
        snprintf(text, sizeof text, "model=%s", q->model);
        status = vl_config_set(config, text, &err);
    }
    if (status == VL_OK)
        status = cli_open_device(&device, config, &err);
    if (status == VL_OK && q->lens)
        status = vl_lens_open(&lens, q->lens, &err);
    vl_reading_options options = {lens, q->allow_other_model, q->k, positions, n_positions};
    if (status == VL_OK)
        status = q->cache ? from_cache(&reading, q, device, &options, &err)
                          : from_model(&reading, q, config, device, &options, &err);
    int code = status == VL_OK ? print_reading(q, reading) : cli_fail(status, &err);
    vl_reading_free(reading);
    vl_lens_close(lens);
    vl_device_close(device);
    vl_config_free(config);
    return code;
}

int cmd_topk(const cli_command *self, int argc, char **argv)
{
    request q = {.common = CLI_COMMON_INIT, .k = 5, .sample = -1};
    const cli_option options[] = {
        {"model", 'm', CLI_TEXT, &q.model, "DIR", "a Hugging Face directory, or a hub id in the local cache"},
        {"prompt", 'p', CLI_TEXT, &q.prompt, "TEXT", "the question"},
        {"image", 'i', CLI_LIST, &q.images, "FILE", "a picture (repeatable)"},
        {"cache", 0, CLI_TEXT, &q.cache, "DIR", "read a cached sample in the place of running a model"},
        {"sample", 0, CLI_INT, &q.sample, "N", "its number"},
        {"lens", 'l', CLI_TEXT, &q.lens, "DIR", "a tuned lens, shown beside the logit lens"},
        {"position", 0, CLI_LIST, &q.positions, "N", "row of the sequence, -1 is the last (default; repeatable)"},
        {"k", 'k', CLI_INT, &q.k, "N", "tokens per layer (default 5)"},
        {"raw-prompt", 0, CLI_FLAG, &q.raw, NULL, "take the prompt as it is, without the chat template"},
        {"no-exif", 0, CLI_FLAG, &q.no_exif, NULL, "do not turn pictures by their EXIF orientation"},
        {"csv", 0, CLI_FLAG, &q.csv, NULL, "print CSV"},
        {"allow-other-model", 0, CLI_FLAG, &q.allow_other_model, NULL, "a lens of another model is only a warning"},
        CLI_COMMON_OPTIONS(q.common),
        CLI_OPTIONS_END,
    };
    int64_t positions[CLI_LIST_MAX] = {-1};
    int code = cli_parse(self, options, argc, argv, NULL, 0, 0);
    if (code >= 0)
        return code;
    if (q.cache ? q.model || q.prompt || q.images.n || q.sample < 0 : !q.model || !q.prompt) {
        fprintf(stderr, "vlens topk: either --model with --prompt (and --image), or --cache with --sample\n");
        return EXIT_USAGE;
    }
    for (int i = 0; i < q.positions.n; i++) {
        char *end;
        positions[i] = strtoll(q.positions.items[i], &end, 10);
        if (*end || end == q.positions.items[i]) {
            fprintf(stderr, "vlens topk: --position is \"%s\", expected an integer\n", q.positions.items[i]);
            return EXIT_USAGE;
        }
    }
    return run(&q, positions, q.positions.n ? q.positions.n : 1);
}
