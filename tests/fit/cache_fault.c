#include "tests/fit/cache_fault.h"

#include <vlens/cache.h>

#include "trainer/base/half.h"

static int64_t fault_state = -1, fault_row;
static uint16_t fault_bits;

void cache_fault(int64_t state, int64_t row, float value)
{
    fault_state = state;
    fault_row = row;
    fault_bits = vl_f32_to_bf16(value);
}

vl_status __real_vl_cache_read(void *out, vl_cache *cache, int64_t state, int64_t first, int64_t n, vl_error *err);
vl_status __wrap_vl_cache_read(void *out, vl_cache *cache, int64_t state, int64_t first, int64_t n, vl_error *err);

vl_status __wrap_vl_cache_read(void *out, vl_cache *cache, int64_t state, int64_t first, int64_t n, vl_error *err)
{
    vl_status status = __real_vl_cache_read(out, cache, state, first, n, err);
    if (status != VL_OK || state != fault_state || fault_row < first || fault_row >= first + n)
        return status;
    int64_t d = vl_cache_get_info(cache)->d_model;
    for (int64_t k = 0; k < d; k++)
        ((uint16_t *)out)[(fault_row - first) * d + k] = fault_bits;
    return VL_OK;
}
