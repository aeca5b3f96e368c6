#include <vlens/samples.h>

#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/data/samples.h"
#include "trainer/model/conversation.h"

typedef struct viewer {
    const vl_config *config;
    const vl_model *model;
    vl_sample_preview_fn show;
    void *user;
} viewer;

static void show_sample(const viewer *v, const vl_sample *sample)
{
    vl_error why = VL_ERROR_INIT;
    vl_sequence *sequence = NULL;
    vl_written written = {0};
    vl_prompt prompt = vl_sample_prompt(v->config, sample);
    vl_status status = sample->ids ? VL_OK : vl_conversation_write(&written, v->model, &prompt, &why);
    if (status == VL_OK)
        status = vl_sample_encode(&sequence, v->model, v->config, sample, &why);
    vl_sample_preview preview = {.number = sample->number,
                                 .line = sample->line,
                                 .turns = sample->turns,
                                 .n_turns = sample->n_turns,
                                 .image_paths = (const char *const *)sample->images,
                                 .n_images = sample->n_images,
                                 .text = sample->ids         ? sample->prompt
                                         : written.text.data ? written.text.data
                                                             : "",
                                 .sequence = sequence,
                                 .fault = status == VL_OK ? NULL : why.message};
    v->show(v->user, &preview);
    vl_written_clear(&written);
    vl_sequence_free(sequence);
}

static void show_fault(const viewer *v, const vl_fault *fault)
{
    vl_sample_preview preview = {.number = fault->number, .line = fault->line, .text = "", .fault = fault->reason};
    v->show(v->user, &preview);
}

vl_status vl_samples_preview(vl_samples_summary *out, const vl_config *config, const vl_model *model, int64_t most,
                             vl_sample_preview_fn show, void *user, vl_error *err)
{
    vl_sample_list list;
    viewer v = {config, model, show, user};
    *out = (vl_samples_summary){0};
    VL_TRY(vl_samples_scan(&list, config, vl_model_tokenizer(model), err));
    memcpy(out->taken_as, list.taken_as, sizeof out->taken_as);
    out->n_samples = list.n;
    out->n_faults = list.n_faults;
    for (int64_t i = 0, f = 0; i + f < most && (i < list.n || f < list.n_faults);) {
        if (f < list.n_faults && (i == list.n || list.faults[f].number < list.items[i].number))
            show_fault(&v, &list.faults[f++]);
        else
            show_sample(&v, &list.items[i++]);
    }
    vl_samples_clear(&list);
    return VL_OK;
}
