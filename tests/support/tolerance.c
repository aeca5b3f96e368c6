#include "tests/support/tolerance.h"

#include <stdio.h>
#include <string.h>

typedef struct tolerance {
    const char *op, *mode;
    double measured, bound;
} tolerance;

static const tolerance table[] = {
    {"", "", 0, 0},
};

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
