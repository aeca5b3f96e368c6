#include "trainer/fit/settings.h"

#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/str.h"

static void add_integer(vl_str *s, const char *key, int64_t value)
{
    vl_str_printf(s, "%s=%lld\n", key, (long long)value);
}

static void add_number(vl_str *s, const char *key, double value)
{
    vl_str_printf(s, "%s=%.17g\n", key, value);
}

static void add_word(vl_str *s, const char *key, const char *const *words, int index)
{
    vl_str_printf(s, "%s=%s\n", key, words[index]);
}

static void add_lens(vl_str *s, const vl_config *config)
{
    static const char *const kinds[] = {"affine", "bias"}, *const inits[] = {"ridge", "zero", "mean"};
    static const char *const losses[] = {"kl", "ce", "reverse_kl", "js"}, *const targets[] = {"own", "shuffled"};
    vl_str_printf(s, "lens.layers=%lld-%lld\n", (long long)config->lens.first_layer,
                  (long long)config->lens.last_layer);
    add_word(s, "lens.kind", kinds, (int)config->lens.kind);
    add_word(s, "lens.init", inits, (int)config->lens.init);
    add_number(s, "lens.ridge", config->lens.ridge);
    add_word(s, "lens.loss", losses, (int)config->lens.loss);
    add_word(s, "lens.targets", targets, (int)config->lens.targets);
    for (int c = 0; c < VL_CLASS_COUNT; c++) {
        vl_str_printf(s, "lens.class_weights.%s=%.17g\n", vl_token_class_name((vl_token_class)c),
                      config->lens.class_weights[c]);
    }
    add_integer(s, "lens.skip_positions", config->lens.skip_positions);
}

static void add_fit(vl_str *s, const vl_config *config)
{
    static const char *const optimizers[] = {"adam", "sgd", "muon"};
    static const char *const schedules[] = {"linear", "constant", "cosine"};
    add_word(s, "fit.optimizer", optimizers, (int)config->fit.optimizer);
    add_number(s, "fit.learning_rate", config->fit.learning_rate);
    add_number(s, "fit.momentum", config->fit.momentum);
    add_number(s, "fit.weight_decay", config->fit.weight_decay);
    add_word(s, "fit.schedule", schedules, (int)config->fit.schedule);
    add_number(s, "fit.warmup", config->fit.warmup);
    add_number(s, "fit.clip", config->fit.clip);
    add_integer(s, "fit.tokens_per_step", config->fit.tokens_per_step);
    add_integer(s, "fit.steps", config->fit.steps);
    add_number(s, "fit.epochs", config->fit.epochs);
    add_integer(s, "fit.tile_tokens", config->fit.tile_tokens);
    add_integer(s, "fit.seed", config->fit.seed);
    add_number(s, "fit.validation", config->fit.validation);
    add_integer(s, "fit.early_stop", config->fit.early_stop);
    add_integer(s, "fit.validate_every", config->fit.validate_every);
}

vl_status vl_fit_settings_text(char **out, const vl_config *config, const vl_plan *plan, const char *fingerprint,
                               vl_error *err)
{
    static const char *const precisions[] = {"auto", "exact", "fast"};
    vl_str s = VL_STR_INIT;
    vl_str_printf(&s, "fingerprint=%s\n", fingerprint);
    add_word(&s, "precision", precisions, (int)config->precision);
    add_lens(&s, config);
    add_fit(&s, config);
    /* Last: where a setting changes the choice of rows, the message should name the setting. */
    vl_str_printf(&s, "rows of the cache=%s\n", plan->digest);
    *out = NULL;
    if (s.failed) {
        vl_str_clear(&s);
        return vl_fail_nomem(err, "settings");
    }
    *out = s.data;
    return VL_OK;
}

vl_status vl_fit_settings_compare(const char *path, const char *stored, const char *wanted, vl_error *err)
{
    while (*stored || *wanted) {
        size_t a = strcspn(stored, "\n"), b = strcspn(wanted, "\n");
        if (a != b || memcmp(stored, wanted, a) != 0) {
            size_t key = strcspn(wanted, "=\n"), old = strcspn(stored, "=\n");
            if (key != old || memcmp(stored, wanted, key) != 0 || wanted[key] != '=' || stored[key] != '=')
                return vl_fail(err, VL_EMISMATCH, "%s: its settings are not of this version; start over (--fresh)",
                               path);
            return vl_fail(err, VL_EMISMATCH,
                           "%s: made with other settings: %.*s was %.*s, is %.*s; set it back, choose another output, "
                           "or start over (--fresh)",
                           path, (int)key, wanted, (int)(a - key - 1), stored + key + 1, (int)(b - key - 1),
                           wanted + key + 1);
        }
        stored += a + (stored[a] == '\n');
        wanted += b + (wanted[b] == '\n');
    }
    return VL_OK;
}
