/* The formulas are those of transformers 4.46.3, src/transformers/modeling_rope_utils.py (one function per kind) and
 * models/llama/modeling_llama.py (LlamaRotaryEmbedding). Every step is rounded to fp32 as there: an error in the last
 * bit of a frequency grows with the position. */
#include "trainer/model/rope.h"

#include <math.h>

static const double PI = 3.14159265358979323846;

/* theta ^ (2 i / E) */
static float power(float theta, int i, int head_dim)
{
    return (float)pow((double)theta, (double)((float)(2 * i) / (float)head_dim));
}

/* _compute_dynamic_ntk_parameters: the base grows once the sequence is longer than the model was trained for. */
static float dynamic_theta(const vl_text_config *text, int64_t n_positions)
{
    const vl_rope_config *rope = &text->rope;
    float factor = (float)rope->factor, limit = (float)rope->original_max_position;
    if (n_positions <= rope->original_max_position)
        return (float)text->rope_theta;
    float growth = factor * (float)n_positions / limit - (float)(rope->factor - 1);
    double exponent = (double)text->head_dim / (text->head_dim - 2);
    return (float)text->rope_theta * (float)pow((double)growth, (double)(float)exponent);
}

/* _compute_llama3_parameters: long waves are slowed by the factor, short ones kept, those between blended. */
static float llama3(const vl_rope_config *rope, float inverse)
{
    float low_wave = (float)(rope->original_max_position / rope->low_freq_factor);
    float high_wave = (float)(rope->original_max_position / rope->high_freq_factor);
    float factor = (float)rope->factor, wave = (float)(2 * PI) * (1 / inverse);
    if (wave > low_wave)
        return inverse / factor;
    if (wave < high_wave)
        return inverse;
    float low = (float)rope->low_freq_factor, range = (float)(rope->high_freq_factor - rope->low_freq_factor);
    float smooth = ((float)rope->original_max_position * (1 / wave) - low) / range;
    return (1 - smooth) * inverse / factor + smooth * inverse;
}

/* The dimension that turns `rotations` times over the trained length. */
static double yarn_dimension(const vl_text_config *text, double rotations)
{
    return text->head_dim * log(text->rope.original_max_position / (rotations * 2 * PI)) / (2 * log(text->rope_theta));
}

/* _compute_yarn_parameters: a linear ramp over the dimensions from extrapolation to interpolation. */
static void yarn(float *out, const vl_text_config *text)
{
    const vl_rope_config *rope = &text->rope;
    double low = fmax(floor(yarn_dimension(text, rope->beta_fast)), 0);
    double high = fmin(ceil(yarn_dimension(text, rope->beta_slow)), text->head_dim - 1);
    if (low == high)
        high += 0.001;
    for (int i = 0; i < text->head_dim / 2; i++) {
        float frequency = power((float)text->rope_theta, i, text->head_dim);
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1 - fminf(fmaxf(ramp, 0), 1);
        float stretched = 1 / ((float)rope->factor * frequency);
        out[i] = stretched * (1 - keep) + 1 / frequency * keep;
    }
}

void vl_rope_frequencies(float *out, const vl_text_config *text, int64_t n_positions)
{
    const vl_rope_config *rope = &text->rope;
    if (rope->kind == VL_HF_ROPE_YARN) {
        yarn(out, text);
        return;
    }
    float theta = rope->kind == VL_HF_ROPE_DYNAMIC ? dynamic_theta(text, n_positions) : (float)text->rope_theta;
    for (int i = 0; i < text->head_dim / 2; i++) {
        out[i] = 1 / power(theta, i, text->head_dim);
        if (rope->kind == VL_HF_ROPE_LINEAR)
            out[i] /= (float)rope->factor;
        else if (rope->kind == VL_HF_ROPE_LLAMA3)
            out[i] = llama3(rope, out[i]);
    }
}

void vl_rope_table(float *cosines, float *sines, float *scratch, const vl_text_config *text, vl_rope_range range)
{
    int half = text->head_dim / 2;
    float scale = (float)text->rope.attention_factor;
    vl_rope_frequencies(scratch, text, range.position + range.n);
    for (int64_t t = 0; t < range.n; t++) {
        for (int i = 0; i < half; i++) {
            float angle = scratch[i] * (float)(range.position + t);
            cosines[t * half + i] = (float)cos((double)angle) * scale;
            sines[t * half + i] = (float)sin((double)angle) * scale;
        }
    }
}
