#include "trainer/model/head.h"

#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"
#include "trainer/model/model.h"

struct vl_head {
    vl_device *device; /* borrowed */
    vl_head_source source;
    void *owned;
    vl_matrix *matrix; /* [V, D] */
    vl_tensor bias;    /* [V] or NULL */
    vl_norm norm;      /* [D] */
    vl_tensor normed;  /* [VL_HEAD_ROWS, D]; made by the first call that needs it */
    vl_head_info info;
};

const char *vl_norm_name(vl_norm_kind kind)
{
    return kind == VL_NORM_LAYER ? "layer" : kind == VL_NORM_NONE ? "none" : "rms";
}

void vl_head_fingerprint(char hex[65], const vl_head_source *source)
{
    char line[200];
    bool plain = source->softcap == 0 && source->norm != VL_NORM_NONE;
    int n =
        snprintf(line, sizeof line, "vlens-head-%d\n%lld %lld %lld %s %.9g", plain ? 1 : 2, (long long)source->d_model,
                 (long long)source->n_layers, (long long)source->vocab_size, vl_norm_name(source->norm), source->eps);
    n += plain ? snprintf(line + n, sizeof line - (size_t)n, "\n")
               : snprintf(line + n, sizeof line - (size_t)n, " softcap %.9g\n", source->softcap);
    size_t d = (size_t)source->d_model, v = (size_t)source->vocab_size;
    size_t norm_size = vl_dtype_size(source->norm_dtype), weight_size = vl_dtype_size(source->weight_dtype);
    vl_sha256 hash;
    uint8_t digest[VL_SHA256_BYTES];
    vl_sha256_init(&hash);
    vl_sha256_update(&hash, line, (size_t)n);
    vl_sha256_update(&hash, source->norm_weight, d * norm_size);
    if (source->norm_bias)
        vl_sha256_update(&hash, source->norm_bias, d * norm_size);
    vl_sha256_update(&hash, source->weight, v * d * weight_size);
    if (source->bias)
        vl_sha256_update(&hash, source->bias, v * weight_size);
    vl_sha256_final(&hash, digest);
    vl_sha256_hex(digest, hex);
}

static vl_status prepare(vl_head *head, vl_precision precision, vl_error *err)
{
    const vl_head_source *source = &head->source;
    vl_matrix_args matrix = {
        source->weight, source->weight_dtype, source->vocab_size, source->d_model, precision, true};
    VL_TRY(vl_matrix_new(&head->matrix, head->device, &matrix, err));
    VL_TRY(vl_head_source_norm(&head->norm, head->device, source, err));
    if (source->bias)
        VL_TRY(vl_vector_from_host(&head->bias, head->device, source->bias, source->weight_dtype, source->vocab_size,
                                   err));
    head->info = (vl_head_info){.d_model = source->d_model,
                                .vocab_size = source->vocab_size,
                                .n_layers = source->n_layers,
                                .norm_is_layer = source->norm == VL_NORM_LAYER,
                                .eps = source->eps};
    vl_head_fingerprint(head->info.fingerprint, source);
    return VL_OK;
}

vl_status vl_head_new(vl_head **out, vl_device *device, const vl_head_source *source, vl_precision precision,
                      void *owned, vl_error *err)
{
    *out = NULL;
    vl_head *head = vl_calloc(1, sizeof *head);
    if (!head)
        return vl_fail_nomem(err, "head"); /* `owned` stays the caller's */
    head->device = device;
    head->source = *source;
    vl_status status = prepare(head, precision, err);
    if (status != VL_OK) {
        vl_head_close(head);
        return status;
    }
    head->owned = owned;
    *out = head;
    return VL_OK;
}

vl_head_source vl_head_source_of(const vl_model *model)
{
    return model->head;
}

vl_status vl_head_source_norm(struct vl_norm *out, vl_device *device, const vl_head_source *source, vl_error *err)
{
    *out = (vl_norm){.kind = source->norm, .eps = source->eps};
    VL_TRY(vl_vector_from_host(&out->weight, device, source->norm_weight, source->norm_dtype, source->d_model, err));
    if (!source->norm_bias)
        return VL_OK;
    return vl_vector_from_host(&out->bias, device, source->norm_bias, source->norm_dtype, source->d_model, err);
}

vl_status vl_head_from_model(vl_head **out, vl_model *model, vl_error *err)
{
    return vl_head_new(out, model->device, &model->head, model->precision, NULL, err);
}

void vl_head_close(vl_head *head)
{
    if (!head)
        return;
    vl_matrix_free(head->device, head->matrix);
    vl_device_free(head->device, head->bias.data);
    vl_norm_free(head->device, &head->norm);
    vl_device_free(head->device, head->normed.data);
    vl_free(head->owned);
    vl_free(head);
}

const vl_head_info *vl_head_get_info(const vl_head *head)
{
    return &head->info;
}

const vl_head_source *vl_head_get_source(const vl_head *head)
{
    return &head->source;
}

vl_device *vl_head_device(const vl_head *head)
{
    return head->device;
}

const vl_matrix *vl_head_matrix(const vl_head *head)
{
    return head->matrix;
}

vl_tensor vl_head_bias(const vl_head *head)
{
    return head->bias;
}

vl_tensor vl_head_norm_weight(const vl_head *head)
{
    return head->norm.weight;
}

vl_tensor vl_head_norm_bias(const vl_head *head)
{
    return head->norm.bias;
}

/* Norm and product of rows that fit into `normed`. */
static vl_status logits_of(vl_head *head, vl_tensor logits, vl_tensor states, vl_error *err)
{
    vl_tensor normed = vl_tensor_rows(head->normed, 0, states.shape[0]);
    VL_TRY(vl_norm_apply(head->device, &head->norm, normed, states, err));
    vl_linear_args linear = {.out = logits, .x = normed, .weight = head->matrix, .bias = head->bias};
    VL_TRY(vl_op_linear(head->device, &linear, err));
    vl_activation_args cap = {.out = logits, .x = logits, .kind = VL_ACT_CAP, .cap = (float)head->source.softcap};
    return head->source.softcap > 0 ? vl_op_activation(head->device, &cap, err) : VL_OK;
}

vl_status vl_head_logits(vl_head *head, vl_tensor logits, vl_tensor states, vl_error *err)
{
    int64_t rows = states.shape[0];
    if (states.ndim != 2 || states.shape[1] != head->info.d_model || logits.ndim != 2 || logits.shape[0] != rows ||
        logits.shape[1] != head->info.vocab_size)
        return vl_fail(err, VL_EINVAL, "states [%lld, %lld] and logits [%lld, %lld], expected [M, %lld] and [M, %lld]",
                       (long long)rows, (long long)states.shape[1], (long long)logits.shape[0],
                       (long long)logits.shape[1], (long long)head->info.d_model, (long long)head->info.vocab_size);
    if (!head->normed.data)
        VL_TRY(vl_tensor_new(&head->normed, head->device, VL_F32, VL_HEAD_ROWS, head->info.d_model, err));
    for (int64_t first = 0; first < rows; first += VL_HEAD_ROWS) {
        int64_t n = rows - first < VL_HEAD_ROWS ? rows - first : VL_HEAD_ROWS;
        VL_TRY(logits_of(head, vl_tensor_rows(logits, first, n), vl_tensor_rows(states, first, n), err));
    }
    return VL_OK;
}
