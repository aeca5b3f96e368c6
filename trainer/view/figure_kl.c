/* view/figure_kl.c - KL by state with its intervals, from the JSON of an evaluation. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/view/figure.h"
#include "trainer/view/scale.h"

enum { WIDTH = 460, PLOT_LEFT = 52, PLOT_TOP = 14, PLOT_WIDTH = 392, PLOT_HEIGHT = 230, EVAL_LIMIT = 64 << 20 };
enum { CAPTION_SIZE = 8, MOST_STATES = 512, LENSES = 4 };

static const char *const lens_keys[LENSES] = {"tuned", "logit", "baseline", "wrong_picture"};
static const char *const lens_names[LENSES] = {"tuned lens", "logit lens", "baseline", "tuned lens, wrong picture"};

typedef struct series {
    int n; /* states that have a number */
    double state[MOST_STATES], kl[MOST_STATES], low[MOST_STATES], high[MOST_STATES];
} series;

typedef struct kl_plot {
    vl_canvas *canvas;
    const json_t *group;
    int n_states;
    double low, high; /* powers of ten that hold every number */
    series lens[LENSES];
} kl_plot;

static double number_of(const json_t *cell, const char *key)
{
    const json_t *value = json_object_get(cell, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

/* What is not above 0 has no place on a logarithmic axis: the last state, where every lens is the model. */
static void read_series(kl_plot *p)
{
    const json_t *states = json_object_get(p->group, "states");
    p->n_states = (int)json_array_size(states);
    p->low = INFINITY;
    p->high = 0;
    for (int l = 0; l < LENSES; l++) {
        series *to = &p->lens[l];
        for (int s = 0; s < p->n_states && s < MOST_STATES; s++) {
            const json_t *cell = json_object_get(json_array_get(states, (size_t)s), lens_keys[l]);
            double kl = number_of(cell, "kl"), low = number_of(cell, "kl_low"), high = number_of(cell, "kl_high");
            if (!(kl > 1e-9))
                continue;
            to->state[to->n] = s;
            to->kl[to->n] = kl;
            to->low[to->n] = low > 0 ? low : kl;
            to->high[to->n] = high > 0 ? high : kl;
            p->low = fmin(p->low, to->low[to->n]);
            p->high = fmax(p->high, to->high[to->n]);
            to->n++;
        }
    }
    p->low = pow(10, floor(log10(p->low)));
    p->high = pow(10, ceil(log10(p->high)));
    if (p->high <= p->low)
        p->high = 10 * p->low;
}

static double x_of(const kl_plot *p, double state)
{
    return PLOT_LEFT + PLOT_WIDTH * state / (p->n_states > 1 ? p->n_states - 1 : 1);
}

static double y_of(const kl_plot *p, double kl)
{
    return PLOT_TOP + PLOT_HEIGHT * (1 - log(kl / p->low) / log(p->high / p->low));
}

static void put_axes(const kl_plot *p)
{
    char text[32];
    const vl_text_style middle = {9, false, VL_ANCHOR_MIDDLE, VL_PAINT_INK},
                        end = {9, false, VL_ANCHOR_END, VL_PAINT_INK};
    for (double kl = p->low; kl <= p->high * 1.001; kl *= 10) {
        double y = y_of(p, kl);
        vl_canvas_lines(p->canvas, (double[4]){PLOT_LEFT, y, PLOT_LEFT + PLOT_WIDTH, y}, 2, VL_PAINT_FAINT, 0.6, false);
        snprintf(text, sizeof text, "%g", kl);
        vl_canvas_text(p->canvas, PLOT_LEFT - 5, y + 3, text, end);
    }
    int step = (p->n_states + 11) / 12;
    for (int s = 0; s<p->n_states; s += step> 0 ? step : 1) {
        snprintf(text, sizeof text, "%d", s);
        vl_canvas_text(p->canvas, x_of(p, s), PLOT_TOP + PLOT_HEIGHT + 13, text, middle);
    }
    vl_canvas_text(p->canvas, PLOT_LEFT + PLOT_WIDTH / 2.0, PLOT_TOP + PLOT_HEIGHT + 27, "state", middle);
    vl_canvas_text(p->canvas, 4, PLOT_TOP - 3, "KL to the model (nats)",
                   (vl_text_style){9, false, VL_ANCHOR_START, VL_PAINT_INK});
}

static void put_lens(const kl_plot *p, int l)
{
    const series *from = &p->lens[l];
    double line[2 * MOST_STATES], band[4 * MOST_STATES];
    for (int i = 0; i < from->n; i++) {
        double x = x_of(p, from->state[i]);
        int back = 2 * from->n - 1 - i;
        line[2 * i] = band[2 * i] = band[2 * back] = x;
        line[2 * i + 1] = y_of(p, from->kl[i]);
        band[2 * i + 1] = y_of(p, from->low[i]);
        band[2 * back + 1] = y_of(p, from->high[i]);
    }
    vl_canvas_area(p->canvas, band, from->n > 1 ? 2 * from->n : 0, vl_scale_line(l), 0.2);
    vl_canvas_lines(p->canvas, line, from->n, vl_scale_line(l), 1.6, l % 2 == 1);
}

static void put_key(const kl_plot *p, double y)
{
    double x = PLOT_LEFT;
    for (int l = 0; l < LENSES; l++) {
        if (!p->lens[l].n)
            continue;
        vl_canvas_lines(p->canvas, (double[4]){x, y - 3, x + 18, y - 3}, 2, vl_scale_line(l), 1.6, l % 2 == 1);
        vl_canvas_text(p->canvas, x + 22, y, lens_names[l], (vl_text_style){9, false, VL_ANCHOR_START, VL_PAINT_INK});
        x += 32 + 5.2 * (double)strlen(lens_names[l]);
    }
}

static const json_t *find_group(const json_t *root, const char *name, const char *path, vl_error *err)
{
    const json_t *groups = json_object_get(root, "classes");
    const json_t *found = NULL;
    for (size_t i = 0; i < json_array_size(groups); i++) {
        const json_t *group = json_array_get(groups, i);
        const char *own = json_string_value(json_object_get(group, "class"));
        if (own && !strcmp(own, name ? name : "all-text"))
            found = group;
    }
    if (!found && !name)
        found = json_array_get(groups, 0);
    if (!found)
        vl_fail(err, name ? VL_EINVAL : VL_EFORMAT, "%.160s holds no token class %.40s", path, name ? name : "at all");
    return found;
}

static vl_status draw(const char *path, kl_plot *p, const json_t *root, vl_error *err)
{
    vl_canvas_format format;
    char title[320];
    VL_TRY(vl_canvas_format_of(&format, path, err));
    const char *baseline = json_string_value(json_object_get(root, "baseline"));
    snprintf(title, sizeof title,
             "KL from the model's distribution to each lens', %s rows, %s; bands: 95 %% intervals.%s%.120s",
             json_string_value(json_object_get(p->group, "class")),
             json_string_value(json_object_get(root, "split")) ? json_string_value(json_object_get(root, "split")) : "",
             baseline && *baseline ? " Baseline: " : "", baseline ? baseline : "");
    vl_caption caption = {title, json_string_value(json_object_get(root, "model")),
                          json_string_value(json_object_get(root, "lens")), NULL, NULL};
    vl_str lines = vl_caption_lines(&caption, (int)(WIDTH / 4.9));
    double body = PLOT_TOP + PLOT_HEIGHT + 48, height = body + 10 + 1.35 * CAPTION_SIZE * vl_count_lines(&lines) + 8;
    vl_status status = vl_canvas_new(&p->canvas, &(vl_canvas_options){format, WIDTH, height, false}, err);
    if (status == VL_OK) {
        put_axes(p);
        for (int l = LENSES - 1; l >= 0; l--)
            put_lens(p, l);
        put_key(p, body - 4);
        vl_caption_draw(p->canvas, 8, body + 10 + CAPTION_SIZE, &lines, CAPTION_SIZE);
    }
    vl_str_clear(&lines);
    return status == VL_OK ? vl_figure_write(path, p->canvas, err) : status;
}

vl_status vl_figure_kl(const char *path, const char *eval_json, const vl_figure_options *options, vl_error *err)
{
    json_t *root = NULL;
    VL_TRY(vl_json_read(&root, eval_json, EVAL_LIMIT, err));
    kl_plot *plot = vl_calloc(1, sizeof *plot);
    const char *format = json_string_value(json_object_get(root, "format"));
    vl_status status = VL_OK;
    if (!plot)
        VL_GOTO(vl_fail_nomem(err, "figure"));
    if (!format || strcmp(format, "vlens-eval") != 0)
        VL_GOTO(vl_fail(err, VL_EFORMAT, "%.200s is not what vlens eval --json wrote (no \"format\": \"vlens-eval\")",
                        eval_json));
    plot->group = find_group(root, options->group, eval_json, err);
    if (!plot->group)
        VL_GOTO(options->group ? VL_EINVAL : VL_EFORMAT);
    read_series(plot);
    if (!isfinite(plot->low))
        VL_GOTO(vl_fail(err, VL_EFORMAT, "%.200s holds no KL above 0", eval_json));
    VL_GOTO(draw(path, plot, root, err));
done:
    vl_free(plot);
    json_decref(root);
    return status;
}
