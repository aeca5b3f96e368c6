/* HDF5 files that may come from anyone are opened in a process of their own first.
 *
 * libhdf5 (1.10.8) can crash on a damaged file, or never come back: one wrong byte in a heap of texts is enough
 * (docs/reference/limits.md). So a child with little memory and little time opens the file first; what it cannot open
 * is one line of error. The child is this program again, `vlens --guarded MIB:SECONDS ...`, and starts from a clean
 * state. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "trainer/cli/cli.h"

enum { LEAST_MIB = 256, LEAST_SECONDS = 1, BYTES_PER_SECOND = 16 << 20, MEMORY_FACTOR = 8 };
enum { EXIT_NO_MEMORY = 3, MOST_ARGUMENTS = 256, READ_ALL_BYTES = 16 << 20 };

extern char **environ;

static struct {
    char **arguments; /* of this program */
    bool guarded;
} self;

/* ---- limits ------------------------------------------------------------------------------------------------ */

static bool is_h5(const char *name)
{
    size_t n = strlen(name);
    return n > 3 && !strcmp(name + n - 3, ".h5");
}

static int64_t size_of(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode) ? (int64_t)info.st_size : 0;
}

/* Bytes that opening may have to read (tables: the index, and a little of every shard), and all there are. */
static void measure(int64_t *tables, int64_t *all, const char *path)
{
    char file[4400];
    DIR *dir = opendir(path);
    *tables = *all = dir ? 0 : size_of(path);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
        if (!is_h5(e->d_name))
            continue;
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        int64_t size = size_of(file);
        *all += size;
        *tables += !strcmp(e->d_name, "index.h5") || size < 1 << 20 ? size : 1 << 20;
    }
    if (dir)
        closedir(dir);
}

static int64_t from_environment(const char *name, int64_t otherwise)
{
    const char *text = getenv(name);
    char *end = NULL;
    int64_t value = text ? strtoll(text, &end, 10) : -1;
    return text && end != text && !*end && value >= 0 ? value : otherwise;
}

/* VLENS_GUARD_MIB and VLENS_GUARD_SECONDS give other limits; 0: none. */
static void choose_limits(int64_t *mib, int64_t *seconds, const char *path, bool whole)
{
    int64_t tables, all;
    measure(&tables, &all, path);
    *mib = from_environment("VLENS_GUARD_MIB", LEAST_MIB + MEMORY_FACTOR * (tables >> 20));
    *seconds = from_environment("VLENS_GUARD_SECONDS", LEAST_SECONDS + (whole ? all : tables) / BYTES_PER_SECOND);
}

/* Memory that this process has already: pages of data. */
static rlim_t own_data(void)
{
    long long values[6] = {0};
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%lld %lld %lld %lld %lld %lld", &values[0], &values[1], &values[2], &values[3],
                       &values[4], &values[5]) != 6)
        values[5] = 0;
    if (file)
        fclose(file);
    return (rlim_t)values[5] * (rlim_t)sysconf(_SC_PAGESIZE);
}

static void lower(int resource, rlim_t value)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0)
        return;
    if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > value)
        limit.rlim_cur = value;
    (void)setrlimit(resource, &limit);
}

void cli_guard_start(int *argc, char ***argv)
{
    long long mib, seconds;
    self.arguments = *argv;
    if (*argc < 3 || strcmp((*argv)[1], "--guarded") != 0 || sscanf((*argv)[2], "%lld:%lld", &mib, &seconds) != 2)
        return;
    self.guarded = true;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    lower(RLIMIT_CORE, 0);
    if (mib > 0)
        lower(RLIMIT_DATA, own_data() + ((rlim_t)mib << 20));
    if (seconds > 0)
        lower(RLIMIT_CPU, (rlim_t)seconds);
    (*argv)[2] = (*argv)[0];
    *argc -= 2;
    *argv += 2;
}

bool cli_is_guarded(void)
{
    return self.guarded;
}

/* ---- the child --------------------------------------------------------------------------------------------- */

/* Reads what a command will read: all states of a small cache, the ends of each state of a large one. */
static vl_status read_states(vl_cache *cache, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    size_t row = (size_t)info->d_model * vl_dtype_size(info->dtype);
    bool all = (double)row * (double)info->n_tokens * (double)info->n_states <= READ_ALL_BYTES;
    int64_t n = all ? info->n_tokens : 1;
    void *out = n > 0 ? malloc((size_t)n * row) : NULL;
    vl_status status = n > 0 && !out ? VL_ENOMEM : VL_OK;
    for (int64_t i = 0; status == VL_OK && n > 0 && i < info->n_states; i++) {
        status = vl_cache_read(out, cache, i, 0, n, err);
        if (status == VL_OK && !all)
            status = vl_cache_read(out, cache, i, info->n_tokens - 1, 1, err);
    }
    free(out);
    return status;
}

static vl_status probe_file(const char *path)
{
    vl_cache *cache = NULL;
    vl_error err = VL_ERROR_INIT;
    vl_status status = vl_cache_open(&cache, path, &err);
    if (status == VL_OK)
        status = read_states(cache, &err);
    vl_cache_close(cache);
    return status;
}

/* A folder of shards without an index is what a run that was cut off leaves. */
static vl_status probe_shards(const char *path)
{
    char file[4400];
    vl_status worst = VL_OK;
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
        if (strncmp(e->d_name, "shard-", 6) != 0 || !is_h5(e->d_name))
            continue;
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        vl_status status = probe_file(file);
        worst = worst == VL_ENOMEM ? worst : status;
    }
    if (dir)
        closedir(dir);
    return worst;
}

int cli_probe(const char *path)
{
    vl_status status = vl_cache_exists(path) || is_h5(path) ? probe_file(path) : VL_OK;
    if (status != VL_ENOMEM)
        status = probe_shards(path); /* resuming reads them even beside a damaged index */
    return status == VL_ENOMEM ? EXIT_NO_MEMORY : status == VL_OK ? EXIT_DONE : EXIT_FAILED;
}

/* ---- the parent -------------------------------------------------------------------------------------------- */

typedef struct task {
    const char *path; /* the file in question */
    char **arguments; /* behind the limits; ends with NULL */
    bool silent;
    int64_t mib, seconds;
} task;

static vl_status fail(vl_error *err, vl_status status, const char *path, const char *text)
{
    snprintf(err->message, sizeof err->message, "%.240s: %.250s", path, text);
    return err->status = status;
}

static int start(pid_t *child, const task *t)
{
    char limits[64], program[4096];
    char guarded[] = "--guarded", *arguments[MOST_ARGUMENTS] = {program, guarded, limits};
    int n = 3;
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0)
        return ENOENT;
    program[length] = 0;
    snprintf(limits, sizeof limits, "%lld:%lld", (long long)t->mib, (long long)t->seconds);
    for (char **a = t->arguments; *a; a++) {
        if (n == MOST_ARGUMENTS - 1)
            return E2BIG;
        arguments[n++] = *a;
    }
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawn_file_actions_init(&actions);
    for (int fd = 0; t->silent && fd < 3; fd++)
        posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", fd == 0 ? O_RDONLY : O_WRONLY, 0);
    int failed = posix_spawn(child, program, &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return failed;
}

/* Runs the child; *code is its exit code where it ended by itself. */
static vl_status supervise(int *code, const task *t, vl_error *err)
{
    pid_t child;
    int status, failed = start(&child, t);
    char text[256];
    *code = EXIT_FAILED;
    if (failed) {
        snprintf(text, sizeof text, "cannot start a process to open it in: %s", strerror(failed));
        return fail(err, VL_EIO, t->path, text);
    }
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return fail(err, VL_EIO, t->path, "the process that opens it is lost");
    if (WIFEXITED(status)) {
        *code = WEXITSTATUS(status);
        return VL_OK;
    }
    int number = WTERMSIG(status);
    if (number == SIGINT || number == SIGTERM)
        return fail(err, VL_ECANCELLED, t->path, "stopped while it was opened");
    if (number == SIGXCPU)
        snprintf(text, sizeof text,
                 "not opened after %lld s: the file is damaged or hostile (VLENS_GUARD_SECONDS gives it more time)",
                 (long long)t->seconds);
    else
        snprintf(text, sizeof text, "the HDF5 library crashed on it (signal %d): the file is damaged or hostile",
                 number);
    return fail(err, VL_EFORMAT, t->path, text);
}

vl_status cli_guard(const char *path, vl_error *err)
{
    char probe[] = "--probe", *arguments[] = {probe, (char *)(uintptr_t)path, NULL};
    task t = {.path = path, .arguments = arguments, .silent = true};
    int code;
    if (self.guarded || access(path, F_OK) != 0)
        return VL_OK;
    choose_limits(&t.mib, &t.seconds, path, false);
    vl_status status = supervise(&code, &t, err);
    if (status == VL_OK && code == EXIT_NO_MEMORY) {
        char text[160];
        snprintf(text, sizeof text,
                 "opening it needs more than %lld MiB: the file is hostile, or large (VLENS_GUARD_MIB gives it more)",
                 (long long)t.mib);
        return fail(err, VL_ENOMEM, path, text);
    }
    return status; /* any other failure is met again, and said, by whoever opens it now */
}

vl_status cli_open_own_cache(vl_cache **out, const vl_config *config, unsigned own, vl_error *err)
{
    char *directory = NULL;
    vl_status status = vl_cache_directory(&directory, config, err);
    if (status == VL_OK)
        status = cli_open_cache(out, directory, err);
    vl_release(directory);
    const vl_hub_paths hub = cli_hub_paths();
    if (status == VL_OK)
        status = vl_cache_check_config(*out, config, &hub, own, err);
    return status;
}

vl_status cli_open_cache(vl_cache **out, const char *path, vl_error *err)
{
    *out = NULL;
    vl_status status = cli_guard(path, err);
    return status == VL_OK ? vl_cache_open(out, path, err) : status;
}

bool cli_goes_to_child(int *code, const char *path, bool limited)
{
    task t = {.path = path, .arguments = self.arguments + 1};
    vl_error err = VL_ERROR_INIT;
    if (self.guarded)
        return false;
    if (limited)
        choose_limits(&t.mib, &t.seconds, path, true);
    vl_status status = supervise(code, &t, &err);
    if (status != VL_OK)
        *code = cli_fail(status, &err);
    return true;
}
