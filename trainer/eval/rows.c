#include "trainer/eval/rows.h"

#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"

const char *vl_eval_group_name(int group)
{
    switch (group) {
    case VL_GROUP_ALL_TEXT: return "all-text";
    case VL_GROUP_ALL: return "all";
    case VL_GROUP_FIRST: return "first";
    case VL_GROUP_ANSWER_1: return "answer 1";
    case VL_GROUP_ANSWER_2: return "answer 2";
    case VL_GROUP_ANSWER_3: return "answer 3+";
    default: return vl_token_class_name((vl_token_class)group);
    }
}

bool vl_eval_group_holds(int target, int group)
{
    if (target == VL_GROUP_ALL)
        return group != VL_GROUP_FIRST;
    if (target == VL_GROUP_ALL_TEXT)
        return group != VL_IMAGE && group != VL_GROUP_FIRST;
    if (target == VL_ANSWER && group >= VL_GROUP_ANSWER_1)
        return true;
    return target == group;
}

void vl_eval_rows_clear(vl_eval_rows *rows)
{
    vl_free(rows->row);
    vl_free(rows->partner);
    vl_free(rows->group);
    vl_free(rows->cluster);
    *rows = (vl_eval_rows){0};
}

/* Per-sample facts, [S] each. */
typedef struct sample_index {
    int64_t *first_image; /* row of /images, or -1 */
    int64_t *cluster;     /* the lowest sample that shows the same picture; itself without one */
    int64_t *start;       /* [S + 1] into `rows` */
    int64_t *rows;        /* [N] cache rows by sample, ascending inside one */
    int64_t *order;       /* [S] work area for sorting */
} sample_index;

static void index_clear(sample_index *index)
{
    vl_free(index->first_image);
    vl_free(index->cluster);
    vl_free(index->start);
    vl_free(index->rows);
    vl_free(index->order);
}

typedef struct sort_context {
    const vl_cache_samples *samples;
    const sample_index *index;
} sort_context;

static const char *picture_of(const sort_context *c, int64_t sample)
{
    int64_t image = c->index->first_image[sample];
    return image >= 0 ? c->samples->image_sha256[image] : "";
}

static int by_picture(const void *a, const void *b, void *context)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    int order = strcmp(picture_of(context, x), picture_of(context, y));
    return order ? order : (x > y) - (x < y);
}

static int by_prompt(const void *a, const void *b, void *context)
{
    const sort_context *c = context;
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    int order = strcmp(c->samples->prompt[x], c->samples->prompt[y]);
    return order ? order : (x > y) - (x < y);
}

/* qsort_r is not in POSIX; a stable merge is short enough. */
static void merge_sort(int64_t *items, int64_t *scratch, int64_t n, int (*compare)(const void *, const void *, void *),
                       void *context)
{
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t left = 0; left < n; left += 2 * width) {
            int64_t middle = left + width < n ? left + width : n, end = left + 2 * width < n ? left + 2 * width : n;
            int64_t i = left, j = middle, k = left;
            while (k < end) {
                bool take_left = j >= end || (i < middle && compare(&items[i], &items[j], context) <= 0);
                scratch[k++] = take_left ? items[i++] : items[j++];
            }
        }
        memcpy(items, scratch, (size_t)n * sizeof *items);
    }
}

static void fill_clusters(sample_index *index, sort_context *context, int64_t *scratch, int64_t n_samples)
{
    for (int64_t i = 0; i < n_samples; i++)
        index->order[i] = i;
    merge_sort(index->order, scratch, n_samples, by_picture, context);
    for (int64_t i = 0; i < n_samples; i++) {
        int64_t sample = index->order[i], before = i > 0 ? index->order[i - 1] : -1;
        bool same = before >= 0 && *picture_of(context, sample) &&
                    !strcmp(picture_of(context, sample), picture_of(context, before));
        index->cluster[sample] = same ? index->cluster[before] : sample;
    }
}

static void fill_rows(sample_index *index, const vl_cache *cache, int64_t n_samples, int64_t n_rows)
{
    const int32_t *sample_row = vl_cache_get_tokens(cache)->sample_row;
    for (int64_t r = 0; r < n_rows; r++)
        index->start[sample_row[r] + 1]++;
    for (int64_t s = 0; s < n_samples; s++)
        index->start[s + 1] += index->start[s];
    for (int64_t r = 0; r < n_rows; r++)
        index->rows[index->start[sample_row[r]]++] = r;
    for (int64_t s = n_samples; s > 0; s--)
        index->start[s] = index->start[s - 1];
    index->start[0] = 0;
}

/* The row of /samples with number `number`, or -1. Numbers ascend in a cache that vlens wrote; elsewhere they may
 * stand in any order. */
static int64_t row_of_sample(const vl_cache_samples *samples, int64_t n, int32_t number)
{
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (samples->id[middle] < number)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < n && samples->id[low] == number)
        return low;
    for (int64_t i = 0; i < n; i++)
        if (samples->id[i] == number)
            return i;
    return -1;
}

static vl_status index_build(sample_index *index, const vl_cache *cache, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    const vl_cache_samples *samples = vl_cache_get_samples(cache);
    size_t s = (size_t)info->n_samples, n = (size_t)info->n_tokens;
    index->first_image = vl_alloc(s, sizeof(int64_t));
    index->cluster = vl_alloc(s, sizeof(int64_t));
    index->start = vl_calloc(s + 1, sizeof(int64_t));
    index->rows = vl_alloc(n, sizeof(int64_t));
    index->order = vl_alloc(s, sizeof(int64_t));
    int64_t *scratch = vl_alloc(s, sizeof(int64_t));
    if (!index->first_image || !index->cluster || !index->start || !index->rows || !index->order || !scratch) {
        vl_free(scratch);
        return vl_fail_nomem(err, "index of the cache's samples");
    }
    for (int64_t i = 0; i < info->n_samples; i++)
        index->first_image[i] = -1;
    for (int64_t i = 0; i < info->n_images; i++) {
        int64_t sample = row_of_sample(samples, info->n_samples, samples->image_sample[i]);
        if (sample >= 0 && index->first_image[sample] < 0)
            index->first_image[sample] = i;
    }
    sort_context context = {samples, index};
    fill_clusters(index, &context, scratch, info->n_samples);
    fill_rows(index, cache, info->n_samples, info->n_tokens);
    for (int64_t i = 0; i < info->n_samples; i++)
        index->order[i] = i;
    merge_sort(index->order, scratch, info->n_samples, by_prompt, &context);
    vl_free(scratch);
    return VL_OK;
}

/* For each sample the next one (cyclically, in prompt order) of this part of the split that has the same prompt and
 * another picture; -1 where there is none. `partner` is [S]. */
static void pair_samples(int64_t *partner, const sample_index *index, const vl_cache_samples *samples, int64_t n,
                         bool heldout)
{
    for (int64_t i = 0; i < n; i++)
        partner[i] = -1;
    for (int64_t begin = 0, end; begin < n; begin = end) {
        for (end = begin + 1;
             end < n && !strcmp(samples->prompt[index->order[begin]], samples->prompt[index->order[end]]); end++)
            ;
        int64_t size = end - begin;
        for (int64_t i = 0; i < size; i++) {
            int64_t sample = index->order[begin + i];
            for (int64_t step = 1; step < size && partner[sample] < 0; step++) {
                int64_t other = index->order[begin + (i + step) % size];
                if (samples->heldout[other] == heldout && index->first_image[sample] >= 0 &&
                    index->first_image[other] >= 0 && index->cluster[other] != index->cluster[sample])
                    partner[sample] = other;
            }
        }
    }
}

/* The partner's row at the same position and of the same class and token, by a merge of both ascending lists. */
static int64_t matching_row(const vl_cache_tokens *tokens, const sample_index *index, int64_t partner, int64_t row,
                            int64_t *cursor)
{
    while (*cursor < index->start[partner + 1] && tokens->position[index->rows[*cursor]] < tokens->position[row])
        ++*cursor;
    if (*cursor == index->start[partner + 1])
        return -1;
    int64_t other = index->rows[*cursor];
    bool same = tokens->position[other] == tokens->position[row] &&
                tokens->token_class[other] == tokens->token_class[row] &&
                (tokens->token_class[row] == VL_IMAGE || tokens->id[other] == tokens->id[row]);
    return same ? other : -1;
}

/* Where in which answer a row stands. The first token of an answer is the one behind the row of class last, which is
 * in the same turn; where that was not kept, the first one that was. */
typedef struct answer_walk {
    int turn;
    int32_t before; /* position of the token before the answer */
} answer_walk;

static int finest_group(answer_walk *walk, const vl_cache_tokens *tokens, int64_t row)
{
    if (tokens->token_class[row] == VL_LAST)
        *walk = (answer_walk){tokens->turn[row], tokens->position[row]};
    if (tokens->token_class[row] != VL_ANSWER)
        return tokens->token_class[row];
    if (walk->turn != tokens->turn[row])
        *walk = (answer_walk){tokens->turn[row], tokens->position[row] - 1};
    int32_t place = tokens->position[row] - walk->before;
    return place <= 1 ? VL_GROUP_ANSWER_1 : place == 2 ? VL_GROUP_ANSWER_2 : VL_GROUP_ANSWER_3;
}

static void add_sample(vl_eval_rows *out, const vl_config *config, const vl_cache_tokens *tokens,
                       const sample_index *index, int64_t sample, int64_t partner)
{
    int64_t cursor = partner >= 0 ? index->start[partner] : 0;
    answer_walk walk = {-2, 0};
    for (int64_t i = index->start[sample]; i < index->start[sample + 1]; i++) {
        int64_t row = index->rows[i], n = out->n++;
        out->row[n] = row;
        out->partner[n] = partner >= 0 ? matching_row(tokens, index, partner, row, &cursor) : -1;
        out->n_partners += out->partner[n] >= 0;
        int finest = finest_group(&walk, tokens, row);
        out->group[n] = (uint8_t)(tokens->position[row] < config->eval.first_positions ? VL_GROUP_FIRST : finest);
        out->cluster[n] = (int32_t)index->cluster[sample];
    }
}

/* Cluster numbers become 0..n-1. `first` is [S] scratch. */
static void renumber_clusters(vl_eval_rows *rows, int64_t *first, int64_t n_samples)
{
    for (int64_t i = 0; i < n_samples; i++)
        first[i] = -1;
    for (int64_t i = 0; i < rows->n; i++) {
        int64_t *number = &first[rows->cluster[i]];
        if (*number < 0)
            *number = rows->n_clusters++;
        rows->cluster[i] = (int32_t)*number;
    }
}

/* Why there is nothing to evaluate. */
static vl_status fail_empty(const vl_config *config, const vl_cache_info *info, const vl_cache_samples *samples,
                            vl_error *err)
{
    bool heldout = config->eval.split == VL_SPLIT_HELDOUT;
    int64_t wanted = 0;
    for (int64_t i = 0; i < info->n_samples; i++)
        wanted += samples->heldout[i] == heldout;
    if (wanted > 0)
        return vl_fail(err, VL_EINVAL, "%s: eval.max_tokens is %lld, which is less than any %s sample has rows",
                       info->path, (long long)config->eval.max_tokens, heldout ? "held-out" : "training");
    return vl_fail(err, VL_EINVAL, "%s: none of its %lld samples is %s (data.heldout %g, data.seed %lld)", info->path,
                   (long long)info->n_samples, heldout ? "held out" : "trained on", config->data.heldout,
                   (long long)config->data.seed);
}

vl_status vl_eval_rows_select(vl_eval_rows *out, const vl_config *config, const vl_cache *cache, vl_error *err)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    const vl_cache_samples *samples = vl_cache_get_samples(cache);
    sample_index index = {0};
    vl_status status = VL_OK;
    int64_t *partner = vl_alloc((size_t)info->n_samples, sizeof *partner);
    bool heldout = config->eval.split == VL_SPLIT_HELDOUT;
    size_t n = (size_t)info->n_tokens;
    *out = (vl_eval_rows){
        .row = vl_alloc(n, 8), .partner = vl_alloc(n, 8), .group = vl_alloc(n, 1), .cluster = vl_alloc(n, 4)};
    if (!partner || !out->row || !out->partner || !out->group || !out->cluster) {
        status = vl_fail_nomem(err, "list of held-out rows");
        goto done;
    }
    VL_GOTO(index_build(&index, cache, err));
    if (config->eval.wrong_picture)
        pair_samples(partner, &index, samples, info->n_samples, heldout);
    else
        for (int64_t i = 0; i < info->n_samples; i++)
            partner[i] = -1;
    int64_t limit = config->eval.max_tokens ? config->eval.max_tokens : info->n_tokens;
    for (int64_t s = 0; s < info->n_samples; s++)
        if (samples->heldout[s] == heldout && out->n + index.start[s + 1] - index.start[s] <= limit)
            add_sample(out, config, vl_cache_get_tokens(cache), &index, s, partner[s]);
    if (out->n == 0)
        status = fail_empty(config, info, samples, err);
    else
        renumber_clusters(out, partner, info->n_samples);
done:
    vl_free(partner);
    index_clear(&index);
    if (status != VL_OK)
        vl_eval_rows_clear(out);
    return status;
}
