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
