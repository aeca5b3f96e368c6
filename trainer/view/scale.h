/* view/scale.h - the colour scale of pages and figures. */
#ifndef VL_VIEW_SCALE_H
#define VL_VIEW_SCALE_H

#include <stdint.h>

/* 0xRRGGBB of t in 0 to 1: cividis, perceptually uniform, and the same to people with and without red-green blindness.
 */
int32_t vl_scale_colour(double t);
/* Black or white, whichever can be read on a colour. */
int32_t vl_scale_ink_on(int32_t rgb);
/* Colours of lines that can be told apart by everybody (Okabe and Ito, without yellow and black). */
int32_t vl_scale_line(int n);

#endif
