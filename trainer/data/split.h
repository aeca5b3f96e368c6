/* data/split.h - which samples are held out. A rule, not a draw: the same on every machine and in every language.
 *
 * u(key) = the first 8 bytes (big-endian) of sha256(decimal seed ':' key). A sample is held out iff u / 2^64 is below
 * the share. key = sha256 in hex of its first image's file, or the UTF-8 of its prompt. Samples that are connected
 * through shared images take the smallest u among them: no image is on both sides. */
#ifndef VL_DATA_SPLIT_H
#define VL_DATA_SPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trainer/base/status.h"

typedef struct vl_split_sample {
    const char *key;                 /* used where there is no image */
    const char *const *image_sha256; /* [n_images] lower-case hex of the files */
    int n_images;
} vl_split_sample;

/* One picture of one sample. */
typedef struct vl_split_use {
    const char *sha256; /* of its file */
    int64_t sample;
} vl_split_use;
/* group [n]: samples that are connected through shared pictures get the same number, that of the first among them.
 * `uses` is sorted on the way. */
void vl_split_connect(int64_t *group, int64_t n, vl_split_use *uses, size_t n_uses);

uint64_t vl_split_hash(int64_t seed, const char *key);
/* u / 2^64, rounded to nearest as Python's int / int. */
double vl_split_share(uint64_t hash);
bool vl_split_is_heldout(uint64_t hash, double share);
/* heldout[i] = 1 or 0 for samples[i] of n. */
vl_status vl_split_assign(uint8_t *heldout, const vl_split_sample *samples, int64_t n, int64_t seed, double share,
                          vl_error *err);

#endif
