/* cache/split.h - which samples are held out. A rule, not a draw: the same on every machine and in every language.
 *
 * u(key) = the first 8 bytes (big-endian) of sha256(decimal seed ':' key). A sample is held out iff u / 2^64 is below
 * the share. key = sha256 in hex of its first image's file, or the UTF-8 of its prompt. Samples that are connected
 * through shared images take the smallest u among them: no image is on both sides. */
#ifndef VL_CACHE_SPLIT_H
#define VL_CACHE_SPLIT_H

#include <stdbool.h>
#include <stdint.h>

#include "trainer/base/status.h"

typedef struct vl_split_sample {
    const char *key;                 /* used where there is no image */
    const char *const *image_sha256; /* [n_images] lower-case hex of the files */
    int n_images;
} vl_split_sample;

uint64_t vl_split_hash(int64_t seed, const char *key);
bool vl_split_is_heldout(uint64_t hash, double share);
/* heldout[i] = 1 or 0 for samples[i] of n. */
vl_status vl_split_assign(uint8_t *heldout, const vl_split_sample *samples, int64_t n, int64_t seed, double share,
                          vl_error *err);

#endif
