#include "trainer/eval/transfer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"

typedef struct work {
    uint16_t *draws;
    double *sum[VL_EVAL_LENS_COUNT]; /* [n_clusters] KL of a lens, mean over states, summed over rows */
    double *scratch;
} work;

static bool is_shown(const vl_eval_result *r, vl_eval_lens lens)
{
    return lens == VL_EVAL_LOGIT || lens == VL_EVAL_TUNED || (lens == VL_EVAL_BASELINE && r->has_baseline);
}

static void measure_group(vl_transfer *out, const vl_eval_result *r, int group, const work *w)
{
    const vl_tally *t = &r->tally;
    const int64_t n = t->n_clusters, *rows = t->rows + r->group[group] * n;
    for (vl_eval_lens lens = 0; lens < VL_EVAL_LENS_COUNT; lens++) {
        out->kl[lens] = out->gain[lens] = (vl_estimate){NAN, NAN, NAN};
        memset(w->sum[lens], 0, (size_t)n * sizeof(double));
        for (int64_t s = 0; s < r->n_layers && is_shown(r, lens); s++)
            for (int64_t i = 0; i < n; i++)
                w->sum[lens][i] += vl_tally_kl(t, s, lens, r->group[group])[i] / (double)r->n_layers;
    }
    for (vl_eval_lens lens = 0; lens < VL_EVAL_LENS_COUNT; lens++) {
        if (!is_shown(r, lens))
            continue;
        out->kl[lens] =
            vl_bootstrap_estimate(w->sum[lens], NULL, rows, n, w->draws, r->bootstrap.resamples, w->scratch);
        if (lens != VL_EVAL_TUNED)
            out->gain[lens] = vl_bootstrap_estimate(w->sum[lens], w->sum[VL_EVAL_TUNED], rows, n, w->draws,
                                                    r->bootstrap.resamples, w->scratch);
    }
}

vl_status vl_transfer_measure(vl_transfer *rows, const vl_eval_result *r, vl_error *err)
{
    vl_status status = VL_OK;
    work w = {.scratch = vl_alloc((size_t)r->bootstrap.resamples + 1, sizeof(double))};
    bool whole = w.scratch != NULL;
    for (int lens = 0; lens < VL_EVAL_LENS_COUNT; lens++)
        whole = (w.sum[lens] = vl_alloc((size_t)r->tally.n_clusters + 1, sizeof(double))) && whole;
    if (!whole)
        VL_GOTO(vl_fail_nomem(err, "transfer table"));
    if (r->bootstrap.resamples > 0)
        VL_GOTO(vl_bootstrap_draw(&w.draws, &r->bootstrap, r->tally.n_clusters, err));
    for (int g = 0; g < r->n_groups; g++)
        measure_group(&rows[g], r, g, &w);
done:
    for (int lens = 0; lens < VL_EVAL_LENS_COUNT; lens++)
        vl_free(w.sum[lens]);
    vl_free(w.draws);
    vl_free(w.scratch);
    return status;
}

/* ---- text -------------------------------------------------------------------------------------------------- */

static void put_estimate(vl_str *out, vl_estimate e, int width)
{
    char text[64];
    int digits = fabs(e.mean) < 0.1 ? 4 : 3;
    if (isnan(e.mean))
        snprintf(text, sizeof text, "-");
    else if (isnan(e.low))
        snprintf(text, sizeof text, "%.*f", digits, e.mean);
    else
        snprintf(text, sizeof text, "%.*f [%.*f, %.*f]", digits, e.mean, digits, e.low, digits, e.high);
    vl_str_printf(out, "  %-*s", width, text);
}

vl_status vl_transfer_put(vl_str *out, const vl_eval_result *r, vl_error *err)
{
    enum { WIDTH = 23 };
    vl_transfer rows[VL_GROUP_COUNT];
    VL_TRY(vl_transfer_measure(rows, r, err));
    vl_str_printf(out, "\nall classes: KL(model || lens) in nats, mean over states 0 to %lld [95 %%]\n",
                  (long long)r->n_layers - 1);
    vl_str_printf(out, "%-10s %7s  %-*s", "class", "rows", WIDTH, "logit");
    if (r->has_baseline)
        vl_str_printf(out, "  %-*s", WIDTH, "baseline");
    vl_str_printf(out, "  %-*s  %-*s", WIDTH, "tuned", WIDTH, "logit - tuned");
    vl_str_puts(out, r->has_baseline ? "  baseline - tuned\n" : "\n");
    for (int g = 0; g < r->n_groups; g++) {
        vl_str_printf(out, "%-10s %7lld", r->group_info[g].name, (long long)r->group_info[g].rows);
        put_estimate(out, rows[g].kl[VL_EVAL_LOGIT], WIDTH);
        if (r->has_baseline)
            put_estimate(out, rows[g].kl[VL_EVAL_BASELINE], WIDTH);
        put_estimate(out, rows[g].kl[VL_EVAL_TUNED], WIDTH);
        put_estimate(out, rows[g].gain[VL_EVAL_LOGIT], WIDTH);
        if (r->has_baseline)
            put_estimate(out, rows[g].gain[VL_EVAL_BASELINE], WIDTH);
        while (out->size > 0 && out->data[out->size - 1] == ' ')
            out->data[--out->size] = 0;
        vl_str_putc(out, '\n');
    }
    return VL_OK;
}
