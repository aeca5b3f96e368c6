/* memory.c - the memory plan of a fit on a device that has its own.
 *
 * Everything but the layers in flight has a fixed size; they take what is left. Results do not depend on how many they
 * are (fit.c). */
#include <math.h>

#include "trainer/base/status.h"
#include "trainer/fit/session.h"

typedef struct demand {
    double weights;  /* the head */
    double states;   /* a tile of states, as stored and widened */
    double adapters; /* of one layer: parameters, gradient, best, moments */
    double tiles;    /* what is computed of a tile, and the matrices that all layers share */
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
    /* u, x, dx and the head's normed rows; logits of the teacher and of the student; four matrices of Muon and two of
     * the closed form */
    out.tiles = (3 * rows + VL_HEAD_ROWS) * d * 4 + 2 * rows * v * 4 +
                (config->fit.optimizer == VL_OPTIMIZER_MUON ? 6 : 2) * matrix;
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
    double adapters = need.adapters * (double)s->at_once;
    vl_log_say(&s->log, 0,
               "device memory: %.2f of %.2f %s: weights %.2f, states %.2f, adapters %.2f (%lld layers at once), "
               "tiles %.2f",
               (need.weights + fixed + adapters) / u, (double)memory.total / u, unit, need.weights / u, need.states / u,
               adapters / u, (long long)s->at_once, need.tiles / u);
    return VL_OK;
}
