#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/lens/pickle_parts.h"

static const struct {
    const char *module, *name;
    vl_dtype dtype; /* of a storage */
} globals[N_GLOBALS] = {
    [GLOBAL_ORDERED_DICT] = {"collections", "OrderedDict", VL_U8},
    [GLOBAL_REBUILD_TENSOR] = {"torch._utils", "_rebuild_tensor_v2", VL_U8},
    [GLOBAL_STORAGE_F32] = {"torch", "FloatStorage", VL_F32},
    [GLOBAL_STORAGE_F16] = {"torch", "HalfStorage", VL_F16},
    [GLOBAL_STORAGE_BF16] = {"torch", "BFloat16Storage", VL_BF16},
};

vl_status vl_pickle_global_of(vl_pickle_value *out, vl_pickle_machine *m, vl_pickle_text module, vl_pickle_text name)
{
    char a[64], b[64];
    for (int i = 0; i < N_GLOBALS; i++)
        if (vl_pickle_is(module, globals[i].module) && vl_pickle_is(name, globals[i].name)) {
            *out = (vl_pickle_value){.kind = PICKLE_GLOBAL, .number = i, .dtype = globals[i].dtype};
            return VL_OK;
        }
    return vl_fail(m->err, VL_EFORMAT,
                   "%s: the pickle names %s.%s; a state dict needs only OrderedDict, _rebuild_tensor_v2 and Float, "
                   "Half and BFloat16Storage, and nothing else is read",
                   m->where, vl_pickle_printable(a, module), vl_pickle_printable(b, name));
}

/* Child i of a tuple, or NULL. */
static const vl_pickle_value *child(const vl_pickle_machine *m, const vl_pickle_value *tuple, size_t i,
                                    vl_pickle_kind kind)
{
    if (tuple->kind != PICKLE_TUPLE || i >= tuple->n)
        return NULL;
    const vl_pickle_value *value = &m->items.at[tuple->first + i];
    return value->kind == kind ? value : NULL;
}

/* A storage's name becomes the name of a member: digits, as torch.save counts them, and never a path. */
static bool is_number(vl_pickle_text text)
{
    for (size_t i = 0; i < text.size; i++)
        if (text.text[i] < '0' || text.text[i] > '9')
            return false;
    return text.size > 0 && text.size <= 9;
}

/* ("storage", torch.FloatStorage, "0", "cpu", 4096) */
vl_status vl_pickle_storage(vl_pickle_value *out, vl_pickle_machine *m, const vl_pickle_value *id)
{
    char name[64];
    const vl_pickle_value *tag = child(m, id, 0, PICKLE_TEXT), *type = child(m, id, 1, PICKLE_GLOBAL);
    const vl_pickle_value *key = child(m, id, 2, PICKLE_TEXT), *elements = child(m, id, 4, PICKLE_INT);
    if (!tag || !type || !key || !child(m, id, 3, PICKLE_TEXT) || !elements || id->n != 5 ||
        !vl_pickle_is(tag->text, "storage") || type->dtype == VL_U8)
        return vl_pickle_refuse(m, "a persistent id that names no storage");
    if (!is_number(key->text))
        return vl_fail(m->err, VL_EFORMAT, "%s: a storage is called '%s', expected a number", m->where,
                       vl_pickle_printable(name, key->text));
    if (elements->number < 0 || elements->number > INT64_MAX / 8)
        return vl_pickle_refuse(m, "a storage with an impossible number of elements");
    *out =
        (vl_pickle_value){.kind = PICKLE_STORAGE, .dtype = type->dtype, .number = elements->number, .text = key->text};
    return VL_OK;
}

/* Sizes and strides of a dense row-major tensor; *elements is their product. */
static vl_status read_shape(vl_pickle_tensor *t, int64_t *elements, const vl_pickle_machine *m,
                            const vl_pickle_value *sizes, const vl_pickle_value *strides)
{
    if (sizes->n > VL_PICKLE_MAX_DIMS || strides->n != sizes->n)
        return vl_pickle_refuse(m, "a tensor with more than 4 dimensions, or with other strides than sizes");
    *elements = 1;
    for (size_t k = sizes->n; k-- > 0;) {
        const vl_pickle_value *size = child(m, sizes, k, PICKLE_INT), *stride = child(m, strides, k, PICKLE_INT);
        if (!size || !stride || size->number < 0)
            return vl_pickle_refuse(m, "a tensor whose sizes or strides are no numbers from 0");
        if (size->number > 1 && stride->number != *elements)
            return vl_fail(m->err, VL_EUNSUPPORTED,
                           "%s: a tensor is not dense and row-major; save it again after .contiguous()", m->where);
        t->shape[k] = size->number;
        if (size->number && *elements > INT64_MAX / 8 / size->number)
            return vl_pickle_refuse(m, "a tensor with an impossible number of elements");
        *elements *= size->number;
    }
    t->ndim = (int)sizes->n;
    return VL_OK;
}

static vl_status keep_tensor(vl_pickle_machine *m, const vl_pickle_tensor *tensor)
{
    if (m->n_tensors == m->tensor_capacity) {
        size_t capacity = m->tensor_capacity ? 2 * m->tensor_capacity : 64;
        vl_pickle_tensor *more = vl_realloc(m->tensors, capacity, sizeof *more);
        if (!more)
            return vl_fail_nomem(m->err, m->where);
        m->tensors = more;
        m->tensor_capacity = capacity;
    }
    m->tensors[m->n_tensors++] = *tensor;
    return VL_OK;
}

/* _rebuild_tensor_v2(storage, offset, sizes, strides, requires_grad, backward_hooks) */
static vl_status rebuild_tensor(vl_pickle_value *out, vl_pickle_machine *m, const vl_pickle_value *arguments)
{
    vl_pickle_tensor t = {0};
    int64_t elements;
    const vl_pickle_value *storage = child(m, arguments, 0, PICKLE_STORAGE);
    const vl_pickle_value *offset = child(m, arguments, 1, PICKLE_INT);
    const vl_pickle_value *sizes = child(m, arguments, 2, PICKLE_TUPLE);
    const vl_pickle_value *strides = child(m, arguments, 3, PICKLE_TUPLE);
    if (!storage || !offset || !sizes || !strides || !child(m, arguments, 4, PICKLE_BOOL) ||
        !child(m, arguments, 5, PICKLE_DICT) || arguments->n != 6)
        return vl_pickle_refuse(m, "_rebuild_tensor_v2 with other arguments than torch.save gives it");
    VL_TRY(read_shape(&t, &elements, m, sizes, strides));
    if (offset->number < 0 || offset->number > storage->number || elements > storage->number - offset->number)
        return vl_pickle_refuse(m, "a tensor that reaches outside its storage");
    t.storage = storage->text;
    t.dtype = storage->dtype;
    t.storage_elements = storage->number;
    t.offset = offset->number;
    *out = (vl_pickle_value){.kind = PICKLE_TENSOR, .number = (int64_t)m->n_tensors};
    return keep_tensor(m, &t);
}

vl_status vl_pickle_call(vl_pickle_value *out, vl_pickle_machine *m, const vl_pickle_value *callee,
                         const vl_pickle_value *arguments)
{
    if (callee->kind != PICKLE_GLOBAL || arguments->kind != PICKLE_TUPLE)
        return vl_pickle_refuse(m, "a call of something that is no function");
    if (callee->number == GLOBAL_REBUILD_TENSOR)
        return rebuild_tensor(out, m, arguments);
    if (callee->number != GLOBAL_ORDERED_DICT || arguments->n != 0)
        return vl_pickle_refuse(m, "a call of a storage type, or OrderedDict with arguments");
    *out = (vl_pickle_value){.kind = PICKLE_DICT, .number = m->n_dicts++};
    return VL_OK;
}
