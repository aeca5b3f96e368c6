/* model/mrope.h - positions in three axes, as Qwen2-VL and its followers count them (get_rope_index). */
#ifndef VL_MODEL_MROPE_H
#define VL_MODEL_MROPE_H

#include <stdint.h>

/* out: [n][3], time, row and column of every row of a sequence. A text row has one number in all three and the next
 * row the following one. The rows of a picture stand at (c, c + row, c + column) of its merged grid, and what follows
 * goes on at c + max(rows, columns), not at c + rows * columns. image: [n], -1 for text; patch: [n] tile, row, column,
 * pictures in raster order. Returns the next position. */
int32_t vl_mrope_positions(int32_t (*out)[3], const int32_t *image, const int16_t (*patch)[3], int64_t n);

#endif
