/* identity.c - the digest of an evaluation: what was measured, on what, and how. Equal digests, equal numbers. */
#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/sha256.h"
#include "trainer/config/settings.h"
#include "trainer/eval/result.h"
#include "trainer/hf/safetensors.h"
#include "trainer/lens/lens.h"

static void add_text(vl_sha256 *hash, const char *text)
{
    vl_sha256_update(hash, text ? text : "",
                     strlen(text ? text : "") + 1); /* with its end: parts cannot run together */
}

static void add_lens(vl_sha256 *hash, const vl_lens *lens)
{
    const char *sha256 = lens ? vl_safetensors_metadata(lens->file, "sha256") : "none";
    add_text(hash, sha256 ? sha256 : lens->path);
}

/* The rows as tokens of samples: where in the cache they lie does not matter. */
static void add_rows(vl_sha256 *hash, const vl_cache *cache, const vl_eval_rows *rows)
{
    const vl_cache_tokens *t = vl_cache_get_tokens(cache);
    const vl_cache_samples *s = vl_cache_get_samples(cache);
    int32_t last = -1;
    for (int64_t i = 0; i < rows->n; i++) {
        int64_t row = rows->row[i];
        const int32_t what[] = {t->position[row], t->id[row], t->next_id[row], t->token_class[row], rows->cluster[i]};
        if (t->sample_row[row] != last)
            add_text(hash, s->prompt[t->sample_row[row]]);
        last = t->sample_row[row];
        vl_sha256_update(hash, what, sizeof what);
    }
}

vl_status vl_eval_identify(vl_eval_result *result, const vl_eval_identity *what, vl_error *err)
{
    char *settings, hex[VL_SHA256_HEX];
    uint8_t digest[VL_SHA256_BYTES];
    vl_sha256 hash;
    VL_TRY(vl_settings_make(&settings, what->config, VL_AFFECTS_EVAL, NULL, 0, err));
    vl_sha256_init(&hash);
    add_text(&hash, settings);
    add_text(&hash, vl_cache_get_info(what->cache)->fingerprint);
    add_text(&hash, vl_cache_get_info(what->cache)->model_digest);
    add_lens(&hash, what->lens);
    add_lens(&hash, what->baseline);
    add_rows(&hash, what->cache, what->rows);
    vl_free(settings);
    vl_sha256_final(&hash, digest);
    vl_sha256_hex(digest, hex);
    snprintf(result->digest, sizeof result->digest, "%.16s", hex);
    return VL_OK;
}

const char *vl_eval_digest(const vl_eval_result *result)
{
    return result->digest;
}
