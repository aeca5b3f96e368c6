#include "trainer/view/template.h"

#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/view/assets.h"

static const vl_asset *find_asset(const char *name, size_t n)
{
    for (const vl_asset *a = vl_page_assets; a->name; a++)
        if (strlen(a->name) == n && !memcmp(a->name, name, n))
            return a;
    return NULL;
}

static vl_status fill(vl_str *out, const vl_asset *page, vl_template_data_fn data, const void *user, vl_error *err)
{
    const char *at = page->data, *end = page->data + page->size; /* the table puts a NUL behind the bytes */
    for (const char *open; (open = strstr(at, "{{"));) {
        const char *name = open + 2, *close = strstr(name, "}}");
        if (!close)
            break;
        vl_str_append(out, at, (size_t)(open - at));
        const vl_asset *asset = find_asset(name, (size_t)(close - name));
        if (!strncmp(name, "data}}", 6))
            VL_TRY(data(out, user, err));
        else if (asset)
            vl_str_append(out, asset->data, asset->size);
        at = close + 2;
    }
    vl_str_append(out, at, (size_t)(end - at));
    return VL_OK;
}

vl_status vl_template_fill(char **out, const char *name, vl_template_data_fn data, const void *user, vl_error *err)
{
    const vl_asset *page = find_asset(name, strlen(name));
    vl_str text = VL_STR_INIT;
    *out = NULL;
    if (!page)
        return vl_fail(err, VL_EINTERNAL, "the template %s was not built in", name);
    vl_status status = fill(&text, page, data, user, err);
    if (status == VL_OK && text.failed)
        status = vl_fail_nomem(err, name);
    if (status != VL_OK) {
        vl_str_clear(&text);
        return status;
    }
    *out = text.data;
    return VL_OK;
}

void vl_template_put_json(vl_str *out, const char *json)
{
    for (const char *at = json; *at;) {
        size_t plain = strcspn(at, "<");
        vl_str_append(out, at, plain);
        at += plain;
        if (*at == '<') {
            vl_str_puts(out, "\\u003c");
            at++;
        }
    }
}
