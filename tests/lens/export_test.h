/* tests/lens/export_test.h - a small lens and its model, for the tests of export and import. */
#ifndef EXPORT_TEST_H
#define EXPORT_TEST_H

#include "tests/support/fit_test.h"
#include "trainer/lens/lens.h"
#include "trainer/model/head.h"

enum { D = 40, V = 50, LAYERS = 3 };

/* Layer 0: bias alone; layer 1: not trained; layer 2: both. Values are exact in every element type. */
typedef struct example {
    vl_device *device;
    vl_head *head;
    float weight[D * D], bias[2][D], norm[D], unembedding[V * D];
    vl_lens *lens;
} example;

/* The lens lies in `folder`/lens. */
void example_new(example *e, const char *folder);
void example_free(example *e);
/* Fails the running test unless the lens in `path` holds the example's layers in `dtype`. */
void example_check(const example *e, const char *path, vl_dtype dtype);

#endif
