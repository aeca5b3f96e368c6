/* view/page_paths.c - the whole paths of a page's words: their probability at every state, also where they are not
 * among the top k. */
#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/view/base64.h"
#include "trainer/view/page_data.h"

/* A path with its peak, to keep the highest of a position. */
typedef struct ranked {
    int64_t j;
    float peak;
} ranked;

static int by_peak(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    return x->peak != y->peak ? (x->peak < y->peak) - (x->peak > y->peak) : (x->j > y->j) - (x->j < y->j);
}

/* order: [t->n], falling by peak. */
static void rank(ranked *order, const vl_trajectories *t, int64_t n_states)
{
    for (int64_t j = 0; j < t->n; j++) {
        order[j] = (ranked){j, 0};
        for (int64_t s = 0; s < n_states; s++)
            if (t->probability[j * n_states + s] > order[j].peak)
                order[j].peak = t->probability[j * n_states + s];
    }
    qsort(order, (size_t)t->n, sizeof *order, by_peak);
}

static void put_integer(vl_str *out, uint32_t value, int width)
{
    for (int i = 0; i < width; i++)
        vl_str_putc(out, (char)(value >> 8 * i));
}

static json_t *packed(const vl_str *bytes)
{
    vl_str text = VL_STR_INIT;
    vl_base64_put(&text, (const uint8_t *)(bytes->data ? bytes->data : ""), bytes->size);
    json_t *json = text.failed || bytes->failed ? NULL : json_string(text.data ? text.data : "");
    vl_str_clear(&text);
    return json;
}

json_t *vl_page_paths(const vl_reading *r, const int32_t *index, int index_bytes)
{
    int64_t most = VL_PAGE_PATH_NUMBERS / (r->n_positions * r->n_states + 1), widest = 1;
    vl_str tokens = VL_STR_INIT, p = VL_STR_INIT;
    json_t *counts = json_array();
    most = most < VL_PAGE_LEAST_PATHS ? VL_PAGE_LEAST_PATHS : most;
    for (int64_t i = 0; i < r->n_positions; i++)
        widest = r->trajectories[i].n > widest ? r->trajectories[i].n : widest;
    ranked *order = vl_alloc((size_t)widest, sizeof *order);
    for (int64_t i = 0; order && i < r->n_positions; i++) {
        const vl_trajectories *t = &r->trajectories[i];
        int64_t n = t->n < most ? t->n : most;
        rank(order, t, r->n_states);
        json_array_append_new(counts, json_integer((json_int_t)n));
        for (int64_t k = 0; k < n; k++) {
            int64_t j = order[k].j;
            put_integer(&tokens, (uint32_t)index[t->ids[j]], index_bytes);
            for (int64_t s = 0; s < r->n_states; s++)
                put_integer(&p, vl_page_code(t->probability[j * r->n_states + s], VL_PAGE_LOWEST_P), 2);
        }
    }
    json_t *json = order ? json_pack("{s:o, s:o, s:o}", "counts", counts, "tokens", packed(&tokens), "p", packed(&p))
                         : (json_decref(counts), NULL);
    vl_free(order);
    vl_str_clear(&tokens);
    vl_str_clear(&p);
    return json;
}
