/* image/image_webp.c - WebP by libwebp with its default settings, as Pillow does (WebPImagePlugin: the animation
 * decoder, which for one picture is the plain one): the pixels are the same. Of an animation Pillow gives the first
 * frame; here it is refused. */
#include "trainer/base/mem.h"
#include "trainer/image/image_decode.h"

#ifdef VLENS_WEBP

#include <webp/decode.h>

vl_status vl_decode_webp(vl_pixels *out, const vl_image_bytes *bytes, vl_error *err)
{
    WebPBitstreamFeatures features;
    VP8StatusCode code = WebPGetFeatures(bytes->data, bytes->size, &features);
    if (code != VP8_STATUS_OK)
        return vl_fail(err, VL_EFORMAT, "%s: damaged WebP: %s", bytes->name,
                       code == VP8_STATUS_NOT_ENOUGH_DATA ? "the file ends in its header" : "no valid header");
    if (features.has_animation)
        return vl_fail(err, VL_EUNSUPPORTED,
                       "%s: an animated WebP is not supported; its first frame: webpmux -get frame 1 %s -o first.webp",
                       bytes->name, bytes->name);
    VL_TRY(vl_image_check_size(bytes, features.width, features.height, err));
    int channels = features.has_alpha ? 4 : 3, stride = features.width * channels;
    size_t size = (size_t)stride * (size_t)features.height;
    out->data = vl_alloc(size, 1);
    if (!out->data)
        return vl_fail_nomem(err, bytes->name);
    const uint8_t *decoded = features.has_alpha ? WebPDecodeRGBAInto(bytes->data, bytes->size, out->data, size, stride)
                                                : WebPDecodeRGBInto(bytes->data, bytes->size, out->data, size, stride);
    out->width = features.width;
    out->height = features.height;
    out->channels = channels;
    return decoded ? VL_OK : vl_fail(err, VL_EFORMAT, "%s: damaged WebP: it cannot be decoded to its end", bytes->name);
}

#else

vl_status vl_decode_webp(vl_pixels *out, const vl_image_bytes *bytes, vl_error *err)
{
    (void)out;
    return vl_fail(err, VL_EUNSUPPORTED,
                   "%s: this vlens was built without WebP (libwebp-dev): dwebp '%s' -o X.png, or build it anew",
                   bytes->name, bytes->name);
}

#endif
