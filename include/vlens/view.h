/* vlens/view.h - what every layer would say: the top-k tokens of each state at chosen positions, through the logit
 * lens and a tuned lens. Tables, pages and plots are drawn from one reading. */
#ifndef VLENS_VIEW_H
#define VLENS_VIEW_H

#include <vlens/eval.h>
#include <vlens/lens.h>
#include <vlens/progress.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vl_reading vl_reading;

typedef struct vl_reading_options {
    vl_lens *lens; /* NULL: the logit lens alone */
    bool allow_other_model;
    int64_t k;                /* tokens per cell, at least 1 */
    const int64_t *positions; /* rows of the sequence; negative ones count from its end; NULL: all */
    int64_t n_positions;
    const char *prompt;       /* shown with the result of a live model; a cache brings its own; may be NULL */
    const char *const *track; /* [n_track] words of one token each, whose probability is kept at every cell */
    int64_t n_track;
    bool trajectories; /* keep at each position the probability, at all states, of every token that is among the top k
                        * at some state there: through the lens, or the logit lens without one. Costs a second pass
                        * over the unembedding */
    const vl_observer *observer; /* stages "forward" and "readout"; may ask to stop; NULL */
} vl_reading_options;

/* Runs the model over one sequence. The reading keeps no reference to the model. The caller frees *out. */
VL_API vl_status vl_reading_from_model(vl_reading **out, vl_model *model, const vl_sequence *sequence,
                                       const vl_reading_options *options, vl_error *err);
/* Reads the kept rows of sample number `sample` (its id) from a cache: no model needed. Positions are then indices
 * among the kept rows. */
VL_API vl_status vl_reading_from_cache(vl_reading **out, vl_cache *cache, vl_device *device, int64_t sample,
                                       const vl_reading_options *options, vl_error *err);
VL_API void vl_reading_free(vl_reading *reading);
/* Puts the positions and pictures of `other` behind those of `reading`, as its next part: two pictures under one prompt
 * can then be compared. Both come from the same model, lens, k and tracked words: VL_EINVAL. Without trajectories.
 * `other` is left empty; the caller still frees it. */
VL_API vl_status vl_reading_append(vl_reading *reading, vl_reading *other, vl_error *err);

typedef struct vl_reading_info {
    int64_t n_states; /* L + 1; the last is the model's own distribution */
    int64_t n_positions, k;
    bool has_lens;
    const char *model_id, *prompt; /* "" where unknown */
    const char *warning;           /* "" or one line that belongs under every result */
    const int32_t *tracked;        /* [n_tracked] token ids of the words that were asked for */
    int64_t n_tracked;
} vl_reading_info;
VL_API vl_reading_info vl_reading_get_info(const vl_reading *reading);

typedef struct vl_reading_position {
    int64_t position; /* row of the sequence */
    int32_t id;
    const char *piece; /* its token, as text */
    vl_token_class token_class;
    int32_t image; /* -1 for text */
    int16_t patch[3];
    int part; /* 0, or 1 for the first reading that was appended, ... */
} vl_reading_position;
VL_API vl_reading_position vl_reading_get_position(const vl_reading *reading, int64_t index);

typedef struct vl_reading_cell {
    const int32_t *ids;       /* [k] falling by probability */
    const float *probability; /* [k] */
    float entropy, kl;        /* nats; kl of the model's distribution from this one */
    const float *tracked;     /* [n_tracked] probability */
} vl_reading_cell;
/* tuned false: the logit lens. Borrowed. */
VL_API vl_reading_cell vl_reading_get_cell(const vl_reading *reading, int64_t index, int64_t state, bool tuned);
/* Text of a token id; "<id>" where the vocabulary is unknown. Borrowed. */
VL_API const char *vl_reading_piece(const vl_reading *reading, int32_t id);

typedef struct vl_table_options {
    int columns; /* that there are; the lenses stand under each other, and with fewer tokens, where they must. 0: any */
    bool colour; /* likely tokens bold, unlikely ones faint, by ANSI sequences */
} vl_table_options;
/* The reading at one position as an aligned table, both lenses side by side (options: NULL, any width, no colour); and
 * all of it as JSON. vl_release. */
VL_API vl_status vl_reading_table(char **out, const vl_reading *reading, int64_t index, const vl_table_options *options,
                                  vl_error *err);
VL_API vl_status vl_reading_json(char **out, const vl_reading *reading, vl_error *err);
/* The data format, version 2, of the widgets of logitlenskit and nnsightful (docs/reference/formats.md):
 * one lens, the tuned one where there is one. Needs a reading with trajectories: VL_EINVAL. vl_release. */
VL_API vl_status vl_reading_json_v2(char **out, const vl_reading *reading, vl_error *err);
/* One line per cell: position,state,lens,rank,id,token,probability. */
VL_API vl_status vl_reading_csv(char **out, const vl_reading *reading, vl_error *err);

/* All of it as one HTML file that needs nothing else: the pictures as the model saw them, every patch and token at
 * every state, both lenses. Numbers are those of the JSON, rounded to four significant digits (probabilities below
 * 1e-7 and nats below 1e-4 are 0). vl_release. */
VL_API vl_status vl_reading_page(char **out, const vl_reading *reading, vl_error *err);
/* The same into a file, which appears whole or not at all. */
VL_API vl_status vl_reading_write_page(const char *path, const vl_reading *reading, vl_error *err);

/* One position as a heat map in SVG: a row per state, a column per rank, the token and its probability in each cell,
 * both lenses side by side. vl_release. */
VL_API vl_status vl_reading_svg(char **out, const vl_reading *reading, int64_t index, vl_error *err);
VL_API vl_status vl_reading_write_svg(const char *path, const vl_reading *reading, int64_t index, vl_error *err);

/* ---- an evaluation ----------------------------------------------------------------------------------------- */

typedef struct vl_eval_page_options { /* what was run; all borrowed */
    const vl_config *config;
    const vl_cache *cache;
    const vl_lens *lens; /* metrics.json beside it gives the training curves, where it is there */
} vl_eval_page_options;

/* An evaluation as one HTML file that needs nothing else: every quantity by state with its interval, the gain over the
 * other lenses, by token class; the training curves; what was run. Numbers are those of vl_eval_json, rounded to four
 * significant digits. vl_release. */
VL_API vl_status vl_eval_page(char **out, const vl_eval_result *result, const vl_eval_page_options *options,
                              vl_error *err);
/* The same into a file, which appears whole or not at all. */
VL_API vl_status vl_eval_write_page(const char *path, const vl_eval_result *result, const vl_eval_page_options *options,
                                    vl_error *err);

#ifdef __cplusplus
}
#endif
#endif
