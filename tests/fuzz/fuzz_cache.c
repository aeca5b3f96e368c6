#include <vlens/cache.h>

#include "tests/fuzz/fuzz_file.h"
#include "trainer/base/mem.h"
#include "trainer/cache/index.h"

/* What opens is read to its last row, as long as that is little. */
static void read_states(vl_cache *cache)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    vl_error err = VL_ERROR_INIT;
    int64_t rows = info->n_tokens < 64 ? info->n_tokens : 64, states = info->n_states < 16 ? info->n_states : 16;
    void *out = info->d_model < 4096 ? vl_alloc((size_t)(rows * info->d_model), 4) : NULL;
    for (int64_t i = 0; out && i < states; i++)
        (void)vl_cache_read(out, cache, i, info->n_tokens - rows, rows, &err);
    vl_free(out);
}

/* One HDF5 file, as a cache of one file and as a shard. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vl_cache *cache = NULL;
    vl_shard_summary shard;
    vl_error err = VL_ERROR_INIT;
    const char *path = fuzz_file("x.h5", data, size);
    if (vl_cache_open(&cache, path, &err) == VL_OK)
        read_states(cache);
    vl_cache_close(cache);
    if (vl_shard_read(&shard, path, &err) == VL_OK)
        vl_shard_summary_clear(&shard);
    return 0;
}
