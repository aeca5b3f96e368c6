/* The configuration: what is read is what is written, and mistakes are named with their place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <vlens/config.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/config/options.h"

static char path[] = "test-config-XXXXXX";

static int setup(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

static vl_status read_text(vl_config **out, const char *text, vl_error *err)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return vl_config_read(out, path, err);
}

/* The text is refused with a message that holds `what`. */
static void refused(const char *text, const char *what)
{
    vl_config *config = (vl_config *)1;
    vl_error err = VL_ERROR_INIT;
    vl_status status = read_text(&config, text, &err);
    if (status != VL_EINVAL || !strstr(err.message, what))
        fail_msg("\"%s\": %s: %s, expected \"%s\"", text, vl_status_name(status), err.message, what);
    assert_null(config);
}

static void mistakes_are_named_with_their_place(void **state)
{
    (void)state;
    refused("lens:\n  los: kl\n", ":2:3: unknown key \"lens.los\"; the nearest known key is \"lens.loss\"");
    refused("learning_rate: 1\n", "nearest known key is \"fit.learning_rate\"");
    refused("fit: {steps: 1.5}\n", ":1:14: fit.steps is \"1.5\", expected an integer");
    refused("fit: {steps: -1}\n", "fit.steps is -1, expected 0 to");
    refused("data: {heldout: 2}\n", "data.heldout is 2, expected 0 to 1");
    refused("data: {exif: yes}\n", "expected true or false");
    refused("model: a\nmodel: b\n", ":2:1: \"model\" is given twice");
    refused("lens: kl\n", "\"lens\" is a group of keys");
    refused("model: {a: b}\n", "model is a single value, found a mapping");
    refused("model: [a]\n", "model is a single value, found a list");
    refused("- a\n", "expected a mapping");
    refused("model: a\n---\nmodel: b\n", ":3:1: a second document");
    refused("model: a\n...\n]\n", ":3:1:");
    refused("a: {b: {c: {d: {e: {f: 1}}}}}\n", ":1:1: unknown key");
    refused("a: {b: {c: {d: {e: {f: {g: 1}}}}}}\n", ":1:24: nested too deeply");
    refused("a: [[[[[[[[[[[[[[", ":1:9: nested too deeply");
    refused("- - - - - - - - - - -\n", ":1:13: nested too deeply");
    refused("model: [\n", ":2:1:");
    refused("eval: {metrics: [kl, loss]}\n", "eval.metrics holds \"loss\"");
    refused("lens: {layers: 5-2}\n", "expected all, N or N-M");
    refused("cache: {max_bytes: 3 parsecs}\n", "expected a size such as");
}

static void references_and_tags_are_refused(void **state)
{
    (void)state;
    refused("model: &a x\noutput: y\n", ":1:8: anchors, aliases and tags");
    refused("model: !!str x\n", ":1:8: anchors, aliases and tags");
    /* a document that would unfold to 10^9 nodes */
    refused("a: &a [x,x,x]\nb: &b [*a,*a,*a]\n", ":1:4: anchors");
}

static void values_arrive(void **state)
{
    (void)state;
    vl_config *c;
    vl_error err = VL_ERROR_INIT;
    if (read_text(&c,
                  "model: org/name\nprecision: exact\noutput: null\n"
                  "cache: {max_bytes: 1.5GiB, positions: {image: 7, text: all}}\n"
                  "lens: {layers: 3-5, class_weights: {image: 0.5}, loss: reverse_kl}\n"
                  "fit: {optimizer: adam, learning_rate: 3e-4}\neval: {metrics: [kl, rank]}\n",
                  &err) != VL_OK)
        fail_msg("%s", err.message);
    assert_string_equal(c->model, "org/name");
    assert_null(c->output);
    assert_int_equal(c->precision, VL_PRECISION_EXACT);
    assert_int_equal(c->cache.max_bytes, (int64_t)1610612736);
    assert_int_equal(c->cache.positions[VL_IMAGE], 7);
    assert_int_equal(c->cache.positions[VL_TEXT], VL_ALL);
    assert_int_equal(c->lens.first_layer, 3);
    assert_int_equal(c->lens.last_layer, 5);
    assert_true(c->lens.class_weights[VL_IMAGE] == 0.5 && c->lens.class_weights[VL_TEXT] == 1);
    assert_int_equal(c->lens.loss, VL_LOSS_REVERSE_KL);
    assert_int_equal(c->fit.optimizer, VL_OPTIMIZER_ADAM);
    assert_true(c->fit.learning_rate == 3e-4);
    assert_int_equal(c->eval.metrics, 1u << VL_METRIC_KL | 1u << VL_METRIC_RANK);
    vl_config_free(c);
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    vl_config *a, *b;
    vl_error err = VL_ERROR_INIT;
    char *text;
    assert_int_equal(vl_config_new(&a, &err), VL_OK);
    const char *changes[] = {"model=a \"quoted\" \\ path", "lens.layers=2-9",    "fit.learning_rate=0.1",
                             "cache.max_bytes=123456789",  "eval.metrics=kl,js", "cache.positions.image=all"};
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++)
        assert_int_equal(vl_config_set(a, changes[i], &err), VL_OK);
    assert_int_equal(vl_config_write(&text, a, &err), VL_OK);
    if (read_text(&b, text, &err) != VL_OK)
        fail_msg("%s\n%s", err.message, text);
    for (int i = 0; i < vl_options_count; i++) {
        char *x = vl_option_text(a, &vl_options[i]), *y = vl_option_text(b, &vl_options[i]);
        assert_string_equal(x, y);
        vl_free(x);
        vl_free(y);
    }
    vl_release(text);
    vl_config_free(a);
    vl_config_free(b);
}

static void every_option_is_documented_and_has_a_valid_default(void **state)
{
    (void)state;
    vl_config *config;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_config_new(&config, &err), VL_OK);
    for (int i = 0; i < vl_option_count(); i++) {
        vl_option_info info = vl_option_get(i);
        assert_true(strlen(info.help) > 5);
        assert_ptr_equal(vl_option_find(info.key), &vl_options[i]);
        char *text = vl_option_text(config, &vl_options[i]);
        assert_string_equal(text, info.initial);
        vl_free(text);
    }
    vl_config_free(config);
}

static void wrong_assignments_are_refused(void **state)
{
    (void)state;
    vl_config *config;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_config_new(&config, &err), VL_OK);
    assert_int_equal(vl_config_set(config, "lens.loss", &err), VL_EINVAL);
    assert_int_equal(vl_config_set(config, "=kl", &err), VL_EINVAL);
    assert_int_equal(vl_config_set(config, "lens.lss=kl", &err), VL_EINVAL);
    assert_non_null(strstr(err.message, "lens.loss"));
    assert_int_equal(vl_config_set(config, "data.samples=a", &err), VL_OK);
    assert_int_equal(vl_config_set(config, "data.text=b", &err), VL_OK);
    assert_int_equal(vl_config_check(config, &err), VL_EINVAL);
    vl_config_free(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_are_named_with_their_place),
        cmocka_unit_test(references_and_tags_are_refused),
        cmocka_unit_test(values_arrive),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(every_option_is_documented_and_has_a_valid_default),
        cmocka_unit_test(wrong_assignments_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
