#include "trainer/data/split.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"

uint64_t vl_split_hash(int64_t seed, const char *key)
{
    char prefix[32];
    uint8_t digest[VL_SHA256_BYTES];
    uint64_t value = 0;
    vl_sha256 hash;
    vl_sha256_init(&hash);
    snprintf(prefix, sizeof prefix, "%lld:", (long long)seed);
    vl_sha256_update(&hash, prefix, strlen(prefix));
    vl_sha256_update(&hash, key, strlen(key));
    vl_sha256_final(&hash, digest);
    for (int i = 0; i < 8; i++)
        value = value << 8 | digest[i];
    return value;
}

double vl_split_share(uint64_t hash)
{
    return (double)hash * 0x1p-64;
}

bool vl_split_is_heldout(uint64_t hash, double share)
{
    return vl_split_share(hash) < share;
}

static int by_image(const void *a, const void *b)
{
    const vl_split_use *x = a, *y = b;
    int order = strcmp(x->sha256, y->sha256);
    return order ? order : (x->sample > y->sample) - (x->sample < y->sample);
}

static int64_t find_root(int64_t *parent, int64_t i)
{
    while (parent[i] != i) {
        parent[i] = parent[parent[i]]; /* halve the path */
        i = parent[i];
    }
    return i;
}

/* The root of a joined group is its smallest sample, so the result does not depend on the order of the joins. */
static void join(int64_t *parent, int64_t a, int64_t b)
{
    a = find_root(parent, a);
    b = find_root(parent, b);
    if (a < b)
        parent[b] = a;
    else
        parent[a] = b;
}

void vl_split_connect(int64_t *group, int64_t n, vl_split_use *uses, size_t n_uses)
{
    for (int64_t i = 0; i < n; i++)
        group[i] = i;
    qsort(uses, n_uses, sizeof *uses, by_image); /* equal pictures lie side by side */
    for (size_t i = 1; i < n_uses; i++)
        if (strcmp(uses[i].sha256, uses[i - 1].sha256) == 0)
            join(group, uses[i].sample, uses[i - 1].sample);
    for (int64_t i = 0; i < n; i++)
        group[i] = find_root(group, i);
}

static vl_status connect(int64_t *group, const vl_split_sample *samples, int64_t n, vl_error *err)
{
    size_t n_uses = 0, at = 0;
    for (int64_t i = 0; i < n; i++)
        n_uses += (size_t)samples[i].n_images;
    vl_split_use *uses = vl_alloc(n_uses + 1, sizeof *uses);
    if (!uses)
        return vl_fail_nomem(err, "split");
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < samples[i].n_images; k++)
            uses[at++] = (vl_split_use){samples[i].image_sha256[k], i};
    vl_split_connect(group, n, uses, n_uses);
    vl_free(uses);
    return VL_OK;
}

vl_status vl_split_assign(uint8_t *heldout, const vl_split_sample *samples, int64_t n, int64_t seed, double share,
                          vl_error *err)
{
    vl_status status = VL_OK;
    int64_t *group = vl_alloc((size_t)n + 1, sizeof *group);
    uint64_t *smallest = vl_alloc((size_t)n + 1, sizeof *smallest);
    if (!group || !smallest)
        VL_GOTO(vl_fail_nomem(err, "split"));
    for (int64_t i = 0; i < n; i++)
        smallest[i] = UINT64_MAX;
    VL_GOTO(connect(group, samples, n, err));
    for (int64_t i = 0; i < n; i++) {
        uint64_t hash = vl_split_hash(seed, samples[i].n_images > 0 ? samples[i].image_sha256[0] : samples[i].key);
        if (hash < smallest[group[i]])
            smallest[group[i]] = hash;
    }
    for (int64_t i = 0; i < n; i++)
        heldout[i] = vl_split_is_heldout(smallest[group[i]], share);
done:
    vl_free(group);
    vl_free(smallest);
    return status;
}
