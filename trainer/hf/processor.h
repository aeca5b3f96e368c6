/* hf/processor.h - the settings by which a directory of transformers turns pictures into pixel values: what all image
 * processors share, and the files for what one family alone reads. */
#ifndef VL_HF_PROCESSOR_H
#define VL_HF_PROCESSOR_H

#include <jansson.h>

#include "trainer/base/status.h"
#include "trainer/image/pixels.h"

typedef struct vl_processor {
    char class_name[64];     /* "image_processor_type", without "Fast" or "Pil"; "" where the file has none */
    vl_resize_kernel kernel; /* see vl_processor_open */
    vl_resample resample;
    vl_normalise normalise;
    bool do_resize;
    vl_size size;                      /* of "size": 0 where it has no height and width */
    int shortest_edge, longest_edge;   /* of "size": 0 where absent. Areas in Qwen's files */
    json_t *image;                     /* the image processor's settings */
    json_t *processor;                 /* processor_config.json; NULL where there is none */
    char *image_path, *processor_path; /* where they were read, for messages */
} vl_processor;

/* Reads processor_config.json["image_processor"] (transformers 5), else preprocessor_config.json, and the processor's
 * own settings beside it. `defaults` holds what the class has where a key is omitted; its kernel is replaced.
 *
 * The kernel follows transformers 5.24, where every image processor is torchvision's unless its class ends with
 * "Pil". (4.x took Pillow for the classes without "Fast"; that moves bytes by 1.) With the kernel goes the order of
 * the normalisation.
 *
 * Errors: VL_EIO (no file), VL_EFORMAT (wrong type or range; file and key named), VL_EUNSUPPORTED (a filter that is
 * not here), VL_ENOMEM. The caller closes *out, also after a failure. */
vl_status vl_processor_open(vl_processor *out, const char *directory, const vl_processor *defaults, vl_error *err);
void vl_processor_close(vl_processor *processor);

/* An integer of the image processor's settings, or of processor_config.json, from 1 to max; stays as it is where the
 * key is omitted or null. */
vl_status vl_processor_image_int(int *out, const vl_processor *processor, const char *key, int max, vl_error *err);
vl_status vl_processor_int(int *out, const vl_processor *processor, const char *key, int max, vl_error *err);

/* Pictures of that size, as f32 values: what one sequence's pictures may become. */
enum { VL_PROCESSOR_MAX_SIDE = 16384 };

#endif
