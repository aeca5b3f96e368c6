/* vlens: the command line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trainer/cli/cli.h"

const cli_command cli_commands[] = {
    {"init", "[FILE]", "write a commented configuration", NULL, cmd_init},
    {"info", "PATH", "what a model, cache or lens is", NULL, cmd_info},
    {"samples", "CONFIG", "show the first samples as they will be run",
     "Turns, the text that goes to the tokenizer, tokens by class, picture sizes; what is wrong with a bad one.",
     cmd_samples},
    {"cache", "CONFIG", "run the model and store every layer's states",
     "Goes on from the whole shards of an interrupted run. --dry-run counts tokens, bytes and time and writes nothing.",
     cmd_cache},
    {"train", "CONFIG", "fit one adapter per layer (caches first where needed)",
     "Ctrl-C saves a checkpoint and stops; the same command goes on from there, to the same bits.", cmd_train},
    {"eval", "CONFIG", "held-out KL per layer, lens and token class",
     "Compares the logit lens, the tuned lens and (eval.baseline) a second one with the model's own distribution.",
     cmd_eval},
    {"fidelity", "CONFIG", "does the lens read what the model uses, or does it invent?",
     "Causal basis extraction: the directions that matter most to the lens, ablated in the model. Controls: random\n"
     "directions, the logit lens, and (fidelity.control) a lens fitted on shuffled targets. Also the adapters of each\n"
     "state on every other.",
     cmd_fidelity},
    {"topk", "--model DIR --prompt TEXT [--image FILE] [--lens DIR]", "top tokens of every layer at a position",
     "Or from a cache, with no model: --cache DIR --sample N.", cmd_topk},
    {"view", "--model DIR --prompt TEXT [--image FILE] [--lens DIR] [--out FILE]",
     "a page with every patch, token and layer",
     "One HTML file that needs nothing else. Or from a cache, with no model: --cache DIR --sample N.", cmd_view},
    {"serve", "--model DIR [--lens DIR]...", "a page that asks a model which stays loaded",
     "Listens on this machine alone unless --address says otherwise; the address that it prints holds a secret token.",
     cmd_serve},
    {"figure", "WHAT --out FILE [options of topk and view]", "a figure for a paper, as SVG, PDF or PNG",
     "patches: the picture at chosen states through both lenses. topk: the top tokens of every state at a position.\n"
     "kl: KL by state with its intervals, from what `vlens eval --json` wrote. The caption names model, lens, picture "
     "and\n"
     "prompt.",
     cmd_figure},
    {"study", "CONFIG", "the whole study in one folder: evaluation, graphs, tables, pages, index",
     "study.samples names the pictures and questions. Caches and fits first where needed.", cmd_study},
    {"export", "LENS --format NAME --out PATH", "write a lens for other tools",
     "docs/reference/interop.md shows how to load each format. --model or --cache checks that the lens belongs to it,\n"
     "and gives tuned-lens its unembed_hash.",
     cmd_export},
    {"import", "PATH --out LENS (--model DIR | --cache DIR)", "read a lens that another tool wrote",
     "PATH: a folder of the Python package tuned-lens (config.json, params.pt), a .npz, .h5 or lens.safetensors that\n"
     "export wrote. Nothing in params.pt is run.",
     cmd_import},
    {"verify", "PATH", "check every byte of a model, cache or lens", NULL, cmd_verify},
    {"bench", "WHAT", "how fast this machine is at it", NULL, cmd_bench},
    {"doctor", "", "device, libraries, processor, threads", NULL, cmd_doctor},
    {NULL, NULL, NULL, NULL, NULL},
};

static void print_usage(FILE *stream)
{
    fputs("vlens ", stream);
    fputs(vl_version(), stream);
    fputs(": tuned lenses for vision-language models\n\nusage: vlens COMMAND ...\n\n", stream);
    for (const cli_command *c = cli_commands; c->name; c++)
        fprintf(stream, "  %-8s %s\n", c->name, c->summary);
    fputs("\nvlens help COMMAND says more; vlens help --man is the manual page; vlens version names the libraries.\n"
          "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 interrupted.\n",
          stream);
}

static int print_version(void)
{
    printf("vlens %s\n", vl_version());
    for (int i = 0; i < vl_component_count(); i++) {
        vl_component c = vl_component_get(i);
        printf("  %-10s %-12s %s\n", c.name, c.version, c.purpose);
    }
    printf("  exports    %s\n", vl_export_formats());
    return EXIT_DONE;
}

/* OpenMP threads that wait for each other spin before they sleep, by default so long that a busy machine spends its
 * time on the spinning: a small fit ran eight times slower beside two other processes. The runtime reads its settings
 * when it is loaded, so the program starts itself again with a short spin, unless the person has chosen one. */
static void spin_briefly(char **argv)
{
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY"))
        return;
    char path[4096]; /* the resolved name, which is what process lists then show */
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0 || setenv("GOMP_SPINCOUNT", "3000", 1) != 0)
        return;
    path[n] = 0;
    execv(path, argv); /* where that fails, everything works all the same */
}

static const cli_command *find_command(const char *name)
{
    for (const cli_command *c = cli_commands; c->name; c++)
        if (!strcmp(name, c->name))
            return c;
    return NULL;
}

static bool is_one_of(const char *word, const char *a, const char *b, const char *c)
{
    return !strcmp(word, a) || !strcmp(word, b) || !strcmp(word, c);
}

/* vlens help [COMMAND | --man | --bash | --zsh] */
static int help(int argc, char **argv)
{
    if (argc == 0 || is_one_of(argv[0], "help", "--help", "-h")) {
        print_usage(stdout);
        return EXIT_DONE;
    }
    const cli_command *command = find_command(argv[0]);
    if (!command)
        return cli_help(argc, argv);
    char asked[] = "--help", *arguments[] = {argc > 1 ? argv[1] : asked, asked}; /* "help bench kl" has two words */
    return command->run(command, argc > 1 ? 2 : 1, arguments);
}

int main(int argc, char **argv)
{
    spin_briefly(argv);
    cli_guard_start(&argc, &argv);
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    if (is_one_of(argv[1], "help", "--help", "-h"))
        return help(argc - 2, argv + 2);
    if (is_one_of(argv[1], "version", "--version", "-V"))
        return print_version();
    if (!strcmp(argv[1], "--probe") && argc == 3) /* what cli_guard starts */
        return cli_probe(argv[2]);
    const cli_command *command = find_command(argv[1]);
    if (!command) {
        fprintf(stderr, "vlens: \"%s\" is no command; vlens --help lists them\n", argv[1]);
        return EXIT_USAGE;
    }
    cli_catch_signals();
    if (cli_is_guarded()) /* the process that started it takes part in the team */
        return command->run(command, argc - 2, argv + 2);
    int code = cli_team_join();
    if (code == EXIT_DONE && cli_team_runs(command->name))
        code = command->run(command, argc - 2, argv + 2);
    return cli_team_leave(code);
}
