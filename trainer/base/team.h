/* base/team.h - a team that may be NULL: one process. */
#ifndef VL_BASE_TEAM_H
#define VL_BASE_TEAM_H

#include <vlens/team.h>

static inline int vl_team_rank(const vl_team *team)
{
    return team ? team->rank : 0;
}

static inline int vl_team_size(const vl_team *team)
{
    return team ? team->size : 1;
}

static inline vl_status vl_team_barrier(const vl_team *team, vl_error *err)
{
    return vl_team_size(team) > 1 ? team->barrier(team->user, err) : VL_OK;
}

static inline vl_status vl_team_add(const vl_team *team, const vl_team_sum *args, vl_error *err)
{
    return args->count > 1 && args->n > 0 ? team->sum(team->user, args, err) : VL_OK;
}

#endif
