/* serve/jobs.h - questions, one after the other on the device. One thread works; the others wait in a short queue. */
#ifndef VL_SERVE_JOBS_H
#define VL_SERVE_JOBS_H

#include <pthread.h>
#include <stdatomic.h>

#include <vlens/serve.h>

#include "trainer/serve/ask.h"
#include "trainer/serve/shelf.h"

enum { VL_JOBS_KEPT = 32, VL_JOBS_WAITING = 4 };

typedef enum vl_job_state { VL_JOB_WAITING, VL_JOB_RUNNING, VL_JOB_DONE, VL_JOB_FAILED, VL_JOB_CANCELLED } vl_job_state;

typedef struct vl_job {
    int64_t id; /* 0: empty */
    vl_job_state state;
    vl_ask ask;
    char stage[32]; /* "picture", "generate", "forward", "readout", "page" */
    int64_t done, total;
    char message[512]; /* of a failure */
    int64_t reading;   /* once it is done */
    int64_t version;   /* counts changes */
    atomic_bool cancel;
} vl_job;

typedef struct vl_jobs {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool started, stopping;
    vl_job jobs[VL_JOBS_KEPT]; /* job n at n % VL_JOBS_KEPT */
    int64_t n_asked, n_finished;
    const vl_serve_options *options;
    vl_shelf *shelf;
} vl_jobs;

vl_status vl_jobs_start(vl_jobs *jobs, const vl_serve_options *options, vl_shelf *shelf, vl_error *err);
/* Cancels everything and waits for the thread. */
void vl_jobs_stop(vl_jobs *jobs);
/* Takes the question. Returns its number; 0 where too many wait (then the question is still the caller's). */
int64_t vl_jobs_add(vl_jobs *jobs, vl_ask *ask);
/* False: no such job. */
bool vl_jobs_cancel(vl_jobs *jobs, int64_t id);
/* Waits up to `milliseconds` for a state of job `id` that is newer than *version, and appends it as JSON: {"job",
 * "state", "stage", "done", "total", "message", "reading"}. Returns 1: appended; 0: nothing new; -1: no such job, or
 * the server stops. *final: nothing will follow. */
int vl_jobs_wait(vl_str *out, bool *final, vl_jobs *jobs, int64_t id, int64_t *version, int milliseconds);

#endif
