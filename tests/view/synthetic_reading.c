#include "tests/view/synthetic_reading.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/rng.h"
#include "trainer/hf/preprocess.h"

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

static const vl_token_class tail[] = {VL_TEXT, VL_TEXT, VL_TEXT, VL_LAST, VL_GENERATED};
enum { TAIL = sizeof tail / sizeof tail[0] };

static int count_patches(const vl_picture_tile *tiles, int n_tiles)
{
    int n = 0;
    for (int t = 0; t < n_tiles; t++)
        n += tiles[t].rows * tiles[t].columns;
    return n;
}

static void fill_positions(vl_reading *r, const vl_picture_tile *tiles, int n_tiles)
{
    int64_t i = 0;
    for (int t = 0; t < n_tiles; t++)
        for (int n = 0; n < tiles[t].rows * tiles[t].columns; n++, i++)
            r->positions[i] = (vl_reading_position){
                .token_class = VL_IMAGE,
                .piece = "<image>",
                .patch = {(int16_t)t, (int16_t)(n / tiles[t].columns), (int16_t)(n % tiles[t].columns)}};
    for (int n = 0; n < TAIL; n++, i++)
        r->positions[i] = (vl_reading_position){
            .token_class = tail[n], .image = -1, .patch = {-1, -1, -1}, .piece = r->pieces[i % HOSTILE_TOKENS]};
    for (i = 0; i < r->n_positions; i++) {
        r->positions[i].position = i;
        r->positions[i].id = (int32_t)(i % HOSTILE_TOKENS);
    }
}

static bool fill_picture(vl_reading *r, const vl_picture_tile *tiles, int n_tiles)
{
    int pixels = 336;
    vl_error err = VL_ERROR_INIT;
    vl_picture *p = r->pictures.items = vl_calloc(1, sizeof *p);
    if (!p)
        return false;
    r->pictures.n = 1;
    *p = (vl_picture){.width = pixels, .height = pixels};
    if (vl_picture_set_tiles(p, n_tiles, &err) != VL_OK)
        return false;
    memcpy(p->tiles, tiles, (size_t)n_tiles * sizeof *tiles);
    p->rgb = vl_alloc((size_t)(pixels * pixels), 3);
    for (int i = 0; p->rgb && i < 3 * pixels * pixels; i++) /* a photograph's bytes hardly compress; nor do these */
        p->rgb[i] = (uint8_t)((i / 3 % pixels + i / 3 / pixels) / 4 + (i * 2654435761u >> 28));
    return p->rgb != NULL;
}

/* Tokens as long as a model's. */
static const char *const words[] = {"the",  "eyes", "pattern", "neck",  "animal", "of",   "orange", "background", "fur",
                                    "cat",  "left", "blanket", "a",     "whisk",  "ears", "grass",  "looking",    "and",
                                    "pink", "nose", "white",   "Augen", "stripe", "dark", "corner", "photograph", "is"};
enum { WORDS = sizeof words / sizeof words[0] };

static bool fill_pieces(vl_reading *r)
{
    char text[32];
    for (int64_t i = 0; i < r->vocab_size; i++) {
        snprintf(text, sizeof text, i < HOSTILE_TOKENS + WORDS ? " %s" : " %s%lld", words[i % WORDS], (long long)i);
        r->pieces[i] = vl_strdup(i < HOSTILE_TOKENS ? hostile_tokens[i] : text);
        if (!r->pieces[i])
            return false;
    }
    return true;
}

vl_reading *synthetic_reading_tiles(const vl_picture_tile *tiles, int n_tiles, int64_t n_states, int64_t k,
                                    int64_t vocab_size)
{
    vl_error err = VL_ERROR_INIT;
    vl_rng rng;
    vl_rng_seed(&rng, 3);
    vl_reading *r = vl_calloc(1, sizeof *r);
    if (!r)
        return NULL;
    *r = (vl_reading){.n_states = n_states,
                      .n_positions = count_patches(tiles, n_tiles) + TAIL,
                      .k = k,
                      .vocab_size = vocab_size,
                      .has_lens = true,
                      .n_parts = 1};
    r->model_id = vl_strdup("test/<b>model</b>");
    r->prompt = vl_strdup(hostile_tokens[0]);
    r->answer = vl_strdup("<i>answer</i>");
    r->lens_path = vl_strdup("lens&");
    r->positions = vl_calloc((size_t)r->n_positions, sizeof *r->positions);
    if (vl_reading_alloc(r, &err) != VL_OK || !r->positions || !fill_pieces(r) || !fill_picture(r, tiles, n_tiles)) {
        vl_reading_free(r);
        return NULL;
    }
    fill_cells(r, &rng);
    fill_positions(r, tiles, n_tiles);
    return r;
}

vl_reading *synthetic_reading_new(int side, int64_t n_states, int64_t k, int64_t vocab_size)
{
    return synthetic_reading_tiles(&(vl_picture_tile){side, side, 0, 0, 1, 1}, 1, n_states, k, vocab_size);
}

bool synthetic_reading_paths(vl_reading *r)
{
    vl_error err = VL_ERROR_INIT;
    vl_rng rng;
    vl_rng_seed(&rng, 5);
    r->trajectories = vl_calloc((size_t)r->n_positions, sizeof *r->trajectories);
    if (!r->trajectories || vl_trajectories_start(r, 0, r->n_positions, &err) != VL_OK)
        return false;
    for (int64_t i = 0; i < r->n_positions; i++)
        for (int64_t j = 0; j < r->trajectories[i].n * r->n_states; j++)
            r->trajectories[i].probability[j] = (float)vl_rng_uniform(&rng);
    return true;
}

bool synthetic_reading_photograph(vl_reading *r, const char *path)
{
    vl_error err = VL_ERROR_INIT;
    vl_image image = {0};
    vl_image_options options = {.max_pixels = VL_PROMPT_MAX_PIXELS};
    vl_picture *p = &r->pictures.items[0];
    if (vl_image_open(&image, path, &options, &err) != VL_OK)
        return false;
    int side = image.width < image.height ? image.width : image.height;
    p->width = p->height = 448;
    uint8_t *small = vl_alloc((size_t)p->width * (size_t)p->height, 3), *square = vl_alloc((size_t)(side * side), 3);
    bool good = small && square;
    for (int y = 0; good && y < side; y++)
        memcpy(square + 3 * (size_t)side * (size_t)y,
               image.rgb + 3 * ((size_t)image.width * (size_t)y + (size_t)(image.width - side) / 2), 3 * (size_t)side);
    good =
        good && vl_resize(small, &(vl_resize_args){square, side, side, 448, 448, 0, 0, 448, 448, VL_RESAMPLE_BICUBIC},
                          &err) == VL_OK;
    vl_free(square);
    vl_image_clear(&image);
    vl_free(good ? p->rgb : small);
    p->rgb = good ? small : p->rgb;
    return good;
}
