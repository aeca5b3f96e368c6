/* hf/config_read.h - inside hf/: the parts that config.c is made of. */
#ifndef VL_HF_CONFIG_READ_H
#define VL_HF_CONFIG_READ_H

#include "trainer/base/json.h"
#include "trainer/hf/config.h"

/* One JSON object with the words for its place ("DIR/config.json: text_config") and where errors go. `object` may
 * be NULL: every key is then omitted. */
typedef struct vl_hf_reader {
    const json_t *object;
    const char *where;
    vl_error *err;
} vl_hf_reader;

enum { VL_HF_MAX_SIZE = 1 << 20, VL_HF_MAX_VOCAB = 1 << 24 };

/* Each leaves *out as it is where the key is missing or null. Sizes are 1..VL_HF_MAX_SIZE. */
vl_status vl_hf_key_int(int *out, const vl_hf_reader *in, const char *key, int min, int max);
vl_status vl_hf_key_size(int *out, const vl_hf_reader *in, const char *key);
vl_status vl_hf_key_double(double *out, const vl_hf_reader *in, const char *key, double min, double max);
vl_status vl_hf_key_bool(bool *out, const vl_hf_reader *in, const char *key);
vl_status vl_hf_key_string(const char **out, const vl_hf_reader *in, const char *key);
vl_status vl_hf_key_activation(vl_activation *out, const vl_hf_reader *in, const char *key);
/* At most `room` integers of min..max; *count says how many; an array only. */
typedef struct vl_hf_range {
    int min, max;
} vl_hf_range;
vl_status vl_hf_key_ints(int *out, int *count, int room, const vl_hf_reader *in, const char *key, vl_hf_range range);
/* The member is there and not null. */
bool vl_hf_key_has(const vl_hf_reader *in, const char *key);

vl_status vl_hf_read_llama(vl_text_config *out, const vl_hf_reader *in);
vl_status vl_hf_read_mllama_text(vl_text_config *out, const vl_hf_reader *in);
/* Token ids at the end of a text: an integer or a list of them; null is none. */
vl_status vl_hf_read_eos(vl_text_config *out, const vl_hf_reader *in);
vl_status vl_hf_read_rope(vl_text_config *out, const vl_hf_reader *in);
/* in->object == NULL: LlavaConfig's own default tower (ViT-L/14-336) instead of CLIPVisionConfig's. */
vl_status vl_hf_read_clip(vl_clip_config *out, const vl_hf_reader *in);
vl_status vl_hf_read_mllama_vision(vl_mllama_vision_config *out, const vl_hf_reader *in);

#endif
