/* vlens/team.h - several processes that work on one run.
 *
 * vl_cache_build, vl_fit_run and vl_eval_run take a team in their options: every member makes the same call with the
 * same configuration, on one file system. Members share out shards, layers and states, so that the files are those of
 * one process, to the bit; only where a fit has more members than layers do members of one layer split its rows and
 * add up gradients, and then sums come in another order (docs/results/scale.md has the bound).
 *
 * The library knows no network: whoever calls it says how to wait and how to add up. The command line does it with
 * MPI. A member whose call fails must end the others (MPI_Abort): they may be waiting for it. */
#ifndef VLENS_TEAM_H
#define VLENS_TEAM_H

#include <vlens/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vl_team_sum {
    void *data;     /* [n] on the host, replaced by the sum */
    vl_dtype dtype; /* VL_F32, VL_F64 or VL_I64 */
    int64_t n;
    int first, count; /* of the members [first, first + count), which all call; each gets the same bits */
} vl_team_sum;

typedef struct vl_team {
    int rank, size; /* this member, of how many */
    void *user;
    /* Return when all members have called, or VL_ECANCELLED where this one is asked to stop. */
    vl_status (*barrier)(void *user, vl_error *err);
    vl_status (*sum)(void *user, const vl_team_sum *args, vl_error *err);
} vl_team;

#ifdef __cplusplus
}
#endif
#endif
