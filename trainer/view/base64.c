#include "trainer/view/base64.h"

void vl_base64_put(vl_str *out, const uint8_t *data, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t three = (uint32_t)data[i] << 16;
        three |= i + 1 < n ? (uint32_t)data[i + 1] << 8 : 0;
        three |= i + 2 < n ? data[i + 2] : 0;
        char four[4] = {digits[three >> 18], digits[three >> 12 & 63], i + 1 < n ? digits[three >> 6 & 63] : '=',
                        i + 2 < n ? digits[three & 63] : '='};
        vl_str_append(out, four, sizeof four);
    }
}
