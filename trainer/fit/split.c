/* split.c - which training samples are set aside to choose by: by hash, whole images. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/data/split.h"
#include "trainer/fit/plan.h"

typedef struct number_of {
    int64_t id;
    int64_t row; /* of /samples */
} number_of;

static int by_id(const void *a, const void *b)
{
    int64_t x = ((const number_of *)a)->id, y = ((const number_of *)b)->id;
    return (x > y) - (x < y);
}

/* The rule of data/split.h with the key "validation:<key>": the word keeps it apart from the split into training and
 * held-out samples, whose seed may be the same. */
static double unit_hash(int64_t seed, const char *key)
{
    char named[VL_SHA256_HEX + 16];
    snprintf(named, sizeof named, "validation:%s", key);
    return vl_split_share(vl_split_hash(seed, named));
}

/* Pictures with the row of their sample. */
static vl_status list_images(vl_split_use *images, number_of *numbers, const vl_cache_samples *samples,
                             const vl_cache_info *info, vl_error *err)
{
    for (int64_t s = 0; s < info->n_samples; s++)
        numbers[s] = (number_of){samples->id[s], s};
    qsort(numbers, (size_t)info->n_samples, sizeof *numbers, by_id);
    for (int64_t k = 0; k < info->n_images; k++) {
        number_of key = {samples->image_sample[k], 0};
        const number_of *found = bsearch(&key, numbers, (size_t)info->n_samples, sizeof *numbers, by_id);
        if (!found)
            return vl_fail(err, VL_EFORMAT, "%s: image %lld belongs to sample %lld, which is not in the cache",
                           info->path, (long long)k, (long long)key.id);
        images[k] = (vl_split_use){samples->image_sha256[k], found->row};
    }
    return VL_OK;
}

/* Samples without any picture may be windows of one text, cut side by side: neighbours know too much of each other to
 * judge. They go by blocks, as they do in the split into training and held-out samples. */
enum { BLOCK_SAMPLES = 16, LEAST_BLOCKS = 4 };

static int64_t block_of(int64_t id, const vl_cache_info *info)
{
    return info->n_images == 0 && info->n_samples >= BLOCK_SAMPLES * LEAST_BLOCKS ? id / BLOCK_SAMPLES : id;
}

/* hash[group] = the smallest hash of its images, or that of the sample's number (or block) without one. */
static void hash_groups(double *hash, const int64_t *group, const vl_split_use *images, const vl_cache_info *info,
                        const vl_cache_samples *samples, int64_t seed)
{
    const double none = 2.0;
    char number[24];
    for (int64_t s = 0; s < info->n_samples; s++)
        hash[s] = none;
    for (int64_t k = 0; k < info->n_images; k++) {
        int64_t g = group[images[k].sample];
        double value = unit_hash(seed, images[k].sha256);
        hash[g] = value < hash[g] ? value : hash[g];
    }
    for (int64_t s = 0; s < info->n_samples; s++) {
        if (group[s] != s || hash[s] < none)
            continue;
        snprintf(number, sizeof number, "%lld", (long long)block_of(samples->id[s], info));
        hash[s] = unit_hash(seed, number);
    }
}

/* Groups below `share` go to the validation part: at least the first in the order of the hashes, never the last. */
static void assign(uint8_t *assigned, const double *hash, const int64_t *group, const vl_cache_info *info,
                   const vl_cache_samples *samples, double share)
{
    double smallest = 2.0, largest = -1.0;
    for (int64_t s = 0; s < info->n_samples; s++) {
        double value = hash[group[s]];
        if (samples->heldout[s])
            continue;
        smallest = value < smallest ? value : smallest;
        largest = value > largest ? value : largest;
    }
    for (int64_t s = 0; s < info->n_samples && share > 0; s++) {
        double value = hash[group[s]];
        assigned[s] = !samples->heldout[s] && value < largest && (value < share || value <= smallest);
    }
}

vl_status vl_plan_validation_samples(uint8_t *assigned, const vl_config *config, const vl_cache *cache, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    const vl_cache_samples *samples = vl_cache_get_samples(cache);
    size_t n = (size_t)info->n_samples, n_images = (size_t)info->n_images;
    vl_status status = VL_OK;
    vl_split_use *images = vl_alloc(n_images + 1, sizeof *images);
    number_of *numbers = vl_alloc(n + 1, sizeof *numbers);
    int64_t *group = vl_alloc(n + 1, sizeof *group);
    double *hash = vl_alloc(n + 1, sizeof *hash);
    if (!images || !numbers || !group || !hash)
        VL_GOTO(vl_fail_nomem(err, "validation part"));
    VL_GOTO(list_images(images, numbers, samples, info, err));
    vl_split_connect(group, info->n_samples, images, n_images);
    hash_groups(hash, group, images, info, samples, config->fit.seed);
    assign(assigned, hash, group, info, samples, config->fit.validation);
done:
    vl_free(images);
    vl_free(numbers);
    vl_free(group);
    vl_free(hash);
    return status;
}
