/* base/rng.h - xoshiro256** seeded by splitmix64 (Blackman and Vigna, "Scrambled Linear Pseudorandom Number
 * Generators", 2021). The state is four words: a checkpoint stores it as it is. */
#ifndef VL_BASE_RNG_H
#define VL_BASE_RNG_H

#include <stdint.h>

typedef struct vl_rng {
    uint64_t state[4];
} vl_rng;

void vl_rng_seed(vl_rng *rng, uint64_t seed);
uint64_t vl_rng_next(vl_rng *rng);
/* Uniform in [0, 1). */
double vl_rng_uniform(vl_rng *rng);
/* Uniform in [0, n), without bias; n > 0. */
uint64_t vl_rng_below(vl_rng *rng, uint64_t n);
/* Standard normal. */
double vl_rng_normal(vl_rng *rng);
/* A random order of 0..n-1 (Fisher-Yates). */
void vl_rng_permutation(vl_rng *rng, int64_t *out, int64_t n);

#endif
