#include "trainer/hf/directory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"

/* transformers/utils/__init__.py: SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME */
static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

enum { MAX_INDEX_BYTES = 100 * 1000 * 1000, MAX_SHARDS = 10000 };

static bool has_file(const char *directory, const char *name)
{
    char *path = vl_path_join(directory, name);
    bool found = path && vl_path_exists(path);
    vl_free(path);
    return found;
}

/* Appends the opened file; `dir->shards` has room. */
static vl_status open_shard(vl_hf_directory *dir, const char *name, vl_error *err)
{
    char *path = vl_path_join(dir->path, name);
    if (!path)
        return vl_fail_nomem(err, name);
    vl_status status = vl_safetensors_open(&dir->shards[dir->n_shards], path, err);
    if (status == VL_OK)
        dir->n_shards++;
    vl_free(path);
    return status;
}

static vl_status open_single(vl_hf_directory *dir, vl_error *err)
{
    dir->shards = vl_calloc(1, sizeof *dir->shards);
    if (!dir->shards)
        return vl_fail_nomem(err, dir->path);
    VL_TRY(open_shard(dir, single_name, err));
    size_t n = vl_safetensors_count(dir->shards[0]);
    dir->tensors = vl_calloc(n, sizeof *dir->tensors);
    if (!dir->tensors)
        return vl_fail_nomem(err, dir->path);
    for (size_t i = 0; i < n; i++) {
        const vl_weight_view *view = vl_safetensors_at(dir->shards[0], i);
        dir->tensors[i] = (vl_hf_tensor){view->name, view, false};
    }
    dir->n_tensors = n;
    return VL_OK;
}

/* An index comes from strangers: a file that it names must lie in the directory itself. */
static bool plain_file_name(const json_t *value)
{
    const char *name = json_string_value(value);
    return name && name[0] && name[0] != '.' && strlen(name) == json_string_length(value) && !strpbrk(name, "/\\") &&
           strlen(name) < 256;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int by_tensor_name(const void *a, const void *b)
{
    return strcmp(((const vl_hf_tensor *)a)->name, ((const vl_hf_tensor *)b)->name);
}

/* Checks every file name of the map; *names (freed by the caller) are the distinct ones in order. */
static vl_status list_shards(const char ***names, size_t *n_names, json_t *map, const char *where, vl_error *err)
{
    const char *key;
    json_t *value;
    size_t n = 0, kept = 0;
    *names = vl_alloc(json_object_size(map), sizeof **names);
    if (!*names)
        return vl_fail_nomem(err, where);
    json_object_foreach(map, key, value)
    {
        if (!plain_file_name(value))
            return vl_fail(err, VL_EFORMAT, "%s: tensor \"%s\" is said to be in \"%s\", expected a plain file name",
                           where, key, json_is_string(value) ? json_string_value(value) : "(no string)");
        (*names)[n++] = json_string_value(value);
    }
    qsort(*names, n, sizeof **names, by_text);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp((*names)[i], (*names)[kept - 1]) != 0)
            (*names)[kept++] = (*names)[i];
    *n_names = kept;
    if (kept == 0)
        return vl_fail(err, VL_EFORMAT, "%s: \"weight_map\" is empty", where);
    if (kept > MAX_SHARDS)
        return vl_fail(err, VL_EFORMAT, "%s: %zu shards, at most %d are allowed", where, kept, MAX_SHARDS);
    return VL_OK;
}

/* The view of every tensor of the map; names[i] is the file of shard i. */
static vl_status collect(vl_hf_directory *dir, json_t *map, const char **names, const char *where, vl_error *err)
{
    const char *key;
    json_t *value;
    dir->tensors = vl_calloc(json_object_size(map), sizeof *dir->tensors);
    if (!dir->tensors)
        return vl_fail_nomem(err, where);
    json_object_foreach(map, key, value)
    {
        const char *file = json_string_value(value);
        const char **at = bsearch(&file, names, dir->n_shards, sizeof *names, by_text);
        const vl_weight_view *view = at ? vl_safetensors_find(dir->shards[at - names], key) : NULL;
        if (!view)
            return vl_fail(err, VL_EFORMAT, "%s: tensor \"%s\" is said to be in \"%s\", which does not have it", where,
                           key, file);
        dir->tensors[dir->n_tensors++] = (vl_hf_tensor){view->name, view, false};
    }
    qsort(dir->tensors, dir->n_tensors, sizeof *dir->tensors, by_tensor_name);
    return VL_OK;
}

static vl_status open_indexed(vl_hf_directory *dir, vl_error *err)
{
    vl_status status = VL_OK;
    json_t *index = NULL;
    const char **names = NULL;
    size_t n_names = 0;
    char *where = vl_path_join(dir->path, index_name);
    if (!where)
        return vl_fail_nomem(err, dir->path);
    VL_GOTO(vl_json_read(&index, where, MAX_INDEX_BYTES, err));
    json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map)) {
        status = vl_fail(err, VL_EFORMAT, "%s: \"weight_map\" is %s", where, map ? "no object" : "missing");
        goto done;
    }
    VL_GOTO(list_shards(&names, &n_names, map, where, err));
    dir->shards = vl_calloc(n_names, sizeof *dir->shards);
    if (!dir->shards) {
        status = vl_fail_nomem(err, where);
        goto done;
    }
    for (size_t i = 0; i < n_names; i++)
        VL_GOTO(open_shard(dir, names[i], err));
    VL_GOTO(collect(dir, map, names, where, err));
done:
    vl_free(names);
    json_decref(index);
    vl_free(where);
    return status;
}

/* A link whose target is gone, as a cache of the hub has them after a download that broke off. */
static bool is_dangling(const char *folder, const char *name)
{
    struct stat seen;
    char *path = vl_path_join(folder, name);
    bool dangling = path && lstat(path, &seen) == 0 && S_ISLNK(seen.st_mode) && stat(path, &seen) != 0;
    vl_free(path);
    return dangling;
}

/* Neither form is there: say what is, since the way out depends on it. */
static vl_status fail_without_weights(const char *path, vl_error *err)
{
    static const char *const others[] = {"pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth",
                                         "tf_model.h5", "flax_model.msgpack"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (has_file(path, others[i]))
            return vl_fail(err, VL_EUNSUPPORTED,
                           "%s: weights are only there as %s, and only safetensors is read; convert them once in "
                           "Python: load the model with transformers, then "
                           "model.save_pretrained(DIR, safe_serialization=True)",
                           path, others[i]);
    if (is_dangling(path, single_name))
        return vl_fail(err, VL_EIO,
                       "%s/%s: a link to a file that is not there; the download is incomplete: run `hf "
                       "download` again",
                       path, single_name);
    return vl_fail(err, VL_EIO, "%s: no weights there: neither %s nor %s", path, single_name, index_name);
}

vl_status vl_hf_directory_open(vl_hf_directory **out, const char *path, vl_error *err)
{
    vl_status status = VL_OK;
    *out = NULL;
    vl_hf_directory *dir = vl_calloc(1, sizeof *dir);
    if (!dir)
        return vl_fail_nomem(err, path);
    dir->path = vl_strdup(path);
    if (!dir->path) {
        status = vl_fail_nomem(err, path);
        goto done;
    }
    /* The single file wins where both are there, as in transformers (modeling_utils.py, from_pretrained). */
    if (has_file(path, single_name))
        VL_GOTO(open_single(dir, err));
    else if (has_file(path, index_name))
        VL_GOTO(open_indexed(dir, err));
    else
        VL_GOTO(fail_without_weights(path, err));
    *out = dir;
    return VL_OK;
done:
    vl_hf_directory_close(dir);
    return status;
}

void vl_hf_directory_close(vl_hf_directory *dir)
{
    if (!dir)
        return;
    for (size_t i = 0; i < dir->n_shards; i++)
        vl_safetensors_close(dir->shards[i]);
    vl_free(dir->shards);
    vl_free(dir->tensors);
    vl_free(dir->path);
    vl_free(dir);
}

const vl_weight_view *vl_hf_find(const vl_hf_directory *dir, const char *name)
{
    const vl_hf_tensor key = {name, NULL, false};
    const vl_hf_tensor *found = bsearch(&key, dir->tensors, dir->n_tensors, sizeof *dir->tensors, by_tensor_name);
    return found ? found->view : NULL;
}

void vl_hf_mark_read(const vl_hf_directory *dir, const char *name)
{
    const vl_hf_tensor key = {name, NULL, false};
    vl_hf_tensor *found = bsearch(&key, dir->tensors, dir->n_tensors, sizeof *dir->tensors, by_tensor_name);
    if (found)
        found->read = true;
}
