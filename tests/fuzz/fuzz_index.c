#include <string.h>

#include "tests/fuzz/fuzz_file.h"
#include "trainer/hf/directory.h"

/* model.safetensors.index.json beside two shards that are sound: a and b. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char header[] = "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}      ";
    uint8_t shard[8 + sizeof header] = {sizeof header - 1};
    vl_hf_directory *directory = NULL;
    vl_error err = VL_ERROR_INIT;
    memcpy(shard + 8, header, sizeof header); /* its NUL is the tensor's byte */
    fuzz_file("one.safetensors", shard, sizeof shard);
    shard[8 + 2] = 'b';
    fuzz_file("two.safetensors", shard, sizeof shard);
    fuzz_file("model.safetensors.index.json", data, size);
    if (vl_hf_directory_open(&directory, fuzz_folder(), &err) == VL_OK)
        for (size_t i = 0; i < directory->n_tensors; i++)
            fuzz_touch(directory->tensors[i].view->data[0]);
    vl_hf_directory_close(directory);
    return 0;
}
