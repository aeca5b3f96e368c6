#include "trainer/model/families/mllama/vision.h"

#include <math.h>

#include "trainer/base/mem.h"
#include "trainer/model/buffers.h"

/* Gate of this many rows is held at a time in an MLP (as the decoder does). */
enum { MLP_ROWS = 2048 };

/* The buffers of one picture; R = G * N' rows. */
typedef struct encoder {
    vl_device *device;
    const vl_mllama_vision *vision;
    const vl_mllama_vision_args *args;
    int64_t n_rows; /* R */
    void *memory, *pixels, *patches, *x, *a, *b, *k, *v, *mlp;
    void *kept; /* [G * N, C * I]: the intermediate states */
    void *q_mask, *k_mask, *id;
} encoder;

static vl_status allocate(encoder *e, vl_error *err)
{
    const vl_mllama_vision_config *config = e->vision->config;
    int64_t c = config->hidden_size, tiles = config->max_tiles, p = config->patch_size;
    const vl_buffer_request requests[] = {
        {&e->pixels, (int64_t)config->n_channels * config->image_size, config->image_size},
        {&e->patches, config->n_patches - 1, config->n_channels * p * p},
        {&e->x, e->n_rows, c},
        {&e->a, e->n_rows, c},
        {&e->b, e->n_rows, c},
        {&e->k, e->n_rows, c},
        {&e->v, e->n_rows, c},
        {&e->mlp, e->n_rows < MLP_ROWS ? e->n_rows : MLP_ROWS, config->intermediate_size},
        {&e->kept, tiles * e->vision->n_rows, c * config->n_indices},
        {&e->q_mask, e->n_rows, 2}, /* of eight bytes */
        {&e->k_mask, e->n_rows, 2},
        {&e->id, 1, 1},
    };
    return vl_buffers_alloc(&e->memory, e->device, requests, (int)(sizeof requests / sizeof *requests), err);
}

/* [R, C] */
static vl_tensor rows_of(const encoder *e, void *data)
{
    return vl_tensor_2d(data, VL_F32, e->n_rows, e->vision->config->hidden_size);
}

/* Rows of tile `tile` in a buffer [R, C]: `n` of its N', from `first` on. */
static vl_tensor tile_rows(const encoder *e, void *data, int tile, int64_t first, int64_t n)
{
    return vl_tensor_rows(rows_of(e, data), tile * e->vision->padded_rows + first, n);
}

/* out = out + scale * y */
static vl_status add_to(const encoder *e, vl_tensor out, vl_tensor y, float scale, vl_error *err)
{
    return vl_op_add(e->device, &(vl_add_args){.out = out, .x = out, .y = y, .scale = scale}, err);
}

/* data [rows, C] = the row of a table of embeddings that the picture's aspect ratio asks for. */
static vl_status look_up(const encoder *e, void *data, const vl_matrix *table, vl_error *err)
{
    vl_tensor id = vl_tensor_1d(e->id, VL_I32, 1);
    vl_tensor out = vl_tensor_2d(data, VL_F32, 1, vl_matrix_columns(table));
    return vl_op_embed(e->device, &(vl_embed_args){.out = out, .table = table, .ids = id, .scale = 1}, err);
}

/* ---- embeddings -------------------------------------------------------------------------------------------- */

/* A real row sees every row, a padding row (the last of every tile, and all rows of a tile that is not used) sees the
 * real ones: the reference adds the outer product of the padding indicator with itself, so only pairs of two padding
 * rows are hidden. Bit 0: sees and is seen as a real row; bit 1: sees and is seen as a padding row. */
static vl_status write_masks(const encoder *e, vl_error *err)
{
    vl_status status = VL_OK;
    int64_t *q = vl_alloc((size_t)e->n_rows, sizeof *q), *k = vl_alloc((size_t)e->n_rows, sizeof *k); /* [R] */
    if (!q || !k) {
        status = vl_fail_nomem(err, "attention masks");
        goto done;
    }
    for (int64_t i = 0; i < e->n_rows; i++) {
        bool real = i / e->vision->padded_rows < e->args->n_tiles && i % e->vision->padded_rows < e->vision->n_rows;
        q[i] = real ? 3 : 1;
        k[i] = real ? 1 : 2;
    }
    vl_tensor q_mask = vl_tensor_1d(e->q_mask, VL_I64, e->n_rows), k_mask = vl_tensor_1d(e->k_mask, VL_I64, e->n_rows);
    VL_GOTO(vl_device_write(e->device, &q_mask, q, err));
    VL_GOTO(vl_device_write(e->device, &k_mask, k, err));
done:
    vl_free(q);
    vl_free(k);
    return status;
}

/* Patches of tile `tile` as rows of x, behind its class row. */
static vl_status cut(const encoder *e, int tile, vl_error *err)
{
    const vl_mllama_vision_config *config = e->vision->config;
    int64_t n_patches = e->vision->n_rows - 1, height = (int64_t)config->n_channels * config->image_size;
    int64_t width = (int64_t)config->n_channels * config->patch_size * config->patch_size;
    vl_tensor pixels = vl_tensor_2d(e->pixels, VL_F32, height, config->image_size);
    vl_tensor patches = vl_tensor_2d(e->patches, VL_F32, n_patches, width);
    VL_TRY(vl_device_write(e->device, &pixels, e->args->pixels + tile * height * config->image_size, err));
    VL_TRY(vl_op_patchify(e->device,
                          &(vl_patchify_args){.out = patches,
                                              .pixels = pixels,
                                              .channels = config->n_channels,
                                              .height = config->image_size,
                                              .width = config->image_size,
                                              .patch = config->patch_size},
                          err));
    vl_linear_args linear = {.out = tile_rows(e, e->x, tile, 1, n_patches), .x = patches, .weight = e->vision->patch};
    return vl_op_linear(e->device, &linear, err);
}

/* x [R, C] = the embedded tiles behind layernorm_pre; the padding rows are 0. The tile embedding goes to the patches
 * alone, the positions to the class row too. */
static vl_status embed(const encoder *e, vl_error *err)
{
    const vl_mllama_vision *vision = e->vision;
    int64_t n = vision->n_rows, tiles = vision->config->max_tiles, c = vision->config->hidden_size;
    vl_tensor id = vl_tensor_1d(e->id, VL_I32, 1), class_row = vision->class_row;
    VL_TRY(vl_device_write(e->device, &id, &(int32_t){e->args->aspect_ratio_id}, err));
    VL_TRY(look_up(e, e->a, vision->tile_position, err));
    VL_TRY(look_up(e, e->b, vision->pre_tile, err));
    vl_tensor positions = vl_tensor_2d(e->a, VL_F32, tiles * n, c), pre_tile = vl_tensor_2d(e->b, VL_F32, tiles, c);
    for (int tile = 0; tile < tiles; tile++) {
        vl_tensor rows = tile_rows(e, e->x, tile, 0, n);
        VL_TRY(cut(e, tile, err));
        VL_TRY(add_to(e, vl_tensor_rows(rows, 1, n - 1), vl_tensor_rows(pre_tile, tile, 1), vision->pre_gate, err));
        VL_TRY(vl_op_cast(e->device, &(vl_cast_args){vl_tensor_rows(rows, 0, 1), class_row}, err));
        VL_TRY(add_to(e, rows, vision->position, 1 - vision->position_gate, err));
        VL_TRY(add_to(e, rows, vl_tensor_rows(positions, tile * n, n), vision->position_gate, err));
        VL_TRY(vl_norm_apply(e->device, &vision->pre_norm, rows, rows, err));
        if (vision->padded_rows > n)
            VL_TRY(vl_op_zero(e->device, tile_rows(e, e->x, tile, n, vision->padded_rows - n), err));
    }
    return VL_OK;
}

/* x = layernorm_post(x) + the tile embedding of the global layers, padding rows included. */
static vl_status between(const encoder *e, vl_error *err)
{
    const vl_mllama_vision *vision = e->vision;
    int tiles = vision->config->max_tiles;
    vl_tensor x = rows_of(e, e->x), post_tile = vl_tensor_2d(e->b, VL_F32, tiles, vision->config->hidden_size);
    VL_TRY(vl_norm_apply(e->device, &vision->post_norm, x, x, err));
    VL_TRY(look_up(e, e->b, vision->post_tile, err));
    for (int tile = 0; tile < tiles; tile++)
        VL_TRY(add_to(e, tile_rows(e, e->x, tile, 0, vision->padded_rows), vl_tensor_rows(post_tile, tile, 1),
                      vision->post_gate, err));
    return VL_OK;
}

/* ---- layers ------------------------------------------------------------------------------------------------ */

/* b [R, C] = o(attention of a). */
static vl_status attend(const encoder *e, const vl_mllama_vision_layer *layer, vl_error *err)
{
    const vl_mllama_vision_config *config = e->vision->config;
    vl_tensor a = rows_of(e, e->a), q = rows_of(e, e->b), k = rows_of(e, e->k), v = rows_of(e, e->v);
    VL_TRY(vl_linear_apply(e->device, &layer->q, q, a, err));
    VL_TRY(vl_linear_apply(e->device, &layer->k, k, a, err));
    VL_TRY(vl_linear_apply(e->device, &layer->v, v, a, err));
    vl_attention_args args = {.out = a,
                              .q = q,
                              .k = k,
                              .v = v,
                              .n_heads = config->n_heads,
                              .n_kv_heads = config->n_heads,
                              .scale = (float)(1 / sqrt((double)config->head_dim)),
                              .q_mask = vl_tensor_1d(e->q_mask, VL_I64, e->n_rows),
                              .k_mask = vl_tensor_1d(e->k_mask, VL_I64, e->n_rows)};
    VL_TRY(vl_op_attention(e->device, &args, err));
    return vl_linear_apply(e->device, &layer->o, q, a, err);
}

/* b [R, C] = fc2(act(fc1(a))), in chunks of rows. */
static vl_status run_mlp(const encoder *e, const vl_mllama_vision_layer *layer, vl_error *err)
{
    const vl_mllama_vision_config *config = e->vision->config;
    for (int64_t first = 0; first < e->n_rows; first += MLP_ROWS) {
        int64_t n = e->n_rows - first < MLP_ROWS ? e->n_rows - first : MLP_ROWS;
        vl_tensor wide = vl_tensor_2d(e->mlp, VL_F32, n, config->intermediate_size);
        VL_TRY(vl_linear_apply(e->device, &layer->fc1, wide, vl_tensor_rows(rows_of(e, e->a), first, n), err));
        vl_activation_args act = {.out = wide, .x = wide, .kind = config->hidden_act};
        VL_TRY(vl_op_activation(e->device, &act, err));
        VL_TRY(vl_linear_apply(e->device, &layer->fc2, vl_tensor_rows(rows_of(e, e->b), first, n), wide, err));
    }
    return VL_OK;
}

static vl_status run_layer(const encoder *e, const vl_mllama_vision_layer *layer, vl_error *err)
{
    vl_tensor x = rows_of(e, e->x), a = rows_of(e, e->a), b = rows_of(e, e->b);
    VL_TRY(vl_norm_apply(e->device, &layer->norm1, a, x, err));
    VL_TRY(attend(e, layer, err));
    VL_TRY(add_to(e, x, b, layer->attention_gate, err));
    VL_TRY(vl_norm_apply(e->device, &layer->norm2, a, x, err));
    VL_TRY(run_mlp(e, layer, err));
    return add_to(e, x, b, layer->mlp_gate, err);
}

/* ---- output ------------------------------------------------------------------------------------------------ */

/* Keeps x as intermediate state number `slot`. The reference stacks the states on a last axis and flattens: column
 * d * I + slot, feature by feature. So they go in as one column of a matrix of I columns. */
static vl_status keep(const encoder *e, int slot, vl_error *err)
{
    int64_t n = e->vision->n_rows, c = e->vision->config->hidden_size, states = e->vision->config->n_indices;
    for (int tile = 0; tile < e->vision->config->max_tiles; tile++) {
        vl_tensor from = vl_tensor_2d(tile_rows(e, e->x, tile, 0, n).data, VL_F32, n * c, 1);
        vl_tensor to = vl_tensor_rows(vl_tensor_2d(e->kept, VL_F32, e->vision->config->max_tiles * n * c, states),
                                      tile * n * c, n * c);
        VL_TRY(vl_op_cast(e->device, &(vl_cast_args){vl_tensor_columns(to, slot, 1), from}, err));
    }
    return VL_OK;
}

/* out [G * N, O] = the global layers' output, then the intermediate states; without the padding rows. */
static vl_status gather(const encoder *e, vl_error *err)
{
    const vl_mllama_vision_config *config = e->vision->config;
    int64_t n = e->vision->n_rows, c = config->hidden_size, width = c * config->n_indices;
    for (int tile = 0; tile < config->max_tiles; tile++) {
        vl_tensor to = vl_tensor_rows(e->args->out, tile * n, n);
        VL_TRY(
            vl_op_cast(e->device, &(vl_cast_args){vl_tensor_columns(to, 0, c), tile_rows(e, e->x, tile, 0, n)}, err));
    }
    vl_tensor kept = vl_tensor_2d(e->kept, VL_F32, config->max_tiles * n, width);
    if (width == 0)
        return VL_OK;
    return vl_op_cast(e->device, &(vl_cast_args){vl_tensor_columns(e->args->out, c, width), kept}, err);
}

static vl_status show(const encoder *e, int state, vl_error *err)
{
    return e->args->hidden ? e->args->hidden(e->args->user, state, rows_of(e, e->x), err) : VL_OK;
}

static vl_status run(const encoder *e, vl_error *err)
{
    const vl_mllama_vision_config *config = e->vision->config;
    int slot = 0;
    VL_TRY(write_masks(e, err));
    VL_TRY(embed(e, err));
    for (int i = 0;; i++) {
        VL_TRY(show(e, i, err));
        if (slot < config->n_indices && config->indices[slot] == i) /* the indices ascend */
            VL_TRY(keep(e, slot++, err));
        if (i == config->n_layers)
            break;
        VL_TRY(run_layer(e, &e->vision->layers[i], err));
    }
    VL_TRY(between(e, err));
    for (int i = config->n_layers;; i++) {
        VL_TRY(show(e, i + 1, err));
        if (i == config->n_layers + config->n_global_layers)
            return gather(e, err);
        VL_TRY(run_layer(e, &e->vision->layers[i], err));
    }
}

vl_status vl_mllama_vision_forward(const vl_mllama_vision *vision, vl_device *device, const vl_mllama_vision_args *args,
                                   vl_error *err)
{
    const vl_mllama_vision_config *config = vision->config;
    if (args->aspect_ratio_id < 1 || args->aspect_ratio_id > config->n_ratios)
        return vl_fail(err, VL_EINVAL, "aspect ratio id %d, expected 1 to %d", args->aspect_ratio_id, config->n_ratios);
    if (args->n_tiles < 1 || args->n_tiles > config->max_tiles)
        return vl_fail(err, VL_EINVAL, "a picture of %d tiles, expected 1 to %d", args->n_tiles, config->max_tiles);
    encoder e = {.device = device, .vision = vision, .args = args, .n_rows = config->max_tiles * vision->padded_rows};
    vl_status status = VL_OK;
    VL_GOTO(allocate(&e, err));
    VL_GOTO(run(&e, err));
done:
    vl_device_free(device, e.memory);
    return status;
}
