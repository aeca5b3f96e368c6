#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/fidelity/patch_ablation.h"

enum { OUTSIDE = 0, RING = 1, INSIDE = 2 };

/* mark [rows, columns]: INSIDE, RING beside such a patch (also diagonally), or OUTSIDE. */
static void mark_patches(uint8_t *mark, int16_t (*object)[2], int n, const int grid[2])
{
    memset(mark, OUTSIDE, (size_t)grid[0] * (size_t)grid[1]);
    for (int i = 0; i < n; i++)
        for (int row = object[i][0] - 1; row <= object[i][0] + 1; row++)
            for (int column = object[i][1] - 1; column <= object[i][1] + 1; column++)
                if (row >= 0 && row < grid[0] && column >= 0 && column < grid[1])
                    mark[row * grid[1] + column] = RING;
    for (int i = 0; i < n; i++)
        mark[object[i][0] * grid[1] + object[i][1]] = INSIDE;
}

static bool belongs(uint8_t mark, vl_patch_set set)
{
    return set == VL_PATCHES_BOTH ? mark != OUTSIDE : mark == (set == VL_PATCHES_OBJECT ? INSIDE : RING);
}

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void put(vl_patch_sample *out, vl_patch_set set, int elsewhere, int64_t cell, int columns)
{
    int16_t *at = out->patch[set][elsewhere][out->n[set][elsewhere]++];
    at[0] = (int16_t)(cell / columns);
    at[1] = (int16_t)(cell % columns);
}

/* As many as the set has, of those that are OUTSIDE. */
static void draw_elsewhere(vl_patch_sample *out, vl_patch_set set, const uint8_t *mark, int64_t *cells,
                           const int grid[2], vl_rng *rng)
{
    int64_t n = 0, wanted = out->n[set][0];
    for (int64_t cell = 0; cell < (int64_t)grid[0] * grid[1]; cell++)
        if (mark[cell] == OUTSIDE)
            cells[n++] = cell;
    wanted = wanted < n ? wanted : n;
    for (int64_t i = 0; i < wanted; i++) {
        int64_t other = i + (int64_t)vl_rng_below(rng, (uint64_t)(n - i)), cell = cells[i];
        cells[i] = cells[other];
        cells[other] = cell;
    }
    qsort(cells, (size_t)wanted, sizeof *cells, by_number);
    for (int64_t i = 0; i < wanted; i++)
        put(out, set, 1, cells[i], grid[1]);
}

vl_status vl_patch_sets(vl_patch_sample *out, int16_t (*object)[2], int n_object, const int grid[2], vl_rng *rng,
                        vl_error *err)
{
    size_t n = (size_t)grid[0] * (size_t)grid[1];
    uint8_t *mark = vl_alloc(n, sizeof *mark);
    int64_t *cells = vl_alloc(n, sizeof *cells);
    bool ready = mark && cells;
    for (vl_patch_set set = 0; set < VL_PATCH_SET_COUNT; set++)
        for (int elsewhere = 0; elsewhere < 2; elsewhere++) {
            out->patch[set][elsewhere] = vl_alloc(n, sizeof *out->patch[set][elsewhere]);
            ready = ready && out->patch[set][elsewhere];
        }
    if (ready) {
        mark_patches(mark, object, n_object, grid);
        for (vl_patch_set set = 0; set < VL_PATCH_SET_COUNT; set++) {
            for (size_t cell = 0; cell < n; cell++)
                if (belongs(mark[cell], set))
                    put(out, set, 0, (int64_t)cell, grid[1]);
            draw_elsewhere(out, set, mark, cells, grid, rng);
        }
    }
    vl_free(mark);
    vl_free(cells);
    return ready ? VL_OK : vl_fail_nomem(err, "patches");
}
