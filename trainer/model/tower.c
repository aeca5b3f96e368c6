#include "trainer/model/tower.h"

#include <math.h>

#include "trainer/base/mem.h"
#include "trainer/model/buffers.h"

static const double QK_EPS = 1e-6; /* of the norms of q and k, whatever the tower's other norms have (InternVL) */

/* ---- weights ----------------------------------------------------------------------------------------------- */

static vl_status load_layer(vl_tower_layer *out, const vl_scope *scope, const vl_tower_spec *spec, vl_error *err)
{
    const vl_tower_names *n = &spec->names;
    int64_t c = spec->hidden_size, f = spec->intermediate_size;
    vl_shape square = vl_shape2(c, c);
    VL_TRY(vl_load_norm(&out->norm1, scope, n->norm1, c, spec->norm_form, spec->norm_eps, err));
    VL_TRY(vl_load_norm(&out->norm2, scope, n->norm2, c, spec->norm_form, spec->norm_eps, err));
    VL_TRY(vl_load_linear(&out->q, scope, n->q, square, spec->attention_bias, err));
    VL_TRY(vl_load_linear(&out->k, scope, n->k, square, spec->attention_bias, err));
    VL_TRY(vl_load_linear(&out->v, scope, n->v, square, spec->attention_bias, err));
    VL_TRY(vl_load_linear(&out->o, scope, n->o, square, spec->o_bias, err));
    if (spec->qk_norm == VL_QK_WIDTH) {
        VL_TRY(vl_load_norm(&out->q_norm, scope, n->q_norm, c, VL_FORM_RMS, QK_EPS, err));
        VL_TRY(vl_load_norm(&out->k_norm, scope, n->k_norm, c, VL_FORM_RMS, QK_EPS, err));
    }
    if (spec->scales) {
        VL_TRY(vl_load_vector(&out->scale1, scope, n->scale1, c, err));
        VL_TRY(vl_load_vector(&out->scale2, scope, n->scale2, c, err));
    }
    VL_TRY(vl_load_linear(&out->fc1, scope, n->fc1, vl_shape2(f, c), spec->mlp_bias, err));
    return vl_load_linear(&out->fc2, scope, n->fc2, vl_shape2(c, f), spec->mlp_bias, err);
}

static vl_status load_embeddings(vl_tower *out, const vl_scope *top, vl_error *err)
{
    const vl_tower_spec *spec = out->spec;
    const vl_tower_names *n = &spec->names;
    int64_t c = spec->hidden_size, p = spec->patch_size;
    VL_TRY(vl_load_linear(&out->patch, top, n->patch, vl_shape4(c, spec->n_channels, p, p), spec->patch_bias, err));
    if (spec->class_row) {
        VL_TRY(spec->tables_of_three ? vl_load_table(&out->class_row, top, n->class_row, vl_shape3(1, 1, c), err)
                                     : vl_load_vector(&out->class_row, top, n->class_row, c, err));
        out->class_row = vl_tensor_2d(out->class_row.data, VL_F32, 1, c);
    }
    int64_t rows = vl_tower_rows(spec);
    VL_TRY(vl_load_table(&out->position, top, n->position,
                         spec->tables_of_three ? vl_shape3(1, rows, c) : vl_shape2(rows, c), err));
    if (spec->pre_norm)
        VL_TRY(vl_load_norm(&out->pre_norm, top, n->pre_norm, c, spec->norm_form, spec->norm_eps, err));
    if (spec->post_norm)
        VL_TRY(vl_load_norm(&out->post_norm, top, n->post_norm, c, spec->norm_form, spec->norm_eps, err));
    return VL_OK;
}

vl_status vl_tower_load(vl_tower *out, vl_loader *loader, vl_error *err)
{
    const vl_tower_spec *spec = &loader->spec->vision.tower;
    *out = (vl_tower){.spec = spec};
    vl_scope top = vl_scope_make(loader, VL_PART_VISION, "%s", "");
    VL_TRY(load_embeddings(out, &top, err));
    if (spec->state == 0)
        return VL_OK;
    out->layers = vl_calloc((size_t)spec->state, sizeof *out->layers);
    if (!out->layers)
        return vl_fail_nomem(err, "vision tower");
    for (int i = 0; i < spec->state; i++) {
        vl_scope scope = vl_scope_layer(loader, VL_PART_VISION, spec->names.layer, i);
        VL_TRY(load_layer(&out->layers[i], &scope, spec, err));
    }
    return VL_OK;
}

void vl_tower_free(vl_tower *tower, vl_device *device)
{
    for (int i = 0; tower->layers && i < tower->spec->state; i++) {
        vl_tower_layer *layer = &tower->layers[i];
        vl_linear *const linears[] = {&layer->q, &layer->k, &layer->v, &layer->o, &layer->fc1, &layer->fc2};
        vl_norm_free(device, &layer->norm1);
        vl_norm_free(device, &layer->norm2);
        vl_norm_free(device, &layer->q_norm);
        vl_norm_free(device, &layer->k_norm);
        vl_device_free(device, layer->scale1.data);
        vl_device_free(device, layer->scale2.data);
        for (size_t k = 0; k < sizeof linears / sizeof *linears; k++)
            vl_linear_free(device, linears[k]);
    }
    vl_free(tower->layers);
    vl_linear_free(device, &tower->patch);
    vl_device_free(device, tower->class_row.data);
    vl_device_free(device, tower->position.data);
    vl_norm_free(device, &tower->pre_norm);
    vl_norm_free(device, &tower->post_norm);
    *tower = (vl_tower){0};
}

/* ---- forward ----------------------------------------------------------------------------------------------- */

/* The buffers of one forward; R = n_tiles * N. */
typedef struct run {
    vl_device *device;
    const vl_tower *tower;
    int n_tiles;
    int64_t n_rows; /* N */
    vl_tensor x;    /* [R, C]: the caller's out */
    void *memory, *pixels, *patches, *a, *b, *k, *v, *mlp;
} run;

static vl_status allocate(run *t, vl_error *err)
{
    const vl_tower_spec *spec = t->tower->spec;
    int64_t rows = t->n_tiles * t->n_rows, c = spec->hidden_size;
    const vl_buffer_request requests[] = {
        {&t->pixels, (int64_t)spec->n_channels * spec->image_size, spec->image_size},
        {&t->patches, spec->n_patches, (int64_t)spec->n_channels * spec->patch_size * spec->patch_size},
        {&t->a, rows, c},
        {&t->b, rows, c},
        {&t->k, rows, c},
        {&t->v, rows, c},
        {&t->mlp, rows, spec->intermediate_size},
    };
    return vl_buffers_alloc(&t->memory, t->device, requests, (int)(sizeof requests / sizeof *requests), err);
}

/* out = out + scale * y, the scale column by column or (NULL) 1 */
static vl_status add_to(const run *t, vl_tensor out, vl_tensor y, vl_tensor scale, vl_error *err)
{
    return vl_op_add(t->device, &(vl_add_args){.out = out, .x = out, .y = y, .scale = 1, .column_scale = scale}, err);
}

/* The class row and the patches of tile `tile`, positions added, into its rows of x. */
static vl_status embed(const run *t, int tile, const float *pixels, vl_error *err)
{
    const vl_tower_spec *spec = t->tower->spec;
    int64_t width = (int64_t)spec->n_channels * spec->patch_size * spec->patch_size;
    vl_tensor rows = vl_tensor_rows(t->x, tile * t->n_rows, t->n_rows);
    vl_tensor picture = vl_tensor_2d(t->pixels, VL_F32, (int64_t)spec->n_channels * spec->image_size, spec->image_size);
    vl_tensor patches = vl_tensor_2d(t->patches, VL_F32, spec->n_patches, width);
    VL_TRY(vl_device_write(t->device, &picture, pixels, err));
    VL_TRY(vl_op_patchify(t->device,
                          &(vl_patchify_args){.out = patches,
                                              .pixels = picture,
                                              .channels = spec->n_channels,
                                              .height = spec->image_size,
                                              .width = spec->image_size,
                                              .patch = spec->patch_size},
                          err));
    int64_t skip = spec->class_row ? 1 : 0;
    if (spec->class_row)
        VL_TRY(vl_op_cast(t->device, &(vl_cast_args){vl_tensor_rows(rows, 0, 1), t->tower->class_row}, err));
    VL_TRY(vl_linear_apply(t->device, &t->tower->patch, vl_tensor_rows(rows, skip, spec->n_patches), patches, err));
    return add_to(t, rows, t->tower->position, (vl_tensor){0}, err);
}

/* a [R, C] = attention of b; every row of a tile sees every other, no tile sees another. */
static vl_status attend(const run *t, vl_error *err)
{
    const vl_tower_spec *spec = t->tower->spec;
    int64_t rows = t->n_tiles * t->n_rows, c = spec->hidden_size;
    vl_attention_args args = {
        .n_heads = spec->n_heads, .n_kv_heads = spec->n_heads, .scale = (float)(1 / sqrt((double)spec->head_dim))};
    for (int i = 0; i < t->n_tiles; i++) {
        int64_t first = i * t->n_rows;
        args.out = vl_tensor_rows(vl_tensor_2d(t->a, VL_F32, rows, c), first, t->n_rows);
        args.q = vl_tensor_rows(vl_tensor_2d(t->b, VL_F32, rows, c), first, t->n_rows);
        args.k = vl_tensor_rows(vl_tensor_2d(t->k, VL_F32, rows, c), first, t->n_rows);
        args.v = vl_tensor_rows(vl_tensor_2d(t->v, VL_F32, rows, c), first, t->n_rows);
        VL_TRY(vl_op_attention(t->device, &args, err));
    }
    return VL_OK;
}

static vl_status run_layer(const run *t, const vl_tower_layer *layer, vl_error *err)
{
    const vl_tower_spec *spec = t->tower->spec;
    int64_t rows = t->n_tiles * t->n_rows, c = spec->hidden_size;
    vl_tensor a = vl_tensor_2d(t->a, VL_F32, rows, c), b = vl_tensor_2d(t->b, VL_F32, rows, c);
    vl_tensor k = vl_tensor_2d(t->k, VL_F32, rows, c);
    vl_tensor mlp = vl_tensor_2d(t->mlp, VL_F32, rows, spec->intermediate_size);
    VL_TRY(vl_norm_apply(t->device, &layer->norm1, a, t->x, err));
    VL_TRY(vl_linear_apply(t->device, &layer->q, b, a, err));
    VL_TRY(vl_linear_apply(t->device, &layer->k, k, a, err));
    VL_TRY(vl_linear_apply(t->device, &layer->v, vl_tensor_2d(t->v, VL_F32, rows, c), a, err));
    if (layer->q_norm.weight.data) {
        VL_TRY(vl_norm_apply(t->device, &layer->q_norm, b, b, err));
        VL_TRY(vl_norm_apply(t->device, &layer->k_norm, k, k, err));
    }
    VL_TRY(attend(t, err));
    VL_TRY(vl_linear_apply(t->device, &layer->o, b, a, err));
    VL_TRY(add_to(t, t->x, b, layer->scale1, err));
    VL_TRY(vl_norm_apply(t->device, &layer->norm2, a, t->x, err));
    VL_TRY(vl_linear_apply(t->device, &layer->fc1, mlp, a, err));
    vl_activation_args act = {.out = mlp, .x = mlp, .kind = spec->hidden_act};
    VL_TRY(vl_op_activation(t->device, &act, err));
    VL_TRY(vl_linear_apply(t->device, &layer->fc2, b, mlp, err));
    return add_to(t, t->x, b, layer->scale2, err);
}

static vl_status run_all(const run *t, const vl_tower_args *args, vl_error *err)
{
    const vl_tower *tower = t->tower;
    for (int i = 0; i < t->n_tiles; i++)
        VL_TRY(embed(t, i, args->pixels[i], err));
    if (tower->pre_norm.weight.data)
        VL_TRY(vl_norm_apply(t->device, &tower->pre_norm, t->x, t->x, err));
    for (int state = 0;; state++) {
        if (args->hidden)
            VL_TRY(args->hidden(args->user, state, t->x, err));
        if (state == tower->spec->state)
            break;
        VL_TRY(run_layer(t, &tower->layers[state], err));
    }
    if (!tower->post_norm.weight.data)
        return VL_OK;
    return vl_norm_apply(t->device, &tower->post_norm, t->x, t->x, err);
}

vl_status vl_tower_forward(const vl_tower *tower, vl_device *device, const vl_tower_args *args, vl_error *err)
{
    run t = {.device = device,
             .tower = tower,
             .n_tiles = args->n_tiles,
             .n_rows = vl_tower_rows(tower->spec),
             .x = args->out};
    vl_status status = VL_OK;
    VL_GOTO(allocate(&t, err));
    VL_GOTO(run_all(&t, args, err));
done:
    vl_device_free(device, t.memory);
    return status;
}
