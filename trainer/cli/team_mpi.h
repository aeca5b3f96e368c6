/* cli/team_mpi.h - the plug-in libvlens_mpi.so: a team over MPI. It is loaded only where a launcher has started the
 * program, so that the program itself needs no MPI. */
#ifndef VL_CLI_TEAM_MPI_H
#define VL_CLI_TEAM_MPI_H

#include <vlens/team.h>

/* What the plug-in gives under the name "vl_mpi". */
typedef struct vl_mpi_plugin {
    const char *version; /* of vlens */
    /* Joins the job. `stop` is asked while waiting: non-zero gives VL_ECANCELLED. */
    vl_status (*join)(vl_team *out, int (*stop)(void), vl_error *err);
    /* Leaves it in good order: waits for all others. */
    void (*leave)(void);
    /* Ends the whole job with this exit code, after up to `seconds` for the others to come here too. */
    void (*abort)(int code, double seconds);
} vl_mpi_plugin;

#endif
