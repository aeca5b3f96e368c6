/* view/page.c - a reading as one HTML file. */
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/view/page_data.h"
#include "trainer/view/template.h"

static vl_status put_data(vl_str *out, const void *reading, vl_error *err)
{
    return vl_page_data(out, reading, err);
}

vl_status vl_reading_page(char **out, const vl_reading *reading, vl_error *err)
{
    return vl_template_fill(out, "page.html", put_data, reading, err);
}

vl_status vl_reading_write_page(const char *path, const vl_reading *reading, vl_error *err)
{
    char *text = NULL;
    VL_TRY(vl_reading_page(&text, reading, err));
    vl_status status = vl_atomic_write(path, text, strlen(text), err);
    vl_release(text);
    return status;
}
