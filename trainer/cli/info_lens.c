/* What a lens is: where it comes from, and what each adapter does to its state. */
#include <math.h>
#include <stdlib.h>

#include "trainer/cli/cli.h"

static void print_number(double value)
{
    if (isnan(value))
        printf(" %11s", "-");
    else
        printf(" %11.4f", value);
}

static void print_adapter(int64_t layer, const vl_lens_diagnosis *d, double kl, bool spectrum)
{
    printf("%5lld", (long long)layer);
    print_number(d->weight_norm);
    print_number(d->bias_norm);
    print_number(d->to_next);
    if (spectrum) {
        print_number(d->has_spectrum ? d->spectral_norm : (double)NAN);
        print_number(d->has_spectrum ? d->effective_rank : (double)NAN);
        print_number(d->condition);
    }
    if (d->fitted)
        print_number(kl);
    else
        printf("  not fitted: the logit lens");
    printf("\n");
}

/* JSON has no NaN and no infinity. */
static void json_number(const char *name, double value)
{
    if (isfinite(value))
        printf(", \"%s\": %.9g", name, value);
    else
        printf(", \"%s\": null", name);
}

static void json_adapter(int64_t layer, const vl_lens_diagnosis *d, double kl, const float *singular, int64_t width)
{
    printf("%s\n  {\"state\": %lld, \"fitted\": %s", layer ? "," : "", (long long)layer, d->fitted ? "true" : "false");
    json_number("weight_norm", d->weight_norm);
    json_number("bias_norm", d->bias_norm);
    json_number("to_next", d->to_next);
    json_number("heldout_kl", kl);
    if (d->has_spectrum) {
        json_number("spectral_norm", d->spectral_norm);
        json_number("effective_rank", d->effective_rank);
        json_number("condition", d->condition);
        printf(", \"singular_values\": [");
        for (int64_t i = 0; i < width; i++)
            printf("%s%.7g", i ? ", " : "", (double)singular[i]);
        printf("]");
    }
    printf("}");
}

static void print_head(const vl_lens_info *l, bool spectrum)
{
    printf("lens        %s\nmodel       %s\nadapters    %lld, width %lld, %s%s\n", l->path, l->model_id,
           (long long)l->n_layers, (long long)l->d_model, vl_dtype_name(l->dtype), l->bias_only ? ", bias only" : "");
    printf("tokens seen %lld\nfingerprint %s\ndigest      %s\n", (long long)l->tokens_seen, l->fingerprint,
           l->model_digest[0] ? l->model_digest : "unknown");
    printf("%5s %11s %11s %11s", "state", "norm of A", "norm of b", "to the next");
    if (spectrum)
        printf(" %11s %11s %11s", "largest sv", "eff. rank", "cond(I+A)");
    printf(" %11s\n", "held-out KL");
}

vl_status cli_info_lens(const char *path, bool spectrum, bool json, vl_error *err)
{
    vl_lens *lens = NULL;
    vl_status status = vl_lens_open(&lens, path, err);
    if (status != VL_OK)
        return status;
    const vl_lens_info *l = vl_lens_get_info(lens);
    float *singular = malloc((size_t)l->d_model * sizeof *singular);
    if (!singular)
        status = VL_ENOMEM;
    if (json)
        printf("{\"format\": \"vlens-lens-info\", \"version\": 1, \"d_model\": %lld, \"n_layers\": %lld, "
               "\"tokens_seen\": %lld, \"fingerprint\": \"%s\", \"model_digest\": \"%s\", \"bias_only\": %s, "
               "\"adapters\": [",
               (long long)l->d_model, (long long)l->n_layers, (long long)l->tokens_seen, l->fingerprint,
               l->model_digest, l->bias_only ? "true" : "false");
    else
        print_head(l, spectrum);
    for (int64_t i = 0; status == VL_OK && i < l->n_layers; i++) {
        vl_lens_diagnosis d;
        double kl = l->heldout_kl ? l->heldout_kl[i] : (double)NAN;
        status = vl_lens_diagnose(&d, lens, i, spectrum, singular, err);
        if (status == VL_OK && json)
            json_adapter(i, &d, kl, singular, l->d_model);
        else if (status == VL_OK)
            print_adapter(i, &d, kl, spectrum);
    }
    if (json)
        printf("\n]}\n");
    free(singular);
    vl_lens_close(lens);
    return status;
}
