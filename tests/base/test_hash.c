/* SHA-256 against the examples of FIPS 180-4, and the random numbers that every result of a fit depends on. */
#include "tests/support/temp_folder.h"

#include <math.h>

#include "trainer/base/rng.h"
#include "trainer/base/sha256.h"

static void hash_in_steps(char hex[VL_SHA256_HEX], const char *text, size_t size, size_t step)
{
    vl_sha256 hash;
    uint8_t digest[VL_SHA256_BYTES];
    vl_sha256_init(&hash);
    for (size_t i = 0; i < size; i += step)
        vl_sha256_update(&hash, text + i, size - i < step ? size - i : step);
    vl_sha256_final(&hash, digest);
    vl_sha256_hex(digest, hex);
}

/* The messages of the NIST examples, one block and two; the empty one; and a million letters. */
static void sha256_of_known_messages(void **state)
{
    (void)state;
    static const char *const known[][2] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrst"
         "nopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    char hex[VL_SHA256_HEX];
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        hash_in_steps(hex, known[i][0], strlen(known[i][0]), 1000);
        assert_string_equal(hex, known[i][1]);
    }
    char *letters = malloc(1000000);
    assert_non_null(letters);
    memset(letters, 'a', 1000000);
    hash_in_steps(hex, letters, 1000000, 1000000);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(letters);
}

/* Every length around the block and padding limits, fed in every step, is one hash. */
static void sha256_does_not_depend_on_the_pieces(void **state)
{
    (void)state;
    char text[200], whole[VL_SHA256_HEX], pieces[VL_SHA256_HEX];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * 7);
    for (size_t size = 0; size < sizeof text; size++) {
        hash_in_steps(whole, text, size, sizeof text);
        for (size_t step = 1; step < 70; step++) {
            hash_in_steps(pieces, text, size, step);
            assert_string_equal(pieces, whole);
        }
    }
}

static void sha256_of_a_file(void **state)
{
    char path[TEMP_PATH_SIZE], hex[VL_SHA256_HEX];
    vl_error err = VL_ERROR_INIT;
    temp_text(*state, "abc", "abc");
    assert_int_equal(vl_sha256_file(temp_path(path, *state, "abc"), hex, &err), VL_OK);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    temp_text(*state, "empty", "");
    assert_int_equal(vl_sha256_file(temp_path(path, *state, "empty"), hex, &err), VL_OK);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_int_equal(vl_sha256_file(temp_path(path, *state, "missing"), hex, &err), VL_EIO);
    assert_non_null(strstr(err.message, path));
}

/* ---- random numbers ---- */

/* The generator written down once more, from the authors' reference code (xoshiro256starstar.c, splitmix64.c). */
static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

static uint64_t reference_next(uint64_t s[4])
{
    uint64_t result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

static void rng_is_xoshiro256_seeded_by_splitmix64(void **state)
{
    (void)state;
    vl_rng rng;
    vl_rng_seed(&rng, 0);
    /* the first outputs of splitmix64 from seed 0 */
    static const uint64_t seeded[4] = {0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f, 0xf88bb8a8724c81ec};
    assert_memory_equal(rng.state, seeded, sizeof seeded);
    uint64_t s[4] = {1, 2, 3, 4};
    rng = (vl_rng){{1, 2, 3, 4}};
    assert_true(vl_rng_next(&rng) == 11520); /* rotl(2 * 5, 7) * 9 */
    reference_next(s);
    for (int i = 0; i < 1000; i++)
        assert_true(vl_rng_next(&rng) == reference_next(s));
}

static void rng_repeats_and_seeds_differ(void **state)
{
    (void)state;
    vl_rng a, b, c;
    vl_rng_seed(&a, 42);
    vl_rng_seed(&b, 42);
    vl_rng_seed(&c, 43);
    int equal = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t x = vl_rng_next(&a);
        assert_true(x == vl_rng_next(&b));
        equal += x == vl_rng_next(&c);
    }
    assert_int_equal(equal, 0);
    vl_rng saved = a; /* a checkpoint is a copy */
    double next = vl_rng_normal(&a);
    assert_true(vl_rng_normal(&saved) == next);
}

static void rng_distributions(void **state)
{
    (void)state;
    enum { N = 200000, SIDES = 7 };
    vl_rng rng;
    double sum = 0, squares = 0, uniform = 0;
    int counts[SIDES] = {0};
    vl_rng_seed(&rng, 1);
    for (int i = 0; i < N; i++) {
        double x = vl_rng_normal(&rng), u = vl_rng_uniform(&rng);
        assert_true(isfinite(x) && u >= 0 && u < 1);
        sum += x;
        squares += x * x;
        uniform += u;
        uint64_t side = vl_rng_below(&rng, SIDES);
        assert_true(side < SIDES);
        counts[side]++;
    }
    assert_true(fabs(sum / N) < 0.01 && fabs(squares / N - 1) < 0.02 && fabs(uniform / N - 0.5) < 0.005);
    for (int i = 0; i < SIDES; i++)
        assert_true(abs(counts[i] - N / SIDES) < 800);
    assert_true(vl_rng_below(&rng, 1) == 0);
    uint64_t huge = ((uint64_t)1 << 63) + 1; /* almost half of all draws are rejected */
    for (int i = 0; i < 100; i++)
        assert_true(vl_rng_below(&rng, huge) < huge);
}

static void rng_permutation_holds_everything_once(void **state)
{
    (void)state;
    enum { N = 1000 };
    vl_rng rng;
    int64_t order[N];
    int in_place = 0;
    char seen[N] = {0};
    vl_rng_seed(&rng, 5);
    vl_rng_permutation(&rng, order, N);
    for (int i = 0; i < N; i++) {
        assert_true(order[i] >= 0 && order[i] < N && !seen[order[i]]);
        seen[order[i]] = 1;
        in_place += order[i] == i;
    }
    assert_true(in_place < 10);
    vl_rng_permutation(&rng, order, 0);
    vl_rng_permutation(&rng, order, 1);
    assert_int_equal(order[0], 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_of_known_messages),
        cmocka_unit_test(sha256_does_not_depend_on_the_pieces),
        cmocka_unit_test_setup_teardown(sha256_of_a_file, temp_setup, temp_teardown),
        cmocka_unit_test(rng_is_xoshiro256_seeded_by_splitmix64),
        cmocka_unit_test(rng_repeats_and_seeds_differ),
        cmocka_unit_test(rng_distributions),
        cmocka_unit_test(rng_permutation_holds_everything_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
