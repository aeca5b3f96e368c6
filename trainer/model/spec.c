#include "trainer/model/spec.h"

#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/str.h"
#include "trainer/model/family.h"

vl_status vl_spec_refuse_type(const vl_hf_reader *in, const char *type, bool only_text)
{
    vl_str list = VL_STR_INIT;
    const vl_family *family;
    for (size_t i = 0; (family = vl_family_at(i)); i++)
        if (family->text || !only_text)
            vl_str_printf(&list, "%s%s", list.size ? ", " : "", family->model_type);
    const char *known = list.data && !list.failed ? list.data : "(none)";
    vl_status status =
        type ? vl_fail(in->err, VL_EUNSUPPORTED, "%s: \"model_type\" is \"%.64s\"; supported%s: %s", in->where, type,
                       only_text ? " here" : "", known)
             : vl_fail(in->err, VL_EFORMAT, "%s: \"model_type\" is missing; supported: %s", in->where, known);
    vl_str_clear(&list);
    return status;
}

/* The same model_type with another architecture names and computes things differently (LLaVA's own repository, say). */
static vl_status check_architecture(const vl_family *family, const vl_hf_reader *in)
{
    const json_t *list = json_object_get(in->object, "architectures");
    if (!json_is_array(list) || json_array_size(list) == 0)
        return VL_OK;
    const char *first = json_string_value(json_array_get(list, 0));
    if (first && strcmp(first, family->architecture) == 0)
        return VL_OK;
    return vl_fail(in->err, VL_EUNSUPPORTED, "%s: architecture \"%s\"; supported for this model_type: %s", in->where,
                   first ? first : "(no string)", family->architecture);
}

static vl_status read(vl_model_spec *out, const vl_hf_config *config, vl_error *err)
{
    const vl_hf_reader in = vl_hf_config_reader(config, VL_HF_CONFIG, err);
    const vl_hf_reader generation = vl_hf_config_reader(config, VL_HF_GENERATION, err);
    const char *type = NULL;
    VL_TRY(vl_hf_key_string(&type, &in, "model_type"));
    out->family = type ? vl_family_find(type) : NULL;
    if (!out->family)
        return vl_spec_refuse_type(&in, type, false);
    snprintf(out->model_type, sizeof out->model_type, "%s", type);
    VL_TRY(check_architecture(out->family, &in));
    VL_TRY(vl_spec_refuse_quantized(&in));
    VL_TRY(vl_spec_dtype(out, &in));
    VL_TRY(out->family->describe ? out->family->describe(out, config, err) : out->family->text(&out->decoder, &in));
    /* generate() stops at the ids of this file */
    return vl_hf_key_has(&generation, "eos_token_id") ? vl_spec_eos(&out->decoder, &generation) : VL_OK;
}

vl_status vl_model_spec_read(vl_model_spec *out, const char *directory, vl_error *err)
{
    vl_hf_config config;
    *out = (vl_model_spec){.vision = {.image_token = -1}};
    vl_status status = vl_hf_config_open(&config, directory, err);
    if (status == VL_OK)
        status = read(out, &config, err);
    vl_hf_config_close(&config);
    return status;
}

void vl_model_spec_clear(vl_model_spec *spec)
{
    vl_free(spec->own);
    spec->own = NULL;
}
