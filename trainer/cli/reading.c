/* From the options that `topk` and `view` share to a reading. */
#include <stdlib.h>
#include <string.h>

#include "trainer/cli/cli.h"

int cli_check_reading(const cli_command *self, const cli_reading *q)
{
    if (q->compare && (q->cache || !q->images.n)) {
        fprintf(stderr, "vlens %s: --compare needs --model and --image: the prompt is read with both pictures\n",
                self->name);
        return EXIT_USAGE;
    }
    if (q->cache ? !q->model && !q->prompt && !q->images.n && q->sample >= 0 : q->model && q->prompt)
        return -1;
    fprintf(stderr, "vlens %s: either --model with --prompt (and --image), or --cache with --sample\n", self->name);
    return EXIT_USAGE;
}

static vl_status generate(vl_sequence *sequence, vl_model *model, int64_t n, vl_error *err)
{
    int32_t *ids = NULL;
    int64_t n_ids = 0;
    if (n <= 0)
        return VL_OK;
    vl_status status = vl_model_generate(model, sequence, n, &ids, &n_ids, err);
    if (status == VL_OK && n_ids > 0)
        status = vl_sequence_append(sequence, ids, n_ids, err);
    vl_release(ids);
    return status;
}

static vl_status read_prompt(vl_reading **out, vl_model *model, const vl_prompt *prompt, int64_t n_generate,
                             const vl_reading_options *options, vl_error *err)
{
    vl_sequence *sequence = NULL;
    vl_status status = vl_model_encode(&sequence, model, prompt, err);
    if (status == VL_OK)
        status = generate(sequence, model, n_generate, err);
    if (status == VL_OK)
        status = vl_reading_from_model(out, model, sequence, options, err);
    vl_sequence_free(sequence);
    return status;
}

/* The same prompt with another picture in the place of the first, behind the reading. */
static vl_status append_other(vl_reading *reading, vl_model *model, const cli_reading *q, vl_prompt prompt,
                              const vl_reading_options *options, vl_error *err)
{
    vl_reading *other = NULL;
    cli_list images = q->images;
    images.items[0] = q->compare;
    prompt.image_paths = images.items;
    vl_status status = read_prompt(&other, model, &prompt, q->generate, options, err);
    if (status == VL_OK)
        status = vl_reading_append(reading, other, err);
    vl_reading_free(other);
    return status;
}

static vl_status from_model(vl_reading **out, const cli_reading *q, const vl_config *config, vl_device *device,
                            const vl_reading_options *options, vl_error *err)
{
    vl_model *model = NULL;
    vl_prompt prompt = {.text = q->prompt,
                        .image_paths = q->images.items,
                        .n_images = q->images.n,
                        .raw = q->raw || config->data.chat_template == VL_TEMPLATE_NONE,
                        .ignore_exif = q->no_exif || !config->data.exif,
                        .max_pixels = config->data.max_pixels};
    vl_status status = cli_open_model(&model, config, device, err);
    if (status == VL_OK)
        status = read_prompt(out, model, &prompt, q->generate, options, err);
    if (status == VL_OK && q->compare)
        status = append_other(*out, model, q, prompt, options, err);
    vl_model_close(model);
    return status;
}

static vl_status from_cache(vl_reading **out, const cli_reading *q, vl_device *device,
                            const vl_reading_options *options, vl_error *err)
{
    vl_cache *cache = NULL;
    vl_status status = cli_open_cache(&cache, q->cache, err);
    if (status == VL_OK)
        status = vl_reading_from_cache(out, cache, device, q->sample, options, err);
    vl_cache_close(cache);
    return status;
}

/* What a cached sample was made with is settled: keys of the forward would do nothing. */
static vl_status check_sets(const cli_reading *q, vl_error *err)
{
    for (int i = 0; q->cache && i < q->common.set.n; i++) {
        const char *key = q->common.set.items[i];
        if (strncmp(key, "data.", 5) != 0 && strncmp(key, "model=", 6) != 0)
            continue;
        snprintf(err->message, sizeof err->message,
                 "--set %.*s: not used with --cache: the cache was made with its own", (int)strcspn(key, "="), key);
        return err->status = VL_EINVAL;
    }
    return VL_OK;
}

vl_status cli_open_reading(vl_reading **out, const cli_reading *q, vl_error *err)
{
    vl_config *config = NULL;
    vl_device *device = NULL;
    vl_lens *lens = NULL;
    vl_status status = cli_config(&config, NULL, &q->common, err);
    if (status == VL_OK)
        status = check_sets(q, err);
    if (status == VL_OK && q->model) {
        char text[4200];
        snprintf(text, sizeof text, "model=%s", q->model);
        status = vl_config_set(config, text, err);
    }
    if (status == VL_OK)
        status = cli_open_device(&device, config, err);
    if (status == VL_OK && q->lens)
        status = vl_lens_open(&lens, q->lens, err);
    vl_reading_options options = {.lens = lens,
                                  .allow_other_model = q->allow_other_model,
                                  .k = q->k,
                                  .positions = q->positions,
                                  .n_positions = q->n_positions,
                                  .prompt = q->prompt,
                                  .track = q->track.items,
                                  .n_track = q->track.n,
                                  .trajectories = q->trajectories};
    if (status == VL_OK)
        status =
            q->cache ? from_cache(out, q, device, &options, err) : from_model(out, q, config, device, &options, err);
    vl_lens_close(lens);
    vl_device_close(device);
    vl_config_free(config);
    return status;
}

int cli_print_json(const vl_reading *reading)
{
    vl_error err = VL_ERROR_INIT;
    char *text = NULL;
    vl_status status = vl_reading_json(&text, reading, &err);
    int code = status == VL_OK ? cli_print(text) : cli_fail(status, &err);
    if (status == VL_OK && code == EXIT_DONE)
        code = cli_print("\n");
    vl_release(text);
    return code;
}
