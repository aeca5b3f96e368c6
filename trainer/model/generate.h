/* model/generate.h - greedy continuation, with what only tests need. */
#ifndef VL_MODEL_GENERATE_H
#define VL_MODEL_GENERATE_H

#include <vlens/model.h>

typedef struct vl_generate_options {
    int64_t max_new;
    bool ignore_end; /* go on behind end tokens, as references that were made with eos_token_id=None */
} vl_generate_options;

/* vl_model_generate with options; *out_ids is freed by vl_release. */
vl_status vl_generate(vl_model *model, const vl_sequence *sequence, const vl_generate_options *options,
                      int32_t **out_ids, int64_t *n_out, vl_error *err);

#endif
