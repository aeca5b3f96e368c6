/* bf16 products beside fp32 products on trained models: what they cost, in states and in the distribution.
 *
 * Always on the demo model; with VLENS_SHARED_DATA also on the trained models there. Both sides read the same file. */
#include "tests/model/golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "trainer/base/file.h"

/* Mean KL(fp32 || bf16) over the rows of all prompts, in nats. */
static const double BOUND = 1e-3;
static const char IMAGES[] = VLENS_SOURCE_DIR "/data/demo/images";

typedef struct question {
    const char *text, *picture;
} question;
static const question QUESTIONS[] = {{"What color is the square? Answer with one word.", "000.png"},
                                     {"What shape is yellow? Answer with one word.", "001.png"},
                                     {"what is the color of the triangle?", "002.png"}};
enum { N_QUESTIONS = sizeof QUESTIONS / sizeof *QUESTIONS };

/* One model in one precision, run over all questions in one pass. */
typedef struct side {
    vl_device *device;
    vl_model *model;
    vl_head *head;
    const vl_sequence *sequences[N_QUESTIONS];
    golden_states states;
} side;

static side run_side(const char *path, vl_precision precision)
{
    vl_error err = VL_ERROR_INIT;
    side s = {0};
    char picture[GOLDEN_PATH];
    OK(vl_device_open(&s.device, "cpu", 2, &err));
    OK(vl_model_open(&s.model, &(vl_model_options){.path = path, .device = s.device, .precision = precision}, &err));
    OK(vl_head_from_model(&s.head, s.model, &err));
    for (int i = 0; i < N_QUESTIONS; i++) {
        snprintf(picture, sizeof picture, "%s/%s", IMAGES, QUESTIONS[i].picture);
        const char *pictures[] = {picture};
        vl_prompt prompt = {.text = QUESTIONS[i].text, .image_paths = pictures, .n_images = 1};
        vl_sequence *sequence;
        OK(vl_model_encode(&sequence, s.model, &prompt, &err));
        s.sequences[i] = sequence;
    }
    golden g = {.device = s.device, .model = s.model};
    s.states = golden_run(&g, (vl_forward){.sequences = s.sequences, .n_sequences = N_QUESTIONS});
    return s;
}

static void close_side(side *s)
{
    golden_states_free(&s->states);
    for (int i = 0; i < N_QUESTIONS; i++)
        vl_sequence_free((vl_sequence *)(uintptr_t)s->sequences[i]);
    vl_head_close(s->head);
    vl_model_close(s->model);
    vl_device_close(s->device);
}

/* Logits of the last state of a sequence by the side's own head, and their log-sum-exps; on its device. */
typedef struct distribution {
    vl_tensor logits, lse;
} distribution;

static distribution distribution_of(const side *s, int sequence)
{
    vl_error err = VL_ERROR_INIT;
    const vl_model_info *info = vl_model_get_info(s->model);
    int64_t rows = s->sequences[sequence]->n_tokens;
    vl_tensor state;
    distribution d;
    OK(vl_tensor_new(&state, s->device, VL_F32, rows, info->d_model, &err));
    OK(vl_device_write(s->device, &state, golden_state(&s->states, s->states.n_states - 1, sequence), &err));
    OK(vl_tensor_new(&d.logits, s->device, VL_F32, rows, info->vocab_size, &err));
    OK(vl_tensor_new(&d.lse, s->device, VL_F32, 1, rows, &err));
    d.lse = vl_tensor_1d(d.lse.data, VL_F32, rows);
    OK(vl_head_logits(s->head, d.logits, state, &err));
    OK(vl_op_logsumexp(s->device, &(vl_logsumexp_args){d.lse, d.logits}, &err));
    vl_device_free(s->device, state.data);
    return d;
}

/* Sum and maximum of KL(exact || fast) over the rows of a sequence. Both devices are the processor. */
static void add_kl(double *sum, double *largest, const side *exact, const side *fast, int sequence)
{
    vl_error err = VL_ERROR_INIT;
    int64_t rows = exact->sequences[sequence]->n_tokens;
    distribution p = distribution_of(exact, sequence), q = distribution_of(fast, sequence);
    vl_tensor metrics;
    float *host = malloc((size_t)rows * VL_METRIC_COUNT * sizeof *host);
    assert_non_null(host);
    OK(vl_tensor_new(&metrics, exact->device, VL_F32, rows, VL_METRIC_COUNT, &err));
    OK(vl_op_metrics(
        exact->device,
        &(vl_metrics_args){
            .out = metrics, .logits = q.logits, .lse = q.lse, .teacher_logits = p.logits, .teacher_lse = p.lse},
        &err));
    OK(vl_device_read(exact->device, host, &metrics, &err));
    for (int64_t i = 0; i < rows; i++) {
        double kl = host[i * VL_METRIC_COUNT + VL_METRIC_KL];
        *sum += kl;
        *largest = kl > *largest ? kl : *largest;
    }
    vl_device_free(exact->device, metrics.data);
    vl_device_free(exact->device, p.logits.data);
    vl_device_free(exact->device, p.lse.data);
    vl_device_free(fast->device, q.logits.data);
    vl_device_free(fast->device, q.lse.data);
    free(host);
}

static void bf16_is_close(void **state)
{
    const char *path = *state;
    side exact = run_side(path, VL_PRECISION_EXACT), fast = run_side(path, VL_PRECISION_FAST);
    double sum = 0, largest = 0, rows = 0, worst = 0;
    int64_t d = vl_model_get_info(exact.model)->d_model;
    for (int i = 0; i < N_QUESTIONS; i++) {
        int64_t n = exact.sequences[i]->n_tokens;
        add_kl(&sum, &largest, &exact, &fast, i);
        rows += (double)n;
        for (int k = 0; k < exact.states.n_states; k++) {
            golden_difference apart =
                golden_compare(golden_state(&fast.states, k, i), golden_state(&exact.states, k, i), n, d);
            worst = apart.relative > worst ? apart.relative : worst;
        }
    }
    print_message("BF16 %-24s KL to fp32: mean %.2e, largest row %.2e nats; states: relative error %.1e\n",
                  strrchr(path, '/') + 1, sum / rows, largest, worst);
    close_side(&exact);
    close_side(&fast);
    if (!(sum / rows <= BOUND))
        fail_msg("%s: bf16 products move the distribution by %.2e nats, at most %.0e", path, sum / rows, BOUND);
}

int main(void)
{
    static const char *const trained[] = {"llava-easyvqa-f32", "llava-easyvqa-bf16", "mllama-easyvqa-f32",
                                          "mllama-easyvqa-bf16"};
    enum { N_TRAINED = sizeof trained / sizeof *trained };
    static char paths[N_TRAINED + 1][GOLDEN_PATH];
    struct CMUnitTest tests[N_TRAINED + 1];
    size_t n = 0;
    const char *shared = getenv("VLENS_SHARED_DATA");
    snprintf(paths[n++], GOLDEN_PATH, "%s", VLENS_SOURCE_DIR "/data/demo/model");
    for (size_t i = 0; shared && i < N_TRAINED; i++)
        snprintf(paths[n++], GOLDEN_PATH, "%s/trained/%s", shared, trained[i]);
    for (size_t i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){paths[i], bf16_is_close, NULL, NULL, paths[i]};
    return _cmocka_run_group_tests("bf16", tests, n, NULL, NULL);
}
