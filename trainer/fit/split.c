/* split.c - which training samples are set aside to choose by: by hash, whole images. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/fit/plan.h"

typedef struct image_of {
    const char *sha256;
    int32_t sample; /* row of /samples */
} image_of;

typedef struct number_of {
    int64_t id;
    int32_t row;
} number_of;

static int by_sha(const void *a, const void *b)
{
    const image_of *x = a, *y = b;
    int order = strcmp(x->sha256, y->sha256);
    return order ? order : (x->sample > y->sample) - (x->sample < y->sample);
}

static int by_id(const void *a, const void *b)
{
    int64_t x = ((const number_of *)a)->id, y = ((const number_of *)b)->id;
    return (x > y) - (x < y);
}

/* Union-find with path halving: samples that share an image are one group. */
static int32_t root_of(int32_t *parent, int32_t i)
{
    while (parent[i] != i)
        i = parent[i] = parent[parent[i]];
    return i;
}

/* The first 8 bytes of sha256("<seed>:validation:<key>") as a share of 2^64. The word keeps it apart from the split
 * into training and held-out samples, whose hash has the same form. */
static double unit_hash(int64_t seed, const char *key)
{
    char head[48];
    uint8_t digest[VL_SHA256_BYTES];
    uint64_t value = 0;
    vl_sha256 hash;
    snprintf(head, sizeof head, "%lld:validation:", (long long)seed);
    vl_sha256_init(&hash);
    vl_sha256_update(&hash, head, strlen(head));
    vl_sha256_update(&hash, key, strlen(key));
    vl_sha256_final(&hash, digest);
    for (int i = 0; i < 8; i++)
        value = value << 8 | digest[i];
    return (double)value * 0x1p-64;
}

/* Images with the row of their sample, sorted by content. */
static vl_status list_images(image_of *images, number_of *numbers, const vl_cache_samples *samples,
                             const vl_cache_info *info, vl_error *err)
{
    for (int64_t s = 0; s < info->n_samples; s++)
        numbers[s] = (number_of){samples->id[s], (int32_t)s};
    qsort(numbers, (size_t)info->n_samples, sizeof *numbers, by_id);
    for (int64_t k = 0; k < info->n_images; k++) {
        number_of key = {samples->image_sample[k], 0};
        const number_of *found = bsearch(&key, numbers, (size_t)info->n_samples, sizeof *numbers, by_id);
        if (!found)
            return vl_fail(err, VL_EFORMAT, "%s: image %lld belongs to sample %lld, which is not in the cache",
                           info->path, (long long)k, (long long)key.id);
        images[k] = (image_of){samples->image_sha256[k], found->row};
    }
    qsort(images, (size_t)info->n_images, sizeof *images, by_sha);
    return VL_OK;
}

/* Samples without any picture may be windows of one text, cut side by side: neighbours know too much of each other to
 * judge. They go by blocks, as they do in the split into training and held-out samples. */
enum { BLOCK_SAMPLES = 16, LEAST_BLOCKS = 4 };

static int64_t block_of(int64_t id, const vl_cache_info *info)
{
    return info->n_images == 0 && info->n_samples >= BLOCK_SAMPLES * LEAST_BLOCKS ? id / BLOCK_SAMPLES : id;
}

/* hash[root of a group] = the smallest hash of its images, or that of the sample's number (or block) without one. */
static void hash_groups(double *hash, int32_t *parent, const image_of *images, const vl_cache_info *info,
                        const vl_cache_samples *samples, int64_t seed)
{
    const double none = 2.0;
    char number[24];
    for (int64_t s = 0; s < info->n_samples; s++) {
        parent[s] = (int32_t)s;
        hash[s] = none;
    }
    for (int64_t k = 1; k < info->n_images; k++)
        if (strcmp(images[k].sha256, images[k - 1].sha256) == 0)
            parent[root_of(parent, images[k].sample)] = root_of(parent, images[k - 1].sample);
    for (int64_t k = 0; k < info->n_images; k++) {
        int32_t root = root_of(parent, images[k].sample);
        double value = unit_hash(seed, images[k].sha256);
        hash[root] = value < hash[root] ? value : hash[root];
    }
    for (int64_t s = 0; s < info->n_samples; s++) {
        if (parent[s] != s || hash[s] < none)
            continue;
        snprintf(number, sizeof number, "%lld", (long long)block_of(samples->id[s], info));
        hash[s] = unit_hash(seed, number);
    }
}

/* Groups below `share` go to the validation part: at least the first in the order of the hashes, never the last. */
static void assign(uint8_t *assigned, const double *hash, int32_t *parent, const vl_cache_info *info,
                   const vl_cache_samples *samples, double share)
{
    double smallest = 2.0, largest = -1.0;
    for (int64_t s = 0; s < info->n_samples; s++) {
        double value = hash[root_of(parent, (int32_t)s)];
        if (samples->heldout[s])
            continue;
        smallest = value < smallest ? value : smallest;
        largest = value > largest ? value : largest;
    }
    for (int64_t s = 0; s < info->n_samples && share > 0; s++) {
        double value = hash[root_of(parent, (int32_t)s)];
        assigned[s] = !samples->heldout[s] && value < largest && (value < share || value <= smallest);
    }
}

vl_status vl_plan_validation_samples(uint8_t *assigned, const vl_config *config, const vl_cache *cache, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    const vl_cache_samples *samples = vl_cache_get_samples(cache);
    size_t n = (size_t)info->n_samples, n_images = (size_t)info->n_images;
    vl_status status = VL_OK;
    image_of *images = vl_alloc(n_images + 1, sizeof *images);
    number_of *numbers = vl_alloc(n + 1, sizeof *numbers);
    int32_t *parent = vl_alloc(n + 1, sizeof *parent);
    double *hash = vl_alloc(n + 1, sizeof *hash);
    if (!images || !numbers || !parent || !hash)
        VL_GOTO(vl_fail_nomem(err, "validation part"));
    VL_GOTO(list_images(images, numbers, samples, info, err));
    hash_groups(hash, parent, images, info, samples, config->fit.seed);
    assign(assigned, hash, parent, info, samples, config->fit.validation);
done:
    vl_free(images);
    vl_free(numbers);
    vl_free(parent);
    vl_free(hash);
    return status;
}
