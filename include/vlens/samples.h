/* vlens/samples.h - the samples of a configuration as they will be run, to look at before anything is. */
#ifndef VLENS_SAMPLES_H
#define VLENS_SAMPLES_H

#include <vlens/config.h>
#include <vlens/model.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One sample. All is borrowed, and valid while the callback runs. */
typedef struct vl_sample_preview {
    int64_t number; /* as in /samples/id of a cache */
    int64_t line;   /* of the file, from 1; 0: it has none */
    const vl_turn *turns;
    int n_turns; /* 0: a window of a corpus */
    const char *const *image_paths;
    int n_images;
    const char *text; /* what goes to the tokenizer, image tokens once for each picture; of a window its text */
    const vl_sequence *sequence; /* NULL where the sample cannot be used */
    const char *fault;           /* why; NULL */
} vl_sample_preview;

typedef struct vl_samples_summary {
    char taken_as[96]; /* "JSON lines of prompts"; "" of a corpus */
    int64_t n_samples; /* that can be read; they may still be too long, or have bad pictures */
    int64_t n_faults;  /* that cannot */
} vl_samples_summary;

typedef void (*vl_sample_preview_fn)(void *user, const vl_sample_preview *sample);

/* Calls `show` for the first `most` samples of config->data, good and bad ones, in order; pictures are decoded, the
 * model is not run. *out is filled before the first call. Errors: VL_EINVAL (no data), VL_EIO, VL_EFORMAT (a file that
 * holds no samples), VL_ENOMEM. */
VL_API vl_status vl_samples_preview(vl_samples_summary *out, const vl_config *config, const vl_model *model,
                                    int64_t most, vl_sample_preview_fn show, void *user, vl_error *err);

#ifdef __cplusplus
}
#endif
#endif
