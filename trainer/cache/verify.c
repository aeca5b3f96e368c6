#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/half.h"
#include "trainer/base/mem.h"
#include "trainer/cache/index.h"
#include "trainer/cache/open.h"

enum { BLOCK_ROWS = 1024 };

typedef struct check {
    vl_cache *cache;
    const vl_observer *observer;
    void *block;         /* [BLOCK_ROWS, D] */
    int64_t done, total; /* rows of all states */
    int64_t n_nan, n_infinite;
    int64_t first_state, first_row; /* of the first value that is not finite */
} check;

/* ---- values ------------------------------------------------------------------------------------------------ */

static void count_values(check *c, int64_t state, int64_t first, int64_t n)
{
    int64_t d = c->cache->info.d_model;
    for (int64_t i = 0; i < n * d; i++) {
        float value = vl_widen_at(c->block, c->cache->info.dtype, (size_t)i);
        if (isfinite(value))
            continue;
        if (c->n_nan + c->n_infinite == 0) {
            c->first_state = state;
            c->first_row = first + i / d;
        }
        if (isnan(value))
            c->n_nan++;
        else
            c->n_infinite++;
    }
}

static vl_status report(check *c, int64_t n, vl_error *err)
{
    c->done += n;
    if (!c->observer || !c->observer->progress)
        return VL_OK;
    vl_progress progress = {"verify", "rows", c->done, c->total, (double)NAN};
    if (c->observer->progress(c->observer->user, &progress) != 0)
        return vl_fail(err, VL_ECANCELLED, "%s: the check was stopped", c->cache->path);
    return VL_OK;
}

static vl_status check_states(check *c, vl_error *err)
{
    const vl_cache_info *info = &c->cache->info;
    for (int64_t first = 0; first < info->n_tokens; first += BLOCK_ROWS) {
        int64_t n = info->n_tokens - first < BLOCK_ROWS ? info->n_tokens - first : BLOCK_ROWS;
        for (int64_t state = 0; state < info->n_states; state++) {
            VL_TRY(vl_cache_read(c->block, c->cache, state, first, n, err));
            count_values(c, state, first, n);
            VL_TRY(report(c, n, err));
        }
    }
    return VL_OK;
}

/* ---- tables ------------------------------------------------------------------------------------------------ */

static vl_status differs(const vl_cache_part *part, const char *name, int64_t row, vl_error *err)
{
    return vl_fail(err, VL_EMISMATCH, "%s: %s[%lld] differs from the copy in the index", part->path, name,
                   (long long)row);
}

static vl_status compare_rows(const vl_cache *cache, const vl_cache_part *part, const vl_rows *mine,
                              int64_t first_image, vl_error *err)
{
    const vl_rows *all = &cache->tables.rows;
    for (int64_t i = 0; i < mine->n; i++) {
        int64_t k = part->first + i;
        if (mine->id[i] != all->id[k] || mine->next_id[i] != all->next_id[k] || mine->position[i] != all->position[k] ||
            mine->sample[i] != all->sample[k] || mine->token_class[i] != all->token_class[k] ||
            memcmp(mine->patch + 3 * i, all->patch + 3 * k, 3 * sizeof *mine->patch) != 0 ||
            (mine->image[i] < 0 ? all->image[k] >= 0 : mine->image[i] + first_image != all->image[k]) ||
            (mine->visible && all->visible && mine->visible[i] != all->visible[k]))
            return differs(part, "/tokens", i, err);
    }
    return VL_OK;
}

static vl_status compare_rest(const vl_cache *cache, const vl_cache_part *part, const vl_tables *mine,
                              int64_t first_sample, int64_t first_image, vl_error *err)
{
    const vl_sample_table *samples = &cache->tables.samples;
    const vl_image_table *images = &cache->tables.images;
    if (first_sample + mine->samples.n > samples->n || first_image + mine->images.n > images->n)
        return vl_fail(err, VL_EMISMATCH, "%s: has more samples or images than the index", part->path);
    for (int64_t i = 0; i < mine->samples.n; i++)
        if (mine->samples.id[i] != samples->id[first_sample + i] ||
            mine->samples.heldout[i] != samples->heldout[first_sample + i] ||
            strcmp(mine->samples.prompt[i], samples->prompt[first_sample + i]) != 0)
            return differs(part, "/samples", i, err);
    for (int64_t i = 0; i < mine->images.n; i++)
        if (strcmp(mine->images.sha256[i], images->sha256[first_image + i]) != 0 ||
            mine->images.sample[i] != images->sample[first_image + i])
            return differs(part, "/images", i, err);
    return VL_OK;
}

/* The index copies the tables of the shards: both must say the same. */
static vl_status check_tables(vl_cache *cache, vl_error *err)
{
    int64_t first_sample = 0, first_image = 0;
    for (int64_t i = 0; i < cache->n_parts; i++) {
        vl_cache_part *part = &cache->parts[i];
        vl_shard_summary shard;
        VL_TRY(vl_shard_read(&shard, part->path, err));
        vl_status status = compare_rest(cache, part, &shard.tables, first_sample, first_image, err);
        if (status == VL_OK)
            status = compare_rows(cache, part, &shard.tables.rows, first_image, err);
        first_sample += shard.tables.samples.n;
        first_image += shard.tables.images.n;
        vl_shard_summary_clear(&shard);
        VL_TRY(status);
    }
    return VL_OK;
}

vl_status vl_cache_verify(const char *path, const vl_observer *observer, vl_error *err)
{
    vl_status status = VL_OK;
    check c = {.observer = observer};
    char line[200];
    VL_TRY(vl_cache_open(&c.cache, path, err));
    const vl_cache_info *info = &c.cache->info;
    c.total = info->n_tokens * info->n_states;
    c.block = vl_alloc((size_t)(BLOCK_ROWS * info->d_model), vl_dtype_size(info->dtype));
    if (!c.block)
        VL_GOTO(vl_fail_nomem(err, "verify"));
    if (c.cache->parts[0].uuid)
        VL_GOTO(check_tables(c.cache, err));
    if (c.cache->has_head)
        VL_GOTO(vl_cache_head_load(c.cache, err));
    VL_GOTO(check_states(&c, err));
    if (observer && observer->message && c.n_nan + c.n_infinite > 0) {
        snprintf(line, sizeof line, "%lld NaN and %lld infinite values in /states, the first in state %lld, row %lld",
                 (long long)c.n_nan, (long long)c.n_infinite, (long long)c.first_state, (long long)c.first_row);
        observer->message(observer->user, 1, line);
    }
done:
    vl_free(c.block);
    vl_cache_close(c.cache);
    return status;
}
