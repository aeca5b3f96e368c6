/* Deliberate wrongs: each changes one thing that a family's description says, and its golden must notice. A trap that
 * nobody notices is a field of the description that no test holds. */
#include "tests/model/golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/model/model.h"

static const double BOUND = 2e-5; /* of test_golden.c */

typedef struct trap {
    const char *golden, *what;
    void (*spring)(vl_model *model);
} trap;

static struct {
    void **at, *data;
} hidden; /* what a trap took away; put back before the model is closed */

static void hide(void **at)
{
    hidden.at = at;
    hidden.data = *at;
    *at = NULL;
}

static vl_decoder_spec *spec_of(vl_model *model)
{
    return &model->spec.decoder;
}

static void each_window(vl_model *m, int change)
{
    for (int i = 0; i < spec_of(m)->n_layers; i++)
        if (spec_of(m)->layers[i].window)
            spec_of(m)->layers[i].window = change ? spec_of(m)->layers[i].window + change : 0;
}

static void window_none(vl_model *m)
{
    each_window(m, 0);
}

static void window_longer(vl_model *m)
{
    each_window(m, 1);
}

static void window_shorter(vl_model *m)
{
    each_window(m, -1);
}

static void window_on_all(vl_model *m)
{
    for (int i = 0; i < spec_of(m)->n_layers; i++)
        spec_of(m)->layers[i].window = 5;
}

static void window_on_the_others(vl_model *m)
{
    for (int i = 0; i < spec_of(m)->n_layers; i++)
        spec_of(m)->layers[i].window = spec_of(m)->layers[i].window ? 0 : 5;
}

static void one_rope(vl_model *m)
{
    for (int i = 0; i < spec_of(m)->n_layers; i++)
        spec_of(m)->layers[i].rope = 0;
}

static void no_scaling(vl_model *m)
{
    spec_of(m)->ropes[0].kind = VL_ROPE_DEFAULT;
}

static void other_theta(vl_model *m)
{
    spec_of(m)->ropes[0].theta *= 1.1;
}

static void all_columns_turn(vl_model *m)
{
    spec_of(m)->ropes[0].columns = spec_of(m)->head_dim;
}

static void always_short(vl_model *m)
{
    spec_of(m)->ropes[0].original_max_position = 1 << 20;
}

static void no_attention_factor(vl_model *m)
{
    spec_of(m)->ropes[0].attention_factor = 1;
}

static void no_attention_cap(vl_model *m)
{
    spec_of(m)->attention_softcap = 0;
}

static void no_embed_scale(vl_model *m)
{
    spec_of(m)->embed_scale = 0;
}

/* As a model has it that was loaded in bf16: sqrt(32) = 5.657 becomes 5.65625. */
static void rounded_embed_scale(vl_model *m)
{
    spec_of(m)->embed_scale = 5.65625;
}

static void scale_by_head_dim(vl_model *m)
{
    for (int i = 0; i < spec_of(m)->n_layers; i++)
        spec_of(m)->layers[i].attention_scale = 0.288675134594812882; /* 12 ^ -0.5 */
}

static void same_scale_in_all_layers(vl_model *m)
{
    for (int i = 0; i < spec_of(m)->n_layers; i++)
        spec_of(m)->layers[i].attention_scale = spec_of(m)->layers[0].attention_scale;
}

static void other_gelu(vl_model *m)
{
    spec_of(m)->hidden_act = spec_of(m)->hidden_act == VL_ACT_GELU ? VL_ACT_GELU_TANH : VL_ACT_GELU;
}

static void silu_for_relu(vl_model *m)
{
    spec_of(m)->hidden_act = VL_ACT_SILU;
}

static void serial(vl_model *m)
{
    spec_of(m)->parallel = false;
}

static void parallel(vl_model *m)
{
    spec_of(m)->parallel = true;
}

static void norm_of_the_sum(vl_model *m)
{
    spec_of(m)->norm_sum = true;
}

static void positions_from_zero(vl_model *m)
{
    spec_of(m)->position_offset = 0;
}

static void positions_shifted(vl_model *m)
{
    spec_of(m)->position_offset = 1;
}

static void no_q_bias(vl_model *m)
{
    hide(&m->decoder.blocks[1].q.bias.data);
}

static void no_v_bias(vl_model *m)
{
    hide(&m->decoder.blocks[1].v.bias.data);
}

static void no_o_bias(vl_model *m)
{
    hide(&m->decoder.blocks[1].o.bias.data);
}

static void no_mlp_bias(vl_model *m)
{
    hide(&m->decoder.blocks[1].mlp.down.bias.data);
}

static void no_q_norm(vl_model *m)
{
    hide(&m->decoder.blocks[1].q_norm.weight.data);
}

static void no_k_norm(vl_model *m)
{
    hide(&m->decoder.blocks[1].k_norm.weight.data);
}

static void no_norm_behind_attention(vl_model *m)
{
    hide(&m->decoder.blocks[1].attention_after_norm.weight.data);
}

static void no_norm_behind_mlp(vl_model *m)
{
    hide(&m->decoder.blocks[1].mlp_after_norm.weight.data);
}

static void no_bias_of_a_norm(vl_model *m)
{
    hide(&m->decoder.blocks[1].attention_norm.bias.data);
}

static void no_mean_taken_off(vl_model *m)
{
    m->decoder.blocks[1].attention_norm.kind = VL_NORM_RMS;
}

static void up_before_gate(vl_model *m)
{
    vl_mlp *mlp = &m->decoder.blocks[1].mlp;
    vl_linear gate = mlp->gate;
    mlp->gate = mlp->up;
    mlp->up = gate;
}

static void v_before_k(vl_model *m)
{
    vl_block *block = &m->decoder.blocks[1];
    vl_linear k = block->k;
    block->k = block->v;
    block->v = k;
}

static void no_final_cap(vl_model *m)
{
    m->head.softcap = 0;
}

static void a_final_norm(vl_model *m)
{
    m->head.norm = VL_NORM_LAYER;
}

static void norms_before_the_branches(vl_model *m)
{
    spec_of(m)->norm_sum = false;
    spec_of(m)->norm_before = true;
}

static const trap traps[] = {
    {"qwen2__text", "no window", window_none},
    {"qwen2__text", "a window one longer", window_longer},
    {"qwen2__text", "a window one shorter", window_shorter},
    {"qwen2__text", "a window on all layers", window_on_all},
    {"qwen2__text", "no bias of q", no_q_bias},
    {"qwen2__text", "no bias of v", no_v_bias},
    {"qwen3__text", "no norm of q", no_q_norm},
    {"qwen3__text", "no norm of k", no_k_norm},
    {"qwen3__text", "another base", other_theta},
    {"mistral__text", "no window", window_none},
    {"mistral__text", "a window one longer", window_longer},
    {"gemma2__text", "windows on the odd layers", window_on_the_others},
    {"gemma2__text", "no cap of the scores", no_attention_cap},
    {"gemma2__text", "no scale of the embeddings", no_embed_scale},
    {"gemma2__text", "a scale rounded to bf16", rounded_embed_scale},
    {"gemma2__text", "scores scaled by the head's width", scale_by_head_dim},
    {"gemma2__text", "erf for tanh", other_gelu},
    {"gemma2__text", "no norm behind the attention", no_norm_behind_attention},
    {"gemma2__text", "no norm behind the MLP", no_norm_behind_mlp},
    {"gemma2__text", "no cap of the logits", no_final_cap},
    {"gemma3_text__text", "one base for all layers", one_rope},
    {"gemma3_text__text", "no scaling on global layers", no_scaling},
    {"gemma3_text__text", "windows on the other layers", window_on_the_others},
    {"gemma3_text__text", "no norm of k", no_k_norm},
    {"gpt2__text", "no division by the layer", same_scale_in_all_layers},
    {"gpt2__text", "positions from row 1", positions_shifted},
    {"gpt2__text", "erf for tanh", other_gelu},
    {"gpt2__text", "no bias of a norm", no_bias_of_a_norm},
    {"gpt2__text", "no mean taken off", no_mean_taken_off},
    {"gpt2__text", "v before k", v_before_k},
    {"gpt_neox__text", "one branch after the other", serial},
    {"gpt_neox__text", "all columns turn", all_columns_turn},
    {"gpt_neox__text", "tanh for erf", other_gelu},
    {"gpt_neox__text", "no bias of the MLP", no_mlp_bias},
    {"gpt_neox__text", "no bias of o", no_o_bias},
    {"olmo2__text", "no norm of q", no_q_norm},
    {"olmo2__text", "no norm behind the attention", no_norm_behind_attention},
    {"phi3__text", "always the short factors", always_short},
    {"phi3__text", "no factor of cos and sin", no_attention_factor},
    {"phi3__text", "up before gate", up_before_gate},
    {"phi3__text", "v before k", v_before_k},
    {"opt-post__text", "norms before the branches", norms_before_the_branches},
    {"opt-post__text", "a norm of the last state", a_final_norm},
    {"opt__text", "positions from row 0", positions_from_zero},
    {"opt__text", "silu for relu", silu_for_relu},
    {"opt__text", "norms of the sums too", norm_of_the_sum},
    {"opt__text", "both branches from one state", parallel},
};

/* Of the last rows, which are all that the golden keeps. */
static double logits_error(golden *g, const float *state, int64_t rows)
{
    vl_error err = VL_ERROR_INIT;
    golden_rows expected = golden_read(g, "logits");
    vl_tensor states, logits;
    vl_head *head;
    OK(vl_head_from_model(&head, g->model, &err));
    int64_t d = vl_head_get_info(head)->d_model, first = rows - expected.rows;
    OK(vl_tensor_new(&states, g->device, VL_F32, expected.rows, d, &err));
    OK(vl_tensor_new(&logits, g->device, VL_F32, expected.rows, expected.columns, &err));
    OK(vl_device_write(g->device, &states, state + first * d, &err));
    OK(vl_head_logits(head, logits, states, &err));
    float *found = malloc((size_t)(expected.rows * expected.columns) * sizeof *found);
    assert_non_null(found);
    OK(vl_device_read(g->device, found, &logits, &err));
    double error = golden_compare(found, expected.data, expected.rows, expected.columns).relative;
    vl_device_free(g->device, states.data);
    vl_device_free(g->device, logits.data);
    vl_head_close(head);
    free(found);
    free(expected.data);
    return error;
}

/* The largest relative error of a state or of the logits; what cannot be computed counts as noticed. */
static double worst_error(golden *g)
{
    const vl_sequence *sequence = g->sequence;
    golden_states states = golden_run(g, (vl_forward){.sequences = &sequence, .n_sequences = 1});
    double worst = 0;
    for (int i = 0; i < states.n_states; i++) {
        char name[32];
        snprintf(name, sizeof name, "hidden.%02d", i);
        golden_rows expected = golden_read(g, i + 1 < states.n_states ? name : "last_prenorm");
        golden_difference d =
            golden_compare(golden_state(&states, i, 0), expected.data, expected.rows, expected.columns);
        worst = d.relative > worst ? d.relative : worst;
        free(expected.data);
    }
    double logits = logits_error(g, golden_state(&states, states.n_states - 1, 0), sequence->n_tokens);
    golden_states_free(&states);
    return worst > logits ? worst : logits;
}

static void every_wrong_is_noticed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof traps / sizeof *traps; i++) {
        golden_case source = golden_fixture(traps[i].golden);
        golden g = golden_open(&source);
        double right = worst_error(&g);
        hidden.at = NULL;
        traps[i].spring(g.model);
        double wrong = worst_error(&g);
        if (hidden.at)
            *hidden.at = hidden.data;
        print_message("%-18s %-36s %.1e, without %.1e\n", traps[i].golden, traps[i].what, wrong, right);
        golden_close(&g);
        assert_true(right <= BOUND);
        if (!(wrong > BOUND))
            fail_msg("%s: nobody notices \"%s\"", traps[i].golden, traps[i].what);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_wrong_is_noticed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
