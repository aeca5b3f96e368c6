/* Resizing with torchvision's weights, and the sizes, canvases and grids of processors, against torchvision and
 * transformers; the primitives between bytes and pixel values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"
#include "trainer/image/pixels.h"
#include "trainer/image/sizes.h"
#include "tests/image/torch_samples.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* The picture of make_torch_samples.py. */
static vl_bitmap make_picture(vl_size size)
{
    static const uint8_t black[3];
    vl_bitmap out;
    assert_int_equal(vl_bitmap_new(&out, size, black, NULL), VL_OK);
    uint8_t *p = out.rgb;
    for (int y = 0; y < size.height; y++)
        for (int x = 0; x < size.width; x++)
            for (int c = 0; c < 3; c++)
                *p++ = (uint8_t)((x / 3 + y / 2) % 3 ? x * x * 7 + y * 31 + c * 85 + x * y : 255 * (c == x % 3));
    return out;
}

static void resize_with_sixteen_bits_equals_torchvision(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(TORCH_RESIZES); i++) {
        const struct torch_resize *s = &TORCH_RESIZES[i];
        char hex[VL_SHA256_HEX];
        uint8_t digest[VL_SHA256_BYTES];
        vl_sha256 hash;
        vl_bitmap from = make_picture((vl_size){s->height, s->width}), to;
        const vl_size size = {s->new_height, s->new_width};
        assert_int_equal(vl_bitmap_resize(&to, &from, size, (vl_resample)s->filter, VL_RESIZE_TORCH, NULL), VL_OK);
        vl_sha256_init(&hash);
        vl_sha256_update(&hash, to.rgb, 3 * (size_t)size.height * (size_t)size.width);
        vl_sha256_final(&hash, digest);
        vl_sha256_hex(digest, hex);
        assert_string_equal(hex, s->rgb);
        vl_bitmap_clear(&from);
        vl_bitmap_clear(&to);
    }
}

/* The weights of a part are those of the whole axis: fewer bits where the largest weight lies outside the part. */
static void a_part_has_the_weights_of_the_whole(void **state)
{
    (void)state;
    enum { W = 37, H = 23 };
    static uint8_t part[W * H * 3];
    vl_bitmap from = make_picture((vl_size){61, 90}), whole;
    assert_int_equal(vl_bitmap_resize(&whole, &from, (vl_size){H, W}, VL_RESAMPLE_LANCZOS, VL_RESIZE_TORCH, NULL),
                     VL_OK);
    const vl_resize_args args = {from.rgb, 90, 61, W, H, 9, 4, 20, 11, VL_RESAMPLE_LANCZOS};
    assert_int_equal(vl_resize_torch(part, &args, NULL), VL_OK);
    for (int y = 0; y < args.h; y++)
        assert_memory_equal(part + y * args.w * 3, whole.rgb + ((y + args.y) * W + args.x) * 3, 3 * (size_t)args.w);
    vl_bitmap_clear(&from);
    vl_bitmap_clear(&whole);
}

static void expect(const char *what, vl_size picture, vl_size found, vl_size expected)
{
    if (found.height != expected.height || found.width != expected.width)
        fail_msg("%s of %d x %d (height x width) is %d x %d, expected %d x %d", what, picture.height, picture.width,
                 found.height, found.width, expected.height, expected.width);
}

static void smart_resize_equals_transformers(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    vl_size out;
    for (size_t i = 0; i < COUNT(SMART); i++) {
        const struct smart_sample *s = &SMART[i];
        const vl_size picture = {s->height, s->width};
        assert_int_equal(vl_smart_resize(&out, picture, s->factor, s->min_pixels, s->max_pixels, &err), VL_OK);
        expect("smart_resize", picture, out, (vl_size){s->out_height, s->out_width});
    }
    /* 70 / 28 = 2.5 goes to 2, as Python rounds */
    assert_int_equal(vl_smart_resize(&out, (vl_size){70, 70}, 28, 1, 1 << 24, &err), VL_OK);
    expect("smart_resize", (vl_size){70, 70}, out, (vl_size){56, 56});
    assert_int_equal(vl_smart_resize(&out, (vl_size){1, 201}, 28, 1, 1 << 24, &err), VL_EINVAL);
    assert_int_equal(vl_smart_resize(&out, (vl_size){1, 200}, 28, 1, 1 << 24, &err), VL_OK);
}

static void canvases_and_cuts_equal_transformers(void **state)
{
    (void)state;
    static const vl_size next[] = {{336, 672}, {672, 336}, {672, 672}, {1008, 336}, {336, 1008}};
    vl_size onevision[36];
    for (int i = 0; i < 36; i++)
        onevision[i] = (vl_size){384 * (i / 6 + 1), 384 * (i % 6 + 1)};
    for (size_t i = 0; i < COUNT(ANYRES); i++) {
        const struct anyres_sample *s = &ANYRES[i];
        const vl_size picture = {s->height, s->width}, *list = s->list ? onevision : next;
        const int best = vl_best_resolution(picture, list, s->list ? 36 : 5), tile = s->list ? 384 : 336;
        const int g = s->list ? 27 : 24;
        assert_int_equal(best, s->best);
        expect("fit_inside", picture, vl_fit_inside(picture, list[best]), (vl_size){s->fitted_height, s->fitted_width});
        const vl_size map = {list[best].height / tile * g, list[best].width / tile * g};
        expect("unpad_cut", picture, vl_unpad_cut(picture, map), (vl_size){s->cut_height, s->cut_width});
    }
}

static void grids_of_tiles_equal_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(TILED); i++) {
        const struct tiled_sample *s = &TILED[i];
        const vl_size picture = {s->height, s->width};
        expect("tiled_grid", picture, vl_tiled_grid(picture, s->tile, s->min_tiles, s->max_tiles),
               (vl_size){s->rows, s->columns});
    }
    for (size_t i = 0; i < COUNT(IDEFICS3); i++) {
        const struct idefics3_sample *s = &IDEFICS3[i];
        const vl_size picture = {s->height, s->width}, first = {s->first_height, s->first_width};
        expect("idefics3_resize", picture, vl_idefics3_resize(picture, s->longest), first);
        expect("idefics3_tiled", first, vl_idefics3_tiled(first, s->tile),
               (vl_size){s->second_height, s->second_width});
    }
    for (size_t i = 0; i < COUNT(PAN); i++) {
        const struct pan_sample *s = &PAN[i];
        const vl_size picture = {s->height, s->width};
        const vl_pan_and_scan settings = {s->crop, s->most, s->ratio_10 / 10.0};
        expect("pan_and_scan_grid", picture, vl_pan_and_scan_grid(picture, &settings), (vl_size){s->rows, s->columns});
    }
}

/* Both orders on (byte / 255 - 0.5) / 0.25, and where they part: 1 / 255 is no binary number. */
static void the_orders_of_normalisation_differ_in_the_last_bit(void **state)
{
    (void)state;
    vl_normalise settings = {.do_rescale = true,
                             .do_normalize = true,
                             .rescale_factor = 1.0 / 255,
                             .mean = {0.48145466, 0.4578275, 0.40821073},
                             .std = {0.26862954, 0.26130258, 0.27577711}};
    vl_value_table steps, fused;
    int differ = 0;
    vl_value_table_make(steps, &settings);
    settings.order = VL_NORMALISE_FUSED;
    vl_value_table_make(fused, &settings);
    for (int c = 0; c < 3; c++) {
        for (int byte = 0; byte < 256; byte++) {
            const float mean = (float)settings.mean[c], std = (float)settings.std[c];
            const float scaled = (float)(byte * (1.0 / 255)), fused_mean = mean * 255.0F, fused_std = std * 255.0F;
            assert_true(steps[c][byte] == (scaled - mean) / std);
            assert_true(fused[c][byte] == ((float)byte - fused_mean) / fused_std);
            differ += steps[c][byte] != fused[c][byte];
        }
    }
    assert_in_range(differ, 200, 600);
}

static void patches_stand_in_merge_block_order(void **state)
{
    (void)state;
    static const int expected[8][2] = {{0, 0}, {0, 1}, {1, 0}, {1, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}};
    for (int i = 0; i < 16; i++) {
        const vl_size at = vl_merge_block_patch(i, 4, 2);
        assert_int_equal(at.height, expected[i % 8][0] + 2 * (i / 8));
        assert_int_equal(at.width, expected[i % 8][1]);
    }
    /* 4 x 8 pixels, patches of 2: [channel, frame, y, x], the picture twice */
    vl_bitmap picture = make_picture((vl_size){4, 8});
    const vl_patchify how = {.patch = 2, .merge = 2, .frames = 2};
    const vl_normalise plain = {.rescale_factor = 1};
    vl_value_table table;
    float out[8 * 24];
    vl_value_table_make(table, &plain);
    vl_pixels_patches(out, &picture, &how, table);
    for (int n = 0; n < 8; n++)
        for (int c = 0; c < 3; c++)
            for (int frame = 0; frame < 2; frame++)
                for (int k = 0; k < 4; k++) {
                    const int y = 2 * expected[n][0] + k / 2, x = 2 * expected[n][1] + k % 2;
                    assert_true(out[((n * 3 + c) * 2 + frame) * 4 + k] == picture.rgb[(y * 8 + x) * 3 + c]);
                }
    vl_bitmap_clear(&picture);
}

static void crops_and_canvases_keep_every_byte(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    static const uint8_t fill[3] = {1, 2, 3};
    vl_bitmap picture = make_picture((vl_size){5, 7}), crop, canvas;
    assert_int_equal(vl_bitmap_crop(&crop, &picture, 3, 4, (vl_size){9, 9}, &err), VL_OK);
    expect("crop", picture.size, crop.size, (vl_size){2, 3});
    assert_memory_equal(crop.rgb, picture.rgb + (3 * 7 + 4) * 3, 9);
    /* an odd pixel goes to the right and the bottom */
    assert_int_equal(vl_bitmap_center(&canvas, &picture, (vl_size){8, 10}, fill, &err), VL_OK);
    for (int y = 0; y < 8; y++)
        for (int x = 0; x < 10; x++) {
            const bool inside = y >= 1 && y < 6 && x >= 1 && x < 8;
            const uint8_t *expected = inside ? picture.rgb + ((y - 1) * 7 + x - 1) * 3 : fill;
            assert_memory_equal(canvas.rgb + (y * 10 + x) * 3, expected, 3);
        }
    vl_bitmap_clear(&crop);
    vl_bitmap_clear(&canvas);
    assert_int_equal(vl_bitmap_crop(&crop, &picture, 5, 0, (vl_size){1, 1}, &err), VL_EINVAL);
    assert_int_equal(vl_bitmap_center(&canvas, &picture, (vl_size){4, 10}, fill, &err), VL_EINVAL);
    assert_null(canvas.rgb);
    vl_bitmap_clear(&picture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resize_with_sixteen_bits_equals_torchvision),
        cmocka_unit_test(a_part_has_the_weights_of_the_whole),
        cmocka_unit_test(smart_resize_equals_transformers),
        cmocka_unit_test(canvases_and_cuts_equal_transformers),
        cmocka_unit_test(grids_of_tiles_equal_transformers),
        cmocka_unit_test(the_orders_of_normalisation_differ_in_the_last_bit),
        cmocka_unit_test(patches_stand_in_merge_block_order),
        cmocka_unit_test(crops_and_canvases_keep_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
