/* Mean distributions and calibration. The logits come to the host in small pieces: no operation of the device sums
 * probabilities, and these two columns are asked for seldom. */
#include "trainer/eval/pooled.h"

#include <math.h>

#include "kernels/ops.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"

enum { BLOCK = 2048 }; /* of the vocabulary: its sums stay in the cache while the rows of a piece pass */

static vl_pooled_cell *cell_at(const vl_pooled *p, int64_t state, vl_eval_lens lens, int finest)
{
    int place = finest >= VL_GROUP_FIRST ? VL_CLASS_COUNT + finest - VL_GROUP_FIRST : finest;
    return p->cell + (state * VL_POOLED_LENSES + (int64_t)lens) * VL_POOLED_GROUPS + place;
}

vl_status vl_pooled_new(vl_pooled *out, int64_t n_states, int64_t v, vl_error *err)
{
    *out = (vl_pooled){.n_states = n_states, .v = v};
    out->cell = vl_calloc((size_t)n_states * VL_POOLED_LENSES * VL_POOLED_GROUPS, sizeof *out->cell);
    out->logits = vl_alloc(VL_POOLED_ROWS, (size_t)v * sizeof(float));
    out->teacher = vl_alloc(VL_POOLED_ROWS, (size_t)v * sizeof(float));
    if (out->cell && out->logits && out->teacher)
        return VL_OK;
    vl_pooled_clear(out);
    return vl_fail_nomem(err, "mean distributions");
}

void vl_pooled_clear(vl_pooled *p)
{
    for (int64_t i = 0; p->cell && i < p->n_states * VL_POOLED_LENSES * VL_POOLED_GROUPS; i++)
        vl_free(p->cell[i].mean);
    vl_free(p->cell);
    vl_free(p->logits);
    vl_free(p->teacher);
    *p = (vl_pooled){0};
}

/* log sum exp in float64, so that neither column inherits the rounding of the other metrics. */
static double log_sum(const float *z, int64_t v, int64_t *largest)
{
    int64_t best = 0;
    double sum = 0;
    for (int64_t j = 1; j < v; j++)
        best = z[j] > z[best] ? j : best;
    for (int64_t j = 0; j < v; j++)
        sum += (double)expf(z[j] - z[best]);
    *largest = best;
    return (double)z[best] + log(sum);
}

static void count_calibration(vl_pooled_cell *cell, double lens, double model)
{
    int bin = (int)(lens * VL_POOLED_BINS);
    vl_pooled_bin *to = &cell->count.bin[bin < VL_POOLED_BINS ? bin : VL_POOLED_BINS - 1];
    to->rows++;
    to->lens += lens;
    to->model += model;
}

static vl_status need_mean(vl_pooled_cell *cell, int64_t v, vl_error *err)
{
    if (!cell->mean)
        cell->mean = vl_calloc((size_t)v, sizeof(double));
    return cell->mean ? VL_OK : vl_fail_nomem(err, "mean distributions");
}

/* The first n rows of the work areas. */
static vl_status add_piece(vl_pooled *p, const vl_pooled_rows *rows, int64_t at, int64_t n, vl_error *err)
{
    const uint8_t *group = rows->group + at, *sound = rows->sound ? rows->sound + at : NULL;
    double lse[VL_POOLED_ROWS], model[VL_POOLED_ROWS];
    int64_t best[VL_POOLED_ROWS], v = p->v;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        int64_t unused;
        lse[i] = log_sum(p->logits + i * v, v, &best[i]);
        model[i] = exp((double)p->teacher[i * v + best[i]] - log_sum(p->teacher + i * v, v, &unused));
    }
    for (int64_t i = 0; i < n; i++) {
        if (sound && !sound[i])
            continue;
        vl_pooled_cell *cell = cell_at(p, rows->state, rows->lens, group[i]);
        VL_TRY(need_mean(cell, v, err));
        cell->count.rows++;
        count_calibration(cell, exp((double)p->logits[i * v + best[i]] - lse[i]), model[i]);
    }
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < v; first += BLOCK)
        for (int64_t i = 0; i < n; i++) {
            if (sound && !sound[i])
                continue;
            double *mean = cell_at(p, rows->state, rows->lens, group[i])->mean;
            for (int64_t j = first; j < v && j < first + BLOCK; j++)
                mean[j] += (double)expf((float)((double)p->logits[i * v + j] - lse[i]));
        }
    return VL_OK;
}

vl_status vl_pooled_add(vl_pooled *p, vl_device *device, const vl_pooled_rows *rows, vl_error *err)
{
    int64_t total = rows->logits.shape[0];
    for (int64_t first = 0; p->cell && first < total; first += VL_POOLED_ROWS) {
        int64_t n = total - first < VL_POOLED_ROWS ? total - first : VL_POOLED_ROWS;
        vl_tensor logits = vl_tensor_rows(rows->logits, first, n), teacher = vl_tensor_rows(rows->teacher, first, n);
        VL_TRY(vl_device_read(device, p->logits, &logits, err));
        VL_TRY(vl_device_read(device, p->teacher, &teacher, err));
        VL_TRY(add_piece(p, rows, first, n, err));
    }
    return VL_OK;
}

vl_status vl_pooled_add_up(vl_pooled *p, const vl_team *team, vl_error *err)
{
    int members = vl_team_size(team);
    for (int64_t i = 0; p->cell && i < p->n_states * VL_POOLED_LENSES * VL_POOLED_GROUPS; i++) {
        vl_pooled_cell *cell = &p->cell[i];
        vl_team_sum counts = {&cell->count, VL_F64, sizeof cell->count / sizeof(double), 0, members};
        VL_TRY(vl_team_add(team, &counts, err));
        if (cell->count.rows == 0)
            continue;
        VL_TRY(need_mean(cell, p->v, err));
        vl_team_sum means = {cell->mean, VL_F64, p->v, 0, members};
        VL_TRY(vl_team_add(team, &means, err));
    }
    return VL_OK;
}

static const int finest_groups[VL_POOLED_GROUPS] = {VL_TEXT,           VL_IMAGE,          VL_LAST,
                                                    VL_GENERATED,      VL_ANSWER,         VL_GROUP_FIRST,
                                                    VL_GROUP_ANSWER_1, VL_GROUP_ANSWER_2, VL_GROUP_ANSWER_3};

/* Mean probability of token j over the rows of a group at one state. */
static double mean_at(const vl_pooled *p, int64_t state, vl_eval_lens lens, int group, int64_t j)
{
    double sum = 0, rows = 0;
    for (int i = 0; i < VL_POOLED_GROUPS; i++) {
        const vl_pooled_cell *cell = cell_at(p, state, lens, finest_groups[i]);
        if (!vl_eval_group_holds(group, finest_groups[i]) || !cell->mean)
            continue;
        sum += cell->mean[j];
        rows += cell->count.rows;
    }
    return rows > 0 ? sum / rows : (double)NAN;
}

double vl_pooled_bias(const vl_pooled *p, int64_t state, vl_eval_lens lens, int group)
{
    double kl = p->cell ? 0 : (double)NAN;
    for (int64_t j = 0; p->cell && j < p->v; j++) {
        /* state L through the logit lens is the model itself */
        double model = mean_at(p, p->n_states - 1, VL_EVAL_LOGIT, group, j);
        double q = mean_at(p, state, lens, group, j);
        if (model > 0 || isnan(model))
            kl += model * (log(model) - log(fmax(q, 1e-300)));
    }
    return kl;
}

double vl_pooled_ece(const vl_pooled *p, int64_t state, vl_eval_lens lens, int group)
{
    double rows = 0, distance = 0;
    for (int b = 0; p->cell && b < VL_POOLED_BINS; b++) {
        double confidence = 0, model = 0;
        for (int i = 0; i < VL_POOLED_GROUPS; i++) {
            if (!vl_eval_group_holds(group, finest_groups[i]))
                continue;
            const vl_pooled_bin *bin = &cell_at(p, state, lens, finest_groups[i])->count.bin[b];
            rows += bin->rows;
            confidence += bin->lens;
            model += bin->model;
        }
        distance += fabs(confidence - model);
    }
    return rows > 0 ? distance / rows : (double)NAN;
}
