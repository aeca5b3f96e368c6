/* view/synthetic_reading.h - a reading of random numbers and of tokens that mean harm. */
#ifndef SYNTHETIC_READING_H
#define SYNTHETIC_READING_H

#include "trainer/view/reading.h"

enum { HOSTILE_TOKENS = 12 };
extern const char *const hostile_tokens[HOSTILE_TOKENS];

/* A picture with a grid of side x side patches, then 3 text rows, one last row, one generated; tuned and logit cells.
 * The first tokens of the vocabulary are the hostile ones, and every one of them occurs. NULL when out of memory. */
vl_reading *synthetic_reading_new(int side, int64_t n_states, int64_t k, int64_t vocab_size);
/* The same with any tiles. */
vl_reading *synthetic_reading_tiles(const vl_picture_tile *tiles, int n_tiles, int64_t n_states, int64_t k,
                                    int64_t vocab_size);
/* Adds trajectories, of random numbers. False when out of memory. */
bool synthetic_reading_paths(vl_reading *r);
/* Puts the middle square of a picture file in the place of the picture. False: it cannot be read. */
bool synthetic_reading_photograph(vl_reading *r, const char *path);

#endif
