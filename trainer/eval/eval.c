/* The walk over the held-out rows: a tile of rows outside, states inside, the teacher's distribution once per tile. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <vlens/eval.h>

#include "kernels/ops.h"
#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/version.h"
#include "trainer/eval/depth.h"
#include "trainer/eval/result.h"
#include "trainer/lens/lens.h"
#include "trainer/model/head.h"

_Static_assert((int)VL_EVAL_METRIC_COUNT == (int)VL_METRIC_COUNT && (int)VL_EVAL_TV == (int)VL_METRIC_TV,
               "the columns of the device's metrics are those of the evaluation");

enum { TILE_ELEMENTS = 48 << 20 }; /* of one [rows, V] tile: 192 MiB */

typedef struct evaluation {
    vl_device *device;
    vl_cache *cache;
    vl_head *head;
    vl_lens *lens, *baseline;
    const vl_eval_rows *rows;
    vl_eval_result *result;
    vl_depth depth;
    const vl_team *team;
    int64_t capacity, d, v, n_layers;
    void *host;                       /* [capacity, D] rows as stored */
    float *host_metrics;              /* [capacity, VL_METRIC_COUNT] */
    int32_t *host_targets;            /* [capacity] */
    int64_t *host_rows;               /* [capacity] cache rows of the partners */
    vl_tensor stored, h, u;           /* [capacity, D] as stored; f32; transformed */
    vl_tensor teacher, other, logits; /* [capacity, V] of the model, of the model at the partner rows, of the lens */
    vl_tensor teacher_lse, other_lse, lse; /* [capacity] */
    vl_tensor metrics, targets;            /* [capacity, VL_METRIC_COUNT], [capacity] i32 */
} evaluation;

static void evaluation_clear(evaluation *e)
{
    vl_tensor *tensors[] = {&e->stored,      &e->h,         &e->u,   &e->teacher, &e->other,  &e->logits,
                            &e->teacher_lse, &e->other_lse, &e->lse, &e->metrics, &e->targets};
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++)
        vl_device_free(e->device, tensors[i]->data);
    vl_free(e->host);
    vl_free(e->host_metrics);
    vl_free(e->host_targets);
    vl_depth_clear(&e->depth);
    vl_free(e->host_rows);
    vl_head_close(e->head);
}

static vl_status evaluation_alloc(evaluation *e, vl_dtype dtype, vl_error *err)
{
    int64_t m = e->capacity;
    VL_TRY(vl_tensor_new(&e->stored, e->device, dtype, m, e->d, err));
    VL_TRY(vl_tensor_new(&e->h, e->device, VL_F32, m, e->d, err));
    VL_TRY(vl_tensor_new(&e->u, e->device, VL_F32, m, e->d, err));
    VL_TRY(vl_tensor_new(&e->teacher, e->device, VL_F32, m, e->v, err));
    if (e->rows->n_partners)
        VL_TRY(vl_tensor_new(&e->other, e->device, VL_F32, m, e->v, err));
    VL_TRY(vl_tensor_new(&e->logits, e->device, VL_F32, m, e->v, err));
    VL_TRY(vl_tensor_new(&e->teacher_lse, e->device, VL_F32, m, 1, err));
    VL_TRY(vl_tensor_new(&e->other_lse, e->device, VL_F32, m, 1, err));
    VL_TRY(vl_tensor_new(&e->lse, e->device, VL_F32, m, 1, err));
    VL_TRY(vl_tensor_new(&e->metrics, e->device, VL_F32, m, VL_METRIC_COUNT, err));
    VL_TRY(vl_tensor_new(&e->targets, e->device, VL_I32, m, 1, err));
    e->host = vl_alloc((size_t)(m * e->d), vl_dtype_size(dtype));
    e->host_metrics = vl_alloc((size_t)m, VL_METRIC_COUNT * sizeof(float));
    e->host_targets = vl_alloc((size_t)m, sizeof(int32_t));
    e->host_rows = vl_alloc((size_t)m, sizeof(int64_t));
    if (!e->host || !e->host_metrics || !e->host_targets || !e->host_rows)
        return vl_fail_nomem(err, "a tile of rows");
    return VL_OK;
}

/* State `state` of the given cache rows into e->h [n, D], one read per run of neighbours. */
static vl_status load_state(evaluation *e, int64_t state, const int64_t *rows, int64_t n, vl_error *err)
{
    size_t width = (size_t)e->d * vl_dtype_size(e->stored.dtype);
    for (int64_t i = 0, length; i < n; i += length) {
        for (length = 1; i + length < n && rows[i + length] == rows[i] + length; length++)
            ;
        VL_TRY(vl_cache_read((char *)e->host + (size_t)i * width, e->cache, state, rows[i], length, err));
    }
    vl_tensor stored = vl_tensor_rows(e->stored, 0, n), h = vl_tensor_rows(e->h, 0, n);
    VL_TRY(vl_device_write(e->device, &stored, e->host, err));
    return vl_op_cast(e->device, &(vl_cast_args){.out = h, .x = stored}, err);
}

static vl_status head_distribution(evaluation *e, vl_tensor logits, vl_tensor lse, vl_tensor states, vl_error *err)
{
    VL_TRY(vl_head_logits(e->head, logits, states, err));
    return vl_op_logsumexp(e->device, &(vl_logsumexp_args){.lse = lse, .logits = logits}, err);
}

/* Metrics of e->logits against a teacher into host_metrics. */
static vl_status compare(evaluation *e, vl_tensor teacher, vl_tensor teacher_lse, int64_t n, vl_error *err)
{
    vl_tensor metrics = vl_tensor_rows(e->metrics, 0, n);
    vl_metrics_args args = {.out = metrics,
                            .logits = vl_tensor_rows(e->logits, 0, n),
                            .lse = vl_tensor_rows(e->lse, 0, n),
                            .teacher_logits = vl_tensor_rows(teacher, 0, n),
                            .teacher_lse = vl_tensor_rows(teacher_lse, 0, n),
                            .targets = vl_tensor_rows(e->targets, 0, n)};
    VL_TRY(vl_op_metrics(e->device, &args, err));
    return vl_device_read(e->device, e->host_metrics, &metrics, err);
}

static void record(evaluation *e, int64_t state, vl_eval_lens lens, int64_t first, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (lens == VL_EVAL_WRONG_PICTURE && e->rows->partner[first + i] < 0)
            continue;
        vl_tally_add(&e->result->tally, state, lens, e->rows->group[first + i], e->rows->cluster[first + i],
                     e->host_metrics + i * VL_METRIC_COUNT);
        if (lens != VL_EVAL_WRONG_PICTURE && e->host_metrics[i * VL_METRIC_COUNT + VL_METRIC_TOP1] < 1)
            vl_depth_differs(&e->depth, first + i, lens, state);
    }
}

/* One state through one lens (NULL: the logit lens), compared and recorded. */
static vl_status measure(evaluation *e, int64_t state, vl_eval_lens which, vl_lens *lens, int64_t first, int64_t n,
                         vl_error *err)
{
    vl_tensor h = vl_tensor_rows(e->h, 0, n), u = vl_tensor_rows(e->u, 0, n);
    if (lens)
        VL_TRY(vl_lens_transform(lens, e->device, state, u, h, err));
    VL_TRY(head_distribution(e, vl_tensor_rows(e->logits, 0, n), vl_tensor_rows(e->lse, 0, n), lens ? u : h, err));
    VL_TRY(compare(e, e->teacher, e->teacher_lse, n, err));
    record(e, state, which, first, n);
    VL_TRY(vl_pooled_add(&e->result->pooled, e->device,
                         &(vl_pooled_rows){state, which, e->rows->group + first, vl_tensor_rows(e->logits, 0, n),
                                           vl_tensor_rows(e->teacher, 0, n)},
                         err));
    if (which != VL_EVAL_TUNED || !e->rows->n_partners)
        return VL_OK;
    VL_TRY(compare(e, e->other, e->other_lse, n, err));
    record(e, state, VL_EVAL_WRONG_PICTURE, first, n);
    return VL_OK;
}

/* The model's own distribution at the tile's rows and at their partners. */
static vl_status load_teachers(evaluation *e, int64_t first, int64_t n, vl_error *err)
{
    const int32_t *next = vl_cache_get_tokens(e->cache)->next_id;
    vl_tensor h = vl_tensor_rows(e->h, 0, n), targets = vl_tensor_rows(e->targets, 0, n);
    for (int64_t i = 0; i < n; i++) {
        int64_t row = e->rows->row[first + i], partner = e->rows->partner[first + i];
        e->host_targets[i] = next[row];
        e->host_rows[i] = partner >= 0 ? partner : row;
        vl_tally_row(&e->result->tally, e->rows->group[first + i], e->rows->cluster[first + i], partner >= 0);
    }
    VL_TRY(vl_device_write(e->device, &targets, e->host_targets, err));
    if (e->rows->n_partners) {
        VL_TRY(load_state(e, e->n_layers, e->host_rows, n, err));
        VL_TRY(head_distribution(e, vl_tensor_rows(e->other, 0, n), vl_tensor_rows(e->other_lse, 0, n), h, err));
    }
    VL_TRY(load_state(e, e->n_layers, e->rows->row + first, n, err));
    return head_distribution(e, vl_tensor_rows(e->teacher, 0, n), vl_tensor_rows(e->teacher_lse, 0, n), h, err);
}

/* Members measure states of their own against a teacher that each makes for itself. */
static bool is_mine(const evaluation *e, int64_t state)
{
    return state % vl_team_size(e->team) == vl_team_rank(e->team);
}

static vl_status run_tile(evaluation *e, int64_t first, int64_t n, vl_error *err)
{
    VL_TRY(load_teachers(e, first, n, err));
    for (int64_t state = 0; state <= e->n_layers; state++) {
        if (!is_mine(e, state))
            continue;
        VL_TRY(load_state(e, state, e->rows->row + first, n, err));
        VL_TRY(measure(e, state, VL_EVAL_LOGIT, NULL, first, n, err));
        VL_TRY(measure(e, state, VL_EVAL_TUNED, e->lens, first, n, err));
        if (e->baseline)
            VL_TRY(measure(e, state, VL_EVAL_BASELINE, e->baseline, first, n, err));
    }
    return VL_OK;
}

/* What the members of the team have measured, together. */
static vl_status add_up(evaluation *e, vl_error *err)
{
    VL_TRY(vl_tally_add_up(&e->result->tally, e->team, err));
    VL_TRY(vl_pooled_add_up(&e->result->pooled, e->team, err));
    VL_TRY(vl_depth_add_up(&e->depth, e->team, err));
    for (int64_t i = 0; i < e->rows->n; i++)
        for (vl_eval_lens lens = 0; lens < VL_EVAL_WRONG_PICTURE; lens++)
            vl_tally_add_depth(&e->result->tally, lens, e->rows->group[i], e->rows->cluster[i],
                               vl_depth_of(&e->depth, i, lens));
    return VL_OK;
}

static vl_status run_tiles(evaluation *e, const vl_observer *observer, vl_error *err)
{
    for (int64_t first = 0; first < e->rows->n; first += e->capacity) {
        int64_t n = e->rows->n - first < e->capacity ? e->rows->n - first : e->capacity;
        VL_TRY(run_tile(e, first, n, err));
        vl_progress progress = {"eval", "tokens", first + n, e->rows->n, NAN};
        if (observer && observer->progress && observer->progress(observer->user, &progress))
            return vl_fail(err, VL_ECANCELLED, "evaluation interrupted");
    }
    return add_up(e, err);
}

static void keep(char *to, size_t size, const char *text)
{
    snprintf(to, size, "%s", text ? text : "");
}

static vl_status check_lens(evaluation *e, const vl_lens *lens, const vl_eval_options *options,
                            const vl_observer *observer, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(e->cache);
    bool warned = false;
    VL_TRY(
        vl_lens_check(lens, info->fingerprint, e->d, e->n_layers, options && options->allow_other_model, &warned, err));
    if (warned && observer && observer->message && vl_team_rank(e->team) == 0)
        observer->message(observer->user, 1, "the lens was fitted for another model: its fingerprint differs");
    e->result->other_model |= warned;
    return VL_OK;
}

static vl_status prepare(evaluation *e, const vl_config *config, const vl_eval_options *options,
                         const vl_observer *observer, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(e->cache);
    const vl_lens_info *lens = vl_lens_get_info(e->lens);
    vl_eval_result *r = e->result;
    e->d = info->d_model;
    e->v = info->vocab_size;
    e->n_layers = info->n_states - 1;
    r->has_pictures = info->n_images > 0;
    r->n_layers = e->n_layers;
    r->metrics = config->eval.metrics | 1u << VL_EVAL_KL;
    r->heldout = config->eval.split == VL_SPLIT_HELDOUT;
    r->bootstrap = (vl_bootstrap){config->eval.bootstrap, config->eval.seed};
    keep(r->model_id, sizeof r->model_id, info->model_id);
    keep(r->fingerprint, sizeof r->fingerprint, info->fingerprint);
    keep(r->lens_fingerprint, sizeof r->lens_fingerprint, lens->fingerprint);
    keep(r->lens_path, sizeof r->lens_path, lens->path);
    keep(r->cache_path, sizeof r->cache_path, info->path);
    keep(r->version, sizeof r->version, VLENS_VERSION);
    VL_TRY(check_lens(e, e->lens, options, observer, err));
    if (config->eval.baseline) {
        VL_TRY(vl_lens_open(&e->baseline, config->eval.baseline, err));
        VL_TRY(check_lens(e, e->baseline, options, observer, err));
        r->has_baseline = true;
        keep(r->baseline_path, sizeof r->baseline_path, config->eval.baseline);
    }
    VL_TRY(vl_cache_head(&e->head, e->cache, e->device, config->precision, err));
    e->capacity = TILE_ELEMENTS / e->v < 16 ? 16 : TILE_ELEMENTS / e->v;
    e->capacity = e->capacity < 1024 ? e->capacity : 1024;
    return VL_OK;
}

vl_status vl_eval_run(vl_eval_result **out, const vl_config *config, vl_cache *cache, vl_lens *lens, vl_device *device,
                      const vl_eval_options *options, const vl_observer *observer, vl_error *err)
{
    vl_eval_rows rows = {0};
    evaluation e = {
        .device = device, .cache = cache, .lens = lens, .rows = &rows, .team = options ? options->team : NULL};
    vl_status status = VL_OK;
    *out = NULL;
    e.result = vl_calloc(1, sizeof *e.result);
    if (!e.result)
        return vl_fail_nomem(err, "evaluation");
    VL_GOTO(prepare(&e, config, options, observer, err));
    VL_GOTO(vl_eval_rows_select(&rows, config, cache, err));
    e.result->wrong_rows = rows.n_partners;
    VL_GOTO(vl_eval_identify(e.result, &(vl_eval_identity){config, cache, lens, e.baseline, &rows}, err));
    e.capacity = e.capacity < rows.n ? e.capacity : rows.n;
    VL_GOTO(evaluation_alloc(&e, vl_cache_get_info(cache)->dtype, err));
    VL_GOTO(vl_tally_new(&e.result->tally, e.n_layers + 1, rows.n_clusters, err));
    VL_GOTO(vl_depth_new(&e.depth, rows.n, e.n_layers + 1, err));
    if (e.result->metrics & (1u << VL_EVAL_BIAS | 1u << VL_EVAL_ECE))
        VL_GOTO(vl_pooled_new(&e.result->pooled, e.n_layers + 1, e.v, err));
    VL_GOTO(run_tiles(&e, observer, err));
    VL_GOTO(vl_eval_result_finish(e.result, err));
    *out = e.result;
    e.result = NULL;
done:
    vl_eval_free(e.result);
    vl_lens_close(e.baseline);
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
