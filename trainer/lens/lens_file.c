/* lens_file.c - lens.safetensors: tensors adapter.{i}.weight [D, D] and adapter.{i}.bias [D], and metadata. */
#include "trainer/lens/lens.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/half.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"
#include "trainer/base/str.h"
#include "trainer/hf/safetensors_write.h"

enum { NAME_SIZE = 48, MAX_PAIRS = 24 };

char *vl_lens_file_path(const char *path)
{
    return vl_path_is_directory(path) ? vl_path_join(path, "lens.safetensors") : vl_strdup(path);
}

bool vl_lens_is_ours(const char *path)
{
    vl_safetensors *file;
    if (vl_safetensors_open(&file, path, NULL) != VL_OK)
        return false;
    const char *format = vl_safetensors_metadata(file, "format");
    bool ours = format && strcmp(format, "vlens-lens") == 0;
    vl_safetensors_close(file);
    return ours;
}

bool vl_metrics_is_ours(const char *path)
{
    json_t *root;
    const char *format = NULL;
    if (vl_json_read(&root, path, 64 << 20, NULL) != VL_OK)
        return false;
    bool ours =
        vl_json_string(&format, root, "format", path, NULL) == VL_OK && format && strcmp(format, "vlens-metrics") == 0;
    json_decref(root);
    return ours;
}

static vl_status claim(const char *folder, const char *name, bool (*is_ours)(const char *path), vl_error *err)
{
    char *path = vl_path_join(folder, name);
    vl_status status = path ? VL_OK : vl_fail_nomem(err, folder);
    if (status == VL_OK && vl_path_exists(path) && !is_ours(path))
        status = vl_fail(err, VL_EMISMATCH, "%s: was not written by vlens, or is damaged: choose another folder", path);
    vl_free(path);
    return status;
}

vl_status vl_lens_claim(const char *folder, vl_error *err)
{
    VL_TRY(claim(folder, "lens.safetensors", vl_lens_is_ours, err));
    return claim(folder, "metrics.json", vl_metrics_is_ours, err);
}

/* The tensors of a content as entries of a file, with the memory that they need. */
typedef struct table {
    vl_safetensors_entry *entries;
    size_t n;
    char (*names)[NAME_SIZE];
    void **narrowed; /* 16-bit copies, one per entry */
} table;

static void table_clear(table *t)
{
    for (size_t i = 0; t->narrowed && i < t->n; i++)
        vl_free(t->narrowed[i]);
    vl_free(t->narrowed);
    vl_free(t->names);
    vl_free(t->entries);
}

static void *narrow(const float *x, size_t n, vl_dtype dtype)
{
    uint16_t *out = vl_alloc(n, sizeof *out);
    if (out)
        vl_narrow(out, x, dtype, n);
    return out;
}

static vl_status table_add(table *t, const char *kind, int64_t layer, const float *data, const vl_lens_content *content,
                           vl_error *err)
{
    int64_t d = content->d_model;
    bool matrix = kind[0] == 'w';
    size_t k = t->n;
    snprintf(t->names[k], NAME_SIZE, "adapter.%lld.%s", (long long)layer, kind);
    vl_safetensors_entry *entry = &t->entries[k];
    *entry = (vl_safetensors_entry){.name = t->names[k], .dtype = content->dtype, .ndim = matrix ? 2 : 1, .data = data};
    entry->shape[0] = d;
    entry->shape[1] = matrix ? d : 0;
    t->n++;
    if (content->dtype == VL_F32)
        return VL_OK;
    t->narrowed[k] = narrow(data, matrix ? (size_t)d * (size_t)d : (size_t)d, content->dtype);
    entry->data = t->narrowed[k];
    return entry->data ? VL_OK : vl_fail_nomem(err, entry->name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const vl_safetensors_entry *)a)->name, ((const vl_safetensors_entry *)b)->name);
}

static vl_status table_new(table *t, const vl_lens_content *content, vl_error *err)
{
    size_t most = 2 * (size_t)content->n_layers;
    *t = (table){vl_calloc(most, sizeof *t->entries), 0, vl_calloc(most, NAME_SIZE), vl_calloc(most, sizeof(void *))};
    if (!t->entries || !t->names || !t->narrowed)
        return vl_fail_nomem(err, "lens");
    for (int64_t i = 0; i < content->n_layers; i++) {
        if (!content->bias[i])
            continue;
        if (content->weight[i] && !content->bias_only)
            VL_TRY(table_add(t, "weight", i, content->weight[i], content, err));
        VL_TRY(table_add(t, "bias", i, content->bias[i], content, err));
    }
    qsort(t->entries, t->n, sizeof *t->entries, by_name);
    return VL_OK;
}

/* sha256 over the bytes of all tensors, in ascending order of their names. */
static void hash_entries(char hex[VL_SHA256_HEX], const table *t)
{
    vl_sha256 hash;
    uint8_t digest[VL_SHA256_BYTES];
    vl_sha256_init(&hash);
    for (size_t k = 0; k < t->n; k++) {
        const vl_safetensors_entry *e = &t->entries[k];
        size_t n = (size_t)e->shape[0] * (size_t)(e->ndim == 2 ? e->shape[1] : 1);
        vl_sha256_update(&hash, e->data, n * vl_dtype_size(e->dtype));
    }
    vl_sha256_final(&hash, digest);
    vl_sha256_hex(digest, hex);
}

/* "[0.5, null]"; freed by free() as jansson allocates it. NULL when out of memory. */
static char *heldout_text(const double *kl, int64_t n)
{
    json_t *array = json_array();
    for (int64_t i = 0; array && i < n; i++)
        json_array_append_new(array, isfinite(kl[i]) ? json_real(kl[i]) : json_null());
    char *text = array ? json_dumps(array, JSON_REAL_PRECISION(9)) : NULL;
    json_decref(array);
    return text;
}

typedef struct pairs {
    vl_safetensors_pair list[MAX_PAIRS];
    size_t n;
} pairs;

static void add_pair(pairs *p, const char *key, const char *value)
{
    if (value && value[0])
        p->list[p->n++] = (vl_safetensors_pair){key, value};
}

vl_status vl_lens_write(const char *path, const vl_lens_content *content, vl_error *err)
{
    vl_status status = VL_OK;
    table t = {0};
    char hex[VL_SHA256_HEX], d_model[24], n_layers[24], tokens[24];
    char *heldout = NULL;
    VL_GOTO(table_new(&t, content, err));
    hash_entries(hex, &t);
    snprintf(d_model, sizeof d_model, "%lld", (long long)content->d_model);
    snprintf(n_layers, sizeof n_layers, "%lld", (long long)content->n_layers);
    snprintf(tokens, sizeof tokens, "%lld", (long long)content->tokens_seen);
    if (content->heldout_kl && !(heldout = heldout_text(content->heldout_kl, content->n_layers)))
        VL_GOTO(vl_fail_nomem(err, path));
    pairs p = {.n = 0};
    add_pair(&p, "format", "vlens-lens");
    add_pair(&p, "version", "1");
    add_pair(&p, "fingerprint", content->fingerprint);
    add_pair(&p, "model_id", content->model_id);
    add_pair(&p, "model_digest", content->model_digest);
    add_pair(&p, "rules", content->rules);
    add_pair(&p, "model_manifest", content->manifest);
    add_pair(&p, "d_model", d_model);
    add_pair(&p, "n_layers", n_layers);
    if (content->fitted_samples) { /* no picture is something that is known too */
        p.list[p.n++] = (vl_safetensors_pair){"fitted_samples", content->fitted_samples};
        p.list[p.n++] =
            (vl_safetensors_pair){"fitted_pictures", content->fitted_pictures ? content->fitted_pictures : ""};
    }
    add_pair(&p, "config", content->config);
    add_pair(&p, "settings", content->settings);
    add_pair(&p, "tokens_seen", tokens);
    add_pair(&p, "heldout_kl", heldout);
    add_pair(&p, "bias_only", content->bias_only ? "true" : "false");
    add_pair(&p, "vlens_version", VLENS_VERSION);
    add_pair(&p, "sha256", hex);
    VL_GOTO(vl_safetensors_write(path, t.entries, t.n, p.list, p.n, err));
done:
    free(heldout);
    table_clear(&t);
    return status;
}

vl_status vl_lens_record_heldout(const char *path, const double *heldout_kl, vl_error *err)
{
    vl_lens *lens;
    VL_TRY(vl_lens_open(&lens, path, err));
    vl_lens_content content;
    vl_lens_describe(&content, lens);
    content.heldout_kl = heldout_kl;
    /* The old file stays mapped until the new one has taken its name. */
    vl_status status = vl_lens_write(lens->path, &content, err);
    vl_lens_close(lens);
    return status;
}
