/* model/head_load.h - the head of a checkpoint: final norm and unembedding, tied or not. */
#ifndef VL_MODEL_HEAD_LOAD_H
#define VL_MODEL_HEAD_LOAD_H

#include "trainer/model/model.h"

/* Fills model->head. What is not as the file has it (a norm of 1 + w) is computed once into model->head_memory, in
 * float32. Errors: VL_EFORMAT (no head, or a tied one that differs from the embedding table), VL_ESHAPE, VL_ENOMEM. */
vl_status vl_head_load(vl_model *model, vl_loader *loader, vl_error *err);

#endif
