#include "trainer/cache/open.h"

#include <stdlib.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"

/* ---- shards ------------------------------------------------------------------------------------------------ */

/* A list of shards names files of its own folder and nothing else. */
static bool plain_name(const char *name)
{
    return name[0] && name[0] != '.' && !strchr(name, '/') && !strchr(name, '\\') && strlen(name) < 200;
}

static vl_status read_shard_list(vl_cache *cache, vl_error *err)
{
    vl_status status = VL_OK;
    vl_h5_dataset dataset;
    char **names = NULL, **uuids = NULL;
    int64_t *counts = NULL, first = 0, n;
    VL_TRY(vl_h5_dataset_open(&dataset, cache->index, "/shards/name", false, err));
    n = dataset.shape.size[0];
    vl_h5_dataset_close(&dataset);
    if (n < 1 || n > 1000000)
        return vl_h5_refuse(err, VL_EFORMAT, cache->index, "/shards/name has %lld entries", (long long)n);
    names = vl_calloc((size_t)n, sizeof *names);
    uuids = vl_calloc((size_t)n, sizeof *uuids);
    counts = vl_calloc((size_t)n, sizeof *counts);
    cache->parts = vl_calloc((size_t)n, sizeof *cache->parts);
    if (!names || !uuids || !counts || !cache->parts)
        VL_GOTO(vl_fail_nomem(err, "list of shards"));
    cache->n_parts = n;
    for (int64_t i = 0; i < n; i++)
        cache->parts[i].file = cache->parts[i].states.id = -1;
    vl_h5_column name = {"/shards/name", VL_H5_TEXT, {1, {n}}, 0, 0};
    vl_h5_column count = {"/shards/n_tokens", VL_H5_I64, {1, {n}}, 0, (int64_t)1 << 40};
    vl_h5_column uuid = {"/shards/uuid", VL_H5_TEXT, {1, {n}}, 0, 0};
    VL_GOTO(vl_h5_read(names, cache->index, &name, err));
    VL_GOTO(vl_h5_read(counts, cache->index, &count, err));
    VL_GOTO(vl_h5_read(uuids, cache->index, &uuid, err));
    for (int64_t i = 0; i < n; i++) {
        vl_cache_part *part = &cache->parts[i];
        if (!plain_name(names[i]))
            VL_GOTO(vl_h5_refuse(err, VL_EFORMAT, cache->index,
                                 "/shards/name[%lld] is \"%.60s\", expected the name "
                                 "of a file of the same folder",
                                 (long long)i, names[i]));
        part->path = vl_path_join(cache->path, names[i]);
        if (!part->path)
            VL_GOTO(vl_fail_nomem(err, names[i]));
        part->uuid = uuids[i];
        uuids[i] = NULL;
        part->first = first;
        part->n = counts[i];
        first += counts[i];
    }
    if (first != cache->info.n_tokens)
        status = vl_h5_refuse(err, VL_EFORMAT, cache->index,
                              "/shards/n_tokens adds up to %lld, but /states has %lld "
                              "rows",
                              (long long)first, (long long)cache->info.n_tokens);
done:
    for (int64_t i = 0; i < n; i++) {
        if (names)
            vl_free(names[i]);
        if (uuids)
            vl_free(uuids[i]);
    }
    vl_free(names);
    vl_free(uuids);
    vl_free(counts);
    return status;
}

static void close_part(vl_cache_part *part)
{
    vl_h5_dataset_close(&part->states);
    vl_h5_close(&part->file);
}

static void make_room(vl_cache *cache)
{
    vl_cache_part *oldest = NULL;
    int open = 0;
    for (int64_t i = 0; i < cache->n_parts; i++) {
        vl_cache_part *part = &cache->parts[i];
        if (part->file < 0)
            continue;
        open++;
        if (!oldest || part->used < oldest->used)
            oldest = part;
    }
    if (open >= VL_CACHE_OPEN_SHARDS)
        close_part(oldest);
}

static vl_status check_part(vl_cache *cache, vl_cache_part *part, vl_error *err)
{
    vl_cache_meta meta;
    const vl_cache_info *info = &cache->info;
    const int64_t *size = part->states.shape.size;
    VL_TRY(vl_meta_read(&meta, part->file, err));
    vl_status status = VL_OK;
    if (strcmp(meta.uuid, part->uuid) != 0)
        status = vl_h5_refuse(err, VL_EMISMATCH, part->file,
                              "uuid \"%s\", but the index lists \"%.36s\": this shard "
                              "belongs to another cache",
                              meta.uuid, part->uuid);
    else if (meta.fingerprint[0] && cache->meta.fingerprint[0] && strcmp(meta.fingerprint, cache->meta.fingerprint))
        status = vl_h5_refuse(err, VL_EMISMATCH, part->file, "fingerprint %s, but the index has %s", meta.fingerprint,
                              cache->meta.fingerprint);
    else if (size[0] != info->n_states || size[1] != part->n || size[2] != info->d_model)
        status = vl_h5_refuse(err, VL_EFORMAT, part->file,
                              "/states has shape [%lld, %lld, %lld], the index expects "
                              "[%lld, %lld, %lld]",
                              (long long)size[0], (long long)size[1], (long long)size[2], (long long)info->n_states,
                              (long long)part->n, (long long)info->d_model);
    else if (part->states.dtype != info->dtype)
        status = vl_h5_refuse(err, VL_EFORMAT, part->file, "/states is %s, the index expects %s",
                              vl_dtype_name(part->states.dtype), vl_dtype_name(info->dtype));
    vl_meta_clear(&meta);
    return status;
}

vl_status vl_cache_part_open(vl_cache *cache, vl_cache_part *part, vl_error *err)
{
    part->used = ++cache->clock;
    if (part->file >= 0)
        return VL_OK;
    make_room(cache);
    if (!vl_path_exists(part->path))
        return vl_fail(err, VL_EIO, "%s: shard is missing (the index %s lists it)", part->path, cache->index_path);
    VL_TRY(vl_h5_open(&part->file, part->path, err));
    vl_status status = vl_h5_states_open(&part->states, part->file, false, err);
    if (status == VL_OK && part->uuid)
        status = check_part(cache, part, err);
    if (status != VL_OK)
        close_part(part);
    return status;
}

/* A cache of one file: /states lies in the index itself. */
static vl_status single_part(vl_cache *cache, vl_error *err)
{
    cache->parts = vl_calloc(1, sizeof *cache->parts);
    if (!cache->parts)
        return vl_fail_nomem(err, "cache");
    cache->n_parts = 1;
    cache->parts[0] = (vl_cache_part){.n = cache->info.n_tokens, .file = -1, .states = {.id = -1}};
    cache->parts[0].path = vl_strdup(cache->index_path);
    return cache->parts[0].path ? VL_OK : vl_fail_nomem(err, "cache");
}

static vl_status open_parts(vl_cache *cache, bool is_virtual, vl_error *err)
{
    if (vl_h5_has(cache->index, "/shards")) {
        VL_TRY(read_shard_list(cache, err));
    } else {
        if (is_virtual)
            return vl_h5_refuse(err, VL_EFORMAT, cache->index,
                                "/states is virtual but there is no /shards that lists "
                                "its sources");
        VL_TRY(single_part(cache, err));
    }
    /* A source that is missing would read as zeros through the virtual dataset: each one is looked at. */
    for (int64_t i = 0; i < cache->n_parts; i++)
        VL_TRY(vl_cache_part_open(cache, &cache->parts[i], err));
    return VL_OK;
}

/* ---- the index --------------------------------------------------------------------------------------------- */

static vl_status open_states(vl_cache *cache, bool *is_virtual, vl_error *err)
{
    vl_h5_dataset states;
    VL_TRY(vl_h5_states_open(&states, cache->index, true, err));
    const int64_t *size = states.shape.size;
    vl_status status = VL_OK;
    if (size[0] != cache->meta.n_layers + 1 || size[2] != cache->meta.d_model)
        status = vl_h5_refuse(err, VL_EFORMAT, cache->index,
                              "/states has shape [%lld, %lld, %lld], expected "
                              "[n_layers + 1 = %lld, N, d_model = %lld]",
                              (long long)size[0], (long long)size[1], (long long)size[2],
                              (long long)cache->meta.n_layers + 1, (long long)cache->meta.d_model);
    else if (size[1] > (int64_t)1 << 40)
        status =
            vl_h5_refuse(err, VL_EFORMAT, cache->index, "/states has %lld rows, more than 2^40", (long long)size[1]);
    *is_virtual = states.is_virtual;
    cache->info.n_tokens = size[1];
    cache->info.n_states = size[0];
    cache->info.d_model = size[2];
    cache->info.dtype = states.dtype;
    vl_h5_dataset_close(&states);
    return status;
}

static vl_status read_tables(vl_cache *cache, vl_error *err)
{
    vl_tables *t = &cache->tables;
    VL_TRY(vl_tables_read(t, cache->index, cache->info.n_tokens, cache->meta.vocab_size, err));
    int64_t n = t->rows.n;
    cache->sample_row = vl_alloc((size_t)n + 1, sizeof *cache->sample_row);
    if (!cache->sample_row)
        return vl_fail_nomem(err, "cache tokens");
    VL_TRY(
        vl_tables_find_samples(cache->sample_row, cache->index, &t->samples, t->rows.sample, n, "/tokens/sample", err));
    cache->tokens = (vl_cache_tokens){.id = t->rows.id,
                                      .next_id = t->rows.next_id,
                                      .position = t->rows.position,
                                      .sample = t->rows.sample,
                                      .image = t->rows.image,
                                      .sample_row = cache->sample_row,
                                      .token_class = t->rows.token_class,
                                      .patch = (const int16_t(*)[3])t->rows.patch,
                                      .visible = t->rows.visible};
    cache->samples = (vl_cache_samples){.id = t->samples.id,
                                        .heldout = t->samples.heldout,
                                        .prompt = (const char *const *)t->samples.prompt,
                                        .answer = (const char *const *)t->samples.answer,
                                        .image_path = (const char *const *)t->images.path,
                                        .image_sha256 = (const char *const *)t->images.sha256,
                                        .image_sample = t->images.sample};
    return VL_OK;
}

static vl_status read_vocabulary(vl_cache *cache, vl_error *err)
{
    int64_t v = cache->meta.vocab_size;
    if (!vl_h5_has(cache->index, "/vocab/text"))
        return VL_OK;
    vl_h5_column column = {"/vocab/text", VL_H5_TEXT, {1, {v}}, 0, 0};
    char **pieces = vl_calloc((size_t)v, sizeof *pieces);
    if (!pieces)
        return vl_fail_nomem(err, "/vocab/text");
    vl_status status = vl_h5_read(pieces, cache->index, &column, err);
    if (status == VL_OK)
        cache->pieces = pieces;
    else
        vl_free(pieces);
    return status;
}

static void fill_info(vl_cache *cache)
{
    vl_cache_info *info = &cache->info;
    const vl_cache_meta *meta = &cache->meta;
    info->path = cache->path;
    info->vocab_size = meta->vocab_size;
    info->n_samples = cache->tables.samples.n;
    info->n_images = cache->tables.images.n;
    info->n_shards = cache->n_parts;
    info->fingerprint = cache->fingerprint;
    info->model_digest = meta->model_digest;
    info->rules = meta->rules ? meta->rules : "";
    info->model_manifest = meta->manifest ? meta->manifest : "";
    info->model_id = meta->model_id ? meta->model_id : "";
    info->model_type = meta->model_type ? meta->model_type : "";
    info->created = meta->created ? meta->created : "";
    info->vlens_version = meta->vlens_version ? meta->vlens_version : "";
    info->config = meta->config ? meta->config : "";
    info->has_head = cache->has_head;
    info->has_vocabulary = cache->pieces != NULL;
}

static vl_status set_paths(vl_cache *cache, const char *path, vl_error *err)
{
    if (vl_path_is_directory(path)) {
        cache->path = vl_strdup(path);
        cache->index_path = vl_path_join(path, "index.h5");
    } else {
        cache->path = vl_path_parent(path);
        cache->index_path = vl_strdup(path);
    }
    if (!cache->path || !cache->index_path)
        return vl_fail_nomem(err, path);
    if (!vl_path_exists(path))
        return vl_fail(err, VL_EIO, "%s: there is no such cache", path);
    if (!vl_path_exists(cache->index_path))
        return vl_fail(err, VL_EIO, "%s: no cache here, or not finished: index.h5 is missing", path);
    return VL_OK;
}

vl_status vl_cache_open(vl_cache **out, const char *path, vl_error *err)
{
    vl_status status = VL_OK;
    bool is_virtual;
    *out = NULL;
    vl_cache *cache = vl_calloc(1, sizeof *cache);
    if (!cache)
        return vl_fail_nomem(err, "cache");
    cache->index = -1;
    VL_GOTO(set_paths(cache, path, err));
    VL_GOTO(vl_h5_open(&cache->index, cache->index_path, err));
    VL_GOTO(vl_meta_read(&cache->meta, cache->index, err));
    VL_GOTO(open_states(cache, &is_virtual, err));
    VL_GOTO(read_tables(cache, err));
    VL_GOTO(open_parts(cache, is_virtual, err));
    VL_GOTO(read_vocabulary(cache, err));
    VL_GOTO(vl_cache_head_describe(cache, err));
    memcpy(cache->fingerprint, cache->meta.fingerprint, sizeof cache->fingerprint);
    if (!cache->fingerprint[0] && cache->has_head)
        VL_GOTO(vl_cache_head_load(cache, err));
    fill_info(cache);
    *out = cache;
done:
    if (status != VL_OK)
        vl_cache_close(cache);
    return status;
}

void vl_cache_close(vl_cache *cache)
{
    if (!cache)
        return;
    for (int64_t i = 0; i < cache->n_parts; i++) {
        close_part(&cache->parts[i]);
        vl_free(cache->parts[i].path);
        vl_free(cache->parts[i].uuid);
    }
    vl_free(cache->parts);
    vl_h5_close(&cache->index);
    for (int64_t i = 0; cache->pieces && i < cache->meta.vocab_size; i++)
        vl_free(cache->pieces[i]);
    vl_free(cache->pieces);
    for (int i = 0; i < 4; i++)
        vl_free(cache->head_memory[i]);
    vl_tables_clear(&cache->tables);
    vl_meta_clear(&cache->meta);
    vl_free(cache->sample_row);
    vl_free(cache->path);
    vl_free(cache->index_path);
    vl_free(cache);
}
