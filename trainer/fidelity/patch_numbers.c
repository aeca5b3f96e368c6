#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/fidelity/patch_ablation.h"
#include "trainer/eval/tally.h"

typedef struct numbers {
    int64_t n, resamples, *ones; /* [n] */
    uint16_t *draws;             /* [resamples, n] */
    double *value, *minus, *scratch;
} numbers;

static vl_estimate estimate(const numbers *of, bool paired)
{
    return vl_bootstrap_estimate(of->value, paired ? of->minus : NULL, of->ones, of->n, of->draws, of->resamples,
                                 of->scratch);
}

static void summarise(vl_patch_effect *out, const vl_patch_ablation *all, vl_patch_set set, vl_patch_value value,
                      const numbers *of)
{
    for (int elsewhere = 0; elsewhere < 2; elsewhere++) {
        out->patches = 0;
        for (int64_t i = 0; i < of->n; i++) {
            of->value[i] = all->samples[i].kept[set][value][elsewhere];
            out->patches += (double)all->samples[i].n[set][0] / (double)of->n;
        }
        *(elsewhere ? &out->kept_elsewhere : &out->kept) = estimate(of, false);
        for (int64_t i = 0; i < of->n; i++) {
            of->value[i] = all->samples[i].changed[set][value][elsewhere];
            of->minus[i] = all->samples[i].changed[set][value][0];
        }
        *(elsewhere ? &out->probability_elsewhere : &out->probability) = estimate(of, false);
    }
    out->beyond_elsewhere = estimate(of, true); /* the values are still those elsewhere */
}

vl_status vl_patch_summarise(vl_patch_ablation *out, const vl_config *config, vl_error *err)
{
    vl_bootstrap bootstrap = {config->eval.bootstrap, config->eval.seed};
    size_t n = (size_t)out->n;
    numbers of = {.n = out->n,
                  .resamples = bootstrap.resamples,
                  .ones = vl_alloc(n, sizeof *of.ones),
                  .value = vl_alloc(n, sizeof *of.value),
                  .minus = vl_alloc(n, sizeof *of.minus),
                  .scratch = vl_alloc((size_t)bootstrap.resamples + 1, sizeof *of.scratch)};
    vl_status status = VL_OK;
    if (!of.ones || !of.value || !of.minus || !of.scratch)
        VL_GOTO(vl_fail_nomem(err, "patch ablation"));
    VL_GOTO(vl_bootstrap_draw(&of.draws, &bootstrap, out->n, err));
    for (int64_t i = 0; i < out->n; i++) {
        of.ones[i] = 1;
        of.value[i] = out->samples[i].probability;
    }
    out->probability = estimate(&of, false);
    for (vl_patch_set set = 0; set < VL_PATCH_SET_COUNT; set++)
        for (vl_patch_value value = 0; value < VL_PATCH_VALUE_COUNT; value++)
            summarise(&out->effect[set][value], out, set, value, &of);
done:
    vl_free(of.ones);
    vl_free(of.value);
    vl_free(of.minus);
    vl_free(of.scratch);
    vl_free(of.draws);
    return status;
}
