/* jlens.c - the artifact of the package jlens (Jacobian lens): {"J": {l: [D, D]}, "n_prompts", "source_layers",
 * "d_model"} as torch.save writes it. logits_l = unembed(final_norm(J_l h)), h the output of block l (from 0).
 *
 * J_l = I + A_{l+1}: state l + 1 is the output of block l. What the format has no room for is lost: every bias, and the
 * adapter of state 0. n_prompts is 0: nothing here is a mean over prompts. */
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/lens/export.h"
#include "trainer/lens/torch_write.h"

static void put_artifact(vl_str *pickle, const vl_lens_info *info, vl_dtype dtype)
{
    vl_str_puts(pickle, "}("); /* EMPTY_DICT, MARK */
    vl_torch_put_text(pickle, "J");
    vl_str_puts(pickle, "}(");
    for (int64_t l = 0; l < info->n_layers - 1; l++) {
        vl_torch_put_int(pickle, l);
        vl_torch_put_tensor(pickle, l, info->d_model, true, dtype);
    }
    vl_str_puts(pickle, "u"); /* SETITEMS */
    vl_torch_put_text(pickle, "n_prompts");
    vl_torch_put_int(pickle, 0);
    vl_torch_put_text(pickle, "source_layers");
    vl_str_puts(pickle, "]("); /* EMPTY_LIST, MARK */
    for (int64_t l = 0; l < info->n_layers - 1; l++)
        vl_torch_put_int(pickle, l);
    vl_str_puts(pickle, "e"); /* APPENDS */
    vl_torch_put_text(pickle, "d_model");
    vl_torch_put_int(pickle, info->d_model);
    vl_str_puts(pickle, "u");
}

static vl_status add_jacobian(vl_torch_writer *file, float *scratch, const float *weight, size_t d, int64_t l,
                              vl_error *err)
{
    char name[32];
    if (weight)
        memcpy(scratch, weight, d * d * sizeof *scratch);
    else
        memset(scratch, 0, d * d * sizeof *scratch);
    for (size_t k = 0; k < d; k++)
        scratch[k * d + k] += 1.0f;
    snprintf(name, sizeof name, "J[%lld]", (long long)l);
    return vl_torch_add(file, scratch, d * d, name, err);
}

vl_status vl_export_jlens(const vl_export_job *job, vl_error *err)
{
    const vl_lens_info *info = vl_lens_get_info(job->lens);
    size_t d = (size_t)info->d_model;
    vl_torch_writer file;
    vl_str pickle = VL_STR_INIT;
    if (info->n_layers < 2)
        return vl_fail(err, VL_EUNSUPPORTED,
                       "jlens: a lens of one layer reads the embeddings alone, which jlens lacks");
    float *scratch = vl_alloc(d * d, sizeof *scratch);
    if (!scratch)
        return vl_fail_nomem(err, "jlens");
    put_artifact(&pickle, info, job->dtype);
    vl_status status = vl_torch_begin(&file, job->path, &pickle, job->dtype, err);
    for (int64_t l = 0; status == VL_OK && l < info->n_layers - 1; l++)
        status = add_jacobian(&file, scratch, vl_lens_weight(job->lens, l + 1), d, l, err);
    vl_str_clear(&pickle);
    vl_free(scratch);
    return vl_torch_end(&file, status, err);
}
