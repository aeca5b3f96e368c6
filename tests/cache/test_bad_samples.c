/* A file of samples with 37 planted faults: all are named, with their lines, before anything is run; left out, the rest
 * is what a file without them gives, bit for bit. `test_bad_samples long` has 20,000 lines. */
#include "tests/support/temp_folder.h"

#include <vlens/cache.h>

#include "trainer/base/file.h"

#define FIXTURES VLENS_SOURCE_DIR "/tests/golden/fixtures"

enum { FAULTS = 37 };

static int n_lines = 600;

typedef struct session {
    vl_config *config;
    vl_device *device;
    vl_model *model;
    vl_error err;
    int warnings;
    bool named[20001]; /* lines that a warning begins with */
    char root[TEMP_PATH_SIZE];
} session;

static session s;

static void set(const char *format, const char *value)
{
    char text[2 * TEMP_PATH_SIZE];
    temp_format(text, sizeof text, "%s%s", format, value);
    if (vl_config_set(s.config, text, &s.err) != VL_OK)
        fail_msg("%s", s.err.message);
}

static void on_message(void *user, int is_warning, const char *line)
{
    const char *at = strstr(line, "samples.jsonl:");
    (void)user;
    if (!is_warning || !at)
        return;
    long number = strtol(at + strlen("samples.jsonl:"), NULL, 10);
    assert_true(number >= 1 && number <= n_lines && !s.named[number]);
    s.named[number] = true;
    s.warnings++;
}

/* Line i (from 0) holds a fault where i is one of 37 that are spread over the file. */
static bool is_bad(int i)
{
    return i % (n_lines / FAULTS) == 5 && i / (n_lines / FAULTS) < FAULTS;
}

static void put_fault(FILE *file, int i)
{
    static const char *const faults[] = {
        "{\"prompt\": \"cut off",
        "{\"question\": \"no prompt\"}",
        "{\"prompt\": 7}",
        "{\"image\": \"missing.png\", \"prompt\": \"x\"}",
        "{\"image\": \"short.png\", \"prompt\": \"x\"}",
        "{\"image\": \"moving.gif\", \"prompt\": \"x\"}",
        "{\"image\": \"../outside.png\", \"prompt\": \"x\"}",
        "{\"image\": \"scene.png\", \"conversations\": [{\"from\": \"human\", \"value\": \"<image><image>\"}]}",
        "{\"messages\": [{\"role\": \"tool\", \"content\": \"x\"}]}",
        "{\"image\": \"scene.png\", \"prompt\": \"<image> and <image>\"}",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    };
    int n = (int)(sizeof faults / sizeof *faults), kind = i / (n_lines / FAULTS) % (n + 1);
    if (kind < n)
        fputs(faults[kind], file);
    else { /* more tokens than the model has positions for */
        fputs("{\"prompt\": \"", file);
        for (int k = 0; k < 300; k++)
            fputs("word ", file);
        fputs("\"}", file);
    }
}

static void put_good(FILE *file, int i)
{
    static const char *const pictures[] = {"scene.png", "small.png", "gray.png"};
    if (i % 50 == 0)
        fprintf(file, "{\"image\": \"%s\", \"prompt\": \"Number %d?\", \"answer\": \"yes, %d\"}", pictures[i % 3], i,
                i % 7);
    else
        fprintf(file, "{\"prompt\": \"Line %d\", \"answer\": \"no\"}", i);
}

static void write_samples(const char *name, bool with_faults)
{
    char path[TEMP_PATH_SIZE];
    FILE *file = fopen(temp_path(path, s.root, name), "w");
    assert_non_null(file);
    for (int i = 0; i < n_lines; i++) {
        if (!is_bad(i))
            put_good(file, i);
        else if (with_faults)
            put_fault(file, i);
        fputc('\n', file);
    }
    fclose(file);
}

static void copy_picture(const char *name, const char *to, size_t most)
{
    char path[TEMP_PATH_SIZE], *data;
    size_t size;
    temp_format(path, sizeof path, FIXTURES "/images/%s", name);
    assert_int_equal(vl_file_read(&data, &size, path, 1 << 24, NULL), VL_OK);
    assert_int_equal(vl_atomic_write(temp_path(path, s.root, to), data, size < most ? size : most, NULL), VL_OK);
    vl_release(data);
}

static vl_status build(const char *samples, const char *cache)
{
    char path[TEMP_PATH_SIZE];
    vl_observer observer = {NULL, on_message, NULL};
    set("data.samples=", temp_path(path, s.root, samples));
    set("cache.dir=", temp_path(path, s.root, cache));
    return vl_cache_build(NULL, s.config, s.model, NULL, &observer, &s.err);
}

static vl_cache *open_cache(const char *name)
{
    char path[TEMP_PATH_SIZE];
    vl_cache *cache;
    if (vl_cache_open(&cache, temp_path(path, s.root, name), &s.err) != VL_OK)
        fail_msg("%s", s.err.message);
    return cache;
}

static void same_caches(const char *x, const char *y)
{
    vl_cache *a = open_cache(x), *b = open_cache(y);
    const vl_cache_info *info = vl_cache_get_info(a);
    int64_t n = info->n_tokens;
    size_t row = (size_t)info->d_model * vl_dtype_size(info->dtype);
    assert_int_equal(vl_cache_get_info(b)->n_tokens, n);
    assert_int_equal(vl_cache_get_info(b)->n_samples, info->n_samples);
    assert_int_equal(info->n_samples, n_lines - FAULTS);
    const vl_cache_tokens *s1 = vl_cache_get_tokens(a), *s2 = vl_cache_get_tokens(b);
    assert_memory_equal(s1->id, s2->id, (size_t)n * sizeof *s1->id);
    assert_memory_equal(s1->sample, s2->sample, (size_t)n * sizeof *s1->sample);
    assert_memory_equal(s1->position, s2->position, (size_t)n * sizeof *s1->position);
    assert_memory_equal(s1->token_class, s2->token_class, (size_t)n);
    assert_memory_equal(s1->turn, s2->turn, (size_t)n * sizeof *s1->turn);
    char *rows[2] = {malloc((size_t)n * row), malloc((size_t)n * row)};
    for (int64_t state = 0; state < info->n_states; state++) {
        assert_int_equal(vl_cache_read(rows[0], a, state, 0, n, &s.err), VL_OK);
        assert_int_equal(vl_cache_read(rows[1], b, state, 0, n, &s.err), VL_OK);
        assert_memory_equal(rows[0], rows[1], (size_t)n * row);
    }
    free(rows[0]);
    free(rows[1]);
    vl_cache_close(a);
    vl_cache_close(b);
}

static int count_lines(const char *folder, const char *name)
{
    char path[TEMP_PATH_SIZE], *data;
    size_t size;
    int n = 0;
    assert_int_equal(vl_file_read(&data, &size, temp_path(path, folder, name), 1 << 24, NULL), VL_OK);
    for (size_t i = 0; i < size; i++)
        n += data[i] == '\n';
    vl_release(data);
    return n;
}

static void test_faults(void **state)
{
    char path[TEMP_PATH_SIZE];
    temp_format(s.root, sizeof s.root, "%s", (char *)*state);
    assert_int_equal(vl_config_new(&s.config, NULL), VL_OK);
    assert_int_equal(vl_device_open(&s.device, "cpu", 0, &s.err), VL_OK);
    vl_model_options options = {.path = FIXTURES "/models/llava-base-f32", .device = s.device};
    if (vl_model_open(&s.model, &options, &s.err) != VL_OK)
        fail_msg("%s", s.err.message);
    copy_picture("scene.png", "scene.png", SIZE_MAX);
    copy_picture("small.png", "small.png", SIZE_MAX);
    copy_picture("gray.png", "gray.png", SIZE_MAX);
    copy_picture("scene.png", "short.png", 300);
    temp_text(s.root, "moving.gif", "GIF89a");
    write_samples("samples.jsonl", true);
    write_samples("clean.jsonl", false);
    set("data.images=", s.root);
    set("cache.positions.image=", "4");

    assert_int_equal(build("samples.jsonl", "cache"), VL_EFORMAT);
    assert_non_null(strstr(s.err.message, "37 bad samples of"));
    assert_int_equal(s.warnings, FAULTS);
    for (int i = 0; i < n_lines; i++)
        assert_int_equal(s.named[i + 1], is_bad(i));
    assert_int_not_equal(access(temp_path(path, s.root, "cache/index.h5"), R_OK), 0);

    set("data.bad_samples=", "skip");
    if (build("samples.jsonl", "cache") != VL_OK || build("clean.jsonl", "clean") != VL_OK)
        fail_msg("%s", s.err.message);
    same_caches("cache", "clean");
    assert_int_equal(count_lines(s.root, "cache/skipped.jsonl"), FAULTS);
    assert_int_not_equal(access(temp_path(path, s.root, "clean/skipped.jsonl"), R_OK), 0);
    vl_model_close(s.model);
    vl_device_close(s.device);
    vl_config_free(s.config);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_faults, temp_setup, temp_teardown)};
    if (argc > 1 && strcmp(argv[1], "long") == 0)
        n_lines = 20000;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
