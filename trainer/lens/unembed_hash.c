/* unembed_hash.c - numpy.array_str(W, precision=1) of an abbreviated float32 matrix, by NumPy's rules
 * (numpy/core/arrayprint.py, FloatingFormat): one decimal, or one decimal with an exponent where values lie too far
 * apart; every text padded to common widths. */
#include "trainer/lens/unembed_hash.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/base/half.h"
#include "trainer/base/sha256.h"

enum { EDGE = 3, SIDE = 2 * EDGE, N_CORNERS = SIDE * SIDE, THRESHOLD = 1000, TEXT_SIZE = 32, LINE_SIZE = 75 };

/* A printed number in three parts: "-1" "." "5" "e-02". */
typedef struct number {
    char whole[TEXT_SIZE], fraction[4], exponent[8];
} number;

static float element(const vl_head_source *head, int64_t row, int64_t column)
{
    return vl_widen_at(head->weight, head->weight_dtype, (size_t)row * (size_t)head->d_model + (size_t)column);
}

/* False where a value is not finite: NumPy then pads by other rules. */
static bool read_corners(float out[N_CORNERS], const vl_head_source *head)
{
    for (int r = 0; r < SIDE; r++)
        for (int c = 0; c < SIDE; c++) {
            float value =
                element(head, r < EDGE ? r : head->vocab_size - SIDE + r, c < EDGE ? c : head->d_model - SIDE + c);
            if (!isfinite(value))
                return false;
            out[r * SIDE + c] = value;
        }
    return true;
}

/* The choice is made in float32, over the values that are not zero. */
static bool needs_exponent(const float values[N_CORNERS])
{
    float most = 0, least = INFINITY;
    for (int i = 0; i < N_CORNERS; i++) {
        float size = fabsf(values[i]);
        if (size == 0)
            continue;
        most = size > most ? size : most;
        least = size < least ? size : least;
    }
    return most > 0 && (most >= 1e6f || least < 0.0001f || most / least > 1000.0f);
}

/* printf rounds the exact value half to even, as NumPy does; NumPy then drops zeros at the end. */
static void split_number(number *out, float value, bool exponent)
{
    char text[64];
    snprintf(text, sizeof text, exponent ? "%.1e" : "%.1f", (double)value);
    size_t whole = strspn(text, "-0123456789");
    memset(out, 0, sizeof *out);
    memcpy(out->whole, text, whole < TEXT_SIZE ? whole : TEXT_SIZE - 1);
    if (text[whole + 1] != '0')
        out->fraction[0] = text[whole + 1];
    if (exponent)
        snprintf(out->exponent, sizeof out->exponent, "%.7s", text + whole + 2);
}

/* Decimal point: never the locale's. Zeros fill a fraction before an exponent, spaces behind one without. */
static void join_number(char text[TEXT_SIZE], const number *n, int whole, int fraction, bool exponent)
{
    const char *digits = n->fraction[0] ? n->fraction : exponent ? "0" : " ";
    snprintf(text, TEXT_SIZE, "%*.16s.%.*s%s", whole, n->whole, fraction, digits, n->exponent);
}

static void hash_text(vl_sha256 *hash, const char *text)
{
    vl_sha256_update(hash, text, strlen(text));
}

/* False where a line is too long for NumPy's 75 columns, so that it would break it. */
static bool hash_matrix(char hex[65], char texts[N_CORNERS][TEXT_SIZE])
{
    vl_sha256 hash;
    uint8_t digest[VL_SHA256_BYTES];
    vl_sha256_init(&hash);
    for (int r = 0; r < SIDE; r++) {
        char(*t)[TEXT_SIZE] = texts + (size_t)r * SIDE, line[8 * TEXT_SIZE];
        int n = snprintf(line, sizeof line, "[%s %s %s ... %s %s %s]", t[0], t[1], t[2], t[3], t[4], t[5]);
        if (n >= LINE_SIZE - 1)
            return false;
        hash_text(&hash, r == 0 ? "[" : r == EDGE ? "\n ...\n " : "\n ");
        hash_text(&hash, line);
    }
    hash_text(&hash, "]");
    vl_sha256_final(&hash, digest);
    vl_sha256_hex(digest, hex);
    return true;
}

bool vl_unembed_hash(char hex[65], const vl_head_source *head)
{
    float values[N_CORNERS];
    number numbers[N_CORNERS];
    char texts[N_CORNERS][TEXT_SIZE];
    int whole = 0, fraction = 0;
    hex[0] = 0;
    if (head->d_model <= SIDE || head->vocab_size <= SIDE || head->vocab_size <= THRESHOLD / head->d_model ||
        !read_corners(values, head))
        return false;
    bool exponent = needs_exponent(values);
    for (int i = 0; i < N_CORNERS; i++) {
        split_number(&numbers[i], values[i], exponent);
        int w = (int)strlen(numbers[i].whole), f = (int)strlen(numbers[i].fraction);
        whole = w > whole ? w : whole;
        fraction = f > fraction ? f : fraction;
    }
    for (int i = 0; i < N_CORNERS; i++)
        join_number(texts[i], &numbers[i], whole, fraction, exponent);
    return hash_matrix(hex, texts);
}
