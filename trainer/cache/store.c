#include "trainer/cache/store.h"

#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"

void vl_store_clear(vl_store *store)
{
    for (int64_t i = 0; i < store->n; i++) {
        vl_shard_summary_clear(&store->shards[i].summary);
        vl_free(store->shards[i].places);
    }
    vl_free(store->shards);
    vl_free(store->sorted);
    vl_free(store->used);
    *store = (vl_store){.n = 0};
}

/* Rows and pictures of a sample follow those of the sample before it. */
static vl_status find_places(vl_store_shard *shard, int64_t index, const char *path, vl_error *err)
{
    const vl_tables *t = &shard->summary.tables;
    int64_t row = 0, image = 0;
    for (int64_t i = 0; i < t->samples.n; i++) {
        vl_sample_place *place = &shard->places[i];
        *place = (vl_sample_place){.shard = index, .sample = i, .first_row = row, .first_image = image};
        while (row < t->rows.n && t->rows.sample[row] == t->samples.id[i])
            row++;
        while (image < t->images.n && t->images.sample[image] == t->samples.id[i])
            image++;
        place->n_rows = row - place->first_row;
        place->n_images = image - place->first_image;
    }
    if (row != t->rows.n || image != t->images.n)
        return vl_fail(err, VL_EFORMAT, "%s: its rows are not in the order of its samples", path);
    return VL_OK;
}

vl_status vl_store_add(vl_store *store, int64_t number, vl_shard_summary *summary, const char *path, vl_error *err)
{
    if (!summary->tables.samples.key)
        return vl_fail(
            err, VL_EMISMATCH,
            "%s: written by an earlier version, whose samples have no keys: it is read, but not gone on with; "
            "--fresh makes the cache again",
            path);
    if (store->n == store->capacity) {
        int64_t capacity = store->capacity ? 2 * store->capacity : 16;
        vl_store_shard *grown = vl_realloc(store->shards, (size_t)capacity, sizeof *grown);
        if (!grown)
            return vl_fail_nomem(err, "list of shards");
        store->shards = grown;
        store->capacity = capacity;
    }
    vl_store_shard *shard = &store->shards[store->n];
    *shard = (vl_store_shard){.number = number, .summary = *summary};
    shard->places = vl_calloc((size_t)summary->tables.samples.n + 1, sizeof *shard->places);
    memset(summary, 0, sizeof *summary);
    store->n++;
    return shard->places ? find_places(shard, store->n - 1, path, err) : vl_fail_nomem(err, "list of shards");
}

/* ---- by key ------------------------------------------------------------------------------------------------ */

typedef struct keyed {
    const char *key;
    const vl_sample_place *place;
} keyed;

static int by_key(const void *a, const void *b)
{
    const keyed *x = a, *y = b;
    int order = strcmp(x->key, y->key);
    if (order == 0)
        order = (x->place->shard > y->place->shard) - (x->place->shard < y->place->shard);
    return order ? order : (x->place->sample > y->place->sample) - (x->place->sample < y->place->sample);
}

static const char *key_of(const vl_store *store, const vl_sample_place *place)
{
    return store->shards[place->shard].summary.tables.samples.key[place->sample];
}

vl_status vl_store_sort(vl_store *store, vl_error *err)
{
    int64_t n = 0;
    for (int64_t i = 0; i < store->n; i++)
        store->n_samples += store->shards[i].summary.tables.samples.n;
    keyed *list = vl_alloc((size_t)store->n_samples + 1, sizeof *list);
    store->sorted = vl_alloc((size_t)store->n_samples + 1, sizeof *store->sorted);
    store->used = vl_calloc((size_t)store->n_samples + 1, sizeof *store->used);
    if (!list || !store->sorted || !store->used) {
        vl_free(list);
        return vl_fail_nomem(err, "list of shards");
    }
    for (int64_t i = 0; i < store->n; i++)
        for (int64_t k = 0; k < store->shards[i].summary.tables.samples.n; k++, n++)
            list[n] = (keyed){key_of(store, &store->shards[i].places[k]), &store->shards[i].places[k]};
    qsort(list, (size_t)n, sizeof *list, by_key);
    for (int64_t i = 0; i < n; i++)
        store->sorted[i] = list[i].place;
    vl_free(list);
    return VL_OK;
}

const vl_sample_place *vl_store_find(vl_store *store, const char *key)
{
    int64_t low = 0, high = store->n_samples;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (strcmp(key_of(store, store->sorted[middle]), key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < store->n_samples && strcmp(key_of(store, store->sorted[low]), key) == 0; low++)
        if (!store->used[low]) {
            store->used[low] = true;
            return store->sorted[low];
        }
    return NULL;
}

bool vl_store_has(const vl_store *store, int64_t number)
{
    for (int64_t i = 0; i < store->n; i++)
        if (store->shards[i].number == number)
            return true;
    return false;
}
