/* claim.c - the files of an output folder: what a fit writes there, it may replace; what another program wrote under
 * one of these names it refuses, or moves aside with --fresh. */
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/fit/session.h"
#include "trainer/hf/safetensors.h"
#include "trainer/lens/lens.h"

bool vl_fit_checkpoint_is_ours(const char *path)
{
    vl_safetensors *file;
    if (vl_safetensors_open(&file, path, NULL) != VL_OK)
        return false;
    const char *format = vl_safetensors_metadata(file, "format");
    bool ours = format && strcmp(format, "vlens-checkpoint") == 0;
    vl_safetensors_close(file);
    return ours;
}

static vl_status claim(const vl_fit_session *s, const char *path, bool (*is_ours)(const char *path), bool fresh,
                       vl_error *err)
{
    char *to;
    if (!vl_path_exists(path) || is_ours(path))
        return VL_OK;
    if (!fresh)
        return vl_fail(err, VL_EMISMATCH,
                       "%s: was not written by vlens, or is damaged: choose another output; --fresh moves it aside",
                       path);
    VL_TRY(vl_move_aside(&to, path, err));
    vl_log_say(&s->log, 1, "%s was not written by vlens, or is damaged: it is now %s", path, to);
    vl_free(to);
    return VL_OK;
}

vl_status vl_fit_claim(const vl_fit_session *s, bool fresh, vl_error *err)
{
    VL_TRY(claim(s, s->lens_path, vl_lens_is_ours, fresh, err));
    VL_TRY(claim(s, s->metrics_path, vl_metrics_is_ours, fresh, err));
    return claim(s, s->checkpoint_path, vl_fit_checkpoint_is_ours, fresh, err);
}
