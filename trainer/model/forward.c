/* Drives the blocks of a model over a batch of sequences. */
#include "trainer/base/mem.h"
#include "trainer/model/family.h"

vl_status vl_embed_sequences(const vl_model *model, vl_pass *pass, int32_t image_id, vl_error *err)
{
    vl_status status = VL_OK;
    int32_t *ids = vl_alloc((size_t)pass->n_rows, sizeof *ids); /* [M] */
    if (!ids)
        return vl_fail_nomem(err, "token ids");
    /* Picture rows are overwritten later: any row of the table will do where theirs is not in it. */
    int32_t filler = image_id >= 0 && image_id < model->config.text.embed_rows ? image_id : 0;
    for (int s = 0; s < pass->n_sequences; s++) {
        const vl_sequence *sequence = pass->sequences[s];
        for (int64_t t = 0; t < sequence->n_tokens; t++) {
            bool picture = image_id >= 0 && sequence->image[t] >= 0;
            ids[pass->spans[s].first + t] = picture ? filler : sequence->ids[t];
        }
    }
    VL_GOTO(vl_llama_embed(&model->text, pass, ids, err));
done:
    vl_free(ids);
    return status;
}

void vl_expect_llama(const vl_model *model, int layer)
{
    vl_llama_expect(&model->text, layer);
}

/* ---- the driver -------------------------------------------------------------------------------------------- */

static vl_status check(const vl_model *model, const vl_forward *forward, vl_error *err)
{
    int n_layers = model->config.text.n_layers;
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
        int64_t rows = forward->sequences[i]->n_tokens, width = model->config.text.hidden_size;
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
        return model->family->embed(model, pass, err);
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
    int stop = forward->stop_state > 0 ? forward->stop_state : model->config.text.n_layers;
    if (model->family->begin)
        VL_TRY(model->family->begin(model, pass, err));
    VL_TRY(start(model, forward, pass, err));
    for (int state = forward->start_state;; state++) {
        VL_TRY(tap(forward, pass, state, err));
        if (state == stop)
            return vl_device_sync(pass->device, err);
        if (state + 1 < stop) /* the next block's weights come from the disk while this one computes */
            model->family->expect(model, state + 1);
        VL_TRY(model->family->block(model, pass, state, err));
    }
}

vl_status vl_model_forward(vl_model *model, const vl_forward *forward, vl_error *err)
{
    VL_TRY(check(model, forward, err));
    vl_pass pass = {0};
    vl_status status = VL_OK;
    VL_GOTO(vl_pass_init(&pass,
                         &(vl_pass_args){.device = model->device,
                                         .text = &model->config.text,
                                         .sequences = forward->sequences,
                                         .n_sequences = forward->n_sequences},
                         err));
    pass.stage = forward->stage;
    pass.user = forward->user;
    VL_GOTO(run(model, forward, &pass, err));
done:
    if (model->family->end)
        model->family->end(model, &pass);
    vl_pass_free(&pass);
    return status;
}
