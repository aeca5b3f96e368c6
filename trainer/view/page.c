/* view/page.c - a reading as one HTML file. */
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/view/page_data.h"
#include "trainer/view/template.h"

typedef struct page_source {
    const vl_reading *reading;
    const vl_page_links *links;
} page_source;

static vl_status put_data(vl_str *out, const void *user, vl_error *err)
{
    const page_source *source = user;
    return vl_page_data(out, source->reading, source->links, err);
}

vl_status vl_reading_page(char **out, const vl_reading *reading, vl_error *err)
{
    return vl_template_fill(out, "page.html", put_data, &(page_source){reading, NULL}, err);
}

vl_status vl_page_write_linked(const char *path, const vl_reading *reading, const vl_page_links *links, vl_error *err)
{
    char *text = NULL;
    VL_TRY(vl_template_fill(&text, "page.html", put_data, &(page_source){reading, links}, err));
    vl_status status = vl_atomic_write(path, text, strlen(text), err);
    vl_release(text);
    return status;
}

vl_status vl_reading_write_page(const char *path, const vl_reading *reading, vl_error *err)
{
    return vl_page_write_linked(path, reading, NULL, err);
}
