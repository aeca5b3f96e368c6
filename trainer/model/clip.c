#include "trainer/model/clip.h"

#include <math.h>

#include "trainer/base/mem.h"
#include "trainer/model/buffers.h"

/* ---- weights ----------------------------------------------------------------------------------------------- */

static vl_status load_layer(vl_clip_layer *out, const vl_scope *scope, const vl_clip_config *config, vl_error *err)
{
    int64_t c = config->hidden_size, f = config->intermediate_size;
    vl_hf_shape square = vl_hf_shape2(c, c);
    VL_TRY(vl_load_layer_norm(&out->norm1, scope, "layer_norm1", c, err));
    VL_TRY(vl_load_layer_norm(&out->norm2, scope, "layer_norm2", c, err));
    VL_TRY(vl_load_linear(&out->q, scope, "self_attn.q_proj", square, true, err));
    VL_TRY(vl_load_linear(&out->k, scope, "self_attn.k_proj", square, true, err));
    VL_TRY(vl_load_linear(&out->v, scope, "self_attn.v_proj", square, true, err));
    VL_TRY(vl_load_linear(&out->o, scope, "self_attn.out_proj", square, true, err));
    VL_TRY(vl_load_linear(&out->fc1, scope, "mlp.fc1", vl_hf_shape2(f, c), true, err));
    return vl_load_linear(&out->fc2, scope, "mlp.fc2", vl_hf_shape2(c, f), true, err);
}

vl_status vl_clip_load(vl_clip *out, vl_loader *loader, int state, vl_error *err)
{
    const vl_clip_config *config = &loader->source.config->clip;
    int64_t c = config->hidden_size, p = config->patch_size;
    *out = (vl_clip){.config = config, .n_layers = state};
    vl_scope top = vl_scope_make(loader, VL_HF_VISION, "%s", "");
    VL_TRY(vl_load_matrix(&out->patch, &top, "embeddings.patch_embedding.weight",
                          vl_hf_shape4(c, config->n_channels, p, p), err));
    VL_TRY(vl_load_vector(&out->class_row, &top, "embeddings.class_embedding", c, err));
    out->class_row = vl_tensor_2d(out->class_row.data, VL_F32, 1, c);
    VL_TRY(vl_load_table(&out->position, &top, "embeddings.position_embedding.weight",
                         vl_hf_shape2(config->n_patches + 1, c), err));
    VL_TRY(vl_load_layer_norm(&out->pre_norm, &top, "pre_layrnorm", c, err)); /* so spelled in every checkpoint */
    if (state == 0)
        return VL_OK;
    out->layers = vl_calloc((size_t)state, sizeof *out->layers);
    if (!out->layers)
        return vl_fail_nomem(err, "vision tower");
    for (int i = 0; i < state; i++) {
        vl_scope scope = vl_scope_make(loader, VL_HF_VISION, "encoder.layers.%d.", i);
        VL_TRY(load_layer(&out->layers[i], &scope, config, err));
    }
    return VL_OK;
}

void vl_clip_free(vl_clip *clip, vl_device *device)
{
    for (int i = 0; clip->layers && i < clip->n_layers; i++) {
        vl_clip_layer *layer = &clip->layers[i];
        vl_layer_norm_free(device, &layer->norm1);
        vl_layer_norm_free(device, &layer->norm2);
        vl_linear_free(device, &layer->q);
        vl_linear_free(device, &layer->k);
        vl_linear_free(device, &layer->v);
        vl_linear_free(device, &layer->o);
        vl_linear_free(device, &layer->fc1);
        vl_linear_free(device, &layer->fc2);
    }
    vl_free(clip->layers);
    vl_matrix_free(device, clip->patch);
    vl_device_free(device, clip->class_row.data);
    vl_device_free(device, clip->position.data);
    vl_layer_norm_free(device, &clip->pre_norm);
    *clip = (vl_clip){0};
}

/* ---- forward ----------------------------------------------------------------------------------------------- */

/* The buffers of one forward; R = n_images * N. */
typedef struct tower {
    vl_device *device;
    const vl_clip *clip;
    int n_images;
    int64_t n_rows; /* N */
    vl_tensor x;    /* [R, C]: the caller's out */
    void *memory, *pixels, *patches, *a, *b, *k, *v, *mlp;
} tower;

static vl_status allocate(tower *t, vl_error *err)
{
    const vl_clip_config *config = t->clip->config;
    int64_t rows = t->n_images * t->n_rows, c = config->hidden_size;
    const vl_buffer_request requests[] = {
        {&t->pixels, (int64_t)config->n_channels * config->image_size, config->image_size},
        {&t->patches, config->n_patches, (int64_t)config->n_channels * config->patch_size * config->patch_size},
        {&t->a, rows, c},
        {&t->b, rows, c},
        {&t->k, rows, c},
        {&t->v, rows, c},
        {&t->mlp, rows, config->intermediate_size},
    };
    return vl_buffers_alloc(&t->memory, t->device, requests, (int)(sizeof requests / sizeof *requests), err);
}

static vl_status layer_norm(const tower *t, vl_tensor out, vl_tensor x, const vl_layer_norm *norm, vl_error *err)
{
    return vl_op_norm(t->device,
                      &(vl_norm_args){.out = out,
                                      .x = x,
                                      .weight = norm->weight,
                                      .bias = norm->bias,
                                      .kind = VL_NORM_LAYER,
                                      .eps = t->clip->config->layer_norm_eps},
                      err);
}

/* out = out + y */
static vl_status add_to(const tower *t, vl_tensor out, vl_tensor y, vl_error *err)
{
    return vl_op_add(t->device, &(vl_add_args){.out = out, .x = out, .y = y, .scale = 1}, err);
}

/* The class row and the patches of picture `image`, positions added, into its rows of x. */
static vl_status embed(const tower *t, int image, const float *pixels, vl_error *err)
{
    const vl_clip_config *config = t->clip->config;
    int64_t width = (int64_t)config->n_channels * config->patch_size * config->patch_size;
    vl_tensor rows = vl_tensor_rows(t->x, image * t->n_rows, t->n_rows);
    vl_tensor picture =
        vl_tensor_2d(t->pixels, VL_F32, (int64_t)config->n_channels * config->image_size, config->image_size);
    vl_tensor patches = vl_tensor_2d(t->patches, VL_F32, config->n_patches, width);
    VL_TRY(vl_device_write(t->device, &picture, pixels, err));
    VL_TRY(vl_op_patchify(t->device,
                          &(vl_patchify_args){.out = patches,
                                              .pixels = picture,
                                              .channels = config->n_channels,
                                              .height = config->image_size,
                                              .width = config->image_size,
                                              .patch = config->patch_size},
                          err));
    VL_TRY(vl_op_cast(t->device, &(vl_cast_args){vl_tensor_rows(rows, 0, 1), t->clip->class_row}, err));
    VL_TRY(vl_op_linear(
        t->device,
        &(vl_linear_args){.out = vl_tensor_rows(rows, 1, config->n_patches), .x = patches, .weight = t->clip->patch},
        err));
    return add_to(t, rows, t->clip->position, err);
}

/* a [R, C] = attention of b; every row of a picture sees every other, no picture sees another. */
static vl_status attend(const tower *t, vl_error *err)
{
    const vl_clip_config *config = t->clip->config;
    int64_t rows = t->n_images * t->n_rows, c = config->hidden_size;
    vl_attention_args args = {.n_heads = config->n_heads,
                              .n_kv_heads = config->n_heads,
                              .scale = (float)(1 / sqrt((double)config->head_dim))};
    for (int i = 0; i < t->n_images; i++) {
        int64_t first = i * t->n_rows;
        args.out = vl_tensor_rows(vl_tensor_2d(t->a, VL_F32, rows, c), first, t->n_rows);
        args.q = vl_tensor_rows(vl_tensor_2d(t->b, VL_F32, rows, c), first, t->n_rows);
        args.k = vl_tensor_rows(vl_tensor_2d(t->k, VL_F32, rows, c), first, t->n_rows);
        args.v = vl_tensor_rows(vl_tensor_2d(t->v, VL_F32, rows, c), first, t->n_rows);
        VL_TRY(vl_op_attention(t->device, &args, err));
    }
    return VL_OK;
}

static vl_status run_layer(const tower *t, const vl_clip_layer *layer, vl_error *err)
{
    const vl_clip_config *config = t->clip->config;
    int64_t rows = t->n_images * t->n_rows, c = config->hidden_size;
    vl_tensor a = vl_tensor_2d(t->a, VL_F32, rows, c), b = vl_tensor_2d(t->b, VL_F32, rows, c);
    vl_tensor mlp = vl_tensor_2d(t->mlp, VL_F32, rows, config->intermediate_size);
    VL_TRY(layer_norm(t, a, t->x, &layer->norm1, err));
    VL_TRY(vl_linear_apply(t->device, &layer->q, b, a, err));
    VL_TRY(vl_linear_apply(t->device, &layer->k, vl_tensor_2d(t->k, VL_F32, rows, c), a, err));
    VL_TRY(vl_linear_apply(t->device, &layer->v, vl_tensor_2d(t->v, VL_F32, rows, c), a, err));
    VL_TRY(attend(t, err));
    VL_TRY(vl_linear_apply(t->device, &layer->o, b, a, err));
    VL_TRY(add_to(t, t->x, b, err));
    VL_TRY(layer_norm(t, a, t->x, &layer->norm2, err));
    VL_TRY(vl_linear_apply(t->device, &layer->fc1, mlp, a, err));
    vl_activation_args act = {.out = mlp, .x = mlp, .kind = config->hidden_act};
    VL_TRY(vl_op_activation(t->device, &act, err));
    VL_TRY(vl_linear_apply(t->device, &layer->fc2, b, mlp, err));
    return add_to(t, t->x, b, err);
}

static vl_status run(const tower *t, const vl_clip_args *args, vl_error *err)
{
    for (int i = 0; i < t->n_images; i++)
        VL_TRY(embed(t, i, args->pixels[i], err));
    VL_TRY(layer_norm(t, t->x, t->x, &t->clip->pre_norm, err));
    for (int state = 0;; state++) {
        if (args->hidden)
            VL_TRY(args->hidden(args->user, state, t->x, err));
        if (state == t->clip->n_layers)
            return VL_OK;
        VL_TRY(run_layer(t, &t->clip->layers[state], err));
    }
}

vl_status vl_clip_forward(const vl_clip *clip, vl_device *device, const vl_clip_args *args, vl_error *err)
{
    tower t = {.device = device,
               .clip = clip,
               .n_images = args->n_images,
               .n_rows = clip->config->n_patches + 1,
               .x = args->out};
    vl_status status = VL_OK;
    VL_GOTO(allocate(&t, err));
    VL_GOTO(run(&t, args, err));
done:
    vl_device_free(device, t.memory);
    return status;
}
