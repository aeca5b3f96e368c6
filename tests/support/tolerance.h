/* tests/support/tolerance.h - the one table of error bounds that tests accept, with what was measured beside each.
 *
 * A bound is at most 4 times the measured value. Rows are found by operation and mode; every test program ends with
 * one line per row that it used. */
#ifndef VL_TESTS_TOLERANCE_H
#define VL_TESTS_TOLERANCE_H

#include <stdbool.h>

/* Records an error (the largest of each row is kept) and says whether it is within its bound. An unknown row is
 * accepted at first, so that one run measures everything, and reported as a failure at the end. NaN is never within. */
bool tolerance_accepts(const char *op, const char *mode, double error);
/* Prints `op mode measured bound` for each row used, to stdout. Returns the number of rows that are missing from the
 * table or whose bound is too generous. */
int tolerance_report(void);

#endif
