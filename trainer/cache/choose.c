/* choose.c - the split: which samples of a cache are trained on, which are held out, and which are left out. It is no
 * property of the cache: data.heldout, data.seed and data.max_samples choose it where a lens is fitted or judged. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/cache/open.h"
#include "trainer/config/settings.h"
#include "trainer/data/samples.h"
#include "trainer/data/split.h"

typedef struct choice {
    vl_split_sample *samples; /* [S] */
    char (*groups)[48];       /* [S] of windows of text */
    const char **images;      /* [n_images] sha256, by sample */
    int32_t *rows;            /* [n_images] the sample's row */
} choice;

static void clear(choice *c)
{
    vl_free(c->samples);
    vl_free(c->groups);
    vl_free(c->images);
    vl_free(c->rows);
}

/* The pictures of each sample side by side: those of the tables are in the order of their samples already where vlens
 * wrote them, but need not be. */
static void list_images(choice *c, const vl_cache *cache)
{
    int64_t n = cache->tables.samples.n, n_images = cache->tables.images.n, at = 0;
    for (int64_t k = 0; k < n_images; k++)
        c->samples[c->rows[k]].n_images++;
    for (int64_t i = 0; i < n; i++) {
        c->samples[i].image_sha256 = c->images + at;
        at += c->samples[i].n_images;
        c->samples[i].n_images = 0;
    }
    for (int64_t k = 0; k < n_images; k++) {
        vl_split_sample *sample = &c->samples[c->rows[k]];
        c->images[sample->image_sha256 - c->images + sample->n_images++] = cache->tables.images.sha256[k];
    }
}

/* The key of a window is that of its group: neighbours continue each other's sentences. */
static bool is_text(const vl_cache *cache)
{
    char *text = cache->meta.settings ? vl_settings_find(cache->meta.settings, "data.text") : NULL;
    bool found = text != NULL;
    vl_free(text);
    return found;
}

vl_status vl_cache_split(vl_cache *cache, const vl_config *config, vl_error *err)
{
    const vl_sample_table *table = &cache->tables.samples;
    const vl_image_table *images = &cache->tables.images;
    int64_t n = table->n, most = config->data.max_samples;
    vl_status status = VL_OK;
    if (table->heldout) /* the file has a split of its own */
        return VL_OK;
    choice c = {vl_calloc((size_t)n + 1, sizeof *c.samples), vl_calloc((size_t)n + 1, sizeof *c.groups),
                vl_calloc((size_t)images->n + 1, sizeof *c.images), vl_calloc((size_t)images->n + 1, sizeof *c.rows)};
    if (!c.samples || !c.groups || !c.images || !c.rows)
        VL_GOTO(vl_fail_nomem(err, "split"));
    VL_GOTO(vl_tables_find_samples(c.rows, cache->index, table, images->sample, images->n, "/images/sample", err));
    list_images(&c, cache);
    bool text = is_text(cache);
    for (int64_t i = 0; i < n; i++) {
        snprintf(c.groups[i], sizeof c.groups[i], "text-group:%lld", (long long)(table->id[i] / VL_TEXT_GROUP));
        c.samples[i].key = text ? c.groups[i] : table->prompt[i];
    }
    int64_t used = most > 0 && most < n ? most : n; /* samples lie in the order of their lines */
    VL_GOTO(vl_split_assign(cache->heldout, c.samples, used, config->data.seed, config->data.heldout, err));
    for (int64_t i = used; i < n; i++)
        cache->heldout[i] = VL_SAMPLE_LEFT_OUT;
done:
    clear(&c);
    return status;
}
