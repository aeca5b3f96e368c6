/* view/template.h - one self-contained HTML file from a template that was built in. */
#ifndef VL_VIEW_TEMPLATE_H
#define VL_VIEW_TEMPLATE_H

#include "trainer/base/str.h"
#include "trainer/base/status.h"

/* Appends the page's numbers as JSON (vl_template_put_json keeps them from ending the element they stand in). */
typedef vl_status (*vl_template_data_fn)(vl_str *out, const void *user, vl_error *err);

/* Text of the template `name` ("page.html"): each {{file}} in it is replaced by the file of that name, {{data}} by what
 * `data` writes. A file that this build lacks (the chart library) is left out. vl_release. */
vl_status vl_template_fill(char **out, const char *name, vl_template_data_fn data, const void *user, vl_error *err);

/* Appends JSON in which no '<' stands: inside a <script> no text can end the element. */
void vl_template_put_json(vl_str *out, const char *json);

#endif
