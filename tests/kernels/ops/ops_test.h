/* tests/kernels/ops/ops_test.h - what the tests of operations share: the device under test, tensors with guards around
 * them, random data, and errors against a float64 reference.
 *
 * The device is the first argument of the program (default "cpu"), so that the same tests run on every backend. Behind
 * it: "streamed", and weights that need not stay on a device with memory of its own do not; "small", and large cases
 * are left out, for a device that is slow because it checks every access. Data goes in and out by vl_device_write and
 * vl_device_read only. Everything made here is freed at the end of a test. */
#ifndef VL_TESTS_OPS_TEST_H
#define VL_TESTS_OPS_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/ops.h"

extern vl_device *device;
extern vl_error error;

#define OK(call) test_ok((call), #call, __FILE__, __LINE__)
/* The call must be refused as a violated contract. */
#define REFUSED(call) test_refused((call), #call, __FILE__, __LINE__)
void test_ok(vl_status status, const char *call, const char *file, int line);
void test_refused(vl_status status, const char *call, const char *file, int line);

/* Opens the device anew with n threads; everything made on the old one is gone. */
void test_reopen(int n_threads);
/* Whether 16-bit products are rounded to bf16: a CPU without AVX-512 and a GPU before compute capability 8.0 compute
 * them in fp32. */
bool test_has_bf16(void);
/* What a matrix multiplies in: f32, or bf16; on a GPU also f16, where the weights are that. */
typedef struct test_matrix_args test_matrix_args;
vl_dtype test_product_dtype(test_matrix_args args);
/* A CPU whose processor runs our own bf16 micro-kernel. */
bool test_has_panels(void);

/* Whether a case of so many multiplications is to be left out. */
bool test_too_large(int64_t multiplications);

/* Host memory until the end of the test. */
void *test_memory(size_t count, size_t size);

/* BARE: nothing around it, so that a device that checks its memory sees accesses beyond the end. */
typedef enum test_layout { DENSE = 0, STRIDED, BARE } test_layout;

/* A device tensor inside a larger block of known bytes. */
typedef struct test_tensor {
    vl_tensor t;          /* what the op gets */
    vl_tensor block;      /* guard rows above and below, unless bare; when strided, guard columns on both sides */
    unsigned char *bytes; /* of the block, as last written */
    int64_t first;        /* element of the block where t begins */
    int64_t rows;
} test_tensor;

/* Filled with the guard pattern, which reads as garbage. */
test_tensor *test_empty(vl_dtype dtype, int64_t rows, int64_t columns, test_layout layout);
/* From values, rounded to the dtype. */
test_tensor *test_tensor_of(vl_dtype dtype, const double *values, int64_t rows, int64_t columns, test_layout layout);
/* The same as a one-dimensional tensor. */
test_tensor *test_vector_of(vl_dtype dtype, const double *values, int64_t n);
/* The same with nothing around it. */
test_tensor *test_bare_vector_of(vl_dtype dtype, const double *values, int64_t n);
test_tensor *test_empty_vector(vl_dtype dtype, int64_t n);
/* The values now, densely; checks that the guards are as they were. */
double *test_values(const test_tensor *tensor);
/* Checks that an op left its input alone. */
void test_unchanged(const test_tensor *tensor);

struct test_matrix_args {
    vl_dtype dtype;
    vl_precision precision;
    bool resident, misaligned; /* misaligned: at an odd host address */
};
vl_matrix *test_matrix(const double *values, int64_t n_out, int64_t n_in, test_matrix_args args);

/* Normal deviates times scale, rounded to fp32; each test starts from the same seed. */
double *test_random(int64_t n, double scale);
/* Rows of very different size: row i times 10^(i mod 7 - 3). */
double *test_random_rows(int64_t rows, int64_t columns, double scale);
int64_t test_random_below(int64_t n);
/* A copy rounded to a type. */
double *test_rounded(const double *values, int64_t n, vl_dtype dtype);
/* The left operand of a product: in fp16, rows with an entry of 2^15 or more are divided by a power of two on the way.
 */
double *test_rounded_operand(const double *values, int64_t rows, int64_t columns, vl_dtype dtype);
double test_round(double value, vl_dtype dtype);

/* max|got - want| / max|want| of the worst row. Values that are not finite must be equal (or both NaN): infinite
 * otherwise. A row of zeros must be exactly zero. */
double test_row_error(const double *got, const double *want, int64_t rows, int64_t columns);
/* max |got - want| / scale, element by element: for sums, where scale is the sum of the magnitudes of the terms. */
double test_scaled_error(const double *got, const double *want, const double *scale, int64_t n);
double test_absolute_error(const double *got, const double *want, int64_t n);
/* Fails the test when the error is above its row in tests/support/tolerance.c. */
void test_within(const char *op, const char *mode, double found);

int test_setup(void **state);
int test_teardown(void **state);
int test_begin(int argc, char **argv);
int test_end(int failures);

#define OPS_TEST(function) cmocka_unit_test_setup_teardown(function, test_setup, test_teardown)
#define OPS_TEST_MAIN(tests)                                                                                           \
    int main(int argc, char **argv)                                                                                    \
    {                                                                                                                  \
        int refused = test_begin(argc, argv);                                                                          \
        return refused ? refused : test_end(cmocka_run_group_tests(tests, NULL, NULL));                                \
    }

#endif
