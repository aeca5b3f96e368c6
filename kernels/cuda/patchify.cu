/* Cutting a picture into patches.
 *
 * With kernel == stride the patches do not overlap, so that a patch convolution is this copy and one product: nothing
 * is stored twice, and a convolution library has nothing to save. */
#include "kernels/cuda/context.h"

typedef struct patch_view {
    float *out;
    const float *pixels;
    int64_t out_row, pixel_row, patches;
    int channels, height, patch, across; /* across: patches in a row of the picture */
} patch_view;

static __global__ void cut(patch_view v)
{
    int area = v.patch * v.patch, n = v.channels * area;
    for (int64_t i = blockIdx.y; i < v.patches; i += gridDim.y) {
        int top = (int)(i / v.across) * v.patch, left = (int)(i % v.across) * v.patch;
        for (int j = (int)(blockIdx.x * blockDim.x + threadIdx.x); j < n; j += (int)(gridDim.x * blockDim.x)) {
            int channel = j / area, y = j % area / v.patch, x = j % v.patch;
            v.out[i * v.out_row + j] = v.pixels[((int64_t)channel * v.height + top + y) * v.pixel_row + left + x];
        }
    }
}

vl_status vl_cuda_patchify(void *context, const vl_patchify_args *a, vl_error *err)
{
    vl_cuda *cuda = (vl_cuda *)context;
    patch_view v;
    v.out = (float *)a->out.data, v.pixels = (const float *)a->pixels.data;
    v.out_row = a->out.row_stride, v.pixel_row = a->pixels.row_stride, v.patches = a->out.shape[0];
    v.channels = a->channels, v.height = a->height, v.patch = a->patch, v.across = a->width / a->patch;
    if (v.patches == 0)
        return VL_OK;
    vl_cuda_grid g = vl_cuda_grid_of(v.patches, 4 * a->out.shape[1]);
    VL_LAUNCH(cut, g.grid, g.block, 0, cuda->stream, v);
    return vl_cuda_check(cudaGetLastError(), "patchify", err);
}
