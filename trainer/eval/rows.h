/* eval/rows.h - which rows are evaluated, in which classes and clusters they count, and which row of another picture
 * each is compared with. */
#ifndef VL_EVAL_ROWS_H
#define VL_EVAL_ROWS_H

#include <vlens/cache.h>
#include <vlens/config.h>

/* Classes, unions of them, rows at the first positions, and the first, second and later tokens of given answers. */
enum {
    VL_GROUP_ALL_TEXT = VL_CLASS_COUNT,
    VL_GROUP_ALL,
    VL_GROUP_FIRST,
    VL_GROUP_ANSWER_1,
    VL_GROUP_ANSWER_2,
    VL_GROUP_ANSWER_3,
    VL_GROUP_COUNT
};

typedef struct vl_eval_rows {
    int64_t n;
    int64_t *row;     /* [n] cache row, ascending */
    int64_t *partner; /* [n] the same position of another picture with the same prompt, or -1 */
    uint8_t *group;   /* [n] the finest group: its class, VL_GROUP_FIRST, or the position in an answer */
    int32_t *cluster; /* [n] */
    int64_t n_clusters;
    int64_t n_partners;
} vl_eval_rows;

/* Rows of eval.split (at most eval.max_tokens, whole samples from the front). */
vl_status vl_eval_rows_select(vl_eval_rows *out, const vl_config *config, const vl_cache *cache, vl_error *err);
void vl_eval_rows_clear(vl_eval_rows *rows);
/* Whether a row of finest group `group` counts in `target`. */
bool vl_eval_group_holds(int target, int group);
const char *vl_eval_group_name(int group);

#endif
