/* Parity with transformers, stage by stage: token ids, pixel values, vision tower, projected pictures, every state of
 * the residual stream, logits, greedy continuation. The first stage that is off is named: what comes after it only
 * inherits the error. */
#include "tests/model/golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "trainer/model/generate.h"

/* fp32 of either side against fp64 is 2e-6 to 5e-6; a wrong formula is off by 1e-3 and more. */
static const double BOUND = 2e-5;

/* What one golden showed. */
typedef struct report {
    golden g;
    double worst;
    char worst_stage[48], first_bad[48];
} report;

static void note(report *r, const char *stage, int64_t rows, golden_difference d)
{
    bool bad = !(d.relative <= BOUND);
    print_message("  %-20s %6lld rows  relative error %9.2e  smallest cosine %.9f%s\n", stage, (long long)rows,
                  d.relative, d.cosine, bad ? "  <-- off" : "");
    if (d.relative >= r->worst) {
        r->worst = d.relative;
        snprintf(r->worst_stage, sizeof r->worst_stage, "%s", stage);
    }
    if (bad && !r->first_bad[0])
        snprintf(r->first_bad, sizeof r->first_bad, "%s", stage);
}

/* Goldens of directories without processor_config.json hold one id a picture: the model itself put the rows there.
 * Repeats it, as the sequence does. */
static int32_t *expand_ids(const report *r, int32_t *ids, int64_t *n)
{
    const vl_sequence *sequence = r->g.sequence;
    int32_t image_id = vl_model_get_info(r->g.model)->image_token;
    int64_t n_ids = 0, n_rows = 0, out_size = 0;
    for (int64_t t = 0; t < *n; t++)
        n_ids += ids[t] == image_id;
    for (int64_t t = 0; t < sequence->n_tokens; t++)
        n_rows += sequence->image[t] >= 0;
    if (n_rows == 0 || n_ids != r->g.n_images || n_rows == n_ids)
        return ids;
    int32_t *out = malloc((size_t)(*n - n_ids + n_rows) * sizeof *out);
    assert_non_null(out);
    for (int64_t t = 0; t < *n; t++)
        for (int64_t i = 0; i < (ids[t] == image_id ? n_rows / n_ids : 1); i++)
            out[out_size++] = ids[t];
    free(ids);
    *n = out_size;
    return out;
}

static void check_ids(report *r)
{
    int64_t n;
    int32_t *ids = golden_read_ids(&r->g, "input_ids", &n);
    const vl_sequence *sequence = r->g.sequence;
    ids = expand_ids(r, ids, &n);
    bool same = n == sequence->n_tokens && !memcmp(ids, sequence->ids, (size_t)n * sizeof *ids);
    free(ids);
    print_message("  %-20s %6lld ids   %s\n", "input_ids", (long long)sequence->n_tokens, same ? "equal" : "DIFFER");
    if (!same)
        fail_msg("FIRST diverging stage of %s: input_ids (%lld, expected %lld)", r->g.source->name,
                 (long long)sequence->n_tokens, (long long)n);
}

/* PNG must give the recorded pixel values bit for bit; other decoders are only shown, and the values injected. */
static void check_pixels(report *r)
{
    for (int i = 0; r->g.source->vision && i < r->g.n_images; i++)
        if (!golden_pixels_equal(&r->g, i))
            fail_msg("FIRST diverging stage of %s: pixel_values of image %d", r->g.source->name, i);
    if (r->g.source->vision)
        return;
    golden_rows expected = golden_read(&r->g, "pixel_values");
    for (int i = 0; i < r->g.n_images; i++) {
        int64_t rows = expected.rows / r->g.n_images, n = rows * expected.columns; /* of one picture, all its tiles */
        golden_difference d =
            golden_compare(r->g.sequence->images[i].pixels, expected.data + i * n, rows, expected.columns);
        print_message("  %-20s image %d      %s %.2e\n", "pixel_values", i,
                      !r->g.decoded[i] ? "taken from the golden" : "decoded, relative error", d.relative);
        if (r->g.exact[i] && d.relative != 0)
            fail_msg("FIRST diverging stage of %s: pixel_values of image %d", r->g.source->name, i);
        golden_inject_pixels(&r->g, i);
    }
    free(expected.data);
}

/* Where each row stands: one axis, or [3, T]. */
static void check_positions(report *r)
{
    const vl_weight_view *view = vl_safetensors_find(r->g.file, "position_ids");
    const vl_sequence *sequence = r->g.sequence;
    for (int64_t i = 0; view && i < 3 * sequence->n_tokens; i++) {
        int64_t expected, axis = i / sequence->n_tokens, t = i % sequence->n_tokens;
        memcpy(&expected, view->data + 8 * (view->ndim == 2 ? i : t), 8);
        if (expected != sequence->position[t][axis])
            fail_msg("FIRST diverging stage of %s: position_ids: token %lld stands at %d, expected %lld",
                     r->g.source->name, (long long)t, (int)sequence->position[t][axis], (long long)expected);
    }
}

/* Mllama: the arrangement of tiles of each picture, and which of them each token sees. */
static void check_tiles(report *r)
{
    const vl_sequence *sequence = r->g.sequence;
    const vl_weight_view *mask = vl_safetensors_find(r->g.file, "cross_attention_mask"); /* [T, images, tiles] i64 */
    int64_t n;
    int32_t *ids = golden_read_ids(&r->g, "aspect_ratio_ids", &n);
    assert_int_equal(mask != NULL, ids != NULL);
    assert_int_equal(mask != NULL, sequence->visible != NULL);
    if (!mask)
        return;
    assert_int_equal(n, sequence->n_images);
    assert_int_equal(mask->shape[0], sequence->n_tokens);
    assert_int_equal(mask->shape[1], sequence->n_images);
    for (int i = 0; i < sequence->n_images; i++)
        if (ids[i] != sequence->images[i].aspect_ratio_id)
            fail_msg("FIRST diverging stage of %s: aspect_ratio_ids: image %d has %d, expected %d", r->g.source->name,
                     i, sequence->images[i].aspect_ratio_id, (int)ids[i]);
    int64_t pairs = mask->shape[1] * mask->shape[2];
    for (int64_t i = 0; i < sequence->n_tokens * pairs; i++) {
        int64_t seen;
        memcpy(&seen, mask->data + 8 * i, 8);
        if (seen != (int64_t)(sequence->visible[i / pairs] >> (i % pairs) & 1))
            fail_msg("FIRST diverging stage of %s: cross_attention_mask: token %lld, image %lld, tile %lld",
                     r->g.source->name, (long long)(i / pairs), (long long)(i % pairs / mask->shape[2]),
                     (long long)(i % mask->shape[2]));
    }
    print_message("  %-20s %6lld rows  equal\n", "cross_attention_mask", (long long)sequence->n_tokens);
    free(ids);
}

/* ---- vision ------------------------------------------------------------------------------------------------ */

/* The rows of several pictures come one after another under one name. */
typedef struct vision_stage {
    char name[32];
    float *data;
    int64_t rows, columns;
} vision_stage;

typedef struct vision_log {
    vl_device *device;
    vision_stage stages[80];
    int n;
} vision_log;

static int keep_vision(void *user, const char *name, int sequence, const vl_tensor *x)
{
    vision_log *log = user;
    vl_error err = VL_ERROR_INIT;
    int i = 0;
    (void)sequence;
    if (strncmp(name, "vision.", 7) != 0 && strcmp(name, "cross_attention_states") != 0)
        return 0;
    while (i < log->n && strcmp(log->stages[i].name, name) != 0)
        i++;
    assert_in_range(i, 0, 79);
    vision_stage *stage = &log->stages[i];
    if (i == log->n) {
        snprintf(stage->name, sizeof stage->name, "%s", name);
        log->n++;
    }
    stage->columns = x->shape[1];
    stage->data = realloc(stage->data, (size_t)((stage->rows + x->shape[0]) * x->shape[1]) * sizeof *stage->data);
    assert_non_null(stage->data);
    OK(vl_device_read(log->device, stage->data + stage->rows * x->shape[1], x, &err));
    stage->rows += x->shape[0];
    return 0;
}

static void check_vision(report *r)
{
    vl_error err = VL_ERROR_INIT;
    vision_log log = {.device = r->g.device};
    const vl_sequence *sequence = r->g.sequence;
    bool seen_out = false;
    OK(vl_model_forward(
        r->g.model, &(vl_forward){.sequences = &sequence, .n_sequences = 1, .stage = keep_vision, .user = &log}, &err));
    for (int i = 0; i < log.n; i++) {
        vision_stage *stage = &log.stages[i];
        golden_rows expected = golden_read(&r->g, stage->name);
        seen_out = seen_out || !strcmp(stage->name, "vision.out");
        if (!expected.data && r->g.source->vision) {
            free(stage->data);
            continue;
        }
        assert_int_equal(stage->rows, expected.rows);
        assert_int_equal(stage->columns, expected.columns);
        note(r, stage->name, stage->rows, golden_compare(stage->data, expected.data, stage->rows, stage->columns));
        free(expected.data);
        free(stage->data);
    }
    assert_int_equal(seen_out, r->g.n_images > 0);
}

/* ---- text -------------------------------------------------------------------------------------------------- */

/* Logits of state L, by the head; a golden may hold those of its last rows only. */
static void check_logits(report *r, const float *state, int64_t rows)
{
    vl_error err = VL_ERROR_INIT;
    golden_rows expected = golden_read(&r->g, "logits");
    vl_tensor states, logits;
    vl_head *head;
    OK(vl_head_from_model(&head, r->g.model, &err));
    const vl_head_info *info = vl_head_get_info(head);
    OK(vl_tensor_new(&states, r->g.device, VL_F32, rows, info->d_model, &err));
    OK(vl_tensor_new(&logits, r->g.device, VL_F32, rows, info->vocab_size, &err));
    OK(vl_device_write(r->g.device, &states, state, &err));
    OK(vl_head_logits(head, logits, states, &err));
    assert_in_range(expected.rows, 1, rows);
    assert_int_equal(expected.columns, info->vocab_size);
    float *found = malloc((size_t)(rows * info->vocab_size) * sizeof *found);
    assert_non_null(found);
    OK(vl_device_read(r->g.device, found, &logits, &err));
    note(r, "logits", expected.rows,
         golden_compare(found + (rows - expected.rows) * expected.columns, expected.data, expected.rows,
                        expected.columns));
    vl_device_free(r->g.device, states.data);
    vl_device_free(r->g.device, logits.data);
    vl_head_close(head);
    free(found);
    free(expected.data);
}

static void check_states(report *r)
{
    const vl_sequence *sequence = r->g.sequence;
    golden_states states = golden_run(&r->g, (vl_forward){.sequences = &sequence, .n_sequences = 1});
    for (int i = 0; i < states.n_states; i++) {
        char name[32];
        snprintf(name, sizeof name, "hidden.%02d", i);
        /* transformers' last hidden state is behind the final norm: ours is the one before it. */
        golden_rows expected = golden_read(&r->g, i + 1 < states.n_states ? name : "last_prenorm");
        assert_int_equal(expected.rows, sequence->n_tokens);
        note(r, i + 1 < states.n_states ? name : "last_prenorm", expected.rows,
             golden_compare(golden_state(&states, i, 0), expected.data, expected.rows, expected.columns));
        free(expected.data);
    }
    check_logits(r, golden_state(&states, states.n_states - 1, 0), sequence->n_tokens);
    golden_states_free(&states);
}

static void check_generation(report *r)
{
    vl_error err = VL_ERROR_INIT;
    int64_t n, n_found;
    int32_t *expected = golden_read_ids(&r->g, "generated", &n), *found;
    if (!expected)
        return;
    vl_generate_options options = {.max_new = n, .ignore_end = true};
    OK(vl_generate(r->g.model, r->g.sequence, &options, &found, &n_found, &err));
    bool same = n == n_found && !memcmp(expected, found, (size_t)n * sizeof *found);
    print_message("  %-20s %6lld ids   %s\n", "generated", (long long)n, same ? "equal" : "DIFFER");
    if (!same && !r->first_bad[0])
        snprintf(r->first_bad, sizeof r->first_bad, "generated");
    free(expected);
    vl_release(found);
}

static void check_golden(void **state)
{
    report r = {.g = golden_open(*state)};
    print_message("%s\n", r.g.source->name);
    check_ids(&r);
    check_pixels(&r);
    check_positions(&r);
    check_tiles(&r);
    check_vision(&r);
    check_states(&r);
    check_generation(&r);
    print_message("PARITY %-36s worst %9.2e at %s\n", r.g.source->name, r.worst, r.worst_stage);
    const char *name = r.g.source->name;
    golden_close(&r.g);
    if (r.first_bad[0])
        fail_msg("FIRST diverging stage of %s: %s (bound %.0e)", name, r.first_bad, BOUND);
}

/* golden [DEVICE [streamed|PART OF A NAME]] */
int main(int argc, char **argv)
{
    golden_case *cases;
    size_t n = golden_find(&cases), kept = 0;
    for (size_t i = 0; i < n; i++)
        if (argc < 3 || !strcmp(argv[2], "streamed") || strstr(cases[i].golden, argv[2]))
            cases[kept++] = cases[i];
    n = kept;
    for (size_t i = 0; i < n; i++) {
        cases[i].device = argc > 1 ? argv[1] : NULL;
        cases[i].streamed = argc > 2 && !strcmp(argv[2], "streamed");
    }
    struct CMUnitTest *tests = calloc(n, sizeof *tests);
    if (n == 0 || !tests)
        return 1;
    for (size_t i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){cases[i].name, check_golden, NULL, NULL, &cases[i]};
    int failed = _cmocka_run_group_tests("goldens", tests, n, NULL, NULL);
    free(tests);
    free(cases);
    return failed;
}
