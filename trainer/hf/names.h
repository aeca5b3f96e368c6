/* hf/names.h - weights by one short name, whatever layout the checkpoint has.
 *
 * Two layouts are in use: that of transformers before 4.52 and that of 4.52 and later (save_pretrained).
 *
 *     part       family  before 4.52                      4.52 and later                      example of a suffix
 *     TEXT       LLaMA   model.                           the same layers.3.mlp.up_proj.weight VLMs
 * language_model.model.            model.language_model.               embed_tokens.weight HEAD       LLaMA   lm_head.
 * the same                            weight VLMs    language_model.lm_head.          lm_head. VISION     LLaVA
 * vision_tower.vision_model.       model.vision_tower.vision_model.    pre_layrnorm.weight Mllama  vision_model.
 * model.vision_model.                 class_embedding PROJECTOR  VLMs    multi_modal_projector.
 * model.multi_modal_projector.        linear_1.weight (LLaVA) weight (Mllama) */
#ifndef VL_HF_NAMES_H
#define VL_HF_NAMES_H

#include "trainer/hf/config.h"
#include "trainer/hf/directory.h"

typedef enum vl_hf_part { VL_HF_TEXT = 0, VL_HF_HEAD, VL_HF_VISION, VL_HF_PROJECTOR } vl_hf_part;

/* What a weight is looked up in; both outlive the calls. */
typedef struct vl_hf_source {
    const vl_hf_directory *dir;
    const vl_hf_config *config;
} vl_hf_source;

typedef struct vl_hf_shape {
    int ndim;
    int64_t size[VL_MAX_DIMS];
} vl_hf_shape;

static inline vl_hf_shape vl_hf_shape1(int64_t a)
{
    return (vl_hf_shape){1, {a, 0, 0, 0}};
}
static inline vl_hf_shape vl_hf_shape2(int64_t a, int64_t b)
{
    return (vl_hf_shape){2, {a, b, 0, 0}};
}
static inline vl_hf_shape vl_hf_shape4(int64_t a, int64_t b, int64_t c, int64_t d)
{
    return (vl_hf_shape){4, {a, b, c, d}};
}

/* Finds the tensor <prefix of part><suffix> under either layout and checks that it is F32, F16 or BF16 and has the
 * shape. Errors: VL_EFORMAT (missing, or there under both names), VL_ESHAPE (other shape or dtype); the message
 * names the tensor with what was expected and found. */
vl_status vl_hf_weight(const vl_weight_view **out, const vl_hf_source *source, vl_hf_part part, vl_hf_shape shape,
                       vl_error *err, const char *suffix, ...) __attribute__((format(printf, 6, 7)));
/* The same, but *out = NULL and VL_OK where the tensor is missing. */
vl_status vl_hf_weight_optional(const vl_weight_view **out, const vl_hf_source *source, vl_hf_part part,
                                vl_hf_shape shape, vl_error *err, const char *suffix, ...)
    __attribute__((format(printf, 6, 7)));
/* The unembedding [vocab_size, hidden_size]: the embedding table where the config ties them, lm_head otherwise. */
vl_status vl_hf_head(const vl_weight_view **out, const vl_hf_source *source, vl_error *err);

#endif
