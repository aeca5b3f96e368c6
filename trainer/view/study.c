/* view/study.c - pictures and questions in, a folder of graphs, tables and pages out. */
#include <vlens/study.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/data/samples.h"
#include "trainer/image/png.h"
#include "trainer/view/page_data.h"
#include "trainer/view/reading.h"
#include "trainer/view/study_index.h"

typedef struct study {
    const vl_study_inputs *in;
    const vl_observer *observer;
    char *folder;
    vl_config asked; /* the configuration with study.samples as its data; texts borrowed */
    vl_sample_list samples;
    vl_study_index index;
    vl_reading *previous; /* of the sample before, while it may be compared; NULL */
    int64_t previous_sample;
} study;

/* <folder>/<kind>/<name>, in a buffer of the caller; "" when it does not fit, which then fails as a path. */
static const char *file_of(char path[4096], const study *s, const char *name)
{
    int n = snprintf(path, 4096, "%s/%s", s->folder, name);
    return n > 0 && n < 4096 ? path : "";
}

/* What a study writes, it may write again; a page of another program it leaves alone. */
static vl_status claim(const study *s, vl_error *err)
{
    static const char *const names[] = {"index.html", "study.json", "eval.json", "report.html"};
    char path[4096];
    json_t *old = NULL;
    const char *format = NULL;
    file_of(path, s, "study.json");
    bool ours = vl_path_exists(path) && vl_json_read(&old, path, 256 << 20, NULL) == VL_OK &&
                vl_json_string(&format, old, "format", path, NULL) == VL_OK && format && !strcmp(format, "vlens-study");
    json_decref(old);
    for (size_t i = 0; !ours && i < sizeof names / sizeof names[0]; i++)
        if (vl_path_exists(file_of(path, s, names[i])))
            return vl_fail(err, VL_EMISMATCH,
                           "%s: exists, and no study.json of vlens lies beside it: choose another study.dir, or remove "
                           "it",
                           path);
    return VL_OK;
}

static vl_status make_folders(const study *s, vl_error *err)
{
    static const char *const names[] = {"pages", "graphs", "tables", "pictures", "compare"};
    char path[4096];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        VL_TRY(vl_make_directories(file_of(path, s, names[i]), err));
    return VL_OK;
}

/* ---- the evaluation ---------------------------------------------------------------------------------------- */

static vl_status evaluate(study *s, vl_error *err)
{
    const vl_study_inputs *in = s->in;
    vl_eval_result *result = NULL;
    vl_eval_options options = {.allow_other_model = in->allow_other_model, .allow_seen = in->allow_seen};
    char path[4096];
    vl_status status = VL_OK;
    vl_eval_inputs inputs = {in->config, in->cache, in->lens, in->device};
    VL_GOTO(vl_eval_run(&result, &inputs, &options, s->observer, err));
    VL_GOTO(vl_eval_write(result, file_of(path, s, "eval.json"), err));
    VL_GOTO(vl_eval_write_page(file_of(path, s, "report.html"), result,
                               &(vl_eval_page_options){in->config, in->cache, in->lens}, err));
    VL_GOTO(vl_study_index_eval(&s->index, result, err));
done:
    vl_eval_free(result);
    return status;
}

/* Does the lens read what the model uses? */
static vl_status measure_fidelity(study *s, vl_error *err)
{
    const vl_study_inputs *in = s->in;
    vl_fidelity *result = NULL;
    vl_lens *control = NULL;
    char path[4096];
    vl_status status = VL_OK;
    if (!in->config->study.fidelity)
        return VL_OK;
    if (in->config->fidelity.control)
        VL_GOTO(vl_lens_open(&control, in->config->fidelity.control, err));
    vl_fidelity_inputs inputs = {
        in->config, in->model, in->cache, in->lens, control, in->device, in->allow_other_model, in->allow_seen};
    VL_GOTO(vl_fidelity_run(&result, &inputs, s->observer, err));
    VL_GOTO(vl_fidelity_write(result, file_of(path, s, "fidelity.json"), err));
    VL_GOTO(vl_study_index_fidelity(&s->index, result, err));
done:
    vl_fidelity_free(result);
    vl_lens_close(control);
    return status;
}

/* ---- one question ------------------------------------------------------------------------------------------ */

/* The position that answers: the last of the prompt. */
static int64_t answering(const vl_reading *r)
{
    for (int64_t i = r->n_positions - 1; i >= 0; i--)
        if (r->positions[i].token_class == VL_LAST)
            return i;
    return r->n_positions - 1;
}

static vl_status read_sample(vl_reading **out, const study *s, const vl_sample *sample, vl_error *err)
{
    const vl_config *config = s->in->config;
    vl_reading_options options = {.lens = s->in->lens,
                                  .allow_other_model = s->in->allow_other_model,
                                  .k = config->study.k,
                                  .prompt = sample->prompt};
    vl_sequence *sequence = NULL;
    int32_t *ids = NULL;
    int64_t n_ids = 0;
    vl_status status = vl_sample_ask(&sequence, s->in->model, &s->asked, sample, err);
    if (status == VL_OK && config->study.generate > 0)
        status = vl_model_generate(s->in->model, sequence, config->study.generate, &ids, &n_ids, err);
    if (status == VL_OK && n_ids > 0)
        status = vl_sequence_append(sequence, ids, n_ids, err);
    if (status == VL_OK)
        status = vl_reading_from_model(out, s->in->model, sequence, &options, err);
    vl_release(ids);
    vl_sequence_free(sequence);
    return status;
}

static vl_status write_picture(const char *path, const vl_picture *picture, vl_error *err)
{
    uint8_t *png = NULL;
    size_t n = 0;
    VL_TRY(vl_png_encode(&png, &n, picture->rgb, picture->width, picture->height, err));
    vl_status status = vl_atomic_write(path, png, n, err);
    vl_free(png);
    return status;
}

/* A page that leads to its neighbours and back to the index. */
static vl_status write_page(const study *s, int64_t number, const vl_reading *r, vl_error *err)
{
    char path[4096], name[64], index[64], previous[32], next[32];
    snprintf(name, sizeof name, "pages/%lld.html", (long long)number);
    snprintf(index, sizeof index, "../index.html#q%lld", (long long)number);
    snprintf(previous, sizeof previous, "%lld.html", (long long)number - 1);
    snprintf(next, sizeof next, "%lld.html", (long long)number + 1);
    vl_page_links links = {index, number > 0 ? previous : NULL, number + 1 < s->samples.n ? next : NULL};
    return vl_page_write_linked(file_of(path, s, name), r, &links, err);
}

static vl_status write_sample(const study *s, int64_t number, const vl_reading *r, vl_error *err)
{
    char path[4096], name[64];
    char *csv = NULL;
    VL_TRY(write_page(s, number, r, err));
    snprintf(name, sizeof name, "graphs/%lld.svg", (long long)number);
    VL_TRY(vl_reading_write_svg(file_of(path, s, name), r, answering(r), err));
    if (r->pictures.n > 0 && r->pictures.items[0].rgb) {
        snprintf(name, sizeof name, "pictures/%lld.png", (long long)number);
        VL_TRY(write_picture(file_of(path, s, name), &r->pictures.items[0], err));
    }
    VL_TRY(vl_reading_csv(&csv, r, err));
    snprintf(name, sizeof name, "tables/%lld.csv", (long long)number);
    vl_status status = vl_atomic_write(file_of(path, s, name), csv, strlen(csv), err);
    vl_release(csv);
    return status;
}

/* The same question about the picture before: both on one page. The reading before is used up. */
static vl_status compare(study *s, int64_t i, vl_reading *r, vl_error *err)
{
    const vl_sample *sample = &s->samples.items[i], *before = &s->samples.items[s->previous_sample];
    char path[4096], name[64];
    if (!s->previous || strcmp(sample->prompt, before->prompt) != 0 || sample->n_images != 1 || before->n_images != 1 ||
        !strcmp(sample->images[0], before->images[0]))
        return VL_OK;
    VL_TRY(vl_reading_append(s->previous, r, err));
    snprintf(name, sizeof name, "compare/%lld-%lld.html", (long long)s->previous_sample, (long long)i);
    VL_TRY(vl_page_write_linked(file_of(path, s, name), s->previous, &(vl_page_links){.index = "../index.html"}, err));
    return vl_study_index_compare(&s->index, s->previous_sample, i, err);
}

static vl_status run_sample(study *s, int64_t i, vl_error *err)
{
    const vl_sample *sample = &s->samples.items[i];
    vl_reading *r = NULL;
    vl_status status = read_sample(&r, s, sample, err);
    if (status != VL_OK) {
        vl_reading_free(r);
        return vl_sample_prefix(err, status, &s->samples, sample);
    }
    VL_GOTO(write_sample(s, i, r, err));
    VL_GOTO(vl_study_index_sample(&s->index, &(vl_study_question){sample, i, r, answering(r)}, err));
    VL_GOTO(compare(s, i, r, err));
    vl_reading_free(s->previous);
    s->previous = r->n_positions ? r : NULL; /* a compared one is empty: pairs do not overlap */
    s->previous_sample = i;
    if (r->n_positions)
        r = NULL;
done:
    vl_reading_free(r);
    return status;
}

/* ---- all of it --------------------------------------------------------------------------------------------- */

static vl_status start(study *s, vl_error *err)
{
    const vl_config *config = s->in->config;
    if (!config->study.samples)
        return vl_fail(err, VL_EINVAL, "study.samples is not set: a JSONL of pictures and questions is expected");
    s->folder = config->study.dir ? vl_strdup(config->study.dir) : vl_path_join(config->output, "study");
    if (!s->folder)
        return vl_fail_nomem(err, "study");
    s->asked = *config;
    s->asked.data.samples = config->study.samples;
    s->asked.data.images = config->study.images;
    s->asked.data.text = NULL;
    s->asked.data.max_samples = 0;
    s->asked.data.max_tokens = 0; /* bounds what is cached, not what is asked */
    VL_TRY(vl_samples_read(&s->samples, &s->asked, vl_model_tokenizer(s->in->model), err));
    VL_TRY(claim(s, err));
    VL_TRY(make_folders(s, err));
    return vl_study_index_start(&s->index, s->in, err);
}

static vl_status report(const study *s, int64_t done, vl_error *err)
{
    vl_progress progress = {"study", "questions", done, s->samples.n, (double)NAN};
    if (s->observer && s->observer->progress && s->observer->progress(s->observer->user, &progress))
        return vl_fail(err, VL_ECANCELLED, "interrupted after %lld of %lld questions", (long long)done,
                       (long long)s->samples.n);
    return VL_OK;
}

vl_status vl_study_run(vl_study_summary *out, const vl_study_inputs *inputs, const vl_observer *observer, vl_error *err)
{
    study s = {.in = inputs, .observer = observer};
    char path[4096];
    vl_status status = VL_OK;
    *out = (vl_study_summary){0};
    VL_GOTO(start(&s, err));
    VL_GOTO(evaluate(&s, err));
    VL_GOTO(measure_fidelity(&s, err));
    for (int64_t i = 0; i < s.samples.n; i++) {
        VL_GOTO(report(&s, i, err));
        VL_GOTO(run_sample(&s, i, err));
    }
    VL_GOTO(report(&s, s.samples.n, err));
    VL_GOTO(vl_study_index_write(&s.index, s.folder, err));
    out->n_samples = s.samples.n;
    out->n_comparisons = vl_study_index_comparisons(&s.index);
    snprintf(out->index, sizeof out->index, "%s", file_of(path, &s, "index.html"));
done:
    vl_reading_free(s.previous);
    vl_study_index_clear(&s.index);
    vl_samples_clear(&s.samples);
    vl_free(s.folder);
    return status;
}
