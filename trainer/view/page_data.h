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
 * `paths`, of one lens: whole paths of the words that are likeliest at each position; [counts] paths a position, their
 * tokens one after the other, and n_states numbers each. As many as VL_PAGE_PATH_NUMBERS allows, so that 600 positions
 * of 33 states stay below 3 MB; a page of a hundred positions has all.
 *
 * Cross-attention weights, of which there are more than anybody reads, take one byte each [layer, position, key]:
 * code 0 is below 1e-6, any other 10^(-6 + 6 (code - 1) / 254), a step of 5.6 %. */
#ifndef VL_VIEW_PAGE_DATA_H
#define VL_VIEW_PAGE_DATA_H

#include <jansson.h>

#include "trainer/base/str.h"
#include "trainer/view/reading.h"

enum { VL_PAGE_PATH_NUMBERS = 240000, VL_PAGE_LEAST_PATHS = 8 };
enum { VL_PAGE_LOWEST_P = -7, VL_PAGE_LOWEST_NATS = -4, VL_PAGE_NOT_FINITE = 65535 };

uint16_t vl_page_code(float value, int lowest);
uint8_t vl_page_weight_code(float weight);
/* Where a page of a study leads: addresses beside it, NULL where there is none. */
typedef struct vl_page_links {
    const char *index, *previous, *next;
} vl_page_links;
/* Appends the JSON. No '<' stands in it: inside a <script> no token can end the element. links: may be NULL. */
vl_status vl_page_data(vl_str *out, const vl_reading *reading, const vl_page_links *links, vl_error *err);
/* The `paths` of a reading with trajectories: index is [vocab_size], the numbers of tokens on the page. NULL: no
 * memory. */
json_t *vl_page_paths(const vl_reading *reading, const int32_t *index, int index_bytes);
/* vl_reading_write_page with links. */
vl_status vl_page_write_linked(const char *path, const vl_reading *reading, const vl_page_links *links, vl_error *err);

#endif
