/* The configuration file: YAML (libyaml's document, for its line marks) over the option table.
 *
 * Anchors, aliases and tags are refused: they bring exponential documents and nothing that a flat table of keys needs.
 */
#include <vlens/config.h>

#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/config/options.h"
#include "trainer/base/str.h"

enum { CONFIG_LIMIT = 1 << 20, KEY_SIZE = 128, DEPTH_LIMIT = 4 };

void vl_config_free(vl_config *config)
{
    if (!config)
        return;
    for (int i = 0; i < vl_options_count; i++)
        if (vl_options[i].type == VL_OPTION_TEXT)
            vl_free(*(char **)((char *)config + vl_options[i].offset));
    vl_free(config->source);
    vl_free(config);
}

vl_status vl_config_new(vl_config **out, vl_error *err)
{
    *out = NULL;
    vl_config *config = vl_calloc(1, sizeof *config);
    if (!config)
        return vl_fail_nomem(err, "configuration");
    for (int i = 0; i < vl_options_count; i++) {
        vl_status status = vl_option_set(config, &vl_options[i], vl_options[i].initial, err);
        if (status != VL_OK) {
            vl_config_free(config);
            return status;
        }
    }
    *out = config;
    return VL_OK;
}

static vl_status unknown_key(const char *key, vl_error *err)
{
    return vl_fail(err, VL_EINVAL, "unknown key \"%s\"; the nearest known key is \"%s\"", key, vl_option_nearest(key));
}

vl_status vl_config_set(vl_config *config, const char *assignment, vl_error *err)
{
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment || equals - assignment >= KEY_SIZE)
        return vl_fail(err, VL_EINVAL, "\"%s\" is no assignment, expected KEY=VALUE", assignment);
    char key[KEY_SIZE];
    snprintf(key, sizeof key, "%.*s", (int)(equals - assignment), assignment);
    const vl_option *option = vl_option_find(key);
    return option ? vl_option_set(config, option, equals + 1, err) : unknown_key(key, err);
}

typedef struct reader {
    vl_config *config;
    yaml_document_t document;
    const char *name;
    bool seen[256]; /* by option: a key given twice is an error */
    vl_error *err;
} reader;

/* An error with the place of a node in front. */
static vl_status at_node(reader *r, const yaml_node_t *node, vl_status status)
{
    return vl_error_prefix(r->err, status, "%s:%zu:%zu: ", r->name, node->start_mark.line + 1,
                           node->start_mark.column + 1);
}

static bool is_group(const char *key)
{
    size_t n = strlen(key);
    for (int i = 0; i < vl_options_count; i++)
        if (!strncmp(vl_options[i].key, key, n) && vl_options[i].key[n] == '.')
            return true;
    return false;
}

/* A scalar as text; a list of scalars as "a,b,c". */
static vl_status node_text(reader *r, vl_str *out, const yaml_node_t *node)
{
    if (node->type == YAML_SCALAR_NODE) {
        const char *text = (const char *)node->data.scalar.value;
        bool plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        if (strlen(text) != node->data.scalar.length)
            return vl_fail(r->err, VL_EINVAL, "a value with a NUL character");
        bool null = plain && (!strcmp(text, "null") || !strcmp(text, "~"));
        vl_str_puts(out, null ? "" : text);
        return VL_OK;
    }
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        const yaml_node_t *child = yaml_document_get_node(&r->document, *item);
        if (child->type != YAML_SCALAR_NODE)
            return vl_fail(r->err, VL_EINVAL, "a list inside a list");
        vl_str_printf(out, "%s%s", out->size ? "," : "", (const char *)child->data.scalar.value);
    }
    return VL_OK;
}

static vl_status read_value(reader *r, const char *key, const yaml_node_t *key_node, const yaml_node_t *node)
{
    const vl_option *option = vl_option_find(key);
    if (!option)
        return at_node(r, key_node,
                       is_group(key) ? vl_fail(r->err, VL_EINVAL, "\"%s\" is a group of keys, expected a mapping", key)
                                     : unknown_key(key, r->err));
    if (r->seen[option - vl_options])
        return at_node(r, key_node, vl_fail(r->err, VL_EINVAL, "\"%s\" is given twice", key));
    r->seen[option - vl_options] = true;
    if (node->type == YAML_MAPPING_NODE || (node->type == YAML_SEQUENCE_NODE && option->type != VL_OPTION_SET))
        return at_node(r, node,
                       vl_fail(r->err, VL_EINVAL, "%s is a single value, found a %s", key,
                               node->type == YAML_MAPPING_NODE ? "mapping" : "list"));
    vl_str text = VL_STR_INIT;
    vl_status status = node_text(r, &text, node);
    if (status == VL_OK && text.failed)
        status = vl_fail_nomem(r->err, "configuration");
    if (status == VL_OK)
        status = vl_option_set(r->config, option, text.data ? text.data : "", r->err);
    vl_str_clear(&text);
    return status == VL_OK ? VL_OK : at_node(r, node, status);
}

static vl_status read_mapping(reader *r, const char *prefix, const yaml_node_t *node, int depth)
{
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *name = yaml_document_get_node(&r->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(&r->document, pair->value);
        char key[KEY_SIZE];
        if (name->type != YAML_SCALAR_NODE || snprintf(key, sizeof key, "%s%s%s", prefix, *prefix ? "." : "",
                                                       (const char *)name->data.scalar.value) >= (int)sizeof key)
            return at_node(r, name, vl_fail(r->err, VL_EINVAL, "a key must be a short word"));
        if (value->type == YAML_MAPPING_NODE && is_group(key) && depth < DEPTH_LIMIT)
            VL_TRY(read_mapping(r, key, value, depth + 1));
        else
            VL_TRY(read_value(r, key, name, value));
    }
    return VL_OK;
}

/* +1 where a list or mapping opens, -1 where it ends. */
static int opens(yaml_token_type_t type)
{
    switch (type) {
    case YAML_BLOCK_SEQUENCE_START_TOKEN:
    case YAML_BLOCK_MAPPING_START_TOKEN:
    case YAML_FLOW_SEQUENCE_START_TOKEN:
    case YAML_FLOW_MAPPING_START_TOKEN: return 1;
    case YAML_BLOCK_END_TOKEN:
    case YAML_FLOW_SEQUENCE_END_TOKEN:
    case YAML_FLOW_MAPPING_END_TOKEN: return -1;
    default: return 0;
    }
}

/* One pass over the tokens alone, before a document is built, which takes the square of its depth in time. */
static vl_status refuse_tokens(const char *name, const char *text, size_t size, vl_error *err)
{
    yaml_parser_t parser;
    yaml_token_t token;
    vl_status status = VL_OK;
    int depth = 0;
    if (!yaml_parser_initialize(&parser))
        return vl_fail_nomem(err, "YAML parser");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    for (bool more = true; more && status == VL_OK;) {
        if (!yaml_parser_scan(&parser, &token))
            break; /* the real pass reports it */
        if (token.type == YAML_ALIAS_TOKEN || token.type == YAML_ANCHOR_TOKEN || token.type == YAML_TAG_TOKEN)
            status = vl_fail(err, VL_EINVAL, "%s:%zu:%zu: anchors, aliases and tags are not allowed", name,
                             token.start_mark.line + 1, token.start_mark.column + 1);
        depth += opens(token.type);
        if (depth > DEPTH_LIMIT + 2) /* the root, the groups below it, and a list */
            status = vl_fail(err, VL_EINVAL, "%s:%zu:%zu: nested too deeply", name, token.start_mark.line + 1,
                             token.start_mark.column + 1);
        more = token.type != YAML_STREAM_END_TOKEN;
        yaml_token_delete(&token);
    }
    yaml_parser_delete(&parser);
    return status;
}

static vl_status load_document(reader *r, yaml_parser_t *parser)
{
    if (yaml_parser_load(parser, &r->document))
        return VL_OK;
    if (parser->error == YAML_MEMORY_ERROR)
        return vl_fail_nomem(r->err, "YAML parser");
    return vl_fail(r->err, VL_EINVAL, "%s:%zu:%zu: %s", r->name, parser->problem_mark.line + 1,
                   parser->problem_mark.column + 1, parser->problem ? parser->problem : "not YAML");
}

/* What stands behind the document would be ignored. */
static vl_status refuse_more(reader *r, yaml_parser_t *parser)
{
    VL_TRY(load_document(r, parser));
    const yaml_node_t *root = yaml_document_get_root_node(&r->document);
    vl_status status = VL_OK;
    if (root)
        status = at_node(r, root, vl_fail(r->err, VL_EINVAL, "a second document, expected one"));
    yaml_document_delete(&r->document);
    return status;
}

static vl_status read_document(reader *r, yaml_parser_t *parser)
{
    VL_TRY(load_document(r, parser));
    const yaml_node_t *root = yaml_document_get_root_node(&r->document);
    vl_status status = VL_OK;
    if (root && root->type == YAML_MAPPING_NODE)
        status = read_mapping(r, "", root, 0);
    else if (root)
        status = vl_fail(r->err, VL_EINVAL, "%s:1:1: expected a mapping of keys to values", r->name);
    yaml_document_delete(&r->document);
    return status == VL_OK && root ? refuse_more(r, parser) : status;
}

vl_status vl_config_read(vl_config **out, const char *path, vl_error *err)
{
    char *text = NULL;
    size_t size = 0;
    vl_status status = VL_OK;
    reader r = {.name = path, .err = err};
    yaml_parser_t parser;
    *out = NULL;
    VL_TRY(vl_file_read(&text, &size, path, CONFIG_LIMIT, err));
    VL_GOTO(refuse_tokens(path, text, size, err));
    VL_GOTO(vl_config_new(&r.config, err));
    r.config->source = vl_strdup(path);
    if (!yaml_parser_initialize(&parser)) {
        status = vl_fail_nomem(err, "YAML parser");
        goto done;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    status = read_document(&r, &parser);
    yaml_parser_delete(&parser);
done:
    vl_free(text);
    if (status != VL_OK)
        vl_config_free(r.config);
    else
        *out = r.config;
    return status;
}

vl_status vl_config_check(const vl_config *c, vl_error *err)
{
    if (c->data.samples && c->data.text)
        return vl_fail(err, VL_EINVAL, "data.samples and data.text are both given, expected one of them");
    double sum = 0;
    for (int i = 0; i < VL_CLASS_COUNT; i++)
        sum += c->lens.class_weights[i];
    if (sum <= 0)
        return vl_fail(err, VL_EINVAL, "lens.class_weights are all 0, expected at least one above");
    if (c->lens.targets == VL_TARGETS_SHUFFLED && c->lens.loss == VL_LOSS_CE)
        return vl_fail(err, VL_EINVAL,
                       "lens.targets is shuffled and lens.loss is ce, expected another loss: the "
                       "target of cross-entropy is the next token, not the model's distribution");
    if (c->fit.steps == 0 && c->fit.epochs <= 0 && c->lens.init == VL_INIT_ZERO)
        return vl_fail(err, VL_EINVAL, "fit.steps and fit.epochs are both 0 and lens.init is zero: nothing to fit");
    if (!c->output)
        return vl_fail(err, VL_EINVAL, "output is empty, expected a folder");
    return VL_OK;
}

/* A value as YAML: quoted where a plain scalar would be read differently. */
static void write_scalar(vl_str *out, const vl_option *option, const char *text)
{
    if (option->type == VL_OPTION_SET) {
        vl_str_putc(out, '[');
        for (const char *c = text; *c; c++)
            vl_str_printf(out, *c == ',' ? ", " : "%c", *c);
        vl_str_putc(out, ']');
    } else if (option->type != VL_OPTION_TEXT) {
        vl_str_puts(out, text);
    } else {
        vl_str_putc(out, '"');
        for (const char *c = text; *c; c++) {
            if (*c == '"' || *c == '\\')
                vl_str_putc(out, '\\');
            vl_str_putc(out, *c);
        }
        vl_str_putc(out, '"');
    }
}

/* Opens the groups of `key` that differ from those of the key before; returns the depth. */
static int open_groups(vl_str *out, const char *key, const char *previous)
{
    int depth = 0;
    size_t start = 0;
    for (size_t i = 0; key[i]; i++) {
        if (key[i] != '.')
            continue;
        if (strncmp(previous, key, i + 1))
            vl_str_printf(out, "%s%*s%.*s:\n", depth ? "" : "\n", 2 * depth, "", (int)(i - start), key + start);
        depth++;
        start = i + 1;
    }
    return depth;
}

vl_status vl_config_write(char **out, const vl_config *config, vl_error *err)
{
    vl_str yaml = VL_STR_INIT;
    const char *previous = "";
    *out = NULL;
    for (int i = 0; i < vl_options_count; i++) {
        const vl_option *option = &vl_options[i];
        int depth = open_groups(&yaml, option->key, previous);
        const char *dot = strrchr(option->key, '.');
        char *text = vl_option_text(config, option);
        if (!text)
            yaml.failed = true;
        vl_str_printf(&yaml, "%*s# %s\n%*s%s: ", 2 * depth, "", option->help, 2 * depth, "",
                      dot ? dot + 1 : option->key);
        write_scalar(&yaml, option, text ? text : "");
        vl_str_putc(&yaml, '\n');
        vl_free(text);
        previous = option->key;
    }
    if (yaml.failed) {
        vl_str_clear(&yaml);
        return vl_fail_nomem(err, "configuration text");
    }
    *out = yaml.data;
    return VL_OK;
}
