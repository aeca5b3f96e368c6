#include "trainer/model/deep.h"

#include "trainer/base/mem.h"

static int64_t count_rows(const vl_pass *pass)
{
    int64_t rows = 0;
    for (int s = 0; s < pass->n_sequences; s++)
        for (int i = 0; i < pass->sequences[s]->n_images; i++)
            rows += pass->sequences[s]->images[i].n_rows;
    return rows;
}

vl_status vl_deep_new(vl_deep **out, const vl_pass *pass, int n, vl_error *err)
{
    const int64_t rows = count_rows(pass);
    vl_deep *deep = *out = vl_calloc(1, sizeof *deep);
    if (!deep)
        return vl_fail_nomem(err, "rows of pictures");
    deep->device = pass->device;
    deep->n = n;
    for (int i = 0; i < n && rows > 0; i++)
        VL_TRY(vl_tensor_new(&deep->rows[i], pass->device, VL_F32, rows, pass->spec->hidden_size, err));
    return VL_OK;
}

void vl_deep_free(vl_deep *deep)
{
    for (int i = 0; deep && i < deep->n; i++)
        vl_device_free(deep->device, deep->rows[i].data);
    vl_free(deep);
}

void vl_deep_take(vl_deep *deep, vl_tensor out[VL_MAX_DEEP], int64_t n_rows)
{
    for (int i = 0; i < deep->n; i++)
        out[i] = vl_tensor_rows(deep->rows[i], deep->used, n_rows);
    deep->used += n_rows;
}

/* The rows of a picture stand in its sequence in order, in one run or in several. */
vl_status vl_deep_add(const vl_deep *deep, const vl_pass *pass, int layer, vl_error *err)
{
    int64_t used = 0;
    for (int s = 0; s < pass->n_sequences; s++) {
        const vl_sequence *sequence = pass->sequences[s];
        const vl_span *span = &pass->spans[s];
        for (int64_t t = 0; t < span->n;) {
            int64_t run = 0;
            while (t + run < span->n && sequence->image[span->kv_row + t + run] >= 0)
                run++;
            if (run > 0) {
                const vl_tensor x = vl_tensor_rows(vl_pass_x(pass), span->first + t, run);
                const vl_tensor y = vl_tensor_rows(deep->rows[layer], used, run);
                VL_TRY(vl_op_add(pass->device, &(vl_add_args){.out = x, .x = x, .y = y, .scale = 1}, err));
            }
            used += run;
            t += run > 0 ? run : 1;
        }
    }
    return VL_OK;
}
