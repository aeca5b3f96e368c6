/* cli/cli.h - what the commands share. The command line is the only part of vlens that prints, exits, reads the
 * environment and catches signals; it uses the public headers alone. */
#ifndef VL_CLI_CLI_H
#define VL_CLI_CLI_H

#include <stdbool.h>
#include <stdio.h>

#include <vlens/vlens.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130, EXIT_TERMINATED = 143 };

/* ---- options ----------------------------------------------------------------------------------------------- */

typedef enum cli_type { CLI_FLAG, CLI_TEXT, CLI_INT, CLI_LIST } cli_type;

enum { CLI_LIST_MAX = 64 };
typedef struct cli_list {
    const char *items[CLI_LIST_MAX];
    int n;
} cli_list;

/* One option of a command; a table of them ends with a NULL name. */
typedef struct cli_option {
    const char *name; /* without the dashes */
    char letter;      /* 0: none */
    cli_type type;
    void *target;         /* bool *, const char **, int64_t *, cli_list * */
    const char *argument; /* what stands in the help, "DIR" */
    const char *help;
} cli_option;

/* A command: `vlens NAME ...`. */
typedef struct cli_command {
    const char *name;
    const char *usage;   /* "CONFIG [options]" */
    const char *summary; /* one line */
    const char *detail;  /* paragraphs for its own --help, may be NULL */
    int (*run)(const struct cli_command *self, int argc, char **argv);
} cli_command;

extern const cli_command cli_commands[];

/* Parses everything after the command's name. Returns -1 to go on, or an exit code (help was asked for, or wrong
 * usage was reported). Positional arguments go to `positional` (at least `min`, at most `max`). */
int cli_parse(const cli_command *command, const cli_option *options, int argc, char **argv, const char **positional,
              int min, int max);
void cli_print_help(const cli_command *command, const cli_option *options);

/* For the manual page and the completions (describe.c): `vlens help --man`. */
int cli_help(int argc, char **argv);
bool cli_is_describing(void);
/* True where a table was asked for and not parsed. */
bool cli_describe(const cli_command *command, const cli_option *options);

/* ---- common to many commands ------------------------------------------------------------------------------- */

/* --set, --device, --threads, --json, --quiet. */
typedef struct cli_common {
    cli_list set;
    const char *device;
    int64_t threads;
    bool json, quiet;
} cli_common;
#define CLI_COMMON_INIT                                                                                                \
    {                                                                                                                  \
        {{NULL}, 0}, NULL, -1, false, false                                                                            \
    }
#define CLI_COMMON_OPTIONS(common)                                                                                     \
    {"set", 0, CLI_LIST, &(common).set, "KEY=VALUE", "override a key of the configuration (repeatable)"},              \
        {"device", 0, CLI_TEXT, &(common).device, "NAME", "auto | cpu | cuda | cuda:N"},                               \
        {"threads", 0, CLI_INT, &(common).threads, "N", "processor threads (0: all)"},                                 \
        {"json", 0, CLI_FLAG, &(common).json, NULL, "print the result as JSON on stdout"},                             \
    {                                                                                                                  \
        "quiet", 'q', CLI_FLAG, &(common).quiet, NULL, "no progress and no information on stderr"                      \
    }
#define CLI_OPTIONS_END                                                                                                \
    {                                                                                                                  \
        NULL, 0, CLI_FLAG, NULL, NULL, NULL                                                                            \
    }

/* ---- what topk and view read ------------------------------------------------------------------------------- */

typedef struct cli_reading {
    cli_common common;
    const char *model, *prompt, *lens, *cache;
    const char *compare; /* another picture in the place of the first, read as a second part; NULL: none */
    cli_list images, track;
    int64_t k, sample;
    int64_t generate;         /* tokens that the model adds before it is read */
    const int64_t *positions; /* NULL: all */
    int64_t n_positions;
    bool raw, no_exif, allow_other_model;
    bool trajectories; /* as in vl_reading_options */
} cli_reading;
#define CLI_READING_OPTIONS(q)                                                                                         \
    {"model", 'm', CLI_TEXT, &(q).model, "DIR", "a Hugging Face directory, or a hub id in the local cache"},           \
        {"prompt", 'p', CLI_TEXT, &(q).prompt, "TEXT", "the question"},                                                \
        {"image", 'i', CLI_LIST, &(q).images, "FILE", "a picture (repeatable)"},                                       \
        {"cache", 0, CLI_TEXT, &(q).cache, "DIR", "read a cached sample in the place of running a model"},             \
        {"sample", 0, CLI_INT, &(q).sample, "N", "its number"},                                                        \
        {"lens", 'l', CLI_TEXT, &(q).lens, "DIR", "a tuned lens, shown beside the logit lens"},                        \
        {"k", 'k', CLI_INT, &(q).k, "N", "tokens per layer (default 5)"},                                              \
        {"track", 't', CLI_LIST, &(q).track, "WORD", "keep the probability of this token at every cell (repeatable)"}, \
        {"raw-prompt", 0, CLI_FLAG, &(q).raw, NULL, "take the prompt as it is, without the chat template"},            \
        {"no-exif", 0, CLI_FLAG, &(q).no_exif, NULL, "do not turn pictures by their EXIF orientation"},                \
    {                                                                                                                  \
        "allow-other-model", 0, CLI_FLAG, &(q).allow_other_model, NULL, "a lens of another model is only a warning"    \
    }

/* Model and prompt, or cache and sample: -1 to go on, or an exit code after the usage error was printed. */
int cli_check_reading(const cli_command *self, const cli_reading *q);
/* The caller frees *out. */
vl_status cli_open_reading(vl_reading **out, const cli_reading *q, vl_error *err);
/* A reading as JSON on stdout. */
int cli_print_json(const vl_reading *reading);

/* ------------------------------------------------------------------------------------------------------------ */

/* Prints "vlens: <message>" on stderr and returns the exit code that fits the status. */
int cli_fail(vl_status status, const vl_error *err);
/* Reads a configuration (NULL: defaults) and applies --set, --device and --threads. */
vl_status cli_config(vl_config **out, const char *path, const cli_common *common, vl_error *err);
/* VL_EINVAL where the running command does not use the key of a --set (uses.c). */
vl_status cli_check_use(const char *assignment, vl_error *err);
/* The command that runs, "eval". */
const char *cli_command_name(void);
vl_status cli_open_device(vl_device **out, const vl_config *config, vl_error *err);
/* Both, for commands that change nothing in between. The caller frees the two also after a failure. */
vl_status cli_open(vl_config **config, vl_device **device, const char *path, const cli_common *common, vl_error *err);
/* One line at the head of a run: what computes, and why it is no GPU where `auto` found none. */
void cli_announce_device(const vl_device *device, const vl_observer *observer);
vl_status cli_open_model(vl_model **out, const vl_config *config, vl_device *device, vl_error *err);
vl_hub_paths cli_hub_paths(void);
/* Opens the cache that a configuration names, as cli_open_cache does, and compares both (vl_cache_check_config). */
vl_status cli_open_own_cache(vl_cache **out, const vl_config *config, unsigned own, vl_error *err);
/* Opens the lens at `path`, or (NULL) that of the configuration, which must have been fitted as it says. */
vl_status cli_open_own_lens(vl_lens **out, const char *path, const vl_config *config, unsigned own, vl_error *err);
/* Caches where no complete cache lies, and opens it. */
vl_status cli_ensure_cache(vl_cache **out, const vl_config *config, vl_device *device, const vl_observer *observer,
                           vl_error *err);

/* ---- files from strangers (guard.c) ------------------------------------------------------------------------- */

/* Called first in main: takes `--guarded LIMITS` off the arguments, and obeys. */
void cli_guard_start(int *argc, char ***argv);
/* Opens what lies at a path in a process of its own, with limits. VL_EFORMAT: the process crashed or took too long;
 * VL_ENOMEM. Nothing is said of files that just cannot be opened. */
vl_status cli_guard(const char *path, vl_error *err);
/* cli_guard, then vl_cache_open. */
vl_status cli_open_cache(vl_cache **out, const char *path, vl_error *err);
/* Runs this very command in a process of its own and gives its exit code; false where this is that process. `limited`:
 * by the size of the file. */
bool cli_goes_to_child(int *code, const char *path, bool limited);
/* Whether this is such a process: it works alone, for the one that started it. */
bool cli_is_guarded(void);
/* The child's side of cli_guard: an exit code. */
int cli_probe(const char *path);

/* Progress and messages on stderr; asks to stop after SIGINT or SIGTERM. */
const vl_observer *cli_observer(const cli_common *common);
/* Ends a line that the progress bar left open. */
void cli_progress_end(void);
void cli_catch_signals(void);
int cli_is_interrupted(void);
/* The exit code of an interrupted command: 130, or 143 after SIGTERM. */
int cli_interrupt_code(void);

/* Columns of the terminal that stdout is; 0 where it is none. */
int cli_columns(void);
/* Whether stdout is a terminal that wants colour: not with NO_COLOR (no-color.org), nor where TERM is "dumb". */
bool cli_has_colour(void);
/* Prints text on stdout and checks that it could be written. */
int cli_print(const char *text);
/* Writes text on stdout as a JSON string, quotes included. */
void cli_put_json(const char *text);
/* 12345678 -> "11.8 MiB". */
const char *cli_bytes(char out[32], double bytes);

/* What lies at a path, by the files in it. A hub id counts as a model. */
typedef enum cli_kind { CLI_MODEL, CLI_CACHE, CLI_LENS } cli_kind;
cli_kind cli_kind_of(const char *path);
/* Whether a folder holds a file of that name. */
bool cli_holds(const char *folder, const char *name);

/* The head of the model directory (or hub id) `model`, or of the cache `cache`; one of them is NULL. */
typedef struct cli_head {
    vl_config *config;
    vl_device *device;
    vl_model *model;
    vl_cache *cache;
    vl_head *head;
} cli_head;
vl_status cli_head_open(cli_head *out, const char *model, const char *cache, vl_error *err);
void cli_head_close(cli_head *head); /* also after a failed open */

/* ---- several processes (team.c) ---------------------------------------------------------------------------- */

/* The processes of this job; NULL where this is the only one. */
const vl_team *cli_team(void);
/* Joins the job of a launcher, where there is one. Returns an exit code. */
int cli_team_join(void);
/* Whether this process takes part in a command. */
bool cli_team_runs(const char *command);
/* Leaves the job; with a code other than 0 that ends it for all. Returns the code. */
int cli_team_leave(int code);
/* Only the first process prints; the others' warnings and errors go here: "<kind>process N: <line>". */
bool cli_team_is_silent(void);
void cli_team_aside(const char *kind, const char *line);

/* ------------------------------------------------------------------------------------------------------------ */

int cmd_init(const cli_command *self, int argc, char **argv);
int cmd_info(const cli_command *self, int argc, char **argv);
int cmd_cache(const cli_command *self, int argc, char **argv);
int cmd_train(const cli_command *self, int argc, char **argv);
int cmd_eval(const cli_command *self, int argc, char **argv);
int cmd_topk(const cli_command *self, int argc, char **argv);
/* cmd_info's part for a lens (info_lens.c). */
vl_status cli_info_lens(const char *path, bool spectrum, bool json, vl_error *err);
int cmd_fidelity(const cli_command *self, int argc, char **argv);
int cmd_samples(const cli_command *self, int argc, char **argv);
int cmd_serve(const cli_command *self, int argc, char **argv);
int cmd_study(const cli_command *self, int argc, char **argv);
int cmd_figure(const cli_command *self, int argc, char **argv);
int cmd_view(const cli_command *self, int argc, char **argv);
int cmd_export(const cli_command *self, int argc, char **argv);
int cmd_import(const cli_command *self, int argc, char **argv);
int cmd_verify(const cli_command *self, int argc, char **argv);
int cmd_bench(const cli_command *self, int argc, char **argv);
int cmd_doctor(const cli_command *self, int argc, char **argv);

#endif
