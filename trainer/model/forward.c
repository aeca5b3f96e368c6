/* Drives the blocks of a model over a batch of sequences. */
#include "trainer/model/forward.h"

#include "trainer/model/cross.h"
#include "trainer/model/model.h"
#include "trainer/model/vision.h"

/* ---- steps that generation takes too ----------------------------------------------------------------------- */

vl_status vl_model_begin(const vl_model *model, vl_pass *pass, vl_error *err)
{
    vl_cross_context *context = NULL;
    if (model->spec.vision.path == VL_VISION_CROSS)
        VL_TRY(vl_cross_context_new(&context, &model->spec.vision, pass, err));
    pass->context = context;
    return VL_OK;
}

void vl_model_end(vl_pass *pass)
{
    vl_cross_context_free(pass->context);
    pass->context = NULL;
}

/* Without pictures a cross block is skipped, and the next state repeats this one. The pictures are encoded when the
 * first block needs them: a forward that stops before it, or starts behind the last one, never does. */
vl_status vl_model_run_block(const vl_model *model, vl_pass *pass, int layer, vl_error *err)
{
    if (model->spec.decoder.layers[layer].kind == VL_BLOCK_CROSS) {
        const vl_cross_context *context = pass->context;
        if (!context)
            return VL_OK;
        if (!context->memory)
            VL_TRY(vl_model_encode_for_cross(model, pass, err));
    }
    VL_TRY(vl_decoder_run_block(&model->decoder, pass, layer, err));
    return vl_model_add_deep(model, pass, layer, err);
}

/* ---- the driver -------------------------------------------------------------------------------------------- */

static vl_status check(const vl_model *model, const vl_forward *forward, vl_error *err)
{
    int n_layers = model->spec.decoder.n_layers;
    if (forward->n_sequences <= 0)
        return vl_fail(err, VL_EINVAL, "a forward needs at least one sequence");
    if (forward->start_state < 0 || forward->start_state > n_layers)
        return vl_fail(err, VL_EINVAL, "start_state is %d, expected 0 to %d", forward->start_state, n_layers);
    if (forward->start_state > 0 && !forward->start)
        return vl_fail(err, VL_EINVAL, "start_state is %d, but no start tensors are given", forward->start_state);
    if (forward->stop_state < 0 || forward->stop_state > n_layers ||
        (forward->stop_state > 0 && forward->stop_state < forward->start_state))
        return vl_fail(err, VL_EINVAL, "stop_state is %d, expected 0 or %d to %d", forward->stop_state,
                       forward->start_state, n_layers);
    for (int i = 0; i < forward->n_sequences; i++) {
        int64_t rows = forward->sequences[i]->n_tokens, width = model->spec.decoder.hidden_size;
        if (rows <= 0)
            return vl_fail(err, VL_EINVAL, "sequence %d has no tokens", i);
        const vl_tensor *start = forward->start ? &forward->start[i] : NULL;
        if (start &&
            (start->dtype != VL_F32 || start->ndim != 2 || start->shape[0] != rows || start->shape[1] != width))
            return vl_fail(err, VL_EINVAL, "start tensor %d is not float32 [%lld, %lld]", i, (long long)rows,
                           (long long)width);
    }
    return VL_OK;
}

/* The rows of x that the forward starts from. */
static vl_status start(const vl_model *model, const vl_forward *forward, vl_pass *pass, vl_error *err)
{
    if (!forward->start)
        return vl_model_embed(model, pass, err);
    for (int i = 0; i < pass->n_sequences; i++) {
        vl_tensor rows = vl_tensor_rows(vl_pass_x(pass), pass->spans[i].first, pass->spans[i].n);
        VL_TRY(vl_op_cast(pass->device, &(vl_cast_args){.out = rows, .x = forward->start[i]}, err));
    }
    return VL_OK;
}

static vl_status tap(const vl_forward *forward, const vl_pass *pass, int state, vl_error *err)
{
    for (int i = 0; forward->tap && i < pass->n_sequences; i++) {
        vl_tap point = {state, i, vl_tensor_rows(vl_pass_x(pass), pass->spans[i].first, pass->spans[i].n)};
        if (forward->tap(forward->user, &point) != 0)
            return vl_fail(err, VL_ECANCELLED, "the forward was stopped at state %d", state);
    }
    return VL_OK;
}

static vl_status run(const vl_model *model, const vl_forward *forward, vl_pass *pass, vl_error *err)
{
    int stop = forward->stop_state > 0 ? forward->stop_state : model->spec.decoder.n_layers;
    VL_TRY(vl_model_begin(model, pass, err));
    VL_TRY(start(model, forward, pass, err));
    for (int state = forward->start_state;; state++) {
        VL_TRY(tap(forward, pass, state, err));
        if (state == stop)
            return vl_device_sync(pass->device, err);
        if (state + 1 < stop) /* the next block's weights come from the disk while this one computes */
            vl_decoder_prefetch(&model->decoder, state + 1);
        VL_TRY(vl_model_run_block(model, pass, state, err));
    }
}

vl_status vl_model_forward(vl_model *model, const vl_forward *forward, vl_error *err)
{
    VL_TRY(check(model, forward, err));
    vl_pass pass = {0};
    vl_status status = VL_OK;
    VL_GOTO(vl_pass_init(&pass,
                         &(vl_pass_args){.device = model->device,
                                         .spec = &model->spec.decoder,
                                         .sequences = forward->sequences,
                                         .n_sequences = forward->n_sequences},
                         err));
    pass.stage = forward->stage;
    pass.user = forward->user;
    VL_GOTO(run(model, forward, &pass, err));
done:
    vl_model_end(&pass);
    vl_pass_free(&pass);
    return status;
}
