/* seen.c - what a lens was fitted on: digests of its samples and pictures, so that rows which it has seen are not
 * called held out.
 *
 * Kept in the metadata of the file as hexadecimal digits, 16 for each (the first 64 bits of a sample's key or of a
 * picture's sha256), sorted and without separators: `fitted_samples`, `fitted_pictures`. The part that a fit sets aside
 * to choose by counts as seen. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"
#include "trainer/lens/lens.h"

enum { DIGITS = 16 };

static int by_digits(const void *a, const void *b)
{
    return memcmp(a, b, DIGITS);
}

/* Of a sample without a key (caches of version 1 and of others): its prompt stands for it. */
static void sample_digits(char out[DIGITS + 1], const vl_cache_samples *samples, int64_t i)
{
    char hex[VL_SHA256_HEX];
    uint8_t digest[VL_SHA256_BYTES];
    vl_sha256 hash;
    if (samples->key && samples->key[i][0]) {
        snprintf(out, DIGITS + 1, "%.16s", samples->key[i]);
        return;
    }
    vl_sha256_init(&hash);
    vl_sha256_update(&hash, samples->prompt[i], strlen(samples->prompt[i]));
    vl_sha256_final(&hash, digest);
    vl_sha256_hex(digest, hex);
    snprintf(out, DIGITS + 1, "%.16s", hex);
}

/* Sorts n entries in place, and leaves each once; returns how many there are. */
static int64_t sort_once(char *list, int64_t n)
{
    int64_t kept = 0;
    if (n > 0)
        qsort(list, (size_t)n, DIGITS, by_digits);
    for (int64_t i = 0; i < n; i++)
        if (kept == 0 || memcmp(list + (kept - 1) * DIGITS, list + i * DIGITS, DIGITS) != 0)
            memmove(list + kept++ * DIGITS, list + i * DIGITS, DIGITS);
    return kept;
}

/* The samples (or their pictures) of one side of the split: *n entries of DIGITS characters, sorted, NUL at the end. */
typedef struct side {
    char *samples, *pictures;
    int64_t n_samples, n_pictures;
} side;

static void clear(side *s)
{
    vl_free(s->samples);
    vl_free(s->pictures);
}

static int by_id(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Row of /samples of every picture. */
static vl_status find_owners(int64_t **out, const vl_cache_info *info, const vl_cache_samples *samples, vl_error *err)
{
    typedef struct numbered {
        int64_t id, row;
    } numbered;
    numbered *list = vl_alloc((size_t)info->n_samples + 1, sizeof *list);
    *out = vl_alloc((size_t)info->n_images + 1, sizeof **out);
    if (!list || !*out) {
        vl_free(list);
        return vl_fail_nomem(err, "samples of a lens");
    }
    for (int64_t i = 0; i < info->n_samples; i++)
        list[i] = (numbered){samples->id[i], i};
    qsort(list, (size_t)info->n_samples, sizeof *list, by_id); /* by its first member */
    for (int64_t k = 0; k < info->n_images; k++) {
        numbered key = {samples->image_sample[k], 0};
        const numbered *found = bsearch(&key, list, (size_t)info->n_samples, sizeof *list, by_id);
        (*out)[k] = found ? found->row : 0;
    }
    vl_free(list);
    return VL_OK;
}

static vl_status collect(side *s, const vl_cache *cache, vl_sample_side wanted, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    const vl_cache_samples *samples = vl_cache_get_samples(cache);
    int64_t *owner = NULL;
    size_t n = (size_t)info->n_samples + 1, n_images = (size_t)info->n_images + 1;
    *s = (side){vl_calloc(n, DIGITS), vl_calloc(n_images, DIGITS), 0, 0};
    if (!s->samples || !s->pictures)
        return vl_fail_nomem(err, "samples of a lens");
    VL_TRY(find_owners(&owner, info, samples, err));
    for (int64_t k = 0; k < info->n_images; k++) {
        if (samples->heldout[owner[k]] == wanted && strlen(samples->image_sha256[k]) >= DIGITS)
            memcpy(s->pictures + s->n_pictures++ * DIGITS, samples->image_sha256[k], DIGITS);
    }
    vl_free(owner);
    for (int64_t i = 0; i < info->n_samples; i++) {
        char digits[DIGITS + 1];
        if (samples->heldout[i] != wanted)
            continue;
        sample_digits(digits, samples, i);
        memcpy(s->samples + s->n_samples++ * DIGITS, digits, DIGITS);
    }
    s->n_pictures = sort_once(s->pictures, s->n_pictures);
    s->n_samples = sort_once(s->samples, s->n_samples);
    s->pictures[s->n_pictures * DIGITS] = s->samples[s->n_samples * DIGITS] = 0;
    return VL_OK;
}

vl_status vl_lens_remember(char **samples, char **pictures, const vl_cache *cache, vl_error *err)
{
    side s;
    *samples = *pictures = NULL;
    vl_status status = collect(&s, cache, VL_SAMPLE_TRAIN, err);
    if (status == VL_OK) {
        *samples = s.samples;
        *pictures = s.pictures;
        s.samples = s.pictures = NULL;
    }
    clear(&s);
    return status;
}

/* How many of n entries a list holds. */
static int64_t count_common(const char *entries, int64_t n, const char *list)
{
    int64_t common = 0;
    size_t length = strlen(list) / DIGITS;
    for (int64_t i = 0; i < n; i++)
        common += bsearch(entries + i * DIGITS, list, length, DIGITS, by_digits) != NULL;
    return common;
}

vl_status vl_lens_check_seen(vl_lens_seen *out, const vl_lens *lens, const vl_cache *cache, bool allow_seen,
                             vl_error *err)
{
    side s = {NULL};
    const char *samples = vl_safetensors_metadata(lens->file, "fitted_samples");
    const char *pictures = vl_safetensors_metadata(lens->file, "fitted_pictures");
    *out = (vl_lens_seen){.known = samples != NULL};
    if (!samples)
        return VL_OK;
    vl_status status = collect(&s, cache, VL_SAMPLE_HELDOUT, err);
    if (status == VL_OK) {
        out->pictures = s.n_pictures > 0;
        out->of = out->pictures ? s.n_pictures : s.n_samples;
        out->seen = count_common(out->pictures ? s.pictures : s.samples, out->of,
                                 out->pictures ? (pictures ? pictures : "") : samples);
    }
    clear(&s);
    if (status != VL_OK || out->seen == 0 || allow_seen)
        return status;
    return vl_fail(err, VL_EMISMATCH,
                   "%lld of %lld held-out %s were in this lens' training split (%s): evaluate with the data.seed and "
                   "data.heldout that it was fitted with; --allow-seen evaluates and records it",
                   (long long)out->seen, (long long)out->of, out->pictures ? "pictures" : "samples", lens->path);
}
