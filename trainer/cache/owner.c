/* owner.c - what in a cache folder vlens wrote. Only that is ever removed; all else is moved aside, or the run is
 * refused.
 *
 * A file is of vlens where it says so itself: the format, and the settings that it was made with. The name alone does
 * not count, and a file that cannot be opened says nothing. */
#include <string.h>
#include <unistd.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/cache/job.h"

vl_status vl_cache_is_ours(bool *ours, const char *path, vl_error *err)
{
    vl_h5 file = -1;
    vl_cache_meta meta;
    *ours = false;
    vl_status status = vl_h5_open(&file, path, err);
    if (status == VL_OK)
        status = vl_meta_read(&meta, file, err);
    vl_h5_close(&file);
    if (status == VL_OK) {
        *ours = meta.settings != NULL;
        vl_meta_clear(&meta);
    }
    /* Of another program, or damaged: both are reasons, not failures. A file that is locked or may not be read is. */
    return status == VL_EFORMAT || status == VL_EUNSUPPORTED ? VL_OK : status;
}

vl_status vl_job_put_away(const vl_cache_job *job, const char *path, vl_error *err)
{
    bool ours;
    char *to = NULL;
    if (!vl_path_exists(path))
        return VL_OK;
    VL_TRY(vl_cache_is_ours(&ours, path, err));
    if (ours)
        return unlink(path) == 0 ? VL_OK : vl_fail_errno(err, VL_EIO, "%s: cannot remove", path);
    VL_TRY(vl_move_aside(&to, path, err));
    vl_job_message(job, true, "%s was not written by vlens, or is damaged: it is now %s", path, to);
    vl_free(to);
    return VL_OK;
}

vl_status vl_job_folder_is_ours(bool *ours, const vl_cache_job *job, vl_error *err)
{
    *ours = false;
    for (int64_t i = 0; !*ours; i++) {
        char name[VL_SHARD_NAME_SIZE];
        vl_shard_name(name, i);
        char *path = vl_path_join(job->directory, name);
        if (!path)
            return vl_fail_nomem(err, name);
        bool there = vl_path_exists(path);
        vl_status status = there ? vl_cache_is_ours(ours, path, err) : VL_OK;
        vl_free(path);
        if (status != VL_OK || !there)
            return status;
    }
    return VL_OK;
}
