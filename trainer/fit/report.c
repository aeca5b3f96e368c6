/* report.c - what a finished run leaves: lens.safetensors, metrics.json and the numbers for the caller. */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/lens/lens.h"
#include "trainer/fit/session.h"

enum { CURVE_POINTS = 48 };

void vl_fit_result_clear(vl_fit_result *result)
{
    vl_free(result->train_kl);
    vl_free(result->validation_kl);
    vl_free(result->start_kl);
    memset(result, 0, sizeof *result);
}

vl_status vl_fit_result_new(vl_fit_result *result, int64_t n_layers, vl_error *err)
{
    size_t n = (size_t)n_layers;
    *result = (vl_fit_result){.n_layers = n_layers};
    result->train_kl = vl_alloc(n, sizeof(double));
    result->validation_kl = vl_alloc(n, sizeof(double));
    result->start_kl = vl_alloc(n, sizeof(double));
    if (!result->train_kl || !result->validation_kl || !result->start_kl) {
        vl_fit_result_clear(result);
        return vl_fail_nomem(err, "result of the fit");
    }
    for (size_t i = 0; i < n; i++)
        result->train_kl[i] = result->validation_kl[i] = result->start_kl[i] = NAN;
    return VL_OK;
}

/* Mean objective over the last tenth of the steps that the layer took. */
static double train_loss(const vl_fit_layer *layer)
{
    int64_t steps = layer->progress.steps, count = (steps + 9) / 10;
    double sum = 0;
    for (int64_t k = steps - count; k < steps; k++)
        sum += layer->history[k];
    return count > 0 ? sum / (double)count : (double)NAN;
}

static double kept_loss(const vl_fit_layer *layer)
{
    return isfinite(layer->progress.best_loss) ? layer->progress.best_loss : layer->progress.last_loss;
}

vl_status vl_fit_fill_result(vl_fit_result *result, const vl_fit_session *s, vl_error *err)
{
    VL_TRY(vl_fit_result_new(result, s->n_layers, err));
    result->steps = s->plan.steps;
    result->tokens = s->plan.steps * s->plan.tokens_per_step;
    result->resumed_from_step = s->resumed_from_step;
    result->seconds = vl_clock() - s->began;
    for (int64_t k = 0; k < s->n_trained; k++) {
        const vl_fit_layer *layer = &s->layers[k];
        result->train_kl[layer->index] = train_loss(layer);
        result->validation_kl[layer->index] = kept_loss(layer);
        result->start_kl[layer->index] = layer->progress.start_loss;
        result->n_stopped += layer->progress.stopped_step >= 0;
    }
    return VL_OK;
}

/* JSON has no NaN: null. */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *by_class(const double *values)
{
    json_t *object = json_object();
    for (int c = 0; c < VL_CLASS_COUNT; c++)
        if (isfinite(values[c]))
            json_object_set_new(object, vl_token_class_name((vl_token_class)c), json_real(values[c]));
    return object;
}

static json_t *rows_of(const vl_rows *part)
{
    json_t *object = json_object();
    for (int c = 0; c < VL_CLASS_COUNT; c++)
        if (part->class_rows[c] > 0)
            json_object_set_new(object, vl_token_class_name((vl_token_class)c), json_integer(part->class_rows[c]));
    return object;
}

/* The objective through the run, in at most CURVE_POINTS means over equal numbers of steps: what a plot needs. */
static json_t *curve_of(const vl_fit_layer *layer)
{
    json_t *steps = json_array(), *objective = json_array();
    int64_t taken = layer->progress.steps, points = taken < CURVE_POINTS ? taken : CURVE_POINTS;
    for (int64_t p = 0; p < points; p++) {
        int64_t first = p * taken / points, end = (p + 1) * taken / points;
        double sum = 0;
        for (int64_t k = first; k < end; k++)
            sum += layer->history[k];
        json_array_append_new(steps, json_integer((json_int_t)end));
        json_array_append_new(objective, number(sum / (double)(end - first)));
    }
    return json_pack("{s:o, s:o}", "step", steps, "objective", objective);
}

static json_t *layer_metrics(const vl_fit_session *s, const vl_fit_layer *layer)
{
    const vl_fit_progress *n = &layer->progress;
    json_t *object = json_object();
    json_object_set_new(object, "layer", json_integer(layer->index));
    json_object_set_new(object, "start", number(n->start_loss));
    json_object_set_new(object, "train", number(train_loss(layer)));
    json_object_set_new(object, "validation", number(kept_loss(layer)));
    json_object_set_new(object, "validation_by_class", by_class(n->class_loss));
    json_object_set_new(object, "best_step", n->best_step >= 0 ? json_integer(n->best_step) : json_null());
    json_object_set_new(object, "steps", json_integer(n->steps));
    json_object_set_new(object, "tokens", json_integer(n->steps * s->plan.tokens_per_step));
    json_object_set_new(object, "ridge", number(n->ridge));
    json_object_set_new(object, "learning_rate", number(n->weight_rate));
    json_object_set_new(object, "bias_learning_rate", number(n->bias_rate));
    json_object_set_new(object, "seconds", number(n->seconds));
    json_object_set_new(object, "returns", json_integer(n->rollbacks));
    json_object_set_new(object, "stopped_step", n->stopped_step >= 0 ? json_integer(n->stopped_step) : json_null());
    json_object_set_new(object, "curve", curve_of(layer));
    return object;
}

/* "key=value" lines as an object of strings. */
static json_t *settings_object(const char *text)
{
    json_t *object = json_object();
    char key[64];
    while (*text) {
        size_t line = strcspn(text, "\n"), split = strcspn(text, "=\n");
        if (split < sizeof key && text[split] == '=') {
            memcpy(key, text, split);
            key[split] = 0;
            json_object_set_new(object, key, json_stringn(text + split + 1, line - split - 1));
        }
        text += line + (text[line] == '\n');
    }
    return object;
}

static vl_status write_metrics(const vl_fit_session *s, vl_error *err)
{
    json_t *root = json_object(), *layers = json_array();
    if (!root || !layers) {
        json_decref(root);
        json_decref(layers);
        return vl_fail_nomem(err, s->metrics_path);
    }
    json_object_set_new(root, "format", json_string("vlens-metrics"));
    json_object_set_new(root, "version", json_integer(1));
    json_object_set_new(root, "unit", json_string("nats"));
    json_object_set_new(root, "model_id", json_string(vl_cache_get_info(s->cache)->model_id));
    json_object_set_new(root, "device", json_string(vl_device_description(s->device)));
    json_object_set_new(root, "steps", json_integer(s->plan.steps));
    json_object_set_new(root, "tokens_per_step", json_integer(s->plan.tokens_per_step));
    json_object_set_new(root, "tokens", json_integer(s->plan.steps * s->plan.tokens_per_step));
    json_object_set_new(root, "train_rows", rows_of(&s->plan.train));
    json_object_set_new(root, "validation_rows", rows_of(&s->plan.validation));
    json_object_set_new(root, "seconds", number(s->earlier_seconds + vl_clock() - s->began));
    for (int64_t k = 0; k < s->n_trained; k++)
        json_array_append_new(layers, layer_metrics(s, &s->layers[k]));
    json_object_set_new(root, "layers", layers);
    json_object_set_new(root, "settings", settings_object(s->settings));
    vl_status status = vl_json_write(s->metrics_path, root, err);
    json_decref(root);
    return status;
}

/* metrics.json goes first: a lens.safetensors of these settings says that the run is finished. */
vl_status vl_fit_write_lens(vl_fit_session *s, vl_error *err)
{
    vl_status status = VL_OK;
    char *yaml = NULL, *samples = NULL, *pictures = NULL;
    size_t n = (size_t)s->n_layers;
    const float **weight = vl_calloc(n, sizeof *weight), **bias = vl_calloc(n, sizeof *bias);
    if (!weight || !bias)
        VL_GOTO(vl_fail_nomem(err, "lens"));
    for (int64_t k = 0; k < s->n_trained; k++) {
        weight[s->layers[k].index] = s->layers[k].kept_weight;
        bias[s->layers[k].index] = s->layers[k].kept_bias;
    }
    VL_GOTO(vl_config_write(&yaml, s->config, err));
    VL_GOTO(vl_lens_remember(&samples, &pictures, s->cache, err));
    vl_lens_content content = {.d_model = s->d_model,
                               .n_layers = s->n_layers,
                               .weight = weight,
                               .bias = bias,
                               .dtype = VL_F32,
                               .bias_only = s->config->lens.kind == VL_LENS_BIAS,
                               .fingerprint = vl_head_get_info(s->head)->fingerprint,
                               .model_id = vl_cache_get_info(s->cache)->model_id,
                               .model_digest = vl_cache_get_info(s->cache)->model_digest,
                               .rules = vl_cache_get_info(s->cache)->rules,
                               .manifest = vl_cache_get_info(s->cache)->model_manifest,
                               .fitted_samples = samples,
                               .fitted_pictures = pictures,
                               .config = yaml,
                               .settings = s->settings,
                               .tokens_seen = s->plan.steps * s->plan.tokens_per_step};
    VL_GOTO(write_metrics(s, err));
    VL_GOTO(vl_lens_write(s->lens_path, &content, err));
done:
    vl_free(yaml);
    vl_free(samples);
    vl_free(pictures);
    vl_free(weight);
    vl_free(bias);
    return status;
}

static double real_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

/* Numbers of an earlier run; what metrics.json does not say stays NaN. */
static vl_status read_metrics(vl_fit_result *result, const vl_fit_session *s, vl_error *err)
{
    json_t *root;
    VL_TRY(vl_fit_result_new(result, s->n_layers, err));
    result->steps = s->plan.steps;
    result->tokens = s->plan.steps * s->plan.tokens_per_step;
    result->resumed_from_step = s->plan.steps;
    if (!vl_path_exists(s->metrics_path) || vl_json_read(&root, s->metrics_path, 64 << 20, NULL) != VL_OK)
        return VL_OK;
    const json_t *layers = json_object_get(root, "layers");
    for (size_t k = 0; k < json_array_size(layers); k++) {
        const json_t *layer = json_array_get(layers, k);
        const json_t *index = json_object_get(layer, "layer");
        int64_t i = json_is_integer(index) ? json_integer_value(index) : -1;
        if (i < 0 || i >= s->n_layers)
            continue;
        result->train_kl[i] = real_of(layer, "train");
        result->validation_kl[i] = real_of(layer, "validation");
        result->start_kl[i] = real_of(layer, "start");
        result->n_stopped += json_is_integer(json_object_get(layer, "stopped_step"));
    }
    json_decref(root);
    return VL_OK;
}

vl_status vl_fit_find_finished(bool *finished, vl_fit_result *result, const vl_fit_session *s, vl_error *err)
{
    vl_lens *lens;
    *finished = false;
    if (!vl_path_exists(s->lens_path))
        return VL_OK;
    VL_TRY(vl_lens_open(&lens, s->lens_path, err));
    const vl_cache_info *info = vl_cache_get_info(s->cache);
    vl_status status = vl_fit_settings_check(s, s->lens_path, vl_lens_settings(lens), err);
    if (status == VL_OK)
        status = vl_lens_check_model(lens, info->model_digest, info->model_manifest, false, NULL, err);
    vl_lens_close(lens);
    if (status != VL_OK)
        return status;
    *finished = true;
    return read_metrics(result, s, err);
}
