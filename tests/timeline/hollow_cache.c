/* A cache of full size whose states and head are holes: for dry runs, where nobody looks at a number.
 *
 *     hollow_cache OUT D V LAYERS ROWS float16|bfloat16 */
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/cache/h5.h"

enum { ROWS_PER_SAMPLE = 256 };

typedef struct size {
    long long d, v, layers, rows;
    vl_dtype dtype;
} size;

/* The last row is written, and so one chunk is: readers refuse files that hold far less than they promise. */
static vl_status write_states(vl_h5 file, const size *s, vl_error *err)
{
    vl_h5_dataset states;
    vl_h5_states shape = {.n_states = s->layers + 1, .d_model = s->d, .dtype = s->dtype, .chunk_rows = ROWS_PER_SAMPLE};
    void *row = vl_calloc((size_t)s->d, 2);
    vl_status status = row ? vl_h5_states_create(&states, file, &shape, err) : vl_fail_nomem(err, "row");
    if (status == VL_OK)
        status = vl_h5_states_write(&states, 0, s->rows - 1, 1, row, err);
    if (row && status == VL_OK)
        vl_h5_dataset_close(&states);
    vl_free(row);
    return status;
}

static vl_status write_weight(vl_h5 file, const size *s, vl_error *err)
{
    hsize_t shape[2] = {(hsize_t)s->v, (hsize_t)s->d}, chunk[2] = {256, (hsize_t)s->d};
    hsize_t start[2] = {0, 0}, count[2] = {1, (hsize_t)s->d};
    void *row = vl_calloc((size_t)s->d, 2);
    vl_h5 type = vl_h5_make_type(vl_h5_type_of(s->dtype));
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(2, shape, NULL);
    hid_t memory = H5Screate_simple(2, count, NULL);
    H5Pset_chunk(plist, 2, chunk);
    hid_t dataset = H5Dcreate2(file, "/head/weight", type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
    vl_status status = VL_OK;
    if (!row || dataset < 0 || H5Dwrite(dataset, type, memory, space, H5P_DEFAULT, row) < 0)
        status = vl_h5_fail(err, file, "cannot write /head/weight");
    H5Dclose(dataset);
    H5Sclose(space);
    H5Sclose(memory);
    H5Pclose(plist);
    vl_h5_close(&type);
    vl_free(row);
    return status;
}

static vl_status write_head(vl_h5 file, const size *s, vl_error *err)
{
    float *ones = vl_alloc((size_t)s->d, sizeof *ones);
    if (!ones)
        return vl_fail_nomem(err, "norm");
    for (long long i = 0; i < s->d; i++)
        ones[i] = 1;
    vl_status status = vl_h5_make_group(file, "/head", err);
    if (status == VL_OK)
        status = vl_h5_write(file, "/head/norm_weight", VL_H5_F32, (vl_h5_shape){1, {s->d}}, ones, err);
    vl_free(ones);
    VL_TRY(status);
    VL_TRY(write_weight(file, s, err));
    VL_TRY(vl_h5_put_text(file, "/head", "norm", "rms", err));
    return vl_h5_put_double(file, "/head", "eps", 1e-5, err);
}

/* Text but for the last row of each sample. */
static vl_status write_column(vl_h5 file, const char *name, vl_h5_type type, const size *s, int64_t columns,
                              vl_error *err)
{
    int64_t n = s->rows * columns;
    unsigned char *all = vl_calloc((size_t)n, 4);
    if (!all)
        return vl_fail_nomem(err, name);
    for (int64_t i = 0; i < n; i++) {
        int32_t place = (int32_t)(i % ROWS_PER_SAMPLE), value = -1;
        if (!strcmp(name, "/tokens/class"))
            all[i] = place == ROWS_PER_SAMPLE - 1 ? 2 : 0;
        if (!strcmp(name, "/tokens/sample"))
            value = (int32_t)(i / ROWS_PER_SAMPLE);
        else if (strcmp(name, "/tokens/image") != 0)
            value = place;
        if (type == VL_H5_I32)
            memcpy(all + 4 * i, &value, sizeof value);
        else if (type == VL_H5_I16)
            memset(all + 2 * i, 0xff, 2);
    }
    vl_status status = vl_h5_write(file, name, type, (vl_h5_shape){columns > 1 ? 2 : 1, {s->rows, columns}}, all, err);
    vl_free(all);
    return status;
}

static vl_status write_tables(vl_h5 file, const size *s, vl_error *err)
{
    static char prompt[] = "prompt";
    static const char *const columns[] = {"/tokens/id", "/tokens/next_id", "/tokens/position", "/tokens/sample",
                                          "/tokens/image"};
    int64_t n = s->rows / ROWS_PER_SAMPLE;
    int64_t *ids = vl_alloc((size_t)n, sizeof *ids);
    char **prompts = vl_alloc((size_t)n, sizeof *prompts);
    unsigned char *split = vl_calloc((size_t)n, 1);
    vl_status status = ids && prompts && split ? VL_OK : vl_fail_nomem(err, "tables");
    for (int64_t i = 0; status == VL_OK && i < n; i++) {
        ids[i] = i;
        prompts[i] = prompt;
    }
    VL_GOTO(status);
    VL_GOTO(vl_h5_make_group(file, "/tokens", err));
    VL_GOTO(vl_h5_make_group(file, "/samples", err));
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        VL_GOTO(write_column(file, columns[i], VL_H5_I32, s, 1, err));
    VL_GOTO(write_column(file, "/tokens/class", VL_H5_CLASS, s, 1, err));
    VL_GOTO(write_column(file, "/tokens/patch", VL_H5_I16, s, 3, err));
    VL_GOTO(vl_h5_write(file, "/samples/id", VL_H5_I64, (vl_h5_shape){1, {n}}, ids, err));
    VL_GOTO(vl_h5_write(file, "/samples/split", VL_H5_SPLIT, (vl_h5_shape){1, {n}}, split, err));
    VL_GOTO(vl_h5_write(file, "/samples/prompt", VL_H5_TEXT, (vl_h5_shape){1, {n}}, prompts, err));
done:
    vl_free(ids);
    vl_free(prompts);
    vl_free(split);
    return status;
}

static vl_status write_file(vl_h5 file, const size *s, vl_error *err)
{
    VL_TRY(vl_h5_put_text(file, "/", "format", "vlens-cache", err));
    VL_TRY(vl_h5_put_int(file, "/", "version", 1, err));
    VL_TRY(vl_h5_put_int(file, "/", "d_model", s->d, err));
    VL_TRY(vl_h5_put_int(file, "/", "n_layers", s->layers, err));
    VL_TRY(vl_h5_put_int(file, "/", "vocab_size", s->v, err));
    VL_TRY(write_states(file, s, err));
    VL_TRY(write_head(file, s, err));
    VL_TRY(write_tables(file, s, err));
    return vl_h5_put_int(file, "/", "complete", 1, err);
}

int main(int argc, char **argv)
{
    vl_error error = VL_ERROR_INIT;
    vl_h5 file = -1;
    char path[4096];
    if (argc != 7) {
        fprintf(stderr, "usage: hollow_cache OUT D V LAYERS ROWS float16|bfloat16\n");
        return 2;
    }
    size s = {atoll(argv[2]), atoll(argv[3]), atoll(argv[4]), atoll(argv[5]),
              strcmp(argv[6], "float16") == 0 ? VL_F16 : VL_BF16};
    snprintf(path, sizeof path, "%s/index.h5", argv[1]);
    vl_status status = vl_make_directories(argv[1], &error);
    if (status == VL_OK)
        status = vl_h5_create(&file, path, &error);
    if (status == VL_OK)
        status = write_file(file, &s, &error);
    if (status == VL_OK)
        status = vl_h5_finish(&file, &error);
    if (status != VL_OK)
        fprintf(stderr, "%s\n", error.message);
    return status != VL_OK;
}
