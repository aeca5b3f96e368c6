#include "trainer/model/mrope.h"

int32_t vl_mrope_positions(int32_t (*out)[3], const int32_t *image, const int16_t (*patch)[3], int64_t n)
{
    int32_t next = 0;
    for (int64_t t = 0; t < n;) {
        if (image[t] < 0) {
            out[t][0] = out[t][1] = out[t][2] = next++;
            t++;
            continue;
        }
        const int32_t picture = image[t];
        int32_t longer = 0;
        for (; t < n && image[t] == picture; t++) {
            const int32_t row = patch[t][1], column = patch[t][2];
            out[t][0] = next;
            out[t][1] = next + row;
            out[t][2] = next + column;
            longer = row >= longer ? row + 1 : longer;
            longer = column >= longer ? column + 1 : longer;
        }
        next += longer;
    }
    return next;
}
