/* Semantics of rows in the stream: transformers 4.46.3, src/transformers/models/llava/modeling_llava.py (the
 * masked_scatter of forward); newer families do the same. */
#include "trainer/model/vision.h"

#include <stdio.h>

#include "trainer/base/mem.h"
#include "trainer/model/buffers.h"
#include "trainer/model/cross.h"
#include "trainer/model/family.h"

enum { MAX_AT_ONCE = 16 };

vl_status vl_vision_new(vl_vision **out, vl_loader *loader, vl_error *err)
{
    *out = vl_calloc(1, sizeof **out);
    if (!*out)
        return vl_fail_nomem(err, "vision tower");
    (*out)->spec = &loader->spec->vision;
    VL_TRY(vl_tower_load(&(*out)->tower, loader, err));
    return vl_connector_load(&(*out)->connector, loader, err);
}

void vl_vision_free(vl_vision *vision, vl_device *device)
{
    if (!vision)
        return;
    vl_tower_free(&vision->tower, device);
    vl_connector_free(&vision->connector, device);
    vl_free(vision);
}

/* ---- tower and connector ----------------------------------------------------------------------------------- */

/* One picture, one tile: N rows each in the tower. */
typedef struct encoding {
    const vl_vision *vision;
    const vl_encode_args *args;
    void *memory, *hidden, *middle, *out; /* [n * N, C], [n * N, D] twice */
} encoding;

static vl_tensor all_rows(const encoding *e, void *data, int64_t columns)
{
    return vl_tensor_2d(data, VL_F32, e->args->n * vl_tower_rows(&e->vision->spec->tower), columns);
}

/* The rows of picture i: without its class row where the connector drops that. */
static vl_tensor picture_rows(const encoding *e, vl_tensor rows, int i, bool keep_class_row)
{
    const vl_tower_spec *tower = &e->vision->spec->tower;
    int64_t n = vl_tower_rows(tower), skip = tower->class_row && !keep_class_row ? 1 : 0;
    return vl_tensor_rows(rows, i * n + skip, n - skip);
}

static vl_status show(const encoding *e, const char *name, vl_tensor rows, bool keep_class_row, vl_error *err)
{
    const vl_pass *pass = e->args->pass;
    for (int i = 0; pass->stage && i < e->args->n; i++) {
        vl_tensor part = picture_rows(e, rows, i, keep_class_row);
        if (pass->stage(pass->user, name, e->args->sequence[i], &part) != 0)
            return vl_fail(err, VL_ECANCELLED, "the forward was stopped at %s", name);
    }
    return VL_OK;
}

static vl_status show_hidden(void *user, int state, vl_tensor rows, vl_error *err)
{
    char name[32];
    snprintf(name, sizeof name, "vision.hidden.%02d", state);
    return show(user, name, rows, true, err);
}

static vl_status run_encoding(encoding *e, vl_error *err)
{
    const vl_vision *vision = e->vision;
    const vl_encode_args *args = e->args;
    vl_device *device = args->pass->device;
    int64_t d = args->pass->spec->hidden_size, done = 0;
    vl_tensor hidden = all_rows(e, e->hidden, vision->spec->tower.hidden_size);
    vl_tensor middle = all_rows(e, e->middle, d), out = all_rows(e, e->out, d);
    bool keep = vision->spec->connector.keep_class_row;
    const float *pixels[MAX_AT_ONCE];
    for (int i = 0; i < args->n; i++)
        pixels[i] = args->pass->sequences[args->sequence[i]]->images[args->image[i]].pixels;
    vl_tower_args tower = {pixels, args->n, hidden, args->pass->stage ? show_hidden : NULL, e};
    VL_TRY(vl_tower_forward(&vision->tower, device, &tower, err));
    VL_TRY(vl_connector_forward(&vision->connector, device, out, middle, hidden, err));
    VL_TRY(show(e, "vision.out", out, keep, err));
    for (int i = 0; i < args->n; i++) {
        vl_tensor rows = picture_rows(e, out, i, keep);
        VL_TRY(
            vl_op_cast(device, &(vl_cast_args){.out = vl_tensor_rows(args->out, done, rows.shape[0]), .x = rows}, err));
        done += rows.shape[0];
    }
    return VL_OK;
}

/* vl_family.encode of a family that has none of its own: one tile a picture. */
static vl_status encode_plainly(const vl_model *model, const vl_encode_args *args, vl_error *err)
{
    const vl_vision_spec *spec = &model->spec.vision;
    encoding e = {.vision = model->vision, .args = args};
    int64_t rows = args->n * vl_tower_rows(&spec->tower), d = model->spec.decoder.hidden_size;
    const vl_buffer_request requests[] = {
        {&e.hidden, rows, spec->tower.hidden_size}, {&e.middle, rows, d}, {&e.out, rows, d}};
    vl_status status = VL_OK;
    VL_GOTO(vl_buffers_alloc(&e.memory, args->pass->device, requests, 3, err));
    VL_GOTO(run_encoding(&e, err));
done:
    vl_device_free(args->pass->device, e.memory);
    return status;
}

static vl_status encode(const vl_model *model, const vl_encode_args *args, vl_error *err)
{
    return model->spec.family->encode ? model->spec.family->encode(model, args, err) : encode_plainly(model, args, err);
}

/* ---- into the stream --------------------------------------------------------------------------------------- */

static const struct vl_sequence_image *picture(const vl_pass *pass, int sequence, int image)
{
    return &pass->sequences[sequence]->images[image];
}

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
    int n, sequence[MAX_AT_ONCE], image[MAX_AT_ONCE];
    vl_tensor out; /* [most rows, D] */
} batch;

static int64_t batch_rows(const batch *b)
{
    int64_t rows = 0;
    for (int i = 0; i < b->n; i++)
        rows += picture(b->pass, b->sequence[i], b->image[i])->n_rows;
    return rows;
}

/* Encodes the batch and puts it into the stream; it is empty afterwards. */
static vl_status flush(batch *b, vl_error *err)
{
    if (b->n == 0)
        return VL_OK;
    vl_status status = VL_OK;
    int64_t rows = batch_rows(b), done = 0;
    VL_GOTO(vl_tensor_new(&b->out, b->pass->device, VL_F32, rows, b->pass->spec->hidden_size, err));
    vl_encode_args args = {b->pass, b->n, b->sequence, b->image, b->out};
    VL_GOTO(encode(b->model, &args, err));
    for (int i = 0; i < b->n; i++) {
        int64_t n = picture(b->pass, b->sequence[i], b->image[i])->n_rows;
        VL_GOTO(scatter(b->pass, b->sequence[i], b->image[i], vl_tensor_rows(b->out, done, n), err));
        done += n;
    }
    b->n = 0;
done:
    vl_device_free(b->pass->device, b->out.data);
    b->out = (vl_tensor){0};
    return status;
}

static vl_status merge_pictures(const vl_model *model, const vl_pass *pass, vl_error *err)
{
    batch b = {.model = model, .pass = pass};
    int most = model->spec.vision.pictures_at_once < MAX_AT_ONCE ? model->spec.vision.pictures_at_once : MAX_AT_ONCE;
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
        VL_GOTO(merge_pictures(model, pass, err));
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
            vl_encode_args args = {pass, 1, &s, &i, vl_cross_picture(context, pass, s, i)};
            VL_TRY(encode(model, &args, err));
        }
    return VL_OK;
}
