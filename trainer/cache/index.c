#include "trainer/cache/index.h"

#include <string.h>
#include <unistd.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/str.h"

/* ---- one shard --------------------------------------------------------------------------------------------- */

vl_status vl_shard_read(vl_shard_summary *out, const char *path, vl_error *err)
{
    vl_status status = VL_OK;
    vl_h5 file = -1;
    vl_h5_dataset states = {.id = -1};
    memset(out, 0, sizeof *out);
    VL_GOTO(vl_h5_open(&file, path, err));
    VL_GOTO(vl_meta_read(&out->meta, file, err));
    VL_GOTO(vl_h5_states_open(&states, file, false, err));
    if (states.shape.size[0] != out->meta.n_layers + 1 || states.shape.size[2] != out->meta.d_model)
        VL_GOTO(vl_h5_refuse(err, VL_EFORMAT, file, "/states has shape [%lld, N, %lld], expected [%lld, N, %lld]",
                             (long long)states.shape.size[0], (long long)states.shape.size[2],
                             (long long)out->meta.n_layers + 1, (long long)out->meta.d_model));
    out->meta.dtype = states.dtype;
    out->n_tokens = states.shape.size[1];
    VL_GOTO(vl_tables_read(&out->tables, file, out->n_tokens, out->meta.vocab_size, err));
done:
    vl_h5_dataset_close(&states);
    vl_h5_close(&file);
    if (status != VL_OK)
        vl_shard_summary_clear(out);
    return status;
}

void vl_shard_summary_clear(vl_shard_summary *summary)
{
    vl_meta_clear(&summary->meta);
    vl_tables_clear(&summary->tables);
    summary->n_tokens = 0;
}

/* ---- the index --------------------------------------------------------------------------------------------- */

typedef struct shard_list {
    vl_tables tables; /* of all shards */
    int64_t n;
    char **names, **uuids; /* [n] owned */
    int64_t *n_tokens;     /* [n] */
} shard_list;

static void clear_list(shard_list *list)
{
    for (int64_t i = 0; i < list->n; i++) {
        if (list->names)
            vl_free(list->names[i]);
        if (list->uuids)
            vl_free(list->uuids[i]);
    }
    vl_free(list->names);
    vl_free(list->uuids);
    vl_free(list->n_tokens);
    vl_tables_clear(&list->tables);
}

static vl_status add_shard(shard_list *list, const vl_index_spec *spec, int64_t number, vl_error *err)
{
    char name[VL_SHARD_NAME_SIZE];
    vl_shard_summary shard;
    vl_shard_name(name, number);
    char *path = vl_path_join(spec->directory, name);
    if (!path)
        return vl_fail_nomem(err, name);
    vl_status status = vl_shard_read(&shard, path, err);
    if (status == VL_OK && (shard.meta.d_model != spec->meta->d_model || shard.meta.n_layers != spec->meta->n_layers ||
                            shard.meta.dtype != spec->meta->dtype))
        status = vl_fail(err, VL_EMISMATCH, "%s: its sizes or element type differ from those of the cache", path);
    if (status == VL_OK)
        status = vl_tables_append(&list->tables, &shard.tables, err);
    if (status == VL_OK) {
        list->names[number] = vl_strdup(name);
        list->uuids[number] = vl_strdup(shard.meta.uuid);
        list->n_tokens[number] = shard.n_tokens;
        if (!list->names[number] || !list->uuids[number])
            status = vl_fail_nomem(err, name);
    }
    vl_shard_summary_clear(&shard);
    vl_free(path);
    return status;
}

static vl_status read_list(shard_list *list, const vl_index_spec *spec, vl_error *err)
{
    memset(list, 0, sizeof *list);
    list->n = spec->n_shards;
    list->names = vl_calloc((size_t)list->n + 1, sizeof *list->names);
    list->uuids = vl_calloc((size_t)list->n + 1, sizeof *list->uuids);
    list->n_tokens = vl_calloc((size_t)list->n + 1, sizeof *list->n_tokens);
    if (!list->names || !list->uuids || !list->n_tokens)
        return vl_fail_nomem(err, "list of shards");
    for (int64_t i = 0; i < list->n; i++)
        VL_TRY(add_shard(list, spec, i, err));
    return VL_OK;
}

static vl_status write_states(vl_h5 file, const vl_index_spec *spec, const shard_list *list, vl_error *err)
{
    vl_h5_states states = {spec->meta->n_layers + 1, spec->meta->d_model, spec->meta->dtype, 0};
    vl_h5_part *parts = vl_alloc((size_t)list->n + 1, sizeof *parts);
    if (!parts)
        return vl_fail_nomem(err, "list of shards");
    for (int64_t i = 0; i < list->n; i++)
        parts[i] = (vl_h5_part){list->names[i], list->n_tokens[i]};
    vl_status status = vl_h5_states_virtual(file, &states, parts, list->n, err);
    vl_free(parts);
    return status;
}

static vl_status write_shards(vl_h5 file, const shard_list *list, vl_error *err)
{
    vl_h5_shape shape = {1, {list->n}};
    VL_TRY(vl_h5_make_group(file, "/shards", err));
    VL_TRY(vl_h5_write(file, "/shards/name", VL_H5_TEXT, shape, list->names, err));
    VL_TRY(vl_h5_write(file, "/shards/n_tokens", VL_H5_I64, shape, list->n_tokens, err));
    return vl_h5_write(file, "/shards/uuid", VL_H5_TEXT, shape, list->uuids, err);
}

static vl_status write_head(vl_h5 file, const vl_head_source *head, vl_error *err)
{
    vl_h5_shape matrix = {2, {head->vocab_size, head->d_model}}, rows = {1, {head->vocab_size}};
    vl_h5_shape columns = {1, {head->d_model}};
    vl_h5_type weight = vl_h5_type_of(head->weight_dtype), norm = vl_h5_type_of(head->norm_dtype);
    VL_TRY(vl_h5_make_group(file, "/head", err));
    VL_TRY(vl_h5_put_text(file, "/head", "norm", head->norm == VL_NORM_LAYER ? "layer" : "rms", err));
    VL_TRY(vl_h5_put_double(file, "/head", "eps", head->eps, err));
    VL_TRY(vl_h5_write(file, "/head/weight", weight, matrix, head->weight, err));
    if (head->bias)
        VL_TRY(vl_h5_write(file, "/head/bias", weight, rows, head->bias, err));
    VL_TRY(vl_h5_write(file, "/head/norm_weight", norm, columns, head->norm_weight, err));
    if (head->norm_bias)
        VL_TRY(vl_h5_write(file, "/head/norm_bias", norm, columns, head->norm_bias, err));
    return VL_OK;
}

static vl_status write_contents(vl_h5 file, const vl_index_spec *spec, const shard_list *list, vl_error *err)
{
    VL_TRY(vl_meta_write(file, spec->meta, err));
    VL_TRY(write_states(file, spec, list, err));
    VL_TRY(vl_tables_write(file, &list->tables, err));
    if (spec->head)
        VL_TRY(write_head(file, spec->head, err));
    if (spec->pieces) {
        vl_h5_shape shape = {1, {spec->meta->vocab_size}};
        VL_TRY(vl_h5_make_group(file, "/vocab", err));
        VL_TRY(vl_h5_write(file, "/vocab/text", VL_H5_TEXT, shape, spec->pieces, err));
    }
    VL_TRY(write_shards(file, list, err));
    return vl_meta_complete(file, spec->meta, err);
}

vl_status vl_index_write(const vl_index_spec *spec, vl_error *err)
{
    vl_status status = VL_OK;
    shard_list list;
    vl_h5 file = -1;
    vl_str temporary = VL_STR_INIT;
    char *path = vl_path_join(spec->directory, "index.h5");
    vl_str_printf(&temporary, "%s.tmp-%ld", path ? path : "", (long)getpid());
    VL_GOTO(read_list(&list, spec, err));
    if (!path || temporary.failed)
        VL_GOTO(vl_fail_nomem(err, "index.h5"));
    VL_GOTO(vl_h5_create(&file, temporary.data, err));
    VL_GOTO(write_contents(file, spec, &list, err));
    VL_GOTO(vl_h5_finish(&file, err));
    VL_GOTO(vl_publish_file(temporary.data, path, err));
done:
    vl_h5_close(&file);
    if (status != VL_OK && temporary.data)
        unlink(temporary.data);
    clear_list(&list);
    vl_str_clear(&temporary);
    vl_free(path);
    return status;
}
