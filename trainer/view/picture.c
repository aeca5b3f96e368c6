#include "trainer/view/picture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/cache/open.h"
#include "trainer/config/settings.h"
#include "trainer/hf/preprocess.h"
#include "trainer/model/encode.h"
#include "trainer/model/family.h"

/* Shown larger than this, a picture would be most of the page's bytes. */
enum { LONGEST_SIDE = 448, DEFAULT_SIDE = 336 };

void vl_pictures_clear(vl_pictures *pictures)
{
    for (int i = 0; i < pictures->n; i++) {
        vl_free(pictures->items[i].rgb);
        vl_free(pictures->items[i].tiles);
    }
    vl_free(pictures->items);
    *pictures = (vl_pictures){0};
}

vl_status vl_picture_set_tiles(vl_picture *picture, int n_tiles, vl_error *err)
{
    vl_free(picture->tiles);
    picture->n_tiles = 0;
    picture->tiles = vl_calloc((size_t)n_tiles, sizeof *picture->tiles);
    if (!picture->tiles)
        return vl_fail_nomem(err, "tiles of a picture");
    picture->n_tiles = n_tiles;
    for (int i = 0; i < n_tiles; i++)
        picture->tiles[i] = (vl_picture_tile){.width = 1, .height = 1};
    return VL_OK;
}

static vl_status pictures_alloc(vl_pictures *out, int n, vl_error *err)
{
    *out = (vl_pictures){0};
    if (n <= 0)
        return VL_OK;
    out->items = vl_calloc((size_t)n, sizeof *out->items);
    if (!out->items)
        return vl_fail_nomem(err, "pictures");
    out->n = n;
    return VL_OK;
}

static vl_status shrink(vl_picture *p, vl_resample resample, vl_error *err)
{
    int longest = p->width > p->height ? p->width : p->height;
    if (longest <= LONGEST_SIDE)
        return VL_OK;
    int w = p->width * LONGEST_SIDE / longest, h = p->height * LONGEST_SIDE / longest;
    w = w > 0 ? w : 1;
    h = h > 0 ? h : 1;
    uint8_t *small = vl_alloc((size_t)w * (size_t)h, 3);
    if (!small)
        return vl_fail_nomem(err, "picture");
    vl_status status =
        vl_resize(small, &(vl_resize_args){p->rgb, p->width, p->height, w, h, 0, 0, w, h, resample}, err);
    if (status != VL_OK) {
        vl_free(small);
        return status;
    }
    vl_free(p->rgb);
    p->rgb = small;
    p->width = w;
    p->height = h;
    return VL_OK;
}

/* How many different edges the grids begin at, along one side. */
static int count_starts(const struct vl_sequence_image *image, bool down)
{
    int n = 0;
    for (int i = 0; i < image->n_grids; i++) {
        bool first = true;
        for (int k = 0; k < i && first; k++)
            first = down ? image->grids[k].y0 != image->grids[i].y0 : image->grids[k].x0 != image->grids[i].x0;
        n += first;
    }
    return n;
}

/* Where tiles are seen through cross-attention: their canvas, and how much of it the picture covers. */
static void set_tiles(vl_picture *out, const struct vl_sequence_image *image)
{
    double right = 0, bottom = 0;
    for (int i = 0; i < image->n_grids; i++) {
        right = fmax(right, image->grids[i].x1);
        bottom = fmax(bottom, image->grids[i].y1);
    }
    out->tiles_high = count_starts(image, true);
    out->tiles_wide = count_starts(image, false);
    out->cover_width = image->width / right;
    out->cover_height = image->height / bottom;
}

/* From what the model saw. */
static vl_status from_image(vl_picture *out, const vl_model_spec *spec, const struct vl_sequence_image *image,
                            vl_error *err)
{
    size_t bytes = 3 * (size_t)image->seen_width * (size_t)image->seen_height;
    if (spec->vision.path == VL_VISION_CROSS)
        set_tiles(out, image);
    out->width = image->seen_width;
    out->height = image->seen_height;
    out->rgb = vl_alloc(bytes, 1);
    if (!out->rgb)
        return vl_fail_nomem(err, "picture");
    memcpy(out->rgb, image->seen, bytes);
    return shrink(out, spec->preprocess.resample, err);
}

/* The grids of rows in the stream, as parts of what is shown: the rectangle that all of them cover. */
static vl_status set_grids(vl_picture *out, const struct vl_sequence_image *image, vl_error *err)
{
    double left = INFINITY, top = INFINITY, right = -INFINITY, bottom = -INFINITY;
    if (image->n_grids == 0)
        return VL_OK;
    VL_TRY(vl_picture_set_tiles(out, image->n_grids, err));
    for (int i = 0; i < image->n_grids; i++) {
        left = fmin(left, image->grids[i].x0);
        top = fmin(top, image->grids[i].y0);
        right = fmax(right, image->grids[i].x1);
        bottom = fmax(bottom, image->grids[i].y1);
    }
    for (int i = 0; i < image->n_grids; i++) {
        const vl_image_grid *grid = &image->grids[i];
        out->tiles[i] = (vl_picture_tile){.rows = grid->rows,
                                          .columns = grid->columns,
                                          .left = (grid->x0 - left) / (right - left),
                                          .top = (grid->y0 - top) / (bottom - top),
                                          .width = (grid->x1 - grid->x0) / (right - left),
                                          .height = (grid->y1 - grid->y0) / (bottom - top)};
    }
    return VL_OK;
}

vl_status vl_pictures_from_sequence(vl_pictures *out, const vl_model *model, const vl_sequence *sequence, vl_error *err)
{
    VL_TRY(pictures_alloc(out, sequence->n_images, err));
    for (int i = 0; i < out->n; i++) {
        vl_picture *p = &out->items[i];
        p->image = i;
        if (model->spec.vision.path == VL_VISION_IN_STREAM)
            VL_TRY(set_grids(p, &sequence->images[i], err));
        VL_TRY(from_image(p, &model->spec, &sequence->images[i], err));
    }
    return VL_OK;
}

/* ---- from the files that a cache names --------------------------------------------------------------------- */

/* Where the description of the model is not there any more: the middle square, as most processors cut it. */
static vl_status assume(struct vl_sequence_image *out, const vl_model_spec *spec, const vl_image *image, vl_error *err)
{
    int side = spec->preprocess.crop_width;
    vl_status status = vl_image_set_pixels(out, 3 * (int64_t)side * side, err);
    out->width = image->width;
    out->height = image->height;
    if (status == VL_OK)
        status = vl_image_set_seen(out, side, side, err);
    return status == VL_OK ? vl_preprocess_clip(out->pixels, out->seen, &spec->preprocess, image, err) : status;
}

static vl_status open_assumed(struct vl_sequence_image *out, const vl_model_spec *spec, const char *path, bool exif,
                              vl_error *err)
{
    vl_image image = {0};
    vl_image_options options = {.apply_exif = exif, .max_pixels = VL_PROMPT_MAX_PIXELS};
    VL_TRY(vl_image_open(&image, path, &options, err));
    memcpy(out->sha256, image.sha256, sizeof out->sha256);
    vl_status status = assume(out, spec, &image, err);
    vl_image_clear(&image);
    return status;
}

static vl_status open_picture(vl_picture *out, const vl_model_spec *spec, const char *path, const char *sha256,
                              bool exif, vl_error *err)
{
    struct vl_sequence_image image = {0};
    const vl_picture_options how = {.ignore_exif = !exif};
    vl_status status =
        spec->family ? vl_picture_open(&image, spec, path, &how, err) : open_assumed(&image, spec, path, exif, err);
    if (status == VL_OK && sha256 && sha256[0] && strcmp(sha256, image.sha256) != 0)
        status = vl_fail(err, VL_EMISMATCH, "%.160s changed since the cache was made", path);
    if (status == VL_OK)
        status = from_image(out, spec, &image, err);
    if (status == VL_OK && spec->family && spec->vision.path == VL_VISION_IN_STREAM)
        status = set_grids(out, &image, err);
    vl_image_release(&image);
    return status;
}

static void load(vl_picture *out, const vl_model_spec *spec, const char *path, const char *sha256, bool exif)
{
    vl_error err = VL_ERROR_INIT;
    if (open_picture(out, spec, path, sha256, exif, &err) == VL_OK)
        return;
    snprintf(out->note, sizeof out->note, "the picture is not shown: %.200s", err.message);
    vl_free(out->rgb);
    out->rgb = NULL;
    out->width = out->height = DEFAULT_SIDE;
}

/* False: the preprocessing is assumed, and spec->family is NULL. */
static bool find_spec(vl_model_spec *out, const char *model_id)
{
    vl_error err = VL_ERROR_INIT;
    if (model_id[0] && vl_model_spec_read(out, model_id, &err) == VL_OK && out->family->pixels)
        return true;
    vl_model_spec_clear(out);
    *out = (vl_model_spec){.preprocess = vl_preprocess_clip_defaults};
    out->preprocess.do_rescale = out->preprocess.do_normalize = false;
    out->preprocess.shortest_edge = out->preprocess.crop_height = out->preprocess.crop_width = DEFAULT_SIDE;
    return false;
}

/* The grids that the patches of a whole cache span, each over all of the picture: one sample may have kept a few of
 * them only. Stands until the model's own description says how they lie. */
static vl_status find_grids(vl_picture *out, const vl_cache *cache, vl_error *err)
{
    const vl_cache_tokens *tokens = vl_cache_get_tokens(cache);
    int64_t rows = vl_cache_get_info(cache)->n_tokens;
    int n_tiles = 0;
    for (int64_t i = 0; tokens->patch && i < rows; i++)
        if (tokens->token_class[i] == VL_IMAGE && tokens->patch[i][1] >= 0 && tokens->patch[i][0] >= n_tiles)
            n_tiles = tokens->patch[i][0] + 1;
    if (!n_tiles)
        return VL_OK;
    VL_TRY(vl_picture_set_tiles(out, n_tiles, err));
    for (int64_t i = 0; i < rows; i++) {
        const int16_t *patch = tokens->patch[i];
        if (tokens->token_class[i] != VL_IMAGE || patch[0] < 0)
            continue;
        vl_picture_tile *tile = &out->tiles[patch[0]];
        tile->rows = patch[1] >= tile->rows ? patch[1] + 1 : tile->rows;
        tile->columns = patch[2] >= tile->columns ? patch[2] + 1 : tile->columns;
    }
    for (int i = 0; i < n_tiles; i++) { /* of which nothing was kept */
        out->tiles[i].rows = out->tiles[i].rows ? out->tiles[i].rows : 1;
        out->tiles[i].columns = out->tiles[i].columns ? out->tiles[i].columns : 1;
    }
    return VL_OK;
}

/* Whether the cache turned its pictures by their EXIF orientation: what is shown is what the model saw. */
static bool turns_pictures(const vl_cache *cache)
{
    char *exif = cache->meta.settings ? vl_settings_find(cache->meta.settings, "data.exif") : NULL;
    bool turns = !exif || strcmp(exif, "false") != 0;
    vl_free(exif);
    return turns;
}

vl_status vl_pictures_from_cache(vl_pictures *out, const vl_cache *cache, int64_t sample, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    const vl_cache_samples *samples = vl_cache_get_samples(cache);
    int n = 0;
    for (int64_t i = 0; i < info->n_images; i++)
        n += samples->image_sample[i] == sample;
    VL_TRY(pictures_alloc(out, n, err));
    vl_status status = VL_OK;
    vl_model_spec *spec = vl_calloc(1, sizeof *spec); /* too large for a stack */
    if (!spec)
        return vl_fail_nomem(err, "pictures");
    bool known = n > 0 && find_spec(spec, info->model_id);
    n = 0;
    for (int64_t i = 0; i < info->n_images; i++) {
        if (samples->image_sample[i] != sample)
            continue;
        vl_picture *p = &out->items[n++];
        p->image = (int32_t)i;
        VL_GOTO(find_grids(p, cache, err));
        load(p, spec, samples->image_path[i], samples->image_sha256 ? samples->image_sha256[i] : NULL,
             turns_pictures(cache));
        if (p->rgb && !known)
            snprintf(p->note, sizeof p->note,
                     "%.120s has no preprocessor_config.json: the crop (the middle square)%s is assumed",
                     info->model_id, p->n_tiles > 1 ? ", and that every tile is the whole picture," : "");
    }
done:
    vl_model_spec_clear(spec);
    vl_free(spec);
    return status;
}
