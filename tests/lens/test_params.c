/* params.pt as data: what PyTorch wrote is read; everything hostile is refused by name, and nothing crashes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/fit_test.h"
#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/lens/export.h"
#include "trainer/lens/pickle.h"
#include "trainer/lens/zip.h"

#define TORCH_LENS VLENS_SOURCE_DIR "/tests/lens/torch_lens"

/* Room for a lens of 2 layers of width 4. */
typedef struct room {
    float *weight[2], *bias[2];
    vl_imported lens;
} room;

static void room_new(room *r)
{
    memset(r, 0, sizeof *r);
    r->lens = (vl_imported){.d_model = 4, .n_layers = 2, .weight = r->weight, .bias = r->bias};
}

static void room_clear(room *r)
{
    for (int i = 0; i < 2; i++) {
        vl_free(r->weight[i]);
        vl_free(r->bias[i]);
    }
    vl_free(r->lens.fingerprint);
    vl_free(r->lens.unembed_hash);
    vl_free(r->lens.model_id);
    vl_free(r->lens.heldout_kl);
}

static void test_torch_wrote_it(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    room r;
    room_new(&r);
    ok(vl_import_tuned_lens(&r.lens, TORCH_LENS, &err), &err);
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < 16; k++)
            assert_true(r.weight[i][k] == (float)(k + 100 * i));
        for (int k = 0; k < 4; k++)
            assert_true(r.bias[i][k] == (float)(-k - 100 * i));
    }
    assert_int_equal(r.lens.dtype, VL_F32);
    assert_string_equal(r.lens.model_id, "tiny");
    assert_int_equal(strlen(r.lens.unembed_hash), 64);
    assert_null(r.lens.fingerprint);
    room_clear(&r);
}

/* Without the fsync of vl_atomic_write: there are hundreds of them. */
static void write_plain(const char *path, const void *bytes, size_t size)
{
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(bytes, 1, size, stream), size);
    assert_int_equal(fclose(stream), 0);
}

/* Reads `bytes` as params.pt beside the config.json of PyTorch's lens. */
static vl_status read_as(const char *folder, const void *bytes, size_t size, vl_error *err)
{
    room r;
    room_new(&r);
    write_plain(in(folder, "params.pt"), bytes, size);
    vl_status status = vl_import_tuned_lens(&r.lens, folder, err);
    room_clear(&r);
    return status;
}

static char *lens_folder(char **bytes, size_t *size)
{
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new(), *config;
    size_t n;
    ok(vl_file_read(&config, &n, TORCH_LENS "/config.json", 1 << 16, &err), &err);
    ok(vl_atomic_write(in(folder, "config.json"), config, n, &err), &err);
    vl_free(config);
    ok(vl_file_read(bytes, size, TORCH_LENS "/params.pt", 1 << 20, &err), &err);
    return folder;
}

static void test_cut_off(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *bytes;
    size_t size;
    char *folder = lens_folder(&bytes, &size);
    ok(read_as(folder, bytes, size, &err), &err);
    for (size_t n = 0; n < size; n += 37)
        assert_int_equal(read_as(folder, bytes, n, &err), VL_EFORMAT);
    vl_free(bytes);
    folder_remove(folder);
}

/* Every byte changed in turn: refused, or harmless (a date, a flag that nobody reads); data never change unseen. */
static void test_damaged(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *bytes;
    size_t size;
    char *folder = lens_folder(&bytes, &size);
    for (size_t i = 0; i < size; i += 3) {
        bytes[i] ^= (char)(1 << i % 8);
        room r;
        room_new(&r);
        write_plain(in(folder, "params.pt"), bytes, size);
        if (vl_import_tuned_lens(&r.lens, folder, &err) == VL_OK)
            assert_true(r.weight[1][15] == 115 && r.weight[0][7] == 7 && r.bias[1][3] == -103);
        else
            assert_true(strlen(err.message) > 0);
        room_clear(&r);
        bytes[i] ^= (char)(1 << i % 8);
    }
    vl_free(bytes);
    folder_remove(folder);
}

#define STORAGE(key) "((X\7\0\0\0storagectorch\nFloatStorage\n" key "X\3\0\0\0cpuK\4tQ"
#define TENSOR       "ctorch._utils\n_rebuild_tensor_v2\n"
#define KEY                                                                                                            \
    "X\1\0\0\0"                                                                                                        \
    "0"
#define REST                                                                                                           \
    "\x89"                                                                                                             \
    "}tR"
#define CASE(text, expected)                                                                                           \
    {                                                                                                                  \
        text, sizeof(text) - 1, expected                                                                               \
    }

/* A plain dict, a lens that was saved from a GPU, a 64-bit number of elements. */
static void test_other_writers(void **state)
{
    (void)state;
    static const char bytes[] = "\x80\2}X\6\0\0\0"
                                "0.bias" TENSOR "((X\7\0\0\0storagectorch\nHalfStorage\n" KEY
                                "X\6\0\0\0cuda:0\x8a\2\0\1tQK\xfcK\4\x85K\1\x85\x88}tRs.";
    vl_error err = VL_ERROR_INIT;
    vl_pickle_tensor *tensors;
    size_t n;
    ok(vl_pickle_read(&tensors, &n, (const uint8_t *)bytes, sizeof bytes - 1, "params.pt", &err), &err);
    assert_int_equal(n, 1);
    assert_int_equal(tensors->dtype, VL_F16);
    assert_int_equal(tensors->storage_elements, 256);
    assert_int_equal(tensors->offset, 252);
    assert_int_equal(tensors->ndim, 1);
    assert_int_equal(tensors->shape[0], 4);
    assert_int_equal(tensors->name.size, 6);
    vl_free(tensors);
}

static void test_hostile_pickles(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *expected;
    } cases[] = {
        CASE("\x80\2cos\nsystem\n(X\2\0\0\0lstR.", "names os.system"),
        CASE("\x80\2cbuiltins\neval\n)R.", "names builtins.eval"),
        CASE("\x80\2ctorch._utils\n_rebuild_parameter\n)R.", "_rebuild_parameter"),
        CASE("\x80\2ctorch\nDoubleStorage\n.", "torch.DoubleStorage"),
        CASE("\x80\2c\x1b[2Jx\ny\n.", "names ?[2Jx.y"),
        CASE("\x80\2(S'ls'\nios\nsystem\n.", "opcode 0x53"),
        CASE("\x80\2(ios\nsystem\n.", "opcode 0x69"),
        CASE("\x80\2X\2\0\0\0osX\6\0\0\0system\x93.", "opcode 0x93"),
        CASE("\x80\2}\x81.", "opcode 0x81"),
        CASE("\x80\4}.", "protocol 2"),
        CASE("\x80\2X\xff\xff\xff\xff"
             "a.",
             "cut off"),
        CASE("\x80\2}r\xff\xff\xff\x7f.", "memo out of order"),
        CASE("\x80\2j\xff\xff\xff\x7f.", "memo that was never filled"),
        CASE("\x80\2\x8a\xff\1.", "more than 8 bytes"),
        CASE("\x80\2tt.", "mark is missing"),
        CASE("\x80\2R.", "nothing to work on"),
        CASE("\x80\2u.", "mark is missing"),
        CASE("\x80\2K\1.", "no dict"),
        CASE("\x80\2}}.", "no dict"),
        CASE("\x80\2}", "cut off"),
        CASE("\x80\2}..", "more bytes"),
        CASE("\x80\2}(X\1\0\0\0aK\1u.", "'a' is no tensor"),
        CASE("\x80\2}(K\1K\1u.", "a text as its key"),
        CASE("\x80\2}(X\1\0\0\0au.", "key without a value"),
        CASE("\x80\2}X\1\0\0\0aKb}b.", "something that is no dict"),
        CASE("\x80\2ctorch\nFloatStorage\n)R.", "call of a storage type"),
        CASE("\x80\2K\1)R.", "no function"),
        CASE("\x80\2K\1Q.", "names no storage"),
        CASE("\x80\2" TENSOR ")R.", "other arguments"),
        CASE("\x80\2" TENSOR STORAGE("X\7\0\0\0../../x"), "called '../../x'"),
        CASE("\x80\2" TENSOR STORAGE("X\0\0\0\0"), "called ''"),
        CASE("\x80\2" TENSOR STORAGE(KEY) "K\0K\4\x85K\2\x85" REST ".", "not dense"),
        CASE("\x80\2" TENSOR STORAGE(KEY) "K\1K\4\x85K\1\x85" REST ".", "outside its storage"),
        CASE("\x80\2" TENSOR STORAGE(KEY) "J\xff\xff\xff\xffK\4\x85K\1\x85" REST ".", "outside its storage"),
        CASE("\x80\2" TENSOR STORAGE(KEY) "K\0J\0\0\0\x80\x85K\1\x85" REST ".", "no numbers from 0"),
        CASE("\x80\2" TENSOR STORAGE(KEY) "K\0\x8a\x8\0\0\0\0\0\0\0\x40K\4\x86K\4K\1\x86" REST ".",
             "impossible number"),
        CASE("\x80\2" TENSOR STORAGE(KEY) "K\0K\1K\1\x86K\1\x85" REST ".", "other strides than sizes"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vl_error err = VL_ERROR_INIT;
        vl_pickle_tensor *tensors;
        size_t n;
        vl_status status =
            vl_pickle_read(&tensors, &n, (const uint8_t *)cases[i].bytes, cases[i].size, "params.pt", &err);
        if (status == VL_OK || !strstr(err.message, cases[i].expected) || tensors)
            fail_msg("case %zu: %s '%s', expected '%s'", i, vl_status_name(status), err.message, cases[i].expected);
    }
}

/* Every byte of PyTorch's own pickle, as every other byte, and cut off anywhere: never more than an error. */
static void test_mutated_pickle(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    vl_zip zip;
    vl_pickle_tensor *tensors;
    size_t n;
    ok(vl_zip_open(&zip, TORCH_LENS "/params.pt", &err), &err);
    const vl_zip_entry *pickle = vl_zip_find(&zip, "params/data.pkl");
    assert_non_null(pickle);
    uint8_t *bytes = vl_alloc(pickle->size, 1);
    assert_non_null(bytes);
    memcpy(bytes, pickle->data, pickle->size);
    ok(vl_pickle_read(&tensors, &n, bytes, pickle->size, "x", &err), &err);
    assert_int_equal(n, 4);
    vl_free(tensors);
    for (size_t i = 0; i < pickle->size; i++) {
        uint8_t *cut = vl_alloc(i + 1, 1); /* of its very length, so that a sanitizer sees one byte more */
        memcpy(cut, bytes, i);
        assert_int_not_equal(vl_pickle_read(&tensors, &n, cut, i, "x", &err), VL_OK);
        vl_free(cut);
        for (int value = 0; value < 256; value++) {
            bytes[i] = (uint8_t)value;
            if (vl_pickle_read(&tensors, &n, bytes, pickle->size, "x", &err) == VL_OK)
                for (size_t k = 0; k < n; k++)
                    assert_true(tensors[k].offset <= tensors[k].storage_elements);
            vl_free(tensors);
        }
        bytes[i] = pickle->data[i];
    }
    vl_free(bytes);
    vl_zip_close(&zip);
}

/* A sound container around other contents. */
static vl_status read_members(const char *folder, const char *const names[], const char *const texts[], int n,
                              vl_error *err)
{
    vl_atomic_file file;
    vl_zip_writer zip;
    ok(vl_atomic_begin(&file, in(folder, "params.pt"), err), err);
    vl_zip_begin(&zip, file.stream);
    for (int i = 0; i < n; i++)
        ok(vl_zip_add(&zip, names[i], &(vl_zip_piece){texts[i], strlen(texts[i])}, 1, err), err);
    ok(vl_zip_finish(&zip, err), err);
    vl_zip_drop(&zip);
    ok(vl_atomic_commit(&file, err), err);
    room r;
    room_new(&r);
    vl_status status = vl_import_tuned_lens(&r.lens, folder, err);
    room_clear(&r);
    return status;
}

static void test_containers(void **state)
{
    (void)state;
    static const struct {
        const char *names[3], *texts[3];
        int n;
        vl_status status;
        const char *expected;
    } cases[] = {
        {{"a/data.pkl"}, {"\x80\2}."}, 1, VL_EFORMAT, "0.weight is missing"},
        {{"data.pkl"}, {"\x80\2}."}, 1, VL_EFORMAT, "no PyTorch file"},
        {{"a/data.pkl", "b/data.pkl"}, {"\x80\2}.", "\x80\2}."}, 2, VL_EFORMAT, "no PyTorch file"},
        {{"a/data.pkl", "a/data.pkl"}, {"\x80\2}.", "\x80\2}."}, 2, VL_EFORMAT, "two members of one name"},
        {{"a/data.pkl", "a/byteorder"}, {"\x80\2}.", "big"}, 2, VL_EUNSUPPORTED, "byte order"},
        {{"../../a/data.pkl"}, {"\x80\2}."}, 1, VL_EFORMAT, "no PyTorch file"},
    };
    char *bytes;
    size_t size;
    char *folder = lens_folder(&bytes, &size);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vl_error err = VL_ERROR_INIT;
        assert_int_equal(read_members(folder, cases[i].names, cases[i].texts, cases[i].n, &err), cases[i].status);
        if (!strstr(err.message, cases[i].expected))
            fail_msg("case %zu: '%s', expected '%s'", i, err.message, cases[i].expected);
    }
    vl_free(bytes);
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torch_wrote_it), cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_damaged),        cmocka_unit_test(test_hostile_pickles),
        cmocka_unit_test(test_other_writers),  cmocka_unit_test(test_mutated_pickle),
        cmocka_unit_test(test_containers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
