/* unembed_hash against numpy.array_str: expected values by make_unembed_hash.py, written by NumPy 1.26. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/base/half.h"
#include "trainer/lens/unembed_hash.h"

enum { V = 40, D = 30 };

static const struct {
    double scale;
    vl_dtype dtype;
    const char *expected;
} cases[] = {
    {4000.0, VL_F32, "126d94fe0c261274b6f924942fad4c0c0839874d1ef5126bc5891d11f21fcb84"},
    {4000.0, VL_F16, "5bda413def26786f3bf08b1980e7925b2a117d5fc5d1e27ce3f98175d0fc58d5"},
    {4000.0, VL_BF16, "55ad6841613a4550681a33cf9a788cb23b77b6a30dca18e93d0fc0b6c3c410f7"},
    {8.0, VL_F32, "0a305811debec700c3713398c2307884c99cdb3a3641691d2f089c01cfaf3b56"},
    {8.0, VL_F16, "0a305811debec700c3713398c2307884c99cdb3a3641691d2f089c01cfaf3b56"},
    {8.0, VL_BF16, "1ef5e6af073f9efc1f1528d0e27192ff988d39eb134cfeabeb06f3fd14604fcb"},
    {1.0, VL_F32, "9ae4659ec72b98b1e702763a0a0ee4b3f9f1f018f2eab5bd975c739b77a6d485"},
    {1.0, VL_F16, "9ae4659ec72b98b1e702763a0a0ee4b3f9f1f018f2eab5bd975c739b77a6d485"},
    {1.0, VL_BF16, "9ae4659ec72b98b1e702763a0a0ee4b3f9f1f018f2eab5bd975c739b77a6d485"},
    {0.3, VL_F32, "0b9938d1a223f118b6c40b376a0bb00ab536cf14f0e7fcc192c0e9c5c50b81c8"},
    {0.3, VL_F16, "0b9938d1a223f118b6c40b376a0bb00ab536cf14f0e7fcc192c0e9c5c50b81c8"},
    {0.3, VL_BF16, "f972cf958881a341a24852e0b794f79c597feb5d83692886dbf7f0aa7f34e634"},
    {0.04, VL_F32, "12aa0599bbc6a294ad9737c6e9c88f36b5983b92d30d1cbc2e146a84f55d96b9"},
    {0.04, VL_F16, "12aa0599bbc6a294ad9737c6e9c88f36b5983b92d30d1cbc2e146a84f55d96b9"},
    {0.04, VL_BF16, "12aa0599bbc6a294ad9737c6e9c88f36b5983b92d30d1cbc2e146a84f55d96b9"},
    {0.002, VL_F32, "a0a535d25ec46e0b2dfc8025a44e44e183ccf16eca34382dceae886a3245a961"},
    {0.002, VL_F16, "a0a535d25ec46e0b2dfc8025a44e44e183ccf16eca34382dceae886a3245a961"},
    {0.002, VL_BF16, "43996621e73afe9a56bb66caaad922f8b7ef82f7de8475fc139c10f0049497d2"},
    {3e-05, VL_F32, "7b8eda7bee9c9492ecccf7534923ed6f95df36e5b5b4e13d37cbb3a7858cb327"},
    {3e-05, VL_F16, "dc351db0a222d2baa79dd109ba3e631d16ff8f9f6ba0d8478d35e209db8ab746"},
    {3e-05, VL_BF16, "0527388fb9c8b9e728933401797006d30b7401e514f1546f5ddebc31007f208d"},
    {0.0, VL_F32, "12aa0599bbc6a294ad9737c6e9c88f36b5983b92d30d1cbc2e146a84f55d96b9"},
    {0.0, VL_F16, "12aa0599bbc6a294ad9737c6e9c88f36b5983b92d30d1cbc2e146a84f55d96b9"},
    {0.0, VL_BF16, "12aa0599bbc6a294ad9737c6e9c88f36b5983b92d30d1cbc2e146a84f55d96b9"},
};

/* [V, D] in 32 bits or 16, the same numbers as matrix() of the script. */
static void fill(uint8_t *out, double scale, vl_dtype dtype)
{
    for (uint64_t k = 0; k < V * D; k++) {
        uint32_t u = (uint32_t)(k / D * 2654435761u + k % D * 40503u * 65599u), bits;
        float x = (float)(((double)u / 4294967296.0 - 0.5) * scale);
        memcpy(&bits, &x, 4);
        uint16_t half = dtype == VL_F16 ? vl_f32_to_f16(x) : (uint16_t)(bits >> 16);
        memcpy(out + k * vl_dtype_size(dtype), dtype == VL_F32 ? (void *)&x : (void *)&half, vl_dtype_size(dtype));
    }
}

static void test_numpy(void **state)
{
    (void)state;
    static uint8_t weight[V * D * 4];
    char hex[65];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fill(weight, cases[i].scale, cases[i].dtype);
        const vl_head_source head = {.d_model = D, .vocab_size = V, .weight_dtype = cases[i].dtype, .weight = weight};
        assert_true(vl_unembed_hash(hex, &head));
        if (strcmp(hex, cases[i].expected) != 0)
            fail_msg("scale %g, %s: %s, expected %s", cases[i].scale, vl_dtype_name(cases[i].dtype), hex,
                     cases[i].expected);
    }
}

/* What NumPy prints by other rules has no hash. */
static void test_none(void **state)
{
    (void)state;
    static float weight[V * D];
    char hex[65] = "x";
    fill((uint8_t *)weight, 1.0, VL_F32);
    vl_head_source head = {.d_model = D, .vocab_size = 33, .weight_dtype = VL_F32, .weight = weight};
    assert_false(vl_unembed_hash(hex, &head)); /* 990 elements */
    assert_string_equal(hex, "");
    head = (vl_head_source){.d_model = 6, .vocab_size = 200, .weight_dtype = VL_F32, .weight = weight};
    assert_false(vl_unembed_hash(hex, &head));
    head = (vl_head_source){.d_model = D, .vocab_size = V, .weight_dtype = VL_F32, .weight = weight};
    assert_true(vl_unembed_hash(hex, &head));
    memset(&weight[V * D - 1], 0xff, sizeof weight[0]); /* NaN */
    assert_false(vl_unembed_hash(hex, &head));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numpy),
        cmocka_unit_test(test_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
