#include "trainer/hf/tokenizer_parts.h"

#include <string.h>

#include "trainer/base/json.h"
#include "trainer/base/mem.h"

#define GPT2_REGEX "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

vl_status vl_metaspace_parse(vl_metaspace *out, const json_t *component, const char *where, vl_error *err)
{
    const char *text, *scheme = NULL;
    size_t size;
    uint32_t code;
    bool prefix = true;
    *out = (vl_metaspace){"", VL_PREPEND_ALWAYS, true};
    VL_TRY(vl_need_text(&text, &size, component, "replacement", where, err));
    if (size == 0 || vl_utf8_next(&code, text, size) != (int)size || code == 0)
        return vl_fail(err, VL_EFORMAT, "%s: Metaspace: \"replacement\" is not one character", where);
    memcpy(out->replacement, text, size);
    VL_TRY(vl_json_bool(&out->split, component, "split", where, err));
    VL_TRY(vl_json_bool(&prefix, component, "add_prefix_space", where, err)); /* the key of older files */
    VL_TRY(vl_json_string(&scheme, component, "prepend_scheme", where, err));
    if (!scheme)
        out->prepend = prefix ? VL_PREPEND_ALWAYS : VL_PREPEND_NEVER;
    else if (strcmp(scheme, "first") == 0)
        out->prepend = VL_PREPEND_FIRST;
    else if (strcmp(scheme, "never") == 0)
        out->prepend = VL_PREPEND_NEVER;
    else if (strcmp(scheme, "always") != 0)
        return vl_fail(err, VL_EFORMAT,
                       "%s: Metaspace: \"prepend_scheme\" is \"%.40s\", expected first, always or never", where,
                       scheme);
    if (!prefix && out->prepend != VL_PREPEND_NEVER)
        return vl_fail(err, VL_EFORMAT,
                       "%s: Metaspace: \"add_prefix_space\" false contradicts \"prepend_scheme\" \"%s\"", where,
                       scheme);
    return VL_OK;
}

static vl_status parse_behavior(vl_split_behavior *out, const json_t *component, const char *where, vl_error *err)
{
    static const char *const names[] = {[VL_ISOLATED] = "Isolated",
                                        [VL_REMOVED] = "Removed",
                                        [VL_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
                                        [VL_MERGED_WITH_NEXT] = "MergedWithNext",
                                        [VL_CONTIGUOUS] = "Contiguous"};
    const char *name;
    size_t size;
    VL_TRY(vl_need_text(&name, &size, component, "behavior", where, err));
    for (int i = 0; i <= VL_CONTIGUOUS; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (vl_split_behavior)i;
            return VL_OK;
        }
    return vl_fail(
        err, VL_EFORMAT,
        "%s: Split: \"behavior\" is \"%.40s\", expected Isolated, Removed, MergedWithPrevious, MergedWithNext "
        "or Contiguous",
        where, name);
}

static vl_status parse_kind(vl_splitter *s, const json_t *component, const char *type, const char *where, vl_error *err)
{
    if (strcmp(type, "Split") == 0) {
        s->kind = VL_SPLIT_PATTERN;
        VL_TRY(vl_pattern_parse(&s->pattern, component, "pattern", where, err));
        VL_TRY(parse_behavior(&s->behavior, component, where, err));
        return vl_json_bool(&s->invert, component, "invert", where, err);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        s->kind = VL_SPLIT_BYTE_LEVEL;
        s->add_prefix_space = s->use_regex = true;
        VL_TRY(vl_json_bool(&s->add_prefix_space, component, "add_prefix_space", where, err));
        VL_TRY(vl_json_bool(&s->use_regex, component, "use_regex", where, err));
        return s->use_regex ? vl_pattern_compile(&s->pattern, GPT2_REGEX, strlen(GPT2_REGEX), where, err) : VL_OK;
    }
    if (strcmp(type, "Digits") == 0) {
        bool individual = false;
        s->kind = VL_SPLIT_DIGITS;
        VL_TRY(vl_json_bool(&individual, component, "individual_digits", where, err));
        s->behavior = individual ? VL_ISOLATED : VL_CONTIGUOUS;
        return VL_OK;
    }
    if (strcmp(type, "Metaspace") == 0) {
        s->kind = VL_SPLIT_METASPACE;
        s->behavior = VL_MERGED_WITH_NEXT;
        VL_TRY(vl_metaspace_parse(&s->metaspace, component, where, err));
        return vl_pattern_literal(&s->pattern, s->metaspace.replacement, strlen(s->metaspace.replacement), where, err);
    }
    return vl_fail(err, VL_EUNSUPPORTED,
                   "%s: type \"%.60s\" (supported: Sequence, Split, ByteLevel, Digits, Metaspace)", where, type);
}

static vl_status add(void *owner, const json_t *component, const char *type, const char *where, vl_error *err)
{
    vl_splitters *all = owner;
    if (!vl_grow(&all->items, &all->capacity, all->n, sizeof *all->items))
        return vl_fail_nomem(err, where);
    vl_splitter *s = &all->items[all->n++];
    *s = (vl_splitter){0};
    return parse_kind(s, component, type, where, err);
}

vl_status vl_splitters_parse(vl_splitters *out, const json_t *root, const char *where, vl_error *err)
{
    return vl_each_component(root, "pretokenizers", add, out, where, err);
}

void vl_splitters_free(vl_splitters *splitters)
{
    for (size_t i = 0; i < splitters->n; i++)
        vl_pattern_free(&splitters->items[i].pattern);
    vl_free(splitters->items);
    *splitters = (vl_splitters){NULL, 0, 0};
}
