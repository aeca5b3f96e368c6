/* plan.c - selection of rows, class weights. The assignment of samples is in split.c. */
#include "trainer/fit/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/rng.h"

/* What a row must be to take part. */
typedef struct selection {
    const vl_cache_tokens *tokens;
    const vl_cache_samples *samples;
    const uint8_t *assigned; /* [S] 1: validation */
    const double *class_weights;
    int64_t skip_positions;
    bool needs_target; /* cross-entropy: the row must have a next token */
} selection;

enum part_id { PART_NONE = -1, PART_TRAIN = 0, PART_VALIDATION = 1 };

static enum part_id part_of(const selection *s, int64_t row)
{
    const vl_cache_tokens *t = s->tokens;
    int32_t sample = t->sample_row[row];
    if (s->samples->heldout[sample] || !(s->class_weights[t->token_class[row]] > 0) ||
        t->position[row] < s->skip_positions || (s->needs_target && t->next_id[row] < 0))
        return PART_NONE;
    return s->assigned[sample] ? PART_VALIDATION : PART_TRAIN;
}

/* Lists (runs != NULL) or counts the runs of one part. */
static int64_t find_runs(vl_run *runs, const selection *s, int64_t n_rows, enum part_id wanted)
{
    int64_t n = 0, length = 0;
    for (int64_t row = 0; row < n_rows; row++) {
        if (part_of(s, row) != wanted) {
            length = 0;
            continue;
        }
        if (length == 0 || length == VL_RUN_ROWS) {
            if (runs)
                runs[n] = (vl_run){row, 0};
            n++;
            length = 0;
        }
        length++;
        if (runs)
            runs[n - 1].n = length;
    }
    return n;
}

static int by_first(const void *a, const void *b)
{
    int64_t x = ((const vl_run *)a)->first, y = ((const vl_run *)b)->first;
    return (x > y) - (x < y);
}

/* Keeps a random choice of whole runs with about `limit` rows. */
static void thin(vl_rows *part, int64_t limit, uint64_t seed)
{
    int64_t total = 0, kept = 0, rows = 0;
    vl_rng rng;
    for (int64_t i = 0; i < part->n_runs; i++)
        total += part->runs[i].n;
    if (total <= limit)
        return;
    vl_rng_seed(&rng, seed);
    for (; kept < part->n_runs && rows < limit; kept++) {
        int64_t j = kept + (int64_t)vl_rng_below(&rng, (uint64_t)(part->n_runs - kept));
        vl_run chosen = part->runs[j];
        part->runs[j] = part->runs[kept];
        part->runs[kept] = chosen;
        rows += chosen.n;
    }
    part->n_runs = kept;
    qsort(part->runs, (size_t)kept, sizeof *part->runs, by_first);
}

/* Runs of `part`, evenly spread, with about `limit` rows. */
static vl_status spread(vl_rows *out, const vl_rows *part, int64_t limit, vl_error *err)
{
    int64_t wanted = (limit + VL_RUN_ROWS - 1) / VL_RUN_ROWS;
    out->n_runs = part->n_runs < wanted ? part->n_runs : wanted;
    if (out->n_runs == 0)
        return VL_OK;
    out->runs = vl_alloc((size_t)out->n_runs, sizeof *out->runs);
    if (!out->runs)
        return vl_fail_nomem(err, "training plan");
    for (int64_t i = 0; i < out->n_runs; i++)
        out->runs[i] = part->runs[(2 * i + 1) * part->n_runs / (2 * out->n_runs)];
    return VL_OK;
}

static void weigh(vl_rows *part, const selection *s)
{
    double sum = 0;
    for (int64_t i = 0; i < part->n_runs; i++) {
        for (int64_t k = 0; k < part->runs[i].n; k++)
            part->class_rows[s->tokens->token_class[part->runs[i].first + k]]++;
        part->n_rows += part->runs[i].n;
    }
    for (int c = 0; c < VL_CLASS_COUNT; c++)
        sum += part->class_rows[c] ? s->class_weights[c] : 0;
    for (int c = 0; c < VL_CLASS_COUNT; c++)
        part->weight[c] =
            part->class_rows[c] ? s->class_weights[c] / sum * (double)part->n_rows / (double)part->class_rows[c] : 0;
}

static vl_status fill_part(vl_rows *part, const selection *s, int64_t n_rows, enum part_id id, vl_error *err)
{
    part->n_runs = find_runs(NULL, s, n_rows, id);
    if (part->n_runs == 0)
        return VL_OK;
    part->runs = vl_alloc((size_t)part->n_runs, sizeof *part->runs);
    if (!part->runs)
        return vl_fail_nomem(err, "training plan");
    find_runs(part->runs, s, n_rows, id);
    return VL_OK;
}

static void digest_plan(vl_plan *plan)
{
    vl_sha256 hash;
    uint8_t digest[VL_SHA256_BYTES];
    vl_sha256_init(&hash);
    const vl_rows *parts[] = {&plan->train, &plan->validation};
    for (int k = 0; k < 2; k++) {
        vl_sha256_update(&hash, parts[k]->runs, (size_t)parts[k]->n_runs * sizeof *parts[k]->runs);
        vl_sha256_update(&hash, parts[k]->weight, sizeof parts[k]->weight);
    }
    vl_sha256_final(&hash, digest);
    vl_sha256_hex(digest, plan->digest);
}

static void count_steps(vl_plan *plan, const vl_config *config)
{
    int64_t rows = plan->train.n_rows, step = config->fit.tokens_per_step;
    plan->tokens_per_step = step < rows ? step : rows;
    plan->steps = config->fit.steps;
    if (plan->steps <= 0)
        plan->steps = (int64_t)ceil(config->fit.epochs * (double)rows / (double)plan->tokens_per_step);
    if (plan->steps < 0)
        plan->steps = 0;
}

vl_status vl_plan_new(vl_plan *out, const vl_config *config, const vl_cache *cache, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    vl_status status = VL_OK;
    *out = (vl_plan){.steps = 0};
    uint8_t *assigned = vl_calloc((size_t)info->n_samples + 1, 1);
    if (!assigned)
        return vl_fail_nomem(err, "training plan");
    VL_GOTO(vl_plan_validation_samples(assigned, config, cache, err));
    selection s = {.tokens = vl_cache_get_tokens(cache),
                   .samples = vl_cache_get_samples(cache),
                   .assigned = assigned,
                   .class_weights = config->lens.class_weights,
                   .skip_positions = config->lens.skip_positions,
                   .needs_target = config->lens.loss == VL_LOSS_CE};
    VL_GOTO(fill_part(&out->train, &s, info->n_tokens, PART_TRAIN, err));
    VL_GOTO(fill_part(&out->validation, &s, info->n_tokens, PART_VALIDATION, err));
    thin(&out->validation, VL_VALIDATION_ROWS, (uint64_t)config->fit.seed);
    VL_GOTO(spread(&out->probe, &out->validation, VL_PROBE_ROWS, err));
    weigh(&out->train, &s);
    weigh(&out->validation, &s);
    weigh(&out->probe, &s);
    if (out->train.n_rows == 0)
        VL_GOTO(vl_fail(err, VL_EINVAL,
                        "%s: no rows to train on: of %lld, none is in the training split with a class weight above 0 "
                        "(lens.class_weights) at position %lld or later (lens.skip_positions)",
                        info->path, (long long)info->n_tokens, (long long)config->lens.skip_positions));
    count_steps(out, config);
    digest_plan(out);
done:
    vl_free(assigned);
    if (status != VL_OK)
        vl_plan_clear(out);
    return status;
}

void vl_plan_clear(vl_plan *plan)
{
    vl_rows_clear(&plan->train);
    vl_rows_clear(&plan->validation);
    vl_rows_clear(&plan->probe);
    *plan = (vl_plan){.steps = 0};
}
