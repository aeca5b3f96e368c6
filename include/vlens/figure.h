/* vlens/figure.h - figures for papers: SVG, PDF or PNG, by the end of the file's name. White paper, a scale that people
 * with and without red-green blindness see alike, a caption that says where every number comes from. A file appears
 * whole or not at all. PDF and PNG need a library that was built with Cairo: VL_EUNSUPPORTED. */
#ifndef VLENS_FIGURE_H
#define VLENS_FIGURE_H

#include <vlens/view.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vl_figure_options {
    const int64_t
        *states; /* [n_states] of the patch map; negative ones count from the end; NULL: five, evenly spread */
    int n_states;
    const char *word;    /* colours are its probability, where the reading holds it; NULL: the top-1 probability */
    bool no_words;       /* leave the tokens off the patches */
    int64_t position;    /* index of the top-k graph; negative ones count from the end */
    const char *picture; /* named in the caption; NULL: not named */
    const char *group;   /* token class of the KL graph; NULL: the first of all-text, all, ... that is there */
} vl_figure_options;

/* The picture at chosen states in a row, a row per lens: colour and, where they can be read, the tokens of patches.
 * VL_EINVAL: no picture whose patches are rows, a state that is not there, a word that the reading does not hold. */
VL_API vl_status vl_figure_patches(const char *path, const vl_reading *reading, const vl_figure_options *options,
                                   vl_error *err);
/* One position: a row per state, a column per rank, both lenses. */
VL_API vl_status vl_figure_topk(const char *path, const vl_reading *reading, const vl_figure_options *options,
                                vl_error *err);
/* KL to the model by state, each lens with its interval, from the JSON that an evaluation wrote (vl_eval_write). */
VL_API vl_status vl_figure_kl(const char *path, const char *eval_json, const vl_figure_options *options, vl_error *err);

#ifdef __cplusplus
}
#endif
#endif
