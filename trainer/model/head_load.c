#include "trainer/model/head_load.h"

#include <stdio.h>
#include <string.h>

#include "trainer/base/half.h"
#include "trainer/base/mem.h"

/* ---- norm -------------------------------------------------------------------------------------------------- */

/* The weight plus 1, so that everybody who reads the head (a cache, a lens, an export) finds a plain RMS norm. */
static vl_status add_one(vl_model *model, const vl_weight_view *view, int64_t n, vl_error *err)
{
    float *weight = vl_alloc((size_t)n, sizeof *weight);
    if (!weight)
        return vl_fail_nomem(err, "final norm");
    vl_widen(weight, view->data, view->dtype, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        weight[i] += 1;
    model->head_memory[0] = weight;
    model->head.norm_weight = weight;
    model->head.norm_dtype = VL_F32;
    return VL_OK;
}

static vl_status load_norm(vl_model *model, const vl_scope *text, vl_error *err)
{
    const vl_decoder_spec *spec = &model->spec.decoder;
    vl_head_source *head = &model->head;
    const vl_weight_view *view;
    char name[64];
    int64_t d = spec->hidden_size;
    snprintf(name, sizeof name, "%s.weight", spec->names.norm);
    VL_TRY(vl_find_weight(&view, text, name, vl_shape1(d), err));
    bool layer = spec->final_norm_form == VL_FORM_LAYER || spec->final_norm_form == VL_FORM_LAYER_NO_BIAS;
    head->norm = layer ? VL_NORM_LAYER : VL_NORM_RMS;
    head->eps = spec->norm_eps;
    head->norm_weight = view->data;
    head->norm_dtype = view->dtype;
    if (spec->final_norm_form == VL_FORM_RMS_ONE_PLUS)
        return add_one(model, view, d, err);
    if (spec->final_norm_form != VL_FORM_LAYER)
        return VL_OK;
    snprintf(name, sizeof name, "%s.bias", spec->names.norm);
    VL_TRY(vl_find_weight(&view, text, name, vl_shape1(d), err));
    if (view->dtype != head->norm_dtype)
        return vl_fail(err, VL_ESHAPE, "%s: tensor %s holds %s, its weight %s", model->path, view->name,
                       view->dtype_name, vl_dtype_name(head->norm_dtype));
    head->norm_bias = view->data;
    return VL_OK;
}

/* ---- unembedding ------------------------------------------------------------------------------------------- */

/* Tied and absent or equal: the table. Written as tied, yet another matrix is there: versions of transformers read
 * three different models out of that (docs/MODELS.md). Tied by the class's default alone: the file's own head counts.
 */
static vl_status choose(const vl_weight_view **out, const vl_model *model, const vl_weight_view *table,
                        const vl_weight_view *head, vl_error *err)
{
    const vl_decoder_spec *spec = &model->spec.decoder;
    *out = head ? head : table;
    if (!spec->tie_embeddings && !head)
        return vl_fail(err, VL_EFORMAT,
                       "%s: no lm_head.weight, and config.json does not tie it to the embeddings "
                       "(tie_word_embeddings)",
                       model->path);
    if (!spec->tie_embeddings || !head)
        return VL_OK;
    bool same =
        head->dtype == table->dtype && head->bytes == table->bytes && memcmp(head->data, table->data, head->bytes) == 0;
    if (same)
        *out = table;
    else if (spec->tie_is_written)
        return vl_fail(err, VL_EMISMATCH,
                       "%s: config.json ties the head to the embeddings, but %s differs from them: versions of "
                       "transformers disagree on which counts",
                       model->path, head->name);
    return VL_OK;
}

/* [V, D] = W P, of the narrow table W [V, width] and project_out P [width, D], once and in float32: the head is then
 * one matrix for everybody who reads it. */
static vl_status fold_projection(vl_model *model, const vl_weight_view *table, const vl_weight_view *projection,
                                 vl_error *err)
{
    const vl_decoder_spec *spec = &model->spec.decoder;
    size_t v = (size_t)spec->vocab_size, p = (size_t)spec->embed_width, d = (size_t)spec->hidden_size;
    float *out = vl_calloc(v * d, sizeof *out), *right = vl_alloc(p * d, sizeof *right);
    vl_status status = out && right ? VL_OK : vl_fail_nomem(err, "unembedding");
    if (status == VL_OK)
        vl_widen(right, projection->data, projection->dtype, p * d);
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < (status == VL_OK ? v : 0); row++)
        for (size_t k = 0; k < p; k++) {
            float weight = vl_widen_at(table->data, table->dtype, row * p + k);
            for (size_t c = 0; c < d; c++)
                out[row * d + c] += weight * right[k * d + c];
        }
    vl_free(right);
    model->head_memory[2] = out;
    model->head.weight = out;
    model->head.weight_dtype = VL_F32;
    return status;
}

/* No norm: a weight of ones, so that arrays and readers stay the same. */
static vl_status no_norm(vl_model *model, vl_error *err)
{
    float *ones = vl_alloc((size_t)model->head.d_model, sizeof *ones);
    if (!ones)
        return vl_fail_nomem(err, "final norm");
    for (int64_t i = 0; i < model->head.d_model; i++)
        ones[i] = 1;
    model->head_memory[0] = ones;
    model->head.norm = VL_NORM_NONE;
    model->head.norm_weight = ones;
    model->head.norm_dtype = VL_F32;
    return VL_OK;
}

vl_status vl_head_load(vl_model *model, vl_loader *loader, vl_error *err)
{
    const vl_decoder_spec *spec = &model->spec.decoder;
    vl_scope text = vl_scope_make(loader, VL_PART_TEXT, "%s", "");
    vl_scope scope = vl_scope_make(loader, VL_PART_HEAD, "%s", "");
    const vl_weight_view *table, *head, *chosen;
    model->head =
        (vl_head_source){.d_model = spec->hidden_size, .vocab_size = spec->vocab_size, .n_layers = spec->n_layers};
    model->head.softcap = spec->logit_softcap;
    VL_TRY(spec->final_norm_form == VL_FORM_NONE ? no_norm(model, err) : load_norm(model, &text, err));
    int64_t width = spec->embed_width ? spec->embed_width : spec->hidden_size;
    VL_TRY(vl_find_weight(&table, &text, spec->names.embed, vl_shape2(spec->embed_rows, width), err));
    VL_TRY(vl_find_weight_optional(&head, &scope, "weight", vl_shape2(spec->vocab_size, width), err));
    VL_TRY(choose(&chosen, model, table, head, err));
    model->head.weight = chosen->data;
    model->head.weight_dtype = chosen->dtype;
    if (width == spec->hidden_size)
        return VL_OK;
    const vl_weight_view *projection;
    char name[64];
    snprintf(name, sizeof name, "%s.weight", spec->names.project_out);
    VL_TRY(vl_find_weight(&projection, &text, name, vl_shape2(width, spec->hidden_size), err));
    return fold_projection(model, chosen, projection, err);
}
