/* The manual page and the completions of bash and zsh, from the tables that parse the command line and the
 * configuration: `vlens help --man | --bash | --zsh`, which the build installs. `--markdown` is
 * docs/reference/options.md.
 *
 * The options of a command are known to that command alone. So each is run with one argument that makes cli_parse
 * hand its table over in the place of parsing. */
#include <stdlib.h>
#include <string.h>

#include "trainer/cli/cli.h"

static void (*describe)(const cli_command *command, const cli_option *options);

bool cli_is_describing(void)
{
    return describe != NULL;
}

bool cli_describe(const cli_command *command, const cli_option *options)
{
    if (!describe)
        return false;
    describe(command, options);
    return true;
}

static void each_command(void (*what)(const cli_command *, const cli_option *))
{
    describe = what;
    for (const cli_command *c = cli_commands; c->name; c++)
        c->run(c, 0, NULL);
    describe = NULL;
}

/* ---- the manual page --------------------------------------------------------------------------------------- */

/* Text for troff: hyphens stay hyphens, and no line begins with what would be a request. */
static void put_troff(const char *text)
{
    bool start = true;
    for (const char *c = text; *c; c++) {
        if (start && (*c == '.' || *c == '\''))
            fputs("\\&", stdout);
        if (*c == '-')
            fputs("\\-", stdout);
        else if (*c == '\\')
            fputs("\\e", stdout);
        else
            putchar(*c);
        start = *c == '\n';
    }
}

static void man_command(const cli_command *command, const cli_option *options)
{
    printf(".SS vlens %s ", command->name);
    put_troff(command->usage);
    printf("\n");
    put_troff(command->summary);
    printf(".\n");
    if (command->detail) {
        put_troff(command->detail);
        printf("\n");
    }
    for (const cli_option *o = options; o->name; o++) {
        printf(".TP\n");
        if (o->letter)
            printf("\\fB\\-%c\\fR, ", o->letter);
        printf("\\fB\\-\\-");
        put_troff(o->name);
        printf("\\fR");
        if (o->argument)
            printf(" \\fI%s\\fR", o->argument);
        printf("\n");
        put_troff(o->help);
        printf("\n");
    }
}

static void man_configuration(void)
{
    printf(".SH CONFIGURATION\nA YAML file; \\fBvlens init\\fR writes one. Any key can be set with \\fB\\-\\-set "
           "key=value\\fR. An unknown key is an error that names its place and the nearest known key.\n");
    for (int i = 0; i < vl_option_count(); i++) {
        vl_option_info o = vl_option_get(i);
        printf(".TP\n\\fB");
        put_troff(o.key);
        printf("\\fR (");
        put_troff(o.type);
        if (o.initial[0]) {
            printf("; default ");
            put_troff(o.initial);
        }
        printf(")\n");
        put_troff(o.help);
        printf("\n");
    }
}

/* The bits of vl_affects as words. */
static void put_affects(unsigned bits)
{
    static const char *const words[VL_AFFECTS_COUNT] = {"forward", "rows", "split", "fit", "eval", "view", "machine"};
    const char *comma = "";
    for (int i = 0; i < VL_AFFECTS_COUNT; i++)
        if (bits >> i & 1u) {
            printf("%s%s", comma, words[i]);
            comma = ", ";
        }
}

/* A cell of a table of Markdown. */
static void put_cell(const char *text)
{
    for (const char *c = text; *c; c++)
        printf(*c == '|' ? "\\|" : "%c", *c);
}

/* docs/reference/options.md */
static void print_markdown(void)
{
    printf("# Options\n\nEvery key of the configuration. `vlens init` writes a file with all of them, and any key can "
           "be set on "
           "the command line\nwith `--set key=value`. Written by `vlens help --markdown`.\n\n"
           "*Affects* says what a key changes, and so what is compared before something is gone on with or reused: "
           "`forward`\n"
           "(the states of a sample), `rows` (which of them a cache holds, and how), `split` (which samples are held "
           "out), "
           "`fit`,\n`eval`, `view` (what a page or table shows), `machine` (where and how fast: nothing that is "
           "compared).\n\n"
           "| key | type | default | what | affects |\n|---|---|---|---|---|\n");
    for (int i = 0; i < vl_option_count(); i++) {
        vl_option_info o = vl_option_get(i);
        printf("| `%s` | ", o.key);
        put_cell(o.type);
        printf(" | %s%s%s | ", *o.initial ? "`" : "", o.initial, *o.initial ? "`" : "");
        put_cell(o.help);
        printf(" | ");
        put_affects(o.affects);
        printf(" |\n");
    }
}

static void print_man(void)
{
    printf(".\\\" Written by `vlens help --man`.\n.TH VLENS 1 \"\" \"vlens %s\" \"User Commands\"\n", vl_version());
    printf(
        ".SH NAME\nvlens \\- tuned lenses for vision\\-language models\n"
        ".SH SYNOPSIS\n.B vlens\n.I COMMAND\n[\\fIargument\\fR ...] [\\fIoption\\fR ...]\n"
        ".SH DESCRIPTION\nRuns a frozen model of a Hugging Face directory, keeps the hidden states of every layer in "
        "an HDF5 cache, fits one affine adapter per layer by the KL divergence to the model's own final "
        "distribution, measures it on pictures that were held out, and shows what each layer would say.\n"
        ".SH COMMANDS\nEvery command also takes \\fB\\-h\\fR, \\fB\\-\\-help\\fR.\n");
    each_command(man_command);
    man_configuration();
    printf(".SH SEVERAL PROCESSES\n\\fBmpirun \\-n K vlens cache|train|eval\\fR shares the work out, where vlens was "
           "built with MPI. The files are those of one process.\n"
           ".SH EXIT STATUS\n0 done, 1 failed, 2 wrong usage, 130 and 143 interrupted, with what was done saved.\n"
           ".SH ENVIRONMENT\n.TP\nHF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME\nwhere models are looked up by hub id\n"
           ".TP\nOMP_NUM_THREADS, GOMP_SPINCOUNT, OMP_WAIT_POLICY\nof the OpenMP runtime; without the last two, vlens "
           "starts itself again with a short spin\n"
           ".SH EXAMPLES\n.nf\nvlens init my.yaml \\-\\-set model=llava\\-hf/llava\\-1.5\\-7b\\-hf \\-\\-set "
           "data.samples=train.jsonl\nvlens train my.yaml\nvlens eval my.yaml \\-\\-report report.html\n.fi\n");
}

/* ---- bash -------------------------------------------------------------------------------------------------- */

/* The first two words as a pattern: "train *", or "bench gemm" of a command that has subjects. */
static void put_pattern(const char *name, const char *any)
{
    const char *space = strchr(name, ' ');
    printf("        '%s%s'%s)", name, space ? "" : " ", space ? "" : any);
}

static void bash_command(const cli_command *command, const cli_option *options)
{
    put_pattern(command->name, "*");
    printf(" words=\"--help");
    for (const cli_option *o = options; o->name; o++)
        printf(" --%s", o->name);
    printf("\" ;;\n");
}

/* The export formats as words: they are listed with commas. */
static void put_formats(void)
{
    for (const char *c = vl_export_formats(); *c; c++)
        if (*c != ',')
            putchar(*c);
}

/* The second words of a command that has subjects: "kl" of "bench kl". */
static void put_subject(const cli_command *command, const cli_option *options)
{
    (void)options;
    const char *space = strchr(command->name, ' ');
    if (space)
        printf("%s", space);
}

static void put_commands(void)
{
    for (const cli_command *c = cli_commands; c->name; c++)
        printf("%s ", c->name);
}

static void print_bash(void)
{
    printf("# Written by `vlens help --bash`.\n_vlens()\n{\n    local word=${COMP_WORDS[COMP_CWORD]} "
           "before=${COMP_WORDS[COMP_CWORD-1]} words=\n    COMPREPLY=()\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=\"");
    put_commands();
    printf("help version --help --version\"\n        COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
           "        return\n    fi\n"
           "    if [ \"$COMP_CWORD\" -eq 2 ]; then\n        case $before in\n        bench) words=\"--help");
    each_command(put_subject);
    printf("\" ;;\n        help) words=\"--man --bash --zsh ");
    put_commands();
    printf("\" ;;\n        esac\n        if [ -n \"$words\" ]; then\n"
           "            COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n            return\n        fi\n    fi\n"
           "    case $before in\n        --set) words=\"");
    for (int i = 0; i < vl_option_count(); i++)
        printf("%s%s=", i ? " " : "", vl_option_get(i).key);
    printf("\"\n            compopt -o nospace\n            COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
           "            return ;;\n        --format) COMPREPLY=($(compgen -W \"");
    put_formats();
    printf("\" -- \"$word\")); return ;;\n        --device) COMPREPLY=($(compgen -W \"auto cpu cuda\" -- \"$word\")); "
           "return ;;\n    esac\n    case \"${COMP_WORDS[1]} ${COMP_WORDS[2]}\" in\n");
    each_command(bash_command);
    printf("    esac\n    case $word in\n        -*) COMPREPLY=($(compgen -W \"$words\" -- \"$word\")) ;;\n"
           "        *) compopt -o filenames; COMPREPLY=($(compgen -f -- \"$word\")) ;;\n    esac\n}\n"
           "complete -F _vlens vlens\n");
}

/* ---- zsh --------------------------------------------------------------------------------------------------- */

/* Inside '...' of an _arguments specification. */
static void put_zsh(const char *text)
{
    for (const char *c = text; *c; c++) {
        if (*c == '\'')
            fputs("'\\''", stdout);
        else if (strchr("[]:\\", *c))
            printf("\\%c", *c);
        else
            putchar(*c == '\n' ? ' ' : *c);
    }
}

static void zsh_value(const cli_option *o)
{
    if (!o->argument)
        return;
    printf(":");
    put_zsh(o->argument);
    if (!strcmp(o->name, "set")) {
        printf(":->keys");
    } else if (!strcmp(o->name, "format")) {
        printf(":(");
        put_formats();
        printf(")");
    } else if (!strcmp(o->name, "device")) {
        printf(":(auto cpu cuda)");
    } else if (!strcmp(o->argument, "DIR") || !strcmp(o->argument, "FILE") || !strcmp(o->argument, "PATH") ||
               !strcmp(o->argument, "LENS")) {
        printf(":_files");
    } else {
        printf(": ");
    }
}

static void zsh_command(const cli_command *command, const cli_option *options)
{
    put_pattern(command->name, "*");
    printf(" _arguments -S '(-h --help)'{-h,--help}'[this text]'");
    for (const cli_option *o = options; o->name; o++) {
        printf(" \\\n            '%s--%s[", o->type == CLI_LIST ? "*" : "", o->name);
        put_zsh(o->help);
        printf("]");
        zsh_value(o);
        printf("'");
    }
    printf(" \\\n            '*:file:_files' ;;\n");
}

static void print_zsh(void)
{
    printf("#compdef vlens\n# Written by `vlens help --zsh`.\nlocal state line curcontext=$curcontext\n"
           "local -a commands keys\ncommands=(\n");
    for (const cli_command *c = cli_commands; c->name; c++) {
        printf("    '%s:", c->name);
        put_zsh(c->summary);
        printf("'\n");
    }
    printf("    'help:the list of commands, or the help of one'\n"
           "    'version:of vlens and its libraries'\n)\nkeys=(\n");
    for (int i = 0; i < vl_option_count(); i++)
        printf("    %s=\n", vl_option_get(i).key);
    printf(")\nif (( CURRENT == 2 )); then\n    _describe command commands\n    return\nfi\n"
           "shift words\n(( CURRENT-- ))\n"
           "if (( CURRENT == 2 )) && [[ $words[1] == bench ]]; then\n    compadd --");
    each_command(put_subject);
    printf("\n    return\nfi\n"
           "if (( CURRENT == 2 )) && [[ $words[1] == help ]]; then\n    _describe command commands\n    return\nfi\n"
           "case \"$words[1] $words[2]\" in\n");
    each_command(zsh_command);
    printf("esac\n[[ $state == keys ]] && compadd -S '' -a keys\n");
}

int cli_help(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*print)(void);
    } forms[] = {{"--man", print_man}, {"--bash", print_bash}, {"--zsh", print_zsh}, {"--markdown", print_markdown}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (argc == 1 && !strcmp(argv[0], forms[i].name)) {
            forms[i].print();
            return cli_print("");
        }
    fprintf(stderr,
            "vlens help: \"%s\" is no command; expected one, or --man (the manual page), --bash or --zsh (completion), "
            "--markdown (all options)\n",
            argv[0]);
    return EXIT_USAGE;
}
