#include "trainer/readout/distribution.h"

#include "trainer/base/status.h"

vl_status vl_distribution_new(vl_distribution *out, vl_head *head, int64_t capacity, vl_error *err)
{
    vl_device *device = vl_head_device(head);
    *out = (vl_distribution){.logits = {.data = NULL}};
    vl_status status = vl_tensor_new(&out->logits, device, VL_F32, capacity, vl_head_get_info(head)->vocab_size, err);
    if (status == VL_OK)
        status = vl_tensor_new(&out->lse, device, VL_F32, capacity, 1, err);
    if (status != VL_OK)
        vl_distribution_clear(out, device);
    return status;
}

void vl_distribution_clear(vl_distribution *distribution, vl_device *device)
{
    vl_device_free(device, distribution->logits.data);
    vl_device_free(device, distribution->lse.data);
    *distribution = (vl_distribution){.logits = {.data = NULL}};
}

vl_distribution vl_distribution_rows(const vl_distribution *d, int64_t n)
{
    return (vl_distribution){vl_tensor_rows(d->logits, 0, n), vl_tensor_rows(d->lse, 0, n)};
}

vl_status vl_distribution_of(const vl_distribution *out, vl_head *head, vl_tensor states, vl_error *err)
{
    vl_distribution d = vl_distribution_rows(out, states.shape[0]);
    VL_TRY(vl_head_logits(head, d.logits, states, err));
    return vl_op_logsumexp(vl_head_device(head), &(vl_logsumexp_args){.lse = d.lse, .logits = d.logits}, err);
}

vl_status vl_distribution_compare(float *host, vl_device *device, const vl_comparison *c, vl_error *err)
{
    vl_distribution p = vl_distribution_rows(c->teacher, c->rows), q = vl_distribution_rows(c->lens, c->rows);
    vl_tensor metrics = vl_tensor_rows(c->metrics, 0, c->rows);
    vl_metrics_args args = {.out = metrics,
                            .logits = q.logits,
                            .lse = q.lse,
                            .teacher_logits = p.logits,
                            .teacher_lse = p.lse,
                            .targets = c->targets};
    VL_TRY(vl_op_metrics(device, &args, err));
    return vl_device_read(device, host, &metrics, err);
}
