/* The lens file: written, read, checked, applied. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/fit_test.h"
#include "trainer/base/file.h"
#include "trainer/lens/lens.h"
#include "trainer/hf/safetensors_write.h"

enum { D = 6, LAYERS = 3 };
static const char PRINT[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

static float weights[LAYERS][D * D], biases[LAYERS][D];

/* Layer 1 is not trained. */
static vl_lens_content example(void)
{
    static const float *weight[LAYERS], *bias[LAYERS];
    static const double kl[LAYERS] = {0.5, NAN, 0.125};
    for (int i = 0; i < LAYERS; i++) {
        for (int k = 0; k < D * D; k++)
            weights[i][k] = (float)(k - 17) * 0.25f + (float)i;
        for (int k = 0; k < D; k++)
            biases[i][k] = (float)k + 0.5f * (float)i;
        weight[i] = i == 1 ? NULL : weights[i];
        bias[i] = i == 1 ? NULL : biases[i];
    }
    return (vl_lens_content){.d_model = D,
                             .n_layers = LAYERS,
                             .weight = weight,
                             .bias = bias,
                             .dtype = VL_F32,
                             .fingerprint = PRINT,
                             .model_id = "some/model",
                             .config = "fit:\n  steps: 3\n",
                             .settings = "a=1\n",
                             .tokens_seen = 12345,
                             .heldout_kl = kl};
}

static void test_round_trip(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new();
    vl_lens_content content = example();
    vl_lens *lens;
    ok(vl_lens_write(in(folder, "lens.safetensors"), &content, &err), &err);
    ok(vl_lens_open(&lens, folder, &err), &err);
    const vl_lens_info *info = vl_lens_get_info(lens);
    assert_int_equal(info->d_model, D);
    assert_int_equal(info->n_layers, LAYERS);
    assert_string_equal(info->fingerprint, PRINT);
    assert_string_equal(info->model_id, "some/model");
    assert_string_equal(info->config, "fit:\n  steps: 3\n");
    assert_string_equal(vl_lens_settings(lens), "a=1\n");
    assert_int_equal(info->tokens_seen, 12345);
    assert_false(info->bias_only);
    assert_true(info->heldout_kl[0] == 0.5 && isnan(info->heldout_kl[1]) && info->heldout_kl[2] == 0.125);
    assert_null(vl_lens_weight(lens, 1));
    assert_null(vl_lens_bias(lens, 1));
    assert_null(vl_lens_bias(lens, -1));
    assert_null(vl_lens_bias(lens, LAYERS));
    assert_memory_equal(vl_lens_weight(lens, 2), weights[2], sizeof weights[2]);
    assert_memory_equal(vl_lens_bias(lens, 0), biases[0], sizeof biases[0]);
    vl_lens_close(lens);
    folder_remove(folder);
}

static void test_sixteen_bit(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new();
    const vl_dtype types[] = {VL_BF16, VL_F16};
    for (int k = 0; k < 2; k++) {
        vl_lens_content content = example();
        vl_lens *lens;
        content.dtype = types[k];
        ok(vl_lens_write(in(folder, "lens.safetensors"), &content, &err), &err);
        ok(vl_lens_open(&lens, folder, &err), &err);
        assert_int_equal(vl_lens_get_info(lens)->dtype, types[k]);
        assert_memory_equal(vl_lens_weight(lens, 2), weights[2], sizeof weights[2]); /* exact in both types */
        vl_lens_close(lens);
    }
    folder_remove(folder);
}

static void test_bias_only_and_heldout(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new();
    vl_lens_content content = example();
    vl_lens *lens;
    content.bias_only = true;
    content.heldout_kl = NULL;
    ok(vl_lens_write(in(folder, "lens.safetensors"), &content, &err), &err);
    const double kl[LAYERS] = {1.5, NAN, 0.1};
    ok(vl_lens_record_heldout(folder, kl, &err), &err);
    ok(vl_lens_open(&lens, in(folder, "lens.safetensors"), &err), &err);
    assert_true(vl_lens_get_info(lens)->bias_only);
    assert_null(vl_lens_weight(lens, 0));
    assert_memory_equal(vl_lens_bias(lens, 2), biases[2], sizeof biases[2]);
    assert_true(vl_lens_get_info(lens)->heldout_kl[0] == 1.5 && vl_lens_get_info(lens)->heldout_kl[2] == 0.1);
    assert_string_equal(vl_lens_settings(lens), "a=1\n");
    vl_lens_close(lens);
    folder_remove(folder);
}

/* Changes one byte of a file at `offset` from its end. */
static void flip(const char *path, long offset)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, -offset, SEEK_END), 0);
    int c = fgetc(f);
    assert_int_equal(fseek(f, -offset, SEEK_END), 0);
    fputc(c ^ 1, f);
    fclose(f);
}

static void expect_refused(const char *path, vl_status status, const char *word)
{
    vl_error err = VL_ERROR_INIT;
    vl_lens *lens = (vl_lens *)1;
    assert_int_equal(vl_lens_open(&lens, path, &err), status);
    assert_null(lens);
    if (!strstr(err.message, word))
        fail_msg("'%s' does not say '%s'", err.message, word);
}

static void test_damage_is_found(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new(), *bytes;
    size_t size;
    vl_lens_content content = example();
    const char *path = in(folder, "lens.safetensors");
    expect_refused(folder, VL_EIO, "lens.safetensors");
    ok(vl_lens_write(path, &content, &err), &err);
    flip(path, 1);
    expect_refused(folder, VL_EFORMAT, "sha256");
    ok(vl_lens_write(path, &content, &err), &err);
    ok(vl_file_read(&bytes, &size, path, 1 << 20, &err), &err);
    ok(vl_atomic_write(path, bytes, size - 10, &err), &err);
    vl_release(bytes);
    expect_refused(folder, VL_EFORMAT, "lens.safetensors");
    folder_remove(folder);
}

static void write_raw(const char *path, const char *name, int64_t rows, const char *format, const char *n_layers)
{
    vl_error err = VL_ERROR_INIT;
    float values[2 * D * D] = {0};
    vl_safetensors_entry entry = {.name = name, .dtype = VL_F32, .ndim = 1, .shape = {rows}, .data = values};
    const vl_safetensors_pair pairs[] = {
        {"format", format}, {"version", "1"}, {"d_model", "6"}, {"n_layers", n_layers}};
    ok(vl_safetensors_write(path, &entry, 1, pairs, 4, &err), &err);
}

static void test_wrong_files(void **state)
{
    (void)state;
    char *folder = folder_new();
    const char *path = in(folder, "a.safetensors");
    write_raw(path, "adapter.0.bias", D, "pt", "1");
    expect_refused(path, VL_EFORMAT, "no vlens lens");
    write_raw(path, "adapter.0.bias", D, "vlens-lens", "-3");
    expect_refused(path, VL_EFORMAT, "n_layers");
    write_raw(path, "adapter.0.bias", D, "vlens-lens", "1x");
    expect_refused(path, VL_EFORMAT, "n_layers");
    write_raw(path, "adapter.0.bias", D + 1, "vlens-lens", "1");
    expect_refused(path, VL_ESHAPE, "[7], expected [6]");
    write_raw(path, "adapter.0.weight", D * D, "vlens-lens", "1");
    expect_refused(path, VL_ESHAPE, "expected [6, 6]");
    write_raw(path, "adapter.1.bias", D, "vlens-lens", "1");
    expect_refused(path, VL_EFORMAT, "adapter.1.bias");
    write_raw(path, "adapter.00.bias", D, "vlens-lens", "1");
    expect_refused(path, VL_EFORMAT, "adapter.00.bias");
    write_raw(path, "adapter.0.bias.more", D, "vlens-lens", "1");
    expect_refused(path, VL_EFORMAT, "adapter.0.bias.more");
    folder_remove(folder);
}

static void test_check(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new();
    vl_lens_content content = example();
    vl_lens *lens;
    bool warned = true;
    ok(vl_lens_write(in(folder, "lens.safetensors"), &content, &err), &err);
    ok(vl_lens_open(&lens, folder, &err), &err);
    vl_head_info own = {.d_model = D, .n_layers = LAYERS}, other = own, wide = own;
    wide.d_model++;
    snprintf(own.fingerprint, sizeof own.fingerprint, "%s", PRINT);
    snprintf(wide.fingerprint, sizeof wide.fingerprint, "%s", PRINT);
    snprintf(other.fingerprint, sizeof other.fingerprint, "feed");
    ok(vl_lens_check(lens, &own, false, &warned, &err), &err);
    assert_false(warned);
    assert_int_equal(vl_lens_check(lens, &other, false, &warned, &err), VL_EMISMATCH);
    assert_non_null(strstr(err.message, PRINT));
    assert_non_null(strstr(err.message, "feed"));
    ok(vl_lens_check(lens, &other, true, &warned, &err), &err);
    assert_true(warned);
    assert_int_equal(vl_lens_check(lens, &wide, true, &warned, &err), VL_EMISMATCH);
    vl_lens_close(lens);
    folder_remove(folder);
}

static void test_transform(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new();
    vl_lens_content content = example();
    vl_lens *lens;
    vl_device *device;
    float h[2 * D];
    ok(vl_lens_write(in(folder, "lens.safetensors"), &content, &err), &err);
    ok(vl_lens_open(&lens, folder, &err), &err);
    ok(vl_device_open(&device, "cpu", 1, &err), &err);
    for (int k = 0; k < 2 * D; k++)
        h[k] = (float)k * 0.5f - 1.0f;
    vl_tensor x = to_device(device, h, 2, D), y = to_device(device, NULL, 2, D);
    vl_device_lens *moved;
    ok(vl_device_lens_new(&moved, lens, device, &err), &err);
    for (int64_t layer = 0; layer <= LAYERS; layer++) {
        ok(vl_device_lens_transform(moved, layer, y, x, &err), &err);
        float *got = from_device(device, y);
        for (int r = 0; r < 2; r++) {
            for (int i = 0; i < D; i++) {
                double sum = (double)h[r * D + i];
                bool trained = layer < LAYERS && layer != 1;
                for (int k = 0; trained && k < D; k++)
                    sum += (double)weights[layer][i * D + k] * (double)h[r * D + k];
                sum += trained ? (double)biases[layer][i] : 0;
                assert_true(fabs((double)got[r * D + i] - sum) < 1e-4);
            }
        }
        free(got);
    }
    assert_int_equal(vl_device_lens_transform(moved, LAYERS + 1, y, x, &err), VL_EINVAL);
    vl_device_lens_free(moved);
    vl_device_free(device, x.data);
    vl_device_free(device, y.data);
    vl_lens_close(lens);
    vl_device_close(device);
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_sixteen_bit),
        cmocka_unit_test(test_bias_only_and_heldout),
        cmocka_unit_test(test_damage_is_found),
        cmocka_unit_test(test_wrong_files),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_transform),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
