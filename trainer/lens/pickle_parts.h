/* export/pickle_parts.h - the machine of pickle.c (opcodes) and pickle_torch.c (what PyTorch's calls mean). */
#ifndef VL_EXPORT_PICKLE_PARTS_H
#define VL_EXPORT_PICKLE_PARTS_H

#include "trainer/lens/pickle.h"

typedef enum vl_pickle_kind {
    PICKLE_MARK,
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT,
    PICKLE_TEXT,
    PICKLE_GLOBAL,
    PICKLE_TUPLE,
    PICKLE_DICT,
    PICKLE_STORAGE,
    PICKLE_TENSOR
} vl_pickle_kind;

typedef enum vl_pickle_global {
    GLOBAL_ORDERED_DICT,
    GLOBAL_REBUILD_TENSOR,
    GLOBAL_STORAGE_F32,
    GLOBAL_STORAGE_F16,
    GLOBAL_STORAGE_BF16,
    N_GLOBALS
} vl_pickle_global;

typedef struct vl_pickle_value {
    vl_pickle_kind kind;
    vl_dtype dtype;      /* of a storage */
    int64_t number;      /* int, bool; which global; number of a dict or tensor; elements of a storage */
    vl_pickle_text text; /* of a text; name of a storage */
    size_t first, n;     /* children of a tuple, in `items` */
} vl_pickle_value;

typedef struct vl_pickle_values {
    vl_pickle_value *at;
    size_t n, capacity;
} vl_pickle_values;

/* What was put into a dict. */
typedef struct vl_pickle_entry {
    int64_t dict;
    int64_t tensor; /* -1: something else */
    vl_pickle_text name;
} vl_pickle_entry;

typedef struct vl_pickle_machine {
    const char *where;
    const uint8_t *data;
    size_t size, at;
    vl_pickle_values stack, memo, items;
    int64_t n_dicts;
    vl_pickle_tensor *tensors;
    size_t n_tensors, tensor_capacity;
    vl_pickle_entry *entries;
    size_t n_entries, entry_capacity;
    vl_error *err;
} vl_pickle_machine;

vl_status vl_pickle_refuse(const vl_pickle_machine *m, const char *what);
/* Text as it may stand in a one-line message: cut to 60, other than printable ASCII as '?'. */
const char *vl_pickle_printable(char out[64], vl_pickle_text text);
bool vl_pickle_is(vl_pickle_text text, const char *word);

/* pickle_torch.c: the meaning of GLOBAL, BINPERSID and REDUCE. */
vl_status vl_pickle_global_of(vl_pickle_value *out, vl_pickle_machine *m, vl_pickle_text module, vl_pickle_text name);
vl_status vl_pickle_storage(vl_pickle_value *out, vl_pickle_machine *m, const vl_pickle_value *id);
vl_status vl_pickle_call(vl_pickle_value *out, vl_pickle_machine *m, const vl_pickle_value *callee,
                         const vl_pickle_value *arguments);

#endif
