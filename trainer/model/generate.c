/* Greedy generation: the prompt in one pass that fills the KV cache, then one row a token. Semantics: transformers
 * 4.46.3, src/transformers/generation/utils.py (_sample with do_sample=False); the end token is part of the output. */
#include "trainer/model/generate.h"

#include "trainer/base/mem.h"
#include "trainer/model/family.h"

/* One continuation. V as in kernels/ops.h. */
typedef struct writer {
    const vl_model *model;
    vl_pass pass;
    vl_kv_cache cache;
    vl_matrix *head;       /* [V, D], borrowed from the file: nothing of that size is held for one answer */
    vl_tensor norm_weight; /* [D] */
    vl_tensor normed;      /* [1, D] */
    vl_tensor logits;      /* [1, V] */
    float *host_logits;    /* [V] */
} writer;

static vl_status writer_init(writer *w, const vl_model *model, const vl_sequence *const *sequence, int64_t max_new,
                             vl_error *err)
{
    const vl_text_config *text = &model->config.text;
    vl_device *device = model->device;
    w->model = model;
    VL_TRY(vl_kv_cache_init(&w->cache, device, text, sequence[0]->n_tokens + max_new, err));
    VL_TRY(vl_pass_init(&w->pass, &(vl_pass_args){device, text, sequence, 1, &w->cache}, err));
    vl_matrix_args head = {model->head->data, model->head->dtype, text->vocab_size,
                           text->hidden_size, model->precision,   false};
    VL_TRY(vl_matrix_new(&w->head, device, &head, err));
    VL_TRY(vl_vector_from_host(&w->norm_weight, device, model->norm->data, model->norm->dtype, text->hidden_size, err));
    VL_TRY(vl_tensor_new(&w->normed, device, VL_F32, 1, text->hidden_size, err));
    VL_TRY(vl_tensor_new(&w->logits, device, VL_F32, 1, text->vocab_size, err));
    w->host_logits = vl_alloc((size_t)text->vocab_size, sizeof *w->host_logits);
    return w->host_logits ? VL_OK : vl_fail_nomem(err, "logits");
}

static void writer_free(writer *w)
{
    vl_device *device = w->model->device;
    if (w->model->family->end)
        w->model->family->end(w->model, &w->pass);
    vl_pass_free(&w->pass);
    vl_kv_cache_free(&w->cache, device);
    vl_matrix_free(device, w->head);
    vl_device_free(device, w->norm_weight.data);
    vl_device_free(device, w->normed.data);
    vl_device_free(device, w->logits.data);
    vl_free(w->host_logits);
}

/* The most likely token after the last row of the pass; among equals the lowest id. */
static vl_status best_token(int32_t *out, writer *w, vl_error *err)
{
    vl_tensor last = vl_tensor_rows(vl_pass_x(&w->pass), w->pass.n_rows - 1, 1);
    VL_TRY(vl_rms_norm(&w->pass, w->normed, last, w->norm_weight, err));
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
    for (int layer = 0; layer < w->model->config.text.n_layers; layer++)
        VL_TRY(w->model->family->block(w->model, &w->pass, layer, err));
    return VL_OK;
}

static bool is_end(const vl_text_config *text, int32_t id)
{
    for (int i = 0; i < text->n_eos; i++)
        if (text->eos_ids[i] == id)
            return true;
    return false;
}

static vl_status run(writer *w, const vl_generate_options *options, int32_t *ids, int64_t *n, vl_error *err)
{
    const vl_model *model = w->model;
    int64_t position = w->pass.n_rows;
    if (model->family->begin)
        VL_TRY(model->family->begin(model, &w->pass, err));
    VL_TRY(model->family->embed(model, &w->pass, err));
    for (*n = 0;;) {
        VL_TRY(run_blocks(w, err));
        VL_TRY(best_token(&ids[*n], w, err));
        int32_t id = ids[(*n)++];
        if (*n == options->max_new || (!options->ignore_end && is_end(&model->config.text, id)))
            return VL_OK;
        vl_pass_move(&w->pass, position++, 1);
        VL_TRY(vl_pass_rotate(&w->pass, err));
        VL_TRY(vl_llama_embed(&model->text, &w->pass, &id, err));
    }
}

vl_status vl_generate(vl_model *model, const vl_sequence *sequence, const vl_generate_options *options,
                      int32_t **out_ids, int64_t *n_out, vl_error *err)
{
    *out_ids = NULL;
    *n_out = 0;
    if (options->max_new <= 0 || sequence->n_tokens <= 0)
        return vl_fail(err, VL_EINVAL, "generation of %lld tokens after %lld, expected at least one of each",
                       (long long)options->max_new, (long long)sequence->n_tokens);
    writer w = {.model = model};
    vl_status status = VL_OK;
    int32_t *ids = vl_alloc((size_t)options->max_new, sizeof *ids);
    if (!ids)
        return vl_fail_nomem(err, "generated tokens");
    VL_GOTO(writer_init(&w, model, &sequence, options->max_new, err));
    VL_GOTO(run(&w, options, ids, n_out, err));
    *out_ids = ids;
    ids = NULL;
done:
    if (status != VL_OK)
        *n_out = 0;
    writer_free(&w);
    vl_free(ids);
    return status;
}

vl_status vl_model_generate(vl_model *model, const vl_sequence *sequence, int64_t max_new, int32_t **out_ids,
                            int64_t *n_out, vl_error *err)
{
    return vl_generate(model, sequence, &(vl_generate_options){.max_new = max_new}, out_ids, n_out, err);
}
