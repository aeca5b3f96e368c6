/* view/reading.h - a reading in memory. */
#ifndef VL_VIEW_READING_H
#define VL_VIEW_READING_H

#include <vlens/view.h>

#include "trainer/base/str.h"
#include "trainer/view/attention.h"
#include "trainer/view/picture.h"

/* Every token that is among the top k at some state of one position, through all states. */
typedef struct vl_trajectories {
    int64_t n;
    int32_t *ids;       /* [n] */
    float *probability; /* [n, n_states] */
} vl_trajectories;

struct vl_reading {
    int64_t n_states, n_positions, k, d, vocab_size;
    bool has_lens;
    int n_parts; /* 1 + the readings that were appended */
    char *model_id, *prompt;
    char *answer, *lens_path; /* "" where unknown or without a lens */
    vl_pictures pictures;
    vl_attention_map attention; /* where cross-attention blocks look; empty for other models and for caches */
    char warning[256];
    vl_reading_position *positions; /* [n_positions]; pieces borrowed from `pieces` */
    int32_t *ids;                   /* [lenses, n_positions, n_states, k] */
    float *probability;             /* the same */
    float *entropy, *kl;            /* [lenses, n_positions, n_states] */
    int32_t *tracked;               /* [n_tracked] */
    int64_t n_tracked;
    float *tracked_probability;    /* [lenses, n_positions, n_states, n_tracked] */
    vl_trajectories *trajectories; /* [n_positions], of the tuned lens where there is one; NULL where not asked for */
    char **pieces;                 /* [vocab_size], NULL where the token does not occur */
};

/* Where a reading comes from while it is made. */
typedef struct vl_reading_source {
    vl_head *head;
    vl_cache *cache; /* rows[n_positions] of it; or NULL: */
    const int64_t *rows;
    const float *const *memory;                   /* [n_states] of [n_positions, D] on the host */
    const char *(*piece)(void *user, int32_t id); /* NULL where unknown */
    void *user;
} vl_reading_source;

/* Tells an observer, which may be NULL, of `done` of `total`. VL_ECANCELLED where it asks to stop. */
vl_status vl_reading_report(const vl_observer *observer, const char *stage, int64_t done, int64_t total, vl_error *err);
/* Fills cells and pieces of a reading whose sizes and positions are set. */
vl_status vl_reading_fill(vl_reading *reading, const vl_reading_source *source, const vl_reading_options *options,
                          vl_error *err);
/* Finds the tokens that the words of the options are, with a space in front or without, and makes room for them.
 * Error: VL_EINVAL (no single token is that word). */
vl_status vl_reading_track(vl_reading *reading, const vl_reading_source *source, const vl_reading_options *options,
                           vl_error *err);
/* Lists the tokens of positions [first, first + n), whose cells are filled; then takes their probabilities at one state
 * from logits [n, vocab_size] and their logarithms of sums [n]. */
vl_status vl_trajectories_start(vl_reading *reading, int64_t first, int64_t n, vl_error *err);
void vl_trajectories_put(vl_reading *reading, int64_t first, int64_t n, int64_t state, const float *logits,
                         const float *lse);
void vl_trajectories_free(vl_reading *reading);
/* A token made fit for a line of text: no control characters, spaces shown, cut to `width` columns, padded. */
void vl_put_token(vl_str *out, const char *piece, int width);
/* Allocates for sizes already set. */
vl_status vl_reading_alloc(vl_reading *reading, vl_error *err);

#endif
