#include <string.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"
#include "trainer/data/samples.h"

/* The token that the tokenizer puts in front of a text, or -1. Found by asking it, not from its settings: the
 * post-processor decides. */
static vl_status leading_token(int32_t *out, const vl_tokenizer *tokenizer, vl_error *err)
{
    vl_token_ids with = {NULL, 0}, without = {NULL, 0};
    vl_status status = VL_OK;
    *out = -1;
    VL_GOTO(vl_tokenizer_encode(&with, tokenizer, "a", 1, true, err));
    VL_GOTO(vl_tokenizer_encode(&without, tokenizer, "a", 1, false, err));
    if (with.n > without.n && (without.n == 0 || with.ids[0] != without.ids[0]))
        *out = with.ids[0];
done:
    vl_release(with.ids);
    vl_release(without.ids);
    return status;
}

/* Lays the windows side by side in list->ids, each with its leading token. */
static vl_status cut(vl_sample_list *list, const vl_token_ids *tokens, int32_t lead, int64_t window, int64_t most,
                     vl_error *err)
{
    int64_t step = window - (lead >= 0 ? 1 : 0);
    int64_t n_windows = (tokens->n + step - 1) / step;
    if (most > 0 && n_windows > most)
        n_windows = most;
    if (n_windows > INT32_MAX)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: more than %d windows", list->path, INT32_MAX);
    list->ids = vl_alloc((size_t)n_windows + 1, (size_t)window * sizeof *list->ids);
    if (!list->ids)
        return vl_fail_nomem(err, "windows of text");
    for (int64_t w = 0; w < n_windows; w++) {
        int32_t *ids = list->ids + w * window;
        int64_t first = w * step, n = tokens->n - first < step ? tokens->n - first : step, used = 0;
        if (lead >= 0)
            ids[used++] = lead;
        memcpy(ids + used, tokens->ids + first, (size_t)n * sizeof *ids);
        if (used + n < 2) /* one token predicts nothing */
            continue;
        vl_sample *sample = vl_samples_add(list);
        if (!sample)
            return vl_fail_nomem(err, "windows of text");
        sample->number = w;
        sample->ids = ids;
        sample->n_ids = used + n;
    }
    return VL_OK;
}

/* What a window says, for people. */
static vl_status decode(vl_sample_list *list, const vl_tokenizer *tokenizer, bool has_lead, vl_error *err)
{
    for (int64_t i = 0; i < list->n; i++) {
        vl_sample *sample = &list->items[i];
        vl_decoded text;
        VL_TRY(vl_tokenizer_decode(&text, tokenizer, sample->ids + has_lead, sample->n_ids - has_lead, false, err));
        sample->prompt = vl_strdup(text.text);
        vl_release(text.text);
        if (!sample->prompt)
            return vl_fail_nomem(err, "windows of text");
    }
    return VL_OK;
}

vl_status vl_samples_read_windows(vl_sample_list *list, const vl_config *config, const vl_tokenizer *tokenizer,
                                  vl_error *err)
{
    vl_status status = VL_OK;
    vl_map map = {NULL, 0};
    vl_token_ids tokens = {NULL, 0};
    int32_t lead;
    int64_t window = config->data.max_tokens > 0 ? config->data.max_tokens : VL_TEXT_WINDOW;
    if (window < 2)
        return vl_fail(err, VL_EINVAL, "data.max_tokens is %lld, expected at least 2 with data.text",
                       (long long)window);
    VL_GOTO(vl_map_open(&map, list->path, err));
    VL_GOTO(vl_sha256_file(list->path, list->sha256, err));
    VL_GOTO(leading_token(&lead, tokenizer, err));
    status = vl_tokenizer_encode(&tokens, tokenizer, map.data ? (const char *)map.data : "", map.size, false, err);
    if (status != VL_OK) {
        vl_error_prefix(err, status, "%s: ", list->path);
        goto done;
    }
    VL_GOTO(cut(list, &tokens, lead, window, config->data.max_samples, err));
    VL_GOTO(decode(list, tokenizer, lead >= 0, err));
done:
    vl_release(tokens.ids);
    vl_map_close(&map);
    return status;
}
