/* readout/kept.h - states of a cache that lie on the device whole, with the weights and targets of their rows. */
#ifndef VL_READOUT_KEPT_H
#define VL_READOUT_KEPT_H

#include "trainer/readout/loader.h"

/* Where the rows of the loader's tile lie; false where not all are there. Called when it has moved. */
bool vl_kept_find_tile(vl_kept *kept, const vl_loader *loader);
/* Whether the tile's rows of this state are there. */
bool vl_kept_has(const vl_kept *kept, int64_t state);
/* out [rows, D] f32. `turned`: the second half of the tile before the first (lens.targets). */
vl_status vl_kept_load(vl_kept *kept, vl_tensor out, int64_t state, bool turned, vl_error *err);
/* The tile's weights and targets, where they are those of this walk; *done says so. */
vl_status vl_kept_load_numbers(bool *done, vl_kept *kept, const vl_loader *loader, const vl_loader_order *order,
                               vl_error *err);

#endif
