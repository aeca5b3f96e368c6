/* The activation cache without a model: shards and an index are written, reopened, compared, damaged. */
#define _GNU_SOURCE /* memmem */
#include "tests/support/temp_folder.h"

#include <fcntl.h>

#include <vlens/cache.h>

#include "tests/support/synthetic_cache.h"
#include "trainer/base/half.h"
#include "trainer/base/mem.h"
#include "trainer/cache/index.h"
#include "trainer/cache/shard_writer.h"

enum { L = 3, SAMPLES = 7, ROWS = 12, D = 8, V = 40, N = SAMPLES * ROWS };

static void make(const char *folder, vl_dtype dtype)
{
    vl_error err = VL_ERROR_INIT;
    if (synthetic_cache_write(folder, L, SAMPLES, ROWS, D, V, dtype, 5, &err) != VL_OK)
        fail_msg("%s", err.message);
}

static void test_open(void **state)
{
    vl_error err = VL_ERROR_INIT;
    vl_cache *cache;
    make(*state, VL_BF16);
    assert_true(vl_cache_exists(*state));
    if (vl_cache_open(&cache, *state, &err) != VL_OK)
        fail_msg("%s", err.message);
    const vl_cache_info *info = vl_cache_get_info(cache);
    assert_int_equal(info->n_tokens, N);
    assert_int_equal(info->n_states, L + 1);
    assert_int_equal(info->d_model, D);
    assert_int_equal(info->vocab_size, V);
    assert_int_equal(info->dtype, VL_BF16);
    assert_int_equal(info->n_samples, SAMPLES);
    assert_int_equal(info->n_images, SAMPLES);
    assert_int_equal(info->n_shards, 2);
    assert_int_equal(strlen(info->fingerprint), 64);
    assert_string_equal(info->model_id, "synthetic");
    assert_string_equal(info->created, "");
    assert_true(info->has_head && info->has_vocabulary);
    const vl_cache_tokens *tokens = vl_cache_get_tokens(cache);
    assert_int_equal(tokens->token_class[0], VL_IMAGE);
    assert_int_equal(tokens->token_class[ROWS - 1], VL_LAST);
    assert_int_equal(tokens->next_id[ROWS - 1], -1);
    assert_int_equal(tokens->patch[1][2], 1);
    assert_null(tokens->visible);
    const vl_cache_samples *samples = vl_cache_get_samples(cache);
    for (int64_t i = 0; i < N; i++) {
        assert_int_equal(tokens->sample_row[i], i / ROWS);
        assert_int_equal(tokens->image[i], i % ROWS < ROWS / 3 ? i / ROWS : -1);
    }
    assert_string_equal(samples->prompt[4], "question 4 \xc3\xa4?");
    assert_string_equal(samples->answer[4], "no");
    assert_string_equal(samples->image_path[6], "images/6.png");
    assert_string_equal(vl_cache_piece(cache, 39), " t39");
    assert_null(vl_cache_piece(cache, V));
    assert_null(vl_cache_piece(cache, -1));
    vl_cache_close(cache);
}

static vl_cache *open_cache(const char *path)
{
    vl_error err = VL_ERROR_INIT;
    vl_cache *cache;
    if (vl_cache_open(&cache, path, &err) != VL_OK)
        fail_msg("%s", err.message);
    return cache;
}

/* Reads all of the cache in one call and again in odd pieces. */
static void check_pieces(vl_cache *cache, size_t row_bytes)
{
    vl_error err = VL_ERROR_INIT;
    char whole[N * D * 4], pieces[N * D * 4];
    for (int64_t state = 0; state <= L; state++) {
        if (vl_cache_read(whole, cache, state, 0, N, &err) != VL_OK)
            fail_msg("%s", err.message);
        for (int64_t first = 0, n = 1; first < N; first += n, n = n % 17 + 3) {
            n = first + n > N ? N - first : n;
            assert_int_equal(vl_cache_read(pieces + (size_t)first * row_bytes, cache, state, first, n, &err), VL_OK);
        }
        assert_memory_equal(whole, pieces, N * row_bytes);
    }
    assert_int_equal(vl_cache_read(whole, cache, 0, N, 0, &err), VL_OK);
    assert_int_equal(vl_cache_read(whole, cache, L + 1, 0, 1, &err), VL_EINVAL);
    assert_int_equal(vl_cache_read(whole, cache, 0, N, 1, &err), VL_EINVAL);
    assert_int_equal(vl_cache_read(whole, cache, -1, 0, 1, &err), VL_EINVAL);
    assert_int_equal(vl_cache_read(whole, cache, 0, 1, INT64_MAX, &err), VL_EINVAL);
}

static void test_read(void **state)
{
    static const vl_dtype dtypes[] = {VL_F32, VL_F16, VL_BF16};
    char path[TEMP_PATH_SIZE];
    float f32[N * D];
    for (int i = 0; i < 3; i++) {
        char name[] = {(char)('a' + i), 0};
        make(temp_path(path, *state, name), dtypes[i]);
        vl_cache *cache = open_cache(path);
        size_t row_bytes = D * vl_dtype_size(dtypes[i]);
        check_pieces(cache, row_bytes);
        /* The same seed gives the same values, rounded. */
        uint16_t half[N * D];
        vl_error err = VL_ERROR_INIT;
        void *out = i == 0 ? (void *)f32 : half;
        assert_int_equal(vl_cache_read(out, cache, 2, 0, N, &err), VL_OK);
        for (int k = 0; i > 0 && k < N * D; k++)
            assert_int_equal(half[k], i == 1 ? vl_f32_to_f16(f32[k]) : vl_f32_to_bf16(f32[k]));
        vl_cache_close(cache);
    }
}

/* ---- damage ------------------------------------------------------------------------------------------------ */

static void expect(const char *folder, vl_status status, const char *words)
{
    vl_error err = VL_ERROR_INIT;
    vl_cache *cache;
    vl_status found = vl_cache_open(&cache, folder, &err);
    if (found == VL_OK)
        fail_msg("opened, expected: %s", words);
    assert_null(cache);
    if (found != status || !strstr(err.message, words))
        fail_msg("status %d, \"%s\"; expected status %d with \"%s\"", found, err.message, status, words);
}

static void test_missing_files(void **state)
{
    char path[TEMP_PATH_SIZE];
    expect(*state, VL_EIO, "index.h5 is missing");
    assert_false(vl_cache_exists(*state));
    expect(temp_path(path, *state, "none"), VL_EIO, "no such cache");
    make(*state, VL_BF16);
    assert_int_equal(unlink(temp_path(path, *state, "shard-00001.h5")), 0);
    expect(*state, VL_EIO, "shard-00001.h5: shard is missing");
}

static void test_truncated(void **state)
{
    char path[TEMP_PATH_SIZE];
    make(*state, VL_BF16);
    struct stat info;
    assert_int_equal(stat(temp_path(path, *state, "shard-00001.h5"), &info), 0);
    assert_int_equal(truncate(path, info.st_size / 2), 0);
    expect(*state, VL_EFORMAT, "shard-00001.h5");
    assert_int_equal(truncate(path, 0), 0);
    expect(*state, VL_EFORMAT, "shard-00001.h5");
    temp_text(*state, "index.h5", "this is no HDF5 file");
    expect(*state, VL_EFORMAT, "index.h5");
    assert_false(vl_cache_exists(*state));
}

static void test_foreign_shard(void **state)
{
    char a[TEMP_PATH_SIZE], b[TEMP_PATH_SIZE];
    make(*state, VL_BF16);
    /* A shard in the place of another one of the same size has the wrong uuid. */
    make(temp_path(a, *state, "a"), VL_BF16);
    assert_int_equal(rename(temp_path(a, *state, "a/shard-00000.h5"), temp_path(b, *state, "shard-00001.h5")), 0);
    expect(*state, VL_EMISMATCH, "uuid");
}

/* Writes a cache of one shard (and an index) by hand, to be spoiled in one point. */
typedef struct spoil {
    int64_t rows, sample, image;
    uint8_t token_class;
    int32_t next_id;
    const char *fingerprint;
} spoil;

static vl_status write_spoiled(const char *folder, const spoil *what, vl_error *err)
{
    static char settings[] = "x";
    float zeros[4 * D] = {0}, weight[V * D] = {0}, norm[D] = {0};
    vl_head_source head = {.d_model = D,
                           .vocab_size = V,
                           .n_layers = 1,
                           .eps = 1e-5,
                           .weight_dtype = VL_F32,
                           .weight = weight,
                           .norm_dtype = VL_F32,
                           .norm_weight = norm};
    vl_cache_meta meta = {.d_model = D, .n_layers = 1, .vocab_size = V, .dtype = VL_F32, .settings = settings};
    vl_tables tables = {0};
    vl_shard_writer *writer;
    vl_shard_spec spec = {folder, 0, &meta, 0};
    snprintf(meta.fingerprint, sizeof meta.fingerprint, "%s", what->fingerprint ? what->fingerprint : "");
    VL_TRY(vl_shard_begin(&writer, &spec, err));
    for (int i = 0; i < 2; i++)
        VL_TRY(vl_shard_states(writer, i, 0, what->rows, zeros, err));
    VL_TRY(vl_rows_reserve(&tables.rows, 2, true, err));
    VL_TRY(vl_samples_reserve(&tables.samples, 1, VL_COLUMN_SPLIT, err));
    tables.rows.n = 2;
    tables.samples.n = 1;
    tables.samples.id[0] = 3;
    for (int i = 0; i < 2; i++) {
        tables.rows.sample[i] = i ? (int32_t)what->sample : 3;
        tables.rows.image[i] = i ? (int32_t)what->image : -1;
        tables.rows.token_class[i] = i ? what->token_class : 0;
        tables.rows.next_id[i] = i ? what->next_id : -1;
        tables.rows.visible[i] = UINT64_C(0x8000000000000001);
    }
    vl_status status = vl_shard_tables(writer, &tables, err);
    vl_tables_clear(&tables);
    if (status != VL_OK)
        return status;
    VL_TRY(vl_shard_finish(writer, err));
    vl_index_spec index = {folder, &meta, 1, &head, NULL, NULL};
    return vl_index_write(&index, err);
}

static void test_ranges(void **state)
{
    static const struct {
        spoil what;
        const char *words;
    } cases[] = {
        {{2, 4, -1, 0, -1, NULL}, "is sample 4, which /samples/id does not hold"},
        {{2, 3, 0, 0, -1, NULL}, "/tokens/image[1] is 0, but /images has 0 entries"},
        {{2, 3, -1, 5, -1, NULL}, "/tokens/class[1] is 5, expected 0 to 4"},
        {{2, 3, -1, 0, V, NULL}, "/tokens/next_id[1] is 40"},
        {{3, 3, -1, 0, -1, NULL}, "3 rows of states but 2 tokens"},
    };
    vl_error err = VL_ERROR_INIT;
    spoil good = {2, 3, -1, 2, V - 1, NULL};
    if (write_spoiled(*state, &good, &err) != VL_OK)
        fail_msg("%s", err.message);
    vl_cache *cache = open_cache(*state);
    assert_true(vl_cache_get_tokens(cache)->visible[1] == UINT64_C(0x8000000000000001));
    vl_cache_close(cache);
    /* The index is made from checked shards, so that writing it finds what opening would. */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[8], path[TEMP_PATH_SIZE];
        snprintf(name, sizeof name, "%zu", i);
        assert_int_equal(mkdir(temp_path(path, *state, name), 0700), 0);
        vl_status status = write_spoiled(path, &cases[i].what, &err);
        if (status == VL_OK || !strstr(err.message, cases[i].words))
            fail_msg("case %zu: status %d, \"%s\"; expected \"%s\"", i, status, err.message, cases[i].words);
    }
}

static void test_incomplete_shard(void **state)
{
    vl_error err = VL_ERROR_INIT;
    char path[TEMP_PATH_SIZE];
    vl_h5 file;
    make(*state, VL_F16);
    assert_int_equal(vl_h5_create(&file, temp_path(path, *state, "shard-00000.h5"), &err), VL_OK);
    vl_h5_close(&file);
    expect(*state, VL_EFORMAT, "shard-00000.h5");
    vl_cache_meta meta = {.d_model = D, .n_layers = L, .vocab_size = V};
    assert_int_equal(vl_h5_create(&file, path, &err), VL_OK);
    vl_h5_dataset states;
    vl_h5_states shape = {L + 1, D, VL_F16, 16};
    assert_int_equal(vl_meta_write(file, &meta, &err), VL_OK);
    assert_int_equal(vl_h5_states_create(&states, file, &shape, &err), VL_OK);
    vl_h5_dataset_close(&states);
    vl_h5_close(&file);
    expect(*state, VL_EFORMAT, "not complete");
}

static void test_fingerprint(void **state)
{
    vl_error err = VL_ERROR_INIT;
    vl_device *device;
    vl_head *head;
    spoil what = {2, 3, -1, 0, -1, "0123456789012345678901234567890123456789012345678901234567890123"};
    assert_int_equal(write_spoiled(*state, &what, &err), VL_OK);
    vl_cache *cache = open_cache(*state);
    if (vl_device_open(&device, "cpu", 1, &err) != VL_OK)
        fail_msg("%s", err.message);
    assert_int_equal(vl_cache_head(&head, cache, device, VL_PRECISION_AUTO, &err), VL_EMISMATCH);
    assert_non_null(strstr(err.message, what.fingerprint));
    vl_cache_close(cache);
    /* Absent: computed. */
    what.fingerprint = NULL;
    assert_int_equal(write_spoiled(*state, &what, &err), VL_OK);
    cache = open_cache(*state);
    assert_int_equal(strlen(vl_cache_get_info(cache)->fingerprint), 64);
    if (vl_cache_head(&head, cache, device, VL_PRECISION_AUTO, &err) != VL_OK)
        fail_msg("%s", err.message);
    assert_string_equal(vl_head_get_info(head)->fingerprint, vl_cache_get_info(cache)->fingerprint);
    vl_head_close(head);
    vl_cache_close(cache);
    vl_device_close(device);
}

/* A flipped bit in the stored states is found by the checksum. */
static void test_bit_rot(void **state)
{
    char path[TEMP_PATH_SIZE];
    vl_error err = VL_ERROR_INIT;
    uint16_t rows[N * D];
    make(*state, VL_BF16);
    vl_cache *cache = open_cache(*state);
    assert_int_equal(vl_cache_read(rows, cache, 1, 0, 1, &err), VL_OK);
    vl_cache_close(cache);
    int fd = open(temp_path(path, *state, "shard-00000.h5"), O_RDWR);
    struct stat info;
    assert_int_equal(fstat(fd, &info), 0);
    char *data = malloc((size_t)info.st_size);
    assert_int_equal(read(fd, data, (size_t)info.st_size), info.st_size);
    char *found = memmem(data, (size_t)info.st_size, rows, D * 2);
    assert_non_null(found);
    found[3] ^= 4;
    assert_int_equal(pwrite(fd, data, (size_t)info.st_size, 0), info.st_size);
    close(fd);
    free(data);
    cache = open_cache(*state);
    assert_int_equal(vl_cache_read(rows, cache, 0, 0, N, &err), VL_OK);
    assert_int_equal(vl_cache_read(rows, cache, 1, 0, N, &err), VL_EIO);
    assert_non_null(strstr(err.message, "shard-00000.h5"));
    vl_cache_close(cache);
}

/* For check_cache.py: one cache of each element type. */
static int write_all(const char *folder)
{
    static const vl_dtype dtypes[] = {VL_F32, VL_F16, VL_BF16};
    for (int i = 0; i < 3; i++) {
        char path[TEMP_PATH_SIZE];
        vl_error err = VL_ERROR_INIT;
        snprintf(path, sizeof path, "%s/%s", folder, vl_dtype_name(dtypes[i]));
        if (synthetic_cache_write(path, L, SAMPLES, ROWS, D, V, dtypes[i], 5, &err) != VL_OK) {
            fprintf(stderr, "%s\n", err.message);
            return 1;
        }
    }
    return 0;
}

/* For check_cache.py: opens a cache that Python wrote and prints the sum of its states, or the error. */
static int open_foreign(const char *path)
{
    vl_error err = VL_ERROR_INIT;
    vl_cache *cache;
    if (vl_cache_verify(path, NULL, &err) != VL_OK || vl_cache_open(&cache, path, &err) != VL_OK) {
        printf("%s\n", err.message);
        return 1;
    }
    const vl_cache_info *info = vl_cache_get_info(cache);
    int64_t n = info->n_tokens * info->d_model;
    float *f32 = calloc((size_t)n, 4);
    uint16_t *half = (uint16_t *)f32;
    double sum = 0;
    for (int64_t state = 0; state < info->n_states; state++) {
        if (vl_cache_read(f32, cache, state, 0, info->n_tokens, &err) != VL_OK)
            return 1;
        for (int64_t i = 0; i < n; i++)
            sum += info->dtype == VL_F32 ? f32[i] : info->dtype == VL_F16 ? vl_f16_to_f32(half[i]) : 1e30;
    }
    printf("%.9g %s\n", sum, info->fingerprint);
    free(f32);
    vl_cache_close(cache);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--open") == 0)
        return open_foreign(argv[2]);
    if (argc == 3 && strcmp(argv[1], "--write") == 0)
        return write_all(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_open, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_read, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_missing_files, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_truncated, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_foreign_shard, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_ranges, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_incomplete_shard, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_fingerprint, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_bit_rot, temp_setup, temp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
