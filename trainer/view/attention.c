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

/* Bit masks of tiles, as in trainer/model/mllama_context.c: a row that sees no tile attends to all of them. */
static vl_status make_masks(vl_tensor *q_mask, vl_tensor *k_mask, const vl_attention_capture *c, vl_error *err)
{
    int64_t t = c->query.shape[0], n = c->map->n_keys;
    int64_t *host = vl_alloc((size_t)(t > n ? t : n), sizeof *host);
    vl_status status = VL_OK;
    if (!host)
        return vl_fail_nomem(err, "attention map");
    VL_GOTO(vl_tensor_new(q_mask, c->device, VL_I64, 1, t, err));
    VL_GOTO(vl_tensor_new(k_mask, c->device, VL_I64, 1, n, err));
    for (int64_t i = 0; i < t; i++)
        host[i] = c->sequence->visible[i] ? (int64_t)c->sequence->visible[i] : -1;
    *q_mask = vl_tensor_1d(q_mask->data, VL_I64, t);
    VL_GOTO(vl_device_write(c->device, q_mask, host, err));
    for (int64_t i = 0; i < n; i++)
        host[i] = (int64_t)(UINT64_C(1) << (i / c->map->rows_of_tile));
    *k_mask = vl_tensor_1d(k_mask->data, VL_I64, n);
    VL_GOTO(vl_device_write(c->device, k_mask, host, err));
done:
    vl_free(host);
    return status;
}

/* The mean over heads of the chosen rows; probability is [T, H * n_keys] in host memory. */
static void add_means(vl_attention_capture *c, const float *probability)
{
    const int64_t n = c->map->n_keys, heads = c->model->n_heads;
    float *weights = c->map->weights + (size_t)(c->map->n_layers - 1) * (size_t)(c->map->n_positions * n);
    for (int64_t i = 0; i < c->map->n_positions; i++)
        for (int64_t head = 0; head < heads; head++)
            for (int64_t j = 0; j < n; j++)
                weights[i * n + j] += probability[(c->rows[i] * heads + head) * n + j] / (float)heads;
}

static vl_status add_weights(vl_attention_capture *c, int layer, vl_tensor key, vl_error *err)
{
    const int64_t t = c->query.shape[0], width = c->model->n_heads * key.shape[0];
    vl_tensor out = {0}, probability = {0}, q_mask = {0}, k_mask = {0};
    float *host = NULL;
    vl_status status = VL_OK;
    VL_GOTO(add_layer(c, layer, key.shape[0], err));
    VL_GOTO(make_masks(&q_mask, &k_mask, c, err));
    VL_GOTO(vl_tensor_new(&out, c->device, VL_F32, t, c->query.shape[1], err));
    VL_GOTO(vl_tensor_new(&probability, c->device, VL_F32, t, width, err));
    vl_attention_args args = {.out = out,
                              .q = c->query,
                              .k = key,
                              .v = key, /* only the weights are wanted */
                              .n_heads = (int)c->model->n_heads,
                              .n_kv_heads = (int)c->model->n_kv_heads,
                              .scale = (float)(1 / sqrt((double)c->model->head_dim)),
                              .q_mask = q_mask,
                              .k_mask = k_mask,
                              .probabilities = probability};
    VL_GOTO(vl_op_attention(c->device, &args, err));
    host = vl_alloc((size_t)t, (size_t)width * sizeof *host);
    if (!host)
        VL_GOTO(vl_fail_nomem(err, "attention map"));
    VL_GOTO(vl_device_read(c->device, host, &probability, err));
    add_means(c, host);
done:
    vl_free(host);
    vl_device_free(c->device, out.data);
    vl_device_free(c->device, probability.data);
    vl_device_free(c->device, q_mask.data);
    vl_device_free(c->device, k_mask.data);
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
