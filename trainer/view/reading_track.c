/* The words that are followed through every cell, whether they are among the top tokens or not. */
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/view/reading.h"

/* " word" goes before "word": that is what the middle of a sentence says. -1 where there is neither. */
static int32_t find_token(const vl_reading *r, const vl_reading_source *source, const char *word)
{
    int32_t bare = -1;
    for (int32_t id = 0; id < r->vocab_size; id++) {
        const char *piece = source->piece(source->user, id);
        if (!piece)
            continue;
        if (piece[0] == ' ' && !strcmp(piece + 1, word))
            return id;
        if (bare < 0 && !strcmp(piece, word))
            bare = id;
    }
    return bare;
}

vl_status vl_reading_track(vl_reading *r, const vl_reading_source *source, const vl_reading_options *options,
                           vl_error *err)
{
    size_t cells = 2 * (size_t)r->n_positions * (size_t)r->n_states;
    r->n_tracked = 0;
    if (options->n_track <= 0)
        return VL_OK;
    r->tracked = vl_alloc((size_t)options->n_track, sizeof *r->tracked);
    r->tracked_probability = vl_calloc(cells, (size_t)options->n_track * sizeof *r->tracked_probability);
    if (!r->tracked || !r->tracked_probability)
        return vl_fail_nomem(err, "tracked words");
    for (int64_t i = 0; i < options->n_track; i++) {
        r->tracked[i] = find_token(r, source, options->track[i]);
        if (r->tracked[i] < 0)
            return vl_fail(err, VL_EINVAL, "no single token is \"%.80s\", with or without a space in front of it",
                           options->track[i]);
    }
    r->n_tracked = options->n_track;
    return VL_OK;
}
