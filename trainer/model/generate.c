/* Greedy generation: the prompt in one pass that fills the KV cache, then one row a token. Semantics: transformers
 * 4.46.3, src/transformers/generation/utils.py (_sample with do_sample=False); the end token is part of the output. */
#include "trainer/model/generate.h"

#include "trainer/base/mem.h"
#include "trainer/model/forward.h"
#include "trainer/model/head.h"
#include "trainer/model/model.h"
#include "trainer/model/rope.h"
#include "trainer/model/sequence.h"
#include "trainer/model/vision.h"

/* One continuation. V as in kernels/ops.h. */
typedef struct writer {
    const vl_model *model;
    const vl_sequence *sequence; /* the prompt */
    vl_pass pass;
    vl_kv_cache cache;
    vl_matrix *head;    /* [V, D], borrowed from the file: nothing of that size is held for one answer */
    vl_norm norm;       /* of the head */
    vl_tensor normed;   /* [1, D] */
    vl_tensor logits;   /* [1, V] */
    float *host_logits; /* [V] */
} writer;

static vl_status writer_init(writer *w, int64_t max_new, vl_error *err)
{
    const vl_model *model = w->model;
    const vl_head_source *head = &model->head;
    vl_device *device = model->device;
    VL_TRY(vl_kv_cache_init(&w->cache, device, &model->spec.decoder, w->sequence->n_tokens + max_new, err));
    VL_TRY(vl_pass_init(&w->pass, &(vl_pass_args){device, &model->spec.decoder, &w->sequence, 1, &w->cache}, err));
    vl_matrix_args matrix = {head->weight,  head->weight_dtype, head->vocab_size,
                             head->d_model, model->precision,   false};
    VL_TRY(vl_matrix_new(&w->head, device, &matrix, err));
    VL_TRY(vl_head_source_norm(&w->norm, device, head, err));
    VL_TRY(vl_tensor_new(&w->normed, device, VL_F32, 1, head->d_model, err));
    VL_TRY(vl_tensor_new(&w->logits, device, VL_F32, 1, head->vocab_size, err));
    w->host_logits = vl_alloc((size_t)head->vocab_size, sizeof *w->host_logits);
    return w->host_logits ? VL_OK : vl_fail_nomem(err, "logits");
}

static void writer_free(writer *w)
{
    vl_device *device = w->model->device;
    vl_model_end(&w->pass);
    vl_pass_free(&w->pass);
    vl_kv_cache_free(&w->cache, device);
    vl_matrix_free(device, w->head);
    vl_norm_free(device, &w->norm);
    vl_device_free(device, w->normed.data);
    vl_device_free(device, w->logits.data);
    vl_free(w->host_logits);
}

/* The most likely token after the last row of the pass; among equals the lowest id. What a head does behind the product
 * (a scale, a soft cap) keeps the order and is left out. */
static vl_status best_token(int32_t *out, writer *w, vl_error *err)
{
    vl_tensor last = vl_tensor_rows(vl_pass_x(&w->pass), w->pass.n_rows - 1, 1);
    VL_TRY(vl_norm_apply(w->pass.device, &w->norm, w->normed, last, err));
    VL_TRY(vl_op_linear(w->pass.device, &(vl_linear_args){.out = w->logits, .x = w->normed, .weight = w->head}, err));
    VL_TRY(vl_device_read(w->pass.device, w->host_logits, &w->logits, err));
    int32_t best = 0;
    for (int32_t i = 1; i < (int32_t)w->logits.shape[1]; i++)
        if (w->host_logits[i] > w->host_logits[best])
            best = i;
    *out = best;
    return VL_OK;
}

static vl_status run_blocks(writer *w, vl_error *err)
{
    for (int layer = 0; layer < w->model->spec.decoder.n_layers; layer++)
        VL_TRY(vl_model_run_block(w->model, &w->pass, layer, err));
    return VL_OK;
}

static bool is_end(const vl_decoder_spec *spec, int32_t id)
{
    for (int i = 0; i < spec->n_eos; i++)
        if (spec->eos_ids[i] == id)
            return true;
    return false;
}

/* Whether one row more makes all earlier keys wrong. */
static bool keys_change(const writer *w, int64_t length)
{
    const vl_decoder_spec *spec = &w->model->spec.decoder;
    bool change = false;
    for (int i = 0; i < spec->n_ropes; i++)
        change = change || vl_rope_changes(&spec->ropes[i], length - 1, length);
    return change;
}

static vl_status run(writer *w, const vl_generate_options *options, int32_t *ids, int64_t *n, vl_error *err)
{
    const vl_model *model = w->model;
    int64_t kv_row = w->pass.n_rows, length = vl_sequence_next_position(w->sequence);
    VL_TRY(vl_model_begin(model, &w->pass, err));
    VL_TRY(vl_model_embed(model, &w->pass, err));
    for (*n = 0;;) {
        VL_TRY(run_blocks(w, err));
        VL_TRY(best_token(&ids[*n], w, err));
        int32_t id = ids[(*n)++];
        if (*n == options->max_new || (!options->ignore_end && is_end(&model->spec.decoder, id)) ||
            (*n < options->max_new && keys_change(w, ++length)))
            return VL_OK;
        VL_TRY(vl_pass_move(&w->pass, kv_row++, 1, err));
        VL_TRY(vl_decoder_embed(&model->decoder, &w->pass, &id, err));
    }
}

/* Writes on from a sequence until the end or until its keys would have to be computed anew; *n says how far. */
static vl_status write_on(const vl_model *model, const vl_sequence *sequence, const vl_generate_options *options,
                          int32_t *ids, int64_t *n, vl_error *err)
{
    writer w = {.model = model, .sequence = sequence};
    vl_status status = VL_OK;
    VL_GOTO(writer_init(&w, options->max_new, err));
    VL_GOTO(run(&w, options, ids, n, err));
done:
    writer_free(&w);
    return status;
}

/* A copy of a text with more tokens behind it. */
static vl_status longer(vl_sequence **out, const vl_model *model, const vl_sequence *sequence, const int32_t *ids,
                        int64_t n, vl_error *err)
{
    if (sequence->n_images > 0)
        return vl_fail(err, VL_EUNSUPPORTED,
                       "an answer to a picture that crosses the trained length of %d: its keys change there",
                       model->spec.decoder.ropes[0].original_max_position);
    VL_TRY(vl_sequence_from_ids(out, model, sequence->ids, sequence->n_tokens, err));
    return vl_sequence_append(*out, ids, n, err);
}

static vl_status write_all(const vl_model *model, const vl_sequence *sequence, const vl_generate_options *options,
                           int32_t *ids, int64_t *n, vl_error *err)
{
    VL_TRY(write_on(model, sequence, options, ids, n, err));
    while (*n < options->max_new && (options->ignore_end || !is_end(&model->spec.decoder, ids[*n - 1]))) {
        vl_sequence *whole = NULL;
        vl_generate_options rest = *options;
        int64_t more = 0;
        rest.max_new -= *n;
        vl_status status = longer(&whole, model, sequence, ids, *n, err);
        if (status == VL_OK)
            status = write_on(model, whole, &rest, ids + *n, &more, err);
        vl_sequence_free(whole);
        VL_TRY(status);
        *n += more;
    }
    return VL_OK;
}

vl_status vl_generate(vl_model *model, const vl_sequence *sequence, const vl_generate_options *options,
                      int32_t **out_ids, int64_t *n_out, vl_error *err)
{
    *out_ids = NULL;
    *n_out = 0;
    if (options->max_new <= 0 || sequence->n_tokens <= 0)
        return vl_fail(err, VL_EINVAL, "generation of %lld tokens after %lld, expected at least one of each",
                       (long long)options->max_new, (long long)sequence->n_tokens);
    int32_t *ids = vl_alloc((size_t)options->max_new, sizeof *ids);
    if (!ids)
        return vl_fail_nomem(err, "generated tokens");
    vl_status status = write_all(model, sequence, options, ids, n_out, err);
    if (status == VL_OK) {
        *out_ids = ids;
        return VL_OK;
    }
    *n_out = 0;
    vl_free(ids);
    return status;
}

vl_status vl_model_generate(vl_model *model, const vl_sequence *sequence, int64_t max_new, int32_t **out_ids,
                            int64_t *n_out, vl_error *err)
{
    return vl_generate(model, sequence, &(vl_generate_options){.max_new = max_new}, out_ids, n_out, err);
}
