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

void vl_index_rows_clear(vl_index_rows *rows)
{
    vl_tables_clear(&rows->tables);
    vl_free(rows->runs);
    *rows = (vl_index_rows){.n = 0};
}

vl_status vl_index_add_run(vl_index_rows *rows, const vl_index_run *run, vl_error *err)
{
    vl_index_run *last = rows->n > 0 ? &rows->runs[rows->n - 1] : NULL;
    if (last && last->shard == run->shard && last->first + last->n == run->first) {
        last->n += run->n;
        return VL_OK;
    }
    if (rows->n == rows->capacity) {
        int64_t capacity = rows->capacity ? 2 * rows->capacity : 16;
        vl_index_run *grown = vl_realloc(rows->runs, (size_t)capacity, sizeof *grown);
        if (!grown)
            return vl_fail_nomem(err, "list of shards");
        rows->runs = grown;
        rows->capacity = capacity;
    }
    rows->runs[rows->n++] = *run;
    return VL_OK;
}

static vl_status add_shard(vl_index_rows *rows, const vl_index_spec *spec, int64_t number, vl_error *err)
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
        status = vl_tables_append(&rows->tables, &shard.tables, err);
    vl_index_run run = {.shard = number, .n = shard.n_tokens, .total = shard.n_tokens};
    memcpy(run.uuid, shard.meta.uuid, sizeof run.uuid);
    if (status == VL_OK)
        status = vl_index_add_run(rows, &run, err);
    vl_shard_summary_clear(&shard);
    vl_free(path);
    return status;
}

/* The columns of /shards in memory. */
typedef struct run_columns {
    char (*names)[VL_SHARD_NAME_SIZE];
    const char **name, **uuid;
    int64_t *n, *first;
} run_columns;

static void clear_columns(run_columns *c)
{
    vl_free(c->names);
    vl_free(c->name);
    vl_free(c->uuid);
    vl_free(c->n);
    vl_free(c->first);
}

static vl_status fill_columns(run_columns *c, const vl_index_rows *rows, vl_error *err)
{
    size_t n = (size_t)rows->n + 1;
    *c = (run_columns){vl_alloc(n, sizeof *c->names), vl_alloc(n, sizeof *c->name), vl_alloc(n, sizeof *c->uuid),
                       vl_alloc(n, sizeof *c->n), vl_alloc(n, sizeof *c->first)};
    if (!c->names || !c->name || !c->uuid || !c->n || !c->first)
        return vl_fail_nomem(err, "list of shards");
    for (int64_t i = 0; i < rows->n; i++) {
        vl_shard_name(c->names[i], rows->runs[i].shard);
        c->name[i] = c->names[i];
        c->uuid[i] = rows->runs[i].uuid;
        c->n[i] = rows->runs[i].n;
        c->first[i] = rows->runs[i].first;
    }
    return VL_OK;
}

static vl_status write_states(vl_h5 file, const vl_index_spec *spec, const vl_index_rows *rows, const run_columns *c,
                              vl_error *err)
{
    vl_h5_states states = {spec->meta->n_layers + 1, spec->meta->d_model, spec->meta->dtype, 0};
    vl_h5_part *parts = vl_alloc((size_t)rows->n + 1, sizeof *parts);
    if (!parts)
        return vl_fail_nomem(err, "list of shards");
    for (int64_t i = 0; i < rows->n; i++)
        parts[i] = (vl_h5_part){c->name[i], c->n[i], c->first[i], rows->runs[i].total};
    vl_status status = vl_h5_states_virtual(file, &states, parts, rows->n, err);
    vl_free(parts);
    return status;
}

static vl_status write_shards(vl_h5 file, int64_t n, const run_columns *c, vl_error *err)
{
    vl_h5_shape shape = {1, {n}};
    VL_TRY(vl_h5_make_group(file, "/shards", err));
    VL_TRY(vl_h5_write(file, "/shards/name", VL_H5_TEXT, shape, c->name, err));
    VL_TRY(vl_h5_write(file, "/shards/n_tokens", VL_H5_I64, shape, c->n, err));
    VL_TRY(vl_h5_write(file, "/shards/first", VL_H5_I64, shape, c->first, err));
    return vl_h5_write(file, "/shards/uuid", VL_H5_TEXT, shape, c->uuid, err);
}

static vl_status write_head(vl_h5 file, const vl_head_source *head, vl_error *err)
{
    vl_h5_shape matrix = {2, {head->vocab_size, head->d_model}}, rows = {1, {head->vocab_size}};
    vl_h5_shape columns = {1, {head->d_model}};
    vl_h5_type weight = vl_h5_type_of(head->weight_dtype), norm = vl_h5_type_of(head->norm_dtype);
    VL_TRY(vl_h5_make_group(file, "/head", err));
    VL_TRY(vl_h5_put_text(file, "/head", "norm", vl_norm_name(head->norm), err));
    if (head->softcap > 0)
        VL_TRY(vl_h5_put_double(file, "/head", "softcap", head->softcap, err));
    VL_TRY(vl_h5_put_double(file, "/head", "eps", head->eps, err));
    VL_TRY(vl_h5_write(file, "/head/weight", weight, matrix, head->weight, err));
    if (head->bias)
        VL_TRY(vl_h5_write(file, "/head/bias", weight, rows, head->bias, err));
    VL_TRY(vl_h5_write(file, "/head/norm_weight", norm, columns, head->norm_weight, err));
    if (head->norm_bias)
        VL_TRY(vl_h5_write(file, "/head/norm_bias", norm, columns, head->norm_bias, err));
    return VL_OK;
}

static vl_status write_contents(vl_h5 file, const vl_index_spec *spec, const vl_index_rows *rows, const run_columns *c,
                                vl_error *err)
{
    VL_TRY(vl_meta_write(file, spec->meta, err));
    VL_TRY(write_states(file, spec, rows, c, err));
    VL_TRY(vl_tables_write(file, &rows->tables, err));
    if (spec->head)
        VL_TRY(write_head(file, spec->head, err));
    if (spec->pieces) {
        vl_h5_shape shape = {1, {spec->meta->vocab_size}};
        VL_TRY(vl_h5_make_group(file, "/vocab", err));
        VL_TRY(vl_h5_write(file, "/vocab/text", VL_H5_TEXT, shape, spec->pieces, err));
    }
    VL_TRY(write_shards(file, rows->n, c, err));
    return vl_meta_complete(file, spec->meta, err);
}

vl_status vl_index_write(const vl_index_spec *spec, vl_error *err)
{
    vl_status status = VL_OK;
    vl_index_rows all = {.n = 0};
    const vl_index_rows *rows = spec->rows ? spec->rows : &all;
    run_columns columns = {NULL};
    vl_h5 file = -1;
    vl_str temporary = VL_STR_INIT;
    char *path = vl_path_join(spec->directory, "index.h5");
    vl_str_printf(&temporary, "%s.tmp-%ld", path ? path : "", (long)getpid());
    for (int64_t i = 0; !spec->rows && i < spec->n_shards; i++)
        VL_GOTO(add_shard(&all, spec, i, err));
    VL_GOTO(fill_columns(&columns, rows, err));
    if (!path || temporary.failed)
        VL_GOTO(vl_fail_nomem(err, "index.h5"));
    VL_GOTO(vl_h5_create(&file, temporary.data, err));
    VL_GOTO(write_contents(file, spec, rows, &columns, err));
    VL_GOTO(vl_h5_finish(&file, err));
    VL_GOTO(vl_publish_file(temporary.data, path, err));
done:
    vl_h5_close(&file);
    if (status != VL_OK && temporary.data)
        unlink(temporary.data);
    vl_index_rows_clear(&all);
    clear_columns(&columns);
    vl_str_clear(&temporary);
    vl_free(path);
    return status;
}
