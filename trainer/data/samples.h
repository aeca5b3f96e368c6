/* data/samples.h - what a run is made from: config->data as a list of samples.
 *
 * A file of samples is taken by what it holds, not by its name: one JSON object a line, a JSON array of objects, or
 * COCO's captions; an object says what it is by its keys (samples_turns.c). Or a plain corpus, cut into windows.
 * The number of a sample is its line from 0 (blank lines count and are skipped), its place in the array, or the number
 * of its window. Messages give lines as editors do, from 1. */
#ifndef VL_DATA_SAMPLES_H
#define VL_DATA_SAMPLES_H

#include <vlens/config.h>
#include <vlens/conversation.h>
#include <vlens/model.h>

#include "trainer/base/status.h"
#include "trainer/base/str.h"

enum {
    VL_SAMPLE_LINE_BYTES = 16 << 20, /* the longest line, or object of an array */
    VL_SAMPLE_DEPTH = 32,            /* the deepest nesting of JSON */
    VL_SAMPLE_IMAGES = 1024,         /* images of one sample */
    VL_SAMPLE_TURNS = 4096,          /* turns of one sample */
    VL_TEXT_GROUP = 16,              /* consecutive windows that are held out together */
    VL_TEXT_WINDOW = 512             /* where data.max_tokens is 0 */
};

typedef struct vl_sample {
    int64_t number;
    int64_t line;   /* where it stands in the file, from 1; 0: it has no line */
    char *prompt;   /* the text of the first turn of the user's, or of a window */
    char *answer;   /* of the first turn of the assistant's; NULL where there is none */
    vl_turn *turns; /* [n_turns] owned, texts too; NULL of a window */
    int n_turns;
    char **images; /* [n_images] paths as they are opened */
    int n_images;
    bool unplaced;      /* a plain prompt: its pictures stand first because nobody said where */
    const int32_t *ids; /* [n_ids] of a window; NULL otherwise */
    int64_t n_ids;
} vl_sample;

/* A sample that cannot be used, and why. */
typedef struct vl_fault {
    int64_t number, line;
    char *reason;
} vl_fault;

typedef struct vl_sample_list {
    char *path;        /* of the samples or the corpus */
    char sha256[65];   /* of its bytes */
    char taken_as[96]; /* "JSON lines of prompts" ... */
    bool is_text;
    vl_sample *items; /* [n] by rising number */
    int64_t n, capacity;
    int32_t *ids;     /* of all windows */
    vl_fault *faults; /* [n_faults] */
    int64_t n_faults, faults_capacity;
} vl_sample_list;

/* Samples that cannot be read become faults. Errors: VL_EINVAL (neither samples nor text), VL_EIO, VL_EFORMAT (the file
 * as a whole is none of the formats, or holds nothing), VL_ENOMEM. */
vl_status vl_samples_scan(vl_sample_list *out, const vl_config *config, const vl_tokenizer *tokenizer, vl_error *err);
/* The same, where a fault is an error unless data.bad_samples says skip. */
vl_status vl_samples_read(vl_sample_list *out, const vl_config *config, const vl_tokenizer *tokenizer, vl_error *err);
void vl_samples_clear(vl_sample_list *list);
/* The sample of that number; NULL where there is none. */
const vl_sample *vl_samples_find(const vl_sample_list *list, int64_t number);
/* The sequence that a model runs for a sample: the window, or the turns with their pictures, as config->data says.
 * Freed by vl_sequence_free. */
vl_status vl_sample_encode(vl_sequence **out, const vl_model *model, const vl_config *config, const vl_sample *sample,
                           vl_error *err);
/* The same without pixel values, for counting rows: pictures are opened only where their size decides (model/encode.h).
 */
vl_status vl_sample_outline(vl_sequence **out, const vl_model *model, const vl_config *config, const vl_sample *sample,
                            vl_error *err);
/* The same up to where the last answer would begin: for what the model says itself. */
vl_status vl_sample_ask(vl_sequence **out, const vl_model *model, const vl_config *config, const vl_sample *sample,
                        vl_error *err);
/* What vl_model_encode takes; borrows from both. */
vl_prompt vl_sample_prompt(const vl_config *config, const vl_sample *sample);
/* Puts "file:12: " or "file: window 3: " in front of a message. What is wrong with a sample is wrong with a file: a
 * VL_EINVAL becomes VL_EFORMAT. Returns status. */
vl_status vl_sample_prefix(vl_error *err, vl_status status, const vl_sample_list *list, const vl_sample *sample);
/* Adds a fault with the message's reason. Errors: VL_ENOMEM. */
vl_status vl_samples_add_fault(vl_sample_list *list, int64_t number, int64_t line, const char *reason, vl_error *err);
/* Takes samples out: those with drop[i], i of list->n. Keeps the order. */
void vl_samples_drop(vl_sample_list *list, const bool *drop);
/* Frees what a sample owns. */
void vl_sample_clear(vl_sample *sample);

/* ---- for samples*.c ---------------------------------------------------------------------------------------- */

vl_status vl_samples_read_windows(vl_sample_list *list, const vl_config *config, const vl_tokenizer *tokenizer,
                                  vl_error *err);
vl_status vl_samples_read_file(vl_sample_list *list, const vl_config *config, vl_error *err);
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

/* Fills the turns and images of a zeroed sample from one JSON object. `format` is what it must be, or
 * VL_FORMAT_AUTO; *found is what it is. `question` is asked where the object has a caption only (may be NULL). */
typedef struct vl_turn_source {
    const vl_image_folder *folder;
    vl_data_format format;
    const char *question;
} vl_turn_source;
struct json_t;
vl_status vl_sample_read_object(vl_sample *sample, vl_data_format *found, const vl_turn_source *source,
                                const struct json_t *object, vl_error *err);
/* One more turn of the sample, whose parts are cut from `text` at each `mark` (NULL: nowhere). */
vl_status vl_sample_add_turn(vl_sample *sample, const char *role, const char *text, const char *mark, vl_error *err);
vl_status vl_sample_add_image(vl_sample *sample, const vl_image_folder *folder, const char *name, vl_error *err);
/* Sets prompt and answer from the turns. Errors: VL_EFORMAT (no turn of the user's). */
vl_status vl_sample_finish(vl_sample *sample, vl_error *err);

#endif
