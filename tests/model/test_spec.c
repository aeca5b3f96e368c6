/* config.json into the description of a model: defaults, spellings old and new, refusals. */
#include "tests/support/temp_folder.h"

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/model/families/mllama/mllama.h"
#include "trainer/model/family.h"

static vl_model_spec spec;
static vl_error err;

static vl_status read_text(void **state, const char *text)
{
    temp_text(*state, "config.json", text);
    err = (vl_error)VL_ERROR_INIT;
    vl_model_spec_clear(&spec);
    return vl_model_spec_read(&spec, *state, &err);
}

/* What an image processor of the family needs beside config.json. */
static void put_processor(void **state, const char *text)
{
    char json[200] = "{}";
    int side = strstr(text, "\"image_size\": 560") ? 560 : strstr(text, "\"image_size\": 56,") ? 56 : 448;
    int tiles = strstr(text, "\"max_num_tiles\": 1") ? 1 : 4;
    if (strstr(text, "mllama"))
        temp_format(json, sizeof json, "{\"size\": {\"height\": %d, \"width\": %d}, \"max_image_tiles\": %d}", side,
                    side, tiles);
    else if (strstr(text, "llava"))
        temp_format(json, sizeof json, "{\"do_center_crop\": false}");
    temp_text(*state, "preprocessor_config.json", json);
}

static void accept(void **state, const char *text)
{
    put_processor(state, text);
    if (read_text(state, text) != VL_OK)
        fail_msg("%s: %s", text, err.message);
}

/* `end` is put before the last brace of `start`. */
static void refuse(void **state, vl_status status, const char *word, const char *start, const char *end)
{
    char text[4096];
    snprintf(text, sizeof text, "%.*s%s}", (int)strlen(start) - 1, start, end);
    vl_status found = read_text(state, text);
    if (found != status || !strstr(err.message, word))
        fail_msg("%s: status %d, \"%s\", expected %d with \"%s\"", text, found, err.message, status, word);
}

static const char llama[] = "{\"model_type\": \"llama\"}";
/* As llava-hf/llava-1.5-7b-hf has it: nearly all is omitted. */
static const char llava[] =
    "{\"architectures\": [\"LlavaForConditionalGeneration\"], \"ignore_index\": -100, \"image_token_index\": 32000,"
    "\"model_type\": \"llava\", \"pad_token_id\": 32001, \"projector_hidden_act\": \"gelu\","
    "\"text_config\": {\"architectures\": [\"LlamaForCausalLM\"], \"max_position_embeddings\": 4096,"
    "  \"model_type\": \"llama\", \"rms_norm_eps\": 1e-05, \"torch_dtype\": \"float16\", \"vocab_size\": 32064},"
    "\"tie_word_embeddings\": false, \"torch_dtype\": \"float16\", \"vision_config\": {\"hidden_size\": 1024,"
    "  \"image_size\": 336, \"intermediate_size\": 4096, \"model_type\": \"clip_vision_model\","
    "  \"num_attention_heads\": 16, \"num_hidden_layers\": 24, \"patch_size\": 14, \"projection_dim\": 768},"
    "\"vision_feature_layer\": -2, \"vision_feature_select_strategy\": \"default\", \"vocab_size\": 32064}";
static const char mllama[] =
    "{\"model_type\": \"mllama\", \"text_config\": {\"rope_scaling\": {\"factor\": 8.0, \"high_freq_factor\": 4.0,"
    "  \"low_freq_factor\": 1.0, \"original_max_position_embeddings\": 8192, \"rope_type\": \"llama3\"}},"
    "\"vision_config\": {\"image_size\": 560, \"tie_word_embeddings\": true}, \"dtype\": \"bfloat16\"}";

/* Rows that a picture becomes. */
static int64_t picture_rows(void)
{
    struct vl_sequence_image image = {0};
    assert_int_equal(spec.family->measure(&image, &spec, 640, 480, &err), VL_OK);
    int64_t rows = image.n_rows;
    vl_image_release(&image);
    return rows;
}

static void check_llava_7b(void)
{
    const vl_decoder_spec *t = &spec.decoder;
    assert_string_equal(spec.family->model_type, "llava");
    assert_int_equal(t->hidden_size, 4096);
    assert_int_equal(t->intermediate_size, 11008);
    assert_int_equal(t->n_layers, 32);
    assert_int_equal(t->n_heads, 32);
    assert_int_equal(t->n_kv_heads, 32);
    assert_int_equal(t->head_dim, 128);
    assert_int_equal(t->vocab_size, 32064);
    assert_int_equal(t->embed_rows, 32064);
    assert_int_equal(t->max_position, 4096);
    assert_true(t->norm_eps == 1e-5 && t->ropes[0].theta == 10000);
    assert_int_equal(t->hidden_act, VL_ACT_SILU);
    assert_false(t->tie_embeddings || t->qkv_bias || t->o_bias || t->mlp_bias);
    assert_int_equal(t->ropes[0].kind, VL_ROPE_DEFAULT);
    assert_true(t->ropes[0].attention_factor == 1 && t->ropes[0].factor == 1);
    assert_int_equal(t->bos_id, 1);
    assert_int_equal(t->eos_ids[0], 2);
    assert_int_equal(t->pad_id, 32001);
    assert_int_equal(vl_decoder_count(t, VL_BLOCK_CROSS, t->n_layers), 0);
    assert_int_equal(spec.vision.tower.hidden_size, 1024);
    assert_int_equal(spec.vision.tower.n_layers, 24);
    assert_int_equal(spec.vision.tower.head_dim, 64);
    assert_int_equal(spec.vision.tower.grid, 24);
    assert_int_equal(spec.vision.tower.n_patches, 576);
    assert_int_equal(spec.vision.tower.n_channels, 3);
    assert_int_equal(spec.vision.tower.hidden_act, VL_ACT_QUICK_GELU);
    assert_true(spec.vision.tower.norm_eps == 1e-5);
    assert_int_equal(spec.vision.image_token, 32000);
    assert_int_equal(spec.vision.tower.state, 23);
    assert_false(spec.vision.connector.keep_class_row);
    assert_int_equal(picture_rows(), 576);
    assert_int_equal(spec.vision.connector.act, VL_ACT_GELU);
    assert_true(spec.vision.connector.bias && spec.has_dtype);
    assert_int_equal(spec.dtype, VL_F16);
}

static void check_mllama_11b(int image_size)
{
    static const int cross[] = {3, 8, 13, 18, 23, 28, 33, 38}, indices[] = {3, 7, 15, 23, 30};
    const vl_decoder_spec *t = &spec.decoder;
    const vl_mllama_vision_config *v = vl_mllama_config(&spec);
    assert_string_equal(spec.family->model_type, "mllama");
    assert_int_equal(t->hidden_size, 4096);
    assert_int_equal(t->intermediate_size, 14336);
    assert_int_equal(t->n_layers, 40);
    assert_int_equal(t->n_kv_heads, 8);
    assert_int_equal(t->vocab_size, 128256);
    assert_int_equal(t->embed_rows, 128264);
    assert_int_equal(t->max_position, 131072);
    assert_true(t->norm_eps == 1e-5 && t->ropes[0].theta == 500000);
    assert_int_equal(vl_decoder_count(t, VL_BLOCK_CROSS, t->n_layers), 8);
    for (int i = 0; i < 8; i++)
        assert_int_equal(t->layers[cross[i]].kind, VL_BLOCK_CROSS);
    assert_int_equal(t->ropes[0].kind, VL_ROPE_LLAMA3);
    assert_true(t->ropes[0].factor == 8 && t->ropes[0].low_freq_factor == 1 && t->ropes[0].high_freq_factor == 4);
    assert_int_equal(t->ropes[0].original_max_position, 8192);
    assert_int_equal(t->bos_id, 128000);
    assert_int_equal(t->pad_id, 128004);
    assert_int_equal(t->eos_ids[0], 128001);
    assert_int_equal(v->hidden_size, 1280);
    assert_int_equal(v->n_layers, 32);
    assert_int_equal(v->n_global_layers, 8);
    assert_int_equal(v->n_heads, 16);
    assert_int_equal(v->head_dim, 80);
    assert_int_equal(v->image_size, image_size);
    assert_int_equal(v->n_patches, (image_size / 14) * (image_size / 14) + 1);
    assert_int_equal(v->output_dim, 7680);
    assert_int_equal(v->n_indices, 5);
    assert_memory_equal(v->indices, indices, sizeof indices);
    assert_int_equal(v->n_ratios, 8);
    assert_int_equal(v->ratios[5][0], 2);
    assert_int_equal(v->ratios[5][1], 2);
    assert_int_equal(v->max_tiles, 4);
    assert_int_equal(v->hidden_act, VL_ACT_GELU);
    assert_int_equal(spec.vision.image_token, 128256);
    assert_int_equal(spec.dtype, VL_BF16);
}

static void test_defaults(void **state)
{
    accept(state, llama);
    assert_string_equal(spec.family->model_type, "llama");
    assert_string_equal(spec.model_type, "llama");
    assert_int_equal(spec.decoder.vocab_size, 32000);
    assert_int_equal(spec.decoder.max_position, 2048);
    assert_true(spec.decoder.norm_eps == 1e-6);
    assert_int_equal(spec.decoder.pad_id, -1);
    assert_int_equal(spec.vision.image_token, -1);
    assert_false(spec.has_dtype);
    accept(state, llava);
    check_llava_7b();
    accept(state, mllama);
    check_mllama_11b(560);
    /* LlavaConfig's own tower, and CLIPVisionConfig's defaults for an empty section, are two things. */
    accept(state, "{\"model_type\": \"llava\"}");
    assert_int_equal(spec.vision.tower.hidden_size, 1024);
    assert_int_equal(spec.vision.tower.n_patches, 576);
    accept(state, "{\"model_type\": \"llava\", \"vision_config\": {}}");
    assert_int_equal(spec.vision.tower.hidden_size, 768);
    assert_int_equal(spec.vision.tower.n_patches, 49);
}

static void test_text_keys(void **state)
{
    accept(state, "{\"model_type\": \"llama\", \"hidden_size\": 96, \"num_attention_heads\": 6, \"head_dim\": 24,"
                  "\"num_key_value_heads\": 2, \"attention_bias\": true, \"mlp_bias\": true, \"hidden_act\": \"swish\","
                  "\"tie_word_embeddings\": true, \"eos_token_id\": [1, 7, 9], \"bos_token_id\": null,"
                  "\"pad_token_id\": -1, \"rope_scaling\": null, \"torch_dtype\": \"torch.float32\"}");
    assert_int_equal(spec.decoder.head_dim, 24);
    assert_int_equal(spec.decoder.n_kv_heads, 2);
    assert_true(spec.decoder.qkv_bias && spec.decoder.o_bias && spec.decoder.mlp_bias && spec.decoder.tie_embeddings);
    assert_int_equal(spec.decoder.n_eos, 3);
    assert_int_equal(spec.decoder.eos_ids[2], 9);
    assert_int_equal(spec.decoder.bos_id, -1);
    assert_int_equal(spec.decoder.pad_id, -1);
    assert_int_equal(spec.dtype, VL_F32);
    accept(state, "{\"model_type\": \"llama\", \"head_dim\": null, \"eos_token_id\": null}");
    assert_int_equal(spec.decoder.head_dim, 128);
    assert_int_equal(spec.decoder.n_eos, 0);
    /* generate() stops at the ids of generation_config.json */
    temp_text(*state, "generation_config.json", "{\"eos_token_id\": [5, 6]}");
    accept(state, llama);
    assert_int_equal(spec.decoder.n_eos, 2);
    assert_int_equal(spec.decoder.eos_ids[1], 6);
}

static void test_rope(void **state)
{
    const vl_rope_spec *r = &spec.decoder.ropes[0];
    accept(state, "{\"model_type\": \"llama\", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 4}}");
    assert_int_equal(r->kind, VL_ROPE_LINEAR);
    assert_true(r->factor == 4 && r->attention_factor == 1);
    accept(state, "{\"model_type\": \"llama\", \"max_position_embeddings\": 16,"
                  "\"rope_scaling\": {\"rope_type\": \"dynamic\", \"factor\": 2.0}}");
    assert_int_equal(r->kind, VL_ROPE_DYNAMIC);
    assert_int_equal(r->original_max_position, 16);
    accept(state, "{\"model_type\": \"llama\", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0}}");
    assert_int_equal(r->kind, VL_ROPE_YARN);
    assert_int_equal(r->original_max_position, 2048);
    assert_true(r->attention_factor > 1.138629 && r->attention_factor < 1.138630);
    assert_true(r->beta_fast == 32 && r->beta_slow == 1);
    accept(state, "{\"model_type\": \"llama\", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0,"
                  "\"original_max_position_embeddings\": 512, \"attention_factor\": 1.5, \"beta_fast\": 16}}");
    assert_int_equal(r->original_max_position, 512);
    assert_true(r->attention_factor == 1.5 && r->beta_fast == 16);
    /* transformers 5 */
    accept(state, "{\"model_type\": \"llama\", \"rope_parameters\": {\"rope_theta\": 5e5, \"rope_type\": \"llama3\","
                  "\"factor\": 8.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0,"
                  "\"original_max_position_embeddings\": 32}}");
    assert_int_equal(r->kind, VL_ROPE_LLAMA3);
    assert_true(spec.decoder.ropes[0].theta == 5e5);
    assert_string_equal(vl_rope_name(r->kind), "llama3");
    accept(state,
           "{\"model_type\": \"llama\", \"rope_parameters\": {\"rope_theta\": 7e4, \"rope_type\": \"default\"}}");
    assert_true(spec.decoder.ropes[0].theta == 7e4 && r->kind == VL_ROPE_DEFAULT);

    refuse(state, VL_EUNSUPPORTED, "\"stretchy\"", llama, ",\"rope_scaling\":{\"rope_type\":\"stretchy\"}");
    refuse(state, VL_EFORMAT, "\"short_factor\" is missing", llama, ",\"rope_scaling\":{\"rope_type\":\"longrope\"}");
    refuse(state, VL_EUNSUPPORTED, "setting \"twist\"", llama, ",\"rope_scaling\":{\"type\":\"linear\",\"twist\":1}");
    refuse(state, VL_EFORMAT, "\"factor\" is missing", llama, ",\"rope_scaling\":{\"type\":\"linear\"}");
    refuse(state, VL_EFORMAT, "\"low_freq_factor\" is missing", llama,
           ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}");
    refuse(state, VL_EFORMAT, "\"factor\" is 0.5", llama, ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":0.5}");
    refuse(state, VL_EFORMAT, "no object", llama, ",\"rope_scaling\":\"linear\"");
    refuse(state, VL_EUNSUPPORTED, "disagree", llama,
           ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":8,\"original_max_position_embeddings\":512}");
    refuse(state, VL_EUNSUPPORTED, "mscale", llama, ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":8,\"mscale\":1}");
    refuse(state, VL_EUNSUPPORTED, "of a head turn", llama, ",\"partial_rotary_factor\":0.03");
}

static void test_refusals(void **state)
{
    refuse(state, VL_EUNSUPPORTED, "\"no_such\"; supported: llama, ", "{\"model_type\":\"no_such\"}", "");
    refuse(state, VL_EFORMAT, "\"model_type\" is missing", "{}", "");
    refuse(state, VL_EUNSUPPORTED, "LlavaLlamaForCausalLM", "{\"model_type\":\"llava\"}",
           ",\"architectures\":[\"LlavaLlamaForCausalLM\"]");
    refuse(state, VL_EUNSUPPORTED, "(awq)", llama, ",\"quantization_config\":{\"quant_method\":\"awq\"}");
    refuse(state, VL_EUNSUPPORTED, "\"mish\"", llama, ",\"hidden_act\":\"mish\"");
    refuse(state, VL_EFORMAT, "\"hidden_size\" is 0", llama, ",\"hidden_size\":0");
    refuse(state, VL_EFORMAT, "\"hidden_size\" is no integer", llama, ",\"hidden_size\":96.0");
    refuse(state, VL_EFORMAT, "\"hidden_size\" is 2097152", llama, ",\"hidden_size\":2097152");
    refuse(state, VL_EFORMAT, "\"num_hidden_layers\" is 1025", llama, ",\"num_hidden_layers\":1025");
    refuse(state, VL_EFORMAT, "\"vocab_size\" is -5", llama, ",\"vocab_size\":-5");
    refuse(state, VL_EFORMAT, "multiple of num_key_value_heads", llama, ",\"num_key_value_heads\":5");
    refuse(state, VL_EFORMAT, "multiple of num_attention_heads", llama, ",\"num_attention_heads\":33");
    refuse(state, VL_EFORMAT, "an even width", llama, ",\"head_dim\":15");
    refuse(state, VL_EFORMAT, "expected at most 1048576", llama, ",\"head_dim\":65536");
    refuse(state, VL_EFORMAT, "\"rms_norm_eps\" is no number", llama, ",\"rms_norm_eps\":\"small\"");
    refuse(state, VL_EFORMAT, "\"rms_norm_eps\" is -1", llama, ",\"rms_norm_eps\":-1");
    refuse(state, VL_EFORMAT, "neither true nor false", llama, ",\"mlp_bias\":1");
    refuse(state, VL_EFORMAT, "\"eos_token_id\" holds -3", llama, ",\"eos_token_id\":[1,-3]");
    refuse(state, VL_EFORMAT, "duplicate", llama, ",\"hidden_size\":96,\"hidden_size\":64");
}

static void test_llava_keys(void **state)
{
    static const char base[] = "{\"model_type\": \"llava\"}";
    refuse(state, VL_EUNSUPPORTED, "\"mllama\"; supported here: llama", base,
           ",\"text_config\":{\"model_type\":\"mllama\"}");
    refuse(state, VL_EUNSUPPORTED, "\"siglip_vision_model\"", base,
           ",\"vision_config\":{\"model_type\":\"siglip_vision_model\"}");
    refuse(state, VL_EUNSUPPORTED, "is a list", base, ",\"vision_feature_layer\":[-2,-5]");
    refuse(state, VL_EFORMAT, "\"vision_feature_layer\" is 25", base, ",\"vision_feature_layer\":25");
    refuse(state, VL_EUNSUPPORTED, "\"cls\"", base, ",\"vision_feature_select_strategy\":\"cls\"");
    refuse(state, VL_EMISMATCH, "\"image_token_id\" is 6", base, ",\"image_token_id\":6,\"image_token_index\":5");
    refuse(state, VL_EFORMAT, "\"image_size\" is 20, \"patch_size\" 32", base,
           ",\"vision_config\":{\"image_size\":20}");
    refuse(state, VL_EUNSUPPORTED, "num_channels", base, ",\"vision_config\":{\"num_channels\":4}");
    refuse(state, VL_EFORMAT, "no object", base, ",\"text_config\":3");
    refuse(state, VL_EUNSUPPORTED, "(gptq)", base,
           ",\"text_config\":{\"quantization_config\":{\"quant_method\":\"gptq\"}}");
    accept(state, "{\"model_type\": \"llava\", \"vision_feature_layer\": 1, \"image_token_id\": 77,"
                  "\"vision_feature_select_strategy\": \"full\", \"multimodal_projector_bias\": false,"
                  "\"projector_hidden_act\": \"gelu_pytorch_tanh\", \"image_seq_length\": 577}");
    assert_int_equal(spec.vision.tower.state, 1);
    assert_true(spec.vision.connector.keep_class_row && !spec.vision.connector.bias);
    assert_int_equal(picture_rows(), 577);
    assert_int_equal(spec.vision.image_token, 77);
    assert_int_equal(spec.vision.connector.act, VL_ACT_GELU_TANH);
    accept(state, "{\"model_type\": \"llava\", \"vision_feature_layer\": -1}");
    assert_int_equal(spec.vision.tower.state, 24);

    temp_text(*state, "processor_config.json",
              "{\"patch_size\": 14, \"num_additional_image_tokens\": 1,"
              "\"vision_feature_select_strategy\": \"default\"}");
    accept(state, llava);
    check_llava_7b();
    refuse(state, VL_EMISMATCH, "config.json says \"full\"", base, ",\"vision_feature_select_strategy\":\"full\"");
    temp_text(*state, "processor_config.json", "{\"patch_size\": 16}");
    assert_int_equal(read_text(state, llava), VL_EMISMATCH);
    assert_non_null(strstr(err.message, "\"patch_size\" is 16"));
}

static void test_mllama_keys(void **state)
{
    static const char base[] = "{\"model_type\": \"mllama\"}";
    accept(state, "{\"model_type\": \"mllama\", \"image_token_index\": 1256, \"text_config\": {\"vocab_size\": 1256,"
                  "\"num_hidden_layers\": 8, \"cross_attention_layers\": [6, 1, 4], \"rope_scaling\":"
                  "{\"rope_type\": \"default\"}}, \"vision_config\": {\"attention_heads\": 4, \"hidden_size\": 64,"
                  "\"image_size\": 56, \"max_num_tiles\": 1, \"supported_aspect_ratios\": [[1, 1]],"
                  "\"num_hidden_layers\": 4, \"intermediate_layers_indices\": [0, 1, 4], \"vision_output_dim\": 256}}");
    for (int i = 0; i < 8; i++)
        assert_int_equal(spec.decoder.layers[i].kind, i == 1 || i == 4 || i == 6 ? VL_BLOCK_CROSS : VL_BLOCK_SELF);
    assert_int_equal(vl_mllama_config(&spec)->n_ratios, 1);
    assert_int_equal(vl_mllama_config(&spec)->head_dim, 16);
    assert_int_equal(vl_mllama_config(&spec)->indices[2], 4);
    refuse(state, VL_EUNSUPPORTED, "tie_word_embeddings", base, ",\"text_config\":{\"tie_word_embeddings\":true}");
    refuse(state, VL_EUNSUPPORTED, "head_dim", base, ",\"text_config\":{\"head_dim\":64}");
    refuse(state, VL_EFORMAT, "holds 40", base, ",\"text_config\":{\"cross_attention_layers\":[40]}");
    refuse(state, VL_EFORMAT, "holds 3 twice", base, ",\"text_config\":{\"cross_attention_layers\":[3,3]}");
    refuse(state, VL_EFORMAT, "only 20 layers", base, ",\"text_config\":{\"num_hidden_layers\":20}");
    refuse(state, VL_EFORMAT, "intermediate layer 23", base, ",\"vision_config\":{\"num_hidden_layers\":20}");
    refuse(state, VL_EFORMAT, "\"vision_output_dim\" is 7681", base, ",\"vision_config\":{\"vision_output_dim\":7681}");
    refuse(state, VL_EUNSUPPORTED, "does not ascend", base,
           ",\"vision_config\":{\"intermediate_layers_indices\":[7,3,15,23,30]}");
    refuse(state, VL_EUNSUPPORTED, "list of all 14", base, ",\"vision_config\":{\"max_num_tiles\":6}");
    refuse(state, VL_EFORMAT, "no pair", base, ",\"vision_config\":{\"supported_aspect_ratios\":[[1]]}");
    refuse(state, VL_EFORMAT, "no pair", base, ",\"vision_config\":{\"supported_aspect_ratios\":[[1,5]]}");
    refuse(state, VL_EFORMAT, "no list", base, ",\"vision_config\":{\"supported_aspect_ratios\":\"all\"}");
    refuse(state, VL_EFORMAT, "has 128264 rows", base, ",\"image_token_index\":128264");
}

static void test_hostile_files(void **state)
{
    static char deep[200000];
    memset(deep, '[', sizeof deep - 1);
    assert_int_equal(read_text(state, deep), VL_EFORMAT);
    assert_int_equal(read_text(state, ""), VL_EFORMAT);
    assert_int_equal(read_text(state, "[]"), VL_EFORMAT);
    assert_non_null(strstr(err.message, "no JSON object"));
    assert_int_equal(read_text(state, "{\"model_type\": \"ll"), VL_EFORMAT);
    assert_int_equal(read_text(state, "{\"model_type\": \"llama\\u0000x\", \"hidden_size\": 1e999}"), VL_EFORMAT);
    assert_int_equal(read_text(state, "{\"model_type\": \"llama\", \"vocab_size\": 99999999999999999999}"), VL_EFORMAT);
    assert_int_equal(read_text(state, "{\"model_type\": \"a\\nb\"}"), VL_EUNSUPPORTED);
    assert_null(strchr(err.message, '\n'));
    char path[TEMP_PATH_SIZE];
    unlink(temp_path(path, *state, "config.json"));
    vl_model_spec_clear(&spec);
    assert_int_equal(vl_model_spec_read(&spec, *state, &err), VL_EIO);
    assert_non_null(strstr(err.message, "config.json"));
}

static void test_shared_configs(void **state)
{
    (void)state;
    const char *data = getenv("VLENS_SHARED_DATA");
    char path[TEMP_PATH_SIZE];
    if (!data) {
        print_message("VLENS_SHARED_DATA is not set: the real-size configs are not read\n");
        skip();
    }
    static const struct {
        const char *name;
        int image_size, n_eos;
    } rows[] = {{"llava-1.5-7b-hf", 0, 1}, {"llama-3.2-11b-vision", 448, 1}, {"llama-3.2-11b-vision-instruct", 560, 3}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char folder[TEMP_PATH_SIZE];
        temp_path(folder, data, "configs");
        vl_model_spec_clear(&spec);
        if (vl_model_spec_read(&spec, temp_path(path, folder, rows[i].name), &err) != VL_OK)
            fail_msg("%s", err.message);
        if (rows[i].image_size)
            check_mllama_11b(rows[i].image_size);
        else
            check_llava_7b();
        assert_int_equal(spec.decoder.n_eos, rows[i].n_eos);
    }
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, temp_setup, temp_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_defaults),   TEST(test_text_keys),   TEST(test_rope),          TEST(test_refusals),
        TEST(test_llava_keys), TEST(test_mllama_keys), TEST(test_hostile_files), TEST(test_shared_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
