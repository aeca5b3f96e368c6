#include "trainer/base/rng.h"

#include <math.h>

void vl_rng_seed(vl_rng *rng, uint64_t seed)
{
    for (int i = 0; i < 4; i++) { /* splitmix64 */
        uint64_t z = (seed += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        rng->state[i] = z ^ (z >> 31);
    }
}

static uint64_t rotate_left(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

uint64_t vl_rng_next(vl_rng *rng)
{
    uint64_t *s = rng->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

double vl_rng_uniform(vl_rng *rng)
{
    return (double)(vl_rng_next(rng) >> 11) * 0x1p-53;
}

uint64_t vl_rng_below(vl_rng *rng, uint64_t n)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % n, x;
    do
        x = vl_rng_next(rng);
    while (x >= limit);
    return x % n;
}

double vl_rng_normal(vl_rng *rng)
{
    double radius = sqrt(-2.0 * log(1.0 - vl_rng_uniform(rng)));
    return radius * cos(6.283185307179586 * vl_rng_uniform(rng));
}

void vl_rng_permutation(vl_rng *rng, int64_t *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t j = (int64_t)vl_rng_below(rng, (uint64_t)i + 1);
        out[i] = out[j];
        out[j] = i;
    }
}
