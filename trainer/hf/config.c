#include "trainer/hf/config.h"

#include <stdio.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"

enum { MAX_CONFIG_BYTES = 16 * 1024 * 1024 };

static const struct {
    const char *name;
    vl_hf_file file;
} files[] = {
    {"config.json", VL_HF_CONFIG},
    {"processor_config.json", VL_HF_PROCESSOR},
    {"preprocessor_config.json", VL_HF_IMAGE_PROCESSOR},
    {"generation_config.json", VL_HF_GENERATION},
};

static vl_status read_file(vl_hf_config *out, const char *directory, const char *name, vl_hf_file file, vl_error *err)
{
    out->where[file] = vl_path_join(directory, name);
    if (!out->where[file])
        return vl_fail_nomem(err, directory);
    if (file != VL_HF_CONFIG && !vl_path_exists(out->where[file]))
        return VL_OK;
    VL_TRY(vl_json_read(&out->root[file], out->where[file], MAX_CONFIG_BYTES, err));
    if (!json_is_object(out->root[file]))
        return vl_fail(err, VL_EFORMAT, "%s: no JSON object", out->where[file]);
    return VL_OK;
}

/* transformers 5 keeps the image processor's settings inside processor_config.json; those count (processing_utils.py,
 * ProcessorMixin.get_processor_dict). */
static vl_status prefer_inner_processor(vl_hf_config *out, vl_error *err)
{
    json_t *inner = json_object_get(out->root[VL_HF_PROCESSOR], "image_processor");
    if (!json_is_object(inner))
        return VL_OK;
    char *where = vl_alloc(VL_ERROR_MESSAGE_SIZE, 1);
    if (!where)
        return vl_fail_nomem(err, "processor_config.json");
    snprintf(where, VL_ERROR_MESSAGE_SIZE, "%s: image_processor", out->where[VL_HF_PROCESSOR]);
    vl_free(out->where[VL_HF_IMAGE_PROCESSOR]);
    json_decref(out->root[VL_HF_IMAGE_PROCESSOR]);
    out->where[VL_HF_IMAGE_PROCESSOR] = where;
    out->root[VL_HF_IMAGE_PROCESSOR] = json_incref(inner);
    return VL_OK;
}

vl_status vl_hf_config_open(vl_hf_config *out, const char *directory, vl_error *err)
{
    *out = (vl_hf_config){0};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        VL_TRY(read_file(out, directory, files[i].name, files[i].file, err));
    return prefer_inner_processor(out, err);
}

void vl_hf_config_close(vl_hf_config *config)
{
    for (int i = 0; i < VL_HF_FILES; i++) {
        json_decref(config->root[i]);
        vl_free(config->where[i]);
    }
    *config = (vl_hf_config){0};
}

vl_hf_reader vl_hf_config_reader(const vl_hf_config *config, vl_hf_file file, vl_error *err)
{
    return (vl_hf_reader){config->root[file], config->where[file], err};
}

vl_status vl_hf_section_open(vl_hf_section *out, const vl_hf_reader *in, const char *key)
{
    snprintf(out->where, sizeof out->where, "%s: %s", in->where, key);
    out->reader = (vl_hf_reader){NULL, out->where, in->err};
    if (!vl_hf_key_has(in, key))
        return VL_OK;
    out->reader.object = json_object_get(in->object, key);
    if (!json_is_object(out->reader.object))
        return vl_fail(in->err, VL_EFORMAT, "%s: \"%s\" is no object", in->where, key);
    return VL_OK;
}
