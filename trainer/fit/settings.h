/* fit/settings.h - the settings that decide the result of a fit, as text, so that two runs can be told apart. */
#ifndef VL_FIT_SETTINGS_H
#define VL_FIT_SETTINGS_H

#include <vlens/config.h>

#include "trainer/fit/plan.h"

/* "key=value\n" for every setting that the parameters depend on; with the fingerprint of the head and the digest of
 * the rows. The caller frees with vl_free. */
vl_status vl_fit_settings_text(char **out, const vl_config *config, const vl_plan *plan, const char *fingerprint,
                               vl_error *err);
/* VL_EMISMATCH that names `path` and the first key that differs. */
vl_status vl_fit_settings_compare(const char *path, const char *stored, const char *wanted, vl_error *err);

#endif
