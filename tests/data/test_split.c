/* The split against values of Python's hashlib, and the rule that no image is on both sides. */
#include "tests/support/temp_folder.h"

#include "trainer/data/split.h"

/* int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") */
static void test_hash(void **state)
{
    (void)state;
    assert_true(vl_split_hash(42, "What is this?") == UINT64_C(0xad229ff1f8f408e9));
    assert_true(vl_split_hash(0, "") == UINT64_C(0xba768b331fd86cec));
    assert_true(vl_split_hash(-7, "\xc3\xa4") == UINT64_C(0x04a54cfd61f97de1));
}

static void test_share(void **state)
{
    (void)state;
    assert_false(vl_split_is_heldout(0, 0.0));
    assert_true(vl_split_is_heldout(0, 1e-300));
    assert_true(vl_split_is_heldout(UINT64_C(1) << 62, 0.2500001));
    assert_false(vl_split_is_heldout(UINT64_C(1) << 62, 0.25)); /* below, not at */
    assert_true(vl_split_is_heldout(UINT64_MAX - 4096, 1.0));
}

enum { N = 400 };

/* A chain a-b, b-c, c-d ... makes one group, whatever the order of the samples. */
static void test_chain(void **state)
{
    (void)state;
    char names[N][32];
    const char *pairs[N][2];
    vl_split_sample samples[N];
    uint8_t heldout[N];
    uint64_t smallest = UINT64_MAX;
    for (int i = 0; i < N; i++)
        snprintf(names[i], sizeof names[i], "image %d", i * 7919 % N);
    for (int i = 0; i < N; i++) {
        pairs[i][0] = names[i];
        pairs[i][1] = names[(i + 1) % N];
        samples[i] = (vl_split_sample){"unused", pairs[i], 2};
        uint64_t hash = vl_split_hash(3, names[i]);
        smallest = hash < smallest ? hash : smallest;
    }
    double just_above = (double)smallest * 0x1p-64 * 1.0001;
    assert_int_equal(vl_split_assign(heldout, samples, N, 3, just_above, NULL), VL_OK);
    for (int i = 0; i < N; i++)
        assert_int_equal(heldout[i], 1);
    assert_int_equal(vl_split_assign(heldout, samples, N, 3, just_above / 1.001, NULL), VL_OK);
    for (int i = 0; i < N; i++)
        assert_int_equal(heldout[i], 0);
}

/* A prompt without an image stands for itself; an image that is a second one of a sample still joins. */
static void test_mixed(void **state)
{
    (void)state;
    const char *a[] = {"aa"}, *ba[] = {"bb", "aa"}, *b[] = {"bb"}, *c[] = {"cc"};
    vl_split_sample samples[] = {{"p", a, 1}, {"p", NULL, 0}, {"q", c, 1}, {"p", ba, 2}, {"r", b, 1}, {"p", NULL, 0}};
    for (int64_t seed = 0; seed < 200; seed++) {
        uint8_t heldout[6];
        assert_int_equal(vl_split_assign(heldout, samples, 6, seed, 0.5, NULL), VL_OK);
        uint64_t ha = vl_split_hash(seed, "aa"), hb = vl_split_hash(seed, "bb");
        assert_int_equal(heldout[0], vl_split_is_heldout(ha < hb ? ha : hb, 0.5));
        assert_int_equal(heldout[3], heldout[0]);
        assert_int_equal(heldout[4], heldout[0]);
        assert_int_equal(heldout[1], vl_split_is_heldout(vl_split_hash(seed, "p"), 0.5));
        assert_int_equal(heldout[5], heldout[1]);
        assert_int_equal(heldout[2], vl_split_is_heldout(vl_split_hash(seed, "cc"), 0.5));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_mixed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
