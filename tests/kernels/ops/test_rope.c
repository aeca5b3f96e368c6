/* Rotary embedding: pairs (i, i + P) of the first 2 P columns of each head, in place. */
#include "tests/kernels/ops/ops_test.h"

typedef struct shape {
    int64_t t, width;
    int heads;
    int64_t pairs; /* P */
} shape;

static void check_rope(shape s, test_layout layout)
{
    int64_t half = s.pairs, n = s.width * s.heads;
    double *x = test_random_rows(s.t, n, 10), *angle = test_random(s.t * half, 2);
    double *cosine = test_memory((size_t)(s.t * half), 8), *sine = test_memory((size_t)(s.t * half), 8);
    double *want = test_memory((size_t)(s.t * n), sizeof *want);
    for (int64_t i = 0; i < s.t * half; i++) {
        cosine[i] = (double)(float)cos(angle[i]);
        sine[i] = (double)(float)sin(angle[i]);
    }
    for (int64_t t = 0; t < s.t; t++)
        for (int64_t j = 0; j < n; j++) {
            int64_t e = j % s.width, pair = e % half;
            want[t * n + j] = x[t * n + j];
            if (e >= 2 * half) /* passes */
                continue;
            double other = e < half ? -x[t * n + j + half] : x[t * n + j - half];
            want[t * n + j] = x[t * n + j] * cosine[t * half + pair] + other * sine[t * half + pair];
        }
    test_tensor *in = test_tensor_of(VL_F32, x, s.t, n, layout);
    test_tensor *c = test_tensor_of(VL_F32, cosine, s.t, half, layout);
    test_tensor *d = test_tensor_of(VL_F32, sine, s.t, half, layout);
    OK(vl_op_rope(device, &(vl_rope_args){in->t, c->t, d->t, s.heads}, &error));
    test_unchanged(c);
    test_unchanged(d);
    test_within("rope", "", test_row_error(test_values(in), want, s.t, n));
}

static void rope_forward(void **state)
{
    static const shape shapes[] = {{1, 2, 1, 1},  {5, 6, 3, 3},  {7, 34, 5, 17}, {3, 64, 9, 32},
                                   {6, 16, 4, 2}, {5, 24, 3, 9}, {9, 80, 7, 16}, {130, 128, 32, 64}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int layout = 0; layout < 2; layout++) {
            check_rope(shapes[i], (test_layout)layout);
            test_teardown(state);
        }
}

/* Angle 0 leaves the bits alone; turning there and back returns to the start. */
static void rope_identity_and_inverse(void **state)
{
    (void)state;
    enum { T = 9, N = 128, H = 4, HALF = N / H / 2 };
    double *x = test_random(T * N, 5), *angle = test_random(T * HALF, 3), one[T * HALF], zero[T * HALF] = {0};
    double cosine[T * HALF], sine[T * HALF], minus[T * HALF];
    for (int i = 0; i < T * HALF; i++) {
        one[i] = 1;
        cosine[i] = cos(angle[i]);
        sine[i] = sin(angle[i]);
        minus[i] = -sine[i];
    }
    test_tensor *in = test_tensor_of(VL_F32, x, T, N, DENSE);
    vl_tensor still = test_tensor_of(VL_F32, zero, T, HALF, DENSE)->t,
              c = test_tensor_of(VL_F32, one, T, HALF, DENSE)->t;
    OK(vl_op_rope(device, &(vl_rope_args){in->t, c, still, H}, &error));
    assert_memory_equal(test_values(in), x, T * N * sizeof *x);
    c = test_tensor_of(VL_F32, cosine, T, HALF, DENSE)->t;
    OK(vl_op_rope(device, &(vl_rope_args){in->t, c, test_tensor_of(VL_F32, sine, T, HALF, DENSE)->t, H}, &error));
    OK(vl_op_rope(device, &(vl_rope_args){in->t, c, test_tensor_of(VL_F32, minus, T, HALF, DENSE)->t, H}, &error));
    test_within("rope", "there and back", test_row_error(test_values(in), x, T, N));
}

static void rope_refuses(void **state)
{
    (void)state;
    double values[48] = {0};
    test_tensor *x = test_tensor_of(VL_F32, values, 2, 12, DENSE), *c = test_tensor_of(VL_F32, values, 2, 3, DENSE);
    vl_rope_args good = {x->t, c->t, c->t, 2}, bad;
    OK(vl_op_rope(device, &good, &error));
    bad = good, bad.n_heads = 4; /* odd heads */
    REFUSED(vl_op_rope(device, &bad, &error));
    bad = good, bad.n_heads = 3; /* three pairs in heads of four columns */
    REFUSED(vl_op_rope(device, &bad, &error));
    bad = good, bad.n_heads = 0;
    REFUSED(vl_op_rope(device, &bad, &error));
    bad = good, bad.sin = vl_tensor_rows(c->t, 0, 1);
    REFUSED(vl_op_rope(device, &bad, &error));
}

static const struct CMUnitTest tests[] = {OPS_TEST(rope_forward), OPS_TEST(rope_identity_and_inverse),
                                          OPS_TEST(rope_refuses)};
OPS_TEST_MAIN(tests)
