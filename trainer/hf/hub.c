/* Where a model lies: a directory, or a snapshot in the local Hugging Face cache. The cache's layout is that of
 * huggingface_hub (file_download.py, try_to_load_from_cache): models--org--name/refs/<revision> holds the name of a
 * folder under models--org--name/snapshots/. */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/str.h"
#include "trainer/hf/directory.h"

enum { MAX_ID = 200, MAX_REF_BYTES = 256 };

typedef struct hub_id {
    char folder[MAX_ID + 16]; /* models--org--name */
    char name[MAX_ID + 1];    /* org/name */
    char revision[MAX_ID + 1];
} hub_id;

/* One part of an id or of a revision: no empty one, no "." or "..", only characters that the hub allows. */
static bool plain_part(const char *text, size_t n)
{
    if (n == 0 || text[0] == '.' || text[0] == '-')
        return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)text[i]) && !strchr("-_.", text[i]))
            return false;
    return true;
}

/* All parts between slashes are plain; *slashes counts them. */
static bool plain_parts(const char *text, int *slashes)
{
    *slashes = 0;
    for (;;) {
        const char *slash = strchr(text, '/');
        if (!plain_part(text, slash ? (size_t)(slash - text) : strlen(text)))
            return false;
        if (!slash)
            return true;
        ++*slashes;
        text = slash + 1;
    }
}

/* "org/name", "name" or either with "@revision". */
static bool parse_id(hub_id *out, const char *model)
{
    int slashes;
    const char *at = strchr(model, '@');
    size_t n = at ? (size_t)(at - model) : strlen(model);
    const char *revision = at ? at + 1 : "main";
    if (n > MAX_ID || strlen(revision) > MAX_ID)
        return false;
    snprintf(out->name, sizeof out->name, "%.*s", (int)n, model);
    snprintf(out->revision, sizeof out->revision, "%s", revision);
    if (!plain_parts(out->revision, &slashes) || !plain_parts(out->name, &slashes) || slashes > 1)
        return false;
    const char *slash = strchr(out->name, '/');
    int org = slash ? (int)(slash - out->name) : 0;
    snprintf(out->folder, sizeof out->folder, "models--%.*s%s%s", org, out->name, slash ? "--" : "",
             slash ? slash + 1 : out->name);
    return true;
}

/* Without refs/main: the one snapshot that lies there, in *out; NULL without any. Several: VL_EIO names them, and how
 * to choose one. */
static vl_status only_snapshot(char **out, const char *cache, const hub_id *id, vl_error *err)
{
    vl_status status = VL_OK;
    vl_str folder = VL_STR_INIT, names = VL_STR_INIT;
    int n = 0;
    char first[256] = ""; /* NAME_MAX and its end */
    vl_str_printf(&folder, "%s/%s/snapshots", cache, id->folder);
    DIR *dir = folder.failed ? NULL : opendir(folder.data);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        if (n++ == 0)
            snprintf(first, sizeof first, "%s", entry->d_name);
        vl_str_printf(&names, "%s%s", names.size ? ", " : "", entry->d_name);
    }
    if (dir)
        closedir(dir);
    if (n == 1) {
        vl_str_printf(&folder, "/%s", first);
        *out = folder.failed ? NULL : folder.data;
        if (*out)
            folder = (vl_str)VL_STR_INIT;
    }
    if (folder.failed || names.failed)
        status = vl_fail_nomem(err, cache);
    else if (n > 1)
        status = vl_fail(err, VL_EIO,
                         "%s: the local Hugging Face cache has no refs/main and several snapshots; name one "
                         "as %s@COMMIT: %s",
                         id->name, id->name, names.data);
    vl_str_clear(&folder);
    vl_str_clear(&names);
    return status;
}

/* The snapshot that a revision names under `cache`/models--..., in *out; NULL there when it is not in this cache. */
static vl_status find_snapshot(char **out, const char *cache, const hub_id *id, vl_error *err)
{
    vl_status status = VL_OK;
    vl_str ref = VL_STR_INIT, folder = VL_STR_INIT;
    char *text = NULL;
    const char *commit = id->revision; /* a revision may also be a commit itself */
    size_t size = 0;
    *out = NULL;
    vl_str_printf(&ref, "%s/%s/refs/%s", cache, id->folder, id->revision);
    if (ref.failed) {
        status = vl_fail_nomem(err, cache);
        goto done;
    }
    if (!vl_path_exists(ref.data) && strcmp(id->revision, "main") == 0) {
        status = only_snapshot(out, cache, id, err);
        goto done;
    }
    if (vl_path_exists(ref.data)) {
        VL_GOTO(vl_file_read(&text, &size, ref.data, MAX_REF_BYTES, err));
        while (size > 0 && isspace((unsigned char)text[size - 1]))
            text[--size] = 0;
        if (!plain_part(text, size)) {
            status = vl_fail(err, VL_EFORMAT, "%s: holds no commit name", ref.data);
            goto done;
        }
        commit = text;
    }
    vl_str_printf(&folder, "%s/%s/snapshots/%s", cache, id->folder, commit);
    if (folder.failed) {
        status = vl_fail_nomem(err, cache);
    } else if (vl_path_is_directory(folder.data)) {
        *out = folder.data;
        folder = (vl_str)VL_STR_INIT;
    }
done:
    vl_free(text);
    vl_str_clear(&ref);
    vl_str_clear(&folder);
    return status;
}

typedef struct place {
    const char *base, *below;
} place;

static vl_status search_caches(char **out, const hub_id *id, const vl_hub_paths *paths, vl_error *err)
{
    vl_status status = VL_OK;
    vl_str looked = VL_STR_INIT, cache = VL_STR_INIT;
    const place places[] = {{paths->hf_hub_cache, ""},
                            {paths->hf_home, "/hub"},
                            {paths->xdg_cache_home, "/huggingface/hub"},
                            {paths->home, "/.cache/huggingface/hub"}};
    *out = NULL;
    for (size_t i = 0; i < sizeof places / sizeof *places && !*out; i++) {
        if (!places[i].base || !places[i].base[0])
            continue;
        vl_str_clear(&cache);
        vl_str_printf(&cache, "%s%s", places[i].base, places[i].below);
        vl_str_printf(&looked, "%s%s", looked.size ? ", " : "", cache.data ? cache.data : "");
        if (cache.failed || looked.failed) {
            status = vl_fail_nomem(err, id->name);
            goto done;
        }
        VL_GOTO(find_snapshot(out, cache.data, id, err));
    }
    if (!*out) {
        bool main = strcmp(id->revision, "main") == 0;
        status = vl_fail(err, VL_EIO,
                         "%s: no such directory, and revision \"%s\" is not in the local Hugging Face cache; fetch it "
                         "with `hf download %s%s%s` (older clients: huggingface-cli download). Looked in: %s",
                         id->name, id->revision, id->name, main ? "" : " --revision ", main ? "" : id->revision,
                         looked.data ? looked.data : "no cache (none of its folders is known)");
    }
done:
    vl_str_clear(&looked);
    vl_str_clear(&cache);
    return status;
}

static vl_status require_config(const char *path, vl_error *err)
{
    char *config = vl_path_join(path, "config.json");
    if (!config)
        return vl_fail_nomem(err, path);
    bool found = vl_path_exists(config);
    vl_free(config);
    if (!found)
        return vl_fail(err, VL_EIO, "%s: no config.json there, so this is no model directory of Hugging Face%s", path,
                       strstr(path, "/snapshots/") ? " (or its download is incomplete: run `hf download` again)" : "");
    return VL_OK;
}

vl_status vl_hub_resolve(char **out, const char *model, const vl_hub_paths *paths, vl_error *err)
{
    static const vl_hub_paths nowhere = {NULL, NULL, NULL, NULL};
    hub_id id;
    *out = NULL;
    if (vl_path_is_directory(model)) {
        *out = vl_strdup(model);
        if (!*out)
            return vl_fail_nomem(err, model);
    } else if (vl_path_exists(model)) {
        return vl_fail(err, VL_EIO, "%s: a file, expected a model directory or a hub id (org/name)", model);
    } else if (!parse_id(&id, model)) {
        return vl_fail(err, VL_EIO, "%s: no such directory (and not a hub id of the form org/name[@revision])", model);
    } else {
        VL_TRY(search_caches(out, &id, paths ? paths : &nowhere, err));
    }
    vl_status status = require_config(*out, err);
    if (status != VL_OK) {
        vl_free(*out);
        *out = NULL;
    }
    return status;
}
