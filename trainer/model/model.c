/* Opening and closing a model: what all families share. */
#include "trainer/model/model.h"

#include "trainer/base/mem.h"
#include "trainer/model/digest.h"
#include "trainer/model/family.h"
#include "trainer/model/head_load.h"
#include "trainer/model/unread.h"
#include "trainer/model/vision.h"

static vl_status load_weights(vl_model *model, vl_loader *loader, vl_error *err)
{
    const vl_model_spec *spec = &model->spec;
    VL_TRY(vl_decoder_load(&model->decoder, loader, err));
    if (spec->vision.path != VL_VISION_NONE && !spec->family->encode)
        VL_TRY(vl_vision_new(&model->vision, loader, err));
    if (spec->family->open)
        VL_TRY(spec->family->open(model, loader, err));
    return vl_head_load(model, loader, err);
}

static void describe(vl_model *model, const vl_loader *loader)
{
    const vl_decoder_spec *decoder = &model->spec.decoder;
    const vl_vision_spec *vision = &model->spec.vision;
    vl_dtype most = VL_F32;
    int64_t total = 0;
    for (int i = VL_F32; i <= VL_BF16; i++) {
        total += loader->elements[i];
        if (loader->elements[i] > loader->elements[most])
            most = (vl_dtype)i;
    }
    model->info = (vl_model_info){.path = model->path,
                                  .model_type = model->spec.model_type,
                                  .d_model = decoder->hidden_size,
                                  .n_layers = decoder->n_layers,
                                  .vocab_size = decoder->vocab_size,
                                  .n_heads = decoder->n_heads,
                                  .n_kv_heads = decoder->n_kv_heads,
                                  .head_dim = decoder->head_dim,
                                  .d_ff = decoder->intermediate_size,
                                  .sees_images = vision->path != VL_VISION_NONE,
                                  .patches_in_stream = vision->path == VL_VISION_IN_STREAM,
                                  .image_size = vision->image_size,
                                  .patch_rows = vision->rows,
                                  .patch_columns = vision->columns,
                                  .image_token = vision->image_token,
                                  .weight_dtype = vl_dtype_name(most),
                                  .n_parameters = total};
}

static vl_status load(vl_model *model, vl_error *err)
{
    vl_loader loader = {
        .device = model->device, .directory = model->directory, .spec = &model->spec, .precision = model->precision};
    VL_TRY(load_weights(model, &loader, err));
    describe(model, &loader);
    return vl_unread_collect(&model->unread, &model->n_unread, &loader, err);
}

static vl_status open_model(vl_model *model, const vl_model_options *options, vl_error *err)
{
    VL_TRY(vl_hub_resolve(&model->path, options->path, &options->hub, err));
    VL_TRY(vl_model_spec_read(&model->spec, model->path, err));
    VL_TRY(vl_tokenizer_open(&model->tokenizer, model->path, err));
    VL_TRY(vl_chat_template_open(&model->chat, model->path, err));
    if (!model->chat && model->spec.family->chat_template)
        VL_TRY(vl_chat_template_new(&model->chat, "the chat template of the family", model->spec.family->chat_template,
                                    err));
    VL_TRY(vl_hf_directory_open(&model->directory, model->path, err));
    return load(model, err);
}

vl_status vl_model_open(vl_model **out, const vl_model_options *options, vl_error *err)
{
    *out = NULL;
    vl_model *model = vl_calloc(1, sizeof *model);
    if (!model)
        return vl_fail_nomem(err, "model");
    model->device = options->device;
    model->precision = options->precision;
    vl_status status = open_model(model, options, err);
    if (status != VL_OK) {
        vl_model_close(model);
        return status;
    }
    *out = model;
    return VL_OK;
}

void vl_model_close(vl_model *model)
{
    if (!model)
        return;
    vl_model_digest_free(model->digest); /* before the weights that it reads */
    if (model->spec.family && model->spec.family->close)
        model->spec.family->close(model);
    vl_vision_free(model->vision, model->device);
    vl_decoder_free(&model->decoder, model->device);
    vl_hf_directory_close(model->directory);
    vl_tokenizer_close(model->tokenizer);
    vl_model_spec_clear(&model->spec);
    for (size_t i = 0; i < sizeof model->head_memory / sizeof *model->head_memory; i++)
        vl_free(model->head_memory[i]);
    vl_free(model->unread);
    vl_chat_template_close(model->chat);
    vl_free(model->path);
    vl_free(model);
}

const vl_model_info *vl_model_get_info(const vl_model *model)
{
    return &model->info;
}

const vl_tokenizer *vl_model_tokenizer(const vl_model *model)
{
    return model->tokenizer;
}

const char *vl_model_unread_tensor(const vl_model *model, size_t i)
{
    return i < model->n_unread ? model->unread[i] : NULL;
}
