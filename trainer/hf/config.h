/* hf/config.h - the JSON files of a model directory as one view, and typed reading of their keys.
 *
 * What the keys mean is the business of a family (model/families); here is only where they stand and of which type
 * they are. Every error names the file, the key, what was expected and what was found. */
#ifndef VL_HF_CONFIG_H
#define VL_HF_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include <vlens/tensor.h>

#include "trainer/base/json.h"
#include "trainer/base/status.h"

/* One JSON object with the words for its place ("DIR/config.json: text_config") and where errors go. `object` may
 * be NULL: every key is then omitted. */
typedef struct vl_hf_reader {
    const json_t *object;
    const char *where;
    vl_error *err;
} vl_hf_reader;

typedef enum vl_hf_file {
    VL_HF_CONFIG = 0,      /* config.json */
    VL_HF_PROCESSOR,       /* processor_config.json */
    VL_HF_IMAGE_PROCESSOR, /* the image_processor of processor_config.json (transformers 5), else
                              preprocessor_config.json */
    VL_HF_GENERATION,      /* generation_config.json */
    VL_HF_FILES
} vl_hf_file;

typedef struct vl_hf_config {
    json_t *root[VL_HF_FILES]; /* NULL where the file is missing */
    char *where[VL_HF_FILES];  /* its place in words; set for missing files too */
} vl_hf_config;

/* Reads what is there; only config.json must be. The caller closes *out, also after a failure. Errors: VL_EIO (no
 * config.json), VL_EFORMAT (no JSON object), VL_ENOMEM. */
vl_status vl_hf_config_open(vl_hf_config *out, const char *directory, vl_error *err);
void vl_hf_config_close(vl_hf_config *config);
/* A reader of one file; its words live as long as the config. */
vl_hf_reader vl_hf_config_reader(const vl_hf_config *config, vl_hf_file file, vl_error *err);

/* A reader of the object under `key`; object NULL where that is missing or null. Errors: VL_EFORMAT (no object). */
typedef struct vl_hf_section {
    vl_hf_reader reader;
    char where[VL_ERROR_MESSAGE_SIZE];
} vl_hf_section;
vl_status vl_hf_section_open(vl_hf_section *out, const vl_hf_reader *in, const char *key);

enum { VL_HF_MAX_SIZE = 1 << 20, VL_HF_MAX_VOCAB = 1 << 24, VL_HF_MAX_ID = 2147483647 };

/* Each leaves *out as it is where the key is missing or null. Sizes are 1..VL_HF_MAX_SIZE. Errors: VL_EFORMAT. */
vl_status vl_hf_key_int(int *out, const vl_hf_reader *in, const char *key, int min, int max);
vl_status vl_hf_key_size(int *out, const vl_hf_reader *in, const char *key);
vl_status vl_hf_key_double(double *out, const vl_hf_reader *in, const char *key, double min, double max);
vl_status vl_hf_key_bool(bool *out, const vl_hf_reader *in, const char *key);
vl_status vl_hf_key_string(const char **out, const vl_hf_reader *in, const char *key);
/* Three numbers, or one for all channels; out stays as it is where the key is missing or null. Errors: VL_EFORMAT. */
vl_status vl_hf_key_channels(double out[3], const vl_hf_reader *in, const char *key);
/* At most `room` integers of min..max; *count says how many; an array only. */
typedef struct vl_hf_range {
    int min, max;
} vl_hf_range;
vl_status vl_hf_key_ints(int *out, int *count, int room, const vl_hf_reader *in, const char *key, vl_hf_range range);
/* A list of numbers, rounded to float; *count says how many. */
vl_status vl_hf_key_floats(float *out, int *count, int room, const vl_hf_reader *in, const char *key);
/* The member is there and not null. */
bool vl_hf_key_has(const vl_hf_reader *in, const char *key);
/* VL_EUNSUPPORTED where the key is there with another value than `only`: what is not computed is never guessed. */
vl_status vl_hf_key_only_bool(const vl_hf_reader *in, const char *key, bool only);
vl_status vl_hf_key_only_double(const vl_hf_reader *in, const char *key, double only);

#endif
