/* The text-only family: no template, no pictures. */
#include "trainer/model/family.h"

static vl_status llama_wrap(vl_str *out, const vl_model *model, const vl_prompt *prompt, vl_error *err)
{
    (void)model;
    if (prompt->n_images > 0)
        return vl_fail(err, VL_EINVAL, "%d images were given, but a model of type llama reads text only",
                       prompt->n_images);
    vl_str_puts(out, prompt->text);
    return VL_OK;
}

static vl_status llama_embed(const vl_model *model, vl_pass *pass, vl_error *err)
{
    return vl_embed_sequences(model, pass, -1, err);
}

static vl_status llama_block(const vl_model *model, vl_pass *pass, int layer, vl_error *err)
{
    return vl_llama_run_block(&model->text, pass, layer, err);
}

const vl_family vl_family_llama = {
    .wrap = llama_wrap, .embed = llama_embed, .expect = vl_expect_llama, .block = llama_block};
