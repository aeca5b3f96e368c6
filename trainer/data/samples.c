#include "trainer/data/samples.h"

#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/model/encode.h"

vl_sample *vl_samples_add(vl_sample_list *list)
{
    if (list->n == list->capacity) {
        int64_t capacity = list->capacity ? 2 * list->capacity : 64;
        vl_sample *items = vl_realloc(list->items, (size_t)capacity, sizeof *items);
        if (!items)
            return NULL;
        list->items = items;
        list->capacity = capacity;
    }
    vl_sample *sample = &list->items[list->n++];
    memset(sample, 0, sizeof *sample);
    return sample;
}

vl_status vl_samples_read(vl_sample_list *out, const vl_config *config, const vl_tokenizer *tokenizer, vl_error *err)
{
    memset(out, 0, sizeof *out);
    const char *lines = config->data.samples, *text = config->data.text;
    bool has_lines = lines && lines[0], has_text = text && text[0];
    if (has_lines == has_text)
        return vl_fail(err, VL_EINVAL,
                       has_lines ? "data.samples and data.text are both given, expected one of them"
                                 : "data.samples (a JSONL file) or data.text (a corpus) is missing");
    out->is_text = has_text;
    out->path = vl_strdup(has_text ? text : lines);
    vl_status status = out->path ? VL_OK : vl_fail_nomem(err, "samples");
    if (status == VL_OK)
        status =
            has_text ? vl_samples_read_windows(out, config, tokenizer, err) : vl_samples_read_lines(out, config, err);
    if (status == VL_OK && out->n == 0)
        status = vl_fail(err, VL_EFORMAT, "%s: holds no %s", out->path, has_text ? "text" : "samples");
    if (status != VL_OK)
        vl_samples_clear(out);
    return status;
}

void vl_samples_clear(vl_sample_list *list)
{
    for (int64_t i = 0; i < list->n; i++) {
        vl_sample *sample = &list->items[i];
        for (int k = 0; k < sample->n_images; k++)
            vl_free(sample->images[k]);
        vl_free(sample->images);
        vl_free(sample->prompt);
        vl_free(sample->answer);
    }
    vl_free(list->items);
    vl_free(list->ids);
    vl_free(list->path);
    memset(list, 0, sizeof *list);
}

const vl_sample *vl_samples_find(const vl_sample_list *list, int64_t number)
{
    int64_t low = 0, high = list->n;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (list->items[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low < list->n && list->items[low].number == number ? &list->items[low] : NULL;
}

vl_status vl_sample_prefix(vl_error *err, vl_status status, const vl_sample_list *list, const vl_sample *sample)
{
    if (list->is_text)
        return vl_error_prefix(err, status, "%s: window %lld: ", list->path, (long long)sample->number);
    return vl_error_prefix(err, status, "%s:%lld: ", list->path, (long long)sample->number + 1);
}

static vl_prompt prompt_of(const vl_config *config, const vl_sample *sample)
{
    return (vl_prompt){.text = sample->prompt,
                       .image_paths = (const char *const *)sample->images,
                       .n_images = sample->n_images,
                       .raw = config->data.chat_template == VL_TEMPLATE_NONE,
                       .ignore_exif = !config->data.exif,
                       .max_pixels = config->data.max_pixels,
                       .max_tokens = config->data.max_tokens};
}

vl_status vl_sample_encode(vl_sequence **out, const vl_model *model, const vl_config *config, const vl_sample *sample,
                           vl_error *err)
{
    if (sample->ids)
        return vl_sequence_from_ids(out, model, sample->ids, sample->n_ids, err);
    vl_prompt prompt = prompt_of(config, sample);
    return vl_model_encode(out, model, &prompt, err);
}

vl_status vl_sample_outline(vl_sequence **out, const vl_model *model, const vl_config *config, const vl_sample *sample,
                            vl_error *err)
{
    if (sample->ids)
        return vl_sequence_from_ids(out, model, sample->ids, sample->n_ids, err);
    vl_prompt prompt = prompt_of(config, sample);
    return vl_model_outline(out, model, &prompt, err);
}
