#include "trainer/model/digest.h"

#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/base/str.h"
#include "trainer/config/settings.h"
#include "trainer/model/family.h"

enum { MOST_THREADS = 8, HEX = 33, MOST_JSON = 64 << 20 };

/* Conventions that differ between versions of transformers, or between programs, and that no file states. They are
 * part of what a state is: who changes one changes this text. */
static const char rules[] = "1 yarn=transformers-5 mllama-mask=transformers-4.46 mllama-intermediate=input "
                            "pixels=pillow bos=tokenizer.json";

struct vl_model_digest_job {
    const vl_hf_directory *directory;
    size_t *tensors; /* [n] of the directory that the forward reads, largest first */
    char (*hash)[HEX];
    size_t n;
    atomic_size_t next;
    pthread_t threads[MOST_THREADS];
    int n_threads;
    char digest[HEX];
    char *manifest; /* NULL until it is made */
};

static void hash_text(char out[HEX], const void *data, size_t bytes)
{
    XXH128_hash_t hash = XXH3_128bits(data ? data : "", bytes);
    snprintf(out, HEX, "%016llx%016llx", (unsigned long long)hash.high64, (unsigned long long)hash.low64);
}

/* ---- the tensors ------------------------------------------------------------------------------------------- */

static void hash_next(vl_model_digest_job *job)
{
    for (size_t i; (i = atomic_fetch_add(&job->next, 1)) < job->n;) {
        const vl_weight_view *view = job->directory->tensors[job->tensors[i]].view;
        hash_text(job->hash[job->tensors[i]], view->data, view->bytes);
    }
}

static void *run(void *user)
{
    hash_next(user);
    return NULL;
}

/* Largest first, so that the threads end together. Few are read: insertion is enough. */
static void list_tensors(vl_model_digest_job *job)
{
    const vl_hf_directory *dir = job->directory;
    for (size_t i = 0; i < dir->n_tensors; i++) {
        if (!dir->tensors[i].read)
            continue;
        size_t at = job->n++;
        for (; at > 0 && dir->tensors[job->tensors[at - 1]].view->bytes < dir->tensors[i].view->bytes; at--)
            job->tensors[at] = job->tensors[at - 1];
        job->tensors[at] = i;
    }
}

static void start_threads(vl_model_digest_job *job)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int wanted = cores < 2 ? 1 : cores / 2 < MOST_THREADS ? (int)(cores / 2) : MOST_THREADS;
    sigset_t all, old;
    sigfillset(&all); /* signals belong to the program's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (job->n_threads < wanted && pthread_create(&job->threads[job->n_threads], NULL, run, job) == 0)
        job->n_threads++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void join(vl_model_digest_job *job)
{
    for (int i = 0; i < job->n_threads; i++)
        pthread_join(job->threads[i], NULL);
    job->n_threads = 0;
}

void vl_model_digest_start(vl_model *model)
{
    if (model->digest)
        return;
    vl_model_digest_job *job = vl_calloc(1, sizeof *job);
    size_t n = model->directory->n_tensors + 1;
    if (!job)
        return;
    job->directory = model->directory;
    job->tensors = vl_alloc(n, sizeof *job->tensors);
    job->hash = vl_calloc(n, sizeof *job->hash);
    if (!job->tensors || !job->hash) {
        vl_model_digest_free(job);
        return;
    }
    list_tensors(job);
    start_threads(job);
    model->digest = job;
}

void vl_model_digest_free(vl_model_digest_job *job)
{
    if (!job)
        return;
    atomic_store(&job->next, job->n); /* what has not begun is left out */
    join(job);
    vl_free(job->tensors);
    vl_free(job->hash);
    vl_free(job->manifest);
    vl_free(job);
}

/* ---- the files beside them --------------------------------------------------------------------------------- */

/* Keys that say where a file comes from and how it was saved. */
static bool is_bookkeeping(const char *key)
{
    static const char *const keys[] = {"_name_or_path", "transformers_version", "torch_dtype",
                                       "dtype",         "architectures",        "use_cache",
                                       "_commit_hash",  "processor_class",      "auto_map"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return false;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* "prefix.key=value" for each member, objects inside by their members, in the order of their keys. */
static void flatten(vl_str *out, const char *prefix, const json_t *object, int depth)
{
    const char *key;
    json_t *value;
    size_t n = 0;
    const char **keys = vl_alloc(json_object_size(object) + 1, sizeof *keys);
    json_object_foreach((json_t *)(uintptr_t)object, key, value) if (keys) keys[n++] = key;
    out->failed = out->failed || !keys;
    if (n > 0)
        qsort(keys, n, sizeof *keys, by_text);
    for (size_t i = 0; i < n; i++) {
        char name[512];
        value = json_object_get(object, keys[i]);
        snprintf(name, sizeof name, "%s.%s", prefix, keys[i]);
        if (is_bookkeeping(keys[i]) || json_is_null(value))
            continue;
        if (json_is_object(value) && depth < 8) {
            flatten(out, name, value, depth + 1);
            continue;
        }
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_SORT_KEYS | JSON_COMPACT | JSON_REAL_PRECISION(17));
        out->failed = out->failed || !text;
        vl_str_printf(out, "%s=%s\n", name, text ? text : "");
        vl_free(text);
    }
    vl_free(keys);
}

/* The members of a JSON file (those of `only`, or all); nothing where there is no such file. What cannot be read is
 * hashed as it is: whoever needs it has refused it already. */
static void add_json(vl_str *out, const char *folder, const char *name, const char *const *only)
{
    json_t *root = NULL, *some;
    char *path = vl_path_join(folder, name);
    out->failed = out->failed || !path;
    if (path && vl_path_exists(path) && vl_json_read(&root, path, MOST_JSON, NULL) == VL_OK && json_is_object(root)) {
        some = only ? json_object() : json_incref(root);
        for (; only && some && *only; only++)
            if (json_object_get(root, *only))
                json_object_set(some, *only, json_object_get(root, *only));
        flatten(out, name, some, 0);
        json_decref(some);
    }
    json_decref(root);
    vl_free(path);
}

static void add_bytes(vl_str *out, const char *folder, const char *name)
{
    vl_map map;
    char hash[HEX], *path = vl_path_join(folder, name);
    out->failed = out->failed || !path;
    if (path && vl_path_exists(path) && vl_map_open(&map, path, NULL) == VL_OK) {
        hash_text(hash, map.data, map.size);
        vl_str_printf(out, "%s=%s\n", name, hash);
        vl_map_close(&map);
    }
    vl_free(path);
}

static void add_files(vl_str *out, const char *folder)
{
    static const char *const tokenizer[] = {"add_bos_token", "add_eos_token",   "bos_token", "eos_token",
                                            "chat_template", "tokenizer_class", NULL};
    static const char *const generation[] = {"eos_token_id", NULL};
    static const char *const bytes[] = {"tokenizer.json", "chat_template.json", "chat_template.jinja"};
    add_json(out, folder, "config.json", NULL);
    add_json(out, folder, "preprocessor_config.json", NULL);
    add_json(out, folder, "processor_config.json", NULL);
    add_json(out, folder, "tokenizer_config.json", tokenizer);
    add_json(out, folder, "generation_config.json", generation);
    for (size_t i = 0; i < sizeof bytes / sizeof bytes[0]; i++)
        add_bytes(out, folder, bytes[i]);
}

/* ---- the whole --------------------------------------------------------------------------------------------- */

static vl_status make_manifest(vl_model *model, vl_model_digest_job *job, vl_error *err)
{
    vl_str text = VL_STR_INIT;
    char shape[96];
    vl_str_printf(&text, "rules=%s\n", rules);
    if (model->spec.family->rules)
        vl_str_printf(&text, "rules.family=%s\n", model->spec.family->rules);
    add_files(&text, model->path);
    for (size_t i = 0; i < job->directory->n_tensors; i++) {
        const vl_weight_view *view = job->directory->tensors[i].view;
        if (job->directory->tensors[i].read)
            vl_str_printf(&text, "tensor.%s=%s %s %s\n", view->name, view->dtype_name,
                          vl_shape_text(shape, sizeof shape, view->ndim, view->shape), job->hash[i]);
    }
    if (text.failed) {
        vl_str_clear(&text);
        return vl_fail_nomem(err, "digest of the model");
    }
    hash_text(job->digest, text.data, text.size);
    job->manifest = text.data;
    return VL_OK;
}

vl_status vl_model_identify(const char **digest, const char **manifest, vl_model *model, vl_error *err)
{
    vl_model_digest_start(model);
    vl_model_digest_job *job = model->digest;
    if (!job)
        return vl_fail_nomem(err, "digest of the model");
    hash_next(job); /* this thread helps, and does all where none could be started */
    join(job);
    if (!job->manifest)
        VL_TRY(make_manifest(model, job, err));
    *digest = job->digest;
    if (manifest)
        *manifest = job->manifest;
    return VL_OK;
}

vl_status vl_model_digest(char out[33], vl_model *model, vl_error *err)
{
    const char *digest;
    VL_TRY(vl_model_identify(&digest, NULL, model, err));
    snprintf(out, HEX, "%s", digest);
    return VL_OK;
}

const char *vl_model_manifest(const vl_model *model)
{
    return model->digest && model->digest->manifest ? model->digest->manifest : "";
}

const char *vl_model_rules(void)
{
    return rules;
}

vl_status vl_model_compare(const char *whose, const char *stored_digest, const char *stored_manifest,
                           const char *digest, const char *manifest, vl_error *err)
{
    vl_settings_difference d = {.key = ""};
    if (!stored_digest || !stored_digest[0] || !digest || !digest[0] || strcmp(stored_digest, digest) == 0)
        return VL_OK;
    if (stored_manifest && manifest) {
        VL_TRY(vl_settings_compare(&d, stored_manifest, manifest, err));
        if (!d.key[0]) { /* only the stored one has it */
            VL_TRY(vl_settings_compare(&d, manifest, stored_manifest, err));
            char then[VL_SETTINGS_VALUE];
            memcpy(then, d.now, sizeof then);
            memcpy(d.now, d.then, sizeof then);
            memcpy(d.then, then, sizeof then);
        }
    }
    if (!d.key[0])
        return vl_fail(err, VL_EMISMATCH, "%s with another model: its digest is %s, this model has %s", whose,
                       stored_digest, digest);
    return vl_fail(err, VL_EMISMATCH,
                   "%s with another model: %s was %.90s, is %.90s (digest %.8s..., this model %.8s...)", whose, d.key,
                   d.then, d.now, stored_digest, digest);
}
