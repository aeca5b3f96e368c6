#include "trainer/cache/shard_writer.h"

#include <string.h>
#include <unistd.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/str.h"

struct vl_shard_writer {
    char *path, *temporary;
    vl_h5 file;
    vl_h5_dataset states;
    vl_cache_meta meta;          /* strings borrowed from the spec */
    const vl_cache_meta *source; /* of the spec: the model's identity may become known before the end */
    vl_tables tables;
    int64_t number;
};

static void free_writer(vl_shard_writer *writer)
{
    vl_h5_dataset_close(&writer->states);
    vl_h5_close(&writer->file);
    vl_tables_clear(&writer->tables);
    vl_free(writer->path);
    vl_free(writer->temporary);
    vl_free(writer);
}

void vl_shard_drop(vl_shard_writer *writer)
{
    if (!writer)
        return;
    vl_h5_dataset_close(&writer->states);
    vl_h5_close(&writer->file);
    if (writer->temporary)
        unlink(writer->temporary);
    free_writer(writer);
}

vl_status vl_shard_begin(vl_shard_writer **out, const vl_shard_spec *spec, vl_error *err)
{
    vl_status status = VL_OK;
    char name[VL_SHARD_NAME_SIZE];
    vl_str temporary = VL_STR_INIT;
    *out = NULL;
    vl_shard_writer *writer = vl_calloc(1, sizeof *writer);
    if (!writer)
        return vl_fail_nomem(err, "shard writer");
    writer->file = writer->states.id = -1;
    writer->meta = *spec->meta;
    writer->source = spec->meta;
    writer->number = spec->number;
    vl_shard_name(name, spec->number);
    writer->path = vl_path_join(spec->directory, name);
    vl_str_printf(&temporary, "%s.tmp-%ld", writer->path ? writer->path : "", (long)getpid());
    writer->temporary = temporary.data;
    if (!writer->path || temporary.failed)
        VL_GOTO(vl_fail_nomem(err, name));
    VL_GOTO(vl_h5_create(&writer->file, writer->temporary, err));
    VL_GOTO(vl_meta_write(writer->file, &writer->meta, err));
    vl_h5_states states = {writer->meta.n_layers + 1, writer->meta.d_model, writer->meta.dtype,
                           spec->chunk_rows > 0 ? spec->chunk_rows : 256};
    VL_GOTO(vl_h5_states_create(&writer->states, writer->file, &states, err));
    *out = writer;
done:
    if (status != VL_OK)
        vl_shard_drop(writer);
    return status;
}

vl_status vl_shard_states(vl_shard_writer *writer, int64_t state, int64_t first, int64_t n, const void *data,
                          vl_error *err)
{
    return vl_h5_states_write(&writer->states, state, first, n, data, err);
}

vl_status vl_shard_tables(vl_shard_writer *writer, const vl_tables *tables, vl_error *err)
{
    return vl_tables_append(&writer->tables, tables, err);
}

/* What is known last: the samples, and the model's identity. */
static vl_status complete(vl_shard_writer *writer, vl_error *err)
{
    vl_cache_meta meta = *writer->source;
    const vl_sample_table *samples = &writer->tables.samples;
    vl_shard_uuid(meta.uuid, meta.settings ? meta.settings : "", writer->number, samples->key, samples->n);
    return vl_meta_complete(writer->file, &meta, err);
}

vl_status vl_shard_finish(vl_shard_writer *writer, vl_error *err)
{
    vl_status status = VL_OK;
    if (writer->states.shape.size[1] != writer->tables.rows.n)
        VL_GOTO(vl_fail(err, VL_EINTERNAL, "%s: %lld rows of states but %lld tokens", writer->path,
                        (long long)writer->states.shape.size[1], (long long)writer->tables.rows.n));
    VL_GOTO(vl_tables_write(writer->file, &writer->tables, err));
    vl_h5_dataset_close(&writer->states);
    VL_GOTO(complete(writer, err));
    VL_GOTO(vl_h5_finish(&writer->file, err));
    VL_GOTO(vl_publish_file(writer->temporary, writer->path, err));
done:
    if (status != VL_OK)
        vl_shard_drop(writer);
    else
        free_writer(writer);
    return status;
}
