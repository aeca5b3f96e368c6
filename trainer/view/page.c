/* view/page.c - a reading as one HTML file: the template with its style, scripts and numbers put in. */
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/view/assets.h"
#include "trainer/view/page_data.h"

static const vl_asset *find_asset(const char *name, size_t n)
{
    for (const vl_asset *a = vl_page_assets; a->name; a++)
        if (strlen(a->name) == n && !memcmp(a->name, name, n))
            return a;
    return NULL;
}

/* Writes the template, and for each {{name}} in it the file of that name; {{data}} stands for the numbers. A file
 * that this build lacks (the chart library) is left out. */
static vl_status fill_template(vl_str *out, const vl_asset *page, const vl_reading *reading, vl_error *err)
{
    const char *at = page->data, *end = page->data + page->size; /* the table puts a NUL behind the bytes */
    for (const char *open; (open = strstr(at, "{{"));) {
        const char *name = open + 2, *close = strstr(name, "}}");
        if (!close)
            break;
        vl_str_append(out, at, (size_t)(open - at));
        const vl_asset *asset = find_asset(name, (size_t)(close - name));
        if (!strncmp(name, "data}}", 6))
            VL_TRY(vl_page_data(out, reading, err));
        else if (asset)
            vl_str_append(out, asset->data, asset->size);
        at = close + 2;
    }
    vl_str_append(out, at, (size_t)(end - at));
    return VL_OK;
}

vl_status vl_reading_page(char **out, const vl_reading *reading, vl_error *err)
{
    const vl_asset *page = find_asset("page.html", strlen("page.html"));
    vl_str text = VL_STR_INIT;
    *out = NULL;
    if (!page)
        return vl_fail(err, VL_EINTERNAL, "the page's template was not built in");
    vl_status status = fill_template(&text, page, reading, err);
    if (status == VL_OK && text.failed)
        status = vl_fail_nomem(err, "page");
    if (status != VL_OK) {
        vl_str_clear(&text);
        return status;
    }
    *out = text.data;
    return VL_OK;
}

vl_status vl_reading_write_page(const char *path, const vl_reading *reading, vl_error *err)
{
    char *text = NULL;
    VL_TRY(vl_reading_page(&text, reading, err));
    vl_status status = vl_atomic_write(path, text, strlen(text), err);
    vl_release(text);
    return status;
}
