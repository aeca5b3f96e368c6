#include "tests/fuzz/fuzz_file.h"
#include "trainer/model/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static vl_model_spec spec;
    vl_error err = VL_ERROR_INIT;
    fuzz_file("config.json", data, size);
    (void)vl_model_spec_read(&spec, fuzz_folder(), &err);
    vl_model_spec_clear(&spec);
    return 0;
}
