/* fidelity/fidelity_data.h - held-out sequences, their states, and what becomes of the model's prediction when a state
 * is changed. */
#ifndef VL_FIDELITY_DATA_H
#define VL_FIDELITY_DATA_H

#include <vlens/fidelity.h>

#include "trainer/base/rng.h"
#include "trainer/readout/readout.h"

typedef struct vl_fidelity_data {
    vl_model *model;
    vl_head *head;
    vl_device *device;
    int64_t d, vocab_size;
    int n_model_layers; /* L */
    int n_samples;
    vl_sequence **sequences; /* [n_samples] */
    int64_t *first;          /* [n_samples + 1] rows of each, behind one another */
    int64_t n_rows;
    int64_t n_counted;  /* rows that are measured: no patches, not the first position */
    int64_t *counted;   /* [n_counted] */
    int32_t *sample_of; /* [n_counted] */
    int n_states;
    const int64_t *state; /* [n_states] borrowed: which states are kept */
    float *states;        /* [n_states, n_rows, D] */
    float *final_counted; /* [n_counted, D] state L of the measured rows */
    float *target;        /* [n_rows, D] of one state: what ablation puts in the place of a row */
    float *changed;       /* [n_rows, D] work area */
    float *changed_final; /* [n_counted, D] after the last vl_fidelity_change */
    vl_readout readout;   /* over the measured rows, in memory */
    vl_rows measured;
    vl_distribution lens, clean; /* of a tile */
    vl_tensor u, metrics;
    float *host_metrics;
} vl_fidelity_data;

/* Encodes evenly spaced held-out samples of the cache and runs the model over them once. Cleared with
 * vl_fidelity_data_clear, also after a failure. */
vl_status vl_fidelity_data_new(vl_fidelity_data *out, const vl_fidelity_inputs *inputs, const int64_t *states,
                               int n_states, vl_error *err);
void vl_fidelity_data_clear(vl_fidelity_data *data);

const float *vl_fidelity_rows(const vl_fidelity_data *data, int index); /* [n_rows, D] of state[index] */
/* Fills data->target for state[index]: the mean of the rows of the same kind, or (resample) another of them. */
void vl_fidelity_target(vl_fidelity_data *data, int index, bool resample, vl_rng *rng);
/* Copies the measured rows of an array [n_rows, D] to out [n_counted, D]. */
void vl_fidelity_gather(float *out, const vl_fidelity_data *data, const float *rows);
/* out [D] = the row h, its share along each of the n orthonormal rows of `basis` [n, D] replaced by the target's. */
void vl_fidelity_ablate(float *out, const float *h, const float *target, int64_t d, const double *basis, int n);
/* out [n_counted]: the squared length by which ablating v [D], of length 1, moves each measured row; h and target
 * [n_counted, D] are the gathered rows. */
void vl_fidelity_displacement(double *out, const float *h, const float *target, const vl_fidelity_data *data,
                              const double *v);
/* Ablates the `n` orthonormal rows of `basis` [n, D] at state[index] of every row but the first of its sequence, runs
 * the model on from there, and leaves the final states in data->changed_final. kl [n_counted]: KL of the model's own
 * distribution from the changed one. */
vl_status vl_fidelity_change(double *kl, vl_fidelity_data *data, int index, const double *basis, int n, vl_error *err);
/* Walks the measured rows over arrays `states` [walk->n_states] of [n_counted, D] in host memory, VL_FIDELITY_TILE rows
 * at a time. Of the walk, teacher, adapters and consumer are the caller's. */
enum { VL_FIDELITY_TILE = 64 };
vl_status vl_fidelity_walk(vl_fidelity_data *data, const float *const *states, vl_walk *walk, vl_error *err);

#endif
