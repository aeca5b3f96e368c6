/* settings.c - what a checkpoint and a lens remember of their run, compared with the run at hand. */
#include "trainer/config/settings.h"

#include "trainer/fit/session.h"

vl_status vl_fit_settings_make(vl_fit_session *s, vl_error *err)
{
    /* The rows follow from cache, split and settings; they come last, so that a changed key is named by itself. */
    const vl_fact facts[] = {{"fingerprint", vl_head_get_info(s->head)->fingerprint},
                             {"rows of the cache", s->plan.digest}};
    return vl_settings_make(&s->settings, s->config, VL_AFFECTS_FIT, facts, 2, err);
}

vl_status vl_fit_settings_check(const vl_fit_session *s, const char *path, const char *stored, vl_error *err)
{
    vl_settings_difference d;
    if (!stored)
        return vl_fail(err, VL_EMISMATCH, "%s: does not say with which settings it was made; start over (--fresh)",
                       path);
    VL_TRY(vl_settings_compare(&d, stored, s->settings, err));
    if (!d.key[0])
        return VL_OK;
    return vl_fail(err, VL_EMISMATCH,
                   "%s: made with other settings: %s was %s, is %s; set it back, choose another output, or start over "
                   "(--fresh)",
                   path, d.key, d.then, d.now);
}
