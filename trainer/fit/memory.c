/* memory.c - the memory plan of a fit on a device that has its own.
 *
 * Everything but the layers in flight has a fixed size; they take what is left, and if all states that they read fit
 * into what they leave, those are read once and stay. Results do not depend on either (fit.c). */
#include <math.h>

#include "trainer/base/status.h"
#include "trainer/fit/session.h"

typedef struct demand {
    double weights;  /* the head */
    double states;   /* a tile of states, as stored and widened */
    double adapters; /* of one layer: parameters, gradient, best, moments */
    double tiles;    /* what is computed of a tile, and the matrices that all layers share */
    double kept;     /* one state of all rows, as stored */
} demand;

static demand demand_of(const vl_fit_session *s, int64_t tile_rows, size_t weights)
{
    const vl_config *config = s->config;
    const vl_head_info *head = vl_head_get_info(s->head);
    double d = (double)s->d_model, rows = (double)tile_rows, v = (double)head->vocab_size;
    double matrix = config->lens.kind == VL_LENS_AFFINE ? 4 * d * d : 0, bias = 4 * d;
    bool has_best = config->fit.early_stop && s->plan.validation.n_rows > 0;
    int copies = 2 + has_best + 1, bias_copies = copies + (config->fit.optimizer != VL_OPTIMIZER_SGD);
    if (config->fit.optimizer == VL_OPTIMIZER_ADAM)
        copies++;
    demand out = {.weights = (double)weights, .states = rows * d * 6, .adapters = copies * matrix + bias_copies * bias};
    /* u, x, dx and the head's normed rows; logits of the teacher and of the student; two matrices of the closed form;
     * Muon's direction and its four matrices */
    bool fast = vl_adapter_in_bf16(config->precision, s->head, true);
    double muon = 1 + 4 * (double)vl_dtype_size(vl_device_gemm_dtype(s->device, fast)) / 4;
    out.tiles = (3 * rows + VL_HEAD_ROWS) * d * 4 + 2 * rows * v * 4 +
                (2 + (config->fit.optimizer == VL_OPTIMIZER_MUON ? muon : 0)) * matrix;
    out.kept = (double)(s->plan.train.n_rows + s->plan.validation.n_rows) * d *
               (double)vl_dtype_size(vl_cache_get_info(s->cache)->dtype);
    return out;
}

/* Everything is told in one unit, that of the whole. */
static const char *unit_of(double *unit, double total)
{
    *unit = total >= 1 << 30 ? 1 << 30 : 1 << 20;
    return total >= 1 << 30 ? "GiB" : "MiB";
}

vl_status vl_fit_plan_memory(vl_fit_session *s, int64_t tile_rows, vl_error *err)
{
    vl_device_memory memory;
    if (!vl_device_get_memory(s->device, &memory))
        return VL_OK;
    demand need = demand_of(s, tile_rows, memory.weights);
    /* a part is left for what is too small to be counted */
    double usable = (double)memory.available - (double)memory.work - (double)memory.total / 16;
    double fixed = need.states + need.tiles;
    int64_t most = (int64_t)floor((usable - fixed) / need.adapters);
    double u;
    const char *unit = unit_of(&u, (double)memory.total);
    if (usable < fixed || most < 1)
        return vl_fail(err, VL_ENOMEM,
                       "device memory: a fit of one layer at a time needs %.2f %s beside the head, %.2f of %.2f %s "
                       "are left; lower fit.tile_tokens (now %lld)",
                       (fixed + need.adapters) / u, unit, usable > 0 ? usable / u : 0, (double)memory.total / u, unit,
                       (long long)tile_rows);
    s->at_once = most < s->at_once ? most : s->at_once;
    double adapters = need.adapters * (double)s->at_once, kept = need.kept * (double)(s->at_once + 1);
    /* a run that does not come to every row would read more than it needs */
    s->keeps_states =
        s->plan.steps * s->plan.tokens_per_step >= s->plan.train.n_rows && fixed + adapters + kept <= usable;
    kept = s->keeps_states ? kept : 0;
    vl_log_say(&s->log, 0,
               "device memory: %.2f of %.2f %s: weights %.2f, states %.2f%s, adapters %.2f (%lld layers at once), "
               "tiles %.2f",
               (need.weights + fixed + adapters + kept) / u, (double)memory.total / u, unit, need.weights / u,
               (need.states + kept) / u, s->keeps_states ? " (all)" : "", adapters / u, (long long)s->at_once,
               need.tiles / u);
    return VL_OK;
}
