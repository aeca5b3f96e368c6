/* view/page_data.h - the numbers of a page.
 *
 * JSON with the bulk as base64 of little-endian arrays, [n_positions, n_states, (k)]: 600 positions x 33 states x
 * top-5 through two lenses take 1.3 MB, where plain JSON numbers would take 3. Tokens are indices into `vocab`
 * (2 bytes, 4 where there are more than 65535). `tracked` are the words that were asked for, at every cell. A number is
 * a 16-bit code that holds its first four significant decimal digits: code 0 is 0 or below the smallest, 65535 is not
 * finite or too large, any other
 *
 *     code = 1 + (exponent - lowest) * 9000 + mantissa - 1000        value = mantissa * 10^(exponent - 3)
 *
 * with lowest = -7 for probabilities and -4 for nats. What is rounded is the number that the JSON of `topk` prints.
 *
 * Cross-attention weights, of which there are more than anybody reads, take one byte each [layer, position, key]:
 * code 0 is below 1e-6, any other 10^(-6 + 6 (code - 1) / 254), a step of 5.6 %. */
#ifndef VL_VIEW_PAGE_DATA_H
#define VL_VIEW_PAGE_DATA_H

#include "trainer/base/str.h"
#include "trainer/view/reading.h"

enum { VL_PAGE_LOWEST_P = -7, VL_PAGE_LOWEST_NATS = -4, VL_PAGE_NOT_FINITE = 65535 };

uint16_t vl_page_code(float value, int lowest);
uint8_t vl_page_weight_code(float weight);
/* Appends the JSON. No '<' stands in it: inside a <script> no token can end the element. */
vl_status vl_page_data(vl_str *out, const vl_reading *reading, vl_error *err);

#endif
