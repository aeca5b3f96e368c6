/* view/study_index.h - what a study found, as study.json and as the page over its folder. */
#ifndef VL_VIEW_STUDY_INDEX_H
#define VL_VIEW_STUDY_INDEX_H

#include <jansson.h>
#include <vlens/fidelity.h>
#include <vlens/study.h>

#include "trainer/data/samples.h"

typedef struct vl_study_index {
    json_t *root; /* becomes study.json */
} vl_study_index;

/* A question that was read. */
typedef struct vl_study_question {
    const vl_sample *sample;
    int64_t number;
    const vl_reading *reading;
    int64_t position; /* the one that answers */
} vl_study_question;

vl_status vl_study_index_start(vl_study_index *index, const vl_study_inputs *inputs, vl_error *err);
void vl_study_index_clear(vl_study_index *index);
vl_status vl_study_index_eval(vl_study_index *index, const vl_eval_result *result, vl_error *err);
vl_status vl_study_index_fidelity(vl_study_index *index, const vl_fidelity *fidelity, vl_error *err);
vl_status vl_study_index_sample(vl_study_index *index, const vl_study_question *question, vl_error *err);
vl_status vl_study_index_compare(vl_study_index *index, int64_t first, int64_t second, vl_error *err);
int64_t vl_study_index_comparisons(const vl_study_index *index);
/* study.json and index.html into the folder; then what an earlier run wrote there and this one did not is removed. */
vl_status vl_study_index_write(const vl_study_index *index, const char *folder, vl_error *err);
/* The names of the pages, graphs, tables and pictures that a study.json lists, as keys; empty where it is none. */
json_t *vl_study_stale_list(const char *index_path);
/* Removes those of `before` that `index` does not list. Only names that a study gives are ever removed. */
vl_status vl_study_stale_remove(const char *folder, const json_t *before, const json_t *index, vl_error *err);

#endif
