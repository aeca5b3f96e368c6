/* export/unembed_hash.h - the weak identity that the package tuned-lens keeps of an unembedding matrix. */
#ifndef VL_EXPORT_UNEMBED_HASH_H
#define VL_EXPORT_UNEMBED_HASH_H

#include "trainer/model/head.h"

/* sha256 of numpy.array_str(W, precision=1), W the [V, D] unembedding as float32 (tuned_lens/utils.py, tensor_hash).
 * NumPy abbreviates what has more than 1000 elements, so only the 6 x 6 corner elements enter, with one decimal.
 * False, and hex = "": a matrix that NumPy would print otherwise (small, or with NaN or infinity in its corners). */
bool vl_unembed_hash(char hex[65], const vl_head_source *head);

#endif
