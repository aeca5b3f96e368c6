/* Allocation-failure walk: a tiny run of everything, in which the first and then the last call of every place in the
 * code that allocates fails. Each time the run must end with a status, and with nothing left allocated.
 *
 * test_allocations [STRIDE]: every STRIDE-th place (1: all). */
#include "tests/support/temp_folder.h"

#include <vlens/vlens.h>

#include "tests/robust/alloc_fault.h"
#include "trainer/base/file.h"

#define LLAVA  VLENS_SOURCE_DIR "/tests/golden/fixtures/models/llava-base-f32"
#define IMAGES VLENS_SOURCE_DIR "/tests/golden/fixtures/images"

typedef struct run {
    const char *folder;
    vl_config *config;
    vl_device *device;
    vl_model *model;
    vl_cache *cache;
    vl_lens *lens;
    vl_head *head;
    vl_eval_result *result;
    vl_reading *reading;
    char *text;
    vl_error err;
} run;

#define STEP(expression)                                                                                               \
    do {                                                                                                               \
        vl_status step_status = (expression);                                                                          \
        if (step_status != VL_OK)                                                                                      \
            return step_status;                                                                                        \
    } while (0)

static vl_status set(run *r, const char *key, const char *value, const char *end)
{
    char text[2 * TEMP_PATH_SIZE];
    snprintf(text, sizeof text, "%s=%s%s", key, value, end);
    return vl_config_set(r->config, text, &r->err);
}

static vl_status configure(run *r)
{
    static const char *const pairs[][2] = {{"model", LLAVA},
                                           {"data.images", IMAGES},
                                           {"data.heldout", "0.4"},
                                           {"cache.positions.image", "3"},
                                           {"cache.shard_tokens", "24"},
                                           {"fit.steps", "2"},
                                           {"fit.tokens_per_step", "8"},
                                           {"fit.validate_every", "1"},
                                           {"fit.validation", "0.3"},
                                           {"fit.checkpoint_every", "1"},
                                           {"eval.bootstrap", "4"},
                                           {"cache.positions.generated", "2"}};
    char path[TEMP_PATH_SIZE];
    STEP(vl_config_read(&r->config, temp_path(path, r->folder, "run.yaml"), &r->err));
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        STEP(set(r, pairs[i][0], pairs[i][1], ""));
    STEP(set(r, "data.samples", r->folder, "/samples.jsonl"));
    STEP(set(r, "output", r->folder, "/lens"));
    return vl_config_check(r->config, &r->err);
}

static vl_status make(run *r)
{
    vl_cache_plan plan;
    vl_fit_result fit = {0};
    char *directory = NULL;
    vl_model_options options = {.path = r->config->model, .device = r->device};
    STEP(vl_model_open(&r->model, &options, &r->err));
    STEP(vl_cache_build(&plan, r->config, r->model, NULL, NULL, &r->err));
    STEP(vl_cache_directory(&directory, r->config, &r->err));
    vl_status status = vl_cache_open(&r->cache, directory, &r->err);
    if (status == VL_OK)
        status = vl_cache_verify(directory, NULL, &r->err);
    vl_release(directory);
    STEP(status);
    STEP(vl_fit_run(&fit, &(vl_fit_inputs){r->config, r->cache, r->device}, NULL, NULL, &r->err));
    vl_fit_result_clear(&fit);
    return vl_lens_open(&r->lens, r->config->output, &r->err);
}

static vl_status read_back(run *r)
{
    char path[TEMP_PATH_SIZE];
    int64_t position = -1;
    vl_reading_options options = {.lens = r->lens, .k = 3, .positions = &position, .n_positions = 1};
    STEP(vl_eval_run(&r->result, &(vl_eval_inputs){r->config, r->cache, r->lens, r->device}, NULL, NULL, &r->err));
    STEP(vl_eval_table(&r->text, r->result, &r->err));
    vl_release(r->text);
    r->text = NULL;
    STEP(vl_eval_write(r->result, temp_path(path, r->folder, "eval.json"), &r->err));
    STEP(vl_reading_from_cache(&r->reading, r->cache, r->device, 0, &options, &r->err));
    STEP(vl_reading_json(&r->text, r->reading, &r->err));
    vl_release(r->text);
    r->text = NULL;
    return vl_reading_write_page(temp_path(path, r->folder, "page.html"), r->reading, &r->err);
}

static vl_status to_others(run *r)
{
    static const char *const formats[][2] = {{"safetensors", "x.safetensors"},
                                             {"npz", "x.npz"},
                                             {"tuned-lens", "torch"},
                                             {"hdf5", "x.h5"},
                                             {"jlens", "jlens"}};
    char path[TEMP_PATH_SIZE], out[TEMP_PATH_SIZE];
    STEP(vl_head_from_model(&r->head, r->model, &r->err));
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        temp_path(path, r->folder, formats[i][1]);
        STEP(vl_lens_export(r->lens, &(vl_export_options){formats[i][0], path, VL_F32, r->head}, &r->err));
        if (i < 4)
            STEP(vl_lens_import(
                &(vl_import_options){path, temp_path(out, r->folder, "imported"), r->head, "model", false}, NULL,
                &r->err));
    }
    return VL_OK;
}

static vl_status everything(run *r)
{
    STEP(configure(r));
    STEP(vl_device_open(&r->device, "cpu", 2, &r->err));
    STEP(make(r));
    STEP(read_back(r));
    return to_others(r);
}

static void end(run *r)
{
    vl_release(r->text);
    vl_reading_free(r->reading);
    vl_eval_free(r->result);
    vl_head_close(r->head);
    vl_lens_close(r->lens);
    vl_cache_close(r->cache);
    vl_model_close(r->model);
    vl_device_close(r->device);
    vl_config_free(r->config);
}

static vl_status run_once(vl_error *err)
{
    void *folder;
    if (temp_setup(&folder) != 0)
        return VL_EIO;
    temp_text(folder, "run.yaml", "precision: exact\n");
    temp_text(folder, "samples.jsonl",
              "{\"image\": \"small.png\", \"prompt\": \"What?\", \"answer\": \"a\"}\n{\"prompt\": \"one two three\"}\n"
              "{\"prompt\": \"four five\"}\n{\"image\": \"gray.png\", \"prompt\": \"Which?\"}\n{\"prompt\": \"more\"}\n"
              "{\"prompt\": \"and more\"}\n");
    run r = {.folder = folder};
    vl_status status = everything(&r);
    end(&r);
    *err = r.err;
    temp_teardown(&folder);
    return status;
}

/* stb_image does not tell a damaged picture from a lack of memory, and neither does the message. */
static bool says_memory(vl_status status, const vl_error *err)
{
    return status == VL_ENOMEM || strstr(err->message, "out of memory");
}

int main(int argc, char **argv)
{
    enum { MOST = 4096 };
    static const void *sites[MOST];
    static int64_t calls[MOST];
    int stride = argc > 1 ? atoi(argv[1]) : 1, injected = 0, survived = 0, reported = 0, bad = 0;
    vl_error err = VL_ERROR_INIT;
    setvbuf(stdout, NULL, _IOLBF, 0);
    alloc_fault_begin(NULL, 0);
    vl_status status = run_once(&err);
    int n = alloc_fault_sites();
    if (status != VL_OK || alloc_fault_live() != 0 || n > MOST) {
        printf("without a fault: %s, %lld blocks left\n", err.message, (long long)alloc_fault_live());
        return 1;
    }
    for (int i = 0; i < n; i++)
        sites[i] = alloc_fault_site(i, &calls[i]);
    for (int i = 0; i < n; i += stride)
        for (int last = 0; last < (calls[i] > 1 ? 2 : 1); last++) {
            alloc_fault_begin(sites[i], last ? calls[i] - 1 : 0);
            err = (vl_error)VL_ERROR_INIT;
            status = run_once(&err);
            injected += alloc_fault_injected();
            reported += status != VL_OK;
            survived += status == VL_OK;
            /* what goes wrong after a failed allocation is a lack of memory and nothing else */
            if (alloc_fault_live() != 0 || (status != VL_OK && !says_memory(status, &err)) ||
                (status && !err.message[0])) {
                bad++;
                printf("site %p call %lld: status %s (%s), %lld blocks left\n", sites[i],
                       (long long)(last ? calls[i] - 1 : 0), vl_status_name(status), err.message,
                       (long long)alloc_fault_live());
            }
        }
    printf("%d places that allocate, %d faults injected: %d reported, %d did without; %d wrong\n", n, injected,
           reported, survived, bad);
    return bad || !injected;
}
