/* vlens/study.h - the whole study in one folder: how far every layer's lens is from the model, and for a list of
 * pictures and questions what every layer would answer, as graphs, tables and pages, with an index page over it. */
#ifndef VLENS_STUDY_H
#define VLENS_STUDY_H

#include <vlens/view.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vl_study_inputs { /* all borrowed */
    const vl_config *config;     /* study.*: what is asked, and where it goes */
    vl_model *model;
    vl_cache *cache;
    vl_lens *lens;
    vl_device *device;
    bool allow_other_model;
    bool allow_seen; /* as in vl_eval_options */
} vl_study_inputs;

typedef struct vl_study_summary {
    int64_t n_samples, n_comparisons;
    char index[4096]; /* path of the index page */
} vl_study_summary;

/* Writes <study.dir> (empty: <output>/study):
 *   index.html, study.json            what was asked, what came out, where it lies
 *   report.html, eval.json            the evaluation on held-out rows
 *   fidelity.json                     with study.fidelity
 *   pages/N.html graphs/N.svg tables/N.csv pictures/N.png   per line of study.samples, N from 0
 *   compare/N-M.html                  neighbouring lines that ask the same of different pictures
 * Files appear whole or not at all; those of an earlier run are replaced, or removed where this one has none. Errors:
 * VL_EINVAL (no study.samples), those of vl_eval_run and vl_reading_from_model, VL_ECANCELLED. */
VL_API vl_status vl_study_run(vl_study_summary *out, const vl_study_inputs *inputs, const vl_observer *observer,
                              vl_error *err);

#ifdef __cplusplus
}
#endif
#endif
