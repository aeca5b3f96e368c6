#include <string.h>

#include "trainer/cli/cli.h"

int cmd_export(const cli_command *self, int argc, char **argv)
{
    static const struct {
        const char *name;
        vl_dtype dtype;
    } types[] = {{"float32", VL_F32}, {"float16", VL_F16}, {"bfloat16", VL_BF16},
                 {"fp32", VL_F32},    {"fp16", VL_F16},    {"bf16", VL_BF16}};
    const char *path = NULL, *format = NULL, *out = NULL, *type = "float32";
    const cli_option options[] = {
        {"format", 'f', CLI_TEXT, &format, "NAME", "the format; without it the list is printed"},
        {"out", 'o', CLI_TEXT, &out, "PATH", "where to write"},
        {"dtype", 0, CLI_TEXT, &type, "TYPE", "float32 (default) | float16 | bfloat16"},
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, &path, 1, 1);
    if (code >= 0)
        return code;
    if (!format || !out) {
        fprintf(stderr, "vlens export: --format (%s) and --out are needed\n", vl_export_formats());
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
    vl_status status = vl_lens_open(&lens, path, &err);
    if (status == VL_OK)
        status = vl_lens_export(lens, format, out, types[t].dtype, &err);
    vl_lens_close(lens);
    if (status != VL_OK)
        return cli_fail(status, &err);
    printf("wrote %s (%s, %s)\n", out, format, vl_dtype_name(types[t].dtype));
    return cli_print("");
}
