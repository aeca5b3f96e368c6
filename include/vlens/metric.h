/* vlens/metric.h - how two distributions over the next token compare: what a fit minimises, what a table shows.
 *
 * p is the model's own distribution, q that of a lens. Divergences are in nats. */
#ifndef VLENS_METRIC_H
#define VLENS_METRIC_H

#ifdef __cplusplus
extern "C" {
#endif

/* What a fit minimises: KL(p || q), -log q[next token], KL(q || p), the Jensen-Shannon divergence. */
typedef enum vl_loss { VL_LOSS_KL = 0, VL_LOSS_CE, VL_LOSS_REVERSE_KL, VL_LOSS_JS } vl_loss;

typedef enum vl_metric {
    VL_METRIC_KL = 0,                 /* KL(p || q) */
    VL_METRIC_CE,                     /* -log q[next token]; NaN where there is none */
    VL_METRIC_ENTROPY,                /* of q */
    VL_METRIC_TOP1,                   /* 1 where the first token of q is that of p */
    VL_METRIC_TOP5,                   /* 1 where the first token of p is among the five first of q */
    VL_METRIC_RANK,                   /* rank of the first token of p in q, from 0 */
    VL_METRIC_JS,                     /* Jensen-Shannon divergence */
    VL_METRIC_TV,                     /* total variation, sum |p - q| / 2 */
    VL_METRIC_COUNT,                  /* so far a value of each row; what follows belongs to a state as a whole */
    VL_METRIC_BIAS = VL_METRIC_COUNT, /* KL(mean of p || mean of q): the marginal bias of Belrose et al. 2023, sec. 3 */
    VL_METRIC_ECE, /* expected calibration error: rows in 15 bins by the probability that the lens gives its first
                    * token; mean distance of that from the probability that the model gives the same token */
    VL_METRIC_COLUMNS
} vl_metric;

#ifdef __cplusplus
}
#endif
#endif
