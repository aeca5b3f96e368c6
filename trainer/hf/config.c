#include "trainer/hf/config.h"

#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/hf/config_read.h"

enum { MAX_CONFIG_BYTES = 16 * 1024 * 1024 };

static const struct {
    const char *model_type, *architecture;
    vl_hf_family family;
} families[] = {
    {"llama", "LlamaForCausalLM", VL_HF_LLAMA},
    {"llava", "LlavaForConditionalGeneration", VL_HF_LLAVA},
    {"mllama", "MllamaForConditionalGeneration", VL_HF_MLLAMA},
};
static const char supported[] = "supported: llama, llava (CLIP with a llama text model), mllama";

/* The older checkpoints of LLaVA's own repository also say "llava", but name and compute things differently. */
static vl_status check_architecture(const char *expected, const vl_hf_reader *in)
{
    const json_t *list = json_object_get(in->object, "architectures");
    if (!json_is_array(list) || json_array_size(list) == 0)
        return VL_OK;
    const char *first = json_string_value(json_array_get(list, 0));
    if (first && strcmp(first, expected) == 0)
        return VL_OK;
    return vl_fail(in->err, VL_EUNSUPPORTED, "%s: architecture \"%s\"; supported for this model_type: %s", in->where,
                   first ? first : "(no string)", expected);
}

static vl_status read_family(vl_hf_config *out, const vl_hf_reader *in)
{
    const char *type = NULL;
    VL_TRY(vl_hf_key_string(&type, in, "model_type"));
    if (!type)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"model_type\" is missing; %s", in->where, supported);
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strcmp(families[i].model_type, type) == 0) {
            out->family = families[i].family;
            snprintf(out->model_type, sizeof out->model_type, "%s", type);
            return check_architecture(families[i].architecture, in);
        }
    return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"model_type\" is \"%s\"; %s", in->where, type, supported);
}

static vl_status refuse_quantized(const vl_hf_reader *in)
{
    if (!vl_hf_key_has(in, "quantization_config"))
        return VL_OK;
    const char *method =
        json_string_value(json_object_get(json_object_get(in->object, "quantization_config"), "quant_method"));
    return vl_fail(in->err, VL_EUNSUPPORTED, "%s: quantized weights (%s); supported: float32, float16 and bfloat16",
                   in->where, method ? method : "quantization_config");
}

/* "torch_dtype", since transformers 4.56 "dtype"; "float16" or "torch.float16". */
static vl_status read_dtype(vl_hf_config *out, const vl_hf_reader *in)
{
    const char *name = NULL;
    VL_TRY(vl_hf_key_string(&name, in, "torch_dtype"));
    VL_TRY(vl_hf_key_string(&name, in, "dtype"));
    if (name && strncmp(name, "torch.", 6) == 0)
        name += 6;
    static const vl_dtype known[] = {VL_F32, VL_F16, VL_BF16};
    for (size_t i = 0; name && i < sizeof known / sizeof *known; i++)
        if (strcmp(vl_dtype_name(known[i]), name) == 0) {
            out->has_torch_dtype = true;
            out->torch_dtype = known[i];
        }
    return VL_OK;
}

/* "image_token_index"; newer files (4.50 and later) call it "image_token_id". */
static vl_status read_image_token(vl_hf_config *out, const vl_hf_reader *in)
{
    int newer = -1;
    VL_TRY(vl_hf_key_int(&newer, in, "image_token_id", 0, VL_HF_MAX_VOCAB));
    if (newer >= 0)
        out->image_token_index = newer;
    VL_TRY(vl_hf_key_int(&out->image_token_index, in, "image_token_index", 0, VL_HF_MAX_VOCAB));
    if (newer >= 0 && newer != out->image_token_index)
        return vl_fail(in->err, VL_EMISMATCH, "%s: \"image_token_index\" is %d, \"image_token_id\" is %d", in->where,
                       out->image_token_index, newer);
    return VL_OK;
}

typedef struct section {
    vl_hf_reader reader; /* object NULL where the section is omitted */
    char where[VL_ERROR_MESSAGE_SIZE];
} section;

/* A part of the config, with the model_type that it must have (or omit). */
static vl_status open_section(section *out, const vl_hf_reader *in, const char *key, const char *model_type)
{
    const char *type = model_type;
    snprintf(out->where, sizeof out->where, "%s: %s", in->where, key);
    out->reader = (vl_hf_reader){NULL, out->where, in->err};
    if (!vl_hf_key_has(in, key))
        return VL_OK;
    out->reader.object = json_object_get(in->object, key);
    if (!json_is_object(out->reader.object))
        return vl_fail(in->err, VL_EFORMAT, "%s: \"%s\" is no object", in->where, key);
    VL_TRY(refuse_quantized(&out->reader));
    VL_TRY(vl_hf_key_string(&type, &out->reader, "model_type"));
    if (strcmp(type, model_type) != 0)
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"model_type\" is \"%s\"; supported here: %s", out->where, type,
                       model_type);
    return VL_OK;
}

static vl_status read_strategy(bool *keep_class_row, const vl_hf_reader *in)
{
    const char *name = *keep_class_row ? "full" : "default";
    VL_TRY(vl_hf_key_string(&name, in, "vision_feature_select_strategy"));
    if (strcmp(name, "default") != 0 && strcmp(name, "full") != 0)
        return vl_fail(in->err, VL_EUNSUPPORTED,
                       "%s: \"vision_feature_select_strategy\" is \"%s\"; supported: default, full", in->where, name);
    *keep_class_row = strcmp(name, "full") == 0;
    return VL_OK;
}

/* hidden_states[vision_feature_layer] by python's rules; a tower of n layers has n + 1 of them. */
static vl_status read_feature_layer(vl_hf_config *out, const vl_hf_reader *in)
{
    int n_states = out->clip.n_layers + 1;
    if (json_is_array(json_object_get(in->object, "vision_feature_layer")))
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"vision_feature_layer\" is a list; supported: one integer",
                       in->where);
    VL_TRY(vl_hf_key_int(&out->vision_feature_layer, in, "vision_feature_layer", -n_states, n_states - 1));
    out->vision_state = out->vision_feature_layer + (out->vision_feature_layer < 0 ? n_states : 0);
    if (out->vision_state < 0 || out->vision_state >= n_states) /* the default, in a tower without layers enough */
        return vl_fail(in->err, VL_EFORMAT, "%s: \"vision_feature_layer\" is %d, the tower has %d states", in->where,
                       out->vision_feature_layer, n_states);
    return VL_OK;
}

/* Defaults: transformers 4.46.3 models/llava/configuration_llava.py, LlavaConfig.__init__. */
static vl_status read_llava(vl_hf_config *out, const vl_hf_reader *in)
{
    section text, vision;
    int pad = -1;
    VL_TRY(open_section(&text, in, "text_config", "llama"));
    VL_TRY(open_section(&vision, in, "vision_config", "clip_vision_model"));
    VL_TRY(vl_hf_read_llama(&out->text, &text.reader));
    VL_TRY(vl_hf_read_clip(&out->clip, &vision.reader));
    VL_TRY(vl_hf_key_int(&pad, in, "pad_token_id", -1, 2147483647));
    if (out->text.pad_id < 0)
        out->text.pad_id = pad;
    out->image_token_index = 32000;
    VL_TRY(read_image_token(out, in));
    out->vision_feature_layer = -2;
    VL_TRY(read_feature_layer(out, in));
    VL_TRY(read_strategy(&out->keep_class_row, in));
    out->projector_act = VL_ACT_GELU;
    VL_TRY(vl_hf_key_activation(&out->projector_act, in, "projector_hidden_act"));
    out->projector_bias = true; /* a key since 4.49; always true before */
    VL_TRY(vl_hf_key_bool(&out->projector_bias, in, "multimodal_projector_bias"));
    out->image_seq_length = 576;
    VL_TRY(vl_hf_key_size(&out->image_seq_length, in, "image_seq_length"));
    out->image_tokens = out->clip.n_patches + (out->keep_class_row ? 1 : 0);
    return VL_OK;
}

/* Defaults: transformers 4.46.3 models/mllama/configuration_mllama.py, MllamaConfig.__init__. */
static vl_status read_mllama(vl_hf_config *out, const vl_hf_reader *in)
{
    section text, vision;
    VL_TRY(open_section(&text, in, "text_config", "mllama_text_model"));
    VL_TRY(open_section(&vision, in, "vision_config", "mllama_vision_model"));
    VL_TRY(vl_hf_read_mllama_text(&out->text, &text.reader));
    VL_TRY(vl_hf_read_mllama_vision(&out->mllama_vision, &vision.reader));
    out->image_token_index = 128256;
    VL_TRY(read_image_token(out, in));
    if (out->image_token_index >= out->text.embed_rows)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"image_token_index\" is %d, the embedding table has %d rows",
                       in->where, out->image_token_index, out->text.embed_rows);
    return VL_OK;
}

/* LlavaProcessor's own copy of two facts. A contradiction would put the wrong number of image tokens in a prompt. */
static vl_status read_processor(vl_hf_config *out, const vl_hf_reader *in)
{
    VL_TRY(vl_hf_key_int(&out->processor_patch_size, in, "patch_size", 1, 1024));
    VL_TRY(vl_hf_key_int(&out->num_additional_image_tokens, in, "num_additional_image_tokens", 0, 1024));
    if (out->family != VL_HF_LLAVA)
        return VL_OK;
    bool keep = out->keep_class_row;
    VL_TRY(read_strategy(&keep, in));
    if (out->processor_patch_size != 0 && out->processor_patch_size != out->clip.patch_size)
        return vl_fail(in->err, VL_EMISMATCH, "%s: \"patch_size\" is %d, config.json says %d", in->where,
                       out->processor_patch_size, out->clip.patch_size);
    if (keep != out->keep_class_row)
        return vl_fail(in->err, VL_EMISMATCH,
                       "%s: \"vision_feature_select_strategy\" is \"%s\", config.json says \"%s\"", in->where,
                       keep ? "full" : "default", out->keep_class_row ? "full" : "default");
    return VL_OK;
}

static vl_status read_config(vl_hf_config *out, const vl_hf_reader *in)
{
    VL_TRY(read_family(out, in));
    VL_TRY(refuse_quantized(in));
    VL_TRY(read_dtype(out, in));
    switch (out->family) {
    case VL_HF_LLAMA: return vl_hf_read_llama(&out->text, in);
    case VL_HF_LLAVA: return read_llava(out, in);
    case VL_HF_MLLAMA: return read_mllama(out, in);
    }
    return vl_fail(in->err, VL_EINTERNAL, "%s: family %d", in->where, (int)out->family);
}

static vl_status read_generation(vl_hf_config *out, const vl_hf_reader *in)
{
    return vl_hf_key_has(in, "eos_token_id") ? vl_hf_read_eos(&out->text, in) : VL_OK;
}

typedef struct source_file {
    const char *name;
    bool required;
    vl_status (*read)(vl_hf_config *out, const vl_hf_reader *in);
} source_file;

static vl_status read_file(vl_hf_config *out, const char *directory, const source_file *file, vl_error *err)
{
    json_t *root = NULL;
    char *path = vl_path_join(directory, file->name);
    if (!path)
        return vl_fail_nomem(err, directory);
    vl_status status = VL_OK;
    if (file->required || vl_path_exists(path)) {
        VL_GOTO(vl_json_read(&root, path, MAX_CONFIG_BYTES, err));
        const vl_hf_reader in = {root, path, err};
        status = json_is_object(root) ? file->read(out, &in) : vl_fail(err, VL_EFORMAT, "%s: no JSON object", path);
    }
done:
    json_decref(root);
    vl_free(path);
    return status;
}

vl_status vl_hf_config_read(vl_hf_config *out, const char *directory, vl_error *err)
{
    static const source_file files[] = {{"config.json", true, read_config},
                                        {"processor_config.json", false, read_processor},
                                        /* generate() stops at the ids of this one */
                                        {"generation_config.json", false, read_generation}};
    *out = (vl_hf_config){.image_token_index = -1, .num_additional_image_tokens = -1};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        VL_TRY(read_file(out, directory, &files[i], err));
    return VL_OK;
}
