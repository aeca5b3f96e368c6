#include "tests/fit/cache_fault.h"

#include <vlens/cache.h>

#include "trainer/base/half.h"

static int64_t fault_state = -1, fault_row;
static float fault_value;

void cache_fault(int64_t state, int64_t row, float value)
{
    fault_state = state;
    fault_row = row;
    fault_value = value;
}

vl_status __real_vl_cache_read(void *out, vl_cache *cache, int64_t state, int64_t first, int64_t n, vl_error *err);
vl_status __wrap_vl_cache_read(void *out, vl_cache *cache, int64_t state, int64_t first, int64_t n, vl_error *err);

vl_status __wrap_vl_cache_read(void *out, vl_cache *cache, int64_t state, int64_t first, int64_t n, vl_error *err)
{
    vl_status status = __real_vl_cache_read(out, cache, state, first, n, err);
    if (status != VL_OK || state != fault_state)
        return status;
    int64_t d = vl_cache_get_info(cache)->d_model;
    vl_dtype dtype = vl_cache_get_info(cache)->dtype;
    uint16_t narrow;
    vl_narrow(&narrow, &fault_value, dtype, 1);
    for (int64_t row = 0; row < n; row++)
        for (int64_t k = 0; k < d && (fault_row < 0 || fault_row == first + row); k++)
            if (dtype == VL_F32)
                ((float *)out)[row * d + k] = fault_value;
            else
                ((uint16_t *)out)[row * d + k] = narrow;
    return VL_OK;
}
