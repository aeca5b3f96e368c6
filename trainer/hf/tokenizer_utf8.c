#include "trainer/hf/tokenizer_parts.h"

#include <string.h>

int vl_utf8_next(uint32_t *code, const char *s, size_t n)
{
    const uint8_t *b = (const uint8_t *)s;
    if (b[0] < 0x80) {
        *code = b[0];
        return 1;
    }
    /* Overlong forms, surrogates and values above U+10FFFF are told by the second byte alone. */
    uint8_t low = 0x80, high = 0xbf;
    int length;
    uint32_t value;
    if (b[0] >= 0xc2 && b[0] <= 0xdf) {
        length = 2;
        value = b[0] & 0x1fu;
    } else if (b[0] >= 0xe0 && b[0] <= 0xef) {
        length = 3;
        value = b[0] & 0x0fu;
        low = b[0] == 0xe0 ? 0xa0 : low;
        high = b[0] == 0xed ? 0x9f : high;
    } else if (b[0] >= 0xf0 && b[0] <= 0xf4) {
        length = 4;
        value = b[0] & 0x07u;
        low = b[0] == 0xf0 ? 0x90 : low;
        high = b[0] == 0xf4 ? 0x8f : high;
    } else {
        return -1;
    }
    for (int i = 1; i < length; i++) {
        if ((size_t)i >= n || b[i] < low || b[i] > high)
            return -i;
        value = value << 6 | (b[i] & 0x3fu);
        low = 0x80;
        high = 0xbf;
    }
    *code = value;
    return length;
}

size_t vl_utf8_check(const char *s, size_t n)
{
    size_t at = 0;
    uint32_t code;
    while (at < n) {
        int length = vl_utf8_next(&code, s + at, n - at);
        if (length < 0)
            return at;
        at += (size_t)length;
    }
    return n;
}

void vl_utf8_put(vl_str *out, uint32_t code)
{
    char b[4];
    if (code < 0x80) {
        vl_str_putc(out, (char)code);
    } else if (code < 0x800) {
        b[0] = (char)(0xc0 | code >> 6);
        b[1] = (char)(0x80 | (code & 0x3f));
        vl_str_append(out, b, 2);
    } else if (code < 0x10000) {
        b[0] = (char)(0xe0 | code >> 12);
        b[1] = (char)(0x80 | (code >> 6 & 0x3f));
        b[2] = (char)(0x80 | (code & 0x3f));
        vl_str_append(out, b, 3);
    } else {
        b[0] = (char)(0xf0 | code >> 18);
        b[1] = (char)(0x80 | (code >> 12 & 0x3f));
        b[2] = (char)(0x80 | (code >> 6 & 0x3f));
        b[3] = (char)(0x80 | (code & 0x3f));
        vl_str_append(out, b, 4);
    }
}

void vl_utf8_put_lossy(vl_str *out, const char *s, size_t n)
{
    size_t at = 0;
    while (at < n) {
        size_t valid = vl_utf8_check(s + at, n - at);
        uint32_t code;
        vl_str_append(out, s + at, valid);
        at += valid;
        if (at < n) {
            at += (size_t)-vl_utf8_next(&code, s + at, n - at);
            vl_utf8_put(out, 0xfffd);
        }
    }
}

size_t vl_utf8_last(const char *s, size_t n)
{
    size_t length = 1;
    while (length < n && ((uint8_t)s[n - length] & 0xc0) == 0x80)
        length++;
    return length;
}

bool vl_utf8_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* GPT-2 keeps the printable Latin-1 bytes and gives the 68 others, in order, the characters from U+0100 on:
 * 0-32 -> 0-32, 127-160 -> 33-66, 173 -> 67. */
uint32_t vl_byte_to_char(uint8_t byte)
{
    if (byte <= 32)
        return 256u + byte;
    if (byte >= 127 && byte <= 160)
        return 256u + 33u + byte - 127u;
    return byte == 173 ? 256u + 67u : byte;
}

int vl_char_to_byte(uint32_t code)
{
    if (code < 256)
        return vl_byte_to_char((uint8_t)code) == code ? (int)code : -1;
    if (code <= 256 + 32)
        return (int)code - 256;
    if (code <= 256 + 66)
        return (int)code - 256 - 33 + 127;
    return code == 256 + 67 ? 173 : -1;
}
