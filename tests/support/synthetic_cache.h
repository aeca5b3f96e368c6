/* support/synthetic_cache.h - a small random cache on disk, for tests that need one without a model. */
#ifndef SYNTHETIC_CACHE_H
#define SYNTHETIC_CACHE_H

#include <stdint.h>

#include <vlens/error.h>
#include <vlens/tensor.h>

/* Writes shards and an index to `dir` (created where missing). State L is a noisy affine image of every earlier
 * state, so that an affine lens can fit it. Each sample has one picture: a third of its rows are image rows, then text,
 * then one last row. About a quarter of the samples are held out. The head is RMS norm + [v, d] in `dtype`.
 * The same arguments give the same bits. */
vl_status synthetic_cache_write(const char *dir, int64_t n_layers, int64_t n_samples, int64_t rows_per_sample,
                                int64_t d, int64_t v, vl_dtype dtype, uint64_t seed, vl_error *err);

#endif
