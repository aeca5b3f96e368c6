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

/* The file of that name, a new one where the list does not have it yet. Runs of one shard mostly follow each other. */
static vl_status find_file(int64_t *out, vl_cache *cache, const char *name, char **uuid, vl_error *err)
{
    char *path = vl_path_join(cache->path, name);
    if (!path)
        return vl_fail_nomem(err, name);
    int64_t i = cache->n_files - 1;
    while (i >= 0 && (strcmp(cache->files[i].path, path) != 0 || strcmp(cache->files[i].uuid, *uuid) != 0))
        i--;
    *out = i >= 0 ? i : cache->n_files;
    if (i >= 0) {
        vl_free(path);
        return VL_OK;
    }
    cache->files[cache->n_files++] = (vl_cache_file){.path = path, .uuid = *uuid, .file = -1, .states = {.id = -1}};
    *uuid = NULL;
    return VL_OK;
}

typedef struct shard_columns {
    char **names, **uuids;
    int64_t *counts, *firsts; /* [n] */
    int64_t n;
} shard_columns;

static void clear_columns(shard_columns *c)
{
    for (int64_t i = 0; i < c->n; i++) {
        if (c->names)
            vl_free(c->names[i]);
        if (c->uuids)
            vl_free(c->uuids[i]);
    }
    vl_free(c->names);
    vl_free(c->uuids);
    vl_free(c->counts);
    vl_free(c->firsts);
}

static vl_status read_columns(shard_columns *c, vl_cache *cache, vl_error *err)
{
    size_t n = (size_t)c->n;
    c->names = vl_calloc(n, sizeof *c->names);
    c->uuids = vl_calloc(n, sizeof *c->uuids);
    c->counts = vl_calloc(n, sizeof *c->counts);
    c->firsts = vl_calloc(n, sizeof *c->firsts);
    cache->parts = vl_calloc(n, sizeof *cache->parts);
    cache->files = vl_calloc(n, sizeof *cache->files);
    if (!c->names || !c->uuids || !c->counts || !c->firsts || !cache->parts || !cache->files)
        return vl_fail_nomem(err, "list of shards");
    vl_h5_column name = {"/shards/name", VL_H5_TEXT, {1, {c->n}}, 0, 0};
    vl_h5_column count = {"/shards/n_tokens", VL_H5_I64, {1, {c->n}}, 0, (int64_t)1 << 40};
    vl_h5_column first = {"/shards/first", VL_H5_I64, {1, {c->n}}, 0, (int64_t)1 << 40};
    vl_h5_column uuid = {"/shards/uuid", VL_H5_TEXT, {1, {c->n}}, 0, 0};
    VL_TRY(vl_h5_read(c->names, cache->index, &name, err));
    VL_TRY(vl_h5_read(c->counts, cache->index, &count, err));
    if (vl_h5_has(cache->index, first.name)) /* version 1: whole shards */
        VL_TRY(vl_h5_read(c->firsts, cache->index, &first, err));
    return vl_h5_read(c->uuids, cache->index, &uuid, err);
}

static vl_status add_part(vl_cache *cache, shard_columns *c, int64_t i, int64_t first, vl_error *err)
{
    vl_cache_part *part = &cache->parts[i];
    if (!plain_name(c->names[i]))
        return vl_h5_refuse(err, VL_EFORMAT, cache->index,
                            "/shards/name[%lld] is \"%.60s\", expected the name of a file of the same folder",
                            (long long)i, c->names[i]);
    *part = (vl_cache_part){.offset = c->firsts[i], .first = first, .n = c->counts[i]};
    VL_TRY(find_file(&part->file, cache, c->names[i], &c->uuids[i], err));
    vl_cache_file *file = &cache->files[part->file];
    file->n = part->offset + part->n > file->n ? part->offset + part->n : file->n;
    return VL_OK;
}

static vl_status read_shard_list(vl_cache *cache, vl_error *err)
{
    vl_status status = VL_OK;
    vl_h5_dataset dataset;
    int64_t first = 0;
    VL_TRY(vl_h5_dataset_open(&dataset, cache->index, "/shards/name", false, err));
    shard_columns c = {.n = dataset.shape.size[0]};
    vl_h5_dataset_close(&dataset);
    if (c.n < 1 || c.n > 10000000)
        return vl_h5_refuse(err, VL_EFORMAT, cache->index, "/shards/name has %lld entries", (long long)c.n);
    VL_GOTO(read_columns(&c, cache, err));
    for (int64_t i = 0; i < c.n; i++) {
        VL_GOTO(add_part(cache, &c, i, first, err));
        cache->n_parts++;
        first += c.counts[i];
    }
    if (first != cache->info.n_tokens)
        status =
            vl_h5_refuse(err, VL_EFORMAT, cache->index, "/shards/n_tokens adds up to %lld, but /states has %lld rows",
                         (long long)first, (long long)cache->info.n_tokens);
done:
    clear_columns(&c);
    return status;
}

static void close_file(vl_cache_file *file)
{
    vl_h5_dataset_close(&file->states);
    vl_h5_close(&file->file);
}

static void make_room(vl_cache *cache)
{
    vl_cache_file *oldest = NULL;
    int open = 0;
    for (int64_t i = 0; i < cache->n_files; i++) {
        vl_cache_file *file = &cache->files[i];
        if (file->file < 0)
            continue;
        open++;
        if (!oldest || file->used < oldest->used)
            oldest = file;
    }
    if (open >= VL_CACHE_OPEN_SHARDS)
        close_file(oldest);
}

static vl_status check_file(vl_cache *cache, vl_cache_file *file, vl_error *err)
{
    vl_cache_meta meta;
    const vl_cache_info *info = &cache->info;
    const int64_t *size = file->states.shape.size;
    VL_TRY(vl_meta_read(&meta, file->file, err));
    vl_status status = VL_OK;
    if (strcmp(meta.uuid, file->uuid) != 0)
        status = vl_h5_refuse(err, VL_EMISMATCH, file->file,
                              "uuid \"%s\", but the index lists \"%.36s\": this shard belongs to another cache",
                              meta.uuid, file->uuid);
    else if (meta.fingerprint[0] && cache->meta.fingerprint[0] && strcmp(meta.fingerprint, cache->meta.fingerprint))
        status = vl_h5_refuse(err, VL_EMISMATCH, file->file, "fingerprint %s, but the index has %s", meta.fingerprint,
                              cache->meta.fingerprint);
    else if (meta.model_digest[0] && cache->meta.model_digest[0] && strcmp(meta.model_digest, cache->meta.model_digest))
        status = vl_h5_refuse(err, VL_EMISMATCH, file->file, "model_digest %s, but the index has %s", meta.model_digest,
                              cache->meta.model_digest);
    else if (size[0] != info->n_states || size[1] < file->n || size[2] != info->d_model)
        status = vl_h5_refuse(err, VL_EFORMAT, file->file,
                              "/states has shape [%lld, %lld, %lld], the index expects [%lld, %lld, %lld]",
                              (long long)size[0], (long long)size[1], (long long)size[2], (long long)info->n_states,
                              (long long)file->n, (long long)info->d_model);
    else if (file->states.dtype != info->dtype)
        status = vl_h5_refuse(err, VL_EFORMAT, file->file, "/states is %s, the index expects %s",
                              vl_dtype_name(file->states.dtype), vl_dtype_name(info->dtype));
    vl_meta_clear(&meta);
    return status;
}

vl_status vl_cache_file_open(vl_cache *cache, vl_cache_file *file, vl_error *err)
{
    file->used = ++cache->clock;
    if (file->file >= 0)
        return VL_OK;
    make_room(cache);
    if (!vl_path_exists(file->path))
        return vl_fail(err, VL_EIO, "%s: shard is missing (the index %s lists it)", file->path, cache->index_path);
    VL_TRY(vl_h5_open(&file->file, file->path, err));
    vl_status status = vl_h5_states_open(&file->states, file->file, false, err);
    if (status == VL_OK && file->uuid)
        status = check_file(cache, file, err);
    if (status != VL_OK)
        close_file(file);
    return status;
}

/* A cache of one file: /states lies in the index itself. */
static vl_status single_part(vl_cache *cache, vl_error *err)
{
    cache->parts = vl_calloc(1, sizeof *cache->parts);
    cache->files = vl_calloc(1, sizeof *cache->files);
    if (!cache->parts || !cache->files)
        return vl_fail_nomem(err, "cache");
    cache->n_parts = cache->n_files = 1;
    cache->parts[0] = (vl_cache_part){.n = cache->info.n_tokens};
    cache->files[0] = (vl_cache_file){.n = cache->info.n_tokens, .file = -1, .states = {.id = -1}};
    cache->files[0].path = vl_strdup(cache->index_path);
    return cache->files[0].path ? VL_OK : vl_fail_nomem(err, "cache");
}

static vl_status open_files(vl_cache *cache, bool is_virtual, vl_error *err)
{
    if (vl_h5_has(cache->index, "/shards")) {
        VL_TRY(read_shard_list(cache, err));
    } else {
        if (is_virtual)
            return vl_h5_refuse(err, VL_EFORMAT, cache->index,
                                "/states is virtual but there is no /shards that lists its sources");
        VL_TRY(single_part(cache, err));
    }
    /* A source that is missing would read as zeros through the virtual dataset: each one is looked at. */
    for (int64_t i = 0; i < cache->n_files; i++)
        VL_TRY(vl_cache_file_open(cache, &cache->files[i], err));
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
    cache->heldout = vl_calloc((size_t)t->samples.n + 1, 1);
    if (!cache->sample_row || !cache->heldout)
        return vl_fail_nomem(err, "cache tokens");
    if (t->samples.heldout)
        memcpy(cache->heldout, t->samples.heldout, (size_t)t->samples.n);
    else if (cache->meta.version == 1)
        return vl_h5_refuse(err, VL_EFORMAT, cache->index, "/samples/split is missing");
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
                                      .turn = t->rows.turn,
                                      .visible = t->rows.visible};
    cache->samples = (vl_cache_samples){.id = t->samples.id,
                                        .heldout = cache->heldout,
                                        .key = (const char *const *)t->samples.key,
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
    info->n_shards = cache->n_files;
    info->n_skipped = meta->n_skipped;
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
    VL_GOTO(open_files(cache, is_virtual, err));
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
    for (int64_t i = 0; i < cache->n_files; i++) {
        close_file(&cache->files[i]);
        vl_free(cache->files[i].path);
        vl_free(cache->files[i].uuid);
    }
    vl_free(cache->files);
    vl_free(cache->parts);
    vl_free(cache->heldout);
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
