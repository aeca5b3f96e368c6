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

static vl_status differs(const char *path, const char *name, int64_t row, vl_error *err)
{
    return vl_fail(err, VL_EMISMATCH, "%s: %s[%lld] differs from the copy in the index", path, name, (long long)row);
}

/* A run of a shard's rows against those of the index. Samples are numbered anew there, so that they are compared by
 * what they say; pictures likewise. */
typedef struct run_check {
    const vl_cache *cache;
    const vl_cache_part *part;
    const vl_tables *mine; /* of the shard */
    const int32_t *row_of; /* [rows of the shard] row of the shard's /samples */
    const char *path;
} run_check;

static vl_status compare_sample(const run_check *c, int64_t mine, int64_t all, vl_error *err)
{
    const vl_sample_table *a = &c->mine->samples, *b = &c->cache->tables.samples;
    bool same = strcmp(a->prompt[mine], b->prompt[all]) == 0;
    if (same && a->key && b->key)
        same = strcmp(a->key[mine], b->key[all]) == 0;
    if (same && a->heldout && b->heldout)
        same = a->heldout[mine] == b->heldout[all];
    return same ? VL_OK : differs(c->path, "/samples", mine, err);
}

static vl_status compare_row(const run_check *c, int64_t i, int64_t k, vl_error *err)
{
    const vl_rows *mine = &c->mine->rows, *all = &c->cache->tables.rows;
    const vl_tables *whole = &c->cache->tables;
    if (mine->id[i] != all->id[k] || mine->next_id[i] != all->next_id[k] || mine->position[i] != all->position[k] ||
        mine->token_class[i] != all->token_class[k] ||
        memcmp(mine->patch + 3 * i, all->patch + 3 * k, 3 * sizeof *mine->patch) != 0 ||
        (mine->image[i] < 0) != (all->image[k] < 0) ||
        (mine->visible && all->visible && mine->visible[i] != all->visible[k]))
        return differs(c->path, "/tokens", i, err);
    if (mine->image[i] >= 0 && strcmp(c->mine->images.sha256[mine->image[i]], whole->images.sha256[all->image[k]]) != 0)
        return differs(c->path, "/images", mine->image[i], err);
    return VL_OK;
}

static vl_status compare_run(const run_check *c, vl_error *err)
{
    int32_t last = -1;
    if (c->part->offset + c->part->n > c->mine->rows.n)
        return vl_fail(err, VL_EMISMATCH, "%s: has fewer rows than the index says", c->path);
    for (int64_t i = 0; i < c->part->n; i++) {
        int64_t row = c->part->offset + i, in_cache = c->part->first + i;
        if (c->row_of[row] != last)
            VL_TRY(compare_sample(c, c->row_of[row], c->cache->sample_row[in_cache], err));
        last = c->row_of[row];
        VL_TRY(compare_row(c, row, in_cache, err));
    }
    return VL_OK;
}

static vl_status check_file(const vl_cache *cache, int64_t number, vl_error *err)
{
    const vl_cache_file *file = &cache->files[number];
    vl_shard_summary shard;
    VL_TRY(vl_shard_read(&shard, file->path, err));
    int32_t *row_of = vl_alloc((size_t)shard.n_tokens + 1, sizeof *row_of);
    vl_status status = row_of ? VL_OK : vl_fail_nomem(err, "verify");
    if (status == VL_OK)
        status = vl_tables_find_samples(row_of, file->file, &shard.tables.samples, shard.tables.rows.sample,
                                        shard.n_tokens, "/tokens/sample", err);
    for (int64_t i = 0; i < cache->n_parts && status == VL_OK; i++)
        if (cache->parts[i].file == number)
            status = compare_run(&(run_check){cache, &cache->parts[i], &shard.tables, row_of, file->path}, err);
    vl_free(row_of);
    vl_shard_summary_clear(&shard);
    return status;
}

/* The index copies the tables of the shards: both must say the same. */
static vl_status check_tables(vl_cache *cache, vl_error *err)
{
    for (int64_t i = 0; i < cache->n_files; i++)
        VL_TRY(check_file(cache, i, err));
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
    if (c.cache->files[0].uuid)
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
