/* model/pass.h - the rows of several sequences on their way through the blocks, and the buffers that they need.
 *
 * All sequences lie one after another in x [M, D], so that every norm and product runs over all rows at once and each
 * layer's weights are read once; only attention works sequence by sequence. Letters as in kernels/ops.h; F is the
 * width of the MLP. */
#ifndef VL_MODEL_PASS_H
#define VL_MODEL_PASS_H

#include <vlens/model.h>

#include "kernels/ops.h"
#include "trainer/model/decoder_spec.h"

/* Where a sequence lies in x. */
typedef struct vl_span {
    int64_t first, n;
    int64_t kv_row; /* of its first row: the rows that a KV cache already holds. Not its position: see vl_sequence */
} vl_span;

/* Keys (rotated) and values of one sequence, for generation. */
typedef struct vl_kv_cache {
    vl_tensor *k, *v; /* [L] of [capacity, K*E] */
    int n_layers;
    int64_t capacity;
} vl_kv_cache;

typedef struct vl_deep vl_deep; /* deep.h */

typedef struct vl_pass {
    vl_device *device;
    const vl_decoder_spec *spec;
    const vl_sequence *const *sequences; /* [n_sequences] */
    vl_span *spans;                      /* [n_sequences] */
    int n_sequences;
    int64_t n_rows;          /* M */
    int64_t chunk_rows;      /* rows that go through the MLP at a time */
    vl_kv_cache *cache;      /* NULL: no keys are kept. With a cache there is one sequence */
    void *context;           /* pictures that cross blocks read (cross.h); NULL without */
    int32_t (*positions)[3]; /* [M] host: time, row, column of each row */
    vl_deep *deep;           /* what pictures add behind the first blocks; NULL without, or not yet */
    vl_stage_fn stage;
    void *user;

    /* Device memory for `capacity` rows; see the views below. */
    void *memory;
    int64_t capacity;
    void *x_data, *wide_a, *wide_b, *k_data, *v_data, *gate_data, *up_data, *ids_data;
    void
        *ends_data; /* [M] i32 in a decoder whose pictures see themselves: keys of its sequence that each row may see */
    void *cos_data[VL_MAX_ROPES], *sin_data[VL_MAX_ROPES]; /* [M, columns / 2] of each rope */
} vl_pass;

/* Buffers for all sequences from their first rows on, tables of positions filled. `cache` may be NULL. Freed by
 * vl_pass_free, also after a failure. sequences, spec, cache are borrowed. */
typedef struct vl_pass_args {
    vl_device *device;
    const vl_decoder_spec *spec;
    const vl_sequence *const *sequences;
    int n_sequences;
    vl_kv_cache *cache;
} vl_pass_args;
vl_status vl_pass_init(vl_pass *out, const vl_pass_args *args, vl_error *err);
void vl_pass_free(vl_pass *pass);

/* Goes on with `n` rows of the one sequence from row `kv_row` on (generation), and fills the tables of positions for
 * them. Rows behind the sequence's end stand where it would go on. Errors: VL_ENOMEM, VL_EDEVICE. */
vl_status vl_pass_move(vl_pass *pass, int64_t kv_row, int64_t n, vl_error *err);
/* One of the rows of the pass is a picture's. */
bool vl_pass_has_pictures(const vl_pass *pass);
/* Shows rows [M, N] to the stage callback, sequence by sequence. A callback that returns non-zero: VL_ECANCELLED. */
vl_status vl_pass_stage(const vl_pass *pass, const char *name, int number, vl_tensor rows, vl_error *err);

static inline vl_tensor vl_pass_view(const vl_pass *pass, void *data, int64_t columns)
{
    return vl_tensor_2d(data, VL_F32, pass->n_rows, columns);
}
/* The residual stream [M, D]. */
static inline vl_tensor vl_pass_x(const vl_pass *pass)
{
    return vl_pass_view(pass, pass->x_data, pass->spec->hidden_size);
}

vl_status vl_kv_cache_init(vl_kv_cache *out, vl_device *device, const vl_decoder_spec *spec, int64_t capacity,
                           vl_error *err);
void vl_kv_cache_free(vl_kv_cache *cache, vl_device *device);

#endif
