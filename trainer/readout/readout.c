#include "trainer/readout/readout.h"

#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"

vl_status vl_readout_new(vl_readout *out, vl_head *head, vl_device *device, const vl_loader_source *source,
                         vl_error *err)
{
    *out = (vl_readout){.head = head};
    out->teacher_sound = vl_alloc((size_t)source->capacity, 1);
    out->sound = vl_alloc((size_t)source->capacity, 1);
    vl_status status = out->teacher_sound && out->sound ? VL_OK : vl_fail_nomem(err, "tile of states");
    if (status == VL_OK)
        status = vl_loader_new(&out->loader, head ? vl_head_device(head) : device, source, err);
    if (status != VL_OK)
        vl_readout_clear(out);
    return status;
}

void vl_readout_clear(vl_readout *readout)
{
    vl_loader_clear(&readout->loader);
    vl_free(readout->teacher_sound);
    vl_free(readout->sound);
    *readout = (vl_readout){.head = NULL};
}

/* The state that is read after states[index - 1]. */
static int64_t next_state(const vl_walk *walk, int64_t index)
{
    return index < walk->n_states ? walk->states[index] : VL_LOADER_NEXT_TILE;
}

/* The rows of a cache that are one tile, where the walk is no other than that tile in order; else NULL. */
static const vl_rows *whole_of(const vl_readout *r, const vl_walk *walk)
{
    const vl_rows *rows = walk->sampler->rows;
    return r->loader.source.cache && !walk->sampler->order && r->loader.rows == rows->n_rows ? rows : NULL;
}

/* The teacher of a walk of one tile is kept, as long as no other is asked for: a search scores many candidates on it.
 */
static vl_status load_teacher(vl_readout *r, const vl_walk *walk, vl_error *err)
{
    const vl_rows *whole = whole_of(r, walk);
    vl_tensor states;
    if (!walk->teacher || (whole && r->teacher_of == whole && r->teacher_in == walk->teacher))
        return VL_OK;
    r->teacher_of = NULL;
    VL_TRY(vl_loader_load(&states, &r->loader, walk->teacher_state, next_state(walk, 0), err));
    memcpy(r->teacher_sound, r->loader.sound, (size_t)r->loader.rows);
    VL_TRY(vl_distribution_of(walk->teacher, r->head, states, err));
    r->teacher_of = whole;
    r->teacher_in = walk->teacher;
    return VL_OK;
}

/* Which rows of the state that was just read count. */
static vl_status mark_sound(vl_readout *r, const vl_walk *walk, vl_readout_cell *cell, vl_error *err)
{
    cell->sound = r->sound;
    for (int64_t i = 0; i < cell->rows; i++) {
        r->sound[i] = r->loader.sound[i] && (!walk->teacher || r->teacher_sound[i]);
        cell->n_unsound += !r->sound[i];
    }
    return vl_loader_mask(&r->loader, cell->n_unsound ? r->sound : NULL, err);
}

/* One state of the tile, through each of its adapters. */
static vl_status read_state(vl_readout *r, const vl_walk *walk, vl_readout_cell *cell, vl_error *err)
{
    int64_t next = next_state(walk, cell->index + 1);
    if (walk->on_host)
        VL_TRY(vl_loader_read(&cell->stored, &r->loader, cell->state, next, err));
    else
        VL_TRY(vl_loader_load(&cell->h, &r->loader, cell->state, next, err));
    VL_TRY(mark_sound(r, walk, cell, err));
    for (cell->which = 0; cell->which < (walk->n_adapters ? walk->n_adapters : 1); cell->which++) {
        cell->adapter = (vl_adapter){.weight = {.data = NULL}};
        if (walk->adapter)
            VL_TRY(walk->adapter(&cell->adapter, walk->user, cell, err));
        VL_TRY(walk->cell(walk->user, cell, err));
    }
    return VL_OK;
}

vl_status vl_readout_walk(vl_readout *r, const vl_walk *walk, vl_error *err)
{
    vl_loader *loader = &r->loader;
    for (int64_t done = 0; done < walk->n_rows; done += loader->rows) {
        int64_t left = walk->n_rows - done;
        vl_loader_order order = {walk->sampler, left, left > loader->capacity ? left - loader->capacity : walk->then,
                                 walk->scale};
        VL_TRY(vl_loader_next(loader, &order, err));
        if (loader->rows == 0)
            break;
        if (walk->tile)
            VL_TRY(walk->tile(walk->user, done, loader->rows, err));
        VL_TRY(load_teacher(r, walk, err));
        for (int64_t i = 0; i < walk->n_states; i++) {
            vl_readout_cell cell = {.first = done, .rows = loader->rows, .index = i, .state = walk->states[i]};
            VL_TRY(read_state(r, walk, &cell, err));
        }
    }
    return VL_OK;
}

vl_status vl_readout_distribution(const vl_distribution *out, const vl_readout *r, const vl_readout_cell *cell,
                                  vl_tensor u, bool bf16, vl_error *err)
{
    vl_tensor y;
    u = vl_tensor_rows(u, 0, cell->rows);
    VL_TRY(vl_adapter_apply(&y, vl_head_device(r->head), u, cell->h, &cell->adapter, bf16, err));
    return vl_distribution_of(out, r->head, y, err);
}
