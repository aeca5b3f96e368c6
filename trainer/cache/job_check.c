/* The check pass: every sample is read as far as it can be without running the model (JSON, pictures, tokens), so that
 * all that is wrong is known, as one list, before the first one is run. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/cache/job.h"
#include "trainer/image/image.h"

enum { BLOCK = 256, LISTED = 1000 }; /* things checked between two reports; faults that are shown one by one */

/* One image of one sample; sorted by path so that each file is read once. */
typedef struct use {
    const char *path;
    int64_t sample;
} use;

typedef struct check {
    vl_cache_job *job;
    use *uses; /* [n_uses] by path */
    int64_t n_uses;
    int64_t *file;  /* [n_files + 1] the first use of each file */
    char **problem; /* [n_files] why it cannot be read, or NULL */
    int64_t n_files;
    char **reason;   /* [S] why the sample cannot be used, or NULL */
    bool *tolerated; /* [S] too long, and data.too_long leaves those out */
} check;

static int by_path(const void *a, const void *b)
{
    const use *x = a, *y = b;
    int order = strcmp(x->path, y->path);
    return order ? order : (x->sample > y->sample) - (x->sample < y->sample);
}

static vl_status list_pictures(check *c, vl_error *err)
{
    vl_cache_job *job = c->job;
    for (int64_t i = 0; i < job->samples.n; i++)
        c->n_uses += job->samples.items[i].n_images;
    size_t n = (size_t)c->n_uses + 1;
    c->uses = vl_alloc(n, sizeof *c->uses);
    c->file = vl_alloc(n, sizeof *c->file);
    c->problem = vl_calloc(n, sizeof *c->problem);
    if (!c->uses || !c->file || !c->problem)
        return vl_fail_nomem(err, "list of pictures");
    int64_t at = 0;
    for (int64_t i = 0; i < job->samples.n; i++)
        for (int k = 0; k < job->samples.items[i].n_images; k++, at++)
            c->uses[at] = (use){job->samples.items[i].images[k], i};
    qsort(c->uses, (size_t)c->n_uses, sizeof *c->uses, by_path);
    for (int64_t i = 0; i < c->n_uses; i++)
        if (i == 0 || strcmp(c->uses[i].path, c->uses[i - 1].path) != 0)
            c->file[c->n_files++] = i;
    c->file[c->n_files] = c->n_uses;
    return VL_OK;
}

/* The message of an error without the path in front, which the fault says already. Out of memory: NULL. */
static char *copy_reason(const vl_error *err)
{
    return vl_strdup(err->message[0] ? err->message : "unknown");
}

static void check_picture(check *c, int64_t file)
{
    const vl_config *config = c->job->config;
    vl_error err = VL_ERROR_INIT;
    vl_image image;
    vl_image_options options = {.apply_exif = config->data.exif, .max_pixels = config->data.max_pixels};
    if (vl_image_open(&image, c->uses[c->file[file]].path, &options, &err) != VL_OK)
        c->problem[file] = copy_reason(&err);
    vl_image_clear(&image);
}

static vl_status check_pictures(check *c, vl_error *err)
{
    VL_TRY(list_pictures(c, err));
    for (int64_t first = 0; first < c->n_files; first += BLOCK) {
        int64_t end = first + BLOCK < c->n_files ? first + BLOCK : c->n_files;
#pragma omp parallel for schedule(dynamic)
        for (int64_t i = first; i < end; i++)
            check_picture(c, i);
        VL_TRY(vl_job_progress(c->job, "pictures", "pictures", end, c->n_files, err));
    }
    for (int64_t i = 0; i < c->n_files; i++)
        for (int64_t u = c->file[i]; u < c->file[i + 1]; u++) {
            char **reason = &c->reason[c->uses[u].sample];
            if (c->problem[i] && !*reason && !(*reason = vl_strdup(c->problem[i])))
                return vl_fail_nomem(err, "bad samples");
        }
    return VL_OK;
}

static void check_sample(check *c, int64_t i)
{
    const vl_cache_job *job = c->job;
    vl_error err = VL_ERROR_INIT;
    vl_status status = VL_OK;
    if (c->reason[i])
        return;
    if (job->samples.items[i].n_images > 0 && !job->info->sees_images)
        status =
            vl_fail(&err, VL_EFORMAT, "an image, but %s is a text model (%s)", job->info->path, job->info->model_type);
    else
        status = vl_job_count_sample(c->job, i, &err);
    if (status == VL_OK)
        return;
    c->tolerated[i] = status == VL_ELENGTH && job->config->data.too_long == VL_LONG_SKIP;
    c->reason[i] = copy_reason(&err);
}

static vl_status check_samples(check *c, vl_error *err)
{
    int64_t n = c->job->samples.n;
    for (int64_t first = 0; first < n; first += BLOCK) {
        int64_t end = first + BLOCK < n ? first + BLOCK : n;
#pragma omp parallel for schedule(dynamic)
        for (int64_t i = first; i < end; i++)
            check_sample(c, i);
        VL_TRY(vl_job_progress(c->job, "count", "samples", end, n, err));
    }
    return VL_OK;
}

/* ---- what comes of it -------------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    const vl_fault *x = a, *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

static void show(char *out, size_t size, const vl_sample_list *list, const vl_fault *fault)
{
    if (list->is_text || fault->line == 0)
        snprintf(out, size, "%s: %s %lld: %s", list->path, list->is_text ? "window" : "sample",
                 (long long)fault->number, fault->reason);
    else
        snprintf(out, size, "%s:%lld: %s", list->path, (long long)fault->line, fault->reason);
}

/* All faults, one message each, and an error that counts them. */
static vl_status refuse(const vl_cache_job *job, int64_t n_samples, vl_error *err)
{
    const vl_sample_list *list = &job->samples;
    char line[VL_ERROR_MESSAGE_SIZE];
    if (list->n_faults == 1) {
        show(line, sizeof line, list, &list->faults[0]);
        return vl_fail(err, VL_EFORMAT, "%s", line);
    }
    for (int64_t i = 0; i < list->n_faults && i < LISTED && vl_team_rank(job->team) == 0; i++) {
        show(line, sizeof line, list, &list->faults[i]);
        vl_job_message(job, true, "%s", line);
    }
    show(line, 300, list, &list->faults[0]);
    return vl_fail(err, VL_EFORMAT, "%lld bad samples of %lld (data.bad_samples: skip leaves them out), the first: %s",
                   (long long)list->n_faults, (long long)n_samples, line);
}

/* Takes the samples with a reason out of all arrays. */
static void drop(vl_cache_job *job, const bool *dropped)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < job->samples.n; i++) {
        if (dropped[i])
            continue;
        job->n_forward[kept] = job->n_forward[i];
        memcpy(job->available[kept++], job->available[i], sizeof job->available[i]);
    }
    vl_samples_drop(&job->samples, dropped);
}

static vl_status settle(check *c, vl_error *err)
{
    vl_cache_job *job = c->job;
    vl_sample_list *list = &job->samples;
    int64_t n = list->n, total = n + list->n_faults, fatal = list->n_faults;
    bool *dropped = vl_calloc((size_t)n + 1, sizeof *dropped);
    vl_status status = dropped ? VL_OK : vl_fail_nomem(err, "bad samples");
    for (int64_t i = 0; i < n && status == VL_OK; i++) {
        if (!c->reason[i])
            continue;
        dropped[i] = true;
        fatal += !c->tolerated[i];
        status = vl_samples_add_fault(list, list->items[i].number, list->items[i].line, c->reason[i], err);
    }
    if (status == VL_OK && list->n_faults > 0) {
        qsort(list->faults, (size_t)list->n_faults, sizeof *list->faults, by_number);
        if (fatal > 0 && job->config->data.bad_samples == VL_BAD_STOP)
            status = refuse(job, total, err);
        else if (list->n_faults == total)
            status = refuse(job, total, err); /* nothing is left */
    }
    if (status == VL_OK && list->n_faults > 0) {
        drop(job, dropped);
        if (vl_team_rank(job->team) == 0)
            vl_job_message(job, true, "%lld of %lld samples are left out: %s/skipped.jsonl has the reasons",
                           (long long)list->n_faults, (long long)total, job->directory);
    }
    vl_free(dropped);
    return status;
}

vl_status vl_job_check(vl_cache_job *job, vl_error *err)
{
    vl_status status = VL_OK;
    check c = {.job = job};
    size_t n = (size_t)job->samples.n + 1;
    c.reason = vl_calloc(n, sizeof *c.reason);
    c.tolerated = vl_calloc(n, sizeof *c.tolerated);
    job->n_forward = vl_calloc(n, sizeof *job->n_forward);
    job->available = vl_calloc(n, sizeof *job->available);
    if (!c.reason || !c.tolerated || !job->n_forward || !job->available)
        VL_GOTO(vl_fail_nomem(err, "check of the samples"));
    VL_GOTO(check_pictures(&c, err));
    VL_GOTO(check_samples(&c, err));
    VL_GOTO(settle(&c, err));
done:
    for (int64_t i = 0; c.problem && i < c.n_files; i++)
        vl_free(c.problem[i]);
    for (size_t i = 0; c.reason && i < n; i++)
        vl_free(c.reason[i]);
    vl_free(c.uses);
    vl_free(c.file);
    vl_free(c.problem);
    vl_free(c.reason);
    vl_free(c.tolerated);
    return status;
}

/* ---- skipped.jsonl ----------------------------------------------------------------------------------------- */

vl_status vl_job_write_skipped(const vl_cache_job *job, vl_error *err)
{
    vl_str text = VL_STR_INIT;
    char *path = vl_path_join(job->directory, "skipped.jsonl");
    vl_status status = path ? VL_OK : vl_fail_nomem(err, "skipped.jsonl");
    for (int64_t i = 0; i < job->samples.n_faults && status == VL_OK; i++) {
        const vl_fault *fault = &job->samples.faults[i];
        json_t *row = json_pack("{s:I, s:I, s:s}", "sample", (json_int_t)fault->number, "line", (json_int_t)fault->line,
                                "reason", fault->reason);
        char *line = row ? json_dumps(row, JSON_COMPACT) : NULL;
        json_decref(row);
        if (!line)
            status = vl_fail_nomem(err, "skipped.jsonl");
        vl_str_puts(&text, line ? line : "");
        vl_str_putc(&text, '\n');
        vl_free(line);
    }
    if (status == VL_OK && job->samples.n_faults == 0)
        remove(path); /* of an earlier run */
    else if (status == VL_OK)
        status = text.failed ? vl_fail_nomem(err, "skipped.jsonl") : vl_atomic_write(path, text.data, text.size, err);
    vl_str_clear(&text);
    vl_free(path);
    return status;
}
