#include "trainer/view/study_index.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vlens/memory.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/base/version.h"
#include "trainer/view/json_text.h"
#include "trainer/view/reading.h"
#include "trainer/view/template.h"

vl_status vl_study_index_start(vl_study_index *index, const vl_study_inputs *inputs, vl_error *err)
{
    const vl_model_info *model = vl_model_get_info(inputs->model);
    index->root = json_pack("{s:s, s:i, s:s, s:o, s:s, s:o, s:I, s:o, s:o}", "format", "vlens-study", "version", 1,
                            "vlens", VLENS_VERSION, "model", vl_json_text(model->path), "model_type", model->model_type,
                            "lens", vl_json_text(vl_lens_get_info(inputs->lens)->path), "n_states",
                            (json_int_t)model->n_layers + 1, "questions", json_array(), "compare", json_array());
    return index->root ? VL_OK : vl_fail_nomem(err, "study");
}

void vl_study_index_clear(vl_study_index *index)
{
    json_decref(index->root);
    index->root = NULL;
}

/* ---- the evaluation, in short ------------------------------------------------------------------------------ */

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* KL per state of the lenses that are there, for one class. */
static json_t *class_json(const vl_eval_result *result, int group)
{
    vl_eval_group info = vl_eval_get_group(result, group);
    json_t *object = json_pack("{s:s, s:I, s:I}", "class", info.name, "rows", (json_int_t)info.rows, "clusters",
                               (json_int_t)info.clusters);
    for (vl_eval_lens lens = 0; lens < VL_EVAL_LENS_COUNT; lens++) {
        json_t *kl = json_array();
        bool any = false;
        for (int64_t s = 0; s <= vl_eval_n_layers(result); s++) {
            vl_eval_cell cell = vl_eval_get_cell(result, group, s, lens);
            any |= cell.rows > 0;
            json_array_append_new(kl, cell.rows ? number(cell.kl.mean) : json_null());
        }
        if (any)
            json_object_set(object, vl_eval_lens_name(lens), kl);
        json_decref(kl);
    }
    return object;
}

vl_status vl_study_index_eval(vl_study_index *index, const vl_eval_result *result, vl_error *err)
{
    json_t *classes = json_array();
    for (int g = 0; g < vl_eval_n_groups(result); g++)
        json_array_append_new(classes, class_json(result, g));
    return json_object_set_new(index->root, "kl", classes) == 0 ? VL_OK : vl_fail_nomem(err, "study");
}

/* What fidelity.json says, without the numbers of single directions. */
vl_status vl_study_index_fidelity(vl_study_index *index, const vl_fidelity *fidelity, vl_error *err)
{
    static const char *const details[] = {"lens_kl", "model_kl", "displacement"};
    char *text = NULL;
    const char *lens;
    json_t *root = NULL, *cell;
    VL_TRY(vl_fidelity_json(&text, fidelity, err));
    vl_status status = vl_json_parse(&root, text, strlen(text), "fidelity", err);
    vl_release(text);
    json_t *states = json_object_get(root, "states");
    for (size_t i = 0; i < json_array_size(states); i++)
        json_object_foreach(json_array_get(states, i), lens, cell) for (size_t k = 0;
                                                                        k < sizeof details / sizeof details[0]; k++)
            json_object_del(cell, details[k]);
    if (status == VL_OK && json_object_set(index->root, "fidelity", root) != 0)
        status = vl_fail_nomem(err, "study");
    json_decref(root);
    return status;
}

/* ---- questions --------------------------------------------------------------------------------------------- */

/* The lowest state from which on a lens keeps the model's own first token: how early the answer can be read. */
static int64_t settled(const vl_reading *r, int64_t position, bool tuned)
{
    int64_t last = r->n_states - 1, state = last;
    int32_t answer = vl_reading_get_cell(r, position, last, tuned).ids[0];
    while (state > 0 && vl_reading_get_cell(r, position, state - 1, tuned).ids[0] == answer)
        state--;
    return state;
}

static json_t *path_of(const vl_reading *r, int64_t position, bool tuned)
{
    json_t *path = json_array();
    for (int64_t s = 0; s < r->n_states; s++) {
        vl_reading_cell cell = vl_reading_get_cell(r, position, s, tuned);
        json_array_append_new(path,
                              json_pack("{s:o, s:o, s:o}", "token", vl_json_text(vl_reading_piece(r, cell.ids[0])), "p",
                                        number((double)cell.probability[0]), "kl", number((double)cell.kl)));
    }
    return json_pack("{s:I, s:o}", "settled", (json_int_t)settled(r, position, tuned), "states", path);
}

/* What the model went on to say, without special tokens. */
static json_t *said(const vl_reading *r)
{
    vl_str text = VL_STR_INIT;
    for (int64_t i = 0; i < r->n_positions; i++) {
        const char *piece = r->positions[i].piece;
        size_t n = strlen(piece);
        if (r->positions[i].token_class == VL_GENERATED && !(n > 2 && piece[0] == '<' && piece[n - 1] == '>'))
            vl_str_puts(&text, piece);
    }
    const char *at = text.data ? text.data : "";
    json_t *json = vl_json_text(at + strspn(at, " \n"));
    vl_str_clear(&text);
    return json;
}

vl_status vl_study_index_sample(vl_study_index *index, const vl_study_question *q, vl_error *err)
{
    const vl_reading *r = q->reading;
    char page[64], graph[64], table[64], picture[64] = "";
    long long n = q->number;
    snprintf(page, sizeof page, "pages/%lld.html", n);
    snprintf(graph, sizeof graph, "graphs/%lld.svg", n);
    snprintf(table, sizeof table, "tables/%lld.csv", n);
    if (r->pictures.n > 0 && r->pictures.items[0].rgb)
        snprintf(picture, sizeof picture, "pictures/%lld.png", n);
    json_t *images = json_array();
    for (int i = 0; i < q->sample->n_images; i++)
        json_array_append_new(images, vl_json_text(q->sample->images[i]));
    json_t *entry = json_pack("{s:I, s:o, s:o, s:o, s:o, s:s, s:s, s:s, s:s, s:o, s:o}", "number", (json_int_t)n,
                              "prompt", vl_json_text(q->sample->prompt), "images", images, "expected",
                              vl_json_text(q->sample->answer ? q->sample->answer : ""), "said", said(r), "page", page,
                              "graph", graph, "table", table, "picture", picture, "logit",
                              path_of(r, q->position, false), "tuned", path_of(r, q->position, true));
    if (!entry || json_array_append_new(json_object_get(index->root, "questions"), entry) != 0)
        return vl_fail_nomem(err, "study");
    return VL_OK;
}

vl_status vl_study_index_compare(vl_study_index *index, int64_t first, int64_t second, vl_error *err)
{
    char page[64];
    snprintf(page, sizeof page, "compare/%lld-%lld.html", (long long)first, (long long)second);
    json_t *entry =
        json_pack("{s:I, s:I, s:s}", "first", (json_int_t)first, "second", (json_int_t)second, "page", page);
    int failed = json_array_append_new(json_object_get(index->root, "compare"), entry);
    return failed ? vl_fail_nomem(err, "study") : VL_OK;
}

int64_t vl_study_index_comparisons(const vl_study_index *index)
{
    return (int64_t)json_array_size(json_object_get(index->root, "compare"));
}

/* ---- files ------------------------------------------------------------------------------------------------- */

static vl_status put_data(vl_str *out, const void *user, vl_error *err)
{
    char *text = json_dumps(user, JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (!text)
        return vl_fail_nomem(err, "study");
    vl_template_put_json(out, text);
    vl_free(text);
    return VL_OK;
}

vl_status vl_study_index_write(const vl_study_index *index, const char *folder, vl_error *err)
{
    char *json = vl_path_join(folder, "study.json"), *page = vl_path_join(folder, "index.html"), *text = NULL;
    json_t *before = NULL;
    vl_status status = VL_OK;
    if (!json || !page)
        VL_GOTO(vl_fail_nomem(err, "study"));
    before = vl_study_stale_list(json);
    VL_GOTO(vl_json_write(json, index->root, err));
    VL_GOTO(vl_template_fill(&text, "study.html", put_data, index->root, err));
    VL_GOTO(vl_atomic_write(page, text, strlen(text), err));
    VL_GOTO(vl_study_stale_remove(folder, before, index->root, err));
done:
    json_decref(before);
    vl_free(json);
    vl_free(page);
    vl_release(text);
    return status;
}
