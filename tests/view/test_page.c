/* A page of hostile tokens: nothing of them becomes markup, nothing is fetched, and every number is the JSON's. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <jansson.h>

#include "tests/view/synthetic_reading.h"
#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/view/page_data.h"

enum { SIDE = 6, STATES = 5, K = 5, VOCAB = 900 };

static char *page_of(const vl_reading *r)
{
    vl_error err = VL_ERROR_INIT;
    char *page = NULL;
    if (vl_reading_page(&page, r, &err) != VL_OK)
        fail_msg("%s", err.message);
    return page;
}

static int count(const char *text, const char *word)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, word)); at += strlen(word))
        n++;
    return n;
}

/* The JSON of a page, cut out as a browser would: up to the first end tag. */
static json_t *data_of(const char *page)
{
    static const char start[] = "<script type=\"application/json\" id=\"data\">";
    json_error_t error;
    const char *from = strstr(page, start);
    assert_non_null(from);
    from += strlen(start);
    const char *end = strstr(from, "</script");
    assert_non_null(end);
    assert_null(memchr(from, '<', (size_t)(end - from)));
    json_t *json = json_loadb(from, (size_t)(end - from), 0, &error);
    if (!json)
        fail_msg("%s at %d", error.text, error.position);
    return json;
}

/* ---- markup ------------------------------------------------------------------------------------------------ */

static void nothing_becomes_markup(void **state)
{
    (void)state;
    vl_reading *hostile = synthetic_reading_new(SIDE, STATES, K, VOCAB), *tame = synthetic_reading_new(2, 2, 1, 20);
    assert_non_null(hostile);
    assert_non_null(tame);
    for (int i = 0; i < HOSTILE_TOKENS; i++)
        tame->pieces[i][0] = '\0';
    for (int64_t i = 0; i < tame->n_positions; i++)
        tame->positions[i].piece = "x";
    tame->prompt[0] = tame->model_id[0] = tame->answer[0] = '\0';
    char *page = page_of(hostile), *plain = page_of(tame);
    static const char *const marks[] = {"<", "</script", "<script", "<!--", "<img"};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        assert_int_equal(count(page, marks[i]), count(plain, marks[i]));
    assert_int_equal(count(page, "{{data}}"), 2); /* the token itself: once among the tokens, once as a position */
    vl_release(page);
    vl_release(plain);
    vl_reading_free(hostile);
    vl_reading_free(tame);
}

static void tokens_arrive_as_they_are(void **state)
{
    (void)state;
    vl_reading *r = synthetic_reading_new(SIDE, STATES, K, VOCAB);
    assert_non_null(r);
    char *page = page_of(r);
    json_t *data = data_of(page), *vocab = json_object_get(data, "vocab"), *ids = json_object_get(data, "ids");
    size_t seen = 0;
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        json_int_t id = json_integer_value(json_array_get(ids, i));
        if (id >= HOSTILE_TOKENS)
            continue;
        const char *expected = id == 10 ? "\xef\xbf\xbd\xef\xbf\xbd" : hostile_tokens[id];
        assert_string_equal(json_string_value(json_array_get(vocab, i)), expected);
        seen++;
    }
    assert_int_equal(seen, HOSTILE_TOKENS);
    assert_string_equal(json_string_value(json_object_get(data, "prompt")), hostile_tokens[0]);
    json_decref(data);
    vl_release(page);
    vl_reading_free(r);
}

/* ---- one file ---------------------------------------------------------------------------------------------- */

static void nothing_is_fetched(void **state)
{
    (void)state;
    static const char *const forbidden[] = {
        "src=\"http",         "src='",          "src=\"/",    "href=",   "url(",  "@import", "fetch(",
        "XMLHttpRequest",     "WebSocket",      "sendBeacon", "import(", "<link", "<iframe", "innerHTML",
        "insertAdjacentHTML", "document.write", "eval("};
    static const char *const notices[] = {"https://www.chartjs.org", "https://github.com/kurkle"}; /* in comments */
    vl_reading *r = synthetic_reading_new(SIDE, STATES, K, VOCAB);
    assert_non_null(r);
    char *page = page_of(r);
    for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++)
        if (strstr(page, forbidden[i]))
            fail_msg("the page holds \"%s\"", forbidden[i]);
    assert_int_equal(count(page, "http://"), 0);
    int known = 0;
    for (size_t i = 0; i < sizeof notices / sizeof notices[0]; i++)
        known += count(page, notices[i]);
    assert_int_equal(count(page, "https://"), known);
    assert_non_null(strstr(page, "default-src 'none'"));
    vl_release(page);
    vl_reading_free(r);
}

/* 24 x 24 patches and 33 states, both lenses, with a picture that hardly compresses. */
static void large_pages_stay_small(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    vl_reading *r = synthetic_reading_new(24, 33, 5, 32000);
    assert_non_null(r);
    assert_true(synthetic_reading_paths(r));
    char *page = page_of(r);
    size_t size = strlen(page);
    print_message("%lld positions, %lld states, top-%lld: %zu bytes\n", (long long)r->n_positions,
                  (long long)r->n_states, (long long)r->k, size);
    assert_true(size < 3000000);
    assert_int_equal(vl_reading_write_page("large.html", r, &err), VL_OK); /* the browser test opens both */
    vl_release(page);
    vl_reading_free(r);
    r = synthetic_reading_new(SIDE, STATES, K, VOCAB);
    assert_non_null(r);
    assert_int_equal(vl_reading_write_page("hostile.html", r, &err), VL_OK);
    assert_int_equal(vl_reading_write_svg("hostile.svg", r, r->n_positions - 5, &err), VL_OK);
    vl_reading_free(r);
}

/* Pages of the grids that families cut pictures into, for the browser: LLaVA-1.5's, a dynamic one, a whole picture with
 * its pieces (LLaVA-NeXT, SmolVLM), and the largest. Where VLENS_SHARED_DATA is set they show a photograph. */
static void grids_become_pages(void **state)
{
    (void)state;
    static const vl_picture_tile square = {24, 24, 0, 0, 1, 1}, dynamic = {17, 31, 0, 0, 1, 1},
                                 huge = {64, 64, 0, 0, 1, 1};
    const double half = 0.5;
    const vl_picture_tile pieces[] = {{12, 12, 0, 0, 1, 1},
                                      {12, 12, 0, 0, half, half},
                                      {12, 12, half, 0, half, half},
                                      {12, 12, 0, half, half, half},
                                      {12, 12, half, half, half, half}};
    const struct {
        const char *name;
        const vl_picture_tile *tiles;
        int n, states;
    } pages[] = {{"grid-24.html", &square, 1, 33},
                 {"grid-dynamic.html", &dynamic, 1, 29},
                 {"grid-tiles.html", pieces, 5, 25},
                 {"grid-64.html", &huge, 1, 9}};
    const char *shared = getenv("VLENS_SHARED_DATA");
    char path[4096];
    vl_error err = VL_ERROR_INIT;
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
        vl_reading *r = synthetic_reading_tiles(pages[i].tiles, pages[i].n, pages[i].states, K, HOSTILE_TOKENS + 27);
        assert_non_null(r);
        snprintf(path, sizeof path, "%s/images/sk_chelsea.png", shared ? shared : "");
        if (shared && !synthetic_reading_photograph(r, path))
            print_message("%s cannot be read: the pages show a pattern\n", path);
        assert_int_equal(vl_reading_write_page(pages[i].name, r, &err), VL_OK);
        char *page = page_of(r), *json = NULL;
        if (i == 0 && vl_reading_json(&json, r, &err) == VL_OK)
            assert_int_equal(vl_atomic_write("grid-24.json", json, strlen(json), &err), VL_OK);
        vl_release(json);
        json_t *data = data_of(page), *picture = json_array_get(json_object_get(data, "pictures"), 0);
        assert_int_equal(json_array_size(json_object_get(picture, "tiles")), pages[i].n);
        json_decref(data);
        vl_release(page);
        vl_reading_free(r);
    }
}

/* ---- numbers ----------------------------------------------------------------------------------------------- */

static uint8_t *decode(const char *text, size_t *n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t length = strlen(text);
    uint8_t *out = vl_alloc(length / 4 * 3 + 3, 1);
    uint32_t bits = 0;
    assert_non_null(out);
    *n = 0;
    for (size_t i = 0; i < length && text[i] != '='; i++) {
        bits = bits << 6 | (uint32_t)(strchr(digits, text[i]) - digits);
        if (i % 4)
            out[(*n)++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
    }
    return out;
}

/* The code of a number as page_data.h defines it, in decimal text. */
static void spell(char out[32], unsigned code, int lowest)
{
    unsigned mantissa = (code - 1) % 9000 + 1000;
    if (code == 0)
        snprintf(out, 32, "0");
    else
        snprintf(out, 32, "%u.%03ue%+03d", mantissa / 1000, mantissa % 1000, (int)(code - 1) / 9000 + lowest);
}

static void same_number(unsigned code, const json_t *number, int lowest)
{
    char got[32], expected[32];
    double x = json_number_value(number);
    if (json_is_null(number)) {
        assert_int_equal(code, VL_PAGE_NOT_FINITE);
        return;
    }
    spell(got, code, lowest);
    snprintf(expected, sizeof expected, "%.3e", x);
    if (code == VL_PAGE_NOT_FINITE)
        assert_true(x > 3.533 * pow(10, lowest + 7)); /* the largest code */
    else if (code == 0)
        assert_true(x < pow(10, lowest));
    else
        assert_string_equal(got, expected);
}

typedef struct packed_lens {
    uint8_t *top, *p, *entropy, *kl;
} packed_lens;

static packed_lens open_lens(const json_t *data, const char *name, size_t cells)
{
    const json_t *lens = json_object_get(data, name);
    size_t n[4];
    packed_lens out = {decode(json_string_value(json_object_get(lens, "top")), &n[0]),
                       decode(json_string_value(json_object_get(lens, "p")), &n[1]),
                       decode(json_string_value(json_object_get(lens, "entropy")), &n[2]),
                       decode(json_string_value(json_object_get(lens, "kl")), &n[3])};
    assert_int_equal(n[0], 2 * cells * K);
    assert_int_equal(n[1], 2 * cells * K);
    assert_int_equal(n[2], 2 * cells);
    assert_int_equal(n[3], 2 * cells);
    return out;
}

static unsigned at(const uint8_t *bytes, size_t i)
{
    return bytes[2 * i] | (unsigned)bytes[2 * i + 1] << 8;
}

static void compare_lens(const json_t *data, const json_t *positions, const char *name, size_t n_positions)
{
    const json_t *ids = json_object_get(data, "ids");
    packed_lens lens = open_lens(data, name, n_positions * STATES);
    for (size_t i = 0; i < n_positions; i++) {
        const json_t *states = json_object_get(json_array_get(positions, i), "states");
        for (size_t s = 0; s < STATES; s++) {
            const json_t *cell = json_object_get(json_array_get(states, s), name), *top = json_object_get(cell, "top");
            size_t c = i * STATES + s;
            same_number(at(lens.entropy, c), json_object_get(cell, "entropy"), VL_PAGE_LOWEST_NATS);
            same_number(at(lens.kl, c), json_object_get(cell, "kl"), VL_PAGE_LOWEST_NATS);
            for (size_t j = 0; j < K; j++) {
                const json_t *entry = json_array_get(top, j);
                assert_int_equal(json_integer_value(json_array_get(ids, at(lens.top, c * K + j))),
                                 json_integer_value(json_object_get(entry, "id")));
                same_number(at(lens.p, c * K + j), json_object_get(entry, "p"), VL_PAGE_LOWEST_P);
            }
        }
    }
    vl_free(lens.top);
    vl_free(lens.p);
    vl_free(lens.entropy);
    vl_free(lens.kl);
}

static void numbers_are_those_of_the_json(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *text = NULL;
    vl_reading *r = synthetic_reading_new(SIDE, STATES, K, VOCAB);
    assert_non_null(r);
    char *page = page_of(r);
    if (vl_reading_json(&text, r, &err) != VL_OK)
        fail_msg("%s", err.message);
    json_t *data = data_of(page), *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    const json_t *positions = json_object_get(json, "positions");
    assert_int_equal(json_array_size(positions), r->n_positions);
    compare_lens(data, positions, "logit", (size_t)r->n_positions);
    compare_lens(data, positions, "tuned", (size_t)r->n_positions);
    json_decref(data);
    json_decref(json);
    vl_release(text);
    vl_release(page);
    vl_reading_free(r);
}

static void heat_maps_are_escaped(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    char *svg = NULL;
    vl_reading *r = synthetic_reading_new(2, STATES, K, VOCAB); /* position 0 begins with the hostile tokens */
    assert_non_null(r);
    assert_int_equal(vl_reading_svg(&svg, r, 0, &err), VL_OK);
    assert_null(strstr(svg, "<img"));
    assert_null(strstr(svg, "</script"));
    assert_null(strstr(svg, "<!--"));
    assert_null(strchr(svg, 1));
    assert_non_null(strstr(svg, "&lt;/script&gt;"));
    /* ground, cells of both lenses, legend */
    assert_int_equal(count(svg, "<rect"), 1 + 2 * STATES * K + 100);
    vl_release(svg);
    vl_reading_free(r);
}

static void codes_round_to_four_digits(void **state)
{
    (void)state;
    char text[32];
    static const struct {
        float value;
        const char *text;
    } cases[] = {{1.0f, "1.000e+00"},  {0.99996f, "1.000e+00"}, {0.99994f, "9.999e-01"},
                 {1e-7f, "1.000e-07"}, {9.9994e-8f, "0"},       {0.0f, "0"},
                 {-1.0f, "0"},         {0.12345f, "1.235e-01"}, {3.3e-5f, "3.300e-05"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        spell(text, vl_page_code(cases[i].value, VL_PAGE_LOWEST_P), VL_PAGE_LOWEST_P);
        if (!strcmp(cases[i].text, "1.235e-01")) /* a tie in nine digits: either neighbour */
            assert_true(!strcmp(text, "1.235e-01") || !strcmp(text, "1.234e-01"));
        else
            assert_string_equal(text, cases[i].text);
    }
    assert_int_equal(vl_page_code(NAN, VL_PAGE_LOWEST_P), VL_PAGE_NOT_FINITE);
    assert_int_equal(vl_page_code(INFINITY, VL_PAGE_LOWEST_NATS), VL_PAGE_NOT_FINITE);
    assert_int_equal(vl_page_code(1e6f, VL_PAGE_LOWEST_NATS), VL_PAGE_NOT_FINITE);
    spell(text, vl_page_code(1999.4f, VL_PAGE_LOWEST_NATS), VL_PAGE_LOWEST_NATS);
    assert_string_equal(text, "1.999e+03");
}

static void weight_codes_keep_their_step(void **state)
{
    (void)state;
    assert_int_equal(vl_page_weight_code(0), 0);
    assert_int_equal(vl_page_weight_code(-1), 0);
    assert_int_equal(vl_page_weight_code(NAN), 0);
    assert_int_equal(vl_page_weight_code(1e-8f), 0);
    assert_int_equal(vl_page_weight_code(1), 255);
    for (double w = 1e-6; w < 1; w *= 1.013) {
        double back = pow(10, -6 + 6 * (vl_page_weight_code((float)w) - 1) / 254.0);
        assert_true(back / w < 1.0276 && w / back < 1.0276); /* half a step of 5.6 % */
    }
}

/* Two readings become one: every cell and picture of both is in its place; only readings that fit are joined. */
static void parts_keep_their_cells(void **state)
{
    (void)state;
    vl_error err = VL_ERROR_INIT;
    vl_reading *a = synthetic_reading_new(SIDE, STATES, K, VOCAB), *odd = synthetic_reading_new(2, 2, K, VOCAB);
    vl_reading *b = synthetic_reading_new(SIDE - 1, STATES, K, VOCAB);
    vl_reading *same_b = synthetic_reading_new(SIDE - 1, STATES, K, VOCAB);
    assert_true(a && b && same_b && odd);
    assert_int_equal(vl_reading_append(a, odd, &err), VL_EINVAL);
    int64_t first = a->n_positions, n = b->n_positions;
    int32_t id = vl_reading_get_cell(a, 3, 2, true).ids[1];
    assert_int_equal(vl_reading_append(a, b, &err), VL_OK);
    assert_int_equal(a->n_positions, first + n);
    assert_int_equal(vl_reading_get_cell(a, 3, 2, true).ids[1], id);
    for (int64_t i = 0; i < n; i++)
        for (int64_t s = 0; s < STATES; s++)
            for (int tuned = 0; tuned < 2; tuned++) {
                vl_reading_cell got = vl_reading_get_cell(a, first + i, s, tuned);
                vl_reading_cell want = vl_reading_get_cell(same_b, i, s, tuned);
                assert_memory_equal(got.ids, want.ids, K * sizeof *got.ids);
                assert_memory_equal(got.probability, want.probability, K * sizeof *got.probability);
                assert_memory_equal(&got.kl, &want.kl, sizeof got.kl);
                assert_memory_equal(&got.entropy, &want.entropy, sizeof got.entropy);
            }
    vl_reading_position p = vl_reading_get_position(a, first), q = vl_reading_get_position(a, 0);
    assert_int_equal(p.part, 1);
    assert_int_equal(q.part, 0);
    assert_int_equal(a->pictures.n, 2);
    assert_int_equal(p.image, a->pictures.items[1].image);
    assert_int_not_equal(p.image, q.image);
    vl_reading_free(b);
    char *page = page_of(a);
    json_t *data = data_of(page);
    assert_int_equal(json_array_size(json_object_get(data, "positions")), first + n);
    json_decref(data);
    vl_release(page);
    vl_reading_free(a);
    vl_reading_free(same_b);
    vl_reading_free(odd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_becomes_markup),     cmocka_unit_test(tokens_arrive_as_they_are),
        cmocka_unit_test(nothing_is_fetched),         cmocka_unit_test(large_pages_stay_small),
        cmocka_unit_test(grids_become_pages),         cmocka_unit_test(numbers_are_those_of_the_json),
        cmocka_unit_test(codes_round_to_four_digits), cmocka_unit_test(weight_codes_keep_their_step),
        cmocka_unit_test(parts_keep_their_cells),     cmocka_unit_test(heat_maps_are_escaped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
