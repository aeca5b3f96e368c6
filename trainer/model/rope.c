/* The formulas are those of transformers, src/transformers/modeling_rope_utils.py (one function per kind) and
 * models/llama/modeling_llama.py (LlamaRotaryEmbedding). Every step is rounded to fp32 as there: an error in the last
 * bit of a frequency grows with the position. */
#include "trainer/model/rope.h"

#include <math.h>

static const double PI = 3.14159265358979323846;

/* theta ^ (2 i / n) for the n columns that turn */
static float power(float theta, int i, int columns)
{
    return (float)pow((double)theta, (double)((float)(2 * i) / (float)columns));
}

/* _compute_dynamic_ntk_parameters: the base grows once the sequence is longer than the model was trained for. */
static float dynamic_theta(const vl_rope_spec *rope, int64_t n_positions)
{
    float factor = (float)rope->factor, limit = (float)rope->original_max_position;
    if (n_positions <= rope->original_max_position)
        return (float)rope->theta;
    float growth = factor * (float)n_positions / limit - (float)(rope->factor - 1);
    double exponent = (double)rope->columns / (rope->columns - 2);
    return (float)rope->theta * (float)pow((double)growth, (double)(float)exponent);
}

/* _compute_llama3_parameters: long waves are slowed by the factor, short ones kept, those between blended. */
static float llama3(const vl_rope_spec *rope, float inverse)
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
static double yarn_dimension(const vl_rope_spec *rope, double rotations)
{
    return rope->columns * log(rope->original_max_position / (rotations * 2 * PI)) / (2 * log(rope->theta));
}

/* _compute_yarn_parameters: a linear ramp over the dimensions from extrapolation to interpolation. */
static void yarn(float *out, const vl_rope_spec *rope)
{
    double low = fmax(floor(yarn_dimension(rope, rope->beta_fast)), 0);
    double high = fmin(ceil(yarn_dimension(rope, rope->beta_slow)), rope->columns - 1);
    if (low == high)
        high += 0.001;
    for (int i = 0; i < rope->columns / 2; i++) {
        float frequency = power((float)rope->theta, i, rope->columns);
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1 - fminf(fmaxf(ramp, 0), 1);
        float stretched = 1 / ((float)rope->factor * frequency);
        out[i] = stretched * (1 - keep) + 1 / frequency * keep;
    }
}

/* _compute_longrope_parameters: one list of divisors up to the trained length, another beyond it. */
static bool is_long(const vl_rope_spec *rope, int64_t n_positions)
{
    return n_positions > rope->original_max_position;
}

void vl_rope_frequencies(float *out, const vl_rope_spec *rope, int64_t n_positions)
{
    if (rope->kind == VL_ROPE_YARN) {
        yarn(out, rope);
        return;
    }
    const float *divisors = is_long(rope, n_positions) ? rope->long_factor : rope->short_factor;
    float theta = rope->kind == VL_ROPE_DYNAMIC ? dynamic_theta(rope, n_positions) : (float)rope->theta;
    for (int i = 0; i < rope->columns / 2; i++) {
        float frequency = power(theta, i, rope->columns);
        out[i] = rope->kind == VL_ROPE_LONGROPE ? 1 / (divisors[i] * frequency) : 1 / frequency;
        if (rope->kind == VL_ROPE_LINEAR)
            out[i] /= (float)rope->factor;
        else if (rope->kind == VL_ROPE_LLAMA3)
            out[i] = llama3(rope, out[i]);
    }
}

/* Which of time, row and column pair j follows: sections one behind another (Qwen2-VL, apply_multimodal_rotary_pos_emb)
 * or interleaved (Qwen3-VL, apply_interleaved_mrope). */
static int axis_of(const vl_rope_spec *rope, int j)
{
    if (rope->sections[0] == 0)
        return 0;
    if (rope->interleaved)
        return j % 3 != 0 && j < 3 * rope->sections[j % 3] ? j % 3 : 0;
    return j < rope->sections[0] ? 0 : j < rope->sections[0] + rope->sections[1] ? 1 : 2;
}

void vl_rope_table(float *cosines, float *sines, float *scratch, const vl_rope_spec *rope, const vl_rope_rows *rows)
{
    int half = rope->columns / 2;
    float scale = (float)rope->attention_factor;
    vl_rope_frequencies(scratch, rope, rows->n_positions);
    for (int64_t t = 0; t < rows->n; t++) {
        for (int i = 0; i < half; i++) {
            float angle = scratch[i] * (float)rows->positions[t][axis_of(rope, i)];
            cosines[t * half + i] = (float)cos((double)angle) * scale;
            sines[t * half + i] = (float)sin((double)angle) * scale;
        }
    }
}

bool vl_rope_changes(const vl_rope_spec *rope, int64_t old_length, int64_t new_length)
{
    return rope->kind == VL_ROPE_LONGROPE && is_long(rope, old_length) != is_long(rope, new_length);
}
