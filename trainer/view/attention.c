#include "trainer/view/attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"

enum { MAX_LAYERS = 512 };

void vl_attention_map_clear(vl_attention_map *map)
{
    vl_free(map->layers);
    vl_free(map->weights);
    *map = (vl_attention_map){0};
}

bool vl_attention_exists(const vl_model_info *model, const vl_sequence *sequence)
{
    return model->sees_images && !model->patches_in_stream && sequence->n_images > 0 && sequence->visible;
}

/* Room for one more block. */
static vl_status add_layer(vl_attention_capture *c, int layer, int64_t n_keys, vl_error *err)
{
    vl_attention_map *map = c->map;
    size_t block = (size_t)map->n_positions * (size_t)n_keys;
    if (map->n_layers == 0) {
        map->rows = c->model->patch_rows;
        map->columns = c->model->patch_columns;
        map->rows_of_tile = 1 + (int64_t)map->rows * map->columns;
        map->n_keys = n_keys;
        map->n_tiles = (int)(n_keys / (c->sequence->n_images * map->rows_of_tile));
    }
    if (map->n_layers >= MAX_LAYERS || n_keys != map->n_keys ||
        n_keys != c->sequence->n_images * map->n_tiles * map->rows_of_tile)
        return vl_fail(err, VL_EINTERNAL, "block %d attends to %lld rows, which are no whole pictures", layer,
                       (long long)n_keys);
    int *layers = vl_alloc((size_t)map->n_layers + 1, sizeof *layers);
    float *weights = vl_calloc(((size_t)map->n_layers + 1) * block, sizeof *weights);
    if (!layers || !weights) {
        vl_free(layers);
        vl_free(weights);
        return vl_fail_nomem(err, "attention map");
    }
    if (map->n_layers) {
        memcpy(layers, map->layers, (size_t)map->n_layers * sizeof *layers);
        memcpy(weights, map->weights, (size_t)map->n_layers * block * sizeof *weights);
    }
    layers[map->n_layers++] = layer;
    vl_free(map->layers);
    vl_free(map->weights);
    map->layers = layers;
    map->weights = weights;
    return VL_OK;
}

/* A row that sees no tile attends to all of them, as in the reference. */
static bool sees(const vl_attention_capture *c, int64_t row, int64_t key)
{
    uint64_t visible = c->sequence->visible[row];
    return !visible || visible >> (key / c->map->rows_of_tile) & 1;
}

/* Adds softmax(scores) / n_heads of one row to its weights. */
static void add_head(float *weights, const float *scores, const vl_attention_capture *c, int64_t row)
{
    double highest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < c->map->n_keys; j++)
        if (sees(c, row, j))
            highest = fmax(highest, (double)scores[j]);
    for (int64_t j = 0; j < c->map->n_keys; j++)
        if (sees(c, row, j))
            sum += exp((double)scores[j] - highest);
    for (int64_t j = 0; j < c->map->n_keys; j++)
        if (sees(c, row, j))
            weights[j] += (float)(exp((double)scores[j] - highest) / sum / (double)c->model->n_heads);
}

static vl_status add_weights(vl_attention_capture *c, int layer, vl_tensor key, vl_error *err)
{
    const int64_t e = c->model->head_dim, t = c->query.shape[0];
    const int64_t group = c->model->n_heads / c->model->n_kv_heads;
    vl_tensor scores = {0};
    float *host = NULL;
    vl_status status = VL_OK;
    VL_GOTO(add_layer(c, layer, key.shape[0], err));
    VL_GOTO(vl_tensor_new(&scores, c->device, VL_F32, t, key.shape[0], err));
    host = vl_alloc((size_t)t, (size_t)key.shape[0] * sizeof *host);
    if (!host)
        VL_GOTO(vl_fail_nomem(err, "attention map"));
    float *weights = c->map->weights + (size_t)(c->map->n_layers - 1) * (size_t)(c->map->n_positions * c->map->n_keys);
    for (int64_t head = 0; head < c->model->n_heads; head++) {
        VL_GOTO(vl_op_gemm(c->device,
                           &(vl_gemm_args){.out = scores,
                                           .a = vl_tensor_columns(c->query, head * e, e),
                                           .b = vl_tensor_columns(key, head / group * e, e),
                                           .transpose_b = true,
                                           .alpha = (float)(1 / sqrt((double)e))},
                           err));
        VL_GOTO(vl_device_read(c->device, host, &scores, err));
        for (int64_t i = 0; i < c->map->n_positions; i++)
            add_head(weights + i * c->map->n_keys, host + c->rows[i] * c->map->n_keys, c, c->rows[i]);
    }
done:
    vl_free(host);
    vl_device_free(c->device, scores.data);
    return status;
}

int vl_attention_stage(vl_attention_capture *c, const char *name, const vl_tensor *x)
{
    static const char query[] = "cross_attention.query.", key[] = "cross_attention.key.";
    if (!strncmp(name, query, sizeof query - 1))
        c->query = *x;
    else if (!strncmp(name, key, sizeof key - 1))
        c->status = add_weights(c, (int)strtol(name + sizeof key - 1, NULL, 10), *x, c->err);
    return c->status != VL_OK;
}
