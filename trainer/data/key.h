/* data/key.h - the identity of a sample: what it says, not where it stands. */
#ifndef VL_DATA_KEY_H
#define VL_DATA_KEY_H

#include "trainer/data/samples.h"

/* sha256 (hex) of what the model will read of a sample and what is stored beside it: its ids, or its prompt, answer and
 * the sha256 of its pictures [n_images]. Which line it is, and what its files are called, do not count. */
void vl_sample_key(char hex[65], const vl_sample *sample, const char *const *image_sha256);

#endif
