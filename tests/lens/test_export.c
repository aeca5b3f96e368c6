/* Exports: what another program finds in them. numpy reads the archive too where python3 has it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>
#include <vlens/export.h>

#include "tests/support/fit_test.h"
#include "trainer/base/file.h"
#include "trainer/lens/lens.h"

enum { D = 5, LAYERS = 2 };
static float weight[D * D], bias[D];

static vl_lens *example(const char *folder)
{
    vl_error err = VL_ERROR_INIT;
    vl_lens *lens;
    for (int k = 0; k < D * D; k++)
        weight[k] = (float)k * 0.25f - 3.0f;
    for (int k = 0; k < D; k++)
        bias[k] = (float)(k + 1);
    const float *weights[LAYERS] = {NULL, weight}, *biases[LAYERS] = {bias, bias};
    vl_lens_content content = {.d_model = D,
                               .n_layers = LAYERS,
                               .weight = weights,
                               .bias = biases,
                               .dtype = VL_F32,
                               .fingerprint = "ab",
                               .model_id = "m",
                               .config = "x: 1\n",
                               .tokens_seen = 9};
    ok(vl_lens_write(in(folder, "lens.safetensors"), &content, &err), &err);
    ok(vl_lens_open(&lens, folder, &err), &err);
    return lens;
}

static vl_status write_as(const vl_lens *lens, const char *format, const char *path, vl_dtype dtype, vl_error *err)
{
    return vl_lens_export(lens, &(vl_export_options){format, path, dtype, NULL}, err);
}

static void test_safetensors(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new();
    vl_lens *lens = example(folder), *again;
    ok(write_as(lens, "safetensors", in(folder, "half"), VL_F16, &err), &err);
    ok(vl_lens_open(&again, in(folder, "half"), &err), &err);
    assert_int_equal(vl_lens_get_info(again)->dtype, VL_F16);
    assert_int_equal(vl_lens_get_info(again)->tokens_seen, 9);
    assert_string_equal(vl_lens_get_info(again)->config, "x: 1\n");
    assert_memory_equal(vl_lens_weight(again, 1), weight, sizeof weight);
    assert_null(vl_lens_weight(again, 0));
    vl_lens_close(again);
    ok(write_as(lens, "safetensors", in(folder, "x.safetensors"), VL_BF16, &err), &err);
    ok(vl_lens_open(&again, in(folder, "x.safetensors"), &err), &err);
    assert_int_equal(vl_lens_get_info(again)->dtype, VL_BF16);
    vl_lens_close(again);
    assert_int_equal(write_as(lens, "safetensors", in(folder, "y"), VL_I32, &err), VL_EINVAL);
    vl_lens_close(lens);
    folder_remove(folder);
}

static void test_unknown_format(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new();
    vl_lens *lens = example(folder);
    assert_int_equal(write_as(lens, "gguf", in(folder, "x"), VL_F32, &err), VL_EINVAL);
    assert_non_null(strstr(err.message, vl_export_formats()));
    assert_int_equal(write_as(lens, "npz", in(folder, "x"), VL_F16, &err), VL_EUNSUPPORTED);
    assert_false(vl_path_exists(in(folder, "x")));
    vl_lens_close(lens);
    folder_remove(folder);
}

static void test_npz_layout(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new(), *bytes;
    size_t size;
    vl_lens *lens = example(folder);
    ok(write_as(lens, "npz", in(folder, "lens.npz"), VL_F32, &err), &err);
    ok(vl_file_read(&bytes, &size, in(folder, "lens.npz"), 1 << 20, &err), &err);
    assert_memory_equal(bytes, "PK\x03\x04", 4);
    /* The first member is adapter.0.bias: a header that ends on a multiple of 64, then five floats. */
    const char *name = "adapter.0.bias.npy";
    assert_memory_equal(bytes + 30, name, strlen(name));
    const char *npy = bytes + 30 + strlen(name);
    assert_memory_equal(npy, "\x93NUMPY\x01\x00", 8);
    size_t header = (size_t)(unsigned char)npy[8] + 256 * (size_t)(unsigned char)npy[9];
    assert_int_equal((10 + header) % 64, 0);
    assert_int_equal(npy[10 + header - 1], '\n');
    assert_memory_equal(npy + 10 + header, bias, sizeof bias);
    vl_release(bytes);
    vl_lens_close(lens);
    folder_remove(folder);
}

/* Skipped where there is no numpy. */
static void test_numpy_reads_it(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new(), command[1024];
    vl_lens *lens = example(folder);
    ok(write_as(lens, "npz", in(folder, "lens.npz"), VL_F32, &err), &err);
    snprintf(command, sizeof command,
             "python3 -c 'import sys\n"
             "try: import numpy\n"
             "except ImportError: sys.exit(77)\n"
             "z = numpy.load(sys.argv[1])\n"
             "assert sorted(z.files) == [\"adapter.0.bias\", \"adapter.1.bias\", \"adapter.1.weight\"], z.files\n"
             "assert z.zip.testzip() is None\n"
             "w = z[\"adapter.1.weight\"]\n"
             "assert w.shape == (5, 5) and w.dtype == numpy.float32 and w[1, 2] == 7 * 0.25 - 3\n"
             "assert (z[\"adapter.0.bias\"] == [1, 2, 3, 4, 5]).all()' '%s/lens.npz'",
             folder);
    int result = system(command);
    vl_lens_close(lens);
    folder_remove(folder);
    int code = WIFEXITED(result) ? WEXITSTATUS(result) : -1;
    if (code == 77 || code == 127)
        skip();
    assert_int_equal(code, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors),
        cmocka_unit_test(test_unknown_format),
        cmocka_unit_test(test_npz_layout),
        cmocka_unit_test(test_numpy_reads_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
