#include <vlens/config.h>
#include <vlens/memory.h>

#include "tests/fuzz/fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vl_config *config = NULL;
    char *text = NULL;
    vl_error err = VL_ERROR_INIT;
    if (vl_config_read(&config, fuzz_file("x.yaml", data, size), &err) == VL_OK)
        (void)vl_config_write(&text, config, &err);
    vl_release(text);
    vl_config_free(config);
    return 0;
}
