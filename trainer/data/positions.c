#include "trainer/data/positions.h"

#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/rng.h"
#include "trainer/base/sha256.h"

int64_t vl_positions_count(int64_t limit, int64_t available)
{
    return limit == VL_ALL || limit > available ? available : limit;
}

/* The generator depends on seed, sample and class alone: another limit of another class changes nothing here. */
static void seed_for(vl_rng *rng, int64_t seed, const char *key, int token_class)
{
    char text[160];
    uint8_t digest[VL_SHA256_BYTES];
    uint64_t value = 0;
    vl_sha256 hash;
    snprintf(text, sizeof text, "positions:%lld:%s:%s", (long long)seed, key,
             vl_token_class_name((vl_token_class)token_class));
    vl_sha256_init(&hash);
    vl_sha256_update(&hash, text, strlen(text));
    vl_sha256_final(&hash, digest);
    for (int i = 0; i < 8; i++)
        value = value << 8 | digest[i];
    vl_rng_seed(rng, value);
}

/* Marks `keep` of the n candidates by the first steps of a Fisher-Yates shuffle. */
static void draw(uint8_t *marks, int64_t *candidates, int64_t n, int64_t keep, vl_rng *rng)
{
    for (int64_t i = 0; i < keep; i++) {
        int64_t other = keep < n ? i + (int64_t)vl_rng_below(rng, (uint64_t)(n - i)) : i;
        int64_t chosen = candidates[other];
        candidates[other] = candidates[i];
        candidates[i] = chosen;
        marks[chosen] = 1;
    }
}

vl_status vl_positions_choose(int64_t *rows, int64_t *n, const vl_sequence *sequence,
                              const int64_t limits[VL_CLASS_COUNT], int64_t seed, const char *key, vl_error *err)
{
    int64_t total = sequence->n_tokens;
    uint8_t *marks = vl_calloc((size_t)total, 1);
    *n = 0;
    if (!marks)
        return vl_fail_nomem(err, "positions");
    for (int c = 0; c < VL_CLASS_COUNT; c++) {
        vl_rng rng;
        int64_t count = 0;
        for (int64_t t = 0; t < total; t++)
            if (sequence->token_class[t] == c)
                rows[count++] = t;
        seed_for(&rng, seed, key, c);
        draw(marks, rows, count, vl_positions_count(limits[c], count), &rng);
    }
    for (int64_t t = 0; t < total; t++)
        if (marks[t])
            rows[(*n)++] = t;
    vl_free(marks);
    return VL_OK;
}
