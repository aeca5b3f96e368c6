/* A picture keeps its aspect, to a whole number of blocks of patches; the decoder sees one row a block. */
#include "trainer/model/families/qwen_vl/qwen_vl.h"

#include <string.h>

#include "trainer/base/json.h"
#include "trainer/image/sizes.h"

/* "min_pixels" and "max_pixels" come before size.shortest_edge and size.longest_edge, which are areas too. */
static vl_status read_areas(vl_qwen_pictures *out, vl_error *err)
{
    const vl_processor *p = &out->processor;
    out->min_pixels = p->shortest_edge;
    out->max_pixels = p->longest_edge;
    VL_TRY(vl_json_int(&out->min_pixels, p->image, "min_pixels", 1, INT32_MAX, p->image_path, err));
    VL_TRY(vl_json_int(&out->max_pixels, p->image, "max_pixels", 1, INT32_MAX, p->image_path, err));
    if (out->min_pixels > out->max_pixels)
        return vl_fail(err, VL_EFORMAT, "%s: pictures of at least %lld and at most %lld pixels", p->image_path,
                       (long long)out->min_pixels, (long long)out->max_pixels);
    return VL_OK;
}

vl_status vl_qwen_pictures_read(vl_qwen_pictures *out, const char *directory, vl_error *err)
{
    static const vl_processor defaults = {
        .resample = VL_RESAMPLE_BICUBIC,
        .do_resize = true,
        .shortest_edge = 56 * 56,
        .longest_edge = 28 * 28 * 1280,
        .normalise = {.do_rescale = true,
                      .do_normalize = true,
                      .rescale_factor = 1.0 / 255,
                      .mean = {0.48145466, 0.4578275, 0.40821073}, /* OPENAI_CLIP_MEAN, OPENAI_CLIP_STD */
                      .std = {0.26862954, 0.26130258, 0.27577711}},
    };
    *out = (vl_qwen_pictures){.patchify = {.patch = 14, .merge = 2, .frames = 2}};
    VL_TRY(vl_processor_open(&out->processor, directory, &defaults, err));
    const vl_processor *p = &out->processor;
    VL_TRY(vl_processor_image_int(&out->patchify.patch, p, "patch_size", 256, err));
    VL_TRY(vl_processor_image_int(&out->patchify.merge, p, "merge_size", 16, err));
    VL_TRY(vl_processor_image_int(&out->patchify.frames, p, "temporal_patch_size", 16, err));
    return read_areas(out, err);
}

static vl_status plan(vl_picture *out, const void *settings, int n_pictures, vl_error *err)
{
    const vl_qwen_pictures *s = settings;
    const int patch = s->patchify.patch, merge = s->patchify.merge;
    (void)n_pictures;
    VL_TRY(vl_smart_resize(&out->tile, out->original, patch * merge, s->min_pixels, s->max_pixels, err));
    out->grid = (vl_size){out->tile.height / patch, out->tile.width / patch};
    out->n_tiles = 1;
    const vl_size merged = {out->grid.height / merge, out->grid.width / merge};
    return vl_picture_add_grid(out, 0, merged, vl_box_whole(out->original), err);
}

static vl_status pixels(vl_picture *out, const void *settings, const vl_bitmap *bitmap, vl_error *err)
{
    const vl_qwen_pictures *s = settings;
    vl_bitmap resized;
    vl_value_table table;
    VL_TRY(vl_picture_alloc_pixels(out, s->patchify.frames, err));
    VL_TRY(vl_bitmap_resize(&resized, bitmap, out->tile, s->processor.resample, s->processor.kernel, err));
    vl_value_table_make(table, &s->processor.normalise);
    vl_pixels_patches(out->pixels, &resized, &s->patchify, table);
    vl_bitmap_clear(&resized);
    return VL_OK;
}

static void expand(vl_str *out, const void *settings, const vl_picture *picture)
{
    (void)settings;
    vl_str_repeat(out, "<|image_pad|>", picture->n_rows);
}

const vl_picture_rules vl_qwen_rules = {"<|image_pad|>", plan, pixels, expand};
