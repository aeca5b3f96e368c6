#include "tests/model/golden.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"
#include "trainer/model/families/gemma3/gemma3.h"
#include "trainer/model/families/idefics3/idefics3.h"
#include "trainer/model/family.h"

#define FIXTURES VLENS_SOURCE_DIR "/tests/golden/fixtures"
#define FAMILIES VLENS_SOURCE_DIR "/tests/golden/families"

void golden_ok(vl_status status, const vl_error *err, const char *what)
{
    if (status != VL_OK)
        fail_msg("%s: %s: %s", what, vl_status_name(status), err->message);
}

/* ---- finding ----------------------------------------------------------------------------------------------- */

typedef struct found {
    golden_case *cases;
    size_t n;
} found;

static void put(char out[GOLDEN_PATH], const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(char out[GOLDEN_PATH], const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(out, GOLDEN_PATH, format, arguments);
    va_end(arguments);
}

/* Adds root/folder/file; its model is root/models/<what stands before "__">, unless `model` says where. */
static void add(found *f, const char *root, const char *file, const char *models, const char *model)
{
    golden_case c = {0};
    const char *slash = strrchr(file, '/');
    put(c.name, "%s", slash ? slash + 1 : file);
    c.name[strlen(c.name) - strlen(".safetensors")] = 0;
    put(c.golden, "%s/%s", root, file);
    char base[GOLDEN_PATH];
    put(base, "%s", c.name);
    char *cut = strstr(base, "__");
    if (cut)
        *cut = 0;
    if (model)
        put(c.model, "%s", model);
    else
        put(c.model, "%s/%s/%s", root, models, base);
    put(c.images, "%s/images", root);
    if (!vl_path_exists(c.golden) || !vl_path_is_directory(c.model))
        fail_msg("%s needs the model %s, and one of them is not there", c.golden, c.model);
    f->cases = realloc(f->cases, (f->n + 1) * sizeof *f->cases);
    assert_non_null(f->cases);
    f->cases[f->n++] = c;
}

/* "270m": weights of a downloaded model, which are made where they are wanted (VLENS_REAL_DIR). */
static int is_golden(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);
    return entry->d_name[0] != '.' && strncmp(entry->d_name, "270m", 4) != 0 && n > 12 &&
           !strcmp(entry->d_name + n - 12, ".safetensors");
}

/* Of the shared tiny models: other files lie beside them. */
static int is_tiny_golden(const struct dirent *entry)
{
    bool family = !strncmp(entry->d_name, "llama-", 6) || !strncmp(entry->d_name, "llava-", 6) ||
                  !strncmp(entry->d_name, "mllama-", 7);
    return family && is_golden(entry);
}

static void add_folder(found *f, const char *root, const char *models, int (*wanted)(const struct dirent *))
{
    char folder[GOLDEN_PATH], file[GOLDEN_PATH];
    struct dirent **entries;
    put(folder, "%s/goldens", root);
    int n = scandir(folder, &entries, wanted, alphasort);
    for (int i = 0; i < n; i++) {
        put(file, "goldens/%s", entries[i]->d_name);
        add(f, root, file, models, NULL);
        free(entries[i]);
    }
    if (n <= 0)
        fail_msg("no golden in %s", folder);
    free(entries);
}

/* shared/families/NAME, of the families that are known here and read text alone. */
static void add_families(found *f, const char *shared)
{
    char root[GOLDEN_PATH];
    const vl_family *family;
    for (size_t i = 0; (family = vl_family_at(i)); i++) {
        put(root, "%s/families/%s", shared, family->model_type);
        if (family->text && vl_path_is_directory(root))
            add_folder(f, root, ".", is_golden);
    }
}

/* The goldens of the vision families: root/FAMILY/goldens/DIRECTORY__CASE.safetensors, of root/FAMILY/DIRECTORY. */
static void add_vision(found *f, const char *root, const char *images)
{
    static const char *const families[] = {"qwen2_vl",   "qwen2_5_vl", "gemma3",   "smolvlm",
                                           "llava_next", "qwen3_vl",   "internvl", "llava_onevision"};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char folder[GOLDEN_PATH], file[GOLDEN_PATH];
        struct dirent **entries;
        put(folder, "%s/%s/goldens", root, families[i]);
        int n = scandir(folder, &entries, NULL, alphasort);
        for (int k = 0; k < n; k++) {
            const size_t before = f->n;
            put(file, "%s/goldens/%s", families[i], entries[k]->d_name);
            if (strstr(file, "__") && strstr(file, ".safetensors"))
                add(f, root, file, families[i], NULL);
            if (f->n > before) {
                golden_case *c = &f->cases[before];
                char name[GOLDEN_PATH];
                put(name, "%s", c->name);
                put(c->name, "%s/%s", families[i], name);
                put(c->images, "%s", images);
                c->vision = true;
            }
            free(entries[k]);
        }
        if (n >= 0)
            free(entries);
    }
}

size_t golden_find(golden_case **out)
{
    found f = {0};
    const char *shared = getenv("VLENS_SHARED_DATA"), *real = getenv("VLENS_REAL_DIR");
    char model[GOLDEN_PATH];
    add_folder(&f, FIXTURES, "models", is_golden);
    add_folder(&f, FAMILIES, "models", is_golden);
    add_vision(&f, VLENS_SOURCE_DIR "/tests/golden/vision", FIXTURES "/images");
    if (shared) {
        add_folder(&f, shared, "tiny", is_tiny_golden);
        add_families(&f, shared);
        char families[GOLDEN_PATH], images[GOLDEN_PATH];
        put(families, "%s/families", shared);
        put(images, "%s/images", shared);
        add_vision(&f, families, images);
        add(&f, shared, "real/llava-easyvqa-f32__q0.safetensors", "trained", NULL);
        add(&f, shared, "real/mllama-easyvqa-f32__q0.safetensors", "trained", NULL);
        put(model, "%s/real/stories260k", shared);
        add(&f, shared, "real/stories260k_hf-bf16__once.safetensors", "real", model);
    } else {
        print_message("VLENS_SHARED_DATA is not set: the goldens of more tiny models are not used\n");
    }
    if (shared && real) {
        put(model, "%s/smollm2-135m", real);
        add(&f, shared, "real/smollm2-135m__capital.safetensors", "real", model);
    } else {
        print_message("VLENS_REAL_DIR is not set: the golden of smollm2-135m is not used\n");
    }
    *out = f.cases;
    return f.n;
}

golden_case golden_fixture(const char *name)
{
    found f = {0};
    char file[GOLDEN_PATH];
    char path[GOLDEN_PATH + 64];
    put(file, "goldens/%s.safetensors", name);
    snprintf(path, sizeof path, FAMILIES "/%s", file);
    add(&f, vl_path_exists(path) ? FAMILIES : FIXTURES, file, "models", NULL);
    assert_int_equal(f.n, 1);
    golden_case c = f.cases[0];
    free(f.cases);
    return c;
}

golden_case golden_vision_fixture(const char *family, const char *name)
{
    found f = {0};
    char root[GOLDEN_PATH], file[GOLDEN_PATH];
    put(root, VLENS_SOURCE_DIR "/tests/golden/vision");
    put(file, "%s/goldens/%s.safetensors", family, name);
    add(&f, root, file, family, NULL);
    assert_int_equal(f.n, 1);
    golden_case c = f.cases[0];
    put(c.images, FIXTURES "/images");
    c.vision = true;
    free(f.cases);
    return c;
}

/* ---- opening ----------------------------------------------------------------------------------------------- */

static const char *metadata(const golden *g, const char *key, const char *fallback)
{
    const char *value = vl_safetensors_metadata(g->file, key);
    return value ? value : fallback;
}

/* The pictures of the golden; one whose file is not there is stood in for, and its pixels are injected later. */
static void find_pictures(golden *g, char paths[GOLDEN_IMAGES][GOLDEN_PATH])
{
    vl_error err = VL_ERROR_INIT;
    json_t *names;
    const char *text = metadata(g, "images", "[]");
    OK(vl_json_parse(&names, text, strlen(text), "images", &err));
    g->n_images = (int)json_array_size(names);
    assert_in_range(g->n_images, 0, GOLDEN_IMAGES);
    for (int i = 0; i < g->n_images; i++) {
        const char *name = json_string_value(json_array_get(names, (size_t)i));
        put(paths[i], "%s/%s", g->source->images, name);
        g->decoded[i] = vl_path_exists(paths[i]);
        g->exact[i] = g->decoded[i] && !strcasecmp(name + strlen(name) - 4, ".png");
        if (!g->decoded[i])
            put(paths[i], "%s/images/square.png", FIXTURES);
    }
    json_decref(names);
}

/* What the golden's processor was told beside its files. */
static void change_processor(vl_model *model, const char *text)
{
    vl_error err = VL_ERROR_INIT;
    json_t *changes, *value;
    const char *key;
    OK(vl_json_parse(&changes, text, strlen(text), "processor_kwargs", &err));
    json_object_foreach(changes, key, value)
    {
        vl_idefics3_own *idefics3 = model->spec.own;
        vl_gemma3_own *gemma3 = model->spec.own;
        if (!strcmp(key, "do_image_splitting"))
            idefics3->splitting = json_is_true(value);
        else if (!strcmp(key, "do_pan_and_scan"))
            gemma3->crops = json_is_true(value);
        else if (!strcmp(key, "pan_and_scan_min_crop_size"))
            gemma3->pan_and_scan.min_crop_size = (int)json_integer_value(value);
        else
            fail_msg("processor_kwargs: %s", key);
    }
    json_decref(changes);
}

/* Leaves so little memory that some of the weights must stay in their file. */
static void limit_memory(vl_device *device, const vl_model_options *options)
{
    vl_error err = VL_ERROR_INIT;
    vl_device_memory memory;
    vl_model *model;
    OK(vl_model_open(&model, options, &err));
    assert_true(vl_device_get_memory(device, &memory));
    vl_model_close(model);
    vl_device_limit_memory(device, (memory.total - memory.available) / 4 * 3);
}

golden golden_open(const golden_case *source)
{
    vl_error err = VL_ERROR_INIT;
    golden g = {.source = source};
    char paths[GOLDEN_IMAGES][GOLDEN_PATH];
    const char *images[GOLDEN_IMAGES];
    OK(vl_safetensors_open(&g.file, source->golden, &err));
    OK(vl_device_open(&g.device, source->device ? source->device : "cpu", 0, &err));
    vl_model_options options = {.path = source->model, .device = g.device, .precision = VL_PRECISION_EXACT};
    if (source->streamed)
        limit_memory(g.device, &options);
    OK(vl_model_open(&g.model, &options, &err));
    vl_device_memory memory;
    assert_true(!source->streamed || (vl_device_get_memory(g.device, &memory) && memory.streamed > 0));
    vl_device_limit_memory(g.device, 0);
    find_pictures(&g, paths);
    for (int i = 0; i < g.n_images; i++)
        images[i] = paths[i];
    const char *exif = metadata(&g, "exif_transpose", metadata(&g, "exif", "false"));
    vl_prompt prompt = {.text = metadata(&g, "prompt", NULL),
                        .image_paths = images,
                        .n_images = g.n_images,
                        .raw = true,
                        .ignore_exif = strcasecmp(exif, "true") != 0};
    assert_non_null(prompt.text);
    change_processor(g.model, metadata(&g, "processor_kwargs", "{}"));
    if (source->change_model)
        source->change_model(g.model);
    OK(vl_model_encode(&g.sequence, g.model, &prompt, &err));
    if (source->change_sequence)
        source->change_sequence(g.sequence);
    for (int i = 0; i < g.n_images; i++)
        if (!g.decoded[i])
            golden_inject_pixels(&g, i);
    return g;
}

void golden_close(golden *g)
{
    vl_sequence_free(g->sequence);
    vl_model_close(g->model);
    vl_device_close(g->device);
    vl_safetensors_close(g->file);
}

golden_rows golden_read(const golden *g, const char *name)
{
    golden_rows out = {0};
    const vl_weight_view *view = vl_safetensors_find(g->file, name);
    if (!view)
        return out;
    assert_int_equal(view->dtype, VL_F32);
    out.columns = view->shape[view->ndim - 1];
    out.rows = (int64_t)(view->bytes / sizeof *out.data) / out.columns;
    out.data = malloc(view->bytes);
    assert_non_null(out.data);
    memcpy(out.data, view->data, view->bytes);
    return out;
}

int32_t *golden_read_ids(const golden *g, const char *name, int64_t *n)
{
    const vl_weight_view *view = vl_safetensors_find(g->file, name);
    *n = -1;
    if (!view)
        return NULL;
    assert_int_equal(view->dtype, VL_I64);
    *n = view->shape[0];
    int32_t *out = malloc((size_t)*n * sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < *n; i++) {
        int64_t value;
        memcpy(&value, view->data + 8 * i, 8);
        out[i] = (int32_t)value;
    }
    return out;
}

bool golden_pixels_equal(const golden *g, int i)
{
    vl_error err = VL_ERROR_INIT;
    const struct vl_sequence_image *image = &g->sequence->images[i];
    const size_t bytes = (size_t)image->n_pixels * sizeof(float);
    const char *hashes = vl_safetensors_metadata(g->file, "pixels");
    if (hashes) {
        char hex[VL_SHA256_HEX];
        uint8_t digest[VL_SHA256_BYTES];
        vl_sha256 hash;
        json_t *list;
        OK(vl_json_parse(&list, hashes, strlen(hashes), "pixels", &err));
        assert_int_equal(json_array_size(list), g->n_images);
        vl_sha256_init(&hash);
        vl_sha256_update(&hash, image->pixels, bytes);
        vl_sha256_final(&hash, digest);
        vl_sha256_hex(digest, hex);
        const bool same = !strcmp(hex, json_string_value(json_array_get(list, (size_t)i)));
        json_decref(list);
        return same;
    }
    /* tiles of all pictures, one behind another; or (five dimensions) each picture's, filled up with zeros */
    const vl_weight_view *view = vl_safetensors_find(g->file, "pixel_values");
    assert_non_null(view);
    size_t at = 0;
    if (view->ndim == 5 && view->shape[0] == g->n_images)
        at = (size_t)i * (view->bytes / (size_t)g->n_images);
    else
        for (int k = 0; k < i; k++)
            at += (size_t)g->sequence->images[k].n_pixels * sizeof(float);
    return at + bytes <= view->bytes && !memcmp(view->data + at, image->pixels, bytes);
}

void golden_inject_pixels(golden *g, int i)
{
    const vl_weight_view *view = vl_safetensors_find(g->file, "pixel_values");
    assert_non_null(view);
    assert_int_equal(view->shape[0], g->n_images);
    size_t bytes = view->bytes / (size_t)g->n_images;
    memcpy(g->sequence->images[i].pixels, view->data + bytes * (size_t)i, bytes);
}

/* ---- comparing --------------------------------------------------------------------------------------------- */

golden_difference golden_compare(const float *a, const float *b, int64_t rows, int64_t columns)
{
    golden_difference out = {0, 1};
    double largest = 0, apart = 0;
    for (int64_t r = 0; r < rows; r++) {
        double ab = 0, aa = 0, bb = 0;
        for (int64_t c = 0; c < columns; c++) {
            double x = a[r * columns + c], y = b[r * columns + c];
            if (!isfinite(x) || !isfinite(y))
                return (golden_difference){INFINITY, 0};
            apart = fmax(apart, fabs(x - y));
            largest = fmax(largest, fabs(y));
            ab += x * y;
            aa += x * x;
            bb += y * y;
        }
        if (aa > 0 && bb > 0)
            out.cosine = fmin(out.cosine, ab / sqrt(aa * bb));
    }
    out.relative = largest > 0 ? apart / largest : apart;
    return out;
}

/* ---- changed models ---------------------------------------------------------------------------------------- */

static void write_changed(const char *folder, const char *source, const golden_change *change)
{
    vl_error err = VL_ERROR_INIT;
    char path[GOLDEN_PATH], *text;
    size_t size;
    OK(vl_file_read(&text, &size, source, 1 << 20, &err));
    char *at = strstr(text, change->from);
    assert_non_null(at);
    snprintf(path, sizeof path, "%.128s/%.128s", folder, change->file);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fprintf(out, "%.*s%s%s", (int)(at - text), text, change->to, at + strlen(change->from));
    fclose(out);
    vl_free(text);
}

void golden_copy_model(char *folder, const golden_change *change)
{
    char root[GOLDEN_PATH], source[GOLDEN_PATH], target[GOLDEN_PATH];
    assert_non_null(mkdtemp(folder));
    snprintf(root, sizeof root, FIXTURES "/models/%.128s", change->model);
    DIR *entries = opendir(root);
    assert_non_null(entries);
    for (struct dirent *e; (e = readdir(entries));) {
        snprintf(source, sizeof source, "%.320s/%.128s", root, e->d_name);
        snprintf(target, sizeof target, "%.128s/%.128s", folder, e->d_name);
        if (e->d_name[0] == '.')
            continue;
        if (!strcmp(e->d_name, change->file))
            write_changed(folder, source, change);
        else
            assert_int_equal(symlink(source, target), 0);
    }
    closedir(entries);
}

void golden_remove_copy(const char *folder)
{
    char path[GOLDEN_PATH];
    DIR *entries = opendir(folder);
    assert_non_null(entries);
    for (struct dirent *e; (e = readdir(entries));) {
        snprintf(path, sizeof path, "%.128s/%.128s", folder, e->d_name);
        if (e->d_name[0] != '.')
            unlink(path);
    }
    closedir(entries);
    rmdir(folder);
}

/* ---- running ----------------------------------------------------------------------------------------------- */

typedef struct recorder {
    const golden *g;
    golden_states states;
} recorder;

static int record(void *user, const vl_tap *tap)
{
    recorder *r = user;
    vl_error err = VL_ERROR_INIT;
    float *copy = malloc((size_t)tap->x.shape[0] * (size_t)tap->x.shape[1] * sizeof *copy);
    assert_non_null(copy);
    OK(vl_device_read(r->g->device, copy, &tap->x, &err));
    float **slot = &r->states.data[tap->state * r->states.n_sequences + tap->sequence];
    assert_null(*slot);
    *slot = copy;
    return 0;
}

golden_states golden_run(const golden *g, vl_forward forward)
{
    vl_error err = VL_ERROR_INIT;
    int n_states = (int)vl_model_get_info(g->model)->n_layers + 1;
    recorder r = {g, {NULL, n_states, forward.n_sequences}};
    r.states.data = calloc((size_t)n_states * (size_t)forward.n_sequences, sizeof *r.states.data);
    assert_non_null(r.states.data);
    forward.tap = record;
    forward.user = &r;
    OK(vl_model_forward(g->model, &forward, &err));
    return r.states;
}

void golden_states_free(golden_states *states)
{
    for (int i = 0; i < states->n_states * states->n_sequences; i++)
        free(states->data[i]);
    free(states->data);
}
