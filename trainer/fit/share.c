/* share.c - who does what in a team: which layers, which rows of a step, and the sums between those who share a layer.
 *
 * The root of a share alone makes the start, validates and writes; the others take their rows of every step. All of
 * a share add the same gradient to the same parameters, so that they stay equal without being sent. */
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/fit/session.h"

vl_status vl_fit_share_out(vl_fit_session *s, const vl_team *team, vl_error *err)
{
    int size = vl_team_size(team), rank = vl_team_rank(team);
    int shares = size < s->n_trained ? size : (int)s->n_trained, mine = (int)((int64_t)rank * shares / size);
    int root = (int)(((int64_t)mine * size + shares - 1) / shares); /* the first rank of this share, and of the next */
    int next = (int)(((int64_t)(mine + 1) * size + shares - 1) / shares);
    vl_fit_share *share = &s->share;
    *share = (vl_fit_share){.team = team, .share = mine, .n_shares = shares, .root = root};
    share->first = mine * s->n_trained / shares;
    share->n = (mine + 1) * s->n_trained / shares - share->first;
    share->rank = rank - root;
    share->size = next - root;
    if (share->size == 1)
        return VL_OK;
    share->exchange = vl_alloc_aligned((size_t)s->d_model * (size_t)s->d_model, sizeof *share->exchange);
    return share->exchange ? VL_OK : vl_fail_nomem(err, "gradients on their way");
}

void vl_fit_share_rows(const vl_fit_session *s, int64_t *first, int64_t *n)
{
    int64_t rows = s->plan.tokens_per_step, size = s->share.size;
    *first = s->share.rank * rows / size;
    *n = (s->share.rank + 1) * rows / size - *first;
}

static vl_status add(vl_fit_session *s, void *data, vl_dtype dtype, int64_t n, vl_error *err)
{
    vl_team_sum args = {data, dtype, n, s->share.root, s->share.size};
    return vl_team_add(s->share.team, &args, err);
}

static vl_status add_tensor(vl_fit_session *s, vl_tensor t, vl_error *err)
{
    if (!t.data)
        return VL_OK;
    VL_TRY(vl_device_read(s->device, s->share.exchange, &t, err));
    VL_TRY(add(s, s->share.exchange, VL_F32, t.shape[0] * (t.ndim == 2 ? t.shape[1] : 1), err));
    return vl_device_write(s->device, &t, s->share.exchange, err);
}

vl_status vl_fit_add_gradients(vl_fit_session *s, vl_fit_layer *layer, vl_error *err)
{
    if (s->share.size == 1)
        return VL_OK;
    VL_TRY(add_tensor(s, layer->gradient.weight, err));
    VL_TRY(add_tensor(s, layer->gradient.bias, err));
    return add(s, &layer->step_loss, VL_F64, 1, err);
}

/* A sum in which all others are zero. */
static vl_status take_over(vl_fit_session *s, vl_tensor parameter, vl_error *err)
{
    if (!parameter.data)
        return VL_OK;
    if (!vl_fit_is_root(s))
        VL_TRY(vl_op_zero(s->device, parameter, err));
    return add_tensor(s, parameter, err);
}

vl_status vl_fit_follow(vl_fit_session *s, vl_fit_layer *layer, bool anew, vl_error *err)
{
    if (s->share.size == 1)
        return VL_OK;
    double numbers[VL_FIT_NUMBERS] = {0};
    if (vl_fit_is_root(s))
        vl_fit_progress_pack(numbers, &layer->progress);
    VL_TRY(add(s, numbers, VL_F64, VL_FIT_NUMBERS, err));
    (void)vl_fit_progress_unpack(&layer->progress, numbers, VL_FIT_NUMBERS);
    if (!anew && layer->progress.rollbacks == layer->followed)
        return VL_OK;
    layer->followed = layer->progress.rollbacks;
    VL_TRY(take_over(s, layer->adapter.weight, err));
    VL_TRY(take_over(s, layer->adapter.bias, err));
    return vl_fit_is_root(s) ? VL_OK : vl_fit_reset_optimizer(s, layer, err);
}
