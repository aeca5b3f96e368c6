/* model/spec.h - a whole model as a description: what config.json and its neighbours say, before any weight is read. */
#ifndef VL_MODEL_SPEC_H
#define VL_MODEL_SPEC_H

#include "trainer/hf/config.h"
#include "trainer/hf/preprocess.h"
#include "trainer/model/vision_spec.h"

struct vl_family;

/* The parts of a checkpoint; each has its prefix in every layout that was ever published (vl_family.prefixes). */
typedef enum vl_part {
    VL_PART_TEXT = 0,
    VL_PART_HEAD,
    VL_PART_VISION,
    VL_PART_CONNECTOR,
    VL_PART_TOP,
    VL_PARTS
} vl_part;
enum { VL_MAX_LAYOUTS = 4 };

typedef struct vl_model_spec {
    const struct vl_family *family;
    char model_type[32];
    vl_decoder_spec decoder;
    vl_vision_spec vision;
    vl_preprocess preprocess; /* of families that see pictures */
    void *own;                /* of the family, one block of memory without pointers; freed with vl_free */
    bool has_dtype;
    vl_dtype dtype; /* a hint only: the weights say what they are */
} vl_model_spec;

/* Reads the description of a model directory. The caller clears *out, also after a failure. Errors: VL_EIO (no
 * config.json), VL_EFORMAT (wrong type or out of range; file and key named), VL_EUNSUPPORTED (the message names what is
 * not supported and what is), VL_EMISMATCH (two keys that contradict), VL_ENOMEM. */
vl_status vl_model_spec_read(vl_model_spec *out, const char *directory, vl_error *err);
void vl_model_spec_clear(vl_model_spec *spec);

/* ---- for families: reading what most of them share (spec_read.c, spec_rope.c) -------------------------------- */

/* "hidden_act" and the like by the names of transformers/activations.py. */
vl_status vl_spec_activation(vl_activation *out, const vl_hf_reader *in, const char *key);
/* Token ids at the end of a text: an integer or a list of them; null is none. */
vl_status vl_spec_eos(vl_decoder_spec *out, const vl_hf_reader *in);
/* An id where null means "none", as -1 does. */
vl_status vl_spec_id(int *out, const vl_hf_reader *in, const char *key);
/* A decoder of the usual kind, sizes left to the family: RMS norms before both branches, gated MLP with silu, rope with
 * base 10000 in all layers, LLaMA's tensor names. */
void vl_spec_plain(vl_decoder_spec *out);
/* The keys that LLaMA and its relatives share: sizes, norm_eps ("rms_norm_eps"), hidden_act, tie, ids. *out holds the
 * defaults. */
vl_status vl_spec_text(vl_decoder_spec *out, const vl_hf_reader *in);
/* Checks heads and sets head_dim ("head_dim" or, where *out has 0, D / H), embed_rows and all layers: self-attention
 * over everything, rope 0, scale E ^ -0.5. */
vl_status vl_spec_finish_text(vl_decoder_spec *out, const vl_hf_reader *in);
/* "tie_word_embeddings". */
vl_status vl_spec_tie(vl_decoder_spec *out, const vl_hf_reader *in);
/* "dtype" or "torch_dtype" into a spec. */
vl_status vl_spec_dtype(vl_model_spec *out, const vl_hf_reader *in);
/* VL_EUNSUPPORTED that names the type and the families that are known (VL_EFORMAT where type is NULL). */
vl_status vl_spec_refuse_type(const vl_hf_reader *in, const char *type, bool only_text);
/* VL_EUNSUPPORTED for quantised weights, with what to do. */
vl_status vl_spec_refuse_quantized(const vl_hf_reader *in);
/* The decoder of a family that sees pictures: section `key` read by the text family that its model_type names, or by
 * `type` where it names none. VL_EUNSUPPORTED where that is no text family that is known. */
vl_status vl_spec_text_section(vl_decoder_spec *out, const vl_hf_reader *in, const char *key, const char *type);
/* A section of the config that must be of one of `types` (NULL at the end) where it names its model_type at all; *type
 * (may be NULL) is set to it, or to types[0]. */
vl_status vl_spec_section(vl_hf_section *out, const char **type, const vl_hf_reader *in, const char *key,
                          const char *const *types);

/* Windows (spec_window.c); after vl_spec_finish_text. `usual` is the class's default where "sliding_window" is omitted;
 * null means none. All layers: */
vl_status vl_spec_window(vl_decoder_spec *out, const vl_hf_reader *in, int usual);
/* "layer_types", which wins where it is there. */
vl_status vl_spec_layer_types(vl_decoder_spec *out, const vl_hf_reader *in, int usual);
/* Behind "use_sliding_window" and from layer "max_window_layers" on, as Qwen has it; then layer_types. */
vl_status vl_spec_switched_window(vl_decoder_spec *out, const vl_hf_reader *in);
/* A soft cap: null means none. */
vl_status vl_spec_cap(double *out, const vl_hf_reader *in, const char *key);

/* Keys of a vision_config as CLIP has them (spec_vision.c): sizes, heads, eps, activation; sets head_dim, grid,
 * n_patches. *out holds the defaults. vl_spec_tower_sizes leaves heads and eps, whose names differ, to the family. */
vl_status vl_spec_tower(vl_tower_spec *out, const vl_hf_reader *in);
vl_status vl_spec_tower_sizes(vl_tower_spec *out, const vl_hf_reader *in);
/* The towers of CLIP (LlavaConfig's own, ViT-L/14-336, where vision_config is omitted) and SigLIP, with the defaults of
 * their config classes; nothing is read yet, and SigLIP's last norm is not applied. */
vl_tower_spec vl_clip_tower(bool omitted);
vl_tower_spec vl_siglip_tower(void);
/* "vision_feature_layer" by python's rules into tower->state; `layer` is the default. */
vl_status vl_spec_feature_layer(vl_tower_spec *tower, const vl_hf_reader *in, int layer);
/* "vision_feature_select_strategy": full keeps the class row. */
vl_status vl_spec_feature_strategy(bool *keep_class_row, const vl_hf_reader *in);
/* "image_token_index", "image_token_id". */
vl_status vl_spec_image_token(int32_t *out, const vl_hf_reader *in);
/* "tie_word_embeddings" of the top level, after that of the text_config. */
vl_status vl_spec_outer_tie(vl_decoder_spec *out, const vl_hf_reader *in);

/* The table of positions: rope_scaling, rope_parameters, rope_theta, partial_rotary_factor in all their spellings
 * (docs/MODELS.md). *out holds theta's default, and longrope's trained length where the class has one; `partial` is the
 * share of a head that turns where nothing is said. Needs head_dim and max_position of `text`. A key that is not known
 * is refused, never ignored. */
vl_status vl_spec_rope(vl_rope_spec *out, const vl_decoder_spec *text, const vl_hf_reader *in, double partial);
/* The same from one object that holds everything (one entry of a nested rope_parameters). */
vl_status vl_spec_rope_object(vl_rope_spec *out, const vl_decoder_spec *text, const vl_hf_reader *in, double partial);
const char *vl_rope_name(vl_rope_kind kind);

#endif
