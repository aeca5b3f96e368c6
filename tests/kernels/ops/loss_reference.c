#include "tests/kernels/ops/loss_reference.h"

#include <math.h>
#include <stdlib.h>

double loss_log_sum_exp(const double *x, int64_t n)
{
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++)
        max = fmax(max, x[i]);
    for (int64_t i = 0; i < n; i++)
        sum += exp(x[i] - max);
    return max + log(sum);
}

/* log((exp a + exp b) / 2) */
static double log_mean(double a, double b)
{
    return fmax(a, b) + log1p(exp(-fabs(a - b))) - 0.69314718055994531;
}

/* The two log-probabilities of entry i, and what the losses are made of. */
typedef struct entry {
    double p, q, log_pq, log_qm; /* log p/q, log q/m */
    double log_pm;
} entry;

static entry entry_at(const double *z, double z_lse, const double *t, double t_lse, int64_t i)
{
    double log_q = z[i] - z_lse, log_p = t[i] - t_lse, log_m = log_mean(log_p, log_q);
    return (entry){exp(log_p), exp(log_q), log_p - log_q, log_q - log_m, log_p - log_m};
}

static double row_loss(double *inner, const double *z, const double *t, int64_t v, vl_loss kind)
{
    double z_lse = loss_log_sum_exp(z, v), t_lse = loss_log_sum_exp(t, v), loss = 0;
    *inner = 0;
    for (int64_t i = 0; i < v; i++) {
        entry e = entry_at(z, z_lse, t, t_lse, i);
        if (kind == VL_LOSS_KL)
            loss += e.p * e.log_pq;
        else if (kind == VL_LOSS_REVERSE_KL)
            loss -= e.q * e.log_pq;
        else
            loss += (e.p * e.log_pm + e.q * e.log_qm) / 2;
        *inner += kind == VL_LOSS_JS ? e.q * e.log_qm : -e.q * e.log_pq;
    }
    return loss;
}

/* Loss of one row; slope[v] = dloss/dz and size[v] = the magnitude of what it is the difference of. */
static double row_gradient(double *slope, double *size, const double *z, const double *t, int64_t target, int64_t v,
                           vl_loss kind)
{
    double z_lse = loss_log_sum_exp(z, v), inner = 0;
    if (kind == VL_LOSS_CE) {
        for (int64_t i = 0; i < v; i++) {
            slope[i] = target < 0 ? 0 : exp(z[i] - z_lse) - (i == target);
            size[i] = target < 0 ? 0 : exp(z[i] - z_lse) + (i == target);
        }
        return target < 0 ? 0 : z_lse - z[target];
    }
    double t_lse = loss_log_sum_exp(t, v), loss = row_loss(&inner, z, t, v, kind);
    for (int64_t i = 0; i < v; i++) {
        entry e = entry_at(z, z_lse, t, t_lse, i);
        if (kind == VL_LOSS_KL) {
            slope[i] = e.q - e.p;
            size[i] = e.q + e.p;
        } else if (kind == VL_LOSS_REVERSE_KL) {
            slope[i] = e.q * (-e.log_pq - inner);
            size[i] = e.q * (fabs(e.log_pq) + fabs(inner) + 1);
        } else {
            slope[i] = e.q * (e.log_qm - inner) / 2;
            size[i] = e.q * (fabs(e.log_qm) + fabs(inner) + 1) / 2;
        }
    }
    return loss;
}

void loss_reference(double *loss, double *dx, double *scale, const loss_problem *p)
{
    double *z = malloc((size_t)p->v * 3 * sizeof *z), *slope = z + p->v, *size = slope + p->v;
    if (!z)
        abort();
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t j = 0; j < p->v; j++) {
            z[j] = p->bias ? p->bias[j] : 0;
            for (int64_t k = 0; k < p->d; k++)
                z[j] += p->x[i * p->d + k] * p->head[j * p->d + k];
            if (p->cap > 0)
                z[j] = p->cap * tanh(z[j] / p->cap);
        }
        double weight = p->weights ? p->weights[i] : 1;
        loss[i] = row_gradient(slope, size, z, p->teacher ? p->teacher + i * p->v : NULL,
                               p->targets ? (int64_t)p->targets[i] : -1, p->v, p->kind);
        for (int64_t j = 0; j < p->v && p->cap > 0; j++) {
            double steep = 1 - z[j] / p->cap * (z[j] / p->cap);
            slope[j] *= steep;
            size[j] *= steep;
        }
        for (int64_t k = 0; k < p->d && dx; k++)
            dx[i * p->d + k] = scale[i * p->d + k] = 0;
        for (int64_t j = 0; j < p->v && dx; j++)
            for (int64_t k = 0; k < p->d; k++) {
                dx[i * p->d + k] += weight * slope[j] * p->head[j * p->d + k];
                scale[i * p->d + k] += fabs(weight) * size[j] * fabs(p->head[j * p->d + k]);
            }
    }
    free(z);
}
