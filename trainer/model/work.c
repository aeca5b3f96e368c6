#include "trainer/model/work.h"

#include "trainer/model/family.h"
#include "trainer/model/tower.h"

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

/* Tower and connector of one tile. */
static double tower_work(const vl_model_spec *spec)
{
    const vl_tower_spec *tower = &spec->vision.tower;
    const vl_connector_spec *connector = &spec->vision.connector;
    double rows = (double)vl_tower_rows(tower), c = tower->hidden_size, d = spec->decoder.hidden_size;
    double out = tower->n_patches + (connector->keep_class_row ? 1 : 0);
    double layer = 4 * product(rows, c, c) + 2 * product(rows, c, tower->intermediate_size) + attention(rows, rows, c);
    double patch = (double)tower->n_channels * tower->patch_size * tower->patch_size;
    return tower->state * layer + product(tower->n_patches, c, patch) + product(out, d, c) +
           (connector->kind == VL_CONNECTOR_MLP ? product(out, d, d) : 0);
}

static double picture_work(const vl_model_spec *spec, const struct vl_sequence_image *image)
{
    return spec->family->encode_work ? spec->family->encode_work(spec, image) : image->n_tiles * tower_work(spec);
}

/* Tokens among themselves, and to `picture_rows` rows in the blocks of cross-attention. */
static double decoder_work(const vl_decoder_spec *spec, int n_blocks, double tokens, double picture_rows)
{
    double d = spec->hidden_size, query = (double)spec->n_heads * spec->head_dim;
    double key = (double)spec->n_kv_heads * spec->head_dim;
    double ways = spec->names.gate || spec->gate_up_fused ? 3 : 2;
    double mlp = ways * product(tokens, d, spec->intermediate_size), qo = 2 * product(tokens, d, query);
    double self = qo + 2 * product(tokens, d, key) + attention(tokens, (tokens + 1) / 2, query) + mlp;
    double cross = qo + 2 * product(picture_rows, d, key) + attention(tokens, picture_rows, query) + mlp;
    int n_cross = vl_decoder_count(spec, VL_BLOCK_CROSS, n_blocks);
    return (n_blocks - n_cross) * self + (picture_rows > 0 ? n_cross * cross : 0);
}

double vl_model_work(const vl_model *model, const vl_sequence *const *sequences, int n, int stop_state)
{
    const vl_model_spec *spec = &model->spec;
    double sum = 0;
    for (int i = 0; i < n; i++) {
        double rows = 0;
        for (int k = 0; k < sequences[i]->n_images; k++) {
            sum += picture_work(spec, &sequences[i]->images[k]);
            rows += spec->vision.path == VL_VISION_CROSS ? (double)sequences[i]->images[k].n_rows : 0;
        }
        sum += decoder_work(&spec->decoder, stop_state, (double)sequences[i]->n_tokens, rows);
    }
    return sum;
}
