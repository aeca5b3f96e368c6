#include "tests/fuzz/fuzz_file.h"
#include "trainer/hf/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vl_safetensors *file = NULL;
    vl_error err = VL_ERROR_INIT;
    if (vl_safetensors_open(&file, fuzz_file("x.safetensors", data, size), &err) == VL_OK)
        for (size_t i = 0; i < vl_safetensors_count(file); i++) {
            const vl_weight_view *view = vl_safetensors_at(file, i);
            if (view->bytes) /* what was accepted must be readable to its last byte */
                fuzz_touch(view->data[0] ^ view->data[view->bytes - 1]);
        }
    vl_safetensors_close(file);
    return 0;
}
