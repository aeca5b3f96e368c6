#include <string.h>

#include "trainer/cli/cli.h"

int cmd_export(const cli_command *self, int argc, char **argv)
{
    static const struct {
        const char *name;
        vl_dtype dtype;
    } types[] = {{"float32", VL_F32}, {"float16", VL_F16}, {"bfloat16", VL_BF16},
                 {"fp32", VL_F32},    {"fp16", VL_F16},    {"bf16", VL_BF16}};
    const char *path = NULL, *format = NULL, *out = NULL, *type = "float32", *model = NULL, *cache = NULL;
    bool json = false;
    const cli_option options[] = {
        {"format", 'f', CLI_TEXT, &format, "NAME", "the format; without it the list is printed"},
        {"out", 'o', CLI_TEXT, &out, "PATH", "where to write"},
        {"dtype", 0, CLI_TEXT, &type, "TYPE", "float32 (default) | float16 | bfloat16"},
        {"model", 0, CLI_TEXT, &model, "DIR", "the model that the lens belongs to (checked; for unembed_hash)"},
        {"cache", 0, CLI_TEXT, &cache, "DIR", "or a cache of it"},
        {"json", 0, CLI_FLAG, &json, NULL, "print the result as JSON on stdout"},
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, &path, 1, 1);
    if (code >= 0)
        return code;
    if (!format || !out) {
        fprintf(stderr, "vlens export: --format (%s) and --out are needed\n", vl_export_formats());
        return EXIT_USAGE;
    }
    if (model && cache) {
        fprintf(stderr, "vlens export: --model and --cache are given, expected one of them\n");
        return EXIT_USAGE;
    }
    size_t t = 0;
    while (t < sizeof types / sizeof types[0] && strcmp(type, types[t].name))
        t++;
    if (t == sizeof types / sizeof types[0]) {
        fprintf(stderr, "vlens export: --dtype is \"%s\", expected float32, float16 or bfloat16\n", type);
        return EXIT_USAGE;
    }
    vl_error err = VL_ERROR_INIT;
    vl_lens *lens = NULL;
    cli_head head = {0};
    vl_status status = vl_lens_open(&lens, path, &err);
    if (status == VL_OK && (model || cache))
        status = cli_head_open(&head, model, cache, &err);
    if (status == VL_OK)
        status = vl_lens_export(lens, &(vl_export_options){format, out, types[t].dtype, head.head}, &err);
    cli_head_close(&head);
    vl_lens_close(lens);
    if (status != VL_OK)
        return cli_fail(status, &err);
    if (!strcmp(format, "jlens"))
        fprintf(stderr,
                "vlens: note: jlens has no room for biases and for the adapter of state 0: they are left out\n");
    if (json) {
        printf("{\"wrote\": ");
        cli_put_json(out);
        printf(", \"format\": \"%s\", \"dtype\": \"%s\"}\n", format, vl_dtype_name(types[t].dtype));
    } else {
        printf("wrote %s (%s, %s)\n", out, format, vl_dtype_name(types[t].dtype));
    }
    return cli_print("");
}
