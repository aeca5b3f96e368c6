/* A picture keeps its aspect, to a whole number of blocks of patches; the decoder sees one row a block. */
#include "trainer/image/sizes.h"
#include "trainer/model/families/qwen_vl/qwen_vl.h"

#define IMAGE "<|image_pad|>"

/* "min_pixels" and "max_pixels" come before size.shortest_edge and size.longest_edge, which are areas too. */
vl_status vl_qwen_read_pictures(vl_qwen_own *out, const vl_hf_reader *in)
{
    out->processor = (vl_processor){.resample = VL_RESAMPLE_BICUBIC,
                                    .shortest_edge = 56 * 56,
                                    .longest_edge = 28 * 28 * 1280,
                                    .normalise = vl_normalise_clip};
    out->patchify = (vl_patchify){.patch = 14, .merge = 2, .frames = 2};
    VL_TRY(vl_processor_read(&out->processor, in));
    out->min_pixels = out->processor.shortest_edge;
    out->max_pixels = out->processor.longest_edge;
    VL_TRY(vl_hf_key_int(&out->min_pixels, in, "min_pixels", 1, INT32_MAX));
    VL_TRY(vl_hf_key_int(&out->max_pixels, in, "max_pixels", 1, INT32_MAX));
    VL_TRY(vl_hf_key_int(&out->patchify.patch, in, "patch_size", 1, 256));
    VL_TRY(vl_hf_key_int(&out->patchify.merge, in, "merge_size", 1, 16));
    VL_TRY(vl_hf_key_int(&out->patchify.frames, in, "temporal_patch_size", 1, 16));
    if (out->min_pixels > out->max_pixels)
        return vl_fail(in->err, VL_EFORMAT, "%s: pictures of at least %d and at most %d pixels", in->where,
                       out->min_pixels, out->max_pixels);
    return VL_OK;
}

static vl_status resized(vl_size *out, const vl_qwen_own *own, int width, int height, vl_error *err)
{
    return vl_smart_resize(out, (vl_size){height, width}, own->patchify.patch * own->patchify.merge, own->min_pixels,
                           own->max_pixels, err);
}

vl_status vl_qwen_measure(struct vl_sequence_image *out, const vl_model_spec *spec, int width, int height,
                          vl_error *err)
{
    const vl_qwen_own *own = spec->own;
    const int block = own->patchify.patch * own->patchify.merge;
    vl_size size;
    VL_TRY(resized(&size, own, width, height, err));
    VL_TRY(vl_image_set_grids(out, 1, err));
    const vl_size blocks = {size.height / block, size.width / block};
    vl_image_put_grid(out, 0, blocks, (vl_box){0, 0, width, height});
    out->n_tiles = 1;
    out->n_rows = (int64_t)blocks.height * blocks.width;
    return VL_OK;
}

vl_status vl_qwen_pixels(struct vl_sequence_image *out, const vl_model_spec *spec, const vl_image *image, vl_error *err)
{
    const vl_qwen_own *own = spec->own;
    const vl_bitmap original = vl_bitmap_of(image);
    vl_bitmap bitmap = {0};
    vl_value_table table;
    vl_size size;
    vl_status status = VL_OK;
    VL_TRY(resized(&size, own, image->width, image->height, err));
    const int64_t values = 3 * (int64_t)own->patchify.frames * size.height * size.width;
    if (values > VL_IMAGE_MAX_VALUES)
        return vl_fail(err, VL_EFORMAT, "a picture would become %d x %d pixels", size.width, size.height);
    VL_TRY(vl_image_set_pixels(out, values, err));
    VL_GOTO(vl_bitmap_resize(&bitmap, &original, size, own->processor.resample, own->processor.kernel, err));
    vl_value_table_make(table, &own->processor.normalise);
    vl_pixels_patches(out->pixels, &bitmap, &own->patchify, table);
    VL_GOTO(vl_image_set_seen_bitmap(out, &bitmap, err));
done:
    vl_bitmap_clear(&bitmap);
    return status;
}

static void expand(vl_str *out, const vl_model_spec *spec, const struct vl_sequence_image *image)
{
    (void)spec;
    vl_str_repeat(out, IMAGE, image->n_rows);
}

vl_status vl_qwen_wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt,
                       const struct vl_sequence_image *images, vl_error *err)
{
    static const vl_placeholder how = {.text = IMAGE, .expand = expand};
    return vl_wrap_pictures(out, model, prompt, images, &how, err);
}

/* get_rope_index: a text row has one number in all axes and the next row the following one. The rows of a picture stand
 * at (c, c + row, c + column) of its merged grid, and what follows goes on at c + max(rows, columns), not at
 * c + rows * columns. */
vl_status vl_qwen_place(vl_sequence *sequence, const vl_model_spec *spec, vl_error *err)
{
    int32_t next = 0;
    VL_TRY(vl_place_rows(sequence, spec, 0, err));
    for (int64_t t = 0; t < sequence->n_tokens;) {
        const int32_t image = sequence->image[t];
        if (image < 0) {
            for (int axis = 0; axis < 3; axis++)
                sequence->position[t][axis] = next;
            next++;
            t++;
            continue;
        }
        const vl_image_grid *grid = &sequence->images[image].grids[0];
        for (; t < sequence->n_tokens && sequence->image[t] == image; t++) {
            sequence->position[t][0] = next;
            sequence->position[t][1] = next + sequence->patch[t][1];
            sequence->position[t][2] = next + sequence->patch[t][2];
        }
        next += grid->rows > grid->columns ? grid->rows : grid->columns;
    }
    return VL_OK;
}
