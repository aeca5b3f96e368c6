/* The fused unembedding and loss: four losses, every weight type and path, against float64.
 *
 * In 16 bit the reference takes x and the head rounded, as the products do. The gradient of the logits is
 * rounded too, on its way back: each of its terms may be off by 2^-8 of itself, so that is what dx may be off by. */
#include "tests/kernels/ops/loss_reference.h"
#include "tests/kernels/ops/ops_test.h"

#include "kernels/cpu/cpu.h"

typedef struct path {
    test_matrix_args head;
    vl_cpu_level level; /* of a CPU */
    bool bf16;          /* on a CPU of that level */
} path;

/* Own panels (from bf16, and rounded from others), oneDNN's bf16, and fp32 (also on a processor without AVX-512). */
static const path paths[] = {
    {{VL_BF16, VL_PRECISION_AUTO, true, false}, VL_CPU_AVX512_BF16, true},
    {{VL_F16, VL_PRECISION_FAST, true, true}, VL_CPU_AVX512_BF16, true},
    {{VL_F32, VL_PRECISION_FAST, false, false}, VL_CPU_AVX512_BF16, true},
    {{VL_BF16, VL_PRECISION_AUTO, true, false}, VL_CPU_AVX512, true},
    {{VL_BF16, VL_PRECISION_AUTO, true, false}, VL_CPU_PLAIN, false},
    {{VL_F32, VL_PRECISION_EXACT, true, false}, VL_CPU_AVX512_BF16, false},
    {{VL_F16, VL_PRECISION_AUTO, true, false}, VL_CPU_AVX512_BF16, false},
};
enum { N_PATHS = sizeof paths / sizeof paths[0] };

static const char *const loss_names[] = {"kl", "ce", "reverse_kl", "js"};

static void choose(path p)
{
    test_reopen(2);
    if (strcmp(vl_device_name(device), "cpu") == 0)
        vl_cpu_limit(device, p.level);
}

static vl_dtype product_of(path p)
{
    vl_dtype product = test_product_dtype(p.head);
    return product == VL_BF16 && strcmp(vl_device_name(device), "cpu") == 0 && !p.bf16 ? VL_F32 : product;
}

enum { GRADIENT = 1, BIAS = 2, WEIGHTS = 4, STRIDES = 8 };

/* Random data: logits of about `size`, a teacher near or far, some targets missing, some weights 0. */
static loss_problem random_problem(int64_t m, int64_t d, int64_t v, vl_loss kind, int bits, double size)
{
    loss_problem p = {.m = m, .d = d, .v = v, .kind = kind};
    double *targets = test_memory((size_t)m, 8), *weights = test_random(m, 1);
    p.x = test_random(m * d, size / sqrt((double)d));
    p.head = test_random(v * d, 1);
    p.bias = bits & BIAS ? test_random(v, size) : NULL;
    p.teacher = test_random(m * v, size);
    for (int64_t i = 0; i < m; i++) {
        targets[i] = i % 4 == 3 ? -1 - (double)test_random_below(100) : (double)test_random_below(v);
        weights[i] = i % 5 == 2 ? 0 : weights[i];
    }
    p.targets = targets;
    p.weights = bits & WEIGHTS ? weights : NULL;
    return p;
}

typedef struct outcome {
    double *loss, *dx;
} outcome;

/* Runs the op on the problem. x and the head are rounded where the path does it, in the problem too. */
static outcome run(loss_problem *p, path way, int bits)
{
    test_layout layout = bits & STRIDES ? STRIDED : DENSE;
    test_tensor *x = test_tensor_of(VL_F32, p->x, p->m, p->d, layout), *loss = test_empty_vector(VL_F32, p->m);
    test_tensor *dx = bits & GRADIENT ? test_empty(VL_F32, p->m, p->d, layout) : NULL, *teacher = NULL;
    p->head = test_rounded(p->head, p->v * p->d, way.head.dtype);
    vl_unembed_loss_args args = {.loss = loss->t, .x = x->t, .kind = p->kind, .softcap = (float)p->cap};
    args.head = test_matrix(p->head, p->v, p->d, way.head);
    if (dx)
        args.dx = dx->t;
    if (p->bias)
        args.head_bias = test_vector_of(VL_F32, p->bias, p->v)->t;
    if (p->weights)
        args.row_weight = test_vector_of(VL_F32, p->weights, p->m)->t;
    if (p->kind == VL_LOSS_CE) {
        args.targets = test_vector_of(VL_I32, p->targets, p->m)->t;
    } else {
        double *lse = test_memory((size_t)p->m, 8);
        for (int64_t i = 0; i < p->m; i++)
            lse[i] = loss_log_sum_exp(p->teacher + i * p->v, p->v);
        teacher = test_tensor_of(VL_F32, p->teacher, p->m, p->v, layout);
        args.teacher_logits = teacher->t;
        args.teacher_lse = test_vector_of(VL_F32, lse, p->m)->t;
    }
    OK(vl_op_unembed_loss(device, &args, &error));
    test_unchanged(x);
    if (teacher)
        test_unchanged(teacher);
    p->x = test_rounded_operand(p->x, p->m, p->d, product_of(way));
    p->head = test_rounded(p->head, p->v * p->d, product_of(way));
    return (outcome){test_values(loss), dx ? test_values(dx) : NULL};
}

static double relative(double got, double want)
{
    return test_absolute_error(&got, &want, 1) / (1 + fabs(want));
}

static void check(loss_problem p, path way, int bits, const char *op)
{
    if (test_too_large(p.m * p.d * p.v))
        return;
    outcome got = run(&p, way, bits);
    double *loss = test_memory((size_t)p.m, 8), *dx = test_memory((size_t)(p.m * p.d), 8);
    double *scale = test_memory((size_t)(p.m * p.d), 8), worst = 0;
    loss_reference(loss, got.dx ? dx : NULL, scale, &p);
    for (int64_t i = 0; i < p.m; i++) {
        worst = fmax(worst, relative(got.loss[i], loss[i]));
        bool silent = (p.kind == VL_LOSS_CE && p.targets[i] < 0);
        if (silent)
            assert_true(got.loss[i] == 0);
        for (int64_t k = 0; k < p.d && got.dx && (silent || (p.weights && p.weights[i] == 0)); k++)
            assert_true(got.dx[i * p.d + k] == 0);
    }
    test_within(op, loss_names[p.kind], worst);
    static const char *const modes[] = {[VL_F32] = "dx fp32", [VL_F16] = "dx fp16", [VL_BF16] = "dx bf16"};
    if (got.dx)
        test_within(op, modes[product_of(way)], test_scaled_error(got.dx, dx, scale, p.m * p.d));
}

static void losses_on_all_paths(void **state)
{
    static const int64_t shapes[][3] = {{1, 1, 1}, {1, 3, 5}, {13, 17, 31}, {15, 33, 100}, {60, 64, 2113}};
    for (int way = 0; way < N_PATHS; way++) {
        choose(paths[way]);
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            for (int kind = 0; kind < 4; kind++)
                for (int bits = 0; bits < 16; bits++) {
                    if (shapes[i][2] > 1000 && bits != 0 && bits != 5 && bits != 15)
                        continue;
                    check(random_problem(shapes[i][0], shapes[i][1], shapes[i][2], (vl_loss)kind, bits, 3), paths[way],
                          bits, "unembed_loss");
                    test_teardown(state);
                }
    }
}

/* Several chunks of rows on every path: many rows, and a vocabulary so large that few rows fit at once. */
static void losses_in_chunks(void **state)
{
    for (int way = 0; way < N_PATHS; way += 5) { /* panels, fp32 */
        choose(paths[way]);
        for (int kind = 0; kind < 4; kind++) {
            check(random_problem(1321, 5, 67, (vl_loss)kind, GRADIENT | WEIGHTS, 3), paths[way], GRADIENT | WEIGHTS,
                  "unembed_loss");
            test_teardown(state);
        }
        check(random_problem(67, 3, 140001, VL_LOSS_KL, GRADIENT, 3), paths[way], GRADIENT, "unembed_loss");
        test_teardown(state);
        check(random_problem(3, 2, 139992, VL_LOSS_JS, GRADIENT, 3), paths[way], GRADIENT, "unembed_loss");
        test_teardown(state);
        check(random_problem(29, 576, 4999, VL_LOSS_KL, GRADIENT, 3), paths[way], GRADIENT, "unembed_loss");
        test_teardown(state);
    }
}

/* Logits behind a soft cap that bites (their deviation is about 5), on every path. */
static void losses_behind_a_cap(void **state)
{
    static const int64_t shapes[][3] = {{1, 3, 5}, {13, 17, 31}, {29, 33, 2113}};
    for (int way = 0; way < N_PATHS; way++) {
        choose(paths[way]);
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            for (int kind = 0; kind < 4; kind++) {
                loss_problem p =
                    random_problem(shapes[i][0], shapes[i][1], shapes[i][2], (vl_loss)kind, GRADIENT | BIAS, 3);
                p.cap = 4;
                check(p, paths[way], GRADIENT | BIAS, "unembed_loss");
                test_teardown(state);
            }
    }
}

/* The same problem with all logits 1000 lower, which changes no distribution: exp(-lse) overflows. */
static loss_problem far_below(loss_problem p)
{
    double *bias = test_memory((size_t)p.v, 8), *teacher = test_memory((size_t)(p.m * p.v), 8);
    for (int64_t i = 0; i < p.v; i++)
        bias[i] = (double)(float)(p.bias[i] - 1000);
    for (int64_t i = 0; i < p.m * p.v; i++)
        teacher[i] = (double)(float)(p.teacher[i] - 1000);
    p.bias = bias;
    p.teacher = teacher;
    return p;
}

/* Logits hundreds apart, for the student as for the teacher: certain, and certain of something else. */
static void losses_of_extremes(void **state)
{
    for (int way = 0; way < N_PATHS; way++) {
        choose(paths[way]);
        for (int kind = 0; kind < 4; kind++) {
            int bits = GRADIENT | BIAS;
            loss_problem p = random_problem(17, 9, 1063, (vl_loss)kind, bits, 100);
            double *teacher = test_memory(17 * 1063, 8);
            memcpy(teacher, p.teacher, 17 * 1063 * 8);
            teacher[5] = 2000;             /* all of the mass on one entry */
            teacher[1063 + 1062] = -20000; /* an entry without any */
            p.teacher = teacher;
            check(p, paths[way], bits, "unembed_loss 200+");
            check(far_below(p), paths[way], bits, "unembed_loss 200+");
            test_teardown(state);
        }
    }
}

/* A lens that is its teacher, whose log-sum-exp is off by some ulps, as another way of summing leaves it: the loss
 * feels that only in the second order, and is never materially below 0. */
static void losses_at_equality(void **state)
{
    enum { M = 29, D = 40, V = 3001 };
    static const vl_loss kinds[] = {VL_LOSS_KL, VL_LOSS_REVERSE_KL, VL_LOSS_JS};
    if (test_too_large(M * D * V))
        skip();
    for (int way = 0; way < N_PATHS; way++)
        for (int k = 0; k < 3; k++) {
            choose(paths[way]);
            double *x = test_random(M * D, 1), *w = test_random(V * D, 1);
            vl_matrix *head = test_matrix(w, V, D, paths[way].head);
            test_tensor *in = test_tensor_of(VL_F32, x, M, D, DENSE), *logits = test_empty(VL_F32, M, V, DENSE);
            test_tensor *lse = test_empty_vector(VL_F32, M), *loss = test_empty_vector(VL_F32, M);
            test_tensor *dx = test_empty(VL_F32, M, D, DENSE);
            OK(vl_op_linear(device, &(vl_linear_args){.out = logits->t, .x = in->t, .weight = head}, &error));
            OK(vl_op_logsumexp(device, &(vl_logsumexp_args){lse->t, logits->t}, &error));
            double *off = test_values(lse);
            for (int i = 0; i < M; i++)
                off[i] *= 1 + (i % 5 - 2) * 0x1p-22;
            lse = test_vector_of(VL_F32, off, M);
            vl_unembed_loss_args args = {.loss = loss->t,
                                         .dx = dx->t,
                                         .x = in->t,
                                         .head = head,
                                         .kind = kinds[k],
                                         .teacher_logits = logits->t,
                                         .teacher_lse = lse->t};
            OK(vl_op_unembed_loss(device, &args, &error));
            double nothing[M * D] = {0};
            test_within("unembed_loss", "at equality", test_absolute_error(test_values(loss), nothing, M));
            test_within("unembed_loss", "dx at equality", test_absolute_error(test_values(dx), nothing, M * D));
            test_teardown(state);
        }
}

/* The reference gradient itself, for every loss, against central differences of the reference loss. */
static void reference_gradient_is_the_slope(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        loss_problem p = random_problem(5, 7, 23, (vl_loss)kind, WEIGHTS | BIAS, 2);
        p.cap = kind % 2 ? 3 : 0;
        double *x = test_memory(35, 8), dx[35], scale[35], loss[5], up[5], down[5], step = 1e-5;
        memcpy(x, p.x, 35 * 8);
        p.x = x;
        loss_reference(loss, dx, scale, &p);
        for (int i = 0; i < 35; i++) {
            double kept = x[i];
            x[i] = kept + step;
            loss_reference(up, NULL, NULL, &p);
            x[i] = kept - step;
            loss_reference(down, NULL, NULL, &p);
            x[i] = kept;
            assert_true(fabs(p.weights[i / 7] * (up[i / 7] - down[i / 7]) / (2 * step) - dx[i]) < 1e-8);
        }
    }
}

static bool has_panels(path p)
{
    return p.level == VL_CPU_AVX512_BF16 && p.bf16 && test_has_panels();
}

/* The same bits on every run, and on the panel path with any number of threads and of rows beside a row. */
static void losses_repeat(void **state)
{
    enum { M = 301, D = 33, V = 1111 };
    if (test_too_large(M * D * V))
        skip();
    for (int way = 0; way < N_PATHS; way += 5)
        for (int kind = 0; kind < 4; kind++) {
            loss_problem p = random_problem(M, D, V, (vl_loss)kind, BIAS, 3);
            outcome first = {0};
            for (int threads = 1; threads <= 3; threads++) {
                test_reopen(has_panels(paths[way]) ? threads : 2);
                outcome got = run(&p, paths[way], GRADIENT | BIAS);
                if (first.loss) {
                    assert_memory_equal(got.loss, first.loss, M * 8);
                    assert_memory_equal(got.dx, first.dx, M * D * 8);
                }
                first = got;
            }
            if (has_panels(paths[way])) {
                p.m = 15;
                outcome few = run(&p, paths[way], GRADIENT | BIAS);
                assert_memory_equal(few.loss, first.loss, 15 * 8);
                assert_memory_equal(few.dx, first.dx, 15 * D * 8);
            }
            test_teardown(state);
        }
    test_reopen(2);
}

static void unembed_loss_refuses(void **state)
{
    (void)state;
    double values[60] = {0};
    vl_matrix *head = test_matrix(values, 5, 4, (test_matrix_args){VL_F32, VL_PRECISION_AUTO, true, false});
    test_tensor *x = test_tensor_of(VL_F32, values, 3, 4, DENSE), *dx = test_empty(VL_F32, 3, 4, DENSE);
    test_tensor *teacher = test_tensor_of(VL_F32, values, 3, 5, DENSE), *row = test_vector_of(VL_F32, values, 3);
    vl_unembed_loss_args good = {.loss = test_empty_vector(VL_F32, 3)->t,
                                 .dx = dx->t,
                                 .x = x->t,
                                 .head = head,
                                 .teacher_logits = teacher->t,
                                 .teacher_lse = row->t},
                         bad = good;
    OK(vl_op_unembed_loss(device, &good, &error));
    bad.head = NULL;
    REFUSED(vl_op_unembed_loss(device, &bad, &error));
    bad = good, bad.dx = x->t;
    REFUSED(vl_op_unembed_loss(device, &bad, &error));
    bad = good, bad.kind = VL_LOSS_CE; /* no targets */
    REFUSED(vl_op_unembed_loss(device, &bad, &error));
    bad = good, bad.teacher_logits = vl_tensor_columns(teacher->t, 0, 4);
    REFUSED(vl_op_unembed_loss(device, &bad, &error));
    bad = good, bad.teacher_lse.data = NULL;
    REFUSED(vl_op_unembed_loss(device, &bad, &error));
    bad = good, bad.row_weight = vl_tensor_1d(row->t.data, VL_F32, 2);
    REFUSED(vl_op_unembed_loss(device, &bad, &error));
    bad = good, bad.head_bias = row->t;
    REFUSED(vl_op_unembed_loss(device, &bad, &error));
}

static const struct CMUnitTest tests[] = {
    OPS_TEST(losses_on_all_paths), OPS_TEST(losses_in_chunks),     OPS_TEST(losses_of_extremes),
    OPS_TEST(losses_at_equality),  OPS_TEST(losses_behind_a_cap),  OPS_TEST(reference_gradient_is_the_slope),
    OPS_TEST(losses_repeat),       OPS_TEST(unembed_loss_refuses),
};
OPS_TEST_MAIN(tests)
