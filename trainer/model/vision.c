/* Semantics of rows in the stream: transformers 4.46.3, src/transformers/models/llava/modeling_llava.py (the
 * masked_scatter of forward); newer families do the same. */
#include "trainer/model/vision.h"

#include <stdio.h>

#include "trainer/base/mem.h"
#include "trainer/model/buffers.h"
#include "trainer/model/cross.h"
#include "trainer/model/deep.h"
#include "trainer/model/family.h"

enum { MAX_AT_ONCE = 16 };

vl_status vl_vision_new(vl_vision **out, vl_loader *loader, vl_error *err)
{
    *out = vl_calloc(1, sizeof **out);
    if (!*out)
        return vl_fail_nomem(err, "vision tower");
    (*out)->spec = &loader->spec->vision;
    VL_TRY(vl_tower_load(&(*out)->tower, loader, err));
    VL_TRY(vl_connector_load(&(*out)->connector, loader, err));
    if (!(*out)->spec->newline)
        return VL_OK;
    const vl_scope top = vl_scope_make(loader, VL_PART_TOP, "%s", "");
    return vl_load_vector(&(*out)->newline, &top, (*out)->spec->newline, loader->spec->decoder.hidden_size, err);
}

void vl_vision_free(vl_vision *vision, vl_device *device)
{
    if (!vision)
        return;
    vl_tower_free(&vision->tower, device);
    vl_connector_free(&vision->connector, device);
    vl_device_free(device, vision->newline.data);
    vl_free(vision);
}

/* ---- tower and connector ----------------------------------------------------------------------------------- */

/* Tiles that share one pass over the tower's weights. */
enum { TILES = 4 };

/* The tiles of the pictures of one call, one behind another; N rows each in the tower, n behind the connector. */
typedef struct encoding {
    const vl_vision *vision;
    const vl_encode_args *args;
    int64_t n_tiles;
    const float *pixels[TILES];
    int sequence[TILES], n; /* of the tiles that are encoded next */
    void *memory, *hidden;  /* [TILES * N, C] */
    vl_tensor rows;         /* [n_tiles * n, D] */
    int64_t done;           /* tiles that are */
} encoding;

static vl_status show(const encoding *e, const char *name, vl_tensor rows, vl_error *err)
{
    const vl_pass *pass = e->args->pass;
    const int64_t n = rows.shape[0] / e->n;
    for (int i = 0; pass->stage && i < e->n; i++) {
        vl_tensor part = vl_tensor_rows(rows, i * n, n);
        if (pass->stage(pass->user, name, e->sequence[i], &part) != 0)
            return vl_fail(err, VL_ECANCELLED, "the forward was stopped at %s", name);
    }
    return VL_OK;
}

static vl_status show_hidden(void *user, int state, vl_tensor rows, vl_error *err)
{
    char name[32];
    snprintf(name, sizeof name, "vision.hidden.%02d", state);
    return show(user, name, rows, err);
}

/* Encodes the tiles that were collected. */
static vl_status encode_tiles(encoding *e, vl_error *err)
{
    const vl_vision *vision = e->vision;
    vl_device *device = e->args->pass->device;
    const int64_t all = vl_tower_rows(&vision->spec->tower), n = vl_connector_rows(vision->spec);
    if (e->n == 0)
        return VL_OK;
    const vl_tensor hidden = vl_tensor_2d(e->hidden, VL_F32, e->n * all, vision->spec->tower.hidden_size);
    const vl_tensor out = vl_tensor_rows(e->rows, e->done * n, e->n * n);
    const vl_tower_args tower = {e->pixels, e->n, hidden, e->args->pass->stage ? show_hidden : NULL, e};
    VL_TRY(vl_tower_forward(&vision->tower, device, &tower, err));
    VL_TRY(vl_connector_forward(&vision->connector, device, out, hidden, err));
    e->done += e->n;
    e->n = 0;
    return VL_OK;
}

static const struct vl_sequence_image *picture(const vl_pass *pass, int sequence, int image)
{
    return &pass->sequences[sequence]->images[image];
}

static const struct vl_sequence_image *picture_of(const encoding *e, int i)
{
    return picture(e->args->pass, e->args->sequence[i], e->args->image[i]);
}

static vl_status encode_all_tiles(encoding *e, vl_error *err)
{
    const int64_t size = e->vision->spec->image_size, values = 3 * size * size;
    for (int i = 0; i < e->args->n; i++) {
        const struct vl_sequence_image *image = picture_of(e, i);
        if (!image->pixels || image->n_pixels < image->n_tiles * values)
            return vl_fail(err, VL_EINVAL, "a picture without its pixel values");
        for (int tile = 0; tile < image->n_tiles; tile++) {
            e->sequence[e->n] = e->args->sequence[i];
            e->pixels[e->n++] = image->pixels + tile * values;
            if (e->n == TILES)
                VL_TRY(encode_tiles(e, err));
        }
    }
    return encode_tiles(e, err);
}

/* The rows of picture i, and the newline behind them where the family packs with one, into its rows of out. */
static vl_status pack(const vl_model *model, const encoding *e, int i, int64_t first, vl_tensor out, vl_error *err)
{
    const struct vl_sequence_image *image = picture_of(e, i);
    const int64_t n = image->n_tiles * vl_connector_rows(e->vision->spec), d = out.shape[1];
    const bool newline = e->vision->newline.data != NULL;
    vl_device *device = e->args->pass->device;
    vl_tensor tiles;
    VL_TRY(vl_tensor_new(&tiles, device, VL_F32, n + newline, d, err));
    vl_cast_args copy = {.out = vl_tensor_rows(tiles, 0, n), .x = vl_tensor_rows(e->rows, first, n)};
    vl_status status = vl_op_cast(device, &copy, err);
    if (status == VL_OK && newline) {
        copy = (vl_cast_args){.out = vl_tensor_rows(tiles, n, 1),
                              .x = vl_tensor_2d(e->vision->newline.data, VL_F32, 1, d)};
        status = vl_op_cast(device, &copy, err);
    }
    if (status == VL_OK)
        status = model->spec.family->pack(model, image, out, tiles, err);
    vl_device_free(device, tiles.data);
    return status;
}

static vl_status pack_all(const vl_model *model, const encoding *e, vl_error *err)
{
    int64_t first = 0, done = 0;
    for (int i = 0; i < e->args->n; i++) {
        const struct vl_sequence_image *image = picture_of(e, i);
        const int64_t n = image->n_tiles * vl_connector_rows(e->vision->spec);
        const vl_tensor out = vl_tensor_rows(e->args->out, done, image->n_rows);
        if (model->spec.family->pack)
            VL_TRY(pack(model, e, i, first, out, err));
        else
            VL_TRY(vl_op_cast(e->args->pass->device,
                              &(vl_cast_args){.out = out, .x = vl_tensor_rows(e->rows, first, n)}, err));
        first += n;
        done += image->n_rows;
    }
    return VL_OK;
}

/* vl_family.encode of a family that has none of its own. */
static vl_status encode_plainly(const vl_model *model, const vl_encode_args *args, vl_error *err)
{
    const vl_vision_spec *spec = &model->spec.vision;
    encoding e = {.vision = model->vision, .args = args};
    void *rows = NULL;
    vl_status status = VL_OK;
    for (int i = 0; i < args->n; i++)
        e.n_tiles += picture_of(&e, i)->n_tiles;
    const int64_t n = e.n_tiles * vl_connector_rows(spec), d = model->spec.decoder.hidden_size;
    const int64_t held = (e.n_tiles < TILES ? e.n_tiles : TILES) * vl_tower_rows(&spec->tower);
    const vl_buffer_request requests[] = {{&e.hidden, held, spec->tower.hidden_size}, {&rows, n, d}};
    VL_GOTO(vl_buffers_alloc(&e.memory, args->pass->device, requests, 2, err));
    e.rows = vl_tensor_2d(rows, VL_F32, n, d);
    VL_GOTO(encode_all_tiles(&e, err));
    VL_GOTO(pack_all(model, &e, err));
done:
    vl_device_free(args->pass->device, e.memory);
    return status;
}

static vl_status encode(const vl_model *model, const vl_encode_args *args, vl_error *err)
{
    return model->spec.family->encode ? model->spec.family->encode(model, args, err) : encode_plainly(model, args, err);
}

/* ---- into the stream --------------------------------------------------------------------------------------- */

/* Copies the rows of a picture to the rows of the stream that it owns, run by run. */
static vl_status scatter(const vl_pass *pass, int s, int image, vl_tensor rows, vl_error *err)
{
    const vl_sequence *sequence = pass->sequences[s];
    vl_tensor x = vl_tensor_rows(vl_pass_x(pass), pass->spans[s].first, sequence->n_tokens);
    int64_t used = 0, wanted = 0;
    for (int64_t t = 0; t < sequence->n_tokens; t++)
        wanted += sequence->image[t] == image;
    if (wanted != rows.shape[0])
        return vl_fail(err, VL_EINVAL, "picture %d has %lld rows in its sequence, expected %lld", image,
                       (long long)wanted, (long long)rows.shape[0]);
    for (int64_t t = 0; t < sequence->n_tokens;) {
        int64_t run = 0;
        while (t + run < sequence->n_tokens && sequence->image[t + run] == image)
            run++;
        if (run > 0)
            VL_TRY(vl_op_cast(pass->device,
                              &(vl_cast_args){.out = vl_tensor_rows(x, t, run), .x = vl_tensor_rows(rows, used, run)},
                              err));
        used += run;
        t += run > 0 ? run : 1;
    }
    return VL_OK;
}

/* Up to pictures_at_once pictures that are encoded next. */
typedef struct batch {
    const vl_model *model;
    const vl_pass *pass;
    vl_deep *deep;  /* receives what blocks add to the rows of pictures; NULL: not wanted, or none */
    bool only_deep; /* the stream itself is there already */
    int n, sequence[MAX_AT_ONCE], image[MAX_AT_ONCE];
} batch;

static int64_t batch_rows(const batch *b)
{
    int64_t rows = 0;
    for (int i = 0; i < b->n; i++)
        rows += picture(b->pass, b->sequence[i], b->image[i])->n_rows;
    return rows;
}

/* Shows the rows of a picture, and puts them into the stream. */
static vl_status place_picture(const batch *b, int i, vl_tensor rows, vl_error *err)
{
    const vl_pass *pass = b->pass;
    if (pass->stage && pass->stage(pass->user, "vision.out", b->sequence[i], &rows) != 0)
        return vl_fail(err, VL_ECANCELLED, "the forward was stopped at vision.out");
    return scatter(pass, b->sequence[i], b->image[i], rows, err);
}

static vl_status place_batch(const batch *b, vl_tensor out, vl_error *err)
{
    int64_t done = 0;
    for (int i = 0; !b->only_deep && i < b->n; i++) {
        int64_t n = picture(b->pass, b->sequence[i], b->image[i])->n_rows;
        VL_TRY(place_picture(b, i, vl_tensor_rows(out, done, n), err));
        done += n;
    }
    return VL_OK;
}

/* Encodes the batch and puts it into the stream; it is empty afterwards. */
static vl_status flush(batch *b, vl_error *err)
{
    if (b->n == 0)
        return VL_OK;
    vl_status status = VL_OK;
    vl_tensor out = {0}, deep[VL_MAX_DEEP];
    int64_t rows = batch_rows(b);
    VL_GOTO(vl_tensor_new(&out, b->pass->device, VL_F32, rows, b->pass->spec->hidden_size, err));
    if (b->deep)
        vl_deep_take(b->deep, deep, rows);
    vl_encode_args args = {b->pass, b->n, b->sequence, b->image, out, b->deep ? deep : NULL};
    VL_GOTO(encode(b->model, &args, err));
    VL_GOTO(place_batch(b, out, err));
    b->n = 0;
done:
    vl_device_free(b->pass->device, out.data);
    return status;
}

static vl_status encode_pictures(const vl_model *model, vl_pass *pass, bool only_deep, vl_error *err)
{
    const vl_vision_spec *spec = &model->spec.vision;
    batch b = {.model = model, .pass = pass, .only_deep = only_deep};
    int most = spec->pictures_at_once < MAX_AT_ONCE ? spec->pictures_at_once : MAX_AT_ONCE;
    if (spec->n_deep > 0) {
        VL_TRY(vl_deep_new(&pass->deep, pass, spec->n_deep, err));
        b.deep = pass->deep;
    }
    for (int s = 0; s < pass->n_sequences; s++) {
        for (int i = 0; i < pass->sequences[s]->n_images; i++) {
            b.sequence[b.n] = s;
            b.image[b.n++] = i;
            if (b.n == most)
                VL_TRY(flush(&b, err));
        }
    }
    return flush(&b, err);
}

/* A forward that starts behind the pictures' rows finds what its blocks add when the first of them ends. */
vl_status vl_model_add_deep(const vl_model *model, vl_pass *pass, int layer, vl_error *err)
{
    if (layer >= model->spec.vision.n_deep || !vl_pass_has_pictures(pass))
        return VL_OK;
    if (!pass->deep)
        VL_TRY(encode_pictures(model, pass, true, err));
    return vl_deep_add(pass->deep, pass, layer, err);
}

/* Ids of all rows. Picture rows are overwritten later: any row of the table will do where theirs is not in it. */
static void collect_ids(int32_t *ids, const vl_model *model, const vl_pass *pass)
{
    int32_t image_id = model->spec.vision.image_token;
    int32_t filler = image_id >= 0 && image_id < model->spec.decoder.embed_rows ? image_id : 0;
    for (int s = 0; s < pass->n_sequences; s++) {
        const vl_sequence *sequence = pass->sequences[s];
        for (int64_t t = 0; t < sequence->n_tokens; t++)
            ids[pass->spans[s].first + t] = sequence->image[t] >= 0 ? filler : sequence->ids[t];
    }
}

vl_status vl_model_embed(const vl_model *model, vl_pass *pass, vl_error *err)
{
    vl_status status = VL_OK;
    int32_t *ids = vl_alloc((size_t)pass->n_rows, sizeof *ids); /* [M] */
    if (!ids)
        return vl_fail_nomem(err, "token ids");
    collect_ids(ids, model, pass);
    VL_GOTO(vl_decoder_embed(&model->decoder, pass, ids, err));
    if (model->spec.vision.path == VL_VISION_IN_STREAM)
        VL_GOTO(encode_pictures(model, pass, false, err));
done:
    vl_free(ids);
    return status;
}

/* ---- for cross-attention ----------------------------------------------------------------------------------- */

vl_status vl_model_encode_for_cross(const vl_model *model, vl_pass *pass, vl_error *err)
{
    vl_cross_context *context = pass->context;
    VL_TRY(vl_cross_context_prepare(context, pass, err));
    for (int s = 0; s < pass->n_sequences; s++)
        for (int i = 0; i < pass->sequences[s]->n_images; i++) {
            vl_encode_args args = {pass, 1, &s, &i, vl_cross_picture(context, pass, s, i), NULL};
            VL_TRY(encode(model, &args, err));
        }
    return VL_OK;
}
