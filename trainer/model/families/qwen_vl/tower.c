#include "trainer/model/families/qwen_vl/tower.h"

#include <math.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/model/buffers.h"

static const double EPS = 1e-6; /* fixed in every one of these towers, whatever the decoder's is */

/* ---- weights ----------------------------------------------------------------------------------------------- */

static vl_status load_layer(vl_qwen_layer *out, const vl_scope *scope, const vl_qwen_tower_spec *spec, vl_error *err)
{
    const int64_t c = spec->hidden_size, f = spec->intermediate_size;
    const vl_norm_form form = spec->kind == VL_QWEN_2_5 ? VL_FORM_RMS : VL_FORM_LAYER;
    const bool three = spec->kind == VL_QWEN_3;
    VL_TRY(vl_load_norm(&out->norm1, scope, "norm1", c, form, EPS, err));
    VL_TRY(vl_load_norm(&out->norm2, scope, "norm2", c, form, EPS, err));
    VL_TRY(vl_load_linear(&out->qkv, scope, "attn.qkv", vl_shape2(3 * c, c), true, err));
    VL_TRY(vl_load_linear(&out->o, scope, "attn.proj", vl_shape2(c, c), true, err));
    if (spec->kind == VL_QWEN_2_5) {
        VL_TRY(vl_load_linear(&out->gate, scope, "mlp.gate_proj", vl_shape2(f, c), true, err));
        VL_TRY(vl_load_linear(&out->up, scope, "mlp.up_proj", vl_shape2(f, c), true, err));
        return vl_load_linear(&out->down, scope, "mlp.down_proj", vl_shape2(c, f), true, err);
    }
    VL_TRY(vl_load_linear(&out->up, scope, three ? "mlp.linear_fc1" : "mlp.fc1", vl_shape2(f, c), true, err));
    return vl_load_linear(&out->down, scope, three ? "mlp.linear_fc2" : "mlp.fc2", vl_shape2(c, f), true, err);
}

/* joined_first: the norm of a DeepStack merger reads the joined rows. */
static vl_status load_merger(vl_qwen_merger *out, const vl_scope *scope, const vl_qwen_tower_spec *spec,
                             bool joined_first, vl_error *err)
{
    const int64_t c = spec->hidden_size, wide = c * spec->merge * spec->merge;
    const bool three = spec->kind == VL_QWEN_3;
    const vl_norm_form form = spec->kind == VL_QWEN_2_5 ? VL_FORM_RMS : VL_FORM_LAYER;
    out->joined_first = joined_first;
    VL_TRY(vl_load_norm(&out->norm, scope, three ? "norm" : "ln_q", joined_first ? wide : c, form, EPS, err));
    VL_TRY(vl_load_linear(&out->fc1, scope, three ? "linear_fc1" : "mlp.0", vl_shape2(wide, wide), true, err));
    return vl_load_linear(&out->fc2, scope, three ? "linear_fc2" : "mlp.2", vl_shape2(spec->out_size, wide), true, err);
}

static vl_status load_embeddings(vl_qwen_tower *out, vl_loader *loader, vl_error *err)
{
    const vl_qwen_tower_spec *spec = out->spec;
    const vl_scope top = vl_scope_make(loader, VL_PART_VISION, "%s", "");
    const int64_t c = spec->hidden_size, side = spec->position_side;
    const vl_shape conv = {5, {c, 3, spec->frames, spec->patch, spec->patch}};
    VL_TRY(vl_load_linear(&out->patch, &top, "patch_embed.proj", conv, spec->kind == VL_QWEN_3, err));
    if (side > 0)
        VL_TRY(vl_load_table(&out->position, &top, "pos_embed.weight", vl_shape2(side * side, c), err));
    return VL_OK;
}

vl_status vl_qwen_tower_load(vl_qwen_tower *out, const vl_qwen_tower_spec *spec, vl_loader *loader, vl_error *err)
{
    *out = (vl_qwen_tower){.spec = spec};
    VL_TRY(load_embeddings(out, loader, err));
    out->layers = vl_calloc((size_t)spec->n_layers, sizeof *out->layers);
    if (!out->layers)
        return vl_fail_nomem(err, "vision tower");
    for (int i = 0; i < spec->n_layers; i++) {
        const vl_scope scope = vl_scope_make(loader, VL_PART_VISION, "blocks.%d.", i);
        VL_TRY(load_layer(&out->layers[i], &scope, spec, err));
    }
    for (int i = 0; i < spec->n_deep; i++) {
        const vl_scope scope = vl_scope_make(loader, VL_PART_VISION, "deepstack_merger_list.%d.", i);
        VL_TRY(load_merger(&out->deep[i], &scope, spec, true, err));
    }
    const vl_scope scope = vl_scope_make(loader, VL_PART_VISION, "%s", "merger.");
    return load_merger(&out->merger, &scope, spec, false, err);
}

static void free_merger(vl_qwen_merger *merger, vl_device *device)
{
    vl_norm_free(device, &merger->norm);
    vl_linear_free(device, &merger->fc1);
    vl_linear_free(device, &merger->fc2);
}

void vl_qwen_tower_free(vl_qwen_tower *tower, vl_device *device)
{
    for (int i = 0; tower->layers && i < tower->spec->n_layers; i++) {
        vl_qwen_layer *layer = &tower->layers[i];
        vl_linear *const linears[] = {&layer->qkv, &layer->o, &layer->gate, &layer->up, &layer->down};
        vl_norm_free(device, &layer->norm1);
        vl_norm_free(device, &layer->norm2);
        for (size_t k = 0; k < sizeof linears / sizeof *linears; k++)
            vl_linear_free(device, linears[k]);
    }
    vl_free(tower->layers);
    vl_linear_free(device, &tower->patch);
    vl_device_free(device, tower->position.data);
    free_merger(&tower->merger, device);
    for (int i = 0; i < VL_QWEN_MAX_DEEP; i++)
        free_merger(&tower->deep[i], device);
    *tower = (vl_qwen_tower){0};
}

/* ---- forward ----------------------------------------------------------------------------------------------- */

/* Rows of the MLP that are held at a time. */
enum { MLP_ROWS = 4096 };

/* The buffers of one picture; B = P / m^2 blocks. */
typedef struct run {
    vl_device *device;
    const vl_qwen_tower *tower;
    const vl_qwen_tower_args *args;
    int64_t n, n_blocks, width, chunk; /* P, B, values of a patch, rows of the MLP at a time */
    int32_t *order;                    /* [B] blocks as the layers have them */
    int64_t *ends, n_windows;          /* [n_windows] in blocks */
    void *memory, *pixels, *x, *a, *b, *qkv, *gate, *up, *cosines, *sines, *rows, *weights, *merged, *small;
} run;

static vl_tensor view(const run *r, void *data, int64_t columns)
{
    return vl_tensor_2d(data, VL_F32, r->n, columns);
}

static vl_status allocate(run *r, vl_error *err)
{
    const vl_qwen_tower_spec *spec = r->tower->spec;
    const int64_t c = spec->hidden_size, half = c / spec->n_heads / 2, wide = c * spec->merge * spec->merge;
    const vl_buffer_request requests[] = {
        {&r->pixels, r->n, r->width},
        {&r->x, r->n, c},
        {&r->a, r->n, c},
        {&r->b, r->n, c},
        {&r->qkv, r->n, 3 * c},
        {&r->gate, spec->kind == VL_QWEN_2_5 ? r->chunk : 0, spec->intermediate_size},
        {&r->up, r->chunk, spec->intermediate_size},
        {&r->cosines, r->n, half},
        {&r->sines, r->n, half},
        {&r->rows, r->n, 4},
        {&r->weights, r->n, 4},
        {&r->merged, r->n_blocks, wide},
        {&r->small, r->n_blocks, spec->out_size},
    };
    VL_TRY(vl_buffers_alloc(&r->memory, r->device, requests, (int)(sizeof requests / sizeof *requests), err));
    r->order = vl_alloc((size_t)r->n_blocks, sizeof *r->order);
    r->ends = vl_alloc((size_t)r->n_blocks, sizeof *r->ends);
    return r->order && r->ends ? VL_OK : vl_fail_nomem(err, "windows of a picture");
}

/* The order of the blocks, and who sees whom. */
static void arrange(run *r)
{
    const vl_qwen_tower_spec *spec = r->tower->spec;
    const vl_size blocks = {r->args->grid.height / spec->merge, r->args->grid.width / spec->merge};
    if (spec->window > 0) {
        r->n_windows = vl_qwen_windows(r->order, r->ends, blocks, spec->window);
        return;
    }
    for (int64_t i = 0; i < r->n_blocks; i++)
        r->order[i] = (int32_t)i;
    r->ends[0] = r->n_blocks;
    r->n_windows = 1;
}

static vl_status write_angles(const run *r, vl_error *err)
{
    const vl_qwen_tower_spec *spec = r->tower->spec;
    const int64_t half = spec->hidden_size / spec->n_heads / 2;
    const size_t n = (size_t)r->n * (size_t)half;
    float *table = vl_alloc(2 * n, sizeof *table);
    if (!table)
        return vl_fail_nomem(err, "rotary tables");
    const vl_tensor cosines = view(r, r->cosines, half), sines = view(r, r->sines, half);
    vl_qwen_angles(table, table + n, r->order, r->args->grid, (const int[2]){(int)(2 * half), spec->merge});
    vl_status status = vl_device_write(r->device, &cosines, table, err);
    if (status == VL_OK)
        status = vl_device_write(r->device, &sines, table + n, err);
    vl_free(table);
    return status;
}

/* The pixel rows in the order of the blocks. */
static vl_status write_pixels(const run *r, vl_error *err)
{
    const int area = r->tower->spec->merge * r->tower->spec->merge;
    const size_t block = (size_t)area * (size_t)r->width;
    const vl_tensor pixels = view(r, r->pixels, r->width);
    float *sorted = vl_alloc((size_t)r->n_blocks * block, sizeof *sorted);
    if (!sorted)
        return vl_fail_nomem(err, "pixel values");
    for (int64_t i = 0; i < r->n_blocks; i++)
        memcpy(sorted + (size_t)i * block, r->args->pixels + (size_t)r->order[i] * block, block * sizeof *sorted);
    vl_status status = vl_device_write(r->device, &pixels, sorted, err);
    vl_free(sorted);
    return status;
}

/* x = x + the table of positions, stretched over the picture. Of towers without windows. */
static vl_status add_positions(const run *r, vl_error *err)
{
    const vl_qwen_tower_spec *spec = r->tower->spec;
    const vl_tensor x = view(r, r->x, spec->hidden_size), added = view(r, r->a, spec->hidden_size);
    const vl_tensor rows = vl_tensor_2d(r->rows, VL_I32, r->n, 4), weights = view(r, r->weights, 4);
    vl_status status = VL_OK;
    int32_t *taps = vl_alloc((size_t)r->n * 4, sizeof *taps);
    float *parts = vl_alloc((size_t)r->n * 4, sizeof *parts);
    if (!taps || !parts) {
        status = vl_fail_nomem(err, "positions of patches");
        goto done;
    }
    vl_qwen_positions(taps, parts, r->args->grid, spec->merge, spec->position_side);
    VL_GOTO(vl_device_write(r->device, &rows, taps, err));
    VL_GOTO(vl_device_write(r->device, &weights, parts, err));
    VL_GOTO(vl_op_mix_rows(r->device, &(vl_mix_rows_args){added, r->tower->position, rows, weights}, err));
    VL_GOTO(vl_op_add(r->device, &(vl_add_args){.out = x, .x = x, .y = added, .scale = 1}, err));
done:
    vl_free(taps);
    vl_free(parts);
    return status;
}

/* a [P, C] = attention of the rows of qkv, inside each window or over all of them. */
static vl_status attend(const run *r, bool full, vl_error *err)
{
    const vl_qwen_tower_spec *spec = r->tower->spec;
    const int64_t c = spec->hidden_size, area = spec->merge * spec->merge;
    const vl_tensor qkv = view(r, r->qkv, 3 * c), out = view(r, r->a, c);
    const int64_t parts = full ? 1 : r->n_windows;
    vl_attention_args args = {
        .n_heads = spec->n_heads, .n_kv_heads = spec->n_heads, .scale = (float)(1 / sqrt((double)(c / spec->n_heads)))};
    for (int64_t i = 0, first = 0; i < parts; i++) {
        const int64_t n = (full ? r->n : r->ends[i] * area) - first;
        args.out = vl_tensor_rows(out, first, n);
        args.q = vl_tensor_rows(vl_tensor_columns(qkv, 0, c), first, n);
        args.k = vl_tensor_rows(vl_tensor_columns(qkv, c, c), first, n);
        args.v = vl_tensor_rows(vl_tensor_columns(qkv, 2 * c, c), first, n);
        VL_TRY(vl_op_attention(r->device, &args, err));
        first += n;
    }
    return VL_OK;
}

static vl_status turn(const run *r, vl_tensor x, vl_error *err)
{
    const vl_qwen_tower_spec *spec = r->tower->spec;
    const int64_t half = spec->hidden_size / spec->n_heads / 2;
    const vl_rope_args args = {x, view(r, r->cosines, half), view(r, r->sines, half), spec->n_heads};
    return vl_op_rope(r->device, &args, err);
}

/* b [P, C] = MLP of a, in chunks of rows. */
static vl_status run_mlp(const run *r, const vl_qwen_layer *layer, vl_error *err)
{
    const vl_qwen_tower_spec *spec = r->tower->spec;
    const vl_tensor a = view(r, r->a, spec->hidden_size), b = view(r, r->b, spec->hidden_size);
    for (int64_t first = 0; first < r->n; first += r->chunk) {
        const int64_t n = r->n - first < r->chunk ? r->n - first : r->chunk;
        const vl_tensor in = vl_tensor_rows(a, first, n), up = vl_tensor_2d(r->up, VL_F32, n, spec->intermediate_size);
        vl_activation_args act = {.out = up, .x = up, .kind = spec->act};
        VL_TRY(vl_linear_apply(r->device, &layer->up, up, in, err));
        if (layer->gate.weight) {
            const vl_tensor gate = vl_tensor_2d(r->gate, VL_F32, n, spec->intermediate_size);
            VL_TRY(vl_linear_apply(r->device, &layer->gate, gate, in, err));
            act.x = gate;
            act.up = up;
        }
        VL_TRY(vl_op_activation(r->device, &act, err));
        VL_TRY(vl_linear_apply(r->device, &layer->down, vl_tensor_rows(b, first, n), up, err));
    }
    return VL_OK;
}

static vl_status run_layer(const run *r, int i, vl_error *err)
{
    const vl_qwen_tower_spec *spec = r->tower->spec;
    const vl_qwen_layer *layer = &r->tower->layers[i];
    const int64_t c = spec->hidden_size;
    const vl_tensor x = view(r, r->x, c), a = view(r, r->a, c), b = view(r, r->b, c), qkv = view(r, r->qkv, 3 * c);
    const vl_add_args add = {.out = x, .x = x, .y = b, .scale = 1};
    VL_TRY(vl_norm_apply(r->device, &layer->norm1, a, x, err));
    VL_TRY(vl_linear_apply(r->device, &layer->qkv, qkv, a, err));
    VL_TRY(turn(r, vl_tensor_columns(qkv, 0, c), err));
    VL_TRY(turn(r, vl_tensor_columns(qkv, c, c), err));
    VL_TRY(attend(r, spec->window == 0 || spec->full[i], err));
    VL_TRY(vl_linear_apply(r->device, &layer->o, b, a, err));
    VL_TRY(vl_op_add(r->device, &add, err));
    VL_TRY(vl_norm_apply(r->device, &layer->norm2, a, x, err));
    VL_TRY(run_mlp(r, layer, err));
    return vl_op_add(r->device, &add, err);
}

/* out [B, D] of x: m^2 rows that lie together are a block. */
static vl_status merge(const run *r, const vl_qwen_merger *merger, vl_tensor out, vl_error *err)
{
    const vl_qwen_tower_spec *spec = r->tower->spec;
    const int64_t c = spec->hidden_size, wide = c * spec->merge * spec->merge;
    const vl_tensor x = view(r, r->x, c), a = view(r, r->a, c);
    const vl_tensor joined_x = vl_tensor_2d(r->x, VL_F32, r->n_blocks, wide);
    const vl_tensor joined_a = vl_tensor_2d(r->a, VL_F32, r->n_blocks, wide);
    const vl_tensor merged = vl_tensor_2d(r->merged, VL_F32, r->n_blocks, wide);
    if (merger->joined_first)
        VL_TRY(vl_norm_apply(r->device, &merger->norm, joined_a, joined_x, err));
    else
        VL_TRY(vl_norm_apply(r->device, &merger->norm, a, x, err));
    VL_TRY(vl_linear_apply(r->device, &merger->fc1, merged, joined_a, err));
    VL_TRY(vl_op_activation(r->device, &(vl_activation_args){.out = merged, .x = merged, .kind = VL_ACT_GELU}, err));
    return vl_linear_apply(r->device, &merger->fc2, out, merged, err);
}

/* The merged rows from the order of the windows to raster order. */
static vl_status finish(const run *r, vl_error *err)
{
    const vl_tensor small = vl_tensor_2d(r->small, VL_F32, r->n_blocks, r->tower->spec->out_size);
    const vl_tensor rows = vl_tensor_2d(r->rows, VL_I32, r->n_blocks, 1);
    if (r->tower->spec->window == 0)
        return merge(r, &r->tower->merger, r->args->out, err);
    int32_t *back = vl_alloc((size_t)r->n_blocks, sizeof *back);
    if (!back)
        return vl_fail_nomem(err, "windows of a picture");
    for (int64_t i = 0; i < r->n_blocks; i++)
        back[r->order[i]] = (int32_t)i;
    vl_status status = vl_device_write(r->device, &rows, back, err);
    vl_free(back);
    VL_TRY(status);
    VL_TRY(merge(r, &r->tower->merger, small, err));
    return vl_op_mix_rows(r->device, &(vl_mix_rows_args){.out = r->args->out, .x = small, .rows = rows}, err);
}

static vl_status run_all(const run *r, vl_error *err)
{
    const vl_qwen_tower_spec *spec = r->tower->spec;
    const vl_tensor x = view(r, r->x, spec->hidden_size);
    VL_TRY(write_angles(r, err));
    VL_TRY(write_pixels(r, err));
    VL_TRY(vl_linear_apply(r->device, &r->tower->patch, x, view(r, r->pixels, r->width), err));
    if (spec->position_side > 0)
        VL_TRY(add_positions(r, err));
    for (int i = 0, deep = 0;; i++) {
        if (r->args->hidden)
            VL_TRY(r->args->hidden(r->args->user, i, x, err));
        if (i == spec->n_layers)
            return finish(r, err);
        VL_TRY(run_layer(r, i, err));
        if (deep < spec->n_deep && spec->deep[deep] == i) {
            VL_TRY(merge(r, &r->tower->deep[deep], r->args->deep[deep], err));
            deep++;
        }
    }
}

vl_status vl_qwen_tower_forward(const vl_qwen_tower *tower, vl_device *device, const vl_qwen_tower_args *args,
                                vl_error *err)
{
    const vl_qwen_tower_spec *spec = tower->spec;
    run r = {.device = device, .tower = tower, .args = args};
    vl_status status = VL_OK;
    r.n = (int64_t)args->grid.height * args->grid.width;
    r.n_blocks = r.n / (spec->merge * spec->merge);
    r.width = 3 * (int64_t)spec->frames * spec->patch * spec->patch;
    r.chunk = r.n < MLP_ROWS ? r.n : MLP_ROWS;
    VL_GOTO(allocate(&r, err));
    arrange(&r);
    VL_GOTO(run_all(&r, err));
done:
    vl_device_free(device, r.memory);
    vl_free(r.order);
    vl_free(r.ends);
    return status;
}

double vl_qwen_tower_work(const vl_qwen_tower_spec *spec, vl_size grid)
{
    const double n = (double)grid.height * grid.width, c = spec->hidden_size, f = spec->intermediate_size;
    const double wide = c * spec->merge * spec->merge, blocks = n / (spec->merge * spec->merge);
    const double side = spec->window * spec->merge, window = side > 0 && side * side < n ? side * side : n;
    double work = 2 * n * c * 3 * spec->frames * spec->patch * spec->patch;
    for (int i = 0; i < spec->n_layers; i++) {
        const double keys = spec->window == 0 || spec->full[i] ? n : window;
        work += 2 * n * (4 * c * c + (spec->kind == VL_QWEN_2_5 ? 3 : 2) * c * f + 2 * keys * c);
    }
    return work + 2 * blocks * (wide * wide + wide * spec->out_size) * (1 + spec->n_deep);
}
