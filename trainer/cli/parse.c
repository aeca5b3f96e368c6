/* Command-line options from a table: parsing and help out of one place. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/cli/cli.h"

void cli_print_help(const cli_command *command, const cli_option *options)
{
    printf("usage: vlens %s %s\n\n%s.\n", command->name, command->usage, command->summary);
    if (command->detail)
        printf("%s\n", command->detail);
    printf("\n");
    for (const cli_option *o = options; o->name; o++) {
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", o->name, o->argument ? " " : "", o->argument ? o->argument : "");
        char letter[8] = "    ";
        if (o->letter)
            snprintf(letter, sizeof letter, "-%c, ", o->letter);
        printf("  %s%-26s %s\n", letter, left, o->help);
    }
    printf("  -h, %-26s %s\n", "--help", "this text");
}

static int usage_error(const cli_command *command, const char *what, const char *name)
{
    fprintf(stderr, "vlens %s: %s%s; vlens %s --help says more\n", command->name, what, name, command->name);
    return EXIT_USAGE;
}

/* The option named by argv[i] ("--name", "--name=value" or "-x"); *value points behind "=" or is NULL. */
static const cli_option *find_option(const cli_option *options, const char *word, const char **value)
{
    *value = NULL;
    for (const cli_option *o = options; o->name; o++) {
        size_t n = strlen(o->name);
        if (word[1] == '-' && !strncmp(word + 2, o->name, n) && (word[2 + n] == 0 || word[2 + n] == '=')) {
            *value = word[2 + n] ? word + 3 + n : NULL;
            return o;
        }
        if (word[1] != '-' && o->letter && word[1] == o->letter && !word[2])
            return o;
    }
    return NULL;
}

static bool store(const cli_option *option, const char *value)
{
    char *end;
    cli_list *list = option->target;
    switch (option->type) {
    case CLI_FLAG: *(bool *)option->target = true; return true;
    case CLI_TEXT: *(const char **)option->target = value; return true;
    case CLI_INT:
        errno = 0;
        *(int64_t *)option->target = strtoll(value, &end, 10);
        return end != value && !*end && !errno;
    case CLI_LIST:
        if (list->n == CLI_LIST_MAX)
            return false;
        list->items[list->n++] = value;
        return true;
    }
    return false;
}

static const char *running = "";

const char *cli_command_name(void)
{
    return running;
}

int cli_parse(const cli_command *command, const cli_option *options, int argc, char **argv, const char **positional,
              int min, int max)
{
    int n = 0;
    bool only_positional = false;
    running = command->name;
    if (cli_describe(command, options))
        return EXIT_DONE;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i], *value;
        if (only_positional || word[0] != '-' || !word[1]) {
            if (n == max)
                return usage_error(command, "one argument too many: ", word);
            positional[n++] = word;
            continue;
        }
        if (!strcmp(word, "--")) {
            only_positional = true;
            continue;
        }
        if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
            cli_print_help(command, options);
            return EXIT_DONE;
        }
        const cli_option *option = find_option(options, word, &value);
        if (!option)
            return usage_error(command, "unknown option ", word);
        if (option->type == CLI_FLAG && value)
            return usage_error(command, "no value is expected in ", word);
        if (option->type != CLI_FLAG && !value) {
            if (i + 1 == argc)
                return usage_error(command, "a value is missing after ", word);
            value = argv[++i];
        }
        if (!store(option, value))
            return usage_error(command, "an integer (or fewer repetitions) is expected after --", option->name);
    }
    if (n < min)
        return usage_error(command, "an argument is missing: ", command->usage);
    return -1;
}
