/* kernels/backend.h - the table of functions that stands behind a device. Seen only inside kernels/.
 *
 * Arguments arrive checked (ops.c): a backend is arithmetic only. A NULL entry means that the backend lacks the op. */
#ifndef VL_KERNELS_BACKEND_H
#define VL_KERNELS_BACKEND_H

#include "kernels/ops.h"
#include "kernels/peak.h"

typedef struct vl_backend {
    const char *name;
    /* Devices that there are; NULL: one. */
    int (*count)(void);
    /* `index` is the N of "cuda:N"; `threads` 0 means all. */
    vl_status (*open)(void **context, int index, int threads, vl_error *err);
    void (*close)(void *context);
    void (*describe)(void *context, char *text, size_t size, int *threads);

    vl_status (*alloc)(void *context, void **out, size_t bytes, vl_error *err);
    void (*free)(void *context, void *memory);
    vl_status (*read)(void *context, void *host, const vl_tensor *tensor, vl_error *err);
    /* NULL both: a read at the end. */
    vl_status (*read_begin)(void *context, const vl_tensor *tensor, vl_error *err);
    vl_status (*read_end)(void *context, void *host, const vl_tensor *tensor, vl_error *err);
    vl_status (*write)(void *context, const vl_tensor *tensor, const void *host, vl_error *err);
    vl_status (*sync)(void *context, vl_error *err);
    vl_status (*zero)(void *context, vl_tensor out, vl_error *err);

    vl_status (*matrix_new)(void *context, void **data, const vl_matrix_args *args, vl_error *err);
    void (*matrix_free)(void *context, void *data);
    bool (*matrix_is_narrow)(const void *data);

    vl_status (*linear)(void *context, const vl_linear_args *args, vl_error *err);
    vl_status (*gemm)(void *context, const vl_gemm_args *args, vl_error *err);
    vl_status (*embed)(void *context, const vl_embed_args *args, vl_error *err);
    vl_status (*norm)(void *context, const vl_norm_args *args, vl_error *err);
    vl_status (*norm_backward)(void *context, const vl_norm_backward_args *args, vl_error *err);
    vl_status (*rope)(void *context, const vl_rope_args *args, vl_error *err);
    vl_status (*attention)(void *context, const vl_attention_args *args, vl_error *err);
    vl_status (*activation)(void *context, const vl_activation_args *args, vl_error *err);
    vl_status (*add)(void *context, const vl_add_args *args, vl_error *err);
    vl_status (*patchify)(void *context, const vl_patchify_args *args, vl_error *err);
    vl_status (*mix_rows)(void *context, const vl_mix_rows_args *args, vl_error *err);
    vl_status (*cast)(void *context, const vl_cast_args *args, vl_error *err);
    vl_status (*take_rows)(void *context, const vl_take_rows_args *args, vl_error *err);
    vl_status (*pack_rows)(void *context, const vl_pack_rows_args *args, vl_error *err);
    vl_status (*logsumexp)(void *context, const vl_logsumexp_args *args, vl_error *err);
    vl_status (*topk)(void *context, const vl_topk_args *args, vl_error *err);
    vl_status (*metrics)(void *context, const vl_metrics_args *args, vl_error *err);
    vl_status (*unembed_loss)(void *context, const vl_unembed_loss_args *args, vl_error *err);
    vl_status (*column_sum)(void *context, const vl_column_sum_args *args, vl_error *err);
    vl_status (*sum_squares)(void *context, double *out, vl_tensor x, vl_error *err);
    vl_status (*normalise)(void *context, const vl_normalise_args *args, vl_error *err);
    vl_status (*loss_total)(void *context, const vl_loss_total_args *args, vl_error *err);
    vl_status (*step_scale)(void *context, const vl_step_scale_args *args, vl_error *err);
    vl_status (*sgd)(void *context, const vl_sgd_args *args, vl_error *err);
    vl_status (*adam)(void *context, const vl_adam_args *args, vl_error *err);

    /* The type of operands of fast products; NULL: f32. */
    vl_dtype (*gemm_dtype)(void *context);

    /* Memory of its own; NULL: it is the system's. */
    void (*memory)(void *context, vl_device_memory *out);
    void (*limit)(void *context, size_t bytes);

    /* For benchmarks; may be NULL. */
    vl_status (*peak_new)(void *context, void **data, const vl_peak_args *args, vl_error *err);
    vl_status (*peak_run)(void *data, vl_error *err);
    void (*peak_free)(void *data);
} vl_backend;

struct vl_device {
    const vl_backend *backend;
    void *context;
    char name[32];
    char description[256];
    char note[600]; /* why "auto" did not take a GPU, or "" */
    int threads;
    int rank;          /* of the process among those of its machine; -1: it does not matter */
    vl_tensor reading; /* between vl_device_read_begin and _end; else no data */
};

struct vl_matrix {
    void *data; /* the backend's own form */
    vl_dtype dtype;
    int64_t n_out, n_in;
    bool resident;
};

extern const vl_backend vl_backend_cpu;

#endif
