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

vl_status vl_samples_add_fault(vl_sample_list *list, int64_t number, int64_t line, const char *reason, vl_error *err)
{
    if (list->n_faults == list->faults_capacity) {
        int64_t capacity = list->faults_capacity ? 2 * list->faults_capacity : 16;
        vl_fault *faults = vl_realloc(list->faults, (size_t)capacity, sizeof *faults);
        if (!faults)
            return vl_fail_nomem(err, "bad samples");
        list->faults = faults;
        list->faults_capacity = capacity;
    }
    char *copy = vl_strdup(reason);
    if (!copy)
        return vl_fail_nomem(err, "bad samples");
    list->faults[list->n_faults++] = (vl_fault){number, line, copy};
    return VL_OK;
}

vl_status vl_samples_scan(vl_sample_list *out, const vl_config *config, const vl_tokenizer *tokenizer, vl_error *err)
{
    memset(out, 0, sizeof *out);
    const char *lines = config->data.samples, *text = config->data.text;
    bool has_lines = lines && lines[0], has_text = text && text[0];
    if (has_lines == has_text)
        return vl_fail(err, VL_EINVAL,
                       has_lines ? "data.samples and data.text are both given, expected one of them"
                                 : "data.samples (a file of samples) or data.text (a corpus) is missing");
    out->is_text = has_text;
    out->path = vl_strdup(has_text ? text : lines);
    vl_status status = out->path ? VL_OK : vl_fail_nomem(err, "samples");
    if (status == VL_OK)
        status =
            has_text ? vl_samples_read_windows(out, config, tokenizer, err) : vl_samples_read_file(out, config, err);
    if (status == VL_OK && out->n + out->n_faults == 0)
        status = vl_fail(err, VL_EFORMAT, "%s: holds no %s", out->path, has_text ? "text" : "samples");
    if (status != VL_OK)
        vl_samples_clear(out);
    return status;
}

vl_status vl_samples_read(vl_sample_list *out, const vl_config *config, const vl_tokenizer *tokenizer, vl_error *err)
{
    vl_status status = VL_OK;
    VL_TRY(vl_samples_scan(out, config, tokenizer, err));
    const vl_fault *first = out->faults;
    if (out->n_faults > 0 && (config->data.bad_samples == VL_BAD_STOP || out->n == 0)) {
        status = vl_fail(err, VL_EFORMAT, "%s:%lld: %.300s", out->path, (long long)first->line, first->reason);
        if (out->n_faults > 1)
            status = vl_error_prefix(err, status, "%lld bad samples, the first: ", (long long)out->n_faults);
        vl_samples_clear(out);
    }
    return status;
}

void vl_sample_clear(vl_sample *sample)
{
    for (int k = 0; k < sample->n_images; k++)
        vl_free(sample->images[k]);
    for (int i = 0; i < sample->n_turns; i++) {
        for (int k = 0; k < sample->turns[i].n_parts; k++)
            vl_free((void *)(uintptr_t)sample->turns[i].parts[k].text);
        vl_free((void *)(uintptr_t)sample->turns[i].parts);
    }
    vl_free(sample->turns);
    vl_free(sample->images);
    vl_free(sample->prompt);
    vl_free(sample->answer);
    memset(sample, 0, sizeof *sample);
}

void vl_samples_clear(vl_sample_list *list)
{
    for (int64_t i = 0; i < list->n; i++)
        vl_sample_clear(&list->items[i]);
    for (int64_t i = 0; i < list->n_faults; i++)
        vl_free(list->faults[i].reason);
    vl_free(list->faults);
    vl_free(list->items);
    vl_free(list->ids);
    vl_free(list->path);
    memset(list, 0, sizeof *list);
}

void vl_samples_drop(vl_sample_list *list, const bool *drop)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < list->n; i++)
        if (drop[i])
            vl_sample_clear(&list->items[i]);
        else
            list->items[kept++] = list->items[i];
    list->n = kept;
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
    if (status == VL_EINVAL)
        status = VL_EFORMAT;
    if (err && err->status == VL_EINVAL)
        err->status = status;
    if (list->is_text)
        return vl_error_prefix(err, status, "%s: window %lld: ", list->path, (long long)sample->number);
    if (sample->line == 0)
        return vl_error_prefix(err, status, "%s: sample %lld: ", list->path, (long long)sample->number);
    return vl_error_prefix(err, status, "%s:%lld: ", list->path, (long long)sample->line);
}

vl_prompt vl_sample_prompt(const vl_config *config, const vl_sample *sample)
{
    return (vl_prompt){.text = sample->prompt,
                       .turns = sample->turns,
                       .n_turns = sample->n_turns,
                       .image_paths = (const char *const *)sample->images,
                       .n_images = sample->n_images,
                       .unplaced = sample->unplaced,
                       .date = config->data.template_date,
                       .raw = config->data.chat_template == VL_TEMPLATE_NONE,
                       .ignore_exif = !config->data.exif,
                       .max_pixels = config->data.max_pixels,
                       .max_tokens = config->data.max_tokens,
                       .truncate = config->data.too_long == VL_LONG_TRUNCATE};
}

/* A corpus that spells the image token would get rows of a picture that is not there. */
static vl_status encode_window(vl_sequence **out, const vl_model *model, const vl_sample *sample, vl_error *err)
{
    const vl_model_info *info = vl_model_get_info(model);
    for (int64_t i = 0; i < sample->n_ids && info->sees_images; i++)
        if (sample->ids[i] == info->image_token)
            return vl_fail(
                err, VL_EFORMAT,
                "the text spells \"%s\" (token %lld), which stands for a picture in this model: take it out, "
                "or leave such windows out with data.bad_samples: skip",
                vl_tokenizer_piece(vl_model_tokenizer(model), info->image_token), (long long)i);
    return vl_sequence_from_ids(out, model, sample->ids, sample->n_ids, err);
}

vl_status vl_sample_encode(vl_sequence **out, const vl_model *model, const vl_config *config, const vl_sample *sample,
                           vl_error *err)
{
    if (sample->ids)
        return encode_window(out, model, sample, err);
    vl_prompt prompt = vl_sample_prompt(config, sample);
    return vl_model_encode(out, model, &prompt, err);
}

vl_status vl_sample_outline(vl_sequence **out, const vl_model *model, const vl_config *config, const vl_sample *sample,
                            vl_error *err)
{
    if (sample->ids)
        return encode_window(out, model, sample, err);
    vl_prompt prompt = vl_sample_prompt(config, sample);
    return vl_model_outline(out, model, &prompt, err);
}

vl_status vl_sample_ask(vl_sequence **out, const vl_model *model, const vl_config *config, const vl_sample *sample,
                        vl_error *err)
{
    vl_sample asked = *sample;
    while (asked.n_turns > 1 && strcmp(asked.turns[asked.n_turns - 1].role, "assistant") == 0)
        asked.n_turns--;
    return vl_sample_encode(out, model, config, &asked, err);
}
