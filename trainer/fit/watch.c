/* watch.c - the numbers by which a step is judged, on the device. */
#include "trainer/base/mem.h"
#include "trainer/fit/session.h"

vl_status vl_fit_watch_new(vl_fit_session *s, vl_error *err)
{
    vl_fit_watch *w = &s->watch;
    size_t n = (size_t)s->at_once;
    w->host = vl_alloc(n * VL_WATCH_COLUMNS, sizeof *w->host);
    w->rows = vl_alloc((size_t)s->plan.tokens_per_step, sizeof *w->rows);
    if (!w->host || !w->rows)
        return vl_fail_nomem(err, "numbers of a step");
    VL_TRY(vl_tensor_new(&w->seen, s->device, VL_F64, s->at_once, VL_WATCH_COLUMNS, err));
    VL_TRY(vl_tensor_new(&w->scales, s->device, VL_F32, s->at_once, 2, err));
    return vl_fit_watch_reset(s, err);
}

vl_status vl_fit_watch_reset(vl_fit_session *s, vl_error *err)
{
    for (int64_t i = 0; i < s->at_once * VL_WATCH_COLUMNS; i++)
        s->watch.host[i] = i % VL_WATCH_COLUMNS == VL_WATCH_BAD_ROW ? -1 : 0;
    return vl_device_write(s->device, &s->watch.seen, s->watch.host, err);
}

void vl_fit_watch_clear(vl_fit_session *s)
{
    vl_device_free(s->device, s->watch.seen.data);
    vl_device_free(s->device, s->watch.scales.data);
    vl_free(s->watch.host);
    vl_free(s->watch.rows);
    s->watch = (vl_fit_watch){.host = NULL};
}

vl_tensor vl_fit_watch_seen(const vl_fit_session *s, int64_t slot, int column, int64_t n)
{
    return vl_tensor_1d((double *)s->watch.seen.data + slot * VL_WATCH_COLUMNS + column, VL_F64, n);
}

vl_tensor vl_fit_watch_scales(const vl_fit_session *s, int64_t slot)
{
    return vl_tensor_1d((float *)s->watch.scales.data + 2 * slot, VL_F32, 2);
}
