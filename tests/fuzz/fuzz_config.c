#include "tests/fuzz/fuzz_file.h"
#include "trainer/hf/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vl_hf_config config;
    vl_error err = VL_ERROR_INIT;
    fuzz_file("config.json", data, size);
    (void)vl_hf_config_read(&config, fuzz_folder(), &err);
    return 0;
}
