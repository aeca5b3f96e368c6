/* cache/samples.h - what a run is made from: config->data as a list of samples.
 *
 * A line of JSONL, or a window of a plain corpus. The number of a sample is its line in the JSONL, from 0 (blank lines
 * count and are skipped), or the number of its window. Messages give lines as editors do, from 1. */
#ifndef VL_CACHE_SAMPLES_H
#define VL_CACHE_SAMPLES_H

#include <vlens/config.h>

#include "trainer/base/status.h"

enum {
    VL_SAMPLE_LINE_BYTES = 16 << 20, /* the longest line */
    VL_SAMPLE_DEPTH = 32,            /* the deepest nesting of JSON */
    VL_SAMPLE_IMAGES = 1024,         /* images of one sample */
    VL_TEXT_GROUP = 16,              /* consecutive windows that are held out together */
    VL_TEXT_WINDOW = 512             /* where data.max_tokens is 0 */
};

typedef struct vl_sample {
    int64_t number;
    char *prompt;
    char *answer;  /* or NULL */
    char **images; /* [n_images] paths as they are opened */
    int n_images;
    const int32_t *ids; /* [n_ids] of a window; NULL for a line */
    int64_t n_ids;
} vl_sample;

typedef struct vl_sample_list {
    char *path;      /* of the JSONL or the corpus */
    char sha256[65]; /* of its bytes */
    bool is_text;
    vl_sample *items; /* [n] by rising number */
    int64_t n, capacity;
    int32_t *ids; /* of all windows */
} vl_sample_list;

/* Errors: VL_EINVAL (neither samples nor text), VL_EIO, VL_EFORMAT "file:line: ...", VL_ENOMEM. */
vl_status vl_samples_read(vl_sample_list *out, const vl_config *config, const vl_tokenizer *tokenizer, vl_error *err);
void vl_samples_clear(vl_sample_list *list);
/* The sample of that number; NULL where there is none. */
const vl_sample *vl_samples_find(const vl_sample_list *list, int64_t number);
/* The sequence that a model runs for a sample: the window, or the prompt with its pictures, as config->data says. Freed
 * by vl_sequence_free. */
vl_status vl_sample_encode(vl_sequence **out, const vl_model *model, const vl_config *config, const vl_sample *sample,
                           vl_error *err);
/* The same without pixel values, for counting rows: pictures are opened only where their size decides (model/encode.h).
 */
vl_status vl_sample_outline(vl_sequence **out, const vl_model *model, const vl_config *config, const vl_sample *sample,
                            vl_error *err);
/* Puts "file:12: " or "file: window 3: " in front of a message. Returns status. */
vl_status vl_sample_prefix(vl_error *err, vl_status status, const vl_sample_list *list, const vl_sample *sample);

/* For samples*.c. */
vl_status vl_samples_read_lines(vl_sample_list *list, const vl_config *config, vl_error *err);
vl_status vl_samples_read_windows(vl_sample_list *list, const vl_config *config, const vl_tokenizer *tokenizer,
                                  vl_error *err);
/* A zeroed entry at the end; NULL when out of memory. */
vl_sample *vl_samples_add(vl_sample_list *list);

/* Where image names lead. */
typedef struct vl_image_folder {
    char *path; /* as given */
    char *real; /* resolved; NULL with allow_outside */
    bool allow_outside;
} vl_image_folder;
vl_status vl_image_folder_open(vl_image_folder *out, const vl_config *config, vl_error *err);
void vl_image_folder_clear(vl_image_folder *folder);
/* The path that an image name stands for, freed with vl_free. Refuses names with control characters and, unless
 * allow_outside, paths that leave the folder in whatever way. */
vl_status vl_image_folder_find(char **out, const vl_image_folder *folder, const char *name, vl_error *err);

#endif
