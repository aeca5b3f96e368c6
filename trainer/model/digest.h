/* model/digest.h - the identity of a frozen forward: what it reads and obeys, so that states of two models can be told
 * apart however alike their heads are. */
#ifndef VL_MODEL_DIGEST_H
#define VL_MODEL_DIGEST_H

#include <vlens/model.h>

#include "trainer/base/status.h"

typedef struct vl_model_digest_job vl_model_digest_job;

/* Begins to hash the tensors that the forward reads, in threads of its own. A second start does nothing. Failing to
 * start is no failure: vl_model_identify does the work then. */
void vl_model_digest_start(vl_model *model);
/* Ends it, waiting for its threads. NULL is allowed. */
void vl_model_digest_free(vl_model_digest_job *job);
/* Waits for the hashes. The manifest has a line "key=value" for each thing that the forward obeys, in a fixed order:
 * "rules", keys of the configuration files, hashes of the tokenizer's, then "tensor.NAME=TYPE SHAPE HASH" (XXH3-128 of
 * the bytes) by name. The digest, in hex, is XXH3-128 of the manifest. Both are borrowed from the model. */
vl_status vl_model_identify(const char **digest, const char **manifest, vl_model *model, vl_error *err);
/* VL_EMISMATCH that names the first tensor or key that differs. `stored` may be NULL: unknown, which is no difference.
 * `whose` begins the message: "cache/index.h5: made". */
vl_status vl_model_compare(const char *whose, const char *stored_digest, const char *stored_manifest,
                           const char *digest, const char *manifest, vl_error *err);

#endif
