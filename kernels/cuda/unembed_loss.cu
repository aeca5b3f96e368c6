/* The objective's inner step: unembed, compare with the teacher, and bring the gradient back. Rows go in tiles: logits
 * by GEMM, loss and gradient in place (loss.cu), gradient times head by GEMM. */
#include <string.h>

#include "kernels/cuda/loss.h"

enum { TILE_ELEMENTS = 64 << 20 /* 256 MiB of student logits at once */, TILE_ROWS = 1024, FEWEST_ROWS = 64 };

static int64_t rows_of_tile(int64_t m, int64_t row)
{
    int64_t rows = TILE_ELEMENTS / row / FEWEST_ROWS * FEWEST_ROWS, fewest = FEWEST_ROWS, most = TILE_ROWS;
    rows = rows < fewest ? fewest : rows < most ? rows : most;
    return rows < m ? rows : m;
}

static vl_status tile_loss(vl_cuda *cuda, const vl_unembed_loss_args *a, const vl_cuda_loss_tile *tile, vl_error *err)
{
    vl_linear_args product;
    memset(&product, 0, sizeof product);
    product.out = vl_tensor_2d(tile->logits, VL_F32, tile->rows, tile->v);
    product.out.row_stride = tile->row;
    product.x = vl_tensor_rows(a->x, tile->first, tile->rows);
    product.weight = a->head, product.bias = a->head_bias;
    VL_TRY(vl_cuda_linear(cuda, &product, err));
    if (a->softcap > 0.0f) {
        vl_activation_args cap;
        memset(&cap, 0, sizeof cap);
        cap.out = cap.x = product.out, cap.kind = VL_ACT_CAP, cap.cap = a->softcap;
        VL_TRY(vl_cuda_activation(cuda, &cap, err));
    }
    VL_TRY(vl_cuda_loss(cuda, a, tile, err));
    if (!a->dx.data)
        return VL_OK;
    memset(&product.bias, 0, sizeof product.bias);
    product.x = product.out, product.transpose = true;
    product.out = vl_tensor_rows(a->dx, tile->first, tile->rows);
    if (tile->gradient == VL_F32)
        return vl_cuda_linear(cuda, &product, err);
    product.x.dtype = tile->gradient, product.x.row_stride = 2 * tile->row;
    if (tile->gradient == VL_BF16)
        return vl_cuda_linear_narrow(cuda, &product, 1.0f, err);
    const float *weight = a->row_weight.data ? (const float *)a->row_weight.data + tile->first : NULL;
    VL_TRY(vl_cuda_linear_narrow(cuda, &product, 1.0f / vl_cuda_loss_scale(a->kind), err));
    return weight ? vl_cuda_scale_rows(cuda, product.out, weight, 1.0f, err) : VL_OK;
}

vl_status vl_cuda_unembed_loss(void *context, const vl_unembed_loss_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    const vl_cuda_matrix *head = (const vl_cuda_matrix *)a->head->data;
    int64_t m = a->x.shape[0], row = (head->n_out + 7) / 8 * 8, step = rows_of_tile(m, row);
    void *memory;
    VL_TRY(vl_cuda_scratch(cuda, (size_t)(step * row) * sizeof(float), &memory, err));
    for (int64_t first = 0; first < m; first += step) {
        vl_cuda_loss_tile tile;
        tile.logits = (float *)memory, tile.row = row, tile.v = head->n_out, tile.first = first;
        tile.rows = m - first < step ? m - first : step, tile.gradient = head->product;
        VL_TRY(tile_loss(cuda, a, &tile, err));
    }
    return VL_OK;
}
