#include "trainer/cache/h5.h"

#include <hdf5.h>
#include <string.h>

#include "trainer/base/mem.h"

enum { MAX_TEXT = 16 << 20 };

/* Creates or replaces a scalar attribute. */
static vl_status put(vl_h5 file, const char *object, const char *name, hid_t type, const void *value, vl_error *err)
{
    vl_h5_quiet();
    vl_status status = VL_OK;
    hid_t space = H5Screate(H5S_SCALAR), attribute = -1;
    if (vl_h5_has_attribute(file, object, name))
        H5Adelete_by_name(file, object, name, H5P_DEFAULT);
    attribute = H5Acreate_by_name(file, object, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0 || H5Awrite(attribute, type, value) < 0)
        status = vl_h5_fail(err, file, "cannot write attribute %s of %s", name, object);
    if (attribute >= 0)
        H5Aclose(attribute);
    H5Sclose(space);
    return status;
}

vl_status vl_h5_put_int(vl_h5 file, const char *object, const char *name, int64_t value, vl_error *err)
{
    hid_t type = H5Tcopy(H5T_STD_I64LE);
    vl_status status = put(file, object, name, type, &value, err);
    H5Tclose(type);
    return status;
}

vl_status vl_h5_put_double(vl_h5 file, const char *object, const char *name, double value, vl_error *err)
{
    hid_t type = H5Tcopy(H5T_IEEE_F64LE);
    vl_status status = put(file, object, name, type, &value, err);
    H5Tclose(type);
    return status;
}

vl_status vl_h5_put_text(vl_h5 file, const char *object, const char *name, const char *value, vl_error *err)
{
    /* A long text (the configuration) goes to the heap: an attribute in the object header holds 64 KiB at most. */
    vl_h5 type = vl_h5_make_type(VL_H5_TEXT);
    vl_status status = put(file, object, name, type, &value, err);
    vl_h5_close(&type);
    return status;
}

bool vl_h5_has_attribute(vl_h5 file, const char *object, const char *name)
{
    vl_h5_quiet();
    return vl_h5_has(file, object) && H5Aexists_by_name(file, object, name, H5P_DEFAULT) > 0;
}

/* Opens a scalar attribute (or one of a single element) of the wanted class. */
static vl_status open_attribute(vl_h5 *out, vl_h5 file, const char *object, const char *name, H5T_class_t class,
                                vl_error *err)
{
    static const char *const words[] = {"an integer", "a float", "", "a text"};
    vl_h5_quiet();
    *out = -1;
    if (!vl_h5_has_attribute(file, object, name))
        return vl_h5_refuse(err, VL_EFORMAT, file, "attribute \"%s\" of %s is missing", name, object);
    *out = H5Aopen_by_name(file, object, name, H5P_DEFAULT, H5P_DEFAULT);
    if (*out < 0)
        return vl_h5_fail(err, file, "cannot open attribute \"%s\" of %s", name, object);
    hid_t space = H5Aget_space(*out), type = H5Aget_type(*out);
    H5T_class_t found = H5Tget_class(type);
    if (found == H5T_ENUM) /* h5py writes True as an enum */
        found = H5T_INTEGER;
    bool fits = H5Sget_simple_extent_npoints(space) == 1 && found == class && H5Tget_size(type) <= MAX_TEXT;
    H5Sclose(space);
    H5Tclose(type);
    if (fits)
        return VL_OK;
    vl_h5_close(out);
    return vl_h5_refuse(err, VL_EFORMAT, file, "attribute \"%s\" of %s is not %s", name, object, words[class]);
}

vl_status vl_h5_get_int(int64_t *out, vl_h5 file, const char *object, const char *name, vl_error *err)
{
    vl_h5 attribute;
    VL_TRY(open_attribute(&attribute, file, object, name, H5T_INTEGER, err));
    vl_status status = VL_OK;
    if (H5Aread(attribute, H5T_NATIVE_INT64, out) < 0)
        status = vl_h5_fail(err, file, "cannot read attribute \"%s\" of %s", name, object);
    vl_h5_close(&attribute);
    return status;
}

vl_status vl_h5_get_double(double *out, vl_h5 file, const char *object, const char *name, vl_error *err)
{
    vl_h5 attribute;
    VL_TRY(open_attribute(&attribute, file, object, name, H5T_FLOAT, err));
    vl_status status = VL_OK;
    if (H5Aread(attribute, H5T_NATIVE_DOUBLE, out) < 0)
        status = vl_h5_fail(err, file, "cannot read attribute \"%s\" of %s", name, object);
    vl_h5_close(&attribute);
    return status;
}

vl_status vl_h5_get_text(char **out, vl_h5 file, const char *object, const char *name, vl_error *err)
{
    vl_h5 attribute;
    *out = NULL;
    VL_TRY(open_attribute(&attribute, file, object, name, H5T_STRING, err));
    vl_status status = VL_OK;
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    if (H5Tis_variable_str(type) > 0) {
        char *text = NULL;
        if (H5Aread(attribute, type, &text) < 0)
            status = vl_h5_fail(err, file, "cannot read attribute \"%s\" of %s", name, object);
        else if (!(*out = vl_strdup(text ? text : "")))
            status = vl_fail_nomem(err, name);
        if (text)
            H5Dvlen_reclaim(type, space, H5P_DEFAULT, &text);
    } else {
        size_t size = H5Tget_size(type);
        *out = vl_calloc(size + 1, 1);
        if (!*out)
            status = vl_fail_nomem(err, name);
        else if (H5Aread(attribute, type, *out) < 0)
            status = vl_h5_fail(err, file, "cannot read attribute \"%s\" of %s", name, object);
    }
    H5Tclose(type);
    H5Sclose(space);
    vl_h5_close(&attribute);
    if (status != VL_OK) {
        vl_free(*out);
        *out = NULL;
    }
    return status;
}
