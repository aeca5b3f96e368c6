#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/cache/open.h"

const vl_cache_info *vl_cache_get_info(const vl_cache *cache)
{
    return &cache->info;
}

const vl_cache_tokens *vl_cache_get_tokens(const vl_cache *cache)
{
    return &cache->tokens;
}

const vl_cache_samples *vl_cache_get_samples(const vl_cache *cache)
{
    return &cache->samples;
}

const char *vl_cache_piece(const vl_cache *cache, int32_t id)
{
    if (!cache->pieces || id < 0 || id >= cache->meta.vocab_size)
        return NULL;
    return cache->pieces[id];
}

/* The part that holds a row: the last one that starts at or before it and is not empty. */
static int64_t find_part(const vl_cache *cache, int64_t row)
{
    int64_t low = 0, high = cache->n_parts - 1;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (cache->parts[middle].first <= row)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

vl_status vl_cache_read(void *out, vl_cache *cache, int64_t state, int64_t first, int64_t n, vl_error *err)
{
    const vl_cache_info *info = &cache->info;
    size_t row_bytes = (size_t)info->d_model * vl_dtype_size(info->dtype);
    char *to = out;
    if (state < 0 || state >= info->n_states || first < 0 || n < 0 || n > info->n_tokens || first > info->n_tokens - n)
        return vl_fail(err, VL_EINVAL,
                       "%s: %lld rows of state %lld from row %lld on asked for; it has %lld states of %lld rows",
                       cache->path, (long long)n, (long long)state, (long long)first, (long long)info->n_states,
                       (long long)info->n_tokens);
    for (int64_t i = n > 0 ? find_part(cache, first) : 0; n > 0; i++) {
        vl_cache_part *part = &cache->parts[i];
        int64_t skip = first - part->first, most = part->n - skip, take = n < most ? n : most;
        if (take == 0)
            continue;
        VL_TRY(vl_cache_file_open(cache, &cache->files[part->file], err));
        VL_TRY(vl_h5_states_read(to, &cache->files[part->file].states, state, part->offset + skip, take, err));
        to += (size_t)take * row_bytes;
        first += take;
        n -= take;
    }
    return VL_OK;
}

bool vl_cache_exists(const char *directory)
{
    vl_h5 file = -1;
    vl_cache_meta meta;
    bool directory_given = vl_path_is_directory(directory);
    char *path = directory_given ? vl_path_join(directory, "index.h5") : vl_strdup(directory);
    bool complete = path && vl_path_exists(path) && vl_h5_open(&file, path, NULL) == VL_OK &&
                    vl_meta_read(&meta, file, NULL) == VL_OK;
    if (complete)
        vl_meta_clear(&meta);
    vl_h5_close(&file);
    vl_free(path);
    return complete;
}

vl_status vl_cache_directory(char **out, const vl_config *config, vl_error *err)
{
    *out =
        config->cache.dir ? vl_strdup(config->cache.dir) : vl_path_join(config->output ? config->output : ".", "cache");
    return *out ? VL_OK : vl_fail_nomem(err, "cache directory");
}
