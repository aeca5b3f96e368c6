/* What a forward promises beyond its numbers: taps may write, any state is a place to start from, sequences in one
 * batch do not see each other, and generation stops where it should. */
#include "tests/model/golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/base/sha256.h"
#include "trainer/model/family.h"
#include "trainer/model/head.h"
#include "trainer/model/work.h"

static const char *const FIXTURES[] = {"llama-base-f32__ascii",  "llama-rope3-f16__long",
                                       "llava-base-f32__two",    "llava-variant-bf16__scene",
                                       "mllama-base-bf16__chat", "mllama-base-bf16__three"};
enum { N_FIXTURES = sizeof FIXTURES / sizeof *FIXTURES };

static size_t state_bytes(const golden *g)
{
    return (size_t)g->sequence->n_tokens * (size_t)vl_model_get_info(g->model)->d_model * sizeof(float);
}

/* ---- taps -------------------------------------------------------------------------------------------------- */

typedef struct rewriter {
    vl_device *device;
    float *last; /* [T, D] of the last state */
    int n_states, stop_at;
} rewriter;

/* Overwrites a state with its own value. */
static int rewrite(void *user, const vl_tap *tap)
{
    rewriter *r = user;
    vl_error err = VL_ERROR_INIT;
    size_t bytes = (size_t)tap->x.shape[0] * (size_t)tap->x.shape[1] * sizeof *r->last;
    r->last = realloc(r->last, bytes);
    assert_non_null(r->last);
    OK(vl_device_read(r->device, r->last, &tap->x, &err));
    vl_tensor zero = tap->x;
    OK(vl_op_zero(r->device, zero, &err));
    OK(vl_device_write(r->device, &tap->x, r->last, &err));
    return r->n_states++ == r->stop_at;
}

static void tap_with_same_value_changes_nothing(void **state)
{
    golden_case c = golden_fixture(*state);
    golden g = golden_open(&c);
    vl_error err = VL_ERROR_INIT;
    const vl_sequence *sequence = g.sequence;
    vl_forward forward = {.sequences = &sequence, .n_sequences = 1};
    golden_states plain = golden_run(&g, forward);
    rewriter r = {g.device, NULL, 0, -1};
    forward.tap = rewrite;
    forward.user = &r;
    OK(vl_model_forward(g.model, &forward, &err));
    assert_int_equal(r.n_states, plain.n_states);
    assert_memory_equal(r.last, golden_state(&plain, plain.n_states - 1, 0), state_bytes(&g));

    r.n_states = 0;
    r.stop_at = 1;
    assert_int_equal(vl_model_forward(g.model, &forward, &err), VL_ECANCELLED);
    assert_int_equal(r.n_states, 2);
    free(r.last);
    golden_states_free(&plain);
    golden_close(&g);
}

/* ---- starting and stopping --------------------------------------------------------------------------------- */

static void any_state_is_a_start(void **state)
{
    golden_case c = golden_fixture(*state);
    golden g = golden_open(&c);
    vl_error err = VL_ERROR_INIT;
    const vl_sequence *sequence = g.sequence;
    golden_states all = golden_run(&g, (vl_forward){.sequences = &sequence, .n_sequences = 1});
    vl_tensor start;
    OK(vl_tensor_new(&start, g.device, VL_F32, sequence->n_tokens, vl_model_get_info(g.model)->d_model, &err));
    for (int i = 0; i < all.n_states; i++) {
        OK(vl_device_write(g.device, &start, golden_state(&all, i, 0), &err));
        vl_forward forward = {.sequences = &sequence, .n_sequences = 1, .start_state = i, .start = &start};
        golden_states later = golden_run(&g, forward);
        for (int j = 0; j < all.n_states; j++) {
            assert_int_equal(golden_state(&later, j, 0) != NULL, j >= i);
            if (j >= i)
                assert_memory_equal(golden_state(&later, j, 0), golden_state(&all, j, 0), state_bytes(&g));
        }
        golden_states_free(&later);
    }
    vl_device_free(g.device, start.data);
    golden_states_free(&all);
    golden_close(&g);
}

static void stop_state_stops(void **state)
{
    golden_case c = golden_fixture(*state);
    golden g = golden_open(&c);
    vl_error err = VL_ERROR_INIT;
    const vl_sequence *sequence = g.sequence;
    vl_forward forward = {.sequences = &sequence, .n_sequences = 1, .stop_state = 1};
    golden_states seen = golden_run(&g, forward);
    for (int i = 0; i < seen.n_states; i++)
        assert_int_equal(golden_state(&seen, i, 0) != NULL, i <= 1);
    golden_states_free(&seen);

    forward = (vl_forward){.sequences = &sequence, .n_sequences = 1, .start_state = 1};
    assert_int_equal(vl_model_forward(g.model, &forward, &err), VL_EINVAL);
    forward = (vl_forward){.sequences = &sequence, .n_sequences = 1, .stop_state = 99};
    assert_int_equal(vl_model_forward(g.model, &forward, &err), VL_EINVAL);
    forward = (vl_forward){.sequences = &sequence, .n_sequences = 0};
    assert_int_equal(vl_model_forward(g.model, &forward, &err), VL_EINVAL);
    golden_close(&g);
}

/* ---- batches ----------------------------------------------------------------------------------------------- */

/* Products of more rows are cut into other blocks and summed in another order: up to 1.03e-6 was measured. */
static const double BATCH_BOUND = 3e-6;

/* The golden's sequence between a text of another length and itself with tokens behind it. */
static void batch_equals_one_at_a_time(void **state)
{
    golden_case c = golden_fixture(*state);
    golden g = golden_open(&c);
    vl_error err = VL_ERROR_INIT;
    static const int32_t ids[] = {1, 40, 41, 42, 43, 44, 45};
    vl_sequence *text, *longer;
    golden copy = golden_open(&c);
    longer = copy.sequence;
    OK(vl_sequence_from_ids(&text, g.model, ids, 7, &err));
    OK(vl_sequence_append(longer, ids + 1, 3, &err));
    const vl_sequence *batch[] = {text, g.sequence, longer};
    golden_states together = golden_run(&g, (vl_forward){.sequences = batch, .n_sequences = 3});
    double worst = 0;
    for (int s = 0; s < 3; s++) {
        golden_states alone = golden_run(&g, (vl_forward){.sequences = &batch[s], .n_sequences = 1});
        for (int i = 0; i < alone.n_states; i++) {
            golden_difference d = golden_compare(golden_state(&together, i, s), golden_state(&alone, i, 0),
                                                 batch[s]->n_tokens, vl_model_get_info(g.model)->d_model);
            if (d.relative > worst)
                worst = d.relative;
        }
        golden_states_free(&alone);
    }
    print_message("%s: batch against one at a time, relative error %.2e\n", c.name, worst);
    assert_true(worst <= BATCH_BOUND);
    golden_states_free(&together);
    vl_sequence_free(text);
    golden_close(&copy);
    golden_close(&g);
}

/* ---- generation -------------------------------------------------------------------------------------------- */

static void generation_stops_at_an_end_token(void **state)
{
    golden_case c = golden_fixture(*state);
    golden g = golden_open(&c);
    vl_error err = VL_ERROR_INIT;
    int64_t n_expected, n;
    int32_t *expected = golden_read_ids(&g, "generated", &n_expected), *found;
    g.model->spec.decoder.n_eos = 2;
    g.model->spec.decoder.eos_ids[0] = -1;
    g.model->spec.decoder.eos_ids[1] = expected[2];
    int64_t first = 0;
    while (expected[first] != expected[2])
        first++;
    OK(vl_model_generate(g.model, g.sequence, n_expected, &found, &n, &err));
    assert_int_equal(n, first + 1);
    assert_memory_equal(found, expected, (size_t)n * sizeof *found);
    vl_release(found);
    assert_int_equal(vl_model_generate(g.model, g.sequence, 0, &found, &n, &err), VL_EINVAL);

    OK(vl_sequence_append(g.sequence, expected, 2, &err));
    assert_int_equal(g.sequence->n_tokens, g.sequence->n_prompt + 2);
    assert_int_equal(g.sequence->token_class[g.sequence->n_prompt], VL_GENERATED);
    assert_int_equal(g.sequence->image[g.sequence->n_prompt], -1);
    OK(vl_model_generate(g.model, g.sequence, 1, &found, &n, &err));
    assert_int_equal(n, 1);
    assert_int_equal(found[0], expected[2]);
    vl_release(found);
    free(expected);
    golden_close(&g);
}

/* ---- head -------------------------------------------------------------------------------------------------- */

/* The line and the bytes as docs/ARCHITECTURE.md lists them, put together by hand. */
static void fingerprint_is_what_the_documents_say(void **state)
{
    (void)state;
    golden_case c = golden_fixture("llama-tied-bf16__unicode");
    golden g = golden_open(&c);
    vl_error err = VL_ERROR_INIT;
    vl_head *head;
    OK(vl_head_from_model(&head, g.model, &err));
    const vl_weight_view *norm = vl_hf_find(g.model->directory, "model.norm.weight");
    const vl_weight_view *embed = vl_hf_find(g.model->directory, "model.embed_tokens.weight");
    char line[80], hex[VL_SHA256_HEX];
    uint8_t digest[VL_SHA256_BYTES];
    snprintf(line, sizeof line, "vlens-head-1\n%d %d %d rms 1e-05\n", (int)embed->shape[1], 4, (int)embed->shape[0]);
    vl_sha256 hash;
    vl_sha256_init(&hash);
    vl_sha256_update(&hash, line, strlen(line));
    vl_sha256_update(&hash, norm->data, norm->bytes);
    vl_sha256_update(&hash, embed->data, embed->bytes);
    vl_sha256_final(&hash, digest);
    vl_sha256_hex(digest, hex);
    assert_string_equal(vl_head_get_info(head)->fingerprint, hex);
    assert_int_equal(vl_head_get_info(head)->norm_is_layer, 0);
    assert_ptr_equal(vl_head_device(head), g.device);
    vl_head_close(head);
    golden_close(&g);
}

/* A head with layer norm and biases against the same sums in double. */
static void layer_norm_head_with_biases(void **state)
{
    (void)state;
    enum { D = 3, V = 4 };
    static const float weight[V * D] = {1, 2, 3, -1, 0, 1, 0.5f, 0.5f, -2, 4, -4, 0.25f};
    static const float bias[V] = {1, -1, 0.5f, 2}, norm_weight[D] = {1, 2, 0.5f}, norm_bias[D] = {0.1f, -0.2f, 0.3f};
    static const float x[D] = {1, 2, 6};
    vl_head_source source = {D, V, 2, VL_NORM_LAYER, 1e-5, VL_F32, weight, bias, VL_F32, norm_weight, norm_bias, 0};
    vl_error err = VL_ERROR_INIT;
    vl_device *device;
    vl_head *head;
    vl_tensor states, logits;
    float found[V];
    OK(vl_device_open(&device, "cpu", 1, &err));
    OK(vl_head_new(&head, device, &source, VL_PRECISION_EXACT, NULL, &err));
    OK(vl_tensor_new(&states, device, VL_F32, 1, D, &err));
    OK(vl_tensor_new(&logits, device, VL_F32, 1, V, &err));
    OK(vl_device_write(device, &states, x, &err));
    OK(vl_head_logits(head, logits, states, &err));
    OK(vl_device_read(device, found, &logits, &err));
    double mean = 3, scale = 1 / 2.160249; /* variance 14/3, plus eps */
    for (int v = 0; v < V; v++) {
        double sum = bias[v];
        for (int d = 0; d < D; d++)
            sum += weight[v * D + d] * ((x[d] - mean) * scale * norm_weight[d] + norm_bias[d]);
        assert_true(sum - found[v] < 1e-4 && found[v] - sum < 1e-4);
    }
    assert_int_equal(vl_head_get_info(head)->norm_is_layer, 1);
    vl_device_free(device, states.data);
    vl_device_free(device, logits.data);
    vl_head_close(head);
    vl_device_close(device);
}

/* Flops as torch.utils.flop_counter.FlopCounterMode counts them (PyTorch 2.5.1, transformers 4.46.3, eager), where
 * attention is counted in full. */
static void work_is_what_torch_counts(void **state)
{
    (void)state;
    static const struct {
        const char *fixture;
        double counted; /* all of it, logits and rotary angles included */
        double beyond;  /* what only transformers does: a CLIP layer that nobody reads; a mask as a product */
    } cases[] = {{"llama-base-f32__ascii", 1309000, 0},
                 {"llava-base-f32__two", 6270824, 368832},
                 {"mllama-base-bf16__chat", 1137824, 2048}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        golden_case c = golden_fixture(cases[i].fixture);
        golden g = golden_open(&c);
        const vl_sequence *sequence = g.sequence;
        const vl_model_info *info = vl_model_get_info(g.model);
        double t = (double)sequence->n_tokens, width = (double)(info->n_heads * info->head_dim);
        double n_self =
            (double)(info->n_layers - vl_decoder_count(&g.model->spec.decoder, VL_BLOCK_CROSS, (int)info->n_layers));
        double hidden_half = n_self * 4 * (t * t - t * (t + 1) / 2) * width;
        double head = 2 * t * (double)info->d_model * (double)info->vocab_size, angles = t * (double)info->head_dim;
        double got = vl_model_work(g.model, &sequence, 1, (int)info->n_layers);
        print_message("%s: %.0f, counted %.0f\n", cases[i].fixture, got, cases[i].counted);
        assert_float_equal(got + hidden_half + head + angles + cases[i].beyond, cases[i].counted, 0.5);
        golden_close(&g);
    }
}

int main(void)
{
    static const struct {
        const char *name;
        CMUnitTestFunction function;
    } EACH[] = {{"tap_with_same_value_changes_nothing", tap_with_same_value_changes_nothing},
                {"any_state_is_a_start", any_state_is_a_start},
                {"stop_state_stops", stop_state_stops},
                {"batch_equals_one_at_a_time", batch_equals_one_at_a_time},
                {"generation_stops_at_an_end_token", generation_stops_at_an_end_token}};
    enum { N_EACH = sizeof EACH / sizeof *EACH };
    static struct CMUnitTest tests[N_EACH * N_FIXTURES + 3];
    int n = 0;
    for (size_t i = 0; i < N_EACH; i++)
        for (size_t j = 0; j < N_FIXTURES; j++)
            tests[n++] =
                (struct CMUnitTest){EACH[i].name, EACH[i].function, NULL, NULL, (void *)(uintptr_t)FIXTURES[j]};
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(fingerprint_is_what_the_documents_say);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(layer_norm_head_with_biases);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(work_is_what_torch_counts);
    return _cmocka_run_group_tests("forward", tests, (size_t)n, NULL, NULL);
}
