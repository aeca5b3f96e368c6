/* Several processes that a launcher of MPI has started: `mpirun -n 4 vlens train run.yaml`.
 *
 * Without a launcher nothing of MPI is even loaded. With one, commands that can be shared out (cache, train, eval) run
 * in all processes, any other in the first alone. Only the first prints; what goes wrong elsewhere comes on stderr
 * with the number of the process. A process that fails ends the job: the others may be waiting for it. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trainer/cli/cli.h"
#include "trainer/cli/team_mpi.h"

static const vl_mpi_plugin *plugin;
static vl_team team = {.rank = 0, .size = 1};
static bool shares; /* the command is one that all take part in */
static FILE *aside; /* stderr of a process that is not the first */

const vl_team *cli_team(void)
{
    return team.size > 1 && shares ? &team : NULL;
}

/* Launchers tell their children how many they are; PMIx (Slurm) leaves that to Slurm. */
static bool is_launched(void)
{
    static const char *const sizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS"};
    const char *tasks = getenv("PMIX_RANK") ? getenv("SLURM_STEP_NUM_TASKS") : NULL;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && !tasks; i++)
        tasks = getenv(sizes[i]);
    return tasks && atoi(tasks) > 1;
}

static const vl_mpi_plugin *load(const char **reason)
{
    char path[4096 + sizeof VLENS_PLUGINS];
    ssize_t n = readlink("/proc/self/exe", path, 4095);
    path[n > 0 ? n : 0] = 0;
    char *slash = strrchr(path, '/');
    strcpy(slash ? slash + 1 : path, VLENS_PLUGINS "/libvlens_mpi.so");
    if (access(path, R_OK) != 0) {
        *reason = "this vlens was built without MPI (no libvlens_mpi.so)";
        return NULL;
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL); /* global: Open MPI loads plug-ins that need its symbols */
    const vl_mpi_plugin *found = library ? dlsym(library, "vl_mpi") : NULL;
    *reason = library ? "libvlens_mpi.so is of another version" : dlerror();
    return found && !strcmp(found->version, vl_version()) ? found : NULL;
}

/* Nothing that this process prints is seen but what cli_aside writes. */
static void fall_silent(void)
{
    int copy = dup(STDERR_FILENO);
    aside = copy >= 0 ? fdopen(copy, "w") : NULL;
    if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
        return; /* then it is seen twice */
}

int cli_team_join(void)
{
    vl_error err = VL_ERROR_INIT;
    const char *reason = "";
    if (!is_launched())
        return EXIT_DONE;
    plugin = load(&reason);
    if (!plugin) {
        fprintf(stderr, "vlens: started as one of several processes: %s\n", reason);
        return EXIT_FAILED;
    }
    if (plugin->join(&team, cli_is_interrupted, &err) != VL_OK) {
        plugin = NULL;
        return cli_fail(VL_EDEVICE, &err);
    }
    if (team.rank > 0)
        fall_silent();
    return EXIT_DONE;
}

bool cli_team_runs(const char *command)
{
    static const char *const shared[] = {"cache", "train", "eval"};
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++)
        shares |= !strcmp(command, shared[i]);
    return shares || team.rank == 0;
}

void cli_team_aside(const char *kind, const char *line)
{
    if (!aside)
        return;
    fprintf(aside, "%sprocess %d: %s\n", kind, team.rank, line);
    fflush(aside);
}

bool cli_team_is_silent(void)
{
    return team.rank > 0;
}

int cli_team_leave(int code)
{
    enum { SAVING_SECONDS = 10 };
    if (!plugin)
        return code;
    fflush(stdout);
    if (code == EXIT_DONE)
        plugin->leave();
    else /* an interrupted job: the others are saving, too */
        plugin->abort(code, code >= EXIT_INTERRUPTED ? SAVING_SECONDS : 0);
    return code;
}
