/* tests/support/fit_test.h - what the tests of the fit share. */
#ifndef FIT_TEST_H
#define FIT_TEST_H

#include <stddef.h>
#include <stdint.h>

#include <vlens/fit.h>
#include <vlens/memory.h>

#include "kernels/ops.h"
#include "trainer/hf/safetensors.h"

/* Fails the running test with the message of `err` unless `status` is VL_OK. */
void ok(vl_status status, const vl_error *err);
/* An empty folder under the working folder, and its removal with all that is in it. Freed by folder_remove. */
char *folder_new(void);
void folder_remove(char *folder);
/* `folder`/`name` in static memory that the next call but three reuses. */
const char *in(const char *folder, const char *name);

/* The defaults, with a small run on top. The caller frees it. */
vl_config *small_config(const char *output);
/* A synthetic cache of 3 layers, 24 samples of 24 rows, width 16, 40 tokens, in `folder`/cache. The caller closes. */
vl_cache *small_cache(const char *folder);

/* A float64 tensor of a fixture, narrowed; freed with free(). */
float *fixture_floats(const vl_safetensors *file, const char *name, size_t n);
/* max|a - b| / max|b|; infinite where a value is no number. */
double relative_error(const float *a, const float *b, size_t n);
/* A tensor on the device with these values. */
vl_tensor to_device(vl_device *device, const float *values, int64_t rows, int64_t columns);
/* Its values; freed with free(). */
float *from_device(vl_device *device, vl_tensor tensor);

#endif
