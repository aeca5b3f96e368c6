#include "trainer/model/work.h"

#include "trainer/model/family.h"

/* x W^T */
static double product(double rows, double n_out, double n_in)
{
    return 2 * rows * n_out * n_in;
}

/* Scores and weighted values, all heads together `width` wide. */
static double attention(double queries, double keys, double width)
{
    return 4 * queries * keys * width;
}

static double clip_work(const vl_hf_config *config)
{
    const vl_clip_config *clip = &config->clip;
    double rows = clip->n_patches + 1, c = clip->hidden_size, d = config->text.hidden_size;
    double layer = 4 * product(rows, c, c) + 2 * product(rows, c, clip->intermediate_size) + attention(rows, rows, c);
    double patch = (double)clip->n_channels * clip->patch_size * clip->patch_size;
    return config->vision_state * layer + product(clip->n_patches, c, patch) + product(config->image_tokens, d, c) +
           product(config->image_tokens, d, d);
}

static double mllama_vision_work(const vl_hf_config *config)
{
    const vl_mllama_vision_config *vision = &config->mllama_vision;
    double tile = (vision->n_patches + 7) / 8 * 8, rows = tile * vision->max_tiles, c = vision->hidden_size;
    double layer = 4 * product(rows, c, c) + 2 * product(rows, c, vision->intermediate_size) + attention(rows, rows, c);
    double patch = (double)vision->n_channels * vision->patch_size * vision->patch_size;
    return (vision->n_layers + vision->n_global_layers) * layer +
           product((double)vision->max_tiles * (vision->n_patches - 1), c, patch) +
           product((double)vision->max_tiles * vision->n_patches, config->text.hidden_size, vision->output_dim);
}

/* Tokens among themselves, and to `picture_rows` rows in the blocks of cross-attention. */
static double decoder_work(const vl_text_config *text, int n_blocks, double tokens, double picture_rows)
{
    double d = text->hidden_size, query = (double)text->n_heads * text->head_dim;
    double key = (double)text->n_kv_heads * text->head_dim;
    double mlp = 3 * product(tokens, d, text->intermediate_size), qo = 2 * product(tokens, d, query);
    double self = qo + 2 * product(tokens, d, key) + attention(tokens, (tokens + 1) / 2, query) + mlp;
    double cross = qo + 2 * product(picture_rows, d, key) + attention(tokens, picture_rows, query) + mlp;
    int n_cross = 0;
    for (int i = 0; i < n_blocks; i++)
        n_cross += vl_text_is_cross(text, i);
    return (n_blocks - n_cross) * self + (picture_rows > 0 ? n_cross * cross : 0);
}

double vl_model_work(const vl_model *model, const vl_sequence *const *sequences, int n, int stop_state)
{
    const vl_hf_config *config = &model->config;
    double sum = 0;
    for (int i = 0; i < n; i++) {
        double tokens = (double)sequences[i]->n_tokens, pictures = sequences[i]->n_images, rows = 0;
        if (config->family == VL_HF_LLAVA)
            sum += pictures * clip_work(config);
        if (config->family == VL_HF_MLLAMA) {
            sum += pictures * mllama_vision_work(config);
            rows = pictures * config->mllama_vision.max_tiles * config->mllama_vision.n_patches;
        }
        sum += decoder_work(&config->text, stop_state, tokens, rows);
    }
    return sum;
}
