/* examples/read_lens.py against the library: the same logits. Skipped where python3 has no NumPy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "tests/lens/export_test.h"
#include "trainer/base/file.h"

enum { ROWS = 7 };

static void write_floats(const char *path, const float *values, size_t n)
{
    vl_error err = VL_ERROR_INIT;
    ok(vl_atomic_write(path, values, n * sizeof *values, &err), &err);
}

/* Logits of one layer by the library. */
static void write_logits(const example *e, const char *path, int64_t layer, const float *h)
{
    vl_error err = VL_ERROR_INIT;
    vl_tensor states = to_device(e->device, h, ROWS, D), moved, logits;
    ok(vl_tensor_new(&moved, e->device, VL_F32, ROWS, D, &err), &err);
    ok(vl_tensor_new(&logits, e->device, VL_F32, ROWS, V, &err), &err);
    vl_device_lens *lens;
    ok(vl_device_lens_new(&lens, e->lens, e->device, &err), &err);
    ok(vl_device_lens_transform(lens, layer, moved, states, &err), &err);
    vl_device_lens_free(lens);
    ok(vl_head_logits(e->head, logits, moved, &err), &err);
    float *out = from_device(e->device, logits);
    write_floats(path, out, ROWS * V);
    free(out);
    vl_device_free(e->device, states.data);
    vl_device_free(e->device, moved.data);
    vl_device_free(e->device, logits.data);
}

static void test_read_lens(void **state)
{
    (void)state;
    char *folder = folder_new(), command[1400];
    float h[ROWS * D];
    example e;
    example_new(&e, folder);
    for (int k = 0; k < ROWS * D; k++)
        h[k] = (float)(k * 37 % 101 - 50) * 0.125f;
    write_floats(in(folder, "h"), h, ROWS * D);
    write_floats(in(folder, "head"), e.unembedding, V * D);
    for (int layer = 0; layer < LAYERS; layer++) {
        char name[16];
        snprintf(name, sizeof name, "logits%d", layer);
        write_logits(&e, in(folder, name), layer, h);
    }
    snprintf(command, sizeof command,
             "PYTHONDONTWRITEBYTECODE=1 python3 -c 'import sys\n"
             "try: import numpy as np\n"
             "except ImportError: sys.exit(77)\n"
             "sys.path.insert(0, sys.argv[2])\n"
             "from read_lens import lens_logits, read_safetensors\n"
             "lens, about = read_safetensors(sys.argv[1] + \"/lens/lens.safetensors\")\n"
             "load = lambda name, n: np.fromfile(sys.argv[1] + \"/\" + name, \"<f4\").reshape(-1, n)\n"
             "assert about[\"model_id\"] == \"some/model\"\n"
             "for layer in range(%d):\n"
             "    expected = load(f\"logits{layer}\", %d)\n"
             "    found = lens_logits(lens, layer, load(\"h\", %d), np.ones(%d), load(\"head\", %d), 1e-5)\n"
             "    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max(), layer\n"
             "' %s " VLENS_SOURCE_DIR "/examples",
             LAYERS, V, D, D, D, folder);
    int result = system(command);
    example_free(&e);
    folder_remove(folder);
    int code = WIFEXITED(result) ? WEXITSTATUS(result) : -1;
    if (code == 77 || code == 127)
        skip();
    assert_int_equal(code, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_read_lens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
