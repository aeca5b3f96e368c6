/* model/forward.h - the steps of a pass that a forward and a generation share. */
#ifndef VL_MODEL_FORWARD_H
#define VL_MODEL_FORWARD_H

#include <vlens/model.h>

#include "trainer/model/pass.h"

/* Before the first block of a pass, whatever state it starts at. vl_model_end is called after every begin, also after
 * one that failed or was never reached. */
vl_status vl_model_begin(const vl_model *model, vl_pass *pass, vl_error *err);
void vl_model_end(vl_pass *pass);
/* x = block `layer` of x; pictures are encoded when the first block needs them. */
vl_status vl_model_run_block(const vl_model *model, vl_pass *pass, int layer, vl_error *err);

#endif
