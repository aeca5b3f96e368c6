/* tests/fit/cache_fault.h - one row of one state that reads as something else (linked with --wrap=vl_cache_read). */
#ifndef CACHE_FAULT_H
#define CACHE_FAULT_H

#include <stdint.h>

/* From now on row `row` of `state` of a cache reads as `value` in every column. Row -1:
 * every row. state -1: no fault. */
void cache_fault(int64_t state, int64_t row, float value);

#endif
