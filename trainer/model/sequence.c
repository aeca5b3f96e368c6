/* Sequences as data: their arrays grow and go together. */
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/model/family.h"
#include "trainer/model/sequence.h"

/* ---- pictures ---------------------------------------------------------------------------------------------- */

void vl_image_release(struct vl_sequence_image *image)
{
    vl_free(image->path);
    vl_free(image->pixels);
    vl_free(image->grids);
    vl_free(image->seen);
    *image = (struct vl_sequence_image){0};
}

vl_status vl_image_set_grids(struct vl_sequence_image *image, int n, vl_error *err)
{
    vl_free(image->grids);
    image->n_grids = 0;
    image->grids = vl_calloc((size_t)n, sizeof *image->grids);
    if (!image->grids)
        return vl_fail_nomem(err, "picture");
    image->n_grids = n;
    return VL_OK;
}

vl_status vl_image_set_pixels(struct vl_sequence_image *image, int64_t n, vl_error *err)
{
    vl_free(image->pixels);
    image->n_pixels = 0;
    image->pixels = vl_alloc((size_t)n, sizeof *image->pixels);
    if (!image->pixels)
        return vl_fail_nomem(err, "pixel values");
    image->n_pixels = n;
    return VL_OK;
}

vl_status vl_image_set_seen(struct vl_sequence_image *image, int width, int height, vl_error *err)
{
    vl_free(image->seen);
    image->seen = vl_calloc((size_t)width * (size_t)height, 3);
    if (!image->seen)
        return vl_fail_nomem(err, "picture");
    image->seen_width = width;
    image->seen_height = height;
    return VL_OK;
}

/* ---- rows -------------------------------------------------------------------------------------------------- */

const char *vl_token_class_name(vl_token_class token_class)
{
    static const char *const names[VL_CLASS_COUNT] = {"text", "image", "last", "generated", "answer"};
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
    void *visible = sequence->visible, *position = sequence->position, *turn = sequence->turn;
    bool grown = grow(&ids, n, sizeof *sequence->ids) && grow(&classes, n, sizeof *sequence->token_class) &&
                 grow(&image, n, sizeof *sequence->image) && grow(&patch, n, sizeof *sequence->patch) &&
                 grow(&position, n, sizeof *sequence->position) && grow(&turn, n, sizeof *sequence->turn) &&
                 (!visible || grow(&visible, n, sizeof *sequence->visible));
    sequence->ids = ids;
    sequence->token_class = classes;
    sequence->image = image;
    sequence->patch = patch;
    sequence->visible = visible;
    sequence->position = position;
    sequence->turn = turn;
    return grown;
}

int64_t vl_sequence_next_position(const vl_sequence *sequence)
{
    int32_t largest = -1;
    for (int64_t t = 0; t < sequence->n_tokens; t++)
        for (int axis = 0; axis < 3; axis++)
            largest = sequence->position[t][axis] > largest ? sequence->position[t][axis] : largest;
    return (int64_t)largest + 1;
}

/* Rows [first, first + n) as tokens that are no picture, at the positions behind the last. */
static void set_text(vl_sequence *sequence, int64_t first, int64_t n, vl_token_class token_class)
{
    int64_t next = vl_sequence_next_position(sequence);
    for (int64_t t = first; t < first + n; t++) {
        sequence->token_class[t] = (uint8_t)token_class;
        sequence->image[t] = -1;
        sequence->turn[t] = -1;
        for (int i = 0; i < 3; i++)
            sequence->patch[t][i] = -1;
        for (int axis = 0; axis < 3; axis++)
            sequence->position[t][axis] = (int32_t)(next + t - first);
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
    for (int i = 0; sequence->images && i < sequence->n_images; i++)
        vl_image_release(&sequence->images[i]);
    vl_free(sequence->images);
    vl_free(sequence->ids);
    vl_free(sequence->token_class);
    vl_free(sequence->image);
    vl_free(sequence->patch);
    vl_free(sequence->visible);
    vl_free(sequence->position);
    vl_free(sequence->turn);
    vl_free(sequence);
}

vl_status vl_sequence_from_ids(vl_sequence **out, const vl_model *model, const int32_t *ids, int64_t n, vl_error *err)
{
    *out = NULL;
    if (n <= 0)
        return vl_fail(err, VL_EINVAL, "a sequence of %lld token ids, expected at least one", (long long)n);
    for (int64_t t = 0; t < n; t++)
        if (ids[t] < 0 || ids[t] >= model->spec.decoder.embed_rows)
            return vl_fail(err, VL_EINVAL, "token id %d at position %lld, expected 0 to %d", (int)ids[t], (long long)t,
                           model->spec.decoder.embed_rows - 1);
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
    for (int64_t t = old; t < old + n; t++)
        sequence->turn[t] = sequence->turn[old - 1]; /* the one that the prompt opened */
    for (int64_t t = old; sequence->visible && t < old + n; t++)
        sequence->visible[t] = sequence->visible[old - 1]; /* what the last row saw stays in sight */
    sequence->n_tokens = old + n;
    return VL_OK;
}

/* Row `row` of a picture's grids: which of them, row, column. A newline belongs to its grid, but to no cell of it. */
static void set_patch(int16_t out[3], const struct vl_sequence_image *image, int64_t row)
{
    for (int g = 0; row >= 0 && g < image->n_grids; g++) {
        const int64_t columns = image->grids[g].columns, width = columns + (image->grids[g].newlines ? 1 : 0);
        const int64_t rows = image->grids[g].rows * width;
        if (row < rows) {
            const bool newline = row % width == columns;
            out[0] = (int16_t)g;
            out[1] = (int16_t)(newline ? -1 : row / width);
            out[2] = (int16_t)(newline ? -1 : row % width);
            return;
        }
        row -= rows;
    }
    out[0] = image->n_grids == 1 ? 0 : -1;
}

vl_status vl_place_rows(vl_sequence *sequence, const vl_model_spec *spec, int skipped, vl_error *err)
{
    int32_t token = spec->vision.image_token;
    int64_t count = 0, expected = 0, row = 0;
    for (int64_t t = 0; t < sequence->n_tokens; t++)
        count += sequence->ids[t] == token;
    for (int i = 0; i < sequence->n_images; i++)
        expected += sequence->images[i].n_rows;
    if (count != expected)
        return vl_fail(err, VL_EINVAL, "prompt has %lld rows of token %d, expected %lld for %d images",
                       (long long)count, (int)token, (long long)expected, sequence->n_images);
    int image = 0;
    for (int64_t t = 0; t < sequence->n_tokens; t++) {
        if (sequence->ids[t] != token)
            continue;
        while (row == sequence->images[image].n_rows) { /* a picture may become no row at all */
            image++;
            row = 0;
        }
        sequence->token_class[t] = VL_IMAGE;
        sequence->image[t] = image;
        set_patch(sequence->patch[t], &sequence->images[image], row++ - skipped);
    }
    return VL_OK;
}
