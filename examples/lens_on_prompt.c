/* Runs a model on a prompt, taps every state of the last position, and prints what each layer would say there: through
 * the logit lens and through a tuned lens.
 *
 *     cc lens_on_prompt.c $(pkg-config --cflags --libs vlens) -o lens_on_prompt
 *     ./lens_on_prompt MODEL LENS PROMPT [IMAGE] */
#include <stdio.h>
#include <stdlib.h>

#include <vlens/vlens.h>

typedef struct reader {
    vl_device *device;
    vl_model *model;
    vl_head *head;
    vl_lens *lens;
    vl_device_lens *moved; /* the lens on the device */
    vl_tensor adapted;     /* [1, D] on the device */
    vl_tensor logits;      /* [1, V] on the device */
    float *host;           /* [V] */
    vl_error err;
} reader;

static vl_status new_row(vl_tensor *out, vl_device *device, int64_t columns, vl_error *err)
{
    *out = vl_tensor_2d(NULL, VL_F32, 1, columns);
    return vl_device_alloc(device, &out->data, (size_t)columns * sizeof(float), err);
}

static vl_status print_first(reader *r, vl_tensor state, const char *name)
{
    int64_t first = 0, v = r->logits.shape[1];
    vl_status status = vl_head_logits(r->head, r->logits, state, &r->err);
    if (status == VL_OK)
        status = vl_device_read(r->device, r->host, &r->logits, &r->err);
    if (status != VL_OK)
        return status;
    for (int64_t i = 1; i < v; i++)
        if (r->host[i] > r->host[first])
            first = i;
    const char *piece = vl_tokenizer_piece(vl_model_tokenizer(r->model), (int32_t)first);
    printf("  %s \"%s\"", name, piece ? piece : "?");
    return VL_OK;
}

/* Called by the forward pass for every state. */
static int on_state(void *user, const vl_tap *tap)
{
    reader *r = user;
    vl_tensor last = vl_tensor_rows(tap->x, tap->x.shape[0] - 1, 1);
    printf("state %2d", tap->state);
    if (print_first(r, last, "logit") != VL_OK)
        return 1;
    if (vl_device_lens_transform(r->moved, tap->state, r->adapted, last, &r->err) != VL_OK)
        return 1;
    if (print_first(r, r->adapted, "tuned") != VL_OK)
        return 1;
    printf("\n");
    return 0;
}

static vl_status run(reader *r, const char *model, const char *lens, const vl_prompt *prompt)
{
    vl_status status = vl_device_open(&r->device, "auto", 0, &r->err);
    if (status == VL_OK)
        status = vl_model_open(&r->model, &(vl_model_options){.path = model, .device = r->device}, &r->err);
    if (status == VL_OK)
        status = vl_head_from_model(&r->head, r->model, &r->err);
    if (status == VL_OK)
        status = vl_lens_open(&r->lens, lens, &r->err);
    if (status != VL_OK)
        return status;
    const vl_head_info *info = vl_head_get_info(r->head);
    status = vl_lens_check(r->lens, info, false, NULL, &r->err);
    if (status == VL_OK)
        status = vl_device_lens_new(&r->moved, r->lens, r->device, &r->err);
    if (status == VL_OK)
        status = new_row(&r->adapted, r->device, info->d_model, &r->err);
    if (status == VL_OK)
        status = new_row(&r->logits, r->device, info->vocab_size, &r->err);
    r->host = malloc((size_t)info->vocab_size * sizeof *r->host);
    vl_sequence *sequence = NULL;
    if (status == VL_OK)
        status = vl_model_encode(&sequence, r->model, prompt, &r->err);
    const vl_sequence *const sequences[] = {sequence};
    if (status == VL_OK)
        status = vl_model_forward(
            r->model, &(vl_forward){.sequences = sequences, .n_sequences = 1, .tap = on_state, .user = r}, &r->err);
    vl_sequence_free(sequence);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s MODEL LENS PROMPT [IMAGE]\n", argv[0]);
        return 2;
    }
    reader r = {.err = VL_ERROR_INIT};
    const char *images[] = {argc > 4 ? argv[4] : NULL};
    vl_prompt prompt = {.text = argv[3], .image_paths = images, .n_images = argc > 4};
    vl_status status = run(&r, argv[1], argv[2], &prompt);
    if (status != VL_OK)
        fprintf(stderr, "%s\n", r.err.message);
    free(r.host);
    if (r.device) {
        vl_device_free(r.device, r.adapted.data);
        vl_device_free(r.device, r.logits.data);
    }
    vl_device_lens_free(r.moved);
    vl_lens_close(r.lens);
    vl_head_close(r.head);
    vl_model_close(r.model);
    vl_device_close(r.device);
    return status != VL_OK;
}
