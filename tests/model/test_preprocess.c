/* Resizing and preprocessing, against Pillow and transformers 4.46.3. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <glob.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/hf/preprocess.h"
#include "trainer/model/families/mllama/mllama.h"
#include "trainer/hf/safetensors.h"
#include "tests/image/image_samples.h"
#include "tests/support/temp_folder.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define GOLDEN       VLENS_SOURCE_DIR "/tests/golden/fixtures/"

/* The picture of make_image_samples.py. */
static vl_image make_picture(int width, int height)
{
    vl_image image = {.width = width, .height = height, .rgb = vl_alloc((size_t)width * (size_t)height, 3)};
    uint8_t *p = image.rgb;
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++) {
            for (int c = 0; c < 3; c++)
                *p++ = (uint8_t)((x / 3 + y / 2) % 3 ? x * x * 7 + y * 31 + c * 85 + x * y : 255 * (c == x % 3));
        }
    }
    return image;
}

static void assert_sha256(const uint8_t *rgb, size_t size, const char *expected)
{
    char hex[VL_SHA256_HEX];
    uint8_t digest[VL_SHA256_BYTES];
    vl_sha256 hash;
    vl_sha256_init(&hash);
    vl_sha256_update(&hash, rgb, size);
    vl_sha256_final(&hash, digest);
    vl_sha256_hex(digest, hex);
    assert_string_equal(hex, expected);
}

/* ---- resize ---- */

static void resize_equals_pillow(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(RESIZES); i++) {
        const struct resize_sample *s = &RESIZES[i];
        vl_image image = make_picture(s->width, s->height);
        const int w = s->new_width, h = s->new_height;
        const size_t size = 3 * (size_t)w * (size_t)h;
        uint8_t *out = vl_alloc(size, 1);
        vl_resize_args args = {image.rgb, s->width, s->height, w, h, 0, 0, w, h, (vl_resample)s->filter};
        assert_int_equal(vl_resize(out, &args, NULL), VL_OK);
        assert_sha256(out, size, s->rgb);
        vl_image_clear(&image);
        vl_free(out);
    }
}

static void a_part_equals_the_crop_of_the_whole(void **state)
{
    (void)state;
    enum { W = 37, H = 23 };
    static const int sizes[][2] = {{90, 61}, {37, 61}, {90, 23}, {37, 23}, {11, 200}};
    static uint8_t whole[W * H * 3], part[W * H * 3];
    for (size_t i = 0; i < COUNT(sizes); i++) {
        vl_image image = make_picture(sizes[i][0], sizes[i][1]);
        vl_resize_args args = {image.rgb, image.width, image.height, W, H, 0, 0, W, H, VL_RESAMPLE_BICUBIC};
        assert_int_equal(vl_resize(whole, &args, NULL), VL_OK);
        args.x = 9, args.y = 4, args.w = 20, args.h = 11;
        assert_int_equal(vl_resize(part, &args, NULL), VL_OK);
        for (int y = 0; y < args.h; y++)
            assert_memory_equal(part + y * args.w * 3, whole + ((y + args.y) * W + args.x) * 3, 3 * (size_t)args.w);
        vl_image_clear(&image);
    }
}

static void wrong_sizes_are_refused(void **state)
{
    (void)state;
    uint8_t rgb[12] = {0}, out[12];
    vl_error err = VL_ERROR_INIT;
    vl_resize_args args = {rgb, 2, 2, 2, 2, 1, 0, 2, 2, VL_RESAMPLE_BOX};
    assert_int_equal(vl_resize(out, &args, &err), VL_EINVAL);
    args = (vl_resize_args){rgb, 2, 2, 0, 2, 0, 0, 0, 2, VL_RESAMPLE_BOX};
    assert_int_equal(vl_resize(out, &args, &err), VL_EINVAL);
    args = (vl_resize_args){rgb, 2, 2, 2, 2, 0, 0, 2, 2, (vl_resample)0};
    assert_int_equal(vl_resize(out, &args, &err), VL_EUNSUPPORTED);
}

/* ---- preprocessor_config.json ---- */

static bool tiled; /* what was read last cuts tiles */

/* As a family does: the one whose processor has max_image_tiles, or the other. */
static vl_status read_file(vl_preprocess *pp, const char *path, vl_error *err)
{
    static const char *const clip[] = {"CLIPImageProcessor", "CLIPFeatureExtractor", NULL};
    json_t *root = NULL;
    vl_status status = vl_json_read(&root, path, 1 << 20, err);
    const vl_hf_reader in = {root, path, err};
    tiled = json_object_get(root, "max_image_tiles") != NULL;
    *pp = vl_preprocess_clip_defaults;
    if (status == VL_OK && tiled)
        status = vl_mllama_read_preprocess(pp, &in);
    else if (status == VL_OK)
        status = vl_preprocess_check_class(&in, clip);
    if (status == VL_OK && !tiled)
        status = vl_preprocess_read_clip(pp, &in);
    json_decref(root);
    return status;
}

static vl_status read_text(void **state, vl_preprocess *pp, const char *text, vl_error *err)
{
    char path[TEMP_PATH_SIZE];
    temp_text(*state, "preprocessor_config.json", text);
    return read_file(pp, temp_path(path, *state, "preprocessor_config.json"), err);
}

static void omitted_keys_have_the_defaults_of_the_class(void **state)
{
    vl_preprocess pp;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(read_text(state, &pp, "{\"feature_extractor_type\": \"CLIPFeatureExtractor\"}", &err), VL_OK);
    assert_true(!tiled && pp.do_resize && pp.do_center_crop && pp.do_rescale && pp.do_normalize);
    assert_true(pp.shortest_edge == 224 && pp.crop_height == 224 && pp.crop_width == 224);
    assert_true(pp.resample == VL_RESAMPLE_BICUBIC && pp.rescale_factor == 1 / 255.0);
    assert_true(pp.mean[0] == 0.48145466 && pp.std[2] == 0.27577711);
    assert_int_equal(read_text(state, &pp, "{\"max_image_tiles\": 6}", &err), VL_OK); /* no class named */
    assert_true(tiled && pp.max_image_tiles == 6 && pp.height == 224 && pp.width == 224);
    assert_true(pp.resample == VL_RESAMPLE_BILINEAR && pp.mean[1] == 0.5 && pp.std[1] == 0.5 && pp.do_pad);
}

static void sizes_are_numbers_or_objects(void **state)
{
    vl_preprocess pp;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(read_text(state, &pp, "{\"size\": 336, \"crop_size\": 300, \"image_mean\": 0.5}", &err), VL_OK);
    assert_true(pp.shortest_edge == 336 && pp.crop_height == 300 && pp.crop_width == 300 && pp.mean[2] == 0.5);
    assert_int_equal(read_text(state, &pp,
                               "{\"size\": {\"height\": 30, \"width\": 40}, \"resample\": 2, "
                               "\"crop_size\": {\"height\": 7, \"width\": 8}, \"do_rescale\": false}",
                               &err),
                     VL_OK);
    assert_true(pp.shortest_edge == 0 && pp.height == 30 && pp.width == 40 && pp.resample == VL_RESAMPLE_BILINEAR);
    assert_true(pp.crop_height == 7 && pp.crop_width == 8 && !pp.do_rescale);
}

static void bad_configs_are_refused(void **state)
{
    static const struct {
        const char *text;
        vl_status status;
        const char *part;
    } cases[] = {
        {"{\"image_processor_type\": \"SiglipImageProcessor\"}", VL_EUNSUPPORTED, "\"SiglipImageProcessor\""},
        {"{\"image_processor_type\": 3}", VL_EFORMAT, "image_processor_type"},
        {"{\"size\": 0}", VL_EFORMAT, "\"size\" is 0"},
        {"{\"size\": {\"height\": 3}}", VL_EFORMAT, "\"width\""},
        {"{\"size\": {\"longest_edge\": 3}}", VL_EFORMAT, "\"height\""},
        {"{\"size\": \"big\"}", VL_EFORMAT, "\"size\""},
        {"{\"crop_size\": 1000000}", VL_EFORMAT, "\"crop_size\""},
        {"{\"resample\": 0}", VL_EFORMAT, "\"resample\" is 0"},
        {"{\"image_mean\": [1, 2]}", VL_EFORMAT, "\"image_mean\""},
        {"{\"image_std\": [1, 0, 1]}", VL_EFORMAT, "\"image_std\""},
        {"{\"do_resize\": 1}", VL_EFORMAT, "\"do_resize\""},
        {"{\"do_pad\": true}", VL_EUNSUPPORTED, "\"do_pad\""},
        {"{\"max_image_tiles\": 0}", VL_EFORMAT, "\"max_image_tiles\" is 0"},
        {"{\"max_image_tiles\": 4, \"do_pad\": false}", VL_EUNSUPPORTED, "\"do_pad\""},
        {"{\"max_image_tiles\": 4, \"size\": {\"height\": 3, \"width\": 4}}", VL_EFORMAT, "expected squares"},
        {"{\"max_image_tiles\": 64, \"size\": 16384}", VL_EFORMAT, "more than the limit"},
    };
    vl_preprocess pp;
    vl_error err = VL_ERROR_INIT;
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_int_equal(read_text(state, &pp, cases[i].text, &err), cases[i].status);
        if (!strstr(err.message, cases[i].part))
            fail_msg("expected %s in: %s", cases[i].part, err.message);
    }
    assert_int_equal(read_file(&pp, VLENS_SOURCE_DIR "/no-such.json", &err), VL_EIO);
}

/* ---- CLIP ---- */

static vl_preprocess clip_of(int edge, int crop_height, int crop_width)
{
    return (vl_preprocess){.do_resize = edge > 0,
                           .do_center_crop = true,
                           .do_rescale = true,
                           .do_normalize = true,
                           .shortest_edge = edge,
                           .crop_height = crop_height,
                           .crop_width = crop_width,
                           .resample = VL_RESAMPLE_BICUBIC,
                           .rescale_factor = 0.00392156862745098,
                           .mean = {0.48145466, 0.4578275, 0.40821073},
                           .std = {0.26862954, 0.26130258, 0.27577711}};
}

static void clip_equals_transformers(void **state)
{
    (void)state;
    static const char *const names[] = {"scene", "wide", "tall", "small", "square", "alpha", "gray", "palette"};
    static const int settings[][3] = {{28, 28, 28}, {40, 32, 32}, {31, 24, 30}};
    static const char *const suffixes[] = {"e28c28", "e40c32", "e31c24x30"};
    static float out[3 * 32 * 32];
    vl_safetensors *file;
    assert_int_equal(vl_safetensors_open(&file, GOLDEN "preprocess.safetensors", NULL), VL_OK);
    for (size_t i = 0; i < COUNT(names) * COUNT(settings); i++) {
        const char *name = names[i / 3];
        const int *s = settings[i % 3];
        char path[512], key[64];
        vl_image image;
        vl_error err = VL_ERROR_INIT;
        const vl_preprocess pp = clip_of(s[0], s[1], s[2]);
        const vl_image_options options = vl_preprocess_image_options(&pp, false);
        snprintf(path, sizeof path, GOLDEN "images/%s.png", name);
        assert_int_equal(vl_image_open(&image, path, &options, &err), VL_OK);
        snprintf(key, sizeof key, "%s.rgb", name);
        const vl_weight_view *rgb = vl_safetensors_find(file, key);
        assert_int_equal(rgb->bytes, 3 * image.width * image.height);
        assert_memory_equal(rgb->data, image.rgb, rgb->bytes);
        snprintf(key, sizeof key, "%s.%s", name, suffixes[i % 3]);
        const vl_weight_view *expected = vl_safetensors_find(file, key);
        assert_int_equal(expected->bytes, 3 * s[1] * s[2] * (int)sizeof(float));
        assert_int_equal(vl_preprocess_clip(out, NULL, &pp, &image, &err), VL_OK);
        if (memcmp(out, expected->data, expected->bytes) != 0)
            fail_msg("%s differs", key);
        vl_image_clear(&image);
    }
    vl_safetensors_close(file);
}

/* center_crop pads what is missing: ceil of the half at the left and top. */
static void a_small_picture_is_padded(void **state)
{
    (void)state;
    uint8_t rgb[3 * 6 * 3];
    float out[3 * 6 * 4];
    memset(rgb, 255, sizeof rgb);
    const vl_image image = {.width = 3, .height = 6, .rgb = rgb}; /* 3 wide into 6: 2 left, 1 right; 6 high into 4 */
    const vl_preprocess pp = clip_of(0, 4, 6);
    vl_box box;
    assert_int_equal(vl_preprocess_clip(out, NULL, &pp, &image, NULL), VL_OK);
    for (int c = 0; c < 3; c++) {
        const float mean = (float)pp.mean[c], std = (float)pp.std[c];
        for (int i = 0; i < 24; i++) {
            const float white = i % 6 >= 2 && i % 6 < 5 ? 1.0f : 0.0f;
            assert_true(out[c * 24 + i] == (white - mean) / std);
        }
    }
    assert_int_equal(vl_preprocess_clip_box(&box, &pp, 3, 6, NULL), VL_OK);
    assert_true(box.x0 == -2 && box.x1 == 4 && box.y0 == 1 && box.y1 == 5);
}

static void clip_boxes_are_in_the_picture(void **state)
{
    (void)state;
    const vl_preprocess pp = clip_of(336, 336, 336);
    vl_clip_plan plan;
    vl_box box;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_preprocess_clip_plan(&plan, &pp, 640, 427, &err), VL_OK);
    assert_true(plan.resized_width == 503 && plan.resized_height == 336 && plan.left == 83 && plan.top == 0);
    assert_int_equal(vl_preprocess_clip_box(&box, &pp, 640, 427, &err), VL_OK);
    assert_true(box.y0 == 0 && fabs(box.y1 - 427) < 1e-9);
    assert_true(fabs(box.x0 - 83 * 640 / 503.0) < 1e-9 && fabs(box.x1 - (83 + 336) * 640 / 503.0) < 1e-9);
    /* A picture so long that only a part of it may be resized. */
    vl_image image = make_picture(60000, 1);
    float *out = vl_alloc(3 * 336 * 336, sizeof *out);
    assert_int_equal(vl_preprocess_clip(out, NULL, &pp, &image, &err), VL_OK);
    vl_image_clear(&image);
    vl_free(out);
    vl_preprocess whole = pp;
    whole.do_center_crop = false;
    assert_int_equal(vl_preprocess_clip_plan(&plan, &whole, 60000, 1, &err), VL_EFORMAT);
    assert_int_equal(vl_preprocess_clip_plan(&plan, &pp, 16000000, 1, &err), VL_EFORMAT);
}

/* ---- Mllama ---- */

static void canvases_equal_the_reference(void **state)
{
    (void)state;
    /* From the method of MllamaImageProcessor: tiles, side, width, height -> id, tiles high, tiles wide, resized. */
    static const int cases[][9] = {
        {4, 560, 560, 560, 1, 1, 1, 560, 560},     {4, 560, 561, 560, 2, 1, 2, 561, 560},
        {4, 560, 560, 561, 5, 2, 1, 560, 561},     {4, 560, 1, 1, 1, 1, 1, 560, 560},
        {4, 560, 100, 90, 1, 1, 1, 560, 503},      {4, 560, 1120, 1120, 6, 2, 2, 1120, 1120},
        {4, 560, 1121, 1120, 6, 2, 2, 1120, 1119}, {4, 560, 2240, 560, 4, 1, 4, 2240, 560},
        {4, 560, 560, 2240, 8, 4, 1, 560, 2240},   {4, 560, 640, 480, 2, 1, 2, 640, 480},
        {4, 560, 480, 640, 5, 2, 1, 480, 640},     {4, 560, 4000, 3000, 6, 2, 2, 1120, 840},
        {4, 560, 3000, 4000, 6, 2, 2, 840, 1120},  {4, 560, 5000, 100, 4, 1, 4, 2240, 44},
        {4, 560, 1680, 560, 3, 1, 3, 1680, 560},   {4, 560, 1600, 500, 3, 1, 3, 1600, 500},
        {4, 560, 565, 1700, 8, 4, 1, 560, 1684},   {4, 560, 300, 1000, 5, 2, 1, 300, 1000},
        {4, 560, 4000, 1, 4, 1, 4, 2240, 1},       {6, 56, 200, 100, 9, 2, 3, 168, 84},
        {6, 56, 57, 300, 14, 6, 1, 56, 294},       {6, 56, 111, 113, 11, 3, 2, 111, 113},
        {6, 56, 400, 10, 6, 1, 6, 336, 8},         {6, 56, 169, 112, 9, 2, 3, 168, 111},
        {1, 448, 640, 480, 1, 1, 1, 448, 336},     {1, 448, 30, 40, 1, 1, 1, 336, 448},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const int *c = cases[i];
        const vl_preprocess pp = {.max_image_tiles = c[0], .height = c[1], .width = c[1]};
        const vl_mllama_plan p = vl_mllama_make_plan(&pp, c[2], c[3]);
        const int found[] = {p.aspect_ratio_id, p.tiles_high, p.tiles_wide, p.resized_width, p.resized_height};
        if (memcmp(found, c + 4, sizeof found) != 0)
            fail_msg("%d x %d in %d tiles of %d: id %d (%d x %d), resized to %d x %d", c[2], c[3], c[0], c[1], found[0],
                     found[1], found[2], found[3], found[4]);
    }
}

static void tiles_are_cut_and_padded(void **state)
{
    (void)state;
    enum { T = 14, TILES = 6 };
    static float out[TILES * 3 * T * T];
    static uint8_t resized[3 * TILES * T * TILES * T];
    vl_preprocess pp = clip_of(0, 0, 0);
    pp.max_image_tiles = TILES;
    pp.height = pp.width = T;
    pp.resample = VL_RESAMPLE_BILINEAR;
    vl_image image = make_picture(50, 31);
    vl_mllama_plan plan;
    assert_int_equal(vl_mllama_pixels(out, NULL, &pp, &image, NULL), VL_OK);
    plan = vl_mllama_make_plan(&pp, image.width, image.height);
    assert_true(plan.tiles_high == 2 && plan.tiles_wide == 3 && plan.resized_width == 42 && plan.resized_height == 26);
    vl_resize_args args = {image.rgb, 50, 31, 42, 26, 0, 0, 42, 26, VL_RESAMPLE_BILINEAR};
    assert_int_equal(vl_resize(resized, &args, NULL), VL_OK);
    for (int i = 0; i < TILES * 3 * T * T; i++) {
        const int tile = i / (3 * T * T), c = i / (T * T) % 3;
        const int y = tile / 3 * T + i / T % T, x = tile % 3 * T + i % T;
        const int byte = x < 42 && y < 26 ? resized[3 * (y * 42 + x) + c] : 0;
        assert_true(out[i] == ((float)(byte * pp.rescale_factor) - (float)pp.mean[c]) / (float)pp.std[c]);
    }
    const vl_box box = vl_mllama_box(&plan, 4, 50, 31);
    assert_true(fabs(box.x0 - 14 * 50 / 42.0) < 1e-9 && fabs(box.y1 - 28 * 31 / 26.0) < 1e-9);
    vl_image_clear(&image);

    image = make_picture(10, 9); /* one tile: the other five are exactly 0 */
    assert_int_equal(vl_mllama_pixels(out, NULL, &pp, &image, NULL), VL_OK);
    plan = vl_mllama_make_plan(&pp, image.width, image.height);
    assert_int_equal(plan.tiles_high * plan.tiles_wide, 1);
    for (int i = 3 * T * T; i < TILES * 3 * T * T; i++)
        assert_true(out[i] == 0);
    vl_image_clear(&image);
}

/* ---- goldens of whole models ---- */

static void compare_golden(const char *shared, const vl_safetensors *file, const char *image_name, size_t at)
{
    char path[1024];
    vl_preprocess pp;
    vl_image image;
    vl_error err = VL_ERROR_INIT;
    const vl_weight_view *pixels = vl_safetensors_find(file, "pixel_values");
    const char *exif = vl_safetensors_metadata(file, "exif_transpose");
    snprintf(path, sizeof path, "%s/tiny/%s/preprocessor_config.json", shared,
             vl_safetensors_metadata(file, "model_dir"));
    if (read_file(&pp, path, &err) != VL_OK)
        fail_msg("%s", err.message);
    const vl_image_options options = vl_preprocess_image_options(&pp, strcmp(exif, "True") == 0);
    snprintf(path, sizeof path, "%s/images/%s", shared, image_name);
    assert_int_equal(vl_image_open(&image, path, &options, &err), VL_OK);
    const size_t count = pixels->bytes / (size_t)pixels->shape[0];
    float *out = vl_alloc(count, 1);
    if (!tiled) {
        assert_int_equal(count, 3 * pp.crop_height * pp.crop_width * (int)sizeof(float));
        assert_int_equal(vl_preprocess_clip(out, NULL, &pp, &image, &err), VL_OK);
    } else {
        vl_mllama_plan plan;
        int64_t id, mask[VL_WEIGHT_MAX_DIMS * 8];
        assert_int_equal(count, pp.max_image_tiles * 3 * pp.height * pp.width * (int)sizeof(float));
        assert_int_equal(vl_mllama_pixels(out, NULL, &pp, &image, &err), VL_OK);
        plan = vl_mllama_make_plan(&pp, image.width, image.height);
        memcpy(&id, vl_safetensors_find(file, "aspect_ratio_ids")->data + 8 * at, 8);
        assert_int_equal(id, plan.aspect_ratio_id);
        const size_t tiles = (size_t)pp.max_image_tiles;
        memcpy(mask, vl_safetensors_find(file, "aspect_ratio_mask")->data + 8 * at * tiles, 8 * tiles);
        for (int i = 0; i < pp.max_image_tiles; i++)
            assert_int_equal(mask[i], i < plan.tiles_high * plan.tiles_wide);
    }
    if (memcmp(out, pixels->data + at * count, count) != 0)
        fail_msg("%s: pixel values of %s differ", vl_safetensors_path(file), image_name);
    vl_free(out);
    vl_image_clear(&image);
}

static void shared_goldens_are_equal(void **state)
{
    (void)state;
    const char *shared = getenv("VLENS_SHARED_DATA");
    if (!shared) {
        print_message("VLENS_SHARED_DATA is not set: no comparison with the shared goldens\n");
        skip();
    }
    char pattern[512];
    glob_t found;
    size_t compared = 0;
    snprintf(pattern, sizeof pattern, "%s/goldens/*.safetensors", shared);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        vl_safetensors *file;
        assert_int_equal(vl_safetensors_open(&file, found.gl_pathv[i], NULL), VL_OK);
        const char *text = vl_safetensors_metadata(file, "images");
        json_t *images = json_loads(text ? text : "[]", 0, NULL);
        for (size_t k = 0; k < json_array_size(images); k++, compared++)
            compare_golden(shared, file, json_string_value(json_array_get(images, k)), k);
        json_decref(images);
        vl_safetensors_close(file);
    }
    globfree(&found);
    print_message("  the pixel values of %zu pictures equal those of transformers in every bit\n", compared);
    assert_true(compared > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resize_equals_pillow),          cmocka_unit_test(a_part_equals_the_crop_of_the_whole),
        cmocka_unit_test(wrong_sizes_are_refused),       cmocka_unit_test(omitted_keys_have_the_defaults_of_the_class),
        cmocka_unit_test(sizes_are_numbers_or_objects),  cmocka_unit_test(bad_configs_are_refused),
        cmocka_unit_test(clip_equals_transformers),      cmocka_unit_test(a_small_picture_is_padded),
        cmocka_unit_test(clip_boxes_are_in_the_picture), cmocka_unit_test(canvases_equal_the_reference),
        cmocka_unit_test(tiles_are_cut_and_padded),      cmocka_unit_test(shared_goldens_are_equal),
    };
    return cmocka_run_group_tests(tests, temp_setup, temp_teardown);
}
