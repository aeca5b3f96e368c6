#include "tests/support/tolerance.h"

#include <stdio.h>
#include <string.h>

typedef struct tolerance {
    const char *op, *mode;
    double measured, bound;
} tolerance;

/* Measured: the worst of the release build (AVX-512) and of a debug build (one sum after the other, no vectors). */
/* clang-format off */
static const tolerance table[] = {
    {"activation",         "silu",               1.6e-7,  4.5e-7},
    {"activation",         "gelu",               2.8e-7,  7.0e-7},
    {"activation",         "gelu_tanh",          1.6e-7,  4.5e-7},
    {"activation",         "quick_gelu",         1.5e-7,  4.5e-7},
    {"activation",         "relu",               5.9e-8,  1.5e-7},
    {"activation",         "cap",                1.5e-7,  4.5e-7},
    {"activation",         "tail",               1.2e-7,  3.5e-7},
    {"attention",          "unit scores",        9.1e-7,  2.5e-6},
    {"attention",          "probabilities",      3.0e-7,  9.0e-7},
    {"attention",          "scores of hundreds", 3.5e-5,  1.0e-4},
    {"fit beside PyTorch", "loss",               4.8e-7,  1.8e-6},
    {"fit beside PyTorch", "norm",               1.6e-7,  6.0e-7},
    {"fit beside PyTorch", "loss, ridge",        1.4e-5,  5.0e-5},
    {"fit beside PyTorch", "norm, ridge",        9.4e-6,  3.5e-5},
    {"logsumexp",          "",                   1.5e-7,  4.5e-7},
    {"metrics",            "kl",                 3.5e-6,  1.0e-5},
    {"metrics",            "ce",                 1.4e-7,  4.0e-7},
    {"metrics",            "entropy",            3.5e-6,  1.0e-5},
    {"metrics",            "js",                 1.1e-6,  3.0e-6},
    {"metrics",            "tv",                 3.0e-6,  9.0e-6},
    {"metrics",            "at equality",        5.6e-8,  1.5e-7},
    {"metrics extreme",    "kl",                 4.9e-6,  1.0e-5},
    {"metrics extreme",    "ce",                 4.4e-8,  1.0e-7},
    {"metrics extreme",    "entropy",            4.7e-6,  1.0e-5},
    {"metrics extreme",    "js",                 2.0e-6,  6.0e-6},
    {"metrics extreme",    "tv",                 2.4e-6,  7.0e-6},
    {"add",                "",                   1.4e-7,  4.0e-7},
    {"column_sum",         "",                   3.0e-7,  9.0e-7},
    {"sum_squares",        "",                   1.7e-14, 5.0e-14},
    {"linear",             "fp32",               2.9e-7,  8.5e-7},
    {"linear",             "bf16",               1.7e-7,  5.0e-7},
    {"linear",             "fp16",               3.2e-7,  9.5e-7},
    {"linear",             "large",              1.4e-7,  4.0e-7},
    {"gemm",               "fp32",               3.1e-7,  9.0e-7},
    {"gemm",               "bf16",               1.6e-7,  4.5e-7},
    {"gemm",               "bf16 throughout",    3.5e-3,  1.0e-2},
    {"norm",               "rms",                1.6e-7,  4.5e-7},
    {"norm",               "layer",              1.9e-7,  5.0e-7},
    {"norm",               "rms extreme",        8.4e-8,  2.5e-7},
    {"norm",               "layer extreme",      1.4e-5,  4.0e-5},
    {"norm_backward",      "rms",                1.8e-7,  5.0e-7},
    {"norm_backward",      "layer",              1.5e-7,  4.5e-7},
    {"sgd",                "",                   3.9e-7,  1.0e-6},
    {"adam",               "parameter",          1.5e-7,  4.0e-7},
    {"adam",               "moments",            1.3e-7,  3.5e-7},
    {"normalise",          "",                   7.3e-8,  2.2e-7},
    {"normalise",          "bf16",               2.6e-3,  7.8e-3},
    {"loss_total",         "",                   2.8e-15, 8.4e-15},
    {"mix_rows",           "",                   1.6e-7,  5.0e-7},
    {"rope",               "",                   9.3e-8,  2.5e-7},
    {"rope",               "there and back",     1.5e-7,  4.0e-7},
    {"unembed_loss",       "kl",                 1.9e-6,  5.5e-6},
    {"unembed_loss",       "dx bf16",            3.8e-3,  4.0e-3},
    {"unembed_loss",       "dx fp16",            3.6e-4,  1.1e-3},
    {"unembed_loss",       "ce",                 1.6e-6,  4.5e-6},
    {"unembed_loss",       "reverse_kl",         2.8e-6,  8.0e-6},
    {"unembed_loss",       "js",                 1.1e-6,  3.0e-6},
    {"unembed_loss",       "dx fp32",            4.3e-6,  1.3e-5},
    {"unembed_loss",       "at equality",        6.4e-8,  1.8e-7},
    {"unembed_loss",       "dx at equality",     5.2e-5,  1.5e-4},
    {"unembed_loss 200+",  "kl",                 3.0e-5,  9.0e-5},
    {"unembed_loss 200+",  "dx bf16",            1.7e-3,  4.0e-3},
    {"unembed_loss 200+",  "dx fp16",            2.2e-4,  6.6e-4},
    {"unembed_loss 200+",  "ce",                 1.7e-7,  5.0e-7},
    {"unembed_loss 200+",  "reverse_kl",         2.8e-5,  8.0e-5},
    {"unembed_loss 200+",  "js",                 8.7e-6,  2.5e-5},
    {"unembed_loss 200+",  "dx fp32",            4.2e-5,  1.2e-4},
    {"vl_expf",            "ulp",                1.3,     2},
    {"vl_log1pf",          "ulp",                1.6,     2.5},
    {"causal_energy",      "exact",              3.3e-7,  1.0e-6},
    {"causal_gradient",    "exact",              5.5e-7,  1.6e-6},
    {"fidelity_last_state", "nats",              6.5e-8,  2.0e-7},
    {"fidelity_displacement", "exact",           3.0e-7,  9.0e-7},
};
/* clang-format on */

enum { N_TABLE = sizeof table / sizeof table[0], N_USED = 256 };

typedef struct used_row {
    const char *op, *mode;
    double worst;
    const tolerance *row;
} used_row;

/* A test program is one thread. */
static used_row used[N_USED];
static int n_used;

static const tolerance *find(const char *op, const char *mode)
{
    for (int i = 0; i < N_TABLE; i++)
        if (strcmp(table[i].op, op) == 0 && strcmp(table[i].mode, mode) == 0)
            return &table[i];
    return NULL;
}

static used_row *use(const char *op, const char *mode)
{
    for (int i = 0; i < n_used; i++)
        if (strcmp(used[i].op, op) == 0 && strcmp(used[i].mode, mode) == 0)
            return &used[i];
    if (n_used == N_USED)
        return NULL;
    used[n_used] = (used_row){op, mode, 0, find(op, mode)};
    return &used[n_used++];
}

bool tolerance_accepts(const char *op, const char *mode, double error)
{
    used_row *u = use(op, mode);
    if (!u || !(error >= 0))
        return false;
    if (error > u->worst)
        u->worst = error;
    return !u->row || error <= u->row->bound;
}

int tolerance_report(void)
{
    int bad = 0;
    for (int i = 0; i < n_used; i++) {
        const used_row *u = &used[i];
        if (!u->row) {
            printf("    {\"%s\", \"%s\", %.2g, %.2g}, /* missing */\n", u->op, u->mode, u->worst, 3 * u->worst);
            bad++;
            continue;
        }
        bool generous = u->row->bound > 4 * u->row->measured;
        printf("%-16s %-24s measured %8.2e  bound %8.2e%s\n", u->op, u->mode, u->worst, u->row->bound,
               generous ? "  (more than 4 times what the table says was measured)" : "");
        bad += generous;
    }
    return bad;
}
