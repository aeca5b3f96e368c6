/* Opening and closing a model: what all families share, and the table of families. */
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/model/digest.h"
#include "trainer/model/family.h"

static const vl_family *family_of(vl_hf_family family)
{
    switch (family) {
    case VL_HF_LLAMA: return &vl_family_llama;
    case VL_HF_LLAVA: return &vl_family_llava;
    case VL_HF_MLLAMA: return &vl_family_mllama;
    }
    return NULL;
}

/* The weights: the decoder, what the family adds, and views of those that the head will take. */
static vl_status load(vl_model *model, vl_loader *loader, vl_error *err)
{
    const vl_text_config *text = &model->config.text;
    VL_TRY(vl_llama_load(&model->text, loader, err));
    if (model->family->open)
        VL_TRY(model->family->open(model, loader, err));
    VL_TRY(
        vl_hf_weight(&model->norm, &loader->source, VL_HF_TEXT, vl_hf_shape1(text->hidden_size), err, "norm.weight"));
    VL_TRY(vl_hf_head(&model->head, &loader->source, err));
    loader->elements[model->norm->dtype] += text->hidden_size;
    if (!text->tie_embeddings)
        loader->elements[model->head->dtype] += (int64_t)text->vocab_size * text->hidden_size;
    return VL_OK;
}

/* The pixels that the vision tower reads, and the grid of patches that it cuts them into. */
static void describe_vision(vl_model_info *info, const vl_hf_config *config)
{
    if (config->family == VL_HF_LLAVA) {
        info->patches_in_stream = true;
        info->image_size = config->clip.image_size;
        info->patch_rows = info->patch_columns = config->clip.grid;
    } else if (config->family == VL_HF_MLLAMA) {
        info->image_size = config->mllama_vision.image_size;
        info->patch_rows = info->patch_columns = config->mllama_vision.grid;
    }
}

static void describe(vl_model *model, const vl_loader *loader)
{
    const vl_text_config *text = &model->config.text;
    vl_dtype most = VL_F32;
    int64_t total = 0;
    for (int i = VL_F32; i <= VL_BF16; i++) {
        total += loader->elements[i];
        if (loader->elements[i] > loader->elements[most])
            most = (vl_dtype)i;
    }
    model->info = (vl_model_info){.path = model->path,
                                  .model_type = model->config.model_type,
                                  .d_model = text->hidden_size,
                                  .n_layers = text->n_layers,
                                  .vocab_size = text->vocab_size,
                                  .n_heads = text->n_heads,
                                  .n_kv_heads = text->n_kv_heads,
                                  .head_dim = text->head_dim,
                                  .d_ff = text->intermediate_size,
                                  .sees_images = model->config.family != VL_HF_LLAMA,
                                  .image_token = model->config.image_token_index,
                                  .weight_dtype = vl_dtype_name(most),
                                  .n_parameters = total};
    describe_vision(&model->info, &model->config);
}

static vl_status read_preprocess(vl_model *model, vl_error *err)
{
    char *path = vl_path_join(model->path, "preprocessor_config.json");
    if (!path)
        return vl_fail_nomem(err, "model");
    vl_status status = vl_preprocess_read(&model->preprocess, path, err);
    vl_free(path);
    return status;
}

static vl_status open_model(vl_model *model, const vl_model_options *options, vl_error *err)
{
    VL_TRY(vl_hub_resolve(&model->path, options->path, &options->hub, err));
    VL_TRY(vl_hf_config_read(&model->config, model->path, err));
    model->family = family_of(model->config.family);
    if (!model->family)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: model_type \"%s\" has no forward here", model->path,
                       model->config.model_type);
    VL_TRY(vl_tokenizer_open(&model->tokenizer, model->path, err));
    if (model->config.family != VL_HF_LLAMA)
        VL_TRY(read_preprocess(model, err));
    VL_TRY(vl_hf_directory_open(&model->directory, model->path, err));
    vl_loader loader = {
        .device = model->device, .source = {model->directory, &model->config}, .precision = model->precision};
    VL_TRY(load(model, &loader, err));
    describe(model, &loader);
    return VL_OK;
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
    if (model->family && model->family->close)
        model->family->close(model);
    vl_llama_free(&model->text, model->device);
    vl_hf_directory_close(model->directory);
    vl_tokenizer_close(model->tokenizer);
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
