#include "tests/lens/export_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/base/file.h"

void example_new(example *e, const char *folder)
{
    static const double kl[LAYERS] = {0.5, 0.25, 0.125};
    vl_error err = VL_ERROR_INIT;
    memset(e, 0, sizeof *e);
    for (int k = 0; k < D * D; k++)
        e->weight[k] = (float)(k % 127 - 63) * 0.25f;
    for (int k = 0; k < D; k++) {
        e->bias[0][k] = (float)(k + 1);
        e->bias[1][k] = -0.5f * (float)k;
        e->norm[k] = 1;
    }
    for (int k = 0; k < V * D; k++)
        e->unembedding[k] = (float)(k * 7919 % 2001 - 1000) * 0.0009765625f;
    const vl_head_source source = {.d_model = D,
                                   .vocab_size = V,
                                   .n_layers = LAYERS,
                                   .norm = VL_NORM_RMS,
                                   .eps = 1e-5,
                                   .weight_dtype = VL_F32,
                                   .weight = e->unembedding,
                                   .norm_dtype = VL_F32,
                                   .norm_weight = e->norm};
    ok(vl_device_open(&e->device, "cpu", 1, &err), &err);
    ok(vl_head_new(&e->head, e->device, &source, VL_PRECISION_EXACT, NULL, &err), &err);
    const float *weights[LAYERS] = {NULL, NULL, e->weight}, *biases[LAYERS] = {e->bias[0], NULL, e->bias[1]};
    const vl_lens_content content = {.d_model = D,
                                     .n_layers = LAYERS,
                                     .weight = weights,
                                     .bias = biases,
                                     .dtype = VL_F32,
                                     .fingerprint = vl_head_get_info(e->head)->fingerprint,
                                     .model_id = "some/model",
                                     .tokens_seen = 5000000000,
                                     .heldout_kl = kl};
    ok(vl_make_directories(in(folder, "lens"), &err), &err);
    ok(vl_lens_write(in(folder, "lens/lens.safetensors"), &content, &err), &err);
    ok(vl_lens_open(&e->lens, in(folder, "lens"), &err), &err);
}

void example_free(example *e)
{
    vl_lens_close(e->lens);
    vl_head_close(e->head);
    vl_device_close(e->device);
}

void example_check(const example *e, const char *path, vl_dtype dtype)
{
    vl_error err = VL_ERROR_INIT;
    vl_lens *lens;
    ok(vl_lens_open(&lens, path, &err), &err);
    const vl_lens_info *info = vl_lens_get_info(lens);
    assert_int_equal(info->dtype, dtype);
    assert_int_equal(info->n_layers, LAYERS);
    assert_string_equal(info->fingerprint, vl_head_get_info(e->head)->fingerprint);
    assert_false(info->bias_only);
    assert_null(vl_lens_weight(lens, 0));
    assert_memory_equal(vl_lens_bias(lens, 0), e->bias[0], sizeof e->bias[0]);
    assert_null(vl_lens_weight(lens, 1));
    assert_null(vl_lens_bias(lens, 1));
    assert_memory_equal(vl_lens_weight(lens, 2), e->weight, sizeof e->weight);
    assert_memory_equal(vl_lens_bias(lens, 2), e->bias[1], sizeof e->bias[1]);
    vl_lens_close(lens);
}
