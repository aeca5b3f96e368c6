/* Sequences as data: their arrays grow and go together. */
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/model/family.h"

const char *vl_token_class_name(vl_token_class token_class)
{
    static const char *const names[VL_CLASS_COUNT] = {"text", "image", "last", "generated"};
    return token_class >= 0 && token_class < VL_CLASS_COUNT ? names[token_class] : "unknown";
}

/* Grows one array of a sequence; the sequence stays whole when it fails. */
static bool grow(void **array, int64_t n, size_t size)
{
    void *larger = vl_realloc(*array, (size_t)n, size);
    if (!larger)
        return false;
    *array = larger;
    return true;
}

static bool grow_all(vl_sequence *sequence, int64_t n)
{
    void *ids = sequence->ids, *classes = sequence->token_class, *image = sequence->image, *patch = sequence->patch;
    void *visible = sequence->visible;
    bool grown = grow(&ids, n, sizeof *sequence->ids) && grow(&classes, n, sizeof *sequence->token_class) &&
                 grow(&image, n, sizeof *sequence->image) && grow(&patch, n, sizeof *sequence->patch) &&
                 (!visible || grow(&visible, n, sizeof *sequence->visible));
    sequence->ids = ids;
    sequence->token_class = classes;
    sequence->image = image;
    sequence->patch = patch;
    sequence->visible = visible;
    return grown;
}

/* Rows [first, first + n) as tokens that are no picture. */
static void set_text(vl_sequence *sequence, int64_t first, int64_t n, vl_token_class token_class)
{
    for (int64_t t = first; t < first + n; t++) {
        sequence->token_class[t] = (uint8_t)token_class;
        sequence->image[t] = -1;
        for (int i = 0; i < 3; i++)
            sequence->patch[t][i] = -1;
    }
}

vl_status vl_sequence_new(vl_sequence **out, int64_t n, vl_error *err)
{
    *out = NULL;
    vl_sequence *sequence = vl_calloc(1, sizeof *sequence);
    if (!sequence || !grow_all(sequence, n)) {
        vl_sequence_free(sequence);
        return vl_fail_nomem(err, "sequence");
    }
    memset(sequence->ids, 0, (size_t)n * sizeof *sequence->ids);
    set_text(sequence, 0, n, VL_TEXT);
    sequence->n_tokens = sequence->n_prompt = n;
    *out = sequence;
    return VL_OK;
}

void vl_sequence_free(vl_sequence *sequence)
{
    if (!sequence)
        return;
    for (int i = 0; i < sequence->n_images; i++) {
        vl_free(sequence->images[i].path);
        vl_free(sequence->images[i].pixels);
    }
    vl_free(sequence->images);
    vl_free(sequence->ids);
    vl_free(sequence->token_class);
    vl_free(sequence->image);
    vl_free(sequence->patch);
    vl_free(sequence->visible);
    vl_free(sequence);
}

vl_status vl_sequence_from_ids(vl_sequence **out, const vl_model *model, const int32_t *ids, int64_t n, vl_error *err)
{
    *out = NULL;
    if (n <= 0)
        return vl_fail(err, VL_EINVAL, "a sequence of %lld token ids, expected at least one", (long long)n);
    for (int64_t t = 0; t < n; t++)
        if (ids[t] < 0 || ids[t] >= model->config.text.embed_rows)
            return vl_fail(err, VL_EINVAL, "token id %d at position %lld, expected 0 to %d", (int)ids[t], (long long)t,
                           model->config.text.embed_rows - 1);
    VL_TRY(vl_sequence_new(out, n, err));
    memcpy((*out)->ids, ids, (size_t)n * sizeof *ids);
    return VL_OK;
}

vl_status vl_sequence_append(vl_sequence *sequence, const int32_t *ids, int64_t n, vl_error *err)
{
    int64_t old = sequence->n_tokens;
    if (n <= 0)
        return n == 0 ? VL_OK : vl_fail(err, VL_EINVAL, "cannot append %lld tokens", (long long)n);
    if (n > INT64_MAX - old || !grow_all(sequence, old + n))
        return vl_fail_nomem(err, "sequence");
    memcpy(sequence->ids + old, ids, (size_t)n * sizeof *ids);
    set_text(sequence, old, n, VL_GENERATED);
    for (int64_t t = old; sequence->visible && t < old + n; t++)
        sequence->visible[t] = sequence->visible[old - 1]; /* what the last row saw stays in sight */
    sequence->n_tokens = old + n;
    return VL_OK;
}
