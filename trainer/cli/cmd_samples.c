#include <inttypes.h>
#include <string.h>

#include "trainer/cli/cli.h"

typedef struct printer {
    const vl_tokenizer *tokenizer;
    const vl_samples_summary *summary;
    const char *file;
    int64_t shown;
} printer;

/* One line of text: control characters as \n, \t, or their code. */
static void print_line(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '\n' || *c == '\t' || *c == '\r')
            printf("\\%c", *c == '\n' ? 'n' : *c == '\t' ? 't' : 'r');
        else if (*c < 0x20 || *c == 0x7f)
            printf("\\x%02x", *c);
        else
            putchar(*c);
    }
}

static void print_json_text(const char *text)
{
    putchar('"');
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\')
            printf("\\%c", *c);
        else if (*c < 0x20)
            printf("\\u%04x", *c);
        else
            putchar(*c);
    }
    putchar('"');
}

static void count_classes(int64_t count[VL_CLASS_COUNT], const vl_sequence *s)
{
    memset(count, 0, VL_CLASS_COUNT * sizeof *count);
    for (int64_t t = 0; t < s->n_tokens; t++)
        count[s->token_class[t]]++;
}

/* ---- for people -------------------------------------------------------------------------------------------- */

static void print_head(const printer *p)
{
    printf("%s: ", p->file);
    if (p->summary->taken_as[0])
        printf("taken as %s; ", p->summary->taken_as);
    printf("%" PRId64 " samples", p->summary->n_samples);
    if (p->summary->n_faults)
        printf(", %" PRId64 " that cannot be read", p->summary->n_faults);
    putchar('\n');
}

static void print_turns(const vl_sample_preview *s)
{
    int image = 0;
    for (int i = 0; i < s->n_turns; i++) {
        printf("  %-9s ", s->turns[i].role);
        for (int k = 0; k < s->turns[i].n_parts; k++)
            if (s->turns[i].parts[k].text)
                print_line(s->turns[i].parts[k].text);
            else
                printf("[%s] ", image < s->n_images ? s->image_paths[image++] : "picture");
        putchar('\n');
    }
}

/* Tokens of one class, side by side. */
static void print_class(const printer *p, const vl_sequence *s, vl_token_class token_class)
{
    bool first = true;
    for (int64_t t = 0; t < s->n_tokens; t++) {
        if (s->token_class[t] != token_class)
            continue;
        const char *piece = vl_tokenizer_piece(p->tokenizer, s->ids[t]);
        if (first)
            printf("  %-9s ", vl_token_class_name(token_class));
        else
            fputs("|", stdout);
        first = false;
        print_line(piece ? piece : "?");
    }
    if (!first)
        putchar('\n');
}

static void print_sequence(const printer *p, const vl_sequence *s)
{
    int64_t count[VL_CLASS_COUNT];
    const char *between = "";
    count_classes(count, s);
    printf("  tokens    %" PRId64 " (", s->n_tokens);
    for (int c = 0; c < VL_CLASS_COUNT; c++)
        if (count[c]) {
            printf("%s%s %" PRId64, between, vl_token_class_name((vl_token_class)c), count[c]);
            between = ", ";
        }
    puts(")");
    print_class(p, s, VL_LAST);
    print_class(p, s, VL_ANSWER);
    for (int i = 0; i < s->n_images; i++)
        printf("  picture   %s: %d x %d\n", s->images[i].path, s->images[i].width, s->images[i].height);
}

static void print_sample(void *user, const vl_sample_preview *s)
{
    printer *p = user;
    if (p->shown++ == 0)
        print_head(p);
    printf("\nsample %" PRId64, s->number);
    if (s->line)
        printf(" (line %" PRId64 ")", s->line);
    putchar('\n');
    print_turns(s);
    if (s->text[0]) {
        fputs("  written   ", stdout);
        print_line(s->text);
        putchar('\n');
    }
    if (s->sequence)
        print_sequence(p, s->sequence);
    if (s->fault)
        printf("  cannot be used: %s\n", s->fault);
}

/* ---- for programs ------------------------------------------------------------------------------------------ */

static void print_json_turns(const vl_sample_preview *s)
{
    int image = 0;
    fputs(", \"turns\": [", stdout);
    for (int i = 0; i < s->n_turns; i++) {
        printf("%s{\"role\": \"%s\", \"parts\": [", i ? ", " : "", s->turns[i].role);
        for (int k = 0; k < s->turns[i].n_parts; k++) {
            const char *text = s->turns[i].parts[k].text;
            fputs(k ? ", " : "", stdout);
            fputs(text ? "{\"text\": " : "{\"image\": ", stdout);
            print_json_text(text ? text : image < s->n_images ? s->image_paths[image++] : "");
            putchar('}');
        }
        fputs("]}", stdout);
    }
    putchar(']');
}

static void print_json_sequence(const vl_sequence *s)
{
    int64_t count[VL_CLASS_COUNT];
    count_classes(count, s);
    fputs(", \"tokens\": {", stdout);
    for (int c = 0; c < VL_CLASS_COUNT; c++)
        printf("%s\"%s\": %" PRId64, c ? ", " : "", vl_token_class_name((vl_token_class)c), count[c]);
    fputs("}, \"ids\": [", stdout);
    for (int64_t t = 0; t < s->n_tokens; t++)
        printf("%s%d", t ? ", " : "", s->ids[t]);
    fputs("], \"classes\": [", stdout);
    for (int64_t t = 0; t < s->n_tokens; t++)
        printf("%s\"%s\"", t ? ", " : "", vl_token_class_name((vl_token_class)s->token_class[t]));
    fputs("], \"turn\": [", stdout);
    for (int64_t t = 0; t < s->n_tokens; t++)
        printf("%s%d", t ? ", " : "", s->turn[t]);
    fputs("], \"images\": [", stdout);
    for (int i = 0; i < s->n_images; i++) {
        printf("%s{\"path\": ", i ? ", " : "");
        print_json_text(s->images[i].path);
        printf(", \"sha256\": \"%s\", \"width\": %d, \"height\": %d}", s->images[i].sha256, s->images[i].width,
               s->images[i].height);
    }
    putchar(']');
}

static void print_sample_json(void *user, const vl_sample_preview *s)
{
    printer *p = user;
    if (p->shown++ == 0) {
        fputs("{\"file\": ", stdout);
        print_json_text(p->file);
        printf(", \"taken_as\": \"%s\", \"samples\": %" PRId64 ", \"faults\": %" PRId64 ", \"first\": [\n",
               p->summary->taken_as, p->summary->n_samples, p->summary->n_faults);
    } else {
        fputs(",\n", stdout);
    }
    printf("{\"sample\": %" PRId64 ", \"line\": %" PRId64, s->number, s->line);
    print_json_turns(s);
    fputs(", \"text\": ", stdout);
    print_json_text(s->text);
    if (s->sequence)
        print_json_sequence(s->sequence);
    if (s->fault) {
        fputs(", \"fault\": ", stdout);
        print_json_text(s->fault);
    }
    putchar('}');
}

/* ------------------------------------------------------------------------------------------------------------ */

int cmd_samples(const cli_command *self, int argc, char **argv)
{
    cli_common common = CLI_COMMON_INIT;
    int64_t most = 3;
    const char *path = NULL;
    const cli_option options[] = {
        {"n", 'n', CLI_INT, &most, "N", "samples shown (default 3)"},
        CLI_COMMON_OPTIONS(common),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, &path, 1, 1);
    if (code >= 0)
        return code;
    vl_error err = VL_ERROR_INIT;
    vl_config *config = NULL;
    vl_device *device = NULL;
    vl_model *model = NULL;
    vl_samples_summary summary;
    vl_status status = cli_open(&config, &device, path, &common, &err);
    if (status == VL_OK && most < 1)
        status = VL_EINVAL,
        snprintf(err.message, sizeof err.message, "--n is %lld, expected at least 1", (long long)most);
    if (status == VL_OK)
        status = cli_open_model(&model, config, device, &err);
    if (status == VL_OK) {
        printer p = {vl_model_tokenizer(model), &summary,
                     config->data.text && config->data.text[0] ? config->data.text : config->data.samples, 0};
        status =
            vl_samples_preview(&summary, config, model, most, common.json ? print_sample_json : print_sample, &p, &err);
        if (status == VL_OK && common.json)
            puts("\n]}");
    }
    if (status != VL_OK)
        code = cli_fail(status, &err);
    vl_model_close(model);
    vl_device_close(device);
    vl_config_free(config);
    return status == VL_OK ? cli_print("") : code;
}
