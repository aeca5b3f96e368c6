/* What the lanes of a warp do together. */
#include "kernels/cuda_on_cpu/race.h"
#include "kernels/cuda_on_cpu/sim.h"

namespace vl_sim
{
unsigned active_lanes()
{
    const warp *w = here.fiber->warp;
    unsigned lanes = 0;
    for (int i = 0; i < WARP_SIZE; i++)
        if (w->lanes[i] && w->lanes[i]->state != EXITED)
            lanes |= 1u << i;
    return lanes;
}

static uint64_t ballot(const warp *w, unsigned mask)
{
    uint64_t bits = 0;
    for (int i = 0; i < WARP_SIZE; i++)
        if (mask >> i & 1)
            bits |= (w->lanes[i]->value & 1) << i;
    return bits;
}

static uint64_t matches(const warp *w, unsigned mask, uint64_t value)
{
    uint64_t bits = 0;
    for (int i = 0; i < WARP_SIZE; i++)
        if (mask >> i & 1 && w->lanes[i]->value == value)
            bits |= (uint64_t)1 << i;
    return bits;
}

/* All lanes of the mask are there. */
static void complete(warp *w, unsigned mask, int kind)
{
    uint64_t votes = kind == WARP_BALLOT ? ballot(w, mask) : 0;
    for (int i = 0; i < WARP_SIZE; i++) {
        fiber *f = mask >> i & 1 ? w->lanes[i] : NULL;
        if (!f)
            continue;
        if (kind == WARP_SHUFFLE && !(mask >> f->source & 1))
            stop_block("a shuffle from a lane that takes no part in it");
        f->result = kind == WARP_SHUFFLE ? w->lanes[f->source]->value
                    : kind == WARP_MATCH ? matches(w, mask, f->value)
                                         : votes;
        f->state = READY;
    }
    if (kind == WARP_BARRIER)
        race_warp_barrier(w, mask);
}

/* Whether all lanes of the mask wait at this operation; ends the process where they never will. A lane that waits at
 * another one, which does not wait for this lane, may still come. */
static bool all_arrived(const warp *w, const fiber *own)
{
    bool arrived = true;
    for (int i = 0; i < WARP_SIZE; i++) {
        const fiber *f = w->lanes[i];
        if (!(own->mask >> i & 1))
            continue;
        if (f->state == EXITED)
            stop_block("a warp operation whose mask names a lane that has exited");
        if (f->state != AT_WARP_OP)
            arrived = false;
        else if (f->mask != own->mask || f->kind != own->kind || f->at.line != own->at.line) {
            if (f->mask >> own->lane & 1)
                stop_block("lanes of one mask are at different warp operations");
            arrived = false;
        }
    }
    return arrived;
}

uint64_t warp_meet(unsigned mask, warp_kind kind, uint64_t value, int source, source_line at)
{
    fiber *f = here.fiber;
    mask &= f->warp->existing; /* the last warp of a block may be shorter */
    f->mask = mask;
    f->kind = kind;
    f->value = value;
    f->source = source & (WARP_SIZE - 1);
    f->at = at;
    f->state = AT_WARP_OP;
    if (!(mask >> f->lane & 1))
        stop_block("a warp operation by a lane that its mask does not name");
    if (all_arrived(f->warp, f))
        complete(f->warp, mask, kind);
    else
        fiber_wait();
    return f->result;
}
} // namespace vl_sim
