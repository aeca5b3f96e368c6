/* The held-out rows, each state through each lens, against the model's own distribution (readout/readout.h walks). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <vlens/eval.h>

#include "trainer/base/log.h"
#include "trainer/base/mem.h"
#include "trainer/base/version.h"
#include "trainer/eval/depth.h"
#include "trainer/eval/result.h"
#include "trainer/lens/lens.h"
#include "trainer/readout/readout.h"

enum { TILE_ELEMENTS = 48 << 20 }; /* of one [rows, V] tile: 192 MiB */

typedef struct evaluation {
    const vl_eval_inputs *in;
    vl_device *device;
    vl_head *head;
    vl_lens *baseline_file;
    vl_device_lens *lens[VL_EVAL_WRONG_PICTURE]; /* by vl_eval_lens; NULL: the logit lens, or no baseline */
    const vl_eval_rows *rows;
    vl_eval_result *result;
    vl_depth depth;
    const vl_team *team;
    vl_log log;
    vl_readout readout;
    vl_rows walked;  /* rows->row, as runs */
    int64_t *states; /* [n_mine] that this process measures */
    int64_t n_mine, capacity, n_layers;
    vl_distribution teacher, other, q; /* of the model, of the model at the partner rows, of a lens */
    vl_tensor u, metrics;              /* [capacity, D], [capacity, VL_METRIC_COUNT] */
    float *host_metrics;               /* [capacity, VL_METRIC_COUNT] */
    int64_t *partners;                 /* [capacity] cache rows */
    float *partner_states;             /* [capacity, D]; NULL without partners */
} evaluation;

static void evaluation_clear(evaluation *e)
{
    vl_readout_clear(&e->readout);
    vl_rows_clear(&e->walked);
    vl_distribution_clear(&e->teacher, e->device);
    vl_distribution_clear(&e->other, e->device);
    vl_distribution_clear(&e->q, e->device);
    vl_device_free(e->device, e->u.data);
    vl_device_free(e->device, e->metrics.data);
    vl_free(e->states);
    vl_free(e->host_metrics);
    vl_free(e->partners);
    vl_free(e->partner_states);
    vl_depth_clear(&e->depth);
    for (int i = 0; i < VL_EVAL_WRONG_PICTURE; i++)
        vl_device_lens_free(e->lens[i]);
    vl_lens_close(e->baseline_file);
    vl_head_close(e->head);
}

static vl_status evaluation_alloc(evaluation *e, vl_error *err)
{
    int64_t m = e->capacity, d = vl_head_get_info(e->head)->d_model;
    bool has_partners = e->rows->n_partners > 0;
    vl_loader_source source = {.cache = e->in->cache, .capacity = m, .background = e->in->config->fit.read_ahead};
    VL_TRY(vl_rows_of_list(&e->walked, e->rows->row, e->rows->n, err));
    VL_TRY(vl_readout_new(&e->readout, e->head, e->device, &source, err));
    e->readout.loader.log = &e->log;
    VL_TRY(vl_distribution_new(&e->teacher, e->head, m, err));
    if (has_partners)
        VL_TRY(vl_distribution_new(&e->other, e->head, m, err));
    VL_TRY(vl_distribution_new(&e->q, e->head, m, err));
    VL_TRY(vl_tensor_new(&e->u, e->device, VL_F32, m, d, err));
    VL_TRY(vl_tensor_new(&e->metrics, e->device, VL_F32, m, VL_METRIC_COUNT, err));
    e->host_metrics = vl_alloc((size_t)m, VL_METRIC_COUNT * sizeof(float));
    e->partners = vl_alloc((size_t)m, sizeof(int64_t));
    e->partner_states = has_partners ? vl_alloc((size_t)(m * d), sizeof(float)) : NULL;
    e->states = vl_alloc((size_t)e->n_layers + 1, sizeof(int64_t));
    if (!e->host_metrics || !e->partners || (has_partners && !e->partner_states) || !e->states)
        return vl_fail_nomem(err, "a tile of rows");
    /* Members of a team measure states of their own, against a teacher that each makes for itself. */
    for (int64_t state = vl_team_rank(e->team); state <= e->n_layers; state += vl_team_size(e->team))
        e->states[e->n_mine++] = state;
    return VL_OK;
}

/* A row whose numbers are not finite would blank a whole state: it is counted and said instead. */
static void leave_out(evaluation *e, const vl_readout_cell *cell, vl_eval_lens lens, int64_t row)
{
    const vl_cache_tokens *tokens = vl_cache_get_tokens(e->in->cache);
    int64_t *n = &e->result->left_out[cell->state * VL_EVAL_LENS_COUNT + (int64_t)lens];
    if (lens != VL_EVAL_WRONG_PICTURE)
        vl_depth_differs(&e->depth, row, lens, cell->state);
    if (lens == VL_EVAL_LOGIT && *n == 0)
        vl_log_say(&e->log, 1, "state %lld: sample %lld, position %lld is no finite number; such rows are left out",
                   (long long)cell->state, (long long)tokens->sample[e->rows->row[row]],
                   (long long)tokens->position[e->rows->row[row]]);
    ++*n;
}

static void record(evaluation *e, const vl_readout_cell *cell, vl_eval_lens lens)
{
    for (int64_t i = 0; i < cell->rows; i++) {
        int64_t row = cell->first + i;
        const float *metrics = e->host_metrics + i * VL_METRIC_COUNT;
        if (lens == VL_EVAL_WRONG_PICTURE && e->rows->partner[row] < 0)
            continue;
        if (!cell->sound[i] || !isfinite(metrics[VL_METRIC_KL])) {
            leave_out(e, cell, lens, row);
            continue;
        }
        vl_tally_add(&e->result->tally, cell->state, lens, e->rows->group[row], e->rows->cluster[row], metrics);
        if (lens != VL_EVAL_WRONG_PICTURE && metrics[VL_METRIC_TOP1] < 1)
            vl_depth_differs(&e->depth, row, lens, cell->state);
    }
}

/* The lens' distribution, compared with a teacher and recorded. */
static vl_status compare(evaluation *e, const vl_readout_cell *cell, vl_eval_lens lens, const vl_distribution *teacher,
                         vl_error *err)
{
    vl_comparison args = {teacher, &e->q, e->metrics, vl_loader_targets(&e->readout.loader), cell->rows};
    VL_TRY(vl_distribution_compare(e->host_metrics, e->device, &args, err));
    record(e, cell, lens);
    return VL_OK;
}

static vl_status choose_adapter(vl_adapter *out, void *user, const vl_readout_cell *cell, vl_error *err)
{
    vl_device_lens *lens = ((evaluation *)user)->lens[cell->which];
    return lens ? vl_device_lens_adapter(out, lens, cell->state, err) : VL_OK;
}

/* One state through one lens: `which` counts as vl_eval_lens does. */
static vl_status on_cell(void *user, const vl_readout_cell *cell, vl_error *err)
{
    evaluation *e = user;
    vl_eval_lens which = (vl_eval_lens)cell->which;
    bool bf16 = vl_adapter_in_bf16(e->in->config->precision, e->head, false);
    VL_TRY(vl_readout_distribution(&e->q, &e->readout, cell, e->u, bf16, err));
    VL_TRY(compare(e, cell, which, &e->teacher, err));
    vl_pooled_rows pooled = {cell->state,
                             which,
                             e->rows->group + cell->first,
                             cell->n_unsound ? cell->sound : NULL,
                             vl_distribution_rows(&e->q, cell->rows).logits,
                             vl_distribution_rows(&e->teacher, cell->rows).logits};
    VL_TRY(vl_pooled_add(&e->result->pooled, e->device, &pooled, err));
    if (which != VL_EVAL_TUNED || !e->rows->n_partners)
        return VL_OK;
    return compare(e, cell, VL_EVAL_WRONG_PICTURE, &e->other, err);
}

/* What belongs to a tile: its rows are counted, and the model's distribution at their partners is made. */
static vl_status on_tile(void *user, int64_t first, int64_t n, vl_error *err)
{
    evaluation *e = user;
    for (int64_t i = 0; i < n; i++) {
        int64_t partner = e->rows->partner[first + i];
        e->partners[i] = partner >= 0 ? partner : e->rows->row[first + i];
        vl_tally_row(&e->result->tally, e->rows->group[first + i], e->rows->cluster[first + i], partner >= 0);
    }
    e->log.progress.done = first + n;
    if (!e->rows->n_partners)
        return VL_OK;
    vl_tensor h = vl_tensor_rows(e->u, 0, n);
    VL_TRY(vl_loader_fetch(e->partner_states, &e->readout.loader, e->n_layers, e->partners, n, err));
    VL_TRY(vl_device_write(e->device, &h, e->partner_states, err));
    return vl_distribution_of(&e->other, e->head, h, err);
}

/* What the processes of the team have measured, together. */
static vl_status add_up(evaluation *e, vl_error *err)
{
    vl_team_sum left_out = {e->result->left_out, VL_I64, (e->n_layers + 1) * VL_EVAL_LENS_COUNT, 0,
                            vl_team_size(e->team)};
    VL_TRY(vl_team_add(e->team, &left_out, err));
    VL_TRY(vl_tally_add_up(&e->result->tally, e->team, err));
    VL_TRY(vl_pooled_add_up(&e->result->pooled, e->team, err));
    VL_TRY(vl_depth_add_up(&e->depth, e->team, err));
    for (int64_t i = 0; i < e->rows->n; i++)
        for (vl_eval_lens lens = 0; lens < VL_EVAL_WRONG_PICTURE; lens++)
            vl_tally_add_depth(&e->result->tally, lens, e->rows->group[i], e->rows->cluster[i],
                               vl_depth_of(&e->depth, i, lens));
    return VL_OK;
}

static vl_status walk(evaluation *e, vl_error *err)
{
    vl_sampler sampler = vl_sampler_in_order(&e->walked);
    vl_walk walk = {.sampler = &sampler,
                    .n_rows = e->rows->n,
                    .scale = 1,
                    .states = e->states,
                    .n_states = e->n_mine,
                    .teacher = &e->teacher,
                    .teacher_state = e->n_layers,
                    .n_adapters = e->result->has_baseline ? VL_EVAL_BASELINE + 1 : VL_EVAL_TUNED + 1,
                    .tile = on_tile,
                    .adapter = choose_adapter,
                    .cell = on_cell,
                    .user = e};
    e->log.progress = (vl_progress){"eval", "tokens", 0, e->rows->n, (double)NAN};
    VL_TRY(vl_readout_walk(&e->readout, &walk, err));
    e->log.progress.done = e->rows->n;
    VL_TRY(vl_log_poll(&e->log, err));
    return add_up(e, err);
}

static void keep(char *to, size_t size, const char *text)
{
    snprintf(to, size, "%s", text ? text : "");
}

/* Checks that a lens belongs to the cache, and puts it on the device. */
static vl_status take_lens(evaluation *e, vl_eval_lens which, const vl_lens *lens, bool allow_other_model,
                           vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(e->in->cache);
    vl_head_info wanted = {.d_model = info->d_model, .n_layers = e->n_layers};
    bool warned = false;
    keep(wanted.fingerprint, sizeof wanted.fingerprint, info->fingerprint);
    VL_TRY(vl_lens_check(lens, &wanted, allow_other_model, &warned, err));
    bool body = false; /* another model below the same head */
    VL_TRY(vl_lens_check_model(lens, info->model_digest, info->model_manifest, allow_other_model, &body, err));
    if ((warned || body) && vl_team_rank(e->team) == 0)
        vl_log_say(&e->log, 1, "the lens was fitted for another model: its %s differs",
                   warned ? "fingerprint" : "digest");
    e->result->other_model |= warned || body;
    return vl_device_lens_new(&e->lens[which], lens, e->device, err);
}

/* What is known of the result before a row is looked at. */
static void describe(vl_eval_result *r, const vl_eval_inputs *in)
{
    const vl_cache_info *info = vl_cache_get_info(in->cache);
    const vl_lens_info *lens = vl_lens_get_info(in->lens);
    r->has_pictures = info->n_images > 0;
    r->n_layers = info->n_states - 1;
    r->metrics = in->config->eval.metrics | 1u << VL_METRIC_KL;
    r->heldout = in->config->eval.split == VL_SPLIT_HELDOUT;
    r->bootstrap = (vl_bootstrap){in->config->eval.bootstrap, in->config->eval.seed};
    keep(r->model_id, sizeof r->model_id, info->model_id);
    keep(r->fingerprint, sizeof r->fingerprint, info->fingerprint);
    keep(r->model_digest, sizeof r->model_digest, info->model_digest);
    keep(r->lens_model_digest, sizeof r->lens_model_digest, lens->model_digest);
    keep(r->rules, sizeof r->rules, info->rules);
    keep(r->lens_fingerprint, sizeof r->lens_fingerprint, lens->fingerprint);
    keep(r->lens_path, sizeof r->lens_path, lens->path);
    keep(r->cache_path, sizeof r->cache_path, info->path);
    r->n_skipped = info->n_skipped;
    keep(r->version, sizeof r->version, VLENS_VERSION);
}

static vl_status prepare(evaluation *e, bool allow_other_model, vl_error *err)
{
    const vl_config *config = e->in->config;
    int64_t v = vl_cache_get_info(e->in->cache)->vocab_size;
    e->n_layers = e->result->n_layers;
    VL_TRY(take_lens(e, VL_EVAL_TUNED, e->in->lens, allow_other_model, err));
    if (config->eval.baseline) {
        VL_TRY(vl_lens_open(&e->baseline_file, config->eval.baseline, err));
        VL_TRY(take_lens(e, VL_EVAL_BASELINE, e->baseline_file, allow_other_model, err));
        e->result->has_baseline = true;
        keep(e->result->baseline_path, sizeof e->result->baseline_path, config->eval.baseline);
    }
    VL_TRY(vl_cache_head(&e->head, e->in->cache, e->device, config->precision, err));
    e->capacity = TILE_ELEMENTS / v < 16 ? 16 : TILE_ELEMENTS / v;
    e->capacity = e->capacity < 1024 ? e->capacity : 1024;
    return VL_OK;
}

vl_status vl_eval_run(vl_eval_result **out, const vl_eval_inputs *inputs, const vl_eval_options *options,
                      const vl_observer *observer, vl_error *err)
{
    vl_eval_rows rows = {0};
    evaluation e = {.in = inputs,
                    .device = inputs->device,
                    .rows = &rows,
                    .team = options ? options->team : NULL,
                    .log = {.observer = observer}};
    vl_status status = VL_OK;
    *out = NULL;
    vl_eval_result *r = e.result = vl_calloc(1, sizeof *e.result);
    if (!r)
        return vl_fail_nomem(err, "evaluation");
    describe(r, inputs);
    VL_GOTO(prepare(&e, options && options->allow_other_model, err));
    VL_GOTO(vl_cache_split(inputs->cache, inputs->config, err));
    if (r->heldout)
        VL_GOTO(vl_lens_check_seen(&r->seen, inputs->lens, inputs->cache, options && options->allow_seen, err));
    VL_GOTO(vl_eval_rows_select(&rows, inputs->config, inputs->cache, err));
    r->wrong_rows = rows.n_partners;
    VL_GOTO(vl_eval_identify(
        r, &(vl_eval_identity){inputs->config, inputs->cache, inputs->lens, e.baseline_file, &rows}, err));
    e.capacity = e.capacity < rows.n ? e.capacity : rows.n;
    VL_GOTO(evaluation_alloc(&e, err));
    VL_GOTO(vl_tally_new(&r->tally, e.n_layers + 1, rows.n_clusters, err));
    r->left_out = vl_calloc((size_t)(e.n_layers + 1) * VL_EVAL_LENS_COUNT, sizeof *r->left_out);
    if (!r->left_out)
        VL_GOTO(vl_fail_nomem(err, "evaluation"));
    VL_GOTO(vl_depth_new(&e.depth, rows.n, e.n_layers + 1, err));
    if (r->metrics & (1u << VL_METRIC_BIAS | 1u << VL_METRIC_ECE))
        VL_GOTO(vl_pooled_new(&r->pooled, e.n_layers + 1, vl_head_get_info(e.head)->vocab_size, err));
    VL_GOTO(walk(&e, err));
    VL_GOTO(vl_eval_result_finish(r, err));
    *out = e.result;
    e.result = NULL;
done:
    vl_eval_free(e.result);
    evaluation_clear(&e);
    vl_eval_rows_clear(&rows);
    return status;
}

vl_status vl_eval_record(const vl_eval_result *r, const char *lens_path, vl_error *err)
{
    double *kl = vl_alloc((size_t)r->n_layers, sizeof *kl);
    if (!kl)
        return vl_fail_nomem(err, "held-out KL");
    int widest = r->n_groups - 1; /* "all", or "all-text" where that is all; "first" stands last when it exists */
    while (widest > 0 && r->group[widest] == VL_GROUP_FIRST)
        widest--;
    for (int64_t i = 0; i < r->n_layers; i++)
        kl[i] = vl_eval_get_cell(r, widest, i, VL_EVAL_TUNED).kl.mean;
    vl_status status = vl_lens_record_heldout(lens_path, kl, err);
    vl_free(kl);
    return status;
}
