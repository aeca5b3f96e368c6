#include "trainer/hf/processor.h"

#include <math.h>
#include <string.h>

const vl_normalise vl_normalise_clip = {.do_rescale = true,
                                        .do_normalize = true,
                                        .rescale_factor = 1.0 / 255,
                                        .mean = {0.48145466, 0.4578275, 0.40821073}, /* OPENAI_CLIP_MEAN */
                                        .std = {0.26862954, 0.26130258, 0.27577711}};
const vl_normalise vl_normalise_half = {.do_rescale = true,
                                        .do_normalize = true,
                                        .rescale_factor = 1.0 / 255,
                                        .mean = {0.5, 0.5, 0.5}, /* IMAGENET_STANDARD_MEAN */
                                        .std = {0.5, 0.5, 0.5}};

static vl_status read_kernel(vl_processor *out, const vl_hf_reader *in)
{
    const char *name = "";
    VL_TRY(vl_hf_key_string(&name, in, "image_processor_type"));
    const size_t n = strlen(name);
    const bool pillow = n > 3 && strcmp(name + n - 3, "Pil") == 0;
    out->kernel = pillow ? VL_RESIZE_PILLOW : VL_RESIZE_TORCH;
    out->normalise.order = pillow ? VL_NORMALISE_STEPS : VL_NORMALISE_FUSED;
    return VL_OK;
}

static vl_status read_normalise(vl_normalise *out, const vl_hf_reader *in)
{
    VL_TRY(vl_hf_key_bool(&out->do_rescale, in, "do_rescale"));
    VL_TRY(vl_hf_key_bool(&out->do_normalize, in, "do_normalize"));
    VL_TRY(vl_hf_key_double(&out->rescale_factor, in, "rescale_factor", 1e-12, 1e12));
    VL_TRY(vl_hf_key_channels(out->mean, in, "image_mean"));
    VL_TRY(vl_hf_key_channels(out->std, in, "image_std"));
    for (int c = 0; c < 3; c++)
        if (!isfinite((float)out->mean[c]) || !isfinite(1 / (float)out->std[c]))
            return vl_fail(in->err, VL_EFORMAT,
                           "%s: \"image_mean\" %g, \"image_std\" %g: expected finite numbers, and no division by 0",
                           in->where, out->mean[c], out->std[c]);
    return VL_OK;
}

/* A number is both sides. */
static vl_status read_size(vl_processor *out, const vl_hf_reader *in)
{
    vl_hf_section size;
    if (json_is_integer(json_object_get(in->object, "size"))) {
        VL_TRY(vl_hf_key_int(&out->size.height, in, "size", 1, VL_PROCESSOR_MAX_SIDE));
        out->size.width = out->size.height;
        return VL_OK;
    }
    VL_TRY(vl_hf_section_open(&size, in, "size"));
    VL_TRY(vl_hf_key_int(&out->size.height, &size.reader, "height", 1, VL_PROCESSOR_MAX_SIDE));
    VL_TRY(vl_hf_key_int(&out->size.width, &size.reader, "width", 1, VL_PROCESSOR_MAX_SIDE));
    VL_TRY(vl_hf_key_int(&out->shortest_edge, &size.reader, "shortest_edge", 1, INT32_MAX));
    return vl_hf_key_int(&out->longest_edge, &size.reader, "longest_edge", 1, INT32_MAX);
}

vl_status vl_processor_read(vl_processor *out, const vl_hf_reader *in)
{
    int resample = (int)out->resample;
    if (!in->object) /* needed by pictures only, but a directory without it is not whole */
        return vl_fail(in->err, VL_EIO, "%s: no such file", in->where);
    VL_TRY(read_kernel(out, in));
    VL_TRY(vl_hf_key_int(&resample, in, "resample", 0, VL_RESAMPLE_HAMMING));
    if (resample == 0)
        return vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"resample\" is 0 (nearest); supported: 1 to 5", in->where);
    out->resample = (vl_resample)resample;
    VL_TRY(vl_hf_key_only_bool(in, "do_resize", true));
    VL_TRY(read_normalise(&out->normalise, in));
    return read_size(out, in);
}
