#include <vlens/lens.h>

#include "tests/fuzz/fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vl_lens *lens = NULL;
    vl_error err = VL_ERROR_INIT;
    (void)vl_lens_open(&lens, fuzz_file("lens.safetensors", data, size), &err);
    vl_lens_close(lens);
    return 0;
}
