/* model/unread.h - the tensors of a checkpoint that nothing read: a weight that is left out makes another model. */
#ifndef VL_MODEL_UNREAD_H
#define VL_MODEL_UNREAD_H

#include "trainer/model/weights.h"

/* *out [*n] of names borrowed from the directory, freed with vl_free. Left out are the family's buffers, what a tower
 * holds behind the state that is read, and a head that is the embedding table again. Errors: VL_ENOMEM. */
vl_status vl_unread_collect(const char ***out, size_t *n, const vl_loader *loader, vl_error *err);

#endif
