#include <vlens/config.h>

#include "tests/fuzz/fuzz_file.h"
#include "trainer/base/mem.h"
#include "trainer/data/samples.h"

/* A list of samples; picture names are looked up beside it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vl_config *config = NULL;
    vl_sample_list list;
    vl_error err = VL_ERROR_INIT;
    if (vl_config_new(&config, &err) == VL_OK) {
        config->data.samples = vl_strdup(fuzz_file("x.jsonl", data, size));
        config->data.images = vl_strdup(fuzz_folder());
        if (vl_samples_read(&list, config, NULL, &err) == VL_OK)
            vl_samples_clear(&list);
    }
    vl_config_free(config);
    return 0;
}
