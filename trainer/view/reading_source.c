/* Readings from a live model and from a cache. */
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/model/head.h"
#include "trainer/model/digest.h"
#include "trainer/view/reading.h"

/* Sizes, lens check and memory that both sources share. `n_rows` is what positions count in. */
static vl_status start(vl_reading *r, const vl_head_info *head, int64_t n_rows, const vl_reading_options *options,
                       vl_error *err)
{
    if (options->k < 1 || options->k > head->vocab_size)
        return vl_fail(err, VL_EINVAL, "k is %lld, expected 1 to %lld", (long long)options->k,
                       (long long)head->vocab_size);
    r->n_states = head->n_layers + 1;
    r->d = head->d_model;
    r->vocab_size = head->vocab_size;
    r->k = options->k;
    r->n_positions = options->positions ? options->n_positions : n_rows;
    r->has_lens = options->lens != NULL;
    r->n_parts = 1;
    bool warned = false;
    if (options->lens)
        VL_TRY(vl_lens_check(options->lens, head, options->allow_other_model, &warned, err));
    if (warned)
        snprintf(r->warning, sizeof r->warning, "the lens was fitted for another model (fingerprints differ)");
    r->positions = vl_calloc((size_t)r->n_positions, sizeof *r->positions);
    if (!r->positions)
        return vl_fail_nomem(err, "reading");
    return vl_reading_alloc(r, err);
}

/* A lens that was fitted on another body below the same head. */
static vl_status check_body(vl_reading *r, const vl_reading_options *options, const char *digest, const char *manifest,
                            vl_error *err)
{
    bool warned = false;
    if (options->lens)
        VL_TRY(vl_lens_check_model(options->lens, digest, manifest, options->allow_other_model, &warned, err));
    if (warned && !r->warning[0])
        snprintf(r->warning, sizeof r->warning, "the lens was fitted for another model (digests differ)");
    return VL_OK;
}

/* The same for a model that runs; its weights are read for it only where the lens knows its own. */
static vl_status check_live_body(vl_reading *r, const vl_reading_options *options, vl_model *model, vl_error *err)
{
    const char *digest, *manifest;
    if (!options->lens || !vl_lens_get_info(options->lens)->model_digest[0])
        return VL_OK;
    VL_TRY(vl_model_identify(&digest, &manifest, model, err));
    return check_body(r, options, digest, manifest, err);
}

/* The texts that stand over every result. */
static vl_status describe(vl_reading *r, const vl_reading_options *options, const char *model_id, const char *prompt,
                          const char *answer, vl_error *err)
{
    r->model_id = vl_strdup(model_id);
    r->prompt = vl_strdup(prompt ? prompt : "");
    r->answer = vl_strdup(answer ? answer : "");
    r->lens_path = vl_strdup(options->lens ? vl_lens_get_info(options->lens)->path : "");
    return r->model_id && r->prompt && r->answer && r->lens_path ? VL_OK : vl_fail_nomem(err, "reading");
}

/* Row number of entry `index` of the request. */
static vl_status resolve(int64_t *out, const vl_reading_options *options, int64_t index, int64_t n_rows, vl_error *err)
{
    int64_t position = options->positions ? options->positions[index] : index;
    int64_t row = position < 0 ? n_rows + position : position;
    if (row < 0 || row >= n_rows)
        return vl_fail(err, VL_EINVAL, "position %lld is outside the sequence of %lld rows", (long long)position,
                       (long long)n_rows);
    *out = row;
    return VL_OK;
}

/* ---- from a model ------------------------------------------------------------------------------------------ */

typedef struct live_source {
    vl_device *device;
    const vl_tokenizer *tokenizer;
    const vl_reading *reading;
    const int64_t *rows; /* [n_positions] of the sequence */
    float *states;       /* [n_states, n_positions, D] */
    vl_attention_capture attention;
    const vl_observer *observer;
    vl_error failure; /* of the tap or of the attention map: the forward only says that it was stopped */
    vl_status status;
} live_source;

static int live_tap(void *user, const vl_tap *tap)
{
    live_source *source = user;
    const vl_reading *r = source->reading;
    float *to = source->states + (int64_t)tap->state * r->n_positions * r->d;
    /* neighbours in one read: each waits for the device */
    for (int64_t i = 0, n; i < r->n_positions && source->status == VL_OK; i += n) {
        for (n = 1; i + n < r->n_positions && source->rows[i + n] == source->rows[i] + n; n++)
            ;
        vl_tensor rows = vl_tensor_rows(tap->x, source->rows[i], n);
        source->status = vl_device_read(source->device, to + i * r->d, &rows, &source->failure);
    }
    if (source->status == VL_OK)
        source->status = vl_reading_report(source->observer, "forward", tap->state + 1, r->n_states, &source->failure);
    return source->status != VL_OK;
}

static int live_stage(void *user, const char *name, int sequence, const vl_tensor *x)
{
    (void)sequence;
    return vl_attention_stage(&((live_source *)user)->attention, name, x);
}

static const char *live_piece(void *user, int32_t id)
{
    return vl_tokenizer_piece(((const live_source *)user)->tokenizer, id);
}

static vl_status live_positions(vl_reading *r, int64_t *rows, const vl_sequence *sequence,
                                const vl_reading_options *options, vl_error *err)
{
    for (int64_t i = 0; i < r->n_positions; i++) {
        VL_TRY(resolve(&rows[i], options, i, sequence->n_tokens, err));
        r->positions[i] = (vl_reading_position){.position = rows[i],
                                                .id = sequence->ids[rows[i]],
                                                .token_class = sequence->token_class[rows[i]],
                                                .image = sequence->image[rows[i]]};
        memcpy(r->positions[i].patch, sequence->patch[rows[i]], sizeof r->positions[i].patch);
    }
    return VL_OK;
}

vl_status vl_reading_from_model(vl_reading **out, vl_model *model, const vl_sequence *sequence,
                                const vl_reading_options *options, vl_error *err)
{
    live_source live = {
        .tokenizer = vl_model_tokenizer(model), .observer = options->observer, .failure = VL_ERROR_INIT};
    vl_reading_source source = {.piece = live_piece, .user = &live};
    const float **memory = NULL;
    int64_t *rows = NULL;
    vl_status status = VL_OK;
    *out = NULL;
    vl_reading *r = vl_calloc(1, sizeof *r);
    if (!r)
        return vl_fail_nomem(err, "reading");
    VL_GOTO(vl_head_from_model(&source.head, model, err));
    live.device = vl_head_device(source.head);
    live.reading = r;
    VL_GOTO(start(r, vl_head_get_info(source.head), sequence->n_tokens, options, err));
    VL_GOTO(check_live_body(r, options, model, err));
    VL_GOTO(describe(r, options, vl_model_get_info(model)->path, options->prompt, NULL, err));
    VL_GOTO(vl_pictures_from_sequence(&r->pictures, model, sequence, err));
    live.rows = rows = vl_alloc((size_t)r->n_positions, sizeof *rows);
    live.states = vl_alloc((size_t)(r->n_states * r->n_positions), (size_t)r->d * sizeof(float));
    source.memory = memory = vl_alloc((size_t)r->n_states, sizeof *memory);
    if (!rows || !live.states || !memory)
        VL_GOTO(vl_fail_nomem(err, "reading"));
    for (int64_t i = 0; i < r->n_states; i++)
        memory[i] = live.states + i * r->n_positions * r->d;
    VL_GOTO(live_positions(r, rows, sequence, options, err));
    vl_forward forward = {.sequences = &sequence, .n_sequences = 1, .tap = live_tap, .user = &live};
    if (vl_attention_exists(vl_model_get_info(model), sequence)) {
        r->attention.n_positions = r->n_positions;
        live.attention = (vl_attention_capture){.device = live.device,
                                                .model = vl_model_get_info(model),
                                                .sequence = sequence,
                                                .rows = rows,
                                                .map = &r->attention,
                                                .err = &live.failure};
        forward.stage = live_stage;
    }
    status = vl_model_forward(model, &forward, err);
    if (live.status != VL_OK || live.attention.status != VL_OK) {
        status = live.status != VL_OK ? live.status : live.attention.status;
        if (err)
            *err = live.failure;
    }
    if (status == VL_OK)
        status = vl_reading_fill(r, &source, options, err);
done:
    vl_free(rows);
    vl_free(memory);
    vl_free(live.states);
    vl_head_close(source.head);
    if (status == VL_OK)
        *out = r;
    else
        vl_reading_free(r);
    return status;
}

/* ---- from a cache ------------------------------------------------------------------------------------------ */

static const char *stored_piece(void *user, int32_t id)
{
    return vl_cache_piece(user, id);
}

/* Cache rows of a sample, ascending. *out is [*n], freed by vl_free. */
static vl_status sample_rows(int64_t **out, int64_t *n, int64_t *sample_row, const vl_cache *cache, int64_t sample,
                             vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    const vl_cache_tokens *tokens = vl_cache_get_tokens(cache);
    *out = vl_alloc((size_t)info->n_tokens, sizeof **out);
    *n = 0;
    if (!*out)
        return vl_fail_nomem(err, "rows of a sample");
    for (int64_t i = 0; i < info->n_tokens; i++)
        if (tokens->sample[i] == sample) {
            *sample_row = tokens->sample_row[i];
            (*out)[(*n)++] = i;
        }
    return *n ? VL_OK : vl_fail(err, VL_EINVAL, "%s: no rows of sample %lld", info->path, (long long)sample);
}

/* Cache rows of a sample. */
typedef struct kept_rows {
    const int64_t *rows;
    int64_t n;
} kept_rows;

/* The positions asked for; `rows` [n_positions] of the cache. */
static vl_status stored_positions(vl_reading *r, int64_t *rows, const vl_cache *cache, const kept_rows *kept,
                                  const vl_reading_options *options, vl_error *err)
{
    const vl_cache_tokens *tokens = vl_cache_get_tokens(cache);
    for (int64_t i = 0; i < r->n_positions; i++) {
        int64_t index = 0;
        VL_TRY(resolve(&index, options, i, kept->n, err));
        int64_t row = rows[i] = kept->rows[index];
        r->positions[i] = (vl_reading_position){.position = tokens->position[row],
                                                .id = tokens->id[row],
                                                .token_class = tokens->token_class[row],
                                                .image = tokens->image ? tokens->image[row] : -1};
        for (int j = 0; j < 3; j++)
            r->positions[i].patch[j] = tokens->patch ? tokens->patch[row][j] : -1;
    }
    return VL_OK;
}

vl_status vl_reading_from_cache(vl_reading **out, vl_cache *cache, vl_device *device, int64_t sample,
                                const vl_reading_options *options, vl_error *err)
{
    vl_reading_source source = {.cache = cache, .piece = stored_piece, .user = cache};
    int64_t *kept = NULL, *rows = NULL, n = 0, sample_row = 0;
    vl_status status = VL_OK;
    *out = NULL;
    vl_reading *r = vl_calloc(1, sizeof *r);
    if (!r)
        return vl_fail_nomem(err, "reading");
    VL_GOTO(vl_cache_head(&source.head, cache, device, VL_PRECISION_AUTO, err));
    VL_GOTO(sample_rows(&kept, &n, &sample_row, cache, sample, err));
    VL_GOTO(start(r, vl_head_get_info(source.head), n, options, err));
    const vl_cache_samples *samples = vl_cache_get_samples(cache);
    const vl_cache_info *info = vl_cache_get_info(cache);
    VL_GOTO(check_body(r, options, info->model_digest, info->model_manifest, err));
    VL_GOTO(describe(r, options, vl_cache_get_info(cache)->model_id, samples->prompt[sample_row],
                     samples->answer ? samples->answer[sample_row] : NULL, err));
    VL_GOTO(vl_pictures_from_cache(&r->pictures, cache, sample, err));
    source.rows = rows = vl_alloc((size_t)r->n_positions, sizeof *rows);
    if (!rows)
        VL_GOTO(vl_fail_nomem(err, "reading"));
    VL_GOTO(stored_positions(r, rows, cache, &(kept_rows){kept, n}, options, err));
    VL_GOTO(vl_reading_fill(r, &source, options, err));
done:
    vl_free(kept);
    vl_free(rows);
    vl_head_close(source.head);
    if (status == VL_OK)
        *out = r;
    else
        vl_reading_free(r);
    return status;
}
