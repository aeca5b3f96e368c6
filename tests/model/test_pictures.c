/* From pictures to pixel values, rows and positions: every vision family against transformers 5.24, bit for bit.
 *
 * The goldens lie in tests/golden/vision and, where VLENS_SHARED_DATA points to it, in families/ there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vlens/tokenizer.h>

#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/hf/safetensors.h"
#include "trainer/model/families/gemma3/gemma3.h"
#include "trainer/model/families/idefics3/idefics3.h"
#include "trainer/model/families/internvl/internvl.h"
#include "trainer/model/families/llava_next/llava_next.h"
#include "trainer/model/families/llava_onevision/llava_onevision.h"
#include "trainer/model/families/qwen_vl/qwen_vl.h"
#include "trainer/model/mrope.h"

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        vl_error err = VL_ERROR_INIT;                                                                                  \
        if ((call) != VL_OK)                                                                                           \
            fail_msg("%s: %s", #call, err.message);                                                                    \
    } while (0)

enum { PATH = 512, PICTURES = 4 };

/* One golden: its settings, its pictures, its tensors. */
typedef struct subject {
    char folder[PATH], images[PATH];
    vl_safetensors *golden;
    json_t *config, *names, *changes;
    union {
        vl_idefics3_pictures idefics3;
        vl_gemma3_pictures gemma3;
        vl_qwen_pictures qwen;
        vl_anyres anyres;
        vl_internvl_pictures internvl;
    } settings;
    vl_processor *processor;
    const vl_picture_rules *rules;
    vl_picture pictures[PICTURES];
    int n;
} subject;

static int vision(const subject *s, const char *key)
{
    const json_t *value = json_object_get(json_object_get(s->config, "vision_config"), key);
    return (int)json_integer_value(json_is_array(value) ? json_array_get(value, 0) : value);
}

static void change_bool(const subject *s, const char *key, bool *value)
{
    const json_t *change = json_object_get(s->changes, key);
    if (change)
        *value = json_is_true(change);
}

static void read_settings(subject *s)
{
    const char *type = json_string_value(json_object_get(s->config, "model_type"));
    const int patch = vision(s, "patch_size"), size = vision(s, "image_size");
    if (!strcmp(type, "idefics3") || !strcmp(type, "smolvlm")) {
        vl_idefics3_pictures *p = &s->settings.idefics3;
        const int shuffle = (int)json_integer_value(json_object_get(s->config, "scale_factor"));
        OK(vl_idefics3_pictures_read(p, s->folder, patch, shuffle, &err));
        change_bool(s, "do_image_splitting", &p->splitting);
        s->processor = &p->processor;
        s->rules = &vl_idefics3_rules;
    } else if (!strcmp(type, "gemma3")) {
        vl_gemma3_pictures *p = &s->settings.gemma3;
        const json_t *crop = json_object_get(s->changes, "pan_and_scan_min_crop_size");
        const vl_gemma3_shape shape = {size, patch,
                                       (int)json_integer_value(json_object_get(s->config, "mm_tokens_per_image"))};
        OK(vl_gemma3_pictures_read(p, s->folder, shape, &err));
        change_bool(s, "do_pan_and_scan", &p->crops);
        if (crop)
            p->pan_and_scan.min_crop_size = (int)json_integer_value(crop);
        s->processor = &p->processor;
        s->rules = &vl_gemma3_rules;
    } else if (!strncmp(type, "qwen", 4)) {
        OK(vl_qwen_pictures_read(&s->settings.qwen, s->folder, &err));
        s->processor = &s->settings.qwen.processor;
        s->rules = &vl_qwen_rules;
    } else if (!strcmp(type, "llava_next")) {
        OK(vl_llava_next_pictures_read(&s->settings.anyres, s->folder, size, patch, &err));
        s->processor = &s->settings.anyres.processor;
        s->rules = &vl_anyres_rules;
    } else if (!strcmp(type, "llava_onevision")) {
        OK(vl_llava_onevision_pictures_read(&s->settings.anyres, s->folder, size, patch, &err));
        s->processor = &s->settings.anyres.processor;
        s->rules = &vl_anyres_rules;
    } else {
        OK(vl_internvl_pictures_read(&s->settings.internvl, s->folder, (vl_internvl_shape){size, patch, 2}, &err));
        s->processor = &s->settings.internvl.processor;
        s->rules = &vl_internvl_rules;
    }
}

/* `file` is .../FAMILY/goldens/DIRECTORY__CASE.safetensors. */
static void open_subject(subject *s, const char *file, const char *images)
{
    char path[2 * PATH];
    *s = (subject){0};
    OK(vl_safetensors_open(&s->golden, file, &err));
    snprintf(s->images, sizeof s->images, "%s", images);
    snprintf(s->folder, sizeof s->folder, "%s", file);
    *strstr(s->folder, "/goldens/") = 0;
    strcat(s->folder, "/");
    strcat(s->folder, vl_safetensors_metadata(s->golden, "model_dir"));
    snprintf(path, sizeof path, "%s/config.json", s->folder);
    OK(vl_json_read(&s->config, path, 1 << 20, &err));
    const char *names = vl_safetensors_metadata(s->golden, "images");
    const char *changes = vl_safetensors_metadata(s->golden, "processor_kwargs");
    OK(vl_json_parse(&s->names, names, strlen(names), "images", &err));
    OK(vl_json_parse(&s->changes, changes, strlen(changes), "processor_kwargs", &err));
    s->n = (int)json_array_size(s->names);
    read_settings(s);
}

static void close_subject(subject *s)
{
    for (int i = 0; i < s->n; i++)
        vl_picture_clear(&s->pictures[i]);
    vl_processor_close(s->processor);
    json_decref(s->config);
    json_decref(s->names);
    json_decref(s->changes);
    vl_safetensors_close(s->golden);
}

static void prepare(subject *s)
{
    for (int i = 0; i < s->n; i++) {
        char path[2 * PATH];
        vl_image image;
        vl_picture *picture = &s->pictures[i];
        snprintf(path, sizeof path, "%s/%s", s->images, json_string_value(json_array_get(s->names, (size_t)i)));
        OK(vl_image_open(&image, path, NULL, &err));
        vl_picture_clear(picture);
        picture->original = (vl_size){image.height, image.width};
        OK(s->rules->plan(picture, &s->settings, s->n, &err));
        const vl_bitmap bitmap = {picture->original, image.rgb};
        OK(s->rules->pixels(picture, &s->settings, &bitmap, &err));
        vl_image_clear(&image);
    }
}

static size_t values(const vl_picture *p)
{
    return (size_t)p->n_tiles * 3 * (size_t)p->tile.height * (size_t)p->tile.width;
}

/* The golden's tiles of picture i start at `offset` floats; HF pads every picture to the most tiles of any. */
static void compare_pixels(const subject *s, const char *name)
{
    const vl_weight_view *view = vl_safetensors_find(s->golden, name);
    size_t used = 0;
    if (!view)
        return;
    const int dims = view->ndim;
    for (int i = 0; i < s->n; i++) {
        const vl_picture *p = &s->pictures[i];
        size_t bytes = values(p) * sizeof(float);
        if (dims == 2) /* Qwen: two frames */
            bytes *= 2;
        size_t at = used;
        if (dims == 5 && view->shape[0] == s->n)
            at = (size_t)i * (size_t)(view->bytes / (size_t)s->n);
        assert_true(at + bytes <= view->bytes);
        if (memcmp((const char *)view->data + at, p->pixels, bytes) != 0)
            fail_msg("%s of picture %d differ", name, i);
        used += bytes;
    }
    if (dims != 5)
        assert_int_equal(used, view->bytes);
}

/* Our own goldens hold the SHA-256 of every picture's values. */
static void compare_hashes(const subject *s)
{
    const char *text = vl_safetensors_metadata(s->golden, "pixels");
    json_t *hashes;
    if (!text)
        return;
    OK(vl_json_parse(&hashes, text, strlen(text), "pixels", &err));
    assert_int_equal(json_array_size(hashes), s->n);
    for (int i = 0; i < s->n; i++) {
        const vl_picture *p = &s->pictures[i];
        const bool frames = s->rules == &vl_qwen_rules;
        uint8_t digest[VL_SHA256_BYTES];
        char hex[VL_SHA256_HEX];
        vl_sha256 hash;
        vl_sha256_init(&hash);
        vl_sha256_update(&hash, p->pixels, values(p) * (frames ? 2 : 1) * sizeof(float));
        vl_sha256_final(&hash, digest);
        vl_sha256_hex(digest, hex);
        assert_string_equal(hex, json_string_value(json_array_get(hashes, (size_t)i)));
    }
    json_decref(hashes);
}

static void compare_pillow(subject *s)
{
    if (!vl_safetensors_find(s->golden, "pixel_values_pil"))
        return;
    s->processor->kernel = VL_RESIZE_PILLOW;
    s->processor->normalise.order = VL_NORMALISE_STEPS;
    prepare(s);
    compare_pixels(s, "pixel_values_pil");
}

static int64_t number(const vl_weight_view *view, int64_t i)
{
    int64_t value;
    memcpy(&value, (const char *)view->data + 8 * i, 8);
    return value;
}

static const char *image_token(const subject *s)
{
    const char *type = json_string_value(json_object_get(s->config, "model_type"));
    return strcmp(type, "gemma3") ? s->rules->placeholder : "<image_soft_token>";
}

/* Fills image and patch of the rows whose id is the image token, and compares the positions. */
static void compare_positions(const subject *s, const vl_token_ids *ids, int32_t image_id)
{
    const vl_weight_view *view = vl_safetensors_find(s->golden, "position_ids");
    int32_t *image = vl_calloc((size_t)ids->n, sizeof *image), (*out)[3] = vl_calloc((size_t)ids->n, sizeof *out);
    int16_t(*patch)[3] = vl_calloc((size_t)ids->n, sizeof *patch);
    int64_t used = 0;
    int picture = 0;
    for (int64_t t = 0; t < ids->n; t++) {
        image[t] = -1;
        if (ids->ids[t] != image_id)
            continue;
        while (picture < s->n && used == s->pictures[picture].n_rows) {
            picture++;
            used = 0;
        }
        assert_true(picture < s->n);
        const vl_picture_row *row = &s->pictures[picture].rows[used++];
        image[t] = picture;
        patch[t][0] = row->tile, patch[t][1] = row->row, patch[t][2] = row->column;
    }
    assert_true(s->n == 0 || (picture == s->n - 1 && used == s->pictures[picture].n_rows));
    if (view->ndim == 2) {
        vl_mrope_positions(out, image, (const int16_t(*)[3])patch, ids->n);
        for (int64_t t = 0; t < ids->n; t++)
            for (int axis = 0; axis < 3; axis++)
                assert_int_equal(out[t][axis], number(view, axis * ids->n + t));
    } else {
        for (int64_t t = 0; t < ids->n; t++)
            assert_int_equal(t, number(view, t));
    }
    vl_free(image);
    vl_free(out);
    vl_free(patch);
}

static void compare_ids(const subject *s)
{
    const vl_weight_view *view = vl_safetensors_find(s->golden, "input_ids");
    vl_tokenizer *tokenizer;
    vl_str text = VL_STR_INIT;
    vl_token_ids ids;
    OK(vl_tokenizer_open(&tokenizer, s->folder, &err));
    OK(vl_picture_expand(&text, s->rules, &s->settings, vl_safetensors_metadata(s->golden, "prompt"), s->pictures, s->n,
                         &err));
    OK(vl_tokenizer_encode(&ids, tokenizer, text.data, text.size, true, &err));
    assert_int_equal(ids.n, view->shape[view->ndim - 1]);
    for (int64_t t = 0; t < ids.n; t++)
        assert_int_equal(ids.ids[t], number(view, t));
    compare_positions(s, &ids, vl_tokenizer_id(tokenizer, image_token(s)));
    vl_release(ids.ids);
    vl_str_clear(&text);
    vl_tokenizer_close(tokenizer);
}

static size_t compare_all(const char *root, const char *images)
{
    char pattern[2 * PATH];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/*/goldens/*.safetensors", root);
    if (glob(pattern, 0, NULL, &found) != 0)
        return 0;
    size_t n = 0;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        static const char *const families[] = {"smolvlm",  "llava_next", "qwen2_vl",        "qwen2_5_vl",
                                               "qwen3_vl", "gemma3",     "llava_onevision", "internvl"};
        char folder[32];
        bool ours = false;
        for (size_t k = 0; k < sizeof families / sizeof *families; k++) {
            snprintf(folder, sizeof folder, "/%s/goldens/", families[k]);
            ours = ours || strstr(found.gl_pathv[i], folder);
        }
        if (!ours)
            continue;
        subject s;
        print_message("%s\n", found.gl_pathv[i] + strlen(root));
        open_subject(&s, found.gl_pathv[i], images);
        prepare(&s);
        compare_pixels(&s, "pixel_values");
        compare_hashes(&s);
        compare_ids(&s);
        compare_pillow(&s);
        close_subject(&s);
        n++;
    }
    globfree(&found);
    return n;
}

static void pixels_ids_and_positions_equal_transformers(void **state)
{
    (void)state;
    const char *const root = VLENS_SOURCE_DIR "/tests/golden";
    char vision[PATH], images[PATH];
    snprintf(vision, sizeof vision, "%s/vision", root);
    snprintf(images, sizeof images, "%s/fixtures/images", root);
    assert_int_equal(compare_all(vision, images), 23);
}

static void those_of_other_models_too(void **state)
{
    (void)state;
    const char *shared = getenv("VLENS_SHARED_DATA");
    char root[PATH], images[PATH];
    if (!shared) {
        print_message("VLENS_SHARED_DATA is not set: the goldens of more tiny models are not used\n");
        return;
    }
    snprintf(root, sizeof root, "%s/families", shared);
    snprintf(images, sizeof images, "%s/images", shared);
    assert_true(compare_all(root, images) >= 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pixels_ids_and_positions_equal_transformers),
                                       cmocka_unit_test(those_of_other_models_too)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
