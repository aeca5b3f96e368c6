#include "trainer/cache/h5.h"

#include <hdf5.h>

#include "trainer/base/mem.h"

static int64_t count_elements(vl_h5_shape shape)
{
    int64_t n = 1;
    for (int i = 0; i < shape.ndim; i++)
        n *= shape.size[i];
    return n;
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

/* Numbers lie in chunks of about 1 MiB with a Fletcher32 checksum. Texts and empty datasets are contiguous: a
 * checksum would cover only the references into the heap. */
static hid_t layout_for(vl_h5_type type, vl_h5_shape shape)
{
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(plist, 0);
    if (type == VL_H5_TEXT || count_elements(shape) == 0)
        return plist;
    hsize_t chunk[VL_H5_MAX_DIMS];
    int64_t row = 1;
    for (int i = 1; i < shape.ndim; i++) {
        chunk[i] = (hsize_t)shape.size[i];
        row *= shape.size[i];
    }
    int64_t rows = (1 << 20) / (row * (int64_t)vl_h5_type_size(type));
    if (rows < 1)
        rows = 1;
    chunk[0] = (hsize_t)(rows < shape.size[0] ? rows : shape.size[0]);
    H5Pset_chunk(plist, shape.ndim, chunk);
    H5Pset_fletcher32(plist);
    return plist;
}

/* HDF5 cannot store a NULL text. */
static const void *without_null(char ***copy, const void *data, int64_t n)
{
    static char empty[] = "";
    char *const *texts = data;
    *copy = vl_alloc((size_t)n, sizeof(char *));
    for (int64_t i = 0; *copy && i < n; i++)
        (*copy)[i] = texts[i] ? texts[i] : empty;
    return *copy;
}

vl_status vl_h5_write(vl_h5 file, const char *name, vl_h5_type type, vl_h5_shape shape, const void *data, vl_error *err)
{
    hsize_t size[VL_H5_MAX_DIMS];
    for (int i = 0; i < shape.ndim; i++)
        size[i] = (hsize_t)shape.size[i];
    vl_h5_quiet();
    char **texts = NULL;
    vl_status status = VL_OK;
    int64_t n = count_elements(shape);
    if (type == VL_H5_TEXT && n > 0 && !(data = without_null(&texts, data, n)))
        return vl_fail_nomem(err, name);
    vl_h5 element = vl_h5_make_type(type);
    hid_t space = H5Screate_simple(shape.ndim, size, NULL), plist = layout_for(type, shape);
    hid_t dataset = H5Dcreate2(file, name, element, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    if (dataset < 0 || (n > 0 && H5Dwrite(dataset, element, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0))
        status = vl_h5_fail(err, file, "cannot write %s", name);
    if (dataset >= 0 && H5Dclose(dataset) < 0 && status == VL_OK)
        status = vl_h5_fail(err, file, "cannot write %s", name);
    H5Pclose(plist);
    H5Sclose(space);
    vl_h5_close(&element);
    vl_free(texts);
    return status;
}

/* ---- states ------------------------------------------------------------------------------------------------ */

vl_status vl_h5_states_create(vl_h5_dataset *out, vl_h5 file, const vl_h5_states *states, vl_error *err)
{
    vl_h5_quiet();
    hsize_t size[3] = {(hsize_t)states->n_states, 0, (hsize_t)states->d_model};
    hsize_t most[3] = {size[0], H5S_UNLIMITED, size[2]};
    hsize_t chunk[3] = {1, (hsize_t)states->chunk_rows, size[2]};
    size_t chunk_bytes = (size_t)(chunk[1] * chunk[2]) * vl_dtype_size(states->dtype);
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE), access = H5Pcreate(H5P_DATASET_ACCESS);
    hid_t space = H5Screate_simple(3, size, most);
    vl_h5 type = vl_h5_make_type(vl_h5_type_of(states->dtype));
    H5Pset_obj_track_times(plist, 0);
    H5Pset_chunk(plist, 3, chunk);
    H5Pset_fletcher32(plist);
    /* The open chunk of every state stays in memory until it is full, so that each is written once. */
    H5Pset_chunk_cache(access, 10007, (size_t)(states->n_states + 1) * chunk_bytes, 1.0);
    *out = (vl_h5_dataset){.shape = {3, {states->n_states, 0, states->d_model}}, .is_float = true,
                           .dtype = states->dtype};
    out->id = H5Dcreate2(file, "/states", type, space, H5P_DEFAULT, plist, access);
    H5Pclose(plist);
    H5Pclose(access);
    H5Sclose(space);
    vl_h5_close(&type);
    return out->id < 0 ? vl_h5_fail(err, file, "cannot create /states") : VL_OK;
}

vl_status vl_h5_states_write(vl_h5_dataset *dataset, int64_t state, int64_t first, int64_t n, const void *data,
                             vl_error *err)
{
    hsize_t size[3] = {(hsize_t)dataset->shape.size[0], (hsize_t)(first + n), (hsize_t)dataset->shape.size[2]};
    hsize_t start[3] = {(hsize_t)state, (hsize_t)first, 0}, count[3] = {1, (hsize_t)n, size[2]};
    vl_h5_quiet();
    if (n == 0)
        return VL_OK;
    if (first + n > dataset->shape.size[1]) {
        if (H5Dset_extent(dataset->id, size) < 0)
            return vl_h5_fail(err, dataset->id, "cannot extend /states to %lld rows", (long long)(first + n));
        dataset->shape.size[1] = first + n;
    }
    vl_h5 type = vl_h5_make_type(vl_h5_type_of(dataset->dtype));
    hid_t space = H5Dget_space(dataset->id), memory = H5Screate_simple(3, count, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
    herr_t result = H5Dwrite(dataset->id, type, memory, space, H5P_DEFAULT, data);
    H5Sclose(space);
    H5Sclose(memory);
    vl_h5_close(&type);
    return result < 0 ? vl_h5_fail(err, dataset->id, "cannot write /states, state %lld", (long long)state) : VL_OK;
}

vl_status vl_h5_states_virtual(vl_h5 file, const vl_h5_states *states, const vl_h5_part *parts, int64_t n_parts,
                               vl_error *err)
{
    vl_h5_quiet();
    hsize_t size[3] = {(hsize_t)states->n_states, 0, (hsize_t)states->d_model};
    for (int64_t i = 0; i < n_parts; i++)
        size[1] += (hsize_t)parts[i].n;
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(3, size, NULL), dataset = -1;
    vl_h5 type = vl_h5_make_type(vl_h5_type_of(states->dtype));
    hsize_t start[3] = {0, 0, 0};
    bool fine = true;
    H5Pset_obj_track_times(plist, 0);
    for (int64_t i = 0; i < n_parts && fine; i++) {
        hsize_t count[3] = {size[0], (hsize_t)parts[i].n, size[2]};
        if (parts[i].n == 0)
            continue;
        hid_t source = H5Screate_simple(3, count, NULL);
        fine = H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
               H5Pset_virtual(plist, space, parts[i].file, "/states", source) >= 0;
        H5Sclose(source);
        start[1] += count[1];
    }
    H5Sselect_all(space);
    if (fine)
        dataset = H5Dcreate2(file, "/states", type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    vl_status status = dataset < 0 ? vl_h5_fail(err, file, "cannot create the virtual /states") : VL_OK;
    if (dataset >= 0)
        H5Dclose(dataset);
    H5Pclose(plist);
    H5Sclose(space);
    vl_h5_close(&type);
    return status;
}
