#include "tests/support/synthetic_cache.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/half.h"
#include "trainer/base/mem.h"
#include "trainer/base/rng.h"
#include "trainer/base/sha256.h"
#include "trainer/cache/index.h"
#include "trainer/cache/shard_writer.h"
#include "trainer/data/split.h"

typedef struct world {
    int64_t n_layers, n_samples, rows_per_sample, d, v;
    vl_dtype dtype;
    vl_rng rng;
    float *maps;                   /* [L, D, D]: state i+1 = state i + maps[i] state i + shifts[i] + noise */
    float *shifts;                 /* [L, D] */
    float *state, *next;           /* [rows, D] of one sample */
    void *stored;                  /* [rows, D] in dtype */
    void *weight;                  /* [V, D] in dtype */
    void *norm;                    /* [D] in dtype */
    char **pieces;                 /* [V] */
    uint8_t *heldout;              /* [S] */
    char (*sha256)[VL_SHA256_HEX]; /* [S] */
} world;

static void store(void *out, vl_dtype dtype, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (dtype == VL_BF16)
            ((uint16_t *)out)[i] = vl_f32_to_bf16(x[i]);
        else if (dtype == VL_F16)
            ((uint16_t *)out)[i] = vl_f32_to_f16(x[i]);
        else
            ((float *)out)[i] = x[i];
    }
}

static void fill_normal(float *out, int64_t n, vl_rng *rng, double scale)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)(scale * vl_rng_normal(rng));
}

static vl_status fill_head(world *w, vl_error *err)
{
    float *row = vl_alloc((size_t)w->d, sizeof *row);
    size_t bytes = (size_t)w->d * vl_dtype_size(w->dtype);
    if (!row)
        return vl_fail_nomem(err, "synthetic head");
    for (int64_t i = 0; i < w->v; i++) {
        char text[32];
        fill_normal(row, w->d, &w->rng, 2.0 / sqrt((double)w->d));
        store((char *)w->weight + (size_t)i * bytes, w->dtype, row, w->d);
        snprintf(text, sizeof text, " t%lld", (long long)i);
        w->pieces[i] = vl_strdup(text);
    }
    fill_normal(row, w->d, &w->rng, 0.1);
    for (int64_t i = 0; i < w->d; i++)
        row[i] += 1;
    store(w->norm, w->dtype, row, w->d);
    vl_free(row);
    return VL_OK;
}

static vl_status fill_split(world *w, vl_error *err)
{
    vl_split_sample *samples = vl_calloc((size_t)w->n_samples, sizeof *samples);
    const char **hashes = vl_calloc((size_t)w->n_samples, sizeof *hashes);
    vl_status status = samples && hashes ? VL_OK : vl_fail_nomem(err, "synthetic split");
    for (int64_t s = 0; status == VL_OK && s < w->n_samples; s++) {
        uint8_t digest[VL_SHA256_BYTES];
        vl_sha256 hash;
        vl_sha256_init(&hash);
        vl_sha256_update(&hash, &s, sizeof s);
        vl_sha256_final(&hash, digest);
        vl_sha256_hex(digest, w->sha256[s]);
        hashes[s] = w->sha256[s];
        samples[s] = (vl_split_sample){"", &hashes[s], 1};
    }
    if (status == VL_OK)
        status = vl_split_assign(w->heldout, samples, w->n_samples, 0, 0.25, err);
    vl_free(samples);
    vl_free(hashes);
    return status;
}

/* Advances w->state by one block. */
static void advance(world *w, int64_t layer)
{
    const float *map = w->maps + layer * w->d * w->d, *shift = w->shifts + layer * w->d;
    for (int64_t r = 0; r < w->rows_per_sample; r++) {
        const float *x = w->state + r * w->d;
        for (int64_t i = 0; i < w->d; i++) {
            float sum = x[i] + shift[i];
            for (int64_t k = 0; k < w->d; k++)
                sum += map[i * w->d + k] * x[k];
            w->next[r * w->d + i] = sum + (float)(0.05 * vl_rng_normal(&w->rng));
        }
    }
    float *swap = w->state;
    w->state = w->next;
    w->next = swap;
}

/* The tokens of one sample: a third image rows, then text, then one last row. */
static vl_status fill_tables(vl_tables *t, world *w, int64_t s, vl_error *err)
{
    int64_t n = w->rows_per_sample, n_image = n / 3;
    char text[48];
    VL_TRY(vl_rows_reserve(&t->rows, n, false, err));
    VL_TRY(vl_samples_reserve(&t->samples, 1, VL_COLUMN_ASKED | VL_COLUMN_SPLIT, err));
    VL_TRY(vl_images_reserve(&t->images, 1, err));
    for (int64_t r = 0; r < n; r++) {
        bool image = r < n_image;
        t->rows.id[r] = image ? (int32_t)w->v - 1 : (int32_t)vl_rng_below(&w->rng, (uint64_t)w->v - 1);
        t->rows.next_id[r] = -1;
        if (r > 0 && !image)
            t->rows.next_id[r - 1] = t->rows.id[r];
        t->rows.position[r] = (int32_t)r;
        t->rows.sample[r] = (int32_t)s;
        t->rows.token_class[r] = image ? 1 : r == n - 1 ? 2 : 0;
        t->rows.image[r] = image ? 0 : -1;
        t->rows.turn[r] = -1;
        t->rows.patch[3 * r] = image ? 0 : -1;
        t->rows.patch[3 * r + 1] = image ? (int16_t)(r / 4) : -1;
        t->rows.patch[3 * r + 2] = image ? (int16_t)(r % 4) : -1;
    }
    t->rows.n = n;
    snprintf(text, sizeof text, "question %lld \xc3\xa4?", (long long)s);
    t->samples.id[0] = s;
    t->samples.heldout[0] = w->heldout[s];
    t->samples.prompt[0] = vl_strdup(text);
    t->samples.answer[0] = vl_strdup(s % 2 ? "yes" : "no");
    snprintf(text, sizeof text, "images/%lld.png", (long long)s);
    t->images.path[0] = vl_strdup(text);
    t->images.sha256[0] = vl_strdup(w->sha256[s]);
    t->images.sample[0] = (int32_t)s;
    t->images.width[0] = t->images.height[0] = 64;
    t->samples.n = t->images.n = 1;
    return VL_OK;
}

static vl_status write_sample(vl_shard_writer *writer, world *w, int64_t sample, int64_t first, vl_error *err)
{
    vl_tables tables;
    int64_t n = w->rows_per_sample;
    memset(&tables, 0, sizeof tables);
    fill_normal(w->state, n * w->d, &w->rng, 1.0);
    vl_status status = fill_tables(&tables, w, sample, err);
    for (int64_t i = 0; status == VL_OK && i <= w->n_layers; i++) {
        store(w->stored, w->dtype, w->state, n * w->d);
        status = vl_shard_states(writer, i, first, n, w->stored, err);
        if (i < w->n_layers)
            advance(w, i);
    }
    if (status == VL_OK)
        status = vl_shard_tables(writer, &tables, err);
    vl_tables_clear(&tables);
    return status;
}

/* At least two shards where there are two samples, so that readers cross a border. */
static vl_status write_shards(int64_t *n_shards, const char *dir, world *w, const vl_cache_meta *meta, vl_error *err)
{
    int64_t per_shard = (w->n_samples + 1) / 2;
    *n_shards = 0;
    for (int64_t s = 0; s < w->n_samples; (*n_shards)++) {
        vl_shard_spec spec = {dir, *n_shards, meta, 64};
        vl_shard_writer *writer;
        VL_TRY(vl_shard_begin(&writer, &spec, err));
        for (int64_t k = 0; k < per_shard && s < w->n_samples; k++, s++) {
            vl_status status = write_sample(writer, w, s, k * w->rows_per_sample, err);
            if (status != VL_OK) {
                vl_shard_drop(writer);
                return status;
            }
        }
        VL_TRY(vl_shard_finish(writer, err));
    }
    return VL_OK;
}

static vl_status write_all(const char *dir, world *w, vl_error *err)
{
    static char id[] = "synthetic", type[] = "llama", settings[] = "{\"synthetic\": \"1\"}";
    int64_t n_shards;
    vl_head_source head = {.d_model = w->d,
                           .vocab_size = w->v,
                           .n_layers = w->n_layers,
                           .norm = VL_NORM_RMS,
                           .eps = 1e-5,
                           .weight_dtype = w->dtype,
                           .weight = w->weight,
                           .norm_dtype = w->dtype,
                           .norm_weight = w->norm};
    vl_cache_meta meta = {.d_model = w->d,
                          .n_layers = w->n_layers,
                          .vocab_size = w->v,
                          .dtype = w->dtype,
                          .model_id = id,
                          .model_type = type,
                          .settings = settings};
    VL_TRY(fill_head(w, err));
    VL_TRY(fill_split(w, err));
    fill_normal(w->maps, w->n_layers * w->d * w->d, &w->rng, 0.4 / sqrt((double)w->d));
    fill_normal(w->shifts, w->n_layers * w->d, &w->rng, 0.3);
    vl_head_fingerprint(meta.fingerprint, &head);
    VL_TRY(vl_make_directories(dir, err));
    VL_TRY(write_shards(&n_shards, dir, w, &meta, err));
    vl_index_spec index = {dir, &meta, n_shards, &head, (const char *const *)w->pieces, NULL};
    return vl_index_write(&index, err);
}

vl_status synthetic_cache_write(const char *dir, int64_t n_layers, int64_t n_samples, int64_t rows_per_sample,
                                int64_t d, int64_t v, vl_dtype dtype, uint64_t seed, vl_error *err)
{
    world w = {.n_layers = n_layers,
               .n_samples = n_samples,
               .rows_per_sample = rows_per_sample,
               .d = d,
               .v = v,
               .dtype = dtype};
    size_t rows = (size_t)(rows_per_sample * d), element = vl_dtype_size(dtype);
    vl_rng_seed(&w.rng, seed);
    w.maps = vl_alloc((size_t)(n_layers * d * d), sizeof(float));
    w.shifts = vl_alloc((size_t)(n_layers * d), sizeof(float));
    w.state = vl_alloc(rows, sizeof(float));
    w.next = vl_alloc(rows, sizeof(float));
    w.stored = vl_alloc(rows, element);
    w.weight = vl_alloc((size_t)(v * d), element);
    w.norm = vl_alloc((size_t)d, element);
    w.pieces = vl_calloc((size_t)v, sizeof(char *));
    w.heldout = vl_calloc((size_t)n_samples, 1);
    w.sha256 = vl_calloc((size_t)n_samples, VL_SHA256_HEX);
    bool all =
        w.maps && w.shifts && w.state && w.next && w.stored && w.weight && w.norm && w.pieces && w.heldout && w.sha256;
    vl_status status = all ? write_all(dir, &w, err) : vl_fail_nomem(err, "synthetic cache");
    for (int64_t i = 0; w.pieces && i < v; i++)
        vl_free(w.pieces[i]);
    void *blocks[] = {w.maps, w.shifts, w.state, w.next, w.stored, w.weight, w.norm, w.pieces, w.heldout, w.sha256};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        vl_free(blocks[i]);
    return status;
}
