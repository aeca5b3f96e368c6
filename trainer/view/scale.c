#include "trainer/view/scale.h"

#include <math.h>

static const double cividis[10][3] = {{0, 34, 78},     {18, 53, 112},   {59, 73, 108},   {87, 93, 109},
                                      {112, 113, 115}, {138, 134, 120}, {165, 156, 116}, {195, 179, 105},
                                      {225, 204, 85},  {254, 232, 56}};

int32_t vl_scale_colour(double t)
{
    double x = fmin(fmax(t, 0), 1) * 9;
    int n = x >= 9 ? 8 : (int)x;
    int32_t rgb = 0;
    for (int c = 0; c < 3; c++)
        rgb = rgb << 8 | (int32_t)lrint(cividis[n][c] + (cividis[n + 1][c] - cividis[n][c]) * (x - n));
    return rgb;
}

int32_t vl_scale_ink_on(int32_t rgb)
{
    static const double weight[3] = {0.2126, 0.7152, 0.0722};
    double luminance = 0;
    for (int c = 0; c < 3; c++) {
        double v = (rgb >> (16 - 8 * c) & 255) / 255.0;
        luminance += weight[c] * (v <= 0.04045 ? v / 12.92 : pow((v + 0.055) / 1.055, 2.4));
    }
    return luminance > 0.179 ? 0x000000 : 0xffffff;
}

int32_t vl_scale_line(int n)
{
    static const int32_t colours[] = {0x0072b2, 0xd55e00, 0x007a5a, 0xb0457c, 0x946000, 0x2b7fb0};
    return colours[n % 6];
}
