/* What goes out comes back: every format and element type; what belongs to another model is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <vlens/export.h>

#include "tests/lens/export_test.h"
#include "trainer/base/file.h"
#include "trainer/lens/unembed_hash.h"
#include "trainer/lens/zip.h"

static vl_status export_as(const example *e, const char *format, const char *path, vl_dtype dtype, vl_error *err)
{
    return vl_lens_export(e->lens, &(vl_export_options){format, path, dtype, e->head}, err);
}

static vl_status import_from(const example *e, const char *path, const char *out, vl_error *err)
{
    return vl_lens_import(&(vl_import_options){path, out, e->head, "the/model", false}, NULL, err);
}

static void test_every_format(void **state)
{
    (void)state;
    static const struct {
        const char *format, *name;
        vl_dtype dtype;
    } cases[] = {{"tuned-lens", "t32", VL_F32},   {"tuned-lens", "t16", VL_F16},
                 {"tuned-lens", "tb16", VL_BF16}, {"safetensors", "s32", VL_F32},
                 {"safetensors", "s16", VL_F16},  {"safetensors", "sb.safetensors", VL_BF16},
                 {"npz", "lens.npz", VL_F32},     {"hdf5", "x.h5", VL_F32},
                 {"hdf5", "x16.hdf5", VL_F16},    {"hdf5", "xb.h5", VL_BF16}};
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new();
    example e;
    example_new(&e, folder);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ok(export_as(&e, cases[i].format, in(folder, cases[i].name), cases[i].dtype, &err), &err);
        ok(import_from(&e, in(folder, cases[i].name), in(folder, "back"), &err), &err);
        example_check(&e, in(folder, "back"), cases[i].dtype);
    }
    example_free(&e);
    folder_remove(folder);
}

/* Every format of the list exists. */
static void test_list(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new(), list[200], *save = NULL;
    int n = 0;
    example e;
    example_new(&e, folder);
    snprintf(list, sizeof list, "%s", vl_export_formats());
    for (char *name = strtok_r(list, ", ", &save); name; name = strtok_r(NULL, ", ", &save), n++)
        ok(export_as(&e, name, in(folder, name), VL_F32, &err), &err);
    assert_int_equal(n, 5);
    example_free(&e);
    folder_remove(folder);
}

static void test_provenance(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new(), hex[65];
    example e;
    vl_lens *lens;
    example_new(&e, folder);
    ok(export_as(&e, "tuned-lens", in(folder, "t"), VL_F32, &err), &err);
    json_t *config = json_load_file(in(folder, "t/config.json"), 0, NULL);
    assert_non_null(config);
    assert_true(vl_unembed_hash(hex, vl_head_get_source(e.head)));
    assert_string_equal(json_string_value(json_object_get(config, "unembed_hash")), hex);
    assert_string_equal(json_string_value(json_object_get(config, "base_model_name_or_path")), "some/model");
    assert_int_equal(json_integer_value(json_object_get(config, "num_hidden_layers")), LAYERS);
    assert_true(json_is_true(json_object_get(config, "bias")));
    json_decref(config);
    /* one of the two files is as good as their folder */
    ok(import_from(&e, in(folder, "t/params.pt"), in(folder, "back"), &err), &err);
    ok(vl_lens_open(&lens, in(folder, "back"), &err), &err);
    assert_true(vl_lens_get_info(lens)->tokens_seen == 5000000000);
    assert_true(vl_lens_get_info(lens)->heldout_kl[2] == 0.125);
    assert_string_equal(vl_lens_get_info(lens)->model_id, "some/model");
    vl_lens_close(lens);
    ok(export_as(&e, "hdf5", in(folder, "x.h5"), VL_F16, &err), &err);
    ok(import_from(&e, in(folder, "x.h5"), in(folder, "back"), &err), &err);
    ok(vl_lens_open(&lens, in(folder, "back"), &err), &err);
    assert_true(vl_lens_get_info(lens)->tokens_seen == 5000000000);
    assert_true(vl_lens_get_info(lens)->heldout_kl[0] == 0.5);
    vl_lens_close(lens);
    /* without a head there is no hash, and nothing else differs */
    ok(vl_lens_export(e.lens, &(vl_export_options){"tuned-lens", in(folder, "u"), VL_F32, NULL}, &err), &err);
    config = json_load_file(in(folder, "u/config.json"), 0, NULL);
    assert_true(json_is_null(json_object_get(config, "unembed_hash")));
    json_decref(config);
    example_free(&e);
    folder_remove(folder);
}

static void test_another_model(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new();
    bool warned = false;
    example e;
    example_new(&e, folder);
    ok(export_as(&e, "tuned-lens", in(folder, "t"), VL_F32, &err), &err);
    static float other[V * D];
    vl_head_source source = *vl_head_get_source(e.head);
    source.weight = other;
    vl_head *mine = e.head;
    ok(vl_head_new(&e.head, e.device, &source, VL_PRECISION_EXACT, NULL, &err), &err);
    assert_int_equal(import_from(&e, in(folder, "t"), in(folder, "back"), &err), VL_EMISMATCH);
    assert_non_null(strstr(err.message, vl_head_get_info(mine)->fingerprint));
    assert_int_equal(export_as(&e, "npz", in(folder, "x.npz"), VL_F32, &err), VL_EMISMATCH);
    ok(vl_lens_import(&(vl_import_options){in(folder, "t"), in(folder, "back"), e.head, NULL, true}, &warned, &err),
       &err);
    assert_true(warned);
    example_check(&e, in(folder, "back"), VL_F32);
    /* written by tuned-lens itself: the hash alone speaks */
    json_t *config = json_load_file(in(folder, "t/config.json"), 0, NULL);
    json_object_del(config, "vlens_fingerprint");
    json_dump_file(config, in(folder, "t/config.json"), 0);
    assert_int_equal(import_from(&e, in(folder, "t"), in(folder, "back"), &err), VL_EMISMATCH);
    assert_non_null(strstr(err.message, "unembed_hash"));
    json_object_set_new(config, "d_model", json_integer(D + 1));
    json_dump_file(config, in(folder, "t/config.json"), 0);
    assert_int_equal(import_from(&e, in(folder, "t"), in(folder, "back"), &err), VL_EMISMATCH);
    assert_non_null(strstr(err.message, "width 41"));
    json_decref(config);
    vl_head_close(mine);
    example_free(&e);
    folder_remove(folder);
}

static void test_too_large_for_half(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new();
    example e;
    example_new(&e, folder);
    vl_lens_content content;
    vl_lens_describe(&content, e.lens);
    e.bias[1][3] = 70000;
    const float *biases[LAYERS] = {NULL, NULL, e.bias[1]};
    content.bias = biases;
    vl_lens *large;
    ok(vl_lens_write(in(folder, "large.safetensors"), &content, &err), &err);
    ok(vl_lens_open(&large, in(folder, "large.safetensors"), &err), &err);
    const vl_export_options options = {"tuned-lens", in(folder, "t"), VL_F16, NULL};
    assert_int_equal(vl_lens_export(large, &options, &err), VL_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "2.bias holds 70000"));
    assert_false(vl_path_exists(in(folder, "t/params.pt")));
    assert_false(vl_path_exists(in(folder, "t/config.json")));
    vl_lens_close(large);
    example_free(&e);
    folder_remove(folder);
}

static void write_zip(const char *path, bool wide, int alignment)
{
    vl_error err = VL_ERROR_INIT;
    vl_atomic_file file;
    vl_zip_writer zip;
    ok(vl_atomic_begin(&file, path, &err), &err);
    vl_zip_begin(&zip, file.stream);
    zip.always_zip64 = wide;
    zip.alignment = alignment;
    ok(vl_zip_add(&zip, "b/one", (vl_zip_piece[]){{"hello ", 6}, {"world", 5}}, 2, &err), &err);
    ok(vl_zip_add(&zip, "a", &(vl_zip_piece){"", 0}, 1, &err), &err);
    ok(vl_zip_add(&zip, "c", &(vl_zip_piece){"xyz", 3}, 1, &err), &err);
    ok(vl_zip_finish(&zip, &err), &err);
    vl_zip_drop(&zip);
    ok(vl_atomic_commit(&file, &err), &err);
}

static void test_zip(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *folder = folder_new(), command[600];
    for (int k = 0; k < 4; k++) {
        vl_zip zip;
        const char *path = in(folder, "x.zip");
        write_zip(path, k & 1, k & 2 ? 64 : 0);
        ok(vl_zip_open(&zip, path, &err), &err);
        assert_int_equal(zip.n, 3);
        const vl_zip_entry *one = vl_zip_find(&zip, "b/one");
        assert_int_equal(one->size, 11);
        assert_memory_equal(one->data, "hello world", 11);
        assert_true(!(k & 2) || (one->data - zip.map.data) % 64 == 0);
        ok(vl_zip_check(&zip, one, &err), &err);
        assert_null(vl_zip_find(&zip, "b"));
        vl_zip_close(&zip);
        snprintf(command, sizeof command,
                 "python3 -c 'import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; "
                 "assert z.read(\"b/one\") == b\"hello world\" and z.namelist() == [\"b/one\", \"a\", \"c\"]' %s",
                 path);
        assert_int_equal(system(command), 0);
    }
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_format),       cmocka_unit_test(test_list),
        cmocka_unit_test(test_provenance),         cmocka_unit_test(test_another_model),
        cmocka_unit_test(test_too_large_for_half), cmocka_unit_test(test_zip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
