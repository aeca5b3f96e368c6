#include "trainer/view/picture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/cache/open.h"
#include "trainer/config/settings.h"
#include "trainer/hf/preprocess.h"
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

/* ---- pixel values back to bytes ---------------------------------------------------------------------------- */

/* A rectangle of a plane-by-plane array of pixel values, and where it lands in a picture. */
typedef struct patchwork {
    const float *pixels; /* [3, height, width] */
    int width, height;
    int left, top;
} patchwork;

static void put_bytes(vl_picture *out, const vl_preprocess *pp, const patchwork *part)
{
    const size_t plane = (size_t)part->width * (size_t)part->height;
    for (int y = 0; y < part->height && part->top + y < out->height; y++)
        for (int x = 0; x < part->width && part->left + x < out->width; x++)
            for (size_t c = 0; c < 3; c++) {
                double v = (double)part->pixels[c * plane + (size_t)y * (size_t)part->width + (size_t)x];
                v = pp->do_normalize ? v * pp->std[c] + pp->mean[c] : v;
                v = pp->do_rescale ? v / pp->rescale_factor : v;
                size_t at = (size_t)(part->top + y) * (size_t)out->width + (size_t)(part->left + x);
                out->rgb[3 * at + c] = (uint8_t)lrint(fmin(fmax(v, 0), 255));
            }
}

static vl_status shrink(vl_picture *p, const vl_preprocess *pp, vl_error *err)
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
        vl_resize(small, &(vl_resize_args){p->rgb, p->width, p->height, w, h, 0, 0, w, h, pp->resample}, err);
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

/* pixels: what the preprocessing of a picture of that size gave. */
static vl_status from_pixels(vl_picture *out, const vl_preprocess *pp, const float *pixels, int width, int height,
                             vl_error *err)
{
    vl_clip_plan clip = {0};
    vl_mllama_plan tiles = {0};
    bool tiled = pp->kind == VL_PREPROCESS_MLLAMA;
    if (tiled)
        tiles = vl_preprocess_mllama_plan(pp, width, height);
    else
        VL_TRY(vl_preprocess_clip_plan(&clip, pp, width, height, err));
    out->width = tiled ? tiles.resized_width : clip.width;
    out->height = tiled ? tiles.resized_height : clip.height;
    if (tiled) {
        out->tiles_high = tiles.tiles_high;
        out->tiles_wide = tiles.tiles_wide;
        out->cover_width = (double)tiles.resized_width / (tiles.tiles_wide * tiles.tile);
        out->cover_height = (double)tiles.resized_height / (tiles.tiles_high * tiles.tile);
    }
    out->rgb = vl_calloc((size_t)out->width * (size_t)out->height, 3);
    if (!out->rgb)
        return vl_fail_nomem(err, "picture");
    if (!tiled)
        put_bytes(out, pp, &(patchwork){pixels, clip.width, clip.height, 0, 0});
    for (int i = 0; tiled && i < tiles.tiles_high * tiles.tiles_wide; i++)
        put_bytes(out, pp,
                  &(patchwork){pixels + (size_t)i * 3 * (size_t)tiles.tile * (size_t)tiles.tile, tiles.tile, tiles.tile,
                               i % tiles.tiles_wide * tiles.tile, i / tiles.tiles_wide * tiles.tile});
    return shrink(out, pp, err);
}

vl_status vl_pictures_from_sequence(vl_pictures *out, const vl_model *model, const vl_sequence *sequence, vl_error *err)
{
    const vl_model_info *info = vl_model_get_info(model);
    VL_TRY(pictures_alloc(out, sequence->n_images, err));
    for (int i = 0; i < out->n; i++) {
        vl_picture *p = &out->items[i];
        p->image = i;
        if (info->patches_in_stream) {
            VL_TRY(vl_picture_set_tiles(p, 1, err));
            p->tiles[0].rows = info->patch_rows;
            p->tiles[0].columns = info->patch_columns;
        }
        VL_TRY(from_pixels(p, &model->preprocess, sequence->images[i].pixels, sequence->images[i].width,
                           sequence->images[i].height, err));
    }
    return VL_OK;
}

/* ---- from the files that a cache names --------------------------------------------------------------------- */

static vl_status prepare(vl_picture *out, const vl_preprocess *pp, const vl_image *image, vl_error *err)
{
    vl_clip_plan plan = {0};
    size_t values = 0;
    if (pp->kind == VL_PREPROCESS_CLIP) {
        VL_TRY(vl_preprocess_clip_plan(&plan, pp, image->width, image->height, err));
        values = 3 * (size_t)plan.width * (size_t)plan.height;
    } else {
        values = 3 * (size_t)pp->max_image_tiles * (size_t)pp->height * (size_t)pp->height;
    }
    float *pixels = vl_alloc(values, sizeof *pixels);
    if (!pixels)
        return vl_fail_nomem(err, "picture");
    vl_status status = pp->kind == VL_PREPROCESS_CLIP ? vl_preprocess_clip(pixels, pp, image, err)
                                                      : vl_preprocess_mllama(pixels, NULL, pp, image, err);
    if (status == VL_OK)
        status = from_pixels(out, pp, pixels, image->width, image->height, err);
    vl_free(pixels);
    return status;
}

static vl_status open_picture(vl_picture *out, const vl_preprocess *pp, const char *path, const char *sha256, bool exif,
                              vl_error *err)
{
    vl_image image = {0};
    vl_image_options options = vl_preprocess_image_options(pp, exif);
    options.max_pixels = VL_PROMPT_MAX_PIXELS;
    VL_TRY(vl_image_open(&image, path, &options, err));
    vl_status status = VL_OK;
    if (sha256 && sha256[0] && strcmp(sha256, image.sha256) != 0)
        status = vl_fail(err, VL_EMISMATCH, "%.160s changed since the cache was made", path);
    else
        status = prepare(out, pp, &image, err);
    vl_image_clear(&image);
    return status;
}

static void load(vl_picture *out, const vl_preprocess *pp, const char *path, const char *sha256, bool exif)
{
    vl_error err = VL_ERROR_INIT;
    if (open_picture(out, pp, path, sha256, exif, &err) == VL_OK)
        return;
    snprintf(out->note, sizeof out->note, "the picture is not shown: %.200s", err.message);
    vl_free(out->rgb);
    out->rgb = NULL;
    out->width = out->height = DEFAULT_SIDE;
}

/* False: the preprocessing is assumed. */
static bool find_preprocess(vl_preprocess *out, const char *model_id)
{
    vl_error err = VL_ERROR_INIT;
    char *path = vl_path_join(model_id, "preprocessor_config.json");
    bool found = path && model_id[0] && vl_preprocess_read(out, path, &err) == VL_OK;
    vl_free(path);
    if (!found)
        *out = (vl_preprocess){.kind = VL_PREPROCESS_CLIP,
                               .do_resize = true,
                               .do_center_crop = true,
                               .shortest_edge = DEFAULT_SIDE,
                               .crop_height = DEFAULT_SIDE,
                               .crop_width = DEFAULT_SIDE,
                               .resample = VL_RESAMPLE_BICUBIC};
    return found;
}

/* The grid that the patches of a whole cache span: one sample may have kept a few of them only. */
static vl_status find_grid(vl_picture *out, const vl_cache *cache, vl_error *err)
{
    const vl_cache_tokens *tokens = vl_cache_get_tokens(cache);
    int64_t n = vl_cache_get_info(cache)->n_tokens;
    vl_picture_tile grid = {.width = 1, .height = 1};
    for (int64_t i = 0; tokens->patch && i < n; i++) {
        if (tokens->token_class[i] != VL_IMAGE)
            continue;
        grid.rows = tokens->patch[i][1] >= grid.rows ? tokens->patch[i][1] + 1 : grid.rows;
        grid.columns = tokens->patch[i][2] >= grid.columns ? tokens->patch[i][2] + 1 : grid.columns;
    }
    if (!grid.rows || !grid.columns)
        return VL_OK;
    VL_TRY(vl_picture_set_tiles(out, 1, err));
    out->tiles[0] = grid;
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
    vl_preprocess pp;
    int n = 0;
    for (int64_t i = 0; i < info->n_images; i++)
        n += samples->image_sample[i] == sample;
    VL_TRY(pictures_alloc(out, n, err));
    bool known = n > 0 && find_preprocess(&pp, info->model_id);
    n = 0;
    for (int64_t i = 0; i < info->n_images; i++) {
        if (samples->image_sample[i] != sample)
            continue;
        vl_picture *p = &out->items[n++];
        p->image = (int32_t)i;
        VL_TRY(find_grid(p, cache, err));
        load(p, &pp, samples->image_path[i], samples->image_sha256 ? samples->image_sha256[i] : NULL,
             turns_pictures(cache));
        if (p->rgb && !known)
            snprintf(p->note, sizeof p->note,
                     "%.120s has no preprocessor_config.json: the crop (the middle square) is assumed", info->model_id);
    }
    return VL_OK;
}
