/* Windows and caps in config.json. */
#include <string.h>

#include "trainer/model/spec.h"

/* "sliding_window": a number, or null for none. */
static vl_status read_window(int *out, const vl_hf_reader *in, int usual)
{
    *out = json_is_null(json_object_get(in->object, "sliding_window")) ? 0 : usual;
    return vl_hf_key_int(out, in, "sliding_window", 1, 1 << 30);
}

vl_status vl_spec_window(vl_decoder_spec *out, const vl_hf_reader *in, int usual)
{
    int window = 0;
    VL_TRY(read_window(&window, in, usual));
    for (int i = 0; i < out->n_layers; i++)
        out->layers[i].window = window;
    return VL_OK;
}

vl_status vl_spec_layer_types(vl_decoder_spec *out, const vl_hf_reader *in, int usual)
{
    const json_t *list = json_object_get(in->object, "layer_types");
    int window = 0;
    if (!list || json_is_null(list))
        return VL_OK;
    VL_TRY(read_window(&window, in, usual));
    if (json_array_size(list) != (size_t)out->n_layers)
        return vl_fail(in->err, VL_EFORMAT, "%s: \"layer_types\" is no list of %d types", in->where, out->n_layers);
    for (int i = 0; i < out->n_layers; i++) {
        const char *type = json_string_value(json_array_get(list, (size_t)i));
        bool slides = type && strcmp(type, "sliding_attention") == 0;
        if (!slides && (!type || strcmp(type, "full_attention") != 0))
            return vl_fail(in->err, VL_EUNSUPPORTED,
                           "%s: layer %d is \"%.40s\"; supported: full_attention, sliding_attention", in->where, i,
                           type ? type : "(no string)");
        if (slides && window == 0)
            return vl_fail(in->err, VL_EMISMATCH, "%s: layer %d slides, but \"sliding_window\" is null", in->where, i);
        out->layers[i].window = slides ? window : 0;
    }
    return VL_OK;
}

vl_status vl_spec_switched_window(vl_decoder_spec *out, const vl_hf_reader *in)
{
    bool on = false;
    int first = 28;
    VL_TRY(vl_hf_key_bool(&on, in, "use_sliding_window"));
    VL_TRY(vl_hf_key_int(&first, in, "max_window_layers", 0, 1 << 20));
    if (on)
        VL_TRY(vl_spec_window(out, in, 4096));
    /* 4.46 to 4.51 put the window on all layers; since 4.53 those from max_window_layers on (docs/reference/models.md)
     */
    for (int i = 0; i < out->n_layers && i < first; i++)
        out->layers[i].window = 0;
    return vl_spec_layer_types(out, in, 4096);
}

vl_status vl_spec_cap(double *out, const vl_hf_reader *in, const char *key)
{
    if (json_is_null(json_object_get(in->object, key)))
        *out = 0;
    VL_TRY(vl_hf_key_double(out, in, key, 0, 1e9));
    return VL_OK;
}
