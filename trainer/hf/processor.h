/* hf/processor.h - what the image processors of transformers 5 share: how a picture is resized and normalised. */
#ifndef VL_HF_PROCESSOR_H
#define VL_HF_PROCESSOR_H

#include "trainer/hf/config.h"
#include "trainer/image/pixels.h"

typedef struct vl_processor {
    vl_resize_kernel kernel;
    vl_resample resample;
    vl_normalise normalise;
    vl_size size;                    /* of "size": 0 where it has no height and width */
    int shortest_edge, longest_edge; /* of "size": 0 where absent. Areas in Qwen's files */
} vl_processor;

enum { VL_PROCESSOR_MAX_SIDE = 16384 };

/* CLIP's mean and deviation of colours, with scaling to 0..1: what most classes have where a key is omitted. */
extern const vl_normalise vl_normalise_clip;
/* Mean and deviation 0.5: values from -1 to 1. */
extern const vl_normalise vl_normalise_half;

/* The settings of an image processor (VL_HF_IMAGE_PROCESSOR); *out holds what its class has where a key is omitted.
 *
 * The kernel follows transformers 5.24, where every image processor is torchvision's unless its class ends with "Pil".
 * (4.x took Pillow for the classes without "Fast"; that moves bytes by 1.) With the kernel goes the order of the
 * normalisation.
 *
 * Errors: VL_EIO (no file), VL_EFORMAT (wrong type or range; file and key named), VL_EUNSUPPORTED (a filter that is
 * not here, or pictures that are not resized). */
vl_status vl_processor_read(vl_processor *out, const vl_hf_reader *in);

#endif
