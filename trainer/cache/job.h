/* cache/job.h - one caching run: what is known before the model runs, and the steps that build.c calls in order. */
#ifndef VL_CACHE_JOB_H
#define VL_CACHE_JOB_H

#include <vlens/cache.h>

#include "trainer/base/team.h"
#include "trainer/cache/meta.h"
#include "trainer/cache/queue.h"
#include "trainer/cache/store.h"
#include "trainer/data/samples.h"
#include "trainer/model/head.h"

typedef struct vl_cache_job {
    const vl_config *config;
    vl_model *model;
    const vl_model_info *info;
    const vl_observer *observer;
    char *directory;
    vl_cache_meta meta;  /* texts owned; with settings */
    vl_head_source head; /* points into the model */
    vl_sample_list samples;
    bool has_answers;
    char *data_settings; /* beside meta.settings: what the samples are made from (facts of the index alone) */
    /* Filled by vl_job_split. */
    char (*hashes)[65];                 /* [distinct image paths] */
    const char **image_hash;            /* [images of all samples, in order] */
    int64_t *image_bytes, *image_mtime; /* [images of all samples] of the files */
    int64_t *first_image;               /* [S] of a sample in image_hash */
    char (*keys)[65];                   /* [S] data/key.h */
    vl_image_table indexed_images;      /* of the index that lies there: hashes that need not be computed again */
    int64_t n_images;                   /* distinct by hash */
    int64_t n_heldout_images;
    uint8_t *heldout; /* [S] */
    /* Filled by vl_job_open_store and vl_job_match. */
    vl_store store;          /* the whole shards of the folder */
    vl_sample_place *places; /* [S] where a sample lies; shard -1: nowhere */
    int64_t *missing;        /* [n_missing] samples that lie nowhere, in order */
    int64_t n_missing;
    /* Filled by vl_job_check. */
    int64_t *n_forward;                   /* [S] rows that run; tokens to be generated are counted in full */
    int64_t (*available)[VL_CLASS_COUNT]; /* [S] rows that could be kept, by class */
    int64_t n_rows;                       /* kept, of all of them */
    int64_t chunk_rows;
    struct vl_shard_range *shards; /* [n_shards] to be made */
    int64_t n_shards;
    const vl_team *team;
    /* For progress. */
    double reported;
    int64_t done, total;
} vl_cache_job;

/* Everything that takes no pass over the data: head, settings, directory. */
vl_status vl_job_open(vl_cache_job *out, const vl_config *config, vl_model *model, const vl_observer *observer,
                      vl_error *err);
void vl_job_close(vl_cache_job *job);
/* VL_EMISMATCH that names `path` and the first key that `stored` (the settings of a cache file; NULL: it has none) has
 * otherwise. */
vl_status vl_job_check_settings(const vl_cache_job *job, const char *path, const char *stored, vl_error *err);
/* The same for an index of version 1, which has its data and its split in it. */
struct vl_cache;
vl_status vl_job_check_first_version(const vl_cache_job *job, const struct vl_cache *cache, vl_error *err);
/* The model's digest, manifest and rules into job->meta. It is hashed in the background from vl_job_open on. */
vl_status vl_job_identify(vl_cache_job *job, vl_error *err);
/* VL_EMISMATCH that names `path` and the first tensor or key in which the model of a cache file differs. */
vl_status vl_job_check_model(vl_cache_job *job, const char *path, const vl_cache_meta *meta, vl_error *err);
/* Reads the samples. */
vl_status vl_job_read(vl_cache_job *job, vl_error *err);
/* Reads all samples as far as that goes without running the model: pictures are decoded, turns tokenised, rows counted.
 * All faults are reported as messages, line by line; then VL_EFORMAT, or (data.bad_samples: skip) the samples are left
 * out. Fills n_forward and available. */
vl_status vl_job_check(vl_cache_job *job, vl_error *err);
/* n_forward and available of one sample; safe from several threads for different samples. */
vl_status vl_job_count_sample(vl_cache_job *job, int64_t sample, vl_error *err);
/* Writes <directory>/skipped.jsonl: number, line and reason of each sample that was left out. */
vl_status vl_job_write_skipped(const vl_cache_job *job, vl_error *err);
/* Hashes the images, those whose size and time are as a shard or the index remembers excepted, makes the keys, and
 * decides which samples are held out. */
vl_status vl_job_split(vl_cache_job *job, vl_error *err);
/* Adds up the rows of the missing samples. */
vl_status vl_job_count(vl_cache_job *job, vl_error *err);
void vl_job_plan(vl_cache_plan *out, const vl_cache_job *job);
/* Rows of a sample that are kept. */
int64_t vl_job_kept(const vl_cache_job *job, int64_t sample, const int64_t limits[VL_CLASS_COUNT]);
/* cache.max_bytes, and room on the disk for what is still to be written. */
vl_status vl_job_check_space(const vl_cache_job *job, vl_error *err);

void vl_job_message(const vl_cache_job *job, bool is_warning, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Reports at most a few times a second (always at the end). VL_ECANCELLED where the callback asks to stop. */
vl_status vl_job_progress(vl_cache_job *job, const char *stage, const char *unit, int64_t done, int64_t total,
                          vl_error *err);

/* ---- files of earlier runs (resume.c) ---------------------------------------------------------------------- */

/* Puts shards and index away by their names, and removes what a killed run left half-written; with `only_temporary`
 * that alone. */
vl_status vl_job_clear_folder(const vl_cache_job *job, bool only_temporary, vl_error *err);
/* Whether a whole cache made with the same settings lies there; then *plan (may be NULL) is what it holds. Another one
 * is VL_EMISMATCH. */
vl_status vl_job_find_whole(bool *found, vl_cache_plan *plan, vl_cache_job *job, vl_error *err);

/* ---- whose a file is (owner.c) ----------------------------------------------------------------------------- */

/* Whether vlens cache wrote a file. Errors: VL_EBUSY (locked), VL_EIO. */
vl_status vl_cache_is_ours(bool *ours, const char *path, vl_error *err);
/* Removes a file that vlens cache wrote; moves any other aside, and says so. */
vl_status vl_job_put_away(const vl_cache_job *job, const char *path, vl_error *err);
/* Whether any shard of the folder is one that vlens cache wrote. */
vl_status vl_job_folder_is_ours(bool *ours, const vl_cache_job *job, vl_error *err);

/* ---- shards (shards.c) ------------------------------------------------------------------------------------- */

/* Looks which shards of the folder are whole. One of another cache is VL_EMISMATCH. */
vl_status vl_job_open_store(vl_cache_job *job, vl_error *err);
/* Looks which samples they hold. */
vl_status vl_job_match(vl_cache_job *job, vl_error *err);

/* Where a shard ends follows from the counts before the run, so that it depends neither on what earlier shards came
 * to hold nor on who makes them. */
typedef struct vl_shard_range {
    int64_t first, n; /* in job->missing */
    int64_t number;   /* in its name */
    int maker;        /* the member that makes it: they take them in turn */
} vl_shard_range;
/* Cuts the missing samples into shards. */
vl_status vl_job_cut(vl_cache_job *job, vl_error *err);

/* ---- the forward pass (batch.c) ---------------------------------------------------------------------------- */

typedef struct vl_batch vl_batch;
vl_status vl_batch_new(vl_batch **out, vl_cache_job *job, vl_error *err);
void vl_batch_free(vl_batch *batch);
/* Encodes samples job->missing[*next] and on, below `end`, until the batch is large enough. */
vl_status vl_batch_collect(vl_batch *batch, int64_t *next, int64_t end, vl_error *err);
/* Rows that the batch runs, and keeps. */
int64_t vl_batch_tokens(const vl_batch *batch);
int64_t vl_batch_rows(const vl_batch *batch);
/* Runs the model; states and tables go to the queue as rows [first_row, ...) of its shard. Without a queue (to measure)
 * they are thrown away. The batch is empty afterwards. */
vl_status vl_batch_run(vl_batch *batch, vl_write_queue *queue, int64_t first_row, vl_error *err);
/* Values of all batches so far that are no numbers to train on. */
typedef struct vl_batch_faults {
    int64_t overflows;     /* finite, but too large for the type of the cache */
    int64_t not_finite;    /* as the model made them */
    int64_t sample, state; /* where the first of not_finite was found: the sample's number */
} vl_batch_faults;
vl_batch_faults vl_batch_get_faults(const vl_batch *batch);

#endif
