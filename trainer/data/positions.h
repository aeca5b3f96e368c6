/* cache/positions.h - which rows of a sequence are kept. */
#ifndef VL_CACHE_POSITIONS_H
#define VL_CACHE_POSITIONS_H

#include <vlens/config.h>
#include <vlens/model.h>

#include "trainer/base/status.h"

/* How many of `available` rows a limit keeps (VL_ALL: all). */
int64_t vl_positions_count(int64_t limit, int64_t available);
/* Chooses rows of a sequence, class by class: all of a class, or `limits[class]` of them at random, without regard to
 * the other classes and samples: the choice follows from seed and key (data/key.h). rows has room for n_tokens entries;
 * *n of them are set, rising. */
vl_status vl_positions_choose(int64_t *rows, int64_t *n, const vl_sequence *sequence,
                              const int64_t limits[VL_CLASS_COUNT], int64_t seed, const char *key, vl_error *err);

#endif
