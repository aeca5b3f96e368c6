#include "tests/view/synthetic_reading.h"

#include <math.h>
#include <stdio.h>

#include "trainer/base/mem.h"
#include "trainer/base/rng.h"

const char *const hostile_tokens[HOSTILE_TOKENS] = {
    "</script><img src=x onerror=\"document.title='owned'\">",
    "<!--<script>",
    "]]>",
    "{{data}}",
    "&lt;b&gt;&amp;",
    "'\"`${document.title='owned'}\\",
    "\xe2\x80\xa8\xe2\x80\xa9", /* line and paragraph separator */
    ("\xe2\x80\xae"
     "abc"), /* right-to-left override */
    "\x01\x7f",
    "",
    "\xff\xfe", /* no UTF-8 */
    " \xd0\x9c\xd0\xbe\xd1\x81\xd0\xba\xd0\xb2\xd0\xb0 \xf0\x9f\x98\x80",
};

/* Numbers at the edges of what a page can hold; the rest is random. */
static const float edge_values[] = {0.0f,   1.0f, 0.99996f, 0.99994f, 1e-7f,   9.9994e-8f, 1e-9f, 0.12345f,
                                    -1e-9f, NAN,  INFINITY, 12.5f,    2500.0f, 1e6f,       1e-4f, 3.3e-5f};
enum { EDGES = sizeof edge_values / sizeof edge_values[0] };

static void fill_cells(vl_reading *r, vl_rng *rng)
{
    size_t cells = 2 * (size_t)r->n_positions * (size_t)r->n_states;
    for (size_t c = 0; c < cells; c++) {
        float p = (float)vl_rng_uniform(rng);
        int32_t id = (int32_t)(c % (size_t)r->vocab_size);
        for (int64_t j = 0; j < r->k; j++) {
            r->ids[c * (size_t)r->k + (size_t)j] = (int32_t)((id + j * 7) % r->vocab_size);
            r->probability[c * (size_t)r->k + (size_t)j] = c < EDGES && j == 0 ? edge_values[c] : p;
            p *= (float)vl_rng_uniform(rng);
        }
        r->entropy[c] = c < EDGES ? edge_values[c] : (float)(10 * vl_rng_uniform(rng));
        r->kl[c] = c < EDGES ? edge_values[EDGES - 1 - c] : (float)exp(3 * vl_rng_normal(rng) - 2);
    }
}

static void fill_positions(vl_reading *r, int side)
{
    static const vl_token_class tail[] = {VL_TEXT, VL_TEXT, VL_TEXT, VL_LAST, VL_GENERATED};
    int patches = side * side;
    for (int i = 0; i < r->n_positions; i++) {
        vl_reading_position *p = &r->positions[i];
        bool image = i < patches;
        *p = (vl_reading_position){.position = i, .id = i % HOSTILE_TOKENS, .token_class = VL_IMAGE, .image = 0};
        p->patch[1] = (int16_t)(i / side);
        p->patch[2] = (int16_t)(i % side);
        p->piece = image ? "<image>" : r->pieces[i % HOSTILE_TOKENS];
        if (!image) {
            p->token_class = tail[i - patches];
            p->image = -1;
            p->patch[0] = p->patch[1] = p->patch[2] = -1;
        }
    }
}

static bool fill_picture(vl_reading *r, int side)
{
    int pixels = 336;
    vl_picture *p = r->pictures.items = vl_calloc(1, sizeof *p);
    if (!p)
        return false;
    r->pictures.n = 1;
    *p = (vl_picture){.width = pixels, .height = pixels, .rows = side, .columns = side};
    p->rgb = vl_alloc((size_t)(pixels * pixels), 3);
    for (int i = 0; p->rgb && i < 3 * pixels * pixels; i++) /* a photograph's bytes hardly compress; nor do these */
        p->rgb[i] = (uint8_t)((i / 3 % pixels + i / 3 / pixels) / 4 + (i * 2654435761u >> 28));
    return p->rgb != NULL;
}

vl_reading *synthetic_reading_new(int side, int64_t n_states, int64_t k, int64_t vocab_size)
{
    vl_error err = VL_ERROR_INIT;
    vl_rng rng;
    char text[32];
    vl_rng_seed(&rng, 3);
    vl_reading *r = vl_calloc(1, sizeof *r);
    if (!r)
        return NULL;
    *r = (vl_reading){.n_states = n_states,
                      .n_positions = side * side + 5,
                      .k = k,
                      .vocab_size = vocab_size,
                      .has_lens = true,
                      .n_parts = 1};
    r->model_id = vl_strdup("test/<b>model</b>");
    r->prompt = vl_strdup(hostile_tokens[0]);
    r->answer = vl_strdup("<i>answer</i>");
    r->lens_path = vl_strdup("lens&");
    r->positions = vl_calloc((size_t)r->n_positions, sizeof *r->positions);
    if (vl_reading_alloc(r, &err) != VL_OK || !r->positions || !fill_picture(r, side)) {
        vl_reading_free(r);
        return NULL;
    }
    for (int64_t i = 0; i < vocab_size; i++) {
        snprintf(text, sizeof text, " token%lld", (long long)i);
        r->pieces[i] = vl_strdup(i < HOSTILE_TOKENS ? hostile_tokens[i] : text);
    }
    fill_cells(r, &rng);
    fill_positions(r, side);
    return r;
}
