/* What the cross-attention blocks of a pass read: projected pictures and who sees which of them. */
#include "trainer/base/mem.h"
#include "trainer/model/buffers.h"
#include "trainer/model/cross.h"

/* ---- life -------------------------------------------------------------------------------------------------- */

/* Where the picture rows of each sequence will lie. */
static vl_status lay_out(vl_cross_context *context, const vl_pass *pass, vl_error *err)
{
    for (int i = 0; i < pass->n_sequences; i++) {
        const vl_sequence *sequence = pass->sequences[i];
        if (sequence->n_images > 0 && !sequence->visible)
            return vl_fail(err, VL_EINVAL, "sequence %d has pictures, but does not say which token sees which", i);
        context->spans[i] = (vl_span){context->n_keys, sequence->n_images * context->picture_rows, 0};
        context->n_keys += context->spans[i].n;
    }
    return VL_OK;
}

vl_status vl_cross_context_new(vl_cross_context **out, const vl_vision_spec *vision, const vl_pass *pass, vl_error *err)
{
    *out = NULL;
    vl_cross_context *context = vl_calloc(1, sizeof *context);
    if (!context)
        return vl_fail_nomem(err, "pictures");
    vl_status status = VL_OK;
    context->device = pass->device;
    context->n_mask_rows = pass->n_rows;
    context->tile_rows = vision->tile_rows;
    context->picture_rows = (int64_t)vision->max_tiles * vision->tile_rows;
    context->n_pairs = pass->cache ? vl_decoder_count(pass->spec, VL_BLOCK_CROSS, pass->spec->n_layers) : 1;
    context->spans = vl_calloc((size_t)pass->n_sequences, sizeof *context->spans);
    context->k = vl_calloc((size_t)context->n_pairs + 1, sizeof *context->k);
    context->v = vl_calloc((size_t)context->n_pairs + 1, sizeof *context->v);
    if (!context->spans || !context->k || !context->v) {
        status = vl_fail_nomem(err, "pictures");
        goto done;
    }
    VL_GOTO(lay_out(context, pass, err));
    if (context->n_keys > 0) {
        *out = context;
        context = NULL;
    }
done:
    vl_cross_context_free(context);
    return status;
}

void vl_cross_context_free(vl_cross_context *context)
{
    if (!context)
        return;
    vl_device_free(context->device, context->memory);
    for (int i = 0; context->k && context->v && i < context->n_pairs; i++) {
        vl_device_free(context->device, context->k[i]);
        vl_device_free(context->device, context->v[i]);
    }
    vl_free(context->spans);
    vl_free(context->k);
    vl_free(context->v);
    vl_free(context);
}

static vl_status allocate(vl_cross_context *context, const vl_decoder_spec *spec, vl_error *err)
{
    int64_t width = (int64_t)spec->n_kv_heads * spec->head_dim;
    const vl_buffer_request requests[] = {
        {&context->states, context->n_keys, spec->hidden_size},
        {&context->q_mask, context->n_mask_rows, 2}, /* of eight bytes */
        {&context->k_mask, context->n_keys, 2},
        {&context->row_mask, context->n_mask_rows, 1},
    };
    VL_TRY(vl_buffers_alloc(&context->memory, context->device, requests, 4, err));
    for (int i = 0; i < context->n_pairs; i++) {
        vl_tensor k, v;
        VL_TRY(vl_tensor_new(&k, context->device, VL_F32, context->n_keys, width, err));
        context->k[i] = k.data;
        VL_TRY(vl_tensor_new(&v, context->device, VL_F32, context->n_keys, width, err));
        context->v[i] = v.data;
    }
    return VL_OK;
}

/* ---- masks ------------------------------------------------------------------------------------------------- */

/* A token that sees no tile attends to all of them, those that are not used too, and its row mask is 0: the reference
 * clears the additive mask of such rows (_prepare_cross_attention_mask, full_text_row_masked_out_mask). */
static void fill_query_masks(int64_t *q_mask, float *row_mask, const vl_pass *pass)
{
    for (int s = 0; s < pass->n_sequences; s++) {
        const vl_sequence *sequence = pass->sequences[s];
        for (int64_t t = 0; t < sequence->n_tokens; t++) {
            uint64_t visible = sequence->visible ? sequence->visible[t] : 0;
            q_mask[pass->spans[s].first + t] = visible ? (int64_t)visible : -1;
            row_mask[pass->spans[s].first + t] = visible ? 1 : 0;
        }
    }
}

static void fill_key_mask(int64_t *k_mask, const vl_cross_context *context, int n_sequences, int64_t rows_of_tile)
{
    for (int s = 0; s < n_sequences; s++)
        for (int64_t i = 0; i < context->spans[s].n; i++)
            k_mask[context->spans[s].first + i] = (int64_t)(UINT64_C(1) << (i / rows_of_tile));
}

static vl_status write_masks(const vl_cross_context *context, const vl_pass *pass, vl_error *err)
{
    vl_status status = VL_OK;
    int64_t *q_mask = vl_alloc((size_t)pass->n_rows, sizeof *q_mask);    /* [M] */
    int64_t *k_mask = vl_alloc((size_t)context->n_keys, sizeof *k_mask); /* [S] */
    float *row_mask = vl_alloc((size_t)pass->n_rows, sizeof *row_mask);  /* [M] */
    if (!q_mask || !k_mask || !row_mask) {
        status = vl_fail_nomem(err, "attention masks");
        goto done;
    }
    fill_query_masks(q_mask, row_mask, pass);
    fill_key_mask(k_mask, context, pass->n_sequences, context->tile_rows);
    vl_tensor q_view = vl_tensor_1d(context->q_mask, VL_I64, pass->n_rows);
    vl_tensor k_view = vl_tensor_1d(context->k_mask, VL_I64, context->n_keys);
    vl_tensor row_view = vl_tensor_1d(context->row_mask, VL_F32, pass->n_rows);
    VL_GOTO(vl_device_write(pass->device, &q_view, q_mask, err));
    VL_GOTO(vl_device_write(pass->device, &k_view, k_mask, err));
    VL_GOTO(vl_device_write(pass->device, &row_view, row_mask, err));
done:
    vl_free(q_mask);
    vl_free(k_mask);
    vl_free(row_mask);
    return status;
}

vl_status vl_cross_context_prepare(vl_cross_context *context, const vl_pass *pass, vl_error *err)
{
    VL_TRY(allocate(context, pass->spec, err));
    return write_masks(context, pass, err);
}

vl_tensor vl_cross_picture(const vl_cross_context *context, const vl_pass *pass, int sequence, int image)
{
    vl_tensor states = vl_tensor_2d(context->states, VL_F32, context->n_keys, pass->spec->hidden_size);
    return vl_tensor_rows(states, context->spans[sequence].first + image * context->picture_rows,
                          context->picture_rows);
}
