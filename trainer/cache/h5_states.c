#include "trainer/cache/h5.h"

#include <hdf5.h>

/* ---- writing ----------------------------------------------------------------------------------------------- */

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
    *out = (vl_h5_dataset){.name = "/states",
                           .shape = {3, {states->n_states, 0, states->d_model}},
                           .is_float = true,
                           .dtype = states->dtype};
    out->id = H5Dcreate2(file, "/states", type, space, H5P_DEFAULT, plist, access);
    vl_status status = out->id < 0 ? vl_h5_fail(err, file, "cannot create /states") : VL_OK;
    H5Pclose(plist);
    H5Pclose(access);
    H5Sclose(space);
    vl_h5_close(&type);
    return status;
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
    vl_status status = VL_OK;
    if (H5Dwrite(dataset->id, type, memory, space, H5P_DEFAULT, data) < 0) /* the next call clears HDF5's message */
        status = vl_h5_fail(err, dataset->id, "cannot write /states, state %lld", (long long)state);
    H5Sclose(space);
    H5Sclose(memory);
    vl_h5_close(&type);
    return status;
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
        hsize_t whole[3] = {size[0], (hsize_t)parts[i].total, size[2]}, from[3] = {0, (hsize_t)parts[i].first, 0};
        hid_t source = H5Screate_simple(3, whole, NULL);
        fine = H5Sselect_hyperslab(source, H5S_SELECT_SET, from, NULL, count, NULL) >= 0 &&
               H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
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

/* ---- reading ----------------------------------------------------------------------------------------------- */

/* Memory for the chunks of all states of one row range, within reason. */
static void size_chunk_cache(hid_t access, vl_h5 file)
{
    enum { MOST = 128 << 20 };
    hsize_t chunk[VL_H5_MAX_DIMS] = {0}, size[VL_H5_MAX_DIMS] = {0};
    hid_t dataset = H5Dopen2(file, "/states", H5P_DEFAULT);
    if (dataset < 0)
        return;
    hid_t plist = H5Dget_create_plist(dataset), space = H5Dget_space(dataset), type = H5Dget_type(dataset);
    if (H5Pget_layout(plist) == H5D_CHUNKED && H5Sget_simple_extent_ndims(space) == 3) {
        H5Pget_chunk(plist, 3, chunk);
        H5Sget_simple_extent_dims(space, size, NULL);
        hsize_t bytes = chunk[0] * chunk[1] * chunk[2] * H5Tget_size(type);
        hsize_t states = chunk[0] ? (size[0] + chunk[0] - 1) / chunk[0] : 1;
        if (bytes > 0 && bytes <= MOST) /* a larger chunk is read past the cache */
            H5Pset_chunk_cache(access, 2003, (size_t)(states < MOST / bytes ? states * bytes : MOST), 1.0);
    }
    H5Pclose(plist);
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(dataset);
}

vl_status vl_h5_states_open(vl_h5_dataset *out, vl_h5 file, bool allow_virtual, vl_error *err)
{
    VL_TRY(vl_h5_dataset_open(out, file, "/states", allow_virtual, err));
    vl_status status = VL_OK;
    if (out->shape.ndim != 3)
        status =
            vl_h5_refuse(err, VL_EFORMAT, file, "/states has %d dimensions, expected 3: [L+1, N, D]", out->shape.ndim);
    else if (out->dtype == VL_F64)
        status = vl_h5_refuse(err, VL_EFORMAT, file,
                              "/states has an element type other than bfloat16, float16 and "
                              "float32");
    if (status == VL_OK && !out->is_virtual) {
        hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
        size_chunk_cache(access, file);
        H5Dclose(out->id);
        out->id = H5Dopen2(file, "/states", access);
        H5Pclose(access);
        if (out->id < 0)
            status = vl_h5_fail(err, file, "cannot open /states");
    }
    if (status != VL_OK)
        vl_h5_dataset_close(out);
    return status;
}

vl_status vl_h5_states_read(void *out, const vl_h5_dataset *dataset, int64_t state, int64_t first, int64_t n,
                            vl_error *err)
{
    hsize_t start[3] = {(hsize_t)state, (hsize_t)first, 0};
    hsize_t count[3] = {1, (hsize_t)n, (hsize_t)dataset->shape.size[2]};
    vl_h5_quiet();
    if (n == 0)
        return VL_OK;
    vl_h5 type = vl_h5_make_type(vl_h5_type_of(dataset->dtype));
    hid_t space = H5Dget_space(dataset->id), memory = H5Screate_simple(3, count, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
    vl_status status = VL_OK;
    if (H5Dread(dataset->id, type, memory, space, H5P_DEFAULT, out) < 0)
        status = vl_h5_fail(err, dataset->id, "cannot read /states, state %lld, rows %lld to %lld", (long long)state,
                            (long long)first, (long long)(first + n));
    H5Sclose(space);
    H5Sclose(memory);
    vl_h5_close(&type);
    return status;
}
