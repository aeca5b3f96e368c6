#include "trainer/image/bitmap.h"

#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/image/image.h"

void vl_bitmap_clear(vl_bitmap *bitmap)
{
    if (!bitmap)
        return;
    vl_free(bitmap->rgb);
    *bitmap = (vl_bitmap){0};
}

static vl_status allocate(vl_bitmap *out, vl_size size, vl_error *err)
{
    *out = (vl_bitmap){0};
    if (size.height < 1 || size.width < 1)
        return vl_fail(err, VL_EINVAL, "a picture of %d x %d pixels", size.width, size.height);
    if ((int64_t)size.height * size.width > VL_IMAGE_MAX_PIXELS)
        return vl_fail(err, VL_EFORMAT, "a picture would become %d x %d pixels, more than the limit of %lld",
                       size.width, size.height, (long long)VL_IMAGE_MAX_PIXELS);
    out->rgb = vl_alloc((size_t)size.height * (size_t)size.width, 3);
    if (!out->rgb)
        return vl_fail_nomem(err, "a picture");
    out->size = size;
    return VL_OK;
}

vl_status vl_bitmap_new(vl_bitmap *out, vl_size size, const uint8_t rgb[3], vl_error *err)
{
    VL_TRY(allocate(out, size, err));
    const size_t n = (size_t)size.height * (size_t)size.width;
    for (size_t i = 0; i < n; i++)
        memcpy(out->rgb + 3 * i, rgb, 3);
    return VL_OK;
}

vl_status vl_bitmap_resize(vl_bitmap *out, const vl_bitmap *from, vl_size size, vl_resample filter,
                           vl_resize_kernel kernel, vl_error *err)
{
    VL_TRY(allocate(out, size, err));
    const vl_resize_args args = {.rgb = from->rgb,
                                 .width = from->size.width,
                                 .height = from->size.height,
                                 .new_width = size.width,
                                 .new_height = size.height,
                                 .w = size.width,
                                 .h = size.height,
                                 .filter = filter};
    vl_status status =
        kernel == VL_RESIZE_TORCH ? vl_resize_torch(out->rgb, &args, err) : vl_resize(out->rgb, &args, err);
    if (status != VL_OK)
        vl_bitmap_clear(out);
    return status;
}

vl_status vl_bitmap_crop(vl_bitmap *out, const vl_bitmap *from, int top, int left, vl_size size, vl_error *err)
{
    *out = (vl_bitmap){0};
    if (top < 0 || left < 0 || top >= from->size.height || left >= from->size.width)
        return vl_fail(err, VL_EINVAL, "a crop at %d, %d of a picture of %d x %d pixels", left, top, from->size.width,
                       from->size.height);
    if (size.height > from->size.height - top)
        size.height = from->size.height - top;
    if (size.width > from->size.width - left)
        size.width = from->size.width - left;
    VL_TRY(allocate(out, size, err));
    const size_t row = 3 * (size_t)size.width, stride = 3 * (size_t)from->size.width;
    for (int y = 0; y < size.height; y++)
        memcpy(out->rgb + (size_t)y * row, from->rgb + (size_t)(top + y) * stride + 3 * (size_t)left, row);
    return VL_OK;
}

vl_status vl_bitmap_center(vl_bitmap *out, const vl_bitmap *from, vl_size canvas, const uint8_t rgb[3], vl_error *err)
{
    *out = (vl_bitmap){0};
    if (from->size.height > canvas.height || from->size.width > canvas.width)
        return vl_fail(err, VL_EINVAL, "a picture of %d x %d pixels on a canvas of %d x %d", from->size.width,
                       from->size.height, canvas.width, canvas.height);
    VL_TRY(vl_bitmap_new(out, canvas, rgb, err));
    const int top = (canvas.height - from->size.height) / 2, left = (canvas.width - from->size.width) / 2;
    const size_t row = 3 * (size_t)from->size.width, stride = 3 * (size_t)canvas.width;
    for (int y = 0; y < from->size.height; y++)
        memcpy(out->rgb + (size_t)(top + y) * stride + 3 * (size_t)left, from->rgb + (size_t)y * row, row);
    return VL_OK;
}
