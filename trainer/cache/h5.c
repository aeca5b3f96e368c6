#include "trainer/cache/h5.h"

#include <hdf5.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trainer/base/mem.h"

_Static_assert(sizeof(hid_t) == sizeof(vl_h5), "HDF5 1.10 or later");

/* ---- errors ------------------------------------------------------------------------------------------------ */

void vl_h5_quiet(void)
{
    /* HDF5's own exit handler crashes on a file whose last write failed (1.10.8, a full disk); all files are closed
     * by hand here. */
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

typedef struct stack_text {
    char text[200];
} stack_text;

/* The walk goes from the innermost call outwards: the first message says what really went wrong. */
static herr_t take_first(unsigned n, const H5E_error2_t *error, void *user)
{
    static const char mark[] = "error message = '";
    stack_text *out = user;
    if (n != 0 || !error->desc)
        return 0;
    /* "file write failed: time = ..., errno = 28, error message = 'No space left on device', buf = ...": two parts of
     * it are for people. */
    const char *system = strstr(error->desc, mark);
    if (system)
        snprintf(out->text, sizeof out->text, "%.*s: %.*s", (int)strcspn(error->desc, ":"), error->desc,
                 (int)strcspn(system + sizeof mark - 1, "'"), system + sizeof mark - 1);
    else
        snprintf(out->text, sizeof out->text, "%s", error->desc);
    return 0;
}

static void file_name(char *out, size_t size, vl_h5 object)
{
    out[0] = 0;
    if (object < 0 || H5Fget_name(object, out, size) < 0)
        snprintf(out, size, "HDF5");
}

vl_status vl_h5_fail(vl_error *err, vl_h5 object, const char *format, ...)
{
    stack_text stack = {""};
    char text[240], name[220];
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, &stack);
    H5Eclear2(H5E_DEFAULT);
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    file_name(name, sizeof name, object);
    return vl_fail(err, VL_EIO, "%s: %s%s%s", name, text, stack.text[0] ? ": " : "", stack.text);
}

vl_status vl_h5_refuse(vl_error *err, vl_status status, vl_h5 object, const char *format, ...)
{
    char text[280], name[220];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    file_name(name, sizeof name, object);
    return vl_fail(err, status, "%s: %s", name, text);
}

/* ---- files ------------------------------------------------------------------------------------------------- */

/* Properties of opening. Without `locking` no lock is asked for: some network file systems have none. The environment
 * variable HDF5_USE_FILE_LOCKING, which the HDF5 library reads, goes before. */
static hid_t access_list(bool locking)
{
    hid_t plist = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_file_locking(plist, locking, true);
    return plist;
}

static void take_stack(stack_text *stack)
{
    stack->text[0] = 0;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, stack);
    H5Eclear2(H5E_DEFAULT);
}

static hid_t open_or_create(const char *path, hid_t creation, bool locking, stack_text *stack)
{
    hid_t access = access_list(locking);
    hid_t file =
        creation >= 0 ? H5Fcreate(path, H5F_ACC_TRUNC, creation, access) : H5Fopen(path, H5F_ACC_RDONLY, access);
    if (file < 0)
        take_stack(stack); /* before the next call clears it */
    H5Pclose(access);
    return file;
}

typedef enum lock_fault { LOCK_FINE = 0, LOCK_HELD, LOCK_MISSING } lock_fault;

/* Whether a file could not be opened because of its lock: held by another, or not to be had on this file system. */
static lock_fault find_lock_fault(const stack_text *stack)
{
    if (strstr(stack->text, "file locking flag values don't match")) /* it is open already, without a lock */
        return LOCK_MISSING;
    if (!strstr(stack->text, "unable to lock file"))
        return LOCK_FINE;
    return strstr(stack->text, strerror(EWOULDBLOCK)) ? LOCK_HELD : LOCK_MISSING;
}

/* Locks as far as there are any. creation >= 0: a new file. */
static vl_status open_file(vl_h5 *out, const char *path, hid_t creation, vl_error *err)
{
    stack_text stack;
    lock_fault fault = LOCK_FINE;
    *out = open_or_create(path, creation, true, &stack);
    if (*out < 0 && (fault = find_lock_fault(&stack)) == LOCK_MISSING) {
        *out = open_or_create(path, creation, false, &stack);
        fault = *out < 0 ? find_lock_fault(&stack) : LOCK_FINE;
    }
    if (*out >= 0)
        return VL_OK;
    if (fault != LOCK_FINE)
        return vl_fail(err, VL_EBUSY,
                       "%s: locked: another program has it open for writing (where that is not so, "
                       "HDF5_USE_FILE_LOCKING=FALSE opens it without a lock)",
                       path);
    if (creation >= 0)
        return vl_fail(err, VL_EIO, "%s: cannot create: %s", path, stack.text);
    return vl_fail(err, VL_EFORMAT, "%s: cannot be opened as an HDF5 file: %s", path, stack.text);
}

vl_status vl_h5_create(vl_h5 *out, const char *path, vl_error *err)
{
    vl_h5_quiet();
    hid_t plist = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_obj_track_times(plist, 0);
    vl_status status = open_file(out, path, plist, err);
    H5Pclose(plist);
    return status;
}

vl_status vl_h5_open(vl_h5 *out, const char *path, vl_error *err)
{
    struct stat info;
    vl_h5_quiet();
    *out = -1;
    if (stat(path, &info) != 0)
        return vl_fail_errno(err, VL_EIO, "%s: cannot open", path);
    if (!S_ISREG(info.st_mode))
        return vl_fail(err, VL_EIO, "%s: not a regular file", path);
    if (access(path, R_OK) != 0) /* the library would call it damaged */
        return vl_fail_errno(err, VL_EIO, "%s: cannot open", path);
    return open_file(out, path, -1, err);
}

vl_status vl_h5_finish(vl_h5 *file, vl_error *err)
{
    vl_status status = VL_OK;
    vl_h5_quiet();
    if (H5Fflush(*file, H5F_SCOPE_GLOBAL) < 0)
        status = vl_h5_fail(err, *file, "write failed");
    if (H5Fclose(*file) < 0 && status == VL_OK)
        status = vl_h5_fail(err, -1, "close failed");
    *file = -1;
    return status;
}

void vl_h5_close(vl_h5 *id)
{
    if (*id >= 0) {
        vl_h5_quiet();
        switch (H5Iget_type(*id)) {
        case H5I_FILE: H5Fclose(*id); break;
        case H5I_GROUP: H5Gclose(*id); break;
        case H5I_DATASET: H5Dclose(*id); break;
        case H5I_DATATYPE: H5Tclose(*id); break;
        case H5I_DATASPACE: H5Sclose(*id); break;
        case H5I_ATTR: H5Aclose(*id); break;
        case H5I_GENPROP_LST: H5Pclose(*id); break;
        default: break;
        }
    }
    *id = -1;
}

vl_status vl_h5_make_group(vl_h5 file, const char *name, vl_error *err)
{
    vl_h5_quiet();
    hid_t plist = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_obj_track_times(plist, 0);
    hid_t group = H5Gcreate2(file, name, H5P_DEFAULT, plist, H5P_DEFAULT);
    H5Pclose(plist);
    if (group < 0)
        return vl_h5_fail(err, file, "cannot create group %s", name);
    H5Gclose(group);
    return VL_OK;
}

bool vl_h5_has(vl_h5 file, const char *path)
{
    char part[128];
    vl_h5_quiet();
    size_t length = strlen(path);
    if (length >= sizeof part)
        return false;
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != 0)
            continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (H5Lexists(file, part, H5P_DEFAULT) <= 0)
            return false;
    }
    return true;
}

/* ---- types ------------------------------------------------------------------------------------------------- */

vl_h5_type vl_h5_type_of(vl_dtype dtype)
{
    return dtype == VL_BF16 ? VL_H5_BF16 : dtype == VL_F16 ? VL_H5_F16 : VL_H5_F32;
}

size_t vl_h5_type_size(vl_h5_type type)
{
    switch (type) {
    case VL_H5_F32: return 4;
    case VL_H5_F16: return 2;
    case VL_H5_BF16: return 2;
    case VL_H5_I16: return 2;
    case VL_H5_I32: return 4;
    case VL_H5_I64: return 8;
    case VL_H5_U8: return 1;
    case VL_H5_U64: return 8;
    case VL_H5_CLASS: return 1;
    case VL_H5_SPLIT: return 1;
    case VL_H5_TEXT: return sizeof(char *);
    }
    return 0;
}

/* A 16-bit IEEE-like float: sign in bit 15, then the exponent, then the mantissa with its implied one. */
static hid_t small_float(size_t exponent_bits, size_t mantissa_bits)
{
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    /* The fields must fit at every step: first the fields, then the precision, then the size. */
    H5Tset_fields(type, 15, mantissa_bits, exponent_bits, 0, mantissa_bits);
    H5Tset_ebias(type, ((size_t)1 << (exponent_bits - 1)) - 1);
    H5Tset_precision(type, 16);
    H5Tset_size(type, 2);
    return type;
}

static hid_t make_enum(const char *const *names, int n)
{
    hid_t type = H5Tenum_create(H5T_STD_U8LE);
    for (int i = 0; i < n; i++) {
        uint8_t value = (uint8_t)i;
        H5Tenum_insert(type, names[i], &value);
    }
    return type;
}

vl_h5 vl_h5_make_type(vl_h5_type type)
{
    static const char *const classes[] = {"text", "image", "last", "generated", "answer"};
    static const char *const splits[] = {"train", "heldout"};
    hid_t text;
    switch (type) {
    case VL_H5_F32: return H5Tcopy(H5T_IEEE_F32LE);
    case VL_H5_F16: return small_float(5, 10);
    case VL_H5_BF16: return small_float(8, 7);
    case VL_H5_I16: return H5Tcopy(H5T_STD_I16LE);
    case VL_H5_I32: return H5Tcopy(H5T_STD_I32LE);
    case VL_H5_I64: return H5Tcopy(H5T_STD_I64LE);
    case VL_H5_U8: return H5Tcopy(H5T_STD_U8LE);
    case VL_H5_U64: return H5Tcopy(H5T_STD_U64LE);
    case VL_H5_CLASS: return make_enum(classes, 5);
    case VL_H5_SPLIT: return make_enum(splits, 2);
    case VL_H5_TEXT:
        text = H5Tcopy(H5T_C_S1);
        H5Tset_size(text, H5T_VARIABLE);
        H5Tset_cset(text, H5T_CSET_UTF8);
        return text;
    }
    return -1;
}
