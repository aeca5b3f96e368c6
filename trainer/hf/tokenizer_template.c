#include "trainer/hf/tokenizer_parts.h"

#include <string.h>

#include "trainer/base/mem.h"

struct build {
    vl_template *out;
    const vl_vocab *vocab;
};

/* The ids of {"SpecialToken": {"id": NAME}}: "special_tokens" says them. */
static vl_status add_special(const struct build *b, vl_ids *ids, const json_t *special, const json_t *table,
                             const char *where, vl_error *err)
{
    const char *name;
    size_t size, i;
    VL_TRY(vl_need_text(&name, &size, special, "id", where, err));
    const json_t *list = json_object_get(json_object_get(table, name), "ids"), *id;
    if (!json_is_array(list))
        return vl_fail(err, VL_EFORMAT, "%s: \"%.80s\" is not in \"special_tokens\"", where, name);
    json_array_foreach(list, i, id)
    {
        json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
        if (value < 0 || value >= b->vocab->size || !b->vocab->flags[value])
            return vl_fail(err, VL_EFORMAT, "%s: \"%.80s\" stands for id %lld, which no token has", where, name,
                           (long long)value);
        if (!vl_ids_add(ids, (int32_t)value))
            return vl_fail_nomem(err, where);
    }
    return VL_OK;
}

/* What stands before and after the text. Of two templates in a Sequence the later one is the outer one. */
static vl_status add_template(const struct build *b, const json_t *component, const char *where, vl_error *err)
{
    const json_t *single = json_object_get(component, "single"), *part;
    vl_ids before = {NULL, 0, 0};
    vl_status status = VL_OK;
    bool text_seen = false;
    size_t i;
    if (!json_is_array(single))
        return vl_fail(err, VL_EFORMAT, "%s: TemplateProcessing without a list \"single\"", where);
    json_array_foreach(single, i, part)
    {
        const json_t *special = json_object_get(part, "SpecialToken"), *sequence = json_object_get(part, "Sequence");
        const json_t *name = json_object_get(sequence, "id");
        if (special) {
            VL_GOTO(add_special(b, text_seen ? &b->out->after : &before, special,
                                json_object_get(component, "special_tokens"), where, err));
        } else if (!text_seen && json_is_string(name) && strcmp(json_string_value(name), "A") == 0) {
            text_seen = true;
        } else {
            status = vl_fail(err, VL_EUNSUPPORTED, "%s: \"single\"[%zu] (supported: SpecialToken, and Sequence A once)",
                             where, i);
            goto done;
        }
    }
    if (!text_seen) {
        status = vl_fail(err, VL_EFORMAT, "%s: \"single\" has no Sequence A", where);
        goto done;
    }
    for (i = 0; i < b->out->before.n; i++)
        if (!vl_ids_add(&before, b->out->before.items[i])) {
            status = vl_fail_nomem(err, where);
            goto done;
        }
    vl_ids swap = b->out->before;
    b->out->before = before;
    before = swap;
done:
    vl_free(before.items);
    return status;
}

static vl_status add(void *owner, const json_t *component, const char *type, const char *where, vl_error *err)
{
    if (strcmp(type, "TemplateProcessing") == 0)
        return add_template(owner, component, where, err);
    if (strcmp(type, "ByteLevel") == 0) /* concerns offsets only */
        return VL_OK;
    return vl_fail(err, VL_EUNSUPPORTED, "%s: type \"%.60s\" (supported: Sequence, TemplateProcessing, ByteLevel)",
                   where, type);
}

vl_status vl_template_parse(vl_template *out, const json_t *root, const vl_vocab *vocab, const char *where,
                            vl_error *err)
{
    struct build build = {out, vocab};
    return vl_each_component(root, "processors", add, &build, where, err);
}

void vl_template_free(vl_template *template)
{
    vl_free(template->before.items);
    vl_free(template->after.items);
    *template = (vl_template){{NULL, 0, 0}, {NULL, 0, 0}};
}
