#include "tests/kernels/ops/ops_test.h"

#include "kernels/cpu/cpu.h"
#include "tests/support/tolerance.h"
#include "trainer/base/half.h"
#include "trainer/base/rng.h"

enum { N_THREADS = 2, MAX_OBJECTS = 4096, GUARD_ROWS = 2, GUARD_LEFT = 3, GUARD_RIGHT = 7, SMALL = 1 << 20 };
/* Around an input lies a signalling NaN: what is read there shows in the result, and what is computed from it and put
 * back is no longer the same, because it is quiet then. Around an output lies a number. */
static const uint32_t input_guard = 0xffbfffff, output_guard = 0xa5a5a5a5;

vl_device *device;
vl_error error = VL_ERROR_INIT;

static const char *device_name = "cpu";
static bool stream_weights, small_cases;
static vl_rng rng;
static void *host_blocks[MAX_OBJECTS], *device_blocks[MAX_OBJECTS];
static vl_matrix *matrices[MAX_OBJECTS];
static int n_host, n_device, n_matrices;

void test_ok(vl_status status, const char *call, const char *file, int line)
{
    if (status != VL_OK) {
        print_error("%s: %s: %s\n", call, vl_status_name(status), error.message);
        _fail(file, line);
    }
}

void test_refused(vl_status status, const char *call, const char *file, int line)
{
    if (status != VL_EINTERNAL || !strstr(error.message, "violated contract")) {
        print_error("%s: %s, expected a violated contract\n", call, vl_status_name(status));
        _fail(file, line);
    }
    error = (vl_error)VL_ERROR_INIT;
}

static void free_device_objects(void)
{
    for (; n_matrices > 0; n_matrices--)
        vl_matrix_free(device, matrices[n_matrices - 1]);
    for (; n_device > 0; n_device--)
        vl_device_free(device, device_blocks[n_device - 1]);
}

void test_reopen(int n_threads)
{
    free_device_objects();
    vl_device_close(device);
    OK(vl_device_open(&device, device_name, n_threads, &error));
}

bool test_has_bf16(void)
{
    const char *capability = strstr(vl_device_description(device), "compute capability ");
    if (capability)
        return atoi(capability + strlen("compute capability ")) >= 8;
    return ((const vl_cpu *)device->context)->has_bf16_gemm;
}

vl_dtype test_product_dtype(test_matrix_args args)
{
    bool stored = args.precision == VL_PRECISION_AUTO;
    if (stored && args.dtype == VL_F16 && strncmp(vl_device_name(device), "cuda", 4) == 0)
        return VL_F16;
    bool bf16 = args.precision == VL_PRECISION_FAST || (stored && args.dtype == VL_BF16);
    return bf16 && test_has_bf16() ? VL_BF16 : VL_F32;
}

bool test_has_panels(void)
{
    return strcmp(vl_device_name(device), "cpu") == 0 && ((const vl_cpu *)device->context)->has_avx512_bf16;
}

bool test_too_large(int64_t multiplications)
{
    return small_cases && multiplications > SMALL;
}

void *test_memory(size_t count, size_t size)
{
    assert_true(n_host < MAX_OBJECTS);
    void *block = calloc(count ? count : 1, size);
    assert_non_null(block);
    host_blocks[n_host++] = block;
    return block;
}

static vl_tensor device_block(vl_dtype dtype, int64_t rows, int64_t columns)
{
    vl_tensor block;
    assert_true(n_device < MAX_OBJECTS);
    OK(vl_tensor_new(&block, device, dtype, rows, columns, &error));
    device_blocks[n_device++] = block.data;
    return block;
}

static test_tensor *guarded(vl_dtype dtype, int64_t rows, int64_t columns, test_layout layout, uint32_t guard)
{
    int64_t left = layout == STRIDED ? GUARD_LEFT : 0, right = layout == STRIDED ? GUARD_RIGHT : 0;
    int64_t above = layout == BARE ? 0 : GUARD_ROWS;
    test_tensor *tensor = test_memory(1, sizeof *tensor);
    int64_t stride = left + columns + right;
    tensor->block = device_block(dtype, rows + 2 * above, stride);
    tensor->rows = rows;
    size_t bytes = (size_t)((rows + 2 * above) * stride) * vl_dtype_size(dtype);
    tensor->bytes = test_memory(bytes, 1);
    for (size_t i = 0; i < bytes; i++)
        tensor->bytes[i] = (unsigned char)(guard >> 8 * (i % 4));
    OK(vl_device_write(device, &tensor->block, tensor->bytes, &error));
    tensor->first = above * stride + left;
    tensor->t = vl_tensor_columns(vl_tensor_rows(tensor->block, above, rows), left, columns);
    return tensor;
}

test_tensor *test_empty(vl_dtype dtype, int64_t rows, int64_t columns, test_layout layout)
{
    return guarded(dtype, rows, columns, layout, output_guard);
}

static void store(void *at, vl_dtype dtype, double value)
{
    float narrow = (float)value;
    uint16_t half = dtype == VL_F16 ? vl_f32_to_f16(narrow) : vl_f32_to_bf16(narrow);
    int32_t small = dtype == VL_I32 ? (int32_t)value : 0;
    int64_t large = dtype == VL_I64 ? (int64_t)value : 0;
    const void *from = dtype == VL_F32   ? (const void *)&narrow
                       : dtype == VL_I32 ? (const void *)&small
                       : dtype == VL_I64 ? (const void *)&large
                       : dtype == VL_F64 ? (const void *)&value
                                         : (const void *)&half;
    memcpy(at, from, vl_dtype_size(dtype));
}

static double load(const void *at, vl_dtype dtype)
{
    float narrow;
    uint16_t half;
    int32_t small;
    int64_t large;
    double value;
    switch (dtype) {
    case VL_F32: memcpy(&narrow, at, 4); return (double)narrow;
    case VL_F16: memcpy(&half, at, 2); return (double)vl_f16_to_f32(half);
    case VL_BF16: memcpy(&half, at, 2); return (double)vl_bf16_to_f32(half);
    case VL_I32: memcpy(&small, at, 4); return small;
    case VL_F64: memcpy(&value, at, 8); return value;
    default: memcpy(&large, at, 8); return (double)large;
    }
}

test_tensor *test_tensor_of(vl_dtype dtype, const double *values, int64_t rows, int64_t columns, test_layout layout)
{
    test_tensor *tensor = guarded(dtype, rows, columns, layout, input_guard);
    size_t element = vl_dtype_size(dtype);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            store(tensor->bytes + (size_t)(tensor->first + i * tensor->block.row_stride + j) * element, dtype,
                  values[i * columns + j]);
    OK(vl_device_write(device, &tensor->block, tensor->bytes, &error));
    return tensor;
}

test_tensor *test_vector_of(vl_dtype dtype, const double *values, int64_t n)
{
    test_tensor *tensor = test_tensor_of(dtype, values, 1, n, STRIDED);
    tensor->t = vl_tensor_1d(tensor->t.data, dtype, n);
    return tensor;
}

test_tensor *test_bare_vector_of(vl_dtype dtype, const double *values, int64_t n)
{
    test_tensor *tensor = test_tensor_of(dtype, values, 1, n, BARE);
    tensor->t = vl_tensor_1d(tensor->t.data, dtype, n);
    return tensor;
}

test_tensor *test_empty_vector(vl_dtype dtype, int64_t n)
{
    test_tensor *tensor = test_empty(dtype, 1, n, STRIDED);
    tensor->t = vl_tensor_1d(tensor->t.data, dtype, n);
    return tensor;
}

/* Reads the whole block; where `inside` is false only the guards must be equal to what was written. */
static unsigned char *read_checked(const test_tensor *tensor, bool inside)
{
    int64_t stride = tensor->block.row_stride, columns = tensor->t.shape[tensor->t.ndim - 1];
    int64_t rows = tensor->rows;
    size_t element = vl_dtype_size(tensor->block.dtype), n = (size_t)(tensor->block.shape[0] * stride);
    unsigned char *now = test_memory(n, element);
    OK(vl_device_read(device, now, &tensor->block, &error));
    for (size_t i = 0; i < n; i++) {
        int64_t offset = (int64_t)i - tensor->first;
        bool in_view = offset >= 0 && offset / stride < rows && offset % stride < columns;
        if ((inside || !in_view) && memcmp(now + i * element, tensor->bytes + i * element, element) != 0)
            fail_msg("element %zu (row %lld, column %lld of the view) was overwritten", i, (long long)(offset / stride),
                     (long long)(offset % stride));
    }
    return now;
}

double *test_values(const test_tensor *tensor)
{
    const unsigned char *now = read_checked(tensor, false);
    int64_t rows = tensor->rows, columns = tensor->t.shape[tensor->t.ndim - 1];
    size_t element = vl_dtype_size(tensor->block.dtype);
    double *values = test_memory((size_t)(rows * columns), sizeof *values);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            values[i * columns + j] =
                load(now + (size_t)(tensor->first + i * tensor->block.row_stride + j) * element, tensor->block.dtype);
    return values;
}

void test_unchanged(const test_tensor *tensor)
{
    read_checked(tensor, true);
}

vl_matrix *test_matrix(const double *values, int64_t n_out, int64_t n_in, test_matrix_args args)
{
    size_t element = vl_dtype_size(args.dtype), n = (size_t)(n_out * n_in);
    /* the end of the host array is the end of its allocation: an address sanitizer sees reads beyond it */
    unsigned char *host = (unsigned char *)test_memory(n * element + args.misaligned, 1) + args.misaligned;
    for (size_t i = 0; i < n; i++)
        store(host + i * element, args.dtype, values[i]);
    vl_matrix_args all = {host, args.dtype, n_out, n_in, args.precision, args.resident};
    vl_matrix *matrix;
    assert_true(n_matrices < MAX_OBJECTS);
    if (stream_weights && !args.resident)
        vl_device_limit_memory(device, 1);
    OK(vl_matrix_new(&matrix, device, &all, &error));
    vl_device_limit_memory(device, 0);
    assert_int_equal(vl_matrix_rows(matrix), n_out);
    assert_int_equal(vl_matrix_columns(matrix), n_in);
    return matrices[n_matrices++] = matrix;
}

double *test_random(int64_t n, double scale)
{
    double *values = test_memory((size_t)n, sizeof *values);
    for (int64_t i = 0; i < n; i++)
        values[i] = (double)(float)(vl_rng_normal(&rng) * scale);
    return values;
}

double *test_random_rows(int64_t rows, int64_t columns, double scale)
{
    double *values = test_random(rows * columns, scale);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            values[i * columns + j] = (double)(float)(values[i * columns + j] * pow(10, (double)(i % 7 - 3)));
    return values;
}

int64_t test_random_below(int64_t n)
{
    return (int64_t)vl_rng_below(&rng, (uint64_t)n);
}

double test_round(double value, vl_dtype dtype)
{
    unsigned char bytes[8];
    store(bytes, dtype, value);
    return load(bytes, dtype);
}

double *test_rounded(const double *values, int64_t n, vl_dtype dtype)
{
    double *rounded = test_memory((size_t)n, sizeof *rounded);
    for (int64_t i = 0; i < n; i++)
        rounded[i] = test_round(values[i], dtype);
    return rounded;
}

double *test_rounded_operand(const double *values, int64_t rows, int64_t columns, vl_dtype dtype)
{
    double *out = test_memory((size_t)(rows * columns), sizeof *out);
    for (int64_t i = 0; i < rows; i++) {
        double largest = 0, shrink = 1;
        for (int64_t j = 0; j < columns; j++)
            largest = fmax(largest, fabs(values[i * columns + j]));
        while (dtype == VL_F16 && largest * shrink >= 32768)
            shrink /= 2;
        for (int64_t j = 0; j < columns; j++)
            out[i * columns + j] = test_round(shrink * values[i * columns + j], dtype) / shrink;
    }
    return out;
}

double test_absolute_error(const double *got, const double *want, int64_t n)
{
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(want[i]) ? isnan(got[i]) : got[i] == want[i])
            continue;
        if (!isfinite(got[i]) || !isfinite(want[i]))
            return INFINITY;
        worst = fmax(worst, fabs(got[i] - want[i]));
    }
    return worst;
}

double test_scaled_error(const double *got, const double *want, const double *scale, int64_t n)
{
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double difference = test_absolute_error(got + i, want + i, 1);
        if (difference > 0)
            worst = fmax(worst, scale[i] > 0 ? difference / scale[i] : INFINITY);
    }
    return worst;
}

double test_row_error(const double *got, const double *want, int64_t rows, int64_t columns)
{
    double worst = 0;
    for (int64_t i = 0; i < rows; i++) {
        double largest = 0, difference = test_absolute_error(got + i * columns, want + i * columns, columns);
        for (int64_t j = 0; j < columns; j++)
            if (isfinite(want[i * columns + j]))
                largest = fmax(largest, fabs(want[i * columns + j]));
        if (difference > 0)
            worst = fmax(worst, largest > 0 ? difference / largest : INFINITY);
    }
    return worst;
}

void test_within(const char *op, const char *mode, double found)
{
    if (!tolerance_accepts(op, mode, found))
        fail_msg("%s %s: error %.3e is above its bound", op, mode, found);
}

int test_setup(void **state)
{
    (void)state;
    vl_rng_seed(&rng, 20240611);
    return 0;
}

int test_teardown(void **state)
{
    (void)state;
    free_device_objects();
    for (; n_host > 0; n_host--)
        free(host_blocks[n_host - 1]);
    return 0;
}

int test_begin(int argc, char **argv)
{
    if (argc > 1)
        device_name = argv[1];
    for (int i = 2; i < argc; i++) {
        stream_weights |= !strcmp(argv[i], "streamed");
        small_cases |= !strcmp(argv[i], "small");
    }
    if (vl_device_open(&device, device_name, N_THREADS, &error) != VL_OK) {
        printf("%s\n", error.message);
        /* only a GPU may be missing */
        return !strncmp(device_name, "cuda", 4) && strcmp(device_name, "cuda_on_cpu") != 0 ? 77 : 1;
    }
    printf("device: %s\n", vl_device_description(device));
    return 0;
}

int test_end(int failures)
{
    vl_device_close(device);
    return tolerance_report() + failures > 0;
}
