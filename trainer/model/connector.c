#include "trainer/model/connector.h"

#include "trainer/base/mem.h"
#include "trainer/model/buffers.h"

/* ---- weights ----------------------------------------------------------------------------------------------- */

/* Patches along a side of the blocks that become one row; 0 where patches stay as they are. */
static int block_side(const vl_connector_spec *spec)
{
    return spec->shuffle > 0 ? spec->shuffle : spec->pool;
}

/* W */
static int64_t width(const vl_vision_spec *spec)
{
    int64_t s = spec->connector.shuffle > 0 ? spec->connector.shuffle : 1;
    return spec->tower.hidden_size * s * s;
}

/* The patches of each block: in raster order of blocks and, inside a block, of patches. */
static void fill_blocks(int32_t *rows, const vl_vision_spec *spec)
{
    const int s = block_side(&spec->connector), g = spec->tower.grid, along = g / s;
    for (int block = 0; block < along * along; block++)
        for (int k = 0; k < s * s; k++)
            *rows++ = (block / along * s + k / s) * g + block % along * s + k % s;
}

/* Joined rows are picked one by one, and s * s of them that lie together are one; pooled ones are means. */
static vl_status load_blocks(vl_connector *out, vl_device *device, vl_error *err)
{
    const vl_connector_spec *spec = &out->spec->connector;
    const int64_t s = block_side(spec), n = out->n_rows * s * s, taps = spec->pool > 0 ? s * s : 1;
    vl_status status = VL_OK;
    int32_t *rows = vl_alloc((size_t)n, sizeof *rows);
    float *weights = vl_alloc((size_t)n, sizeof *weights);
    if (!rows || !weights) {
        status = vl_fail_nomem(err, "connector");
        goto done;
    }
    fill_blocks(rows, out->spec);
    VL_GOTO(vl_tensor_new(&out->rows, device, VL_I32, n / taps, taps, err));
    VL_GOTO(vl_device_write(device, &out->rows, rows, err));
    if (spec->pool > 0) {
        for (int64_t i = 0; i < n; i++)
            weights[i] = 1.0F / (float)(s * s);
        VL_GOTO(vl_tensor_new(&out->weights, device, VL_F32, n / taps, taps, err));
        VL_GOTO(vl_device_write(device, &out->weights, weights, err));
    }
    VL_GOTO(vl_device_sync(device, err));
done:
    vl_free(rows);
    vl_free(weights);
    return status;
}

vl_status vl_connector_load(vl_connector *out, vl_loader *loader, vl_error *err)
{
    const vl_vision_spec *vision = &loader->spec->vision;
    const vl_connector_spec *spec = &vision->connector;
    const int64_t w = width(vision), d = loader->spec->decoder.hidden_size;
    *out = (vl_connector){.spec = vision, .n_rows = vl_connector_rows(vision)};
    const vl_scope scope = vl_scope_make(loader, VL_PART_CONNECTOR, "%s", "");
    if (block_side(spec) > 0)
        VL_TRY(load_blocks(out, loader->device, err));
    if (spec->norm)
        VL_TRY(vl_load_norm(&out->norm, &scope, spec->norm, w, spec->norm_form, spec->norm_eps, err));
    if (spec->bare) {
        const vl_picked_rows all = {.total = d, .run = d, .stride = d, .transposed = true, .bare = true};
        VL_TRY(vl_load_picked(&out->linear[0], &scope, spec->names[0], vl_shape2(d, w), spec->bias, &all, err));
    } else {
        VL_TRY(vl_load_linear(&out->linear[0], &scope, spec->names[0], vl_shape2(d, w), spec->bias, err));
    }
    if (spec->kind == VL_CONNECTOR_LINEAR)
        return VL_OK;
    return vl_load_linear(&out->linear[1], &scope, spec->names[1], vl_shape2(d, d), spec->bias, err);
}

void vl_connector_free(vl_connector *connector, vl_device *device)
{
    vl_norm_free(device, &connector->norm);
    vl_linear_free(device, &connector->linear[0]);
    vl_linear_free(device, &connector->linear[1]);
    vl_device_free(device, connector->rows.data);
    vl_device_free(device, connector->weights.data);
}

/* ---- forward ----------------------------------------------------------------------------------------------- */

/* blocks [n_tiles * n, W] of the tower's rows: without its class row, joined or pooled. */
static vl_status gather(const vl_connector *connector, vl_device *device, vl_tensor blocks, vl_tensor x, vl_error *err)
{
    const vl_vision_spec *spec = connector->spec;
    const int64_t all = vl_tower_rows(&spec->tower), n = connector->n_rows, n_tiles = blocks.shape[0] / n;
    const int64_t skip = spec->tower.class_row && !spec->connector.keep_class_row ? 1 : 0;
    for (int64_t i = 0; i < n_tiles; i++) {
        const vl_tensor from = vl_tensor_rows(x, i * all + skip, all - skip), to = vl_tensor_rows(blocks, i * n, n);
        if (!connector->rows.data) {
            VL_TRY(vl_op_cast(device, &(vl_cast_args){.out = to, .x = from}, err));
            continue;
        }
        /* joined rows lie one behind another */
        const vl_tensor parts = vl_tensor_2d(to.data, VL_F32, connector->rows.shape[0], spec->tower.hidden_size);
        const vl_mix_rows_args args = {parts, from, connector->rows, connector->weights};
        VL_TRY(vl_op_mix_rows(device, &args, err));
    }
    return VL_OK;
}

static vl_status project(const vl_connector *connector, vl_device *device, vl_tensor out, vl_tensor blocks,
                         vl_tensor middle, vl_error *err)
{
    const vl_connector_spec *spec = &connector->spec->connector;
    if (connector->norm.weight.data)
        VL_TRY(vl_norm_apply(device, &connector->norm, blocks, blocks, err));
    if (spec->kind == VL_CONNECTOR_LINEAR)
        return vl_linear_apply(device, &connector->linear[0], out, blocks, err);
    VL_TRY(vl_linear_apply(device, &connector->linear[0], middle, blocks, err));
    VL_TRY(vl_op_activation(device, &(vl_activation_args){.out = middle, .x = middle, .kind = spec->act}, err));
    return vl_linear_apply(device, &connector->linear[1], out, middle, err);
}

vl_status vl_connector_forward(const vl_connector *connector, vl_device *device, vl_tensor out, vl_tensor x,
                               vl_error *err)
{
    const int64_t n = out.shape[0], w = width(connector->spec), d = out.shape[1];
    void *memory = NULL, *blocks, *middle;
    const vl_buffer_request requests[] = {{&blocks, n, w}, {&middle, n, d}};
    vl_status status = VL_OK;
    VL_GOTO(vl_buffers_alloc(&memory, device, requests, 2, err));
    const vl_tensor rows = vl_tensor_2d(blocks, VL_F32, n, w);
    VL_GOTO(gather(connector, device, rows, x, err));
    VL_GOTO(project(connector, device, out, rows, vl_tensor_2d(middle, VL_F32, n, d), err));
done:
    vl_device_free(device, memory);
    return status;
}
