/* team_mpi.c - waiting and adding up with MPI. Waiting sleeps in between: a member that is done must not take the
 * processor from one that is not. */
#include <mpi.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "trainer/cli/team_mpi.h"

enum { GROUPS = 64 };

static struct {
    int (*stop)(void);
    struct {
        int first, count;
        MPI_Comm comm;
    } groups[GROUPS]; /* communicators of parts of the job, made when they are first needed */
    int n_groups;
} job;

static vl_status fail(vl_error *err, vl_status status, const char *what)
{
    if (err) {
        err->status = status;
        snprintf(err->message, sizeof err->message, "%s", what);
    }
    return status;
}

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Until the request is done; false: asked to stop first. Naps grow to a millisecond. */
static int wait_for(MPI_Request *request, int (*stop)(void), double until)
{
    struct timespec nap = {0, 1000};
    for (int done = 0;;) {
        MPI_Test(request, &done, MPI_STATUS_IGNORE);
        if (done)
            return 1;
        if ((stop && stop()) || (until > 0 && seconds_now() > until))
            return 0;
        nanosleep(&nap, NULL);
        nap.tv_nsec = nap.tv_nsec < 1000000 ? 2 * nap.tv_nsec : 1000000;
    }
}

static vl_status barrier(void *user, vl_error *err)
{
    (void)user;
    MPI_Request request;
    MPI_Ibarrier(MPI_COMM_WORLD, &request);
    return wait_for(&request, job.stop, 0) ? VL_OK : fail(err, VL_ECANCELLED, "stopped while waiting for the others");
}

static MPI_Comm find_group(int first, int count)
{
    MPI_Comm comm;
    MPI_Group world, group;
    int size, range[1][3] = {{first, first + count - 1, 1}};
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (count == size)
        return MPI_COMM_WORLD;
    for (int i = 0; i < job.n_groups; i++)
        if (job.groups[i].first == first && job.groups[i].count == count)
            return job.groups[i].comm;
    if (job.n_groups == GROUPS)
        return MPI_COMM_NULL;
    MPI_Comm_group(MPI_COMM_WORLD, &world);
    MPI_Group_range_incl(world, 1, range, &group);
    MPI_Comm_create_group(MPI_COMM_WORLD, group, first, &comm);
    MPI_Group_free(&group);
    MPI_Group_free(&world);
    job.groups[job.n_groups].first = first;
    job.groups[job.n_groups].count = count;
    job.groups[job.n_groups++].comm = comm;
    return comm;
}

/* To one member and from there to all: an all-reduce may give each member other bits. */
static vl_status add_piece(void *data, int n, MPI_Datatype type, MPI_Comm comm, vl_error *err)
{
    int rank;
    MPI_Request request;
    MPI_Comm_rank(comm, &rank);
    MPI_Ireduce(rank == 0 ? MPI_IN_PLACE : data, rank == 0 ? data : NULL, n, type, MPI_SUM, 0, comm, &request);
    if (!wait_for(&request, job.stop, 0))
        return fail(err, VL_ECANCELLED, "stopped while adding up");
    MPI_Ibcast(data, n, type, 0, comm, &request);
    return wait_for(&request, job.stop, 0) ? VL_OK : fail(err, VL_ECANCELLED, "stopped while adding up");
}

static vl_status sum(void *user, const vl_team_sum *args, vl_error *err)
{
    (void)user;
    const int64_t most = 1 << 24; /* elements in one message: MPI counts with int */
    MPI_Datatype type = args->dtype == VL_F32 ? MPI_FLOAT : args->dtype == VL_F64 ? MPI_DOUBLE : MPI_INT64_T;
    size_t width = args->dtype == VL_F32 ? 4 : 8;
    if (args->dtype != VL_F32 && args->dtype != VL_F64 && args->dtype != VL_I64)
        return fail(err, VL_EUNSUPPORTED, "only float32, float64 and int64 are added up");
    MPI_Comm comm = find_group(args->first, args->count);
    if (comm == MPI_COMM_NULL)
        return fail(err, VL_EINTERNAL, "too many groups of processes");
    for (int64_t at = 0; at < args->n; at += most) {
        int64_t n = args->n - at < most ? args->n - at : most;
        vl_status status = add_piece((char *)args->data + (size_t)at * width, (int)n, type, comm, err);
        if (status != VL_OK)
            return status;
    }
    return VL_OK;
}

static vl_status join(vl_team *out, int (*stop)(void), vl_error *err)
{
    int given;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &given) != MPI_SUCCESS)
        return fail(err, VL_EDEVICE, "MPI cannot be started");
    job.stop = stop;
    *out = (vl_team){.barrier = barrier, .sum = sum};
    MPI_Comm_rank(MPI_COMM_WORLD, &out->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &out->size);
    return VL_OK;
}

static void leave(void)
{
    MPI_Finalize();
}

static void abort_job(int code, double seconds)
{
    MPI_Request request;
    if (seconds > 0) {
        MPI_Ibarrier(MPI_COMM_WORLD, &request);
        wait_for(&request, NULL, seconds_now() + seconds);
    }
    MPI_Abort(MPI_COMM_WORLD, code);
}

extern const vl_mpi_plugin vl_mpi;
VL_API const vl_mpi_plugin vl_mpi = {VLENS_VERSION, join, leave, abort_job};
