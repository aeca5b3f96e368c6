/* objective.c - lens_i(h) = unembed(norm(h + A h + b)) against the teacher (Belrose et al., "Eliciting Latent
 * Predictions from Transformers with the Tuned Lens", 2023, section 3), with the gradient written out:
 *
 *     u = h + h A^T + b      x = norm(u)      z = x W^T
 *     dx = d loss / d x (fused with the unembedding)      du = norm'(u)^T dx      dA = du^T h      db = sum_rows du
 *
 * The head is frozen, so that no gradient of W is made. */
#include "trainer/readout/objective.h"

#include "trainer/base/mem.h"
#include "trainer/base/status.h"

static vl_status new_vector(vl_tensor *out, vl_device *device, int64_t n, vl_error *err)
{
    VL_TRY(vl_tensor_new(out, device, VL_F32, 1, n, err));
    *out = vl_tensor_1d(out->data, VL_F32, n);
    return VL_OK;
}

bool vl_objective_needs_teacher(const vl_objective *o)
{
    return o->kind != VL_LOSS_CE;
}

vl_status vl_objective_new(vl_objective *out, vl_head *head, vl_loss kind, int64_t capacity, vl_error *err)
{
    vl_device *device = vl_head_device(head);
    int64_t d = vl_head_get_info(head)->d_model;
    vl_status status = VL_OK;
    *out = (vl_objective){
        .device = device, .head = head, .kind = kind, .precision = VL_PRECISION_EXACT, .capacity = capacity};
    out->host_loss = vl_alloc((size_t)capacity, sizeof *out->host_loss);
    if (!out->host_loss)
        VL_GOTO(vl_fail_nomem(err, "loss of a tile"));
    VL_GOTO(vl_tensor_new(&out->u, device, VL_F32, capacity, d, err));
    VL_GOTO(vl_tensor_new(&out->x, device, VL_F32, capacity, d, err));
    VL_GOTO(vl_tensor_new(&out->dx, device, VL_F32, capacity, d, err));
    if (vl_objective_needs_teacher(out))
        VL_GOTO(vl_distribution_new(&out->teacher, head, capacity, err));
    VL_GOTO(new_vector(&out->loss, device, capacity, err));
done:
    if (status != VL_OK)
        vl_objective_clear(out);
    return status;
}

void vl_objective_clear(vl_objective *o)
{
    vl_tensor *tensors[] = {&o->u, &o->x, &o->dx, &o->loss};
    for (size_t i = 0; o->device && i < sizeof tensors / sizeof *tensors; i++)
        vl_device_free(o->device, tensors[i]->data);
    if (o->device)
        vl_distribution_clear(&o->teacher, o->device);
    vl_free(o->host_loss);
    *o = (vl_objective){.device = NULL};
}

vl_status vl_objective_teacher(vl_objective *o, vl_tensor states, vl_error *err)
{
    return vl_distribution_of(&o->teacher, o->head, states, err);
}

static vl_norm_kind norm_kind(const vl_objective *o)
{
    return vl_head_get_source(o->head)->norm;
}

/* loss, and dx where it is given, of the adapted states u. */
static vl_status loss_of(vl_objective *o, const vl_objective_tile *tile, vl_tensor u, vl_tensor x, vl_tensor dx,
                         vl_error *err)
{
    int64_t rows = tile->h.shape[0];
    VL_TRY(vl_op_norm(o->device,
                      &(vl_norm_args){.out = x,
                                      .x = u,
                                      .weight = vl_head_norm_weight(o->head),
                                      .bias = vl_head_norm_bias(o->head),
                                      .kind = norm_kind(o),
                                      .eps = vl_head_get_info(o->head)->eps},
                      err));
    vl_unembed_loss_args args = {.loss = vl_tensor_1d(o->loss.data, VL_F32, rows),
                                 .dx = dx,
                                 .x = x,
                                 .head = vl_head_matrix(o->head),
                                 .head_bias = vl_head_bias(o->head),
                                 .row_weight = tile->row_weight,
                                 .kind = o->kind,
                                 .softcap = (float)vl_head_get_source(o->head)->softcap};
    if (o->kind == VL_LOSS_CE) {
        args.targets = tile->targets;
    } else {
        vl_distribution teacher = vl_distribution_rows(&o->teacher, rows);
        args.teacher_logits = teacher.logits;
        args.teacher_lse = teacher.lse;
    }
    return vl_op_unembed_loss(o->device, &args, err);
}

static vl_status gradient_of(vl_objective *o, const vl_objective_tile *tile, vl_tensor du,
                             const vl_adapter_gradient *gradient, vl_error *err)
{
    float beta = gradient->fresh ? 0.0f : 1.0f;
    VL_TRY(vl_op_column_sum(o->device, &(vl_column_sum_args){.out = gradient->bias, .x = du, .beta = beta}, err));
    if (!gradient->weight.data)
        return VL_OK;
    return vl_op_gemm(o->device,
                      &(vl_gemm_args){.out = gradient->weight,
                                      .a = du,
                                      .b = tile->h,
                                      .transpose_a = true,
                                      .alpha = 1.0f,
                                      .beta = beta,
                                      .fast = vl_adapter_in_bf16(o->precision, o->head, true)},
                      err);
}

vl_status vl_objective_layer(vl_objective *o, const vl_objective_tile *tile, const vl_adapter *adapter,
                             const vl_adapter_gradient *gradient, vl_error *err)
{
    int64_t rows = tile->h.shape[0];
    vl_tensor u = vl_tensor_rows(o->u, 0, rows), x = vl_tensor_rows(o->x, 0, rows), dx = {.data = NULL};
    if (gradient)
        dx = vl_tensor_rows(o->dx, 0, rows);
    bool bf16 = vl_adapter_in_bf16(o->precision, o->head, gradient != NULL);
    VL_TRY(vl_adapter_apply(&u, o->device, u, tile->h, adapter, bf16, err));
    VL_TRY(loss_of(o, tile, u, x, dx, err));
    if (gradient) {
        vl_norm_backward_args back = {.dx = dx,
                                      .dy = dx,
                                      .x = u,
                                      .weight = vl_head_norm_weight(o->head),
                                      .kind = norm_kind(o),
                                      .eps = vl_head_get_info(o->head)->eps};
        VL_TRY(vl_op_norm_backward(o->device, &back, err));
        VL_TRY(gradient_of(o, tile, dx, gradient, err));
    }
    vl_tensor loss = vl_tensor_1d(o->loss.data, VL_F32, rows);
    return tile->losses_stay ? VL_OK : vl_device_read(o->device, o->host_loss, &loss, err);
}
