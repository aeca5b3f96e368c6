/* model/sequence.h - inside model/: what a sequence knows of its rows. */
#ifndef VL_MODEL_SEQUENCE_H
#define VL_MODEL_SEQUENCE_H

#include <vlens/model.h>

/* The position of the row that would come behind the last one: the largest of all axes + 1. */
int64_t vl_sequence_next_position(const vl_sequence *sequence);

#endif
